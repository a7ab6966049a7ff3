import { didYouMean, SouthbridgeError } from '../errors.ts';
import type { MachineType } from '../machine/machine-type.ts';
import type { DeviceType } from './device-type.ts';

/** Finds the module of a type when it is first asked for, so that a machine loads only what it is made of. */
export type TypeLoader = () => Promise<readonly (DeviceType | MachineType)[]>;

/** Where a type came from, for listings. */
export interface TypeOrigin {
  /** `southbridge`, or the plugin's package or path. */
  readonly source: string;
  readonly version: string;
}

const BUILT_IN: TypeOrigin = { source: 'southbridge', version: 'built in' };

/** The device and machine types that there are. */
export class TypeRegistry {
  readonly #devices = new Map<string, DeviceType>();
  readonly #machines = new Map<string, MachineType>();
  readonly #origins = new Map<string, TypeOrigin>();
  readonly #lazy = new Map<string, TypeLoader>();

  /** @throws SouthbridgeError ERR_TYPE_EXISTS where another type has the name */
  registerDevice(type: DeviceType, origin: TypeOrigin = BUILT_IN): void {
    for (const name of [type.type, ...type.aliases]) this.#claim(this.#devices, name, type, origin);
  }

  registerMachine(type: MachineType, origin: TypeOrigin = BUILT_IN): void {
    for (const name of [type.type, ...type.aliases]) this.#claim(this.#machines, name, type, origin);
  }

  /** Registers the types of a module under their names before the module is loaded. */
  registerLazy(names: readonly string[], loader: TypeLoader): void {
    for (const name of names) this.#lazy.set(name, loader);
  }

  /** Loads the module that has the type `name`, if that is not yet there. */
  async load(name: string): Promise<void> {
    const loader = this.#lazy.get(name);
    if (loader === undefined) return;
    for (const [other, candidate] of this.#lazy) if (candidate === loader) this.#lazy.delete(other);
    for (const type of await loader()) {
      if ('build' in type) this.registerMachine(type);
      else this.registerDevice(type);
    }
  }

  /** Loads all there is: for listings. */
  async loadAll(): Promise<void> {
    for (const name of [...this.#lazy.keys()]) await this.load(name);
  }

  /** The device type of that name or alias, if it is loaded. */
  device(name: string): DeviceType | undefined {
    return this.#devices.get(name);
  }

  machine(name: string): MachineType | undefined {
    return this.#machines.get(name);
  }

  /** @throws SouthbridgeError ERR_DEVICE_UNKNOWN with the nearest name */
  async requireDevice(name: string): Promise<DeviceType> {
    await this.load(name);
    const type = this.#devices.get(name);
    if (type !== undefined) return type;
    throw new SouthbridgeError(
      'ERR_DEVICE_UNKNOWN',
      `'${name}' is not a valid device model name`,
      didYouMean(name, this.names('device'), '-device help'),
    );
  }

  /** @throws SouthbridgeError ERR_MACHINE_UNKNOWN with the nearest name */
  async requireMachine(name: string): Promise<MachineType> {
    await this.load(name);
    const type = this.#machines.get(name);
    if (type !== undefined) return type;
    throw new SouthbridgeError(
      'ERR_MACHINE_UNKNOWN',
      `unsupported machine type`,
      didYouMean(name, this.names('machine'), '-machine help'),
    );
  }

  origin(name: string): TypeOrigin {
    return this.#origins.get(name) ?? BUILT_IN;
  }

  /** All loaded device types, each once, by name. */
  devices(): DeviceType[] {
    return [...new Set(this.#devices.values())].sort((a, b) => (a.type < b.type ? -1 : 1));
  }

  machines(): MachineType[] {
    return [...new Set(this.#machines.values())].sort((a, b) => (a.type < b.type ? -1 : 1));
  }

  names(kind: 'device' | 'machine'): string[] {
    return [...(kind === 'device' ? this.#devices : this.#machines).keys(), ...this.#lazy.keys()];
  }

  /** @throws SouthbridgeError ERR_TYPE_EXISTS where a device or machine type has the name, loaded or not */
  refuseTaken(name: string, origin: TypeOrigin): void {
    if (!this.#devices.has(name) && !this.#machines.has(name) && !this.#lazy.has(name)) return;
    const { source, version } = this.origin(name);
    throw new SouthbridgeError(
      'ERR_TYPE_EXISTS',
      `'${name}' of ${origin.source} is already there, from ${source} ${version}`.trimEnd(),
      `give it another name; a plugin can be loaded with 'prefix=': -plugin ${origin.source},prefix=my-`,
    );
  }

  /** Puts another type in the place of the one of its name: a plugin that is loaded again. */
  replaceDevice(type: DeviceType): void {
    for (const name of [type.type, ...type.aliases]) this.#devices.set(name, type);
  }

  #claim<T>(types: Map<string, T>, name: string, type: T, origin: TypeOrigin): void {
    if (types.has(name)) this.refuseTaken(name, origin);
    types.set(name, type);
    this.#origins.set(name, origin);
  }
}
