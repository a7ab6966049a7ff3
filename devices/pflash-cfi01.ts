import { whenDone } from '../core/block/backend.ts';
import { driveProperty } from '../core/block/device-properties.ts';
import { errnoText } from '../core/block/io-error.ts';
import { IoVector } from '../core/block/io-vector.ts';
import { Device } from '../core/device/device.ts';
import { type DeviceContext, deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SystemBus } from '../core/device/system-bus.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { SharedRam } from '../core/memory/guest-ram.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { field } from '../core/state/fields.ts';

/** Commands (Intel StrataFlash J3 datasheet, section 9; CFI publication 100). */
const CMD = {
  /** What QEMU keeps for "no command": the array is read. */
  NONE: 0x00,
  LOCK: 0x01,
  PROGRAM_ALTERNATE: 0x10,
  BLOCK_ERASE: 0x20,
  BLOCK_ERASE_ALTERNATE: 0x28,
  PROGRAM: 0x40,
  CLEAR_STATUS: 0x50,
  LOCK_SETUP: 0x60,
  READ_STATUS: 0x70,
  READ_ID: 0x90,
  CFI_QUERY: 0x98,
  CONFIRM: 0xd0,
  WRITE_TO_BUFFER: 0xe8,
  AMD_RESET: 0xf0,
  READ_ARRAY: 0xff,
} as const;

/** Status register (section 9.2). */
const STATUS = { READY: 0x80, ERASE_ERROR: 0x20, PROGRAM_ERROR: 0x10 } as const;

/** Where a command of several cycles is. */
const CYCLE = { FIRST: 0, SECOND: 1, DATA: 2, CONFIRM: 3 } as const;

const SECTOR = 512;
const CFI_BYTES = 0x52;
/** Bytes of the write buffer, as a power of two. */
const BUFFER_BITS = 8;
const WIDE_BUFFER_BITS = 11;
const MAX_CHIPS = 4;
const NO_BUFFER = -1;

const properties = {
  drive: driveProperty,
  'num-blocks': prop.u32({ default: 0, help: 'erase blocks, all chips together' }),
  'sector-length': prop.u64({ default: 0n, help: 'bytes of an erase block, all chips together' }),
  width: prop.u8({ default: 0, help: 'bytes that the chips together are wide' }),
  'device-width': prop.u8({ default: 0, help: 'bytes that one chip is wide as it is wired; 0 for unknown' }),
  'max-device-width': prop.u8({ default: 0, help: 'bytes that one chip could be wide' }),
  'big-endian': prop.bit({ default: false }),
  secure: prop.bit({ default: false, help: 'only accesses in system management mode are commands' }),
  id0: prop.u16({ default: 0 }),
  id1: prop.u16({ default: 0 }),
  id2: prop.u16({ default: 0 }),
  id3: prop.u16({ default: 0 }),
  name: prop.string(),
  'old-multiple-chip-handling': prop.bool({ default: false }),
} as const;

