/**
 * The firmware configuration interface (QEMU docs/specs/fw_cfg): numbered items and named files that a guest selects and
 * reads, byte by byte or by DMA. This is the content and the protocol; the device in `devices/fw-cfg.ts` adds the ports.
 */
import { SouthbridgeError } from '../errors.ts';

/** Selectors of numbered items. */
export const FW_CFG_KEYS = {
  SIGNATURE: 0x00,
  ID: 0x01,
  UUID: 0x02,
  RAM_SIZE: 0x03,
  NOGRAPHIC: 0x04,
  NB_CPUS: 0x05,
  MACHINE_ID: 0x06,
  KERNEL_ADDR: 0x07,
  KERNEL_SIZE: 0x08,
  KERNEL_CMDLINE: 0x09,
  INITRD_ADDR: 0x0a,
  INITRD_SIZE: 0x0b,
  BOOT_DEVICE: 0x0c,
  NUMA: 0x0d,
  BOOT_MENU: 0x0e,
  MAX_CPUS: 0x0f,
  KERNEL_ENTRY: 0x10,
  KERNEL_DATA: 0x11,
  INITRD_DATA: 0x12,
  CMDLINE_ADDR: 0x13,
  CMDLINE_SIZE: 0x14,
  CMDLINE_DATA: 0x15,
  SETUP_ADDR: 0x16,
  SETUP_SIZE: 0x17,
  SETUP_DATA: 0x18,
  FILE_DIR: 0x19,
  FILE_FIRST: 0x20,
  /** x86's own items. */
  ACPI_TABLES: 0x8000,
  SMBIOS_ENTRIES: 0x8001,
  IRQ0_OVERRIDE: 0x8002,
  E820_TABLE: 0x8003,
  HPET: 0x8004,
} as const;

/** What a selector has besides the number of an item: bit 14 once meant writing, bit 15 means architecture-specific. */
const ENTRY_MASK = 0x3fff;
const ARCH_LOCAL = 0x8000;
const INVALID = 0xffff;

const FILE_NAME_SIZE = 56;
const FILE_ENTRY_SIZE = 64;
const DEFAULT_FILE_SLOTS = 0x20;

const VERSION = 1 << 0;
const VERSION_DMA = 1 << 1;

/** The control word of a DMA request. */
const DMA_ERROR = 1 << 0;
const DMA_READ = 1 << 1;
const DMA_SKIP = 1 << 2;
const DMA_SELECT = 1 << 3;
const DMA_WRITE = 1 << 4;
const DMA_REQUEST_SIZE = 16;
/** Zeroes beyond an item's end go out in pieces of this size. */
const ZEROES = new Uint8Array(4096);

/** Guest memory as DMA sees it; false where the access does not reach memory. */
export interface FwCfgMemory {
  read(address: number, into: Uint8Array): boolean;
  write(address: number, from: Uint8Array): boolean;
}

export interface FwCfgFileHooks {
  /** Called when the guest selects the file, before it reads: the place to build what depends on the guest. */
  readonly selected?: () => void;
  /** The guest may write the file; called after it did, with the range that it wrote. */
  readonly written?: (offset: number, length: number) => void;
}

/** What the guest has selected and how far it has read: state of the device, which saves it. */
export interface FwCfgPosition {
  selector: number;
  offset: number;
}

interface Item {
  bytes: Uint8Array;
  readonly hooks: FwCfgFileHooks;
}

interface File extends Item {
  readonly name: string;
}

const NO_HOOKS: FwCfgFileHooks = {};

export class FwCfg {
  readonly dmaEnabled: boolean;
  readonly #fileSlots: number;
  readonly #items = new Map<number, Item>();
  readonly #files: File[] = [];
  readonly #request = new Uint8Array(DMA_REQUEST_SIZE);
  readonly #requestView = new DataView(this.#request.buffer);
  readonly #status = new Uint8Array(4);
  readonly #position: FwCfgPosition;
  #current: Item | undefined;

