/**
 * The script in `etc/table-loader` (QEMU docs/specs, "BIOS linker/loader"): commands of 128 bytes that tell the firmware
 * to place fw_cfg files in guest memory and to patch addresses and checksums into them.
 */
import { SouthbridgeError } from '../errors.ts';

const COMMAND_SIZE = 128;
const FILE_NAME_SIZE = 56;
const SCRIPT_ALIGNMENT = 0x1000;

const ALLOCATE = 1;
const ADD_POINTER = 2;
const ADD_CHECKSUM = 3;
const WRITE_POINTER = 4;

/** Where the firmware looks for memory: anywhere below 4 GiB, or in the F-segment where systems search the RSDP. */
export type AllocationZone = 'high' | 'fSegment';

class Command {
  readonly bytes = new Uint8Array(COMMAND_SIZE);
  readonly #view = new DataView(this.bytes.buffer);
  #at = 0;

  constructor(code: number) {
    this.u32(code);
  }

  u32(value: number): this {
    this.#view.setUint32(this.#at, value, true);
    this.#at += 4;
    return this;
  }

  u8(value: number): this {
    this.#view.setUint8(this.#at, value);
    this.#at += 1;
    return this;
  }

  file(name: string): this {
    if (name.length >= FILE_NAME_SIZE) {
      throw new SouthbridgeError('ERR_TABLE_LOADER', `the file name '${name}' is longer than 55 characters`);
    }
    this.bytes.set(Buffer.from(name, 'latin1'), this.#at);
    this.#at += FILE_NAME_SIZE;
    return this;
  }
}

/** Builds the script. A file is allocated before anything refers to it. */
export class TableLoader {
  readonly #allocations: Command[] = [];
  readonly #patches: Command[] = [];
  readonly #files = new Set<string>();

  /** ALLOCATE: load `file` at a multiple of `alignment` bytes (a power of two). */
  allocate(file: string, alignment: number, zone: AllocationZone): void {
    if (this.#files.has(file)) throw new SouthbridgeError('ERR_TABLE_LOADER', `'${file}' is already allocated`);
    this.#files.add(file);
    const command = new Command(ALLOCATE)
      .file(file)
      .u32(alignment)
      .u8(zone === 'high' ? 1 : 2);
    this.#allocations.unshift(command);
  }

  /** ADD_POINTER: add the address of `source` to the `size` bytes at `offset` in `file`, which hold an offset into it. */
  addPointer(file: string, offset: number, size: 1 | 2 | 4 | 8, source: string): void {
    this.#known(file, source);
    this.#patches.push(new Command(ADD_POINTER).file(file).file(source).u32(offset).u8(size));
  }

  /** ADD_CHECKSUM: make `length` bytes from `start` sum to zero with the byte at `offset`. */
  addChecksum(file: string, offset: number, start: number, length: number): void {
    this.#known(file);
    this.#patches.push(new Command(ADD_CHECKSUM).file(file).u32(offset).u32(start).u32(length));
  }

  /** WRITE_POINTER: tell us, by a write to the fw_cfg file `file`, where `source` plus `sourceOffset` ended up. */
  writePointer(file: string, offset: number, size: 1 | 2 | 4 | 8, source: string, sourceOffset: number): void {
    this.#known(source);
    this.#patches.push(new Command(WRITE_POINTER).file(file).file(source).u32(offset).u32(sourceOffset).u8(size));
  }

  /** The script, padded to a multiple of 4 KiB with commands of zero, which firmware skips. */
  bytes(): Uint8Array {
    const commands = [...this.#allocations, ...this.#patches];
    const script = new Uint8Array(Math.ceil((commands.length * COMMAND_SIZE) / SCRIPT_ALIGNMENT) * SCRIPT_ALIGNMENT);
    commands.forEach((command, index) => {
      script.set(command.bytes, index * COMMAND_SIZE);
    });
    return script;
  }

  #known(...files: readonly string[]): void {
    for (const file of files) {
      if (!this.#files.has(file)) throw new SouthbridgeError('ERR_TABLE_LOADER', `'${file}' is not allocated`);
    }
  }
}
