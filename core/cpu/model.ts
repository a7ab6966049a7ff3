import { didYouMean, SouthbridgeError } from '../errors.ts';
import { CPU_MODELS, type ModelData } from './model-data.ts';

/** A CPU model: who it says it is and what it can do. */
export interface CpuModel {
  /** QEMU's name, with the version where it has one: `Nehalem-v2`; the alias itself for `max`, `host` and `base`. */
  readonly name: string;
  readonly vendor: string;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
  /** Highest basic and extended CPUID leaves, at least: features may raise them. */
  readonly level: number;
  readonly xlevel: number;
  readonly modelId: string;
  readonly features: ReadonlySet<string>;
  /** Has, besides `features`, all that the accelerator can do. */
  readonly everything: boolean;
  /** Works only where the host's own CPU runs the guest. */
  readonly needsHost: boolean;
  /** Whether it is the same whatever the host and the version of this program. */
  readonly static: boolean;
  readonly migrationSafe: boolean;
  /** QEMU's line in `-cpu help`. */
  readonly description: string;
}

/** A name that `-cpu` takes. */
export interface CpuName {
  readonly name: string;
  readonly aliasOf: string | undefined;
  readonly model: CpuModel;
}

export const CPU_TYPE_SUFFIX = '-x86_64-cpu';

const words = (text = ''): string[] => (text === '' ? [] : text.split(/\s+/));

const special = (name: string, about: Partial<CpuModel>): CpuModel => ({
  ...{
    name,
    vendor: '',
    family: 0,
    model: 0,
    stepping: 0,
    level: 0,
    xlevel: 0,
    modelId: '',
    features: new Set<string>(),
  },
  ...{ everything: false, needsHost: false, static: false, migrationSafe: false, description: '' },
  ...about,
});

const TCG_LIKE = { vendor: 'AuthenticAMD', family: 15, model: 107, stepping: 1, modelId: 'QEMU TCG CPU version 2.5+' };

const MAX = special('max', {
  ...TCG_LIKE,
  everything: true,
  description: 'Enables all features supported by the accelerator in the current host',
});
const HOST = special('host', {
  ...TCG_LIKE,
  everything: true,
  needsHost: true,
  description: 'processor with all supported host features ',
});
const BASE = special('base', {
  static: true,
  migrationSafe: true,
  description: 'base CPU model type with no features enabled',
});

/** The versions of one model, oldest first; `known` has every version that it may be written relative to. */
function versionsOf(
  data: ModelData,
  known: ReadonlyMap<string, CpuModel>,
): { model: CpuModel; alias: string | undefined }[] {
  const change = (features: ReadonlySet<string>, add?: string, remove?: string): Set<string> => {
    const changed = new Set([...features, ...words(add)]);
    for (const name of words(remove)) changed.delete(name);
    return changed;
  };
  const ancestor = data.from === undefined ? new Set<string>() : (known.get(data.from)?.features ?? new Set<string>());
  const { vendor, family, model, stepping, level, xlevel, modelId } = data;
  let last: CpuModel = special(`${data.name}-v1`, {
    ...{ vendor, family, model, stepping, level, xlevel, modelId, migrationSafe: true, description: modelId },
    features: change(ancestor, data.add, data.remove),
  });
  const versions: { model: CpuModel; alias: string | undefined }[] = [{ model: last, alias: undefined }];
  for (const [index, { alias, add, remove, ...version }] of (data.versions ?? []).entries()) {
    last = { ...last, ...version, name: `${data.name}-v${index + 2}`, features: change(last.features, add, remove) };
    last = { ...last, description: last.modelId };
    versions.push({ model: last, alias });
  }
  return versions;
}

function allNames(): ReadonlyMap<string, CpuName> {
  const known = new Map<string, CpuModel>();
  const names: CpuName[] = [];
  for (const data of CPU_MODELS) {
    const versions = versionsOf(data, known);
    const first = versions[0];
    if (first !== undefined) names.push({ name: data.name, aliasOf: first.model.name, model: first.model });
    for (const { model, alias } of versions) {
      known.set(model.name, model);
      names.push({ name: model.name, aliasOf: undefined, model });
      if (alias !== undefined) names.push({ name: alias, aliasOf: model.name, model });
    }
  }
  names.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const model of [BASE, HOST, MAX]) names.push({ name: model.name, aliasOf: undefined, model });
  return new Map(names.map(name => [name.name, name]));
}

/** Every name that `-cpu` takes, in QEMU's order of `-cpu help`. */
export const CPU_NAMES: ReadonlyMap<string, CpuName> = allNames();

/** @throws SouthbridgeError ERR_CPU_MODEL where there is no such model */
export function cpuModelNamed(name: string): CpuName {
  const bare = name.endsWith(CPU_TYPE_SUFFIX) ? name.slice(0, -CPU_TYPE_SUFFIX.length) : name;
  const found = CPU_NAMES.get(bare);
  if (found !== undefined) return found;
  throw new SouthbridgeError(
    'ERR_CPU_MODEL',
    `unable to find CPU model '${name}'`,
    didYouMean(name, CPU_NAMES.keys(), '-cpu help'),
  );
}