/** NOR flash with Intel's command set, or several such chips side by side: firmware and its variables. */
export class PflashCfi01 extends Device<typeof properties> {
  readonly #sectorBytes = Number(this.props['sector-length']);
  readonly #width = this.props.width;
  readonly #chipWidth = this.props['device-width'];
  readonly #maxChipWidth = this.props['max-device-width'] || this.props['device-width'];
  readonly ram: SharedRam;
  readonly region: MemoryRegion;
  readonly #cfi: Uint8Array;
  readonly #bufferBytes: number;
  #readOnly = false;
  /** The contents came with a snapshot, and the drive does not have them yet. */
  #toStore = false;
  readonly #s = this.state(1, {
    cycle: field.u8(),
    command: field.u8(),
    status: field.u8(),
    /** What is left of a write to the buffer. */
    counter: field.u32(),
    buffer: field.buffer(MAX_CHIPS * 2 ** WIDE_BUFFER_BITS),
    /** Where in the array the buffer belongs, or -1. */
    bufferAt: field.number(NO_BUFFER),
  });

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    if (!(context.bus instanceof SystemBus))
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' goes onto the system bus`);
    const { props } = this;
    if (this.#sectorBytes === 0) refuse('attribute "sector-length" not specified or zero.');
    if (props['num-blocks'] === 0) refuse('attribute "num-blocks" not specified or zero.');
    const name = props.name ?? refuse('attribute "name" not specified.');
    this.ram = new SharedRam(name, this.#sectorBytes * props['num-blocks']);
    this.region = MemoryRegion.romDevice(this.ram, {
      read: (offset, size) => this.#read(offset, size),
      write: (offset, size, value) => this.#write(offset, size, value),
    });
    const chips = this.#chipWidth === 0 ? 1 : this.#width / this.#chipWidth;
    if (!Number.isInteger(chips) || chips < 1 || chips > MAX_CHIPS)
      refuse('chips of that width are not as wide together');
    const old = props['old-multiple-chip-handling'];
    const bufferBits = this.#width === 1 ? BUFFER_BITS : WIDE_BUFFER_BITS;
    this.#bufferBytes = 2 ** bufferBits * (old ? 1 : chips);
    this.#cfi = cfiTable(
      old ? props['num-blocks'] / chips : props['num-blocks'],
      old ? this.#sectorBytes : this.#sectorBytes / chips,
      bufferBits,
    );
  }

  /**
   * Puts in what the drive holds; a machine is built without waiting, so that whoever builds it has read the drive.
   *
   * @param image bytes, at most as many as the chips have
   */
  load(image: Uint8Array): void {
    this.ram.bytes.set(image);
  }

  protected override realize(): void {
    const { drive } = this.props;
    this.onUnrealize(this.services.guestRam(this.ram));
    this.onUnrealize(this.services.system.onRunning(() => this.#storeRestored()));
    if (drive === undefined) return;
    this.#readOnly = drive.readOnly;
    // A board puts its chips into their places once they are there.
    const name = (): string => this.id ?? this.path;
    const user = {
      get id(): string {
        return name();
      },
      removable: false,
    };
    drive.attachDevice(user, { writable: !this.#readOnly, shareRw: true });
    this.onUnrealize(() => drive.detachDevice(user));
  }

  protected override resetEnter(): void {
    this.#s.status = STATUS.READY;
    this.#s.bufferAt = NO_BUFFER;
  }

  protected override resetHold(): void {
    this.region.setRomdMode(true);
  }

  protected override restored(): void {
    this.region.setRomdMode(this.#s.command === CMD.NONE && this.#s.cycle === CYCLE.FIRST);
    this.#toStore = !this.#readOnly;
    if (!(this.#s.bufferAt >= 0 && this.#s.bufferAt + this.#s.buffer.length <= this.ram.size))
      this.#s.bufferAt = NO_BUFFER;
  }

  // The array

  #get(offset: number, size: number): number {
    const { view } = this.ram;
    if (offset + size > this.ram.size) return 0;
    const little = !this.props['big-endian'];
    return size === 1
      ? view.getUint8(offset)
      : size === 2
        ? view.getUint16(offset, little)
        : view.getUint32(offset, little);
  }

  #put(offset: number, size: number, value: number): void {
    const { view } = this.ram;
    if (offset + size > this.ram.size) return;
    const little = !this.props['big-endian'];
    if (size === 1) view.setUint8(offset, value);
    else if (size === 2) view.setUint16(offset, value, little);
    else view.setUint32(offset, value, little);
  }

  /** The drive follows the array, in whole sectors of it. Of requests under way the later ones have the newer bytes. */
  #store(offset: number, bytes: number): void {
    const { drive } = this.props;
    if (drive === undefined) return;
    const from = offset - (offset % SECTOR);
    const end = Math.min(this.ram.size, Math.ceil((offset + bytes) / SECTOR) * SECTOR);
    whenDone(drive.writev(from, IoVector.of(this.ram.bytes), end - from, from), error => {
      if (error !== 0) drive.graph.warn(`Could not update PFLASH: ${errnoText(error)}`);
    });
  }

  #storeRestored(): void {
    if (!this.#toStore) return;
    this.#toStore = false;
    this.#store(0, this.ram.size);
  }

  // Reads that are not of the array (section 9.1)

  #read(offset: number, size: number): number {
    if (this.props.secure) return this.#get(offset, size);
    switch (this.#s.command) {
      case CMD.NONE:
        return this.#get(offset, size);
      case CMD.READ_ID:
        return this.#chipWidth === 0 ? this.#wholeId(offset) : this.#eachBank(offset, size, at => this.#id(at));
      case CMD.CFI_QUERY:
        return this.#chipWidth === 0
          ? (this.#cfi[this.#wholeIndex(offset)] ?? 0)
          : this.#eachBank(offset, size, at => this.#query(at));
      default:
        return this.#statusOfAll(size);
    }
  }

  #statusOfAll(size: number): number {
    const { status } = this.#s;
    if (this.#chipWidth === 0) return size > 2 ? status | (status << 16) : status;
    let all = 0;
    for (let at = 0; at < size; at += this.#chipWidth) all |= status << (8 * at);
    return all >>> 0;
  }

  /** Where the chips' own width is not known, they are taken for one. */
  #wholeIndex(offset: number): number {
    const index = offset & 0xff;
    return this.#width === 4 ? index >> 2 : this.#width === 2 ? index >> 1 : index;
  }

  #wholeId(offset: number): number {
    const { id0, id1, id2, id3 } = this.props;
    const index = this.#wholeIndex(offset);
    return index === 0 ? (id0 << 8) | id1 : index === 1 ? (id2 << 8) | id3 : 0;
  }

  /** A read that is wider than the chips together goes to them several times. */
  #eachBank(offset: number, size: number, answer: (offset: number) => number): number {
    let value = 0;
    for (let at = 0; at < size; at += this.#width) value |= answer(offset + at * this.#width) << (8 * at);
    return value >>> 0;
  }

  /** Address lines of the widest chips count; what is wired narrower sees them shifted. */
  #chipIndex(offset: number): number {
    return Math.floor((offset * this.#chipWidth) / (this.#width * this.#maxChipWidth));
  }

  /** All chips of the bank answer the same. */
  #replicate(answer: number): number {
    let value = answer;
    for (let at = this.#chipWidth; at < this.#width; at += this.#chipWidth) value |= answer << (8 * at);
    return value >>> 0;
  }

  #id(offset: number): number {
    const index = this.#chipIndex(offset) & 0xff;
    return index === 0 ? this.#replicate(this.props.id0) : index === 1 ? this.#replicate(this.props.id1) : 0;
  }

  #query(offset: number): number {
    const byte = this.#cfi[this.#chipIndex(offset)];
    if (byte === undefined) return 0;
    let answer = byte;
    if (this.#chipWidth !== this.#maxChipWidth) {
      // A 16-bit chip in byte mode repeats the byte.
      if (this.#chipWidth !== 1 || this.#width > 4) return 0;
      for (let at = 1; at < this.#maxChipWidth; at++) answer |= byte << (8 * at);
    }
    return this.#replicate(answer);
  }

  // Commands (sections 9.1 and 10 to 12)

  #write(offset: number, size: number, value: number): void {
    if (this.props.secure) return;
    const command = value & 0xff;
    switch (this.#s.cycle) {
      case CYCLE.FIRST:
        this.region.setRomdMode(false);
        this.#first(offset, command);
        break;
      case CYCLE.SECOND:
        this.#second(offset, size, value, command);
        break;
      case CYCLE.DATA:
        this.#bufferData(offset, size, value);
        break;
      default:
        this.#endBuffer(command === CMD.CONFIRM);
    }
  }

  #first(offset: number, command: number): void {
    const s = this.#s;
    switch (command) {
      case CMD.READ_STATUS:
      case CMD.READ_ID:
        s.command = command;
        return;
      case CMD.BLOCK_ERASE:
        this.#erase(offset);
        break;
      case CMD.WRITE_TO_BUFFER:
        s.status |= STATUS.READY;
        break;
      case CMD.PROGRAM:
      case CMD.PROGRAM_ALTERNATE:
      case CMD.LOCK_SETUP:
      case CMD.CFI_QUERY:
        break;
      case CMD.CLEAR_STATUS:
        s.status = 0;
        this.#readArray();
        return;
      case CMD.NONE:
      case CMD.AMD_RESET:
      case CMD.READ_ARRAY:
        this.#readArray();
        return;
      default:
        this.#unknown(offset, command);
        return;
    }
    s.command = command;
    s.cycle = CYCLE.SECOND;
  }

  #second(offset: number, size: number, value: number, command: number): void {
    const s = this.#s;
    switch (s.command) {
      case CMD.PROGRAM:
      case CMD.PROGRAM_ALTERNATE:
        if (this.#readOnly) {
          s.status |= STATUS.PROGRAM_ERROR;
        } else {
          this.#put(offset, size, value);
          this.#store(offset, size);
        }
        this.#done();
        break;
      case CMD.BLOCK_ERASE:
      case CMD.BLOCK_ERASE_ALTERNATE:
        if (command === CMD.CONFIRM) this.#done();
        else if (command === CMD.READ_ARRAY) this.#readArray();
        else this.#unknown(offset, command);
        break;
      case CMD.WRITE_TO_BUFFER: {
        const width = this.#chipWidth || this.#width;
        s.counter = width === 1 ? value & 0xff : width === 2 ? value & 0xffff : value >>> 0;
        s.cycle = CYCLE.DATA;
        break;
      }
      case CMD.LOCK_SETUP:
        // Blocks cannot be locked: what asks for it is content.
        if (command === CMD.CONFIRM || command === CMD.LOCK) this.#done();
        else this.#readArray();
        break;
      case CMD.CFI_QUERY:
        if (command === CMD.READ_ARRAY) this.#readArray();
        break;
      default:
        this.#unknown(offset, command);
    }
  }

  /** As in QEMU the block is gone with the first cycle; firmware always confirms. */
  #erase(offset: number): void {
    const s = this.#s;
    if (this.#readOnly) {
      s.status |= STATUS.ERASE_ERROR;
    } else {
      const block = offset - (offset % this.#sectorBytes);
      this.ram.bytes.fill(0xff, block, block + this.#sectorBytes);
      this.#store(block, this.#sectorBytes);
    }
    s.status |= STATUS.READY;
  }

  /** One word for the buffer, which begins as a copy of that part of the array (section 11.2). */
  #bufferData(offset: number, size: number, value: number): void {
    const s = this.#s;
    if (s.bufferAt < 0) {
      s.bufferAt = offset - (offset % this.#bufferBytes);
      s.buffer = this.ram.bytes.slice(s.bufferAt, s.bufferAt + this.#bufferBytes);
    }
    const at = offset - s.bufferAt;
    if (this.#readOnly || at < 0 || at + size > s.buffer.length) s.status |= STATUS.PROGRAM_ERROR;
    else
      for (let byte = 0; byte < size; byte++)
        s.buffer[at + byte] = value >>> (8 * (this.props['big-endian'] ? size - 1 - byte : byte));
    s.status |= STATUS.READY;
    if (s.counter === 0) s.cycle = CYCLE.CONFIRM;
    s.counter = (s.counter - 1) >>> 0;
  }

  /** What was not confirmed, or went wrong, leaves the array as it was. */
  #endBuffer(confirmed: boolean): void {
    const s = this.#s;
    const at = s.bufferAt;
    s.bufferAt = NO_BUFFER;
    if (!confirmed || at < 0 || (s.status & STATUS.PROGRAM_ERROR) !== 0) {
      this.#readArray();
      return;
    }
    this.ram.bytes.set(s.buffer, at);
    this.#store(at, s.buffer.length);
    this.#done();
  }

  /** The command is over, and its status is to be read. */
  #done(): void {
    this.#s.cycle = CYCLE.FIRST;
    this.#s.status |= STATUS.READY;
  }

  #unknown(offset: number, command: number): void {
    const { cycle, command: begun } = this.#s;
    this.log.guestError(
      `command 0x${command.toString(16)} at 0x${offset.toString(16)} in cycle ${cycle} of 0x${begun.toString(16)}`,
    );
    this.#readArray();
  }

  #readArray(): void {
    this.#s.cycle = CYCLE.FIRST;
    this.#s.command = CMD.NONE;
    this.region.setRomdMode(true);
  }
}

