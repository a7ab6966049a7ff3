import { FEATURES } from '../../cpu/features.ts';
import { cpuModelNamed } from '../../cpu/model.ts';
import { ANY_CPU, type ResolvedCpu, resolveCpu } from '../../cpu/resolve.ts';
import { isObject, type Json } from '../json/value.ts';
import { parseBool } from '../options/numbers.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';

/** A CPU model with what the user set on it, resolved for this host. */
function resolve(program: Program, name: string, props: Json | undefined): ResolvedCpu & { migratable?: boolean } {
  if (props !== undefined && !isObject(props))
    throw new QmpError("Invalid parameter type for 'model.props', expected: object");
  const { model } = cpuModelNamed(name);
  const host = program.machine.vm.cpuHost ?? ANY_CPU;
  const features = new Map<string, boolean>();
  let migratable = true;
  for (const [key, value] of Object.entries(props ?? {})) {
    const on = typeof value === 'boolean' ? value : parseBool(String(value));
    if (key === 'migratable') migratable = on ?? true;
    else if (on !== undefined && FEATURES.includes(key)) features.set(key, on);
  }
  if (model.everything) return { ...resolveCpu({ model, features, migratable }, host), migratable };
  // An expansion says what the model asks for, not what is left of it here.
  return resolveCpu({ model, features }, { ...host, supports: () => true });
}

/** `query-cpu-model-expansion`: every feature on or off; `full` with the levels and identity besides. */
export function expandModel(
  program: Program,
  type: 'static' | 'full',
  name: string,
  props: Json | undefined,
): { model: { name: string; props: Json } } {
  const cpu = resolve(program, name, props);
  const result: Record<string, Json> = {};
  for (const feature of FEATURES) result[feature] = cpu.features.has(feature);
  Object.assign(result, {
    family: cpu.family,
    model: cpu.model,
    stepping: cpu.stepping,
    'model-id': cpu.modelId,
    vendor: cpu.vendor,
    'min-level': cpu.minLevel,
    'min-xlevel': cpu.minXlevel,
    lmce: false,
  });
  if (type === 'full') {
    Object.assign(result, {
      level: cpu.level,
      xlevel: cpu.xlevel,
      xlevel2: cpu.xlevel2,
      'min-xlevel2': cpu.minXlevel2,
      'phys-bits': 0,
      'host-phys-bits': false,
      ...(cpu.migratable !== undefined && { migratable: cpu.migratable }),
      'full-cpuid-auto-level': true,
    });
  }
  return { model: { name: type === 'static' ? 'base' : name, props: result } };
}
