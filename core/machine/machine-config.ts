import type { DeviceType } from '../device/device-type.ts';
import type { PropertyValue } from '../device/object.ts';
import type { NumaOption } from './numa.ts';

/** Sockets, dies, cores and threads, and how many CPUs there are at the start (QEMU's `-smp`). */
export interface CpuTopology {
  readonly cpus: number;
  readonly sockets: number;
  readonly dies: number;
  readonly cores: number;
  readonly threads: number;
  readonly maxCpus: number;
}

/** QEMU's `-boot`. */
export interface BootConfig {
  /** Drive letters: a, b floppy; c disk; d CD-ROM; n network. */
  readonly order?: string;
  readonly once?: string;
  readonly menu?: boolean;
  readonly strict?: boolean;
  readonly splash?: string;
  readonly splashTimeMs?: number;
  readonly rebootTimeoutMs?: number;
}

/** A drive given by `-drive`, `-hda`, `-cdrom` and the like, for the machine to make a device for. */
export interface DriveConfig {
  readonly id: string;
  readonly interface: 'ide' | 'scsi' | 'floppy' | 'virtio' | 'pflash' | 'mtd' | 'sd';
  readonly bus: number;
  readonly unit: number;
  readonly media: 'disk' | 'cdrom';
}

/** A drive with the system's firmware or its variables, read in whole: a machine is built without waiting. */
export interface FlashConfig {
  /** The drive's id, or the name of a node. */
  readonly drive: string;
  readonly image: Uint8Array;
}

/** A network card of `-nic` or the default one. */
export interface NicConfig {
  readonly netdev: string | undefined;
  readonly model: string | undefined;
  /** That of {@link model}; the machine's own kind of card where absent. */
  readonly type?: DeviceType | undefined;
  readonly mac: string | undefined;
  readonly addr?: string | undefined;
  readonly vectors?: string | undefined;
}

/** What the machine's user asked for, as the parts that a machine definition may look at. */
export interface MachineConfig {
  readonly ramSize: number;
  readonly maxRamSize: number;
  readonly ramSlots: number;
  readonly cpus: CpuTopology;
  /** QEMU's `-cpu`: a model and its properties; the machine type's own where absent. */
  readonly cpuModel: string | undefined;
  readonly numa: readonly NumaOption[];
  readonly name: string | undefined;
  readonly uuid: string | undefined;
  /** File name of the firmware; the machine type's own where absent. */
  readonly bios: string | undefined;
  readonly kernel: string | undefined;
  readonly initrd: string | undefined;
  readonly append: string | undefined;
  readonly dtb: string | undefined;
  readonly boot: BootConfig;
  /** Time of day at start: milliseconds since 1970 UTC, or the host's. `localtime` keeps local time in the RTC. */
  readonly rtc: {
    readonly base: 'utc' | 'localtime' | number;
    readonly clock: 'host' | 'rt' | 'vm';
    readonly driftfix: 'none' | 'slew';
  };
  /** Chardev ids for the serial ports in order; undefined for none in that place. */
  readonly serials: readonly (string | undefined)[];
  readonly parallels: readonly (string | undefined)[];
  /** QEMU's `-vga`: the display adapter, `none` for none. */
  readonly vga: string;
  readonly nics: readonly NicConfig[];
  readonly drives: readonly DriveConfig[];
  /** Flash chips from the end of the 32-bit address space downwards. */
  readonly flash: readonly FlashConfig[];
  /** False for `-nodefaults`. */
  readonly defaults: boolean;
  readonly graphics: boolean;
  readonly optionRoms: readonly { readonly file: string; readonly bootIndex: number }[];
  /** `-fw_cfg name=...`: name and contents. */
  readonly fwCfg: readonly { readonly name: string; readonly contents: Uint8Array }[];
  readonly smbios: readonly Readonly<Record<string, string>>[];
  readonly acpi: boolean;
  /** Tables of the user's own (`-acpitable`), complete. */
  readonly acpiTables: readonly Uint8Array[];
  readonly noReboot: boolean;
  /** Device type properties for all instances: `-global driver.property=value`. */
  readonly globals: readonly { readonly driver: string; readonly property: string; readonly value: string }[];
  /** Other options of `-machine`, checked by the machine type. */
  readonly options: Readonly<Record<string, PropertyValue>>;
}

/** One CPU, 128 MiB, no devices asked for. */
export const DEFAULT_CONFIG: MachineConfig = {
  ramSize: 128 * 2 ** 20,
  maxRamSize: 128 * 2 ** 20,
  ramSlots: 0,
  cpus: { cpus: 1, sockets: 1, dies: 1, cores: 1, threads: 1, maxCpus: 1 },
  cpuModel: undefined,
  numa: [],
  name: undefined,
  uuid: undefined,
  bios: undefined,
  kernel: undefined,
  initrd: undefined,
  append: undefined,
  dtb: undefined,
  boot: {},
  rtc: { base: 'utc', clock: 'host', driftfix: 'none' },
  serials: [],
  parallels: [],
  vga: 'none',
  nics: [],
  drives: [],
  flash: [],
  defaults: false,
  graphics: false,
  optionRoms: [],
  fwCfg: [],
  smbios: [],
  acpi: true,
  acpiTables: [],
  noReboot: false,
  globals: [],
  options: {},
};
