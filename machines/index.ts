import type { TypeRegistry } from '../core/device/registry.ts';
import type { MachineType } from '../core/machine/machine-type.ts';

type Module = Readonly<Record<string, unknown>>;

/** The modules of this folder with the names and aliases of the machine types that each exports. */
const MODULES: readonly (readonly [names: string, load: () => Promise<Module>])[] = [
  ['microvm', () => import('./microvm.ts')],
  ['none', () => import('./none.ts')],
  ['pc-i440fx-7.2 pc', () => import('./pc.ts')],
  ['pc-q35-7.2 q35 pc-q35-6.2 pc-q35-5.2 pc-q35-5.0 pc-q35-4.1', () => import('./q35.ts')],
];

const isMachineType = (value: unknown): value is MachineType =>
  typeof value === 'object' && value !== null && 'type' in value && 'build' in value && 'defaultRam' in value;

export function registerMachines(registry: TypeRegistry): void {
  for (const [names, load] of MODULES) {
    registry.registerLazy(names.split(' '), async () => Object.values(await load()).filter(isMachineType));
  }
}
