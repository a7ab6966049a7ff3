/** Offsets in configuration space (PCI 3.0, section 6.1). */
export const CFG = {
  VENDOR_ID: 0x00,
  DEVICE_ID: 0x02,
  COMMAND: 0x04,
  STATUS: 0x06,
  REVISION_ID: 0x08,
  CLASS_CODE: 0x09,
  CACHE_LINE_SIZE: 0x0c,
  LATENCY_TIMER: 0x0d,
  HEADER_TYPE: 0x0e,
  BIST: 0x0f,
  BAR0: 0x10,
  CARDBUS_CIS: 0x28,
  SUBSYSTEM_VENDOR_ID: 0x2c,
  SUBSYSTEM_ID: 0x2e,
  ROM_ADDRESS: 0x30,
  CAPABILITIES: 0x34,
  INTERRUPT_LINE: 0x3c,
  INTERRUPT_PIN: 0x3d,
  MIN_GNT: 0x3e,
  MAX_LAT: 0x3f,
} as const;

/** Bits of the command register (section 6.2.2). */
export const COMMAND = {
  IO: 1 << 0,
  MEMORY: 1 << 1,
  MASTER: 1 << 2,
  PARITY: 1 << 6,
  SERR: 1 << 8,
  INTX_DISABLE: 1 << 10,
} as const;

/** Bits of the status register (section 6.2.3). */
export const STATUS = {
  INTERRUPT: 1 << 3,
  CAPABILITIES: 1 << 4,
  MHZ66: 1 << 5,
  FAST_BACK: 1 << 7,
  PARITY: 1 << 8,
  DEVSEL_MEDIUM: 1 << 9,
  SIGNALLED_TARGET_ABORT: 1 << 11,
  RECEIVED_TARGET_ABORT: 1 << 12,
  RECEIVED_MASTER_ABORT: 1 << 13,
  SERR: 1 << 14,
  DETECTED_PARITY: 1 << 15,
} as const;

const STATUS_W1C =
  STATUS.PARITY |
  STATUS.SIGNALLED_TARGET_ABORT |
  STATUS.RECEIVED_TARGET_ABORT |
  STATUS.RECEIVED_MASTER_ABORT |
  STATUS.SERR |
  STATUS.DETECTED_PARITY;

export const CONFIG_SIZE = 256;
export const EXPRESS_CONFIG_SIZE = 4096;
const HEADER_SIZE = 64;
const SERIAL_NUMBER = 0x0003;

/**
 * A function's configuration space: bytes, which of their bits software may write, and which it clears by writing 1. The
 * model writes through {@link set8} and its like, which no mask guards.
 */
export class ConfigSpace {
  readonly size: number;
  readonly bytes: Uint8Array;
  readonly writable: Uint8Array;
  readonly writeOneToClear: Uint8Array;
  readonly #view: DataView;

  /** @param size 256 bytes, or 4,096 for PCI Express */
  constructor(size: number = CONFIG_SIZE) {
    this.size = size;
    this.bytes = new Uint8Array(size);
    this.writable = new Uint8Array(size);
    this.writeOneToClear = new Uint8Array(size);
    this.#view = new DataView(this.bytes.buffer);
    this.writable.fill(0xff, HEADER_SIZE);
    this.writable[CFG.CACHE_LINE_SIZE] = 0xff;
    this.writable[CFG.INTERRUPT_LINE] = 0xff;
    this.mask16(
      this.writable,
      CFG.COMMAND,
      COMMAND.IO | COMMAND.MEMORY | COMMAND.MASTER | COMMAND.SERR | COMMAND.INTX_DISABLE,
    );
    this.mask16(this.writeOneToClear, CFG.STATUS, STATUS_W1C);
  }

  /** What software reads: 1, 2 or 4 bytes, little-endian; all ones beyond the end. */
  read(offset: number, size: number): number {
    let value = 0;
    for (let at = 0; at < size; at++) value |= (this.bytes[offset + at] ?? 0xff) << (8 * at);
    return value >>> 0;
  }

