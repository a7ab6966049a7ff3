import { type PropInput, type PropSet, type PropValues, parseProperties } from '../device/property.ts';
import { didYouMean, SouthbridgeError } from '../errors.ts';
import type { Machine } from './machine.ts';
import type { MachineConfig } from './machine-config.ts';

/** The facts of a machine type, for `-machine help` and QMP query-machines. */
export interface MachineTypeInfo {
  /** QEMU's name: `pc-i440fx-7.2`. */
  readonly type: string;
  readonly summary: string;
  readonly aliases: readonly string[];
  readonly isDefault: boolean;
  readonly maxCpus: number;
  readonly defaultCpuModel: string;
  /** Whether there are CPUs even where the user names no model. */
  readonly hasCpus: boolean;
  /** Bytes. */
  readonly defaultRam: number;
  /** QEMU's id of the memory backend: `pc.ram`. */
  readonly defaultRamId: string;
  /** Abstract QOM ancestors, nearest first, without `machine`. */
  readonly parents: readonly string[];
  /** What the machine gets without `-nodefaults`. */
  readonly defaults: {
    readonly serial: boolean;
    readonly parallel: boolean;
    readonly floppy: boolean;
    readonly cdrom: boolean;
    readonly vga: string;
    readonly nic: string | undefined /** Drives that `-drive if=ide,index=` counts to a bus. */;
    readonly ideUnits: 1 | 2;
  };
  readonly options: PropSet;
  /** What an older version of the type differs in: device properties, as `-global` sets them. */
  readonly globals: MachineConfig['globals'];
}

/** A machine type: make one with {@link machineType}. */
export interface MachineType extends MachineTypeInfo {
  /** Bytes of RAM below 4 GiB. */
  lowRam(config: MachineConfig): number;
  /**
   * Plugs everything in.
   * @param given options of the type; by default those of the machine's configuration
   */
  build(machine: Machine, given?: MachineConfig['options']): void;
}

interface Definition<S extends PropSet> {
  readonly type: string;
  readonly summary: string;
  readonly aliases?: readonly string[];
  readonly isDefault?: boolean;
  readonly maxCpus?: number;
  readonly defaultCpuModel?: string;
  readonly hasCpus?: boolean;
  readonly defaultRam?: number;
  readonly defaultRamId?: string;
  readonly parents?: readonly string[];
  readonly defaults?: Partial<MachineTypeInfo['defaults']>;
  /** What `-machine TYPE,name=value` takes. */
  readonly options?: S;
  readonly globals?: MachineConfig['globals'];
  readonly lowRam?: (config: MachineConfig) => number;
  build(machine: Machine, options: PropValues<S>): void;
}

export type MachineOptions<T extends MachineType> = PropInput<T['options']>;

/** Declares a machine type. */
export function machineType<S extends PropSet>(definition: Definition<S>): MachineType {
  const options: PropSet = definition.options ?? {};
  return {
    type: definition.type,
    summary: definition.summary,
    aliases: definition.aliases ?? [],
    isDefault: definition.isDefault ?? false,
    maxCpus: definition.maxCpus ?? 1,
    defaultCpuModel: definition.defaultCpuModel ?? 'qemu64',
    hasCpus: definition.hasCpus ?? true,
    defaultRam: definition.defaultRam ?? 128 * 2 ** 20,
    defaultRamId: definition.defaultRamId ?? 'ram',
    parents: definition.parents ?? [],
    defaults: {
      serial: false,
      parallel: false,
      floppy: false,
      cdrom: false,
      vga: 'none',
      nic: undefined,
      ideUnits: 2,
      ...definition.defaults,
    },
    options,
    globals: definition.globals ?? [],
    lowRam: definition.lowRam ?? (config => Math.min(config.ramSize, 0xe000_0000)),
    build(machine, given = machine.config.options) {
      for (const name of Object.keys(given)) {
        if (Object.hasOwn(options, name)) continue;
        throw new SouthbridgeError(
          'ERR_MACHINE_OPTION',
          `Property '${definition.type}-machine.${name}' not found`,
          didYouMean(name, Object.keys(options), `-machine ${definition.type},help`),
        );
      }
      definition.build(
        machine,
        parseProperties(`${definition.type}-machine`, options, given, machine.services.backends) as PropValues<S>,
      );
    },
  };
}

interface Extension<S extends PropSet>
  extends Pick<
    Definition<S>,
    'type' | 'summary' | 'aliases' | 'options' | 'globals' | 'maxCpus' | 'defaultRam' | 'defaults' | 'defaultCpuModel'
  > {
  /** Plugs in what the base has not. */
  build(machine: Machine, options: PropValues<S>): void;
}

/** Declares a machine type that is another one and more: its options too, and what it does not say otherwise. */
export function extendMachine<S extends PropSet>(base: MachineType, extension: Extension<S>): MachineType {
  const own: PropSet = extension.options ?? {};
  return {
    ...base,
    type: extension.type,
    summary: extension.summary,
    aliases: extension.aliases ?? [],
    isDefault: false,
    maxCpus: extension.maxCpus ?? base.maxCpus,
    defaultCpuModel: extension.defaultCpuModel ?? base.defaultCpuModel,
    defaultRam: extension.defaultRam ?? base.defaultRam,
    defaults: { ...base.defaults, ...extension.defaults },
    options: { ...base.options, ...own },
    globals: [...base.globals, ...(extension.globals ?? [])],
    build(machine, given = machine.config.options) {
      const mine = Object.entries(given).filter(([name]) => Object.hasOwn(own, name));
      const theirs = Object.entries(given).filter(([name]) => !Object.hasOwn(own, name));
      base.build(machine, Object.fromEntries(theirs));
      const { backends } = machine.services;
      const values = parseProperties(`${extension.type}-machine`, own, Object.fromEntries(mine), backends);
      extension.build(machine, values as PropValues<S>);
    },
  };
}
