import type { Accelerator } from '../../accel/accelerator.ts';
import { didYouMean, SouthbridgeError } from '../../errors.ts';
import type { PluginHost } from '../../plugin/host.ts';
import type { CommandLine } from '../options/command-line.ts';
import { LocatedError, located } from '../options/command-line.ts';
import { OptionError, type Opts } from '../options/opts.ts';
import { machineRequest } from './machine-config.ts';
import type { Reporter } from './report.ts';

/** The accelerators, in the order of preference; QEMU's name of a software CPU leads to ours. */
const LOADERS: ReadonlyMap<string, () => Promise<Accelerator>> = new Map([
  ['kvm', async () => (await import('../../accel/kvm/accelerator.ts')).kvm],
  ['wasm', async () => (await import('../../accel/wasm/accelerator.ts')).wasm],
  ['qtest', async () => (await import('../../accel/qtest/accelerator.ts')).qtest],
]);
const SYNONYMS: ReadonlyMap<string, string> = new Map([['tcg', 'wasm']]);

/** What each takes behind its name; those that only a translator of QEMU's has are known and mean nothing here. */
const TRANSLATOR = ['thread', 'tb-size', 'split-wx'];
const PROPERTIES: ReadonlyMap<string, readonly string[]> = new Map([
  ['kvm', ['kernel-irqchip', 'kvm-shadow-mem', 'dirty-ring-size', 'notify-vmexit', 'notify-window']],
  ['tcg', TRANSLATOR],
  ['wasm', [...TRANSLATOR, 'kernel-irqchip']],
  ['qtest', ['kernel-irqchip']],
]);

/** @throws OptionError with QEMU's words */
function checkProperties(name: string, options: Opts): void {
  const known = PROPERTIES.get(name);
  if (known === undefined) return;
  for (const { key, value } of options.values) {
    if (key !== 'accel' && !known.includes(key)) throw new OptionError(`Property '${name}-accel.${key}' not found`);
    if (key === 'thread' && value !== 'single' && value !== 'multi')
      throw new OptionError(`Invalid 'thread' setting ${value}`);
  }
}

export const ACCELERATOR_NAMES: readonly string[] = [...LOADERS.keys()];

/** An accelerator of ours by name. @throws SouthbridgeError ERR_ACCELERATOR with the nearest name */
export async function acceleratorNamed(name: string): Promise<Accelerator> {
  const load = LOADERS.get(SYNONYMS.get(name) ?? name);
  if (load !== undefined) return load();
  const hint = didYouMean(name, LOADERS.keys(), '-accel help');
  throw new SouthbridgeError('ERR_ACCELERATOR', `invalid accelerator ${name}`, hint);
}

export interface ChosenAccelerator {
  readonly accelerator: Accelerator;
  /** The name that the user knows it by. */
  readonly name: string;
  /** `kernel-irqchip` and the like. */
  readonly options: Opts | undefined;
}

interface Wanted {
  readonly name: string;
  readonly options: Opts | undefined;
  readonly location: string;
}

function wanted(line: CommandLine): Wanted[] {
  const given = line.opts('accel');
  if (given.length > 0) {
    return given.map(({ opts, location }) => ({ name: opts.string('accel') ?? '', options: opts, location }));
  }
  const machine = line.object('machine')[0];
  const list = line.has('enable-kvm') ? 'kvm' : machine?.value['accel'];
  if (typeof list === 'string') {
    return list.split(':').map(name => ({ name, options: undefined, location: machine?.location ?? '-enable-kvm' }));
  }
  return ['kvm', 'wasm'].map(name => ({ name, options: undefined, location: `-accel ${name}` }));
}

/**
 * The first accelerator of those asked for that works here; without any request, KVM where there is one, else the
 * software CPU.
 */
export async function chooseAccelerator(
  line: CommandLine,
  report: Reporter,
  plugins: PluginHost,
): Promise<ChosenAccelerator> {
  const list = wanted(line);
  let failure: Error | undefined;
  for (const { name, options, location } of list) {
    const brought = plugins.accelerators.get(name);
    const load = LOADERS.get(SYNONYMS.get(name) ?? name) ?? (brought && (() => Promise.resolve(brought)));
    if (load === undefined) {
      const known = [...LOADERS.keys(), ...SYNONYMS.keys(), ...plugins.accelerators.keys()];
      const hint = didYouMean(name, known, '-accel help');
      const error = new LocatedError(location, new OptionError(`invalid accelerator ${name}`, hint));
      if (list.length === 1) throw error;
      report.error(error);
      continue;
    }
    located(location, () => options && checkProperties(name, options));
    try {
      const accelerator = await load();
      accelerator.probe();
      // Without a CPU nobody minds which one it is.
      const matters = machineRequest(line).type !== 'none' || line.opts('accel').length > 0;
      if (failure !== undefined && matters) report.plain(`falling back to ${name}`);
      return { accelerator, name, options };
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      failure = error;
      if (list.length === 1) throw new LocatedError(location, error);
      if (line.opts('accel').length > 0) report.error(error);
    }
  }
  throw failure ?? new SouthbridgeError('ERR_ACCELERATOR', 'no accelerator works here');
}
