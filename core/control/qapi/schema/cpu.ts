import { command } from '../declare.ts';
import { any, array, bool, enumeration, opt, str, struct } from '../types.ts';

export const CpuModelExpansionType = enumeration('CpuModelExpansionType', ['static', 'full']);
export const CpuModelInfo = struct('CpuModelInfo', { name: str, props: opt(any) });
export const CpuModelExpansionInfo = struct('CpuModelExpansionInfo', { model: CpuModelInfo });
export const CpuDefinitionInfo = struct('CpuDefinitionInfo', {
  name: str,
  'migration-safe': opt(bool),
  static: bool,
  'unavailable-features': opt(array(str)),
  typename: str,
  'alias-of': opt(str),
  deprecated: bool,
});

export const commands = {
  'query-cpu-model-expansion': command('The properties of a CPU model', {
    args: { type: CpuModelExpansionType, model: CpuModelInfo },
    returns: CpuModelExpansionInfo,
  }),
  'query-cpu-definitions': command('The CPU models', { returns: array(CpuDefinitionInfo) }),
};