/** What one chip says of itself (CFI publication 100; JEDEC JEP137 for the numbers). */
function cfiTable(blocks: number, blockBytes: number, bufferBits: number): Uint8Array {
  const table = new Uint8Array(CFI_BYTES);
  const view = new DataView(table.buffer);
  const text = (at: number, value: string): void => {
    for (let index = 0; index < value.length; index++) table[at + index] = value.charCodeAt(index);
  };
  text(0x10, 'QRY');
  // Intel's command set, with its table at 31h.
  view.setUint16(0x13, 0x0001, true);
  view.setUint16(0x15, 0x0031, true);
  // Vcc of 4.5 to 5.5 V, no Vpp.
  table[0x1b] = 0x45;
  table[0x1c] = 0x55;
  // Timeouts, as powers of two: word and buffer in µs, erasing in ms, then the factors of the longest ones.
  table.set([0x07, 0x07, 0x0a, 0x00, 0x04, 0x04, 0x04, 0x00], 0x1f);
  // The size as a power of two; of one that is none QEMU shows the lowest bit.
  const size = blocks * blockBytes;
  table[0x27] = 31 - Math.clz32(size & -size);
  view.setUint16(0x28, 0x0002, true);
  view.setUint16(0x2a, bufferBits, true);
  // One region of equal blocks, their length in units of 256 bytes.
  table[0x2c] = 1;
  view.setUint16(0x2d, blocks - 1, true);
  view.setUint16(0x2f, blockBytes >>> 8, true);
  text(0x31, 'PRI10');
  table[0x3f] = 1;
  return table;
}

function refuse(message: string): never {
  throw new SouthbridgeError('ERR_PROPERTY_VALUE', message);
}

export const pflashCfi01 = deviceType({
  type: 'cfi.pflash01',
  summary: 'NOR flash with the command set of Intel',
  parents: ['sys-bus-device', 'device'],
  category: 'storage',
  userCreatable: false,
  properties,
  create: PflashCfi01,
});