  /** What software writes, through the masks. */
  write(offset: number, size: number, value: number): void {
    for (let at = 0; at < size && offset + at < this.size; at++) {
      const byte = (value >>> (8 * at)) & 0xff;
      const writable = this.writable[offset + at] ?? 0;
      const clears = this.writeOneToClear[offset + at] ?? 0;
      const old = this.bytes[offset + at] ?? 0;
      this.bytes[offset + at] = ((old & ~writable) | (byte & writable)) & ~(byte & clears);
    }
  }

  get8(offset: number): number {
    return this.bytes[offset] ?? 0;
  }

  get16(offset: number): number {
    return this.#view.getUint16(offset, true);
  }

  get32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  set8(offset: number, value: number): void {
    this.bytes[offset] = value;
  }

  set16(offset: number, value: number): void {
    this.#view.setUint16(offset, value, true);
  }

  set32(offset: number, value: number): void {
    this.#view.setUint32(offset, value, true);
  }

  mask16(mask: Uint8Array, offset: number, value: number): void {
    mask[offset] = value;
    mask[offset + 1] = value >>> 8;
  }

  mask32(mask: Uint8Array, offset: number, value: number): void {
    this.mask16(mask, offset, value);
    this.mask16(mask, offset + 2, value >>> 16);
  }

  read16Mask(mask: Uint8Array, offset: number): number {
    return (mask[offset] ?? 0) | ((mask[offset + 1] ?? 0) << 8);
  }

  get command(): number {
    return this.get16(CFG.COMMAND);
  }

  setStatus(bits: number): void {
    this.set16(CFG.STATUS, this.get16(CFG.STATUS) | bits);
  }

  clearStatus(bits: number): void {
    this.set16(CFG.STATUS, this.get16(CFG.STATUS) & ~bits);
  }

  // Capability lists (section 6.7)

  /** The offset of the capability of that id, or 0. */
  findCapability(id: number): number {
    let offset = this.get8(CFG.CAPABILITIES);
    for (let guard = 0; offset >= HEADER_SIZE && guard < 48; guard++) {
      if (this.get8(offset) === id) return offset;
      offset = this.get8(offset + 1);
    }
    return 0;
  }

  /**
   * Adds a capability of `size` bytes, read-only until the caller opens bits; the newest is first in the list, as in QEMU.
   * @param at its offset, or undefined for the first free one
   */
  addCapability(id: number, size: number, at: number | undefined = this.#freeOffset(size)): number {
    this.set8(at, id);
    this.set8(at + 1, this.get8(CFG.CAPABILITIES));
    this.set8(CFG.CAPABILITIES, at);
    this.setStatus(STATUS.CAPABILITIES);
    this.writable.fill(0, at, at + size);
    this.writable.fill(0, at, at + 2);
    this.#used.push([at, at + size]);
    return at;
  }

  /** Adds a PCI Express extended capability (PCI Express 3.0, section 7.9) behind the others; its registers are read-only. */
  addExtendedCapability(id: number, version: number, at: number): void {
    if (this.#lastExtended !== undefined) {
      this.set32(this.#lastExtended, (this.get32(this.#lastExtended) & 0xf_ffff) | (at << 20));
    }
    this.#lastExtended = at;
    this.set32(at, (id | (version << 16)) >>> 0);
    if (at === CONFIG_SIZE) this.writable.fill(0, CONFIG_SIZE);
  }

  /** Adds the device serial number (PCI Express 3.0, section 7.12). @param number its eight bytes, the lowest first */
  addSerialNumber(at: number, number: readonly number[]): void {
    this.addExtendedCapability(SERIAL_NUMBER, 1, at);
    for (const [index, byte] of number.entries()) this.set8(at + 4 + index, byte);
  }

  readonly #used: [number, number][] = [];
  #lastExtended: number | undefined;

  #freeOffset(size: number): number {
    const aligned = (size + 3) & ~3;
    for (let at = HEADER_SIZE; at + aligned <= CONFIG_SIZE; at += 4) {
      if (!this.#used.some(([start, end]) => at < end && start < at + aligned)) return at;
    }
    throw new RangeError('configuration space is full');
  }
}