  constructor(options: { readonly dma: boolean; readonly fileSlots?: number; readonly position?: FwCfgPosition }) {
    this.dmaEnabled = options.dma;
    this.#position = options.position ?? { selector: 0, offset: 0 };
    this.#fileSlots = options.fileSlots ?? DEFAULT_FILE_SLOTS;
    this.setItem(FW_CFG_KEYS.SIGNATURE, Buffer.from('QEMU', 'latin1'));
    this.setNumber(FW_CFG_KEYS.ID, VERSION | (options.dma ? VERSION_DMA : 0), 4);
    this.#writeDirectory();
    this.select(FW_CFG_KEYS.SIGNATURE);
  }

  // What the machine puts in

  /** Sets a numbered item, which the guest can only read. */
  setItem(key: number, bytes: Uint8Array): void {
    this.#items.set(key, { bytes, hooks: NO_HOOKS });
    if (key === this.#position.selector) this.#current = this.#items.get(key);
  }

  /** Sets a numbered item to an integer, the lowest byte first. */
  setNumber(key: number, value: number | bigint, size: 2 | 4 | 8): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)));
    this.setItem(key, bytes.subarray(0, size));
  }

  /** The bytes of a numbered item, or undefined where there is none. */
  item(key: number): Uint8Array | undefined {
    return this.#items.get(key)?.bytes;
  }

  /**
   * Adds a file. Selectors are given out in the order of the names, so that they do not depend on who came first.
   *
   * @throws SouthbridgeError ERR_FW_CFG_FILE where the name is taken or too long, or no slot is left
   */
  addFile(name: string, bytes: Uint8Array, hooks: FwCfgFileHooks = NO_HOOKS): void {
    if (Buffer.byteLength(name) >= FILE_NAME_SIZE) {
      throw new SouthbridgeError('ERR_FW_CFG_FILE', `fw_cfg file name '${name}' is longer than 55 characters`);
    }
    if (this.#files.some(file => file.name === name)) {
      throw new SouthbridgeError('ERR_FW_CFG_FILE', `duplicate fw_cfg file name: ${name}`);
    }
    if (this.#files.length >= this.#fileSlots) {
      throw new SouthbridgeError('ERR_FW_CFG_FILE', `no fw_cfg slot is left for '${name}'`, 'raise x-file-slots');
    }
    const file: File = { name, bytes, hooks };
    const place = this.#files.findIndex(other => Buffer.compare(Buffer.from(name), Buffer.from(other.name)) < 0);
    if (place < 0) this.#files.push(file);
    else this.#files.splice(place, 0, file);
    this.#writeDirectory();
  }

  /** Replaces the bytes of a file, or adds it. The directory tells the new size at once. */
  setFile(name: string, bytes: Uint8Array): void {
    const file = this.#files.find(candidate => candidate.name === name);
    if (file === undefined) {
      this.addFile(name, bytes);
      return;
    }
    const resized = file.bytes.length !== bytes.length;
    file.bytes = bytes;
    if (resized) this.#writeDirectory();
  }

  /** The bytes of a file, or undefined where there is none. */
  file(name: string): Uint8Array | undefined {
    return this.#files.find(candidate => candidate.name === name)?.bytes;
  }

  /** Names, sizes and selectors, as the directory lists them. */
  files(): { readonly name: string; readonly size: number; readonly selector: number }[] {
    return this.#files.map((file, index) => ({
      name: file.name,
      size: file.bytes.length,
      selector: FW_CFG_KEYS.FILE_FIRST + index,
    }));
  }

  #writeDirectory(): void {
    const directory = Buffer.alloc(4 + FILE_ENTRY_SIZE * this.#files.length);
    directory.writeUInt32BE(this.#files.length, 0);
    this.#files.forEach((file, index) => {
      const at = 4 + FILE_ENTRY_SIZE * index;
      directory.writeUInt32BE(file.bytes.length, at);
      directory.writeUInt16BE(FW_CFG_KEYS.FILE_FIRST + index, at + 4);
      directory.write(file.name, at + 8, 'utf8');
    });
    this.setItem(FW_CFG_KEYS.FILE_DIR, directory);
  }

  // What the guest does

  /** Takes up the position that {@link FwCfgPosition} has after it was restored, without telling the item's owner. */
  resume(): void {
    const { selector, offset } = this.#position;
    if (selector !== INVALID) this.#find(selector);
    else this.#current = undefined;
    this.#position.offset = offset;
  }

  /** Selects an item and goes to its start. False where the number is beyond all items. */
  select(selector: number): boolean {
    const known = this.#find(selector);
    this.#position.offset = 0;
    this.#current?.hooks.selected?.();
    return known;
  }

  #find(selector: number): boolean {
    const number = selector & ENTRY_MASK;
    if (number >= FW_CFG_KEYS.FILE_FIRST + this.#fileSlots) {
      this.#position.selector = INVALID;
      this.#current = undefined;
      return false;
    }
    this.#position.selector = number | (selector & ARCH_LOCAL);
    const isFile = (selector & ARCH_LOCAL) === 0 && number >= FW_CFG_KEYS.FILE_FIRST;
    this.#current = isFile ? this.#files[number - FW_CFG_KEYS.FILE_FIRST] : this.#items.get(this.#position.selector);
    return true;
  }

  /** The next byte; 0 beyond the end. */
  readByte(): number {
    const current = this.#current;
    if (current === undefined || this.#position.offset >= current.bytes.length) return 0;
    return current.bytes[this.#position.offset++] ?? 0;
  }

  /** A DMA request at `address`: control, length and buffer, big-endian. Its control word tells the guest how it went. */
  dma(address: number, memory: FwCfgMemory): void {
    if (!memory.read(address, this.#request)) {
      this.#finish(address, memory, DMA_ERROR);
      return;
    }
    const control = this.#requestView.getUint32(0);
    const length = this.#requestView.getUint32(4);
    const buffer = this.#requestView.getUint32(8) * 2 ** 32 + this.#requestView.getUint32(12);
    if ((control & DMA_SELECT) !== 0) this.select(control >>> 16);
    const done =
      (control & DMA_READ) !== 0
        ? this.#dmaRead(buffer, length, memory)
        : (control & DMA_WRITE) !== 0
          ? this.#dmaWrite(buffer, length, memory)
          : (control & DMA_SKIP) === 0 || this.#skip(length);
    this.#finish(address, memory, done ? 0 : DMA_ERROR);
  }

  #finish(address: number, memory: FwCfgMemory, status: number): void {
    this.#status[3] = status;
    memory.write(address, this.#status);
  }

  /** How much of the selected item lies ahead. */
  #remaining(): number {
    return this.#current === undefined ? 0 : Math.max(0, this.#current.bytes.length - this.#position.offset);
  }

  #dmaRead(buffer: number, length: number, memory: FwCfgMemory): boolean {
    const count = Math.min(length, this.#remaining());
    if (this.#current !== undefined && count > 0) {
      const start = this.#position.offset;
      this.#position.offset += count;
      if (!memory.write(buffer, this.#current.bytes.subarray(start, start + count))) return false;
    }
    for (let done = count; done < length; done += ZEROES.length) {
      const piece = length - done < ZEROES.length ? ZEROES.subarray(0, length - done) : ZEROES;
      if (!memory.write(buffer + done, piece)) return false;
    }
    return true;
  }

  /** A write must lie within a file that takes writes. */
  #dmaWrite(buffer: number, length: number, memory: FwCfgMemory): boolean {
    const current = this.#current;
    if (length === 0) return true;
    const remaining = this.#remaining();
    if (current === undefined || remaining === 0) return false;
    const start = this.#position.offset;
    const count = Math.min(length, remaining);
    this.#position.offset += count;
    const written = current.hooks.written;
    if (written === undefined || count !== length) return false;
    if (!memory.read(buffer, current.bytes.subarray(start, start + count))) return false;
    written(start, count);
    return true;
  }

  #skip(length: number): boolean {
    this.#position.offset += Math.min(length, this.#remaining());
    return true;
  }
}
