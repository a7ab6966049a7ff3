import { SouthbridgeError } from '../../errors.ts';

/** A value of a device property: given, or an option of the machine's. */
export type DataValue = string | number | boolean | { readonly option: string };

/** One device of a machine in a file. */
export interface DeviceData {
  readonly driver: string;
  readonly id?: string;
  /** A bus by name (`pci.0`), or the id of the device that provides it; the first that fits where absent. */
  readonly bus?: string;
  /** Only where this option of the machine's is given, and not off. */
  readonly if?: string;
  readonly properties?: Readonly<Record<string, DataValue>>;
}

/** A wire from an output pin to an input: `ID:PIN` or `ID:LIST[INDEX]`, where ID may be `isa.0` (its `irq[N]`) or `gsi`. */
export interface WireData {
  readonly from: string;
  readonly to: string;
}

/** An option of the machine's: what `-machine TYPE,name=value` takes. */
export interface OptionData {
  readonly type: OptionKind;
  readonly default?: string | number | boolean;
  readonly help?: string;
}

export const OPTION_KINDS = [
  'bool',
  'uint8',
  'uint16',
  'uint32',
  'uint64',
  'size',
  'string',
  'chardev',
  'drive',
  'netdev',
] as const;
export type OptionKind = (typeof OPTION_KINDS)[number];

/** A machine type as data: what a JSON file holds. */
export interface MachineData {
  readonly $schema?: string;
  readonly type: string;
  readonly summary: string;
  /** The machine type that it is, and more. */
  readonly extends: string;
  readonly aliases?: readonly string[];
  /** Plugins that it needs, relative to the file. */
  readonly plugins?: readonly string[];
  /** Default size of its RAM. */
  readonly memory?: string;
  readonly options?: Readonly<Record<string, OptionData>>;
  /** Whether the base machine has its default serial port, network card and so on without `-nodefaults`. */
  readonly defaults?: Readonly<Record<string, boolean>>;
  /** Properties of all devices of a type: the type, then names and values. */
  readonly globals?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly devices?: readonly DeviceData[];
  readonly wires?: readonly WireData[];
}

/** Where in a file something is: `board.json: devices[2].properties.irq`. */
export class DataPlace {
  readonly file: string;
  readonly path: string;

  constructor(file: string, path = '') {
    this.file = file;
    this.path = path;
  }

  member(name: string): DataPlace {
    const plain = /^[A-Za-z_$][\w$]*$/.test(name);
    const step = plain ? (this.path === '' ? name : `.${name}`) : `["${name}"]`;
    return new DataPlace(this.file, this.path + step);
  }

  element(index: number): DataPlace {
    return new DataPlace(this.file, `${this.path}[${index}]`);
  }

  error(message: string, hint?: string, cause?: unknown): SouthbridgeError {
    const where = this.path === '' ? this.file : `${this.file}: ${this.path}`;
    return new SouthbridgeError('ERR_MACHINE_DATA', `${where}: ${message}`, hint, { cause });
  }

  /** Runs `step`, and says of its error where in the file the reason is. */
  within<T>(step: () => T): T {
    try {
      return step();
    } catch (error) {
      throw this.located(error);
    }
  }

  located(error: unknown): unknown {
    if (!(error instanceof SouthbridgeError) || error.code === 'ERR_MACHINE_DATA') return error;
    return this.error(error.message, error.hint, error);
  }
}
