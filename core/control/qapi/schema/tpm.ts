import { command } from '../declare.ts';
import { array, enumeration, opt, str, struct, union } from '../types.ts';

export const TpmModel = enumeration('TpmModel', ['tpm-tis', 'tpm-crb', 'tpm-spapr']);
export const TpmType = enumeration('TpmType', ['passthrough', 'emulator']);
export const TPMPassthroughOptions = struct('TPMPassthroughOptions', { path: opt(str), 'cancel-path': opt(str) });
export const TPMPassthroughOptionsWrapper = struct('TPMPassthroughOptionsWrapper', { data: TPMPassthroughOptions });
export const TPMEmulatorOptions = struct('TPMEmulatorOptions', { chardev: str });
export const TPMEmulatorOptionsWrapper = struct('TPMEmulatorOptionsWrapper', { data: TPMEmulatorOptions });
export const TpmTypeOptions = union('TpmTypeOptions', { type: TpmType }, 'type', {
  passthrough: TPMPassthroughOptionsWrapper,
  emulator: TPMEmulatorOptionsWrapper,
});
export const TPMInfo = struct('TPMInfo', { id: str, model: TpmModel, options: TpmTypeOptions });

export const commands = {
  'query-tpm-models': command('TPM models', { returns: array(TpmModel) }),
  'query-tpm-types': command('TPM backends', { returns: array(TpmType) }),
  'query-tpm': command('The TPM devices', { returns: array(TPMInfo) }),
};
