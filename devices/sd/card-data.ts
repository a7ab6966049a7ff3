import type { BlockBackend } from '../../core/block/backend.ts';
import { IoVector } from '../../core/block/io-vector.ts';
import { writeFlag } from '../../core/block/requests.ts';
import { BLOCK, GROUP, TUNING_BLOCK } from './card-registers.ts';
import { type CardValues, CSR, type KeptValues, NO_ADDRESS, OCR, PASSWORD_MAX, STATE } from './card-state.ts';

/** What a host may change in the CSD: copy, write protection, file format. */
const CSD_WRITABLE = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfc, 0xfe);
const CSD_COPY = 0x40;
const CSD_WRITE_PROTECT = 0x30;
/** CMD42 (section 4.3.7): what the first byte of its data says. */
const LOCK = { SET_PASSWORD: 1, CLEAR_PASSWORD: 2, LOCK: 4 } as const;

/** What the card's data is on. */
export interface CardMedium {
  readonly backend: BlockBackend | undefined;
  readonly inserted: boolean;
}

/** The blocks of a card, and the data phases of its commands. */
export class CardData {
  readonly #s: CardValues;
  readonly #kept: KeptValues;
  readonly #medium: CardMedium;
  readonly #vector = new IoVector();
  /** The card is busy with what it was given (DAT0 is low). */
  busy: Promise<void> | undefined;
  /** Data could not be had: the host waits in vain. */
  failed = false;

  constructor(values: CardValues, kept: KeptValues, medium: CardMedium) {
    this.#s = values;
    this.#kept = kept;
    this.#medium = medium;
  }

  get #size(): number {
    return this.#medium.backend?.length ?? 0;
  }

  get highCapacity(): boolean {
    return (this.#s.ocr & OCR.HIGH_CAPACITY) !== 0;
  }

  /** Sets bits of the card status. */
  flag(bits: number): void {
    this.#s.status = (this.#s.status | bits) >>> 0;
  }

  // Erase and write protection (sections 4.3.5 and 4.3.6)

  inRange(at: number, length: number): boolean {
    if (at + length <= this.#size) return true;
    this.flag(CSR.ADDRESS_ERROR);
    return false;
  }

  byteAddress(argument: number): number {
    return this.highCapacity ? argument * BLOCK : argument;
  }

  #isProtected(at: number): boolean {
    const group = Math.floor(at / GROUP);
    return ((this.#kept.groups[group >>> 3] ?? 0) & (1 << (group & 7))) !== 0;
  }

  protectGroup(argument: number, on: boolean): 'r1' {
    const { groups } = this.#kept;
    if (!this.inRange(argument, 1)) return 'r1';
    const group = Math.floor(argument / GROUP);
    const bit = 1 << (group & 7);
    const before = groups[group >>> 3] ?? 0;
    groups[group >>> 3] = on ? before | bit : before & ~bit;
    return 'r1';
  }

  sendProtection(argument: number): 'r1' {
    const s = this.#s;
    if (!this.inRange(argument, s.blockLength)) return 'r1';
    let bits = 0;
    for (let index = 0; index < 32; index++) {
      const at = argument + index * GROUP;
      if (at < this.#size && this.#isProtected(at)) bits |= 1 << index;
    }
    new DataView(s.data.buffer, s.data.byteOffset).setUint32(0, bits);
    return this.startData(STATE.SENDING, true);
  }

  get #writeProtected(): boolean {
    return ((this.#kept.csd[14] ?? 0) & CSD_WRITE_PROTECT) !== 0;
  }

  erase(): 'r1' {
    const s = this.#s;
    if (this.#writeProtected) {
      this.flag(CSR.WP_VIOLATION);
      return 'r1';
    }
    const { eraseStart, eraseEnd } = s;
    s.eraseStart = NO_ADDRESS;
    s.eraseEnd = NO_ADDRESS;
    if (eraseStart === NO_ADDRESS || eraseEnd === NO_ADDRESS) {
      this.flag(CSR.ERASE_SEQ_ERROR);
      return 'r1';
    }
    const start = this.byteAddress(eraseStart);
    const end = Math.min(this.#size, this.byteAddress(eraseEnd) + BLOCK);
    if (start > this.#size || this.byteAddress(eraseEnd) > this.#size) {
      this.flag(CSR.OUT_OF_RANGE);
      return 'r1';
    }
    this.#noteWrite();
    this.#eraseRange(start, end);
    return 'r1';
  }

  /** The card is busy until the blocks are zeroes. Groups that are protected are left out. */
  #eraseRange(start: number, end: number): void {
    const waits: Promise<number>[] = [];
    for (let at = start; at < end; ) {
      const next = this.highCapacity ? end : Math.min(end, (Math.floor(at / GROUP) + 1) * GROUP);
      if (!this.highCapacity && this.#isProtected(at)) this.flag(CSR.WP_ERASE_SKIP);
      else {
        const result = this.#medium.backend?.writeZeroes(at, next - at, writeFlag.MAY_UNMAP) ?? 0;
        if (typeof result !== 'number') waits.push(result);
        else if (result !== 0) this.flag(CSR.ERROR);
      }
      at = next;
    }
    if (waits.length === 0) return;
    this.#work(
      Promise.all(waits).then(errors => {
        if (errors.some(error => error !== 0)) this.flag(CSR.ERROR);
      }),
    );
  }

  #work(until: Promise<void>): void {
    const busy = until.finally(() => {
      if (this.busy === busy) this.busy = undefined;
    });
    this.busy = busy;
  }

  // Data (section 4.12.5)

  /** The data is in the buffer already, or is a command's own. */
  startData(state: number, loaded = false): 'r1' {
    const s = this.#s;
    s.offset = 0;
    s.loaded = loaded;
    s.state = state;
    return 'r1';
  }

  startBlocks(state: number, argument: number): 'r1' {
    const s = this.#s;
    const at = this.byteAddress(argument);
    if (!this.inRange(at, s.blockLength)) return 'r1';
    s.at = at;
    s.written = 0;
    if (state === STATE.RECEIVING && (this.#writeProtected || (!this.highCapacity && this.#isProtected(at)))) {
      this.flag(CSR.WP_VIOLATION);
    }
    return this.startData(state);
  }

  get sending(): boolean {
    return this.#s.state === STATE.SENDING;
  }

  /** A high capacity card has blocks of 512 bytes whatever it is told (section 4.3.2). */
  get #length(): number {
    return this.highCapacity ? BLOCK : this.#s.blockLength;
  }

  get #refuses(): boolean {
    return (this.#s.status & (CSR.ADDRESS_ERROR | CSR.WP_VIOLATION)) !== 0 || !this.#medium.inserted;
  }

  /** Makes the next block ready to be read. A promise where that takes time. */
  fetch(): Promise<void> | undefined {
    const s = this.#s;
    if (s.loaded || s.state !== STATE.SENDING || this.#refuses || s.appCommand) return undefined;
    if (s.command !== 17 && s.command !== 18) return undefined;
    const length = this.#length;
    if (!this.inRange(s.at, length)) return undefined;
    s.loaded = true;
    const vector = this.#vector.clear().add(s.data, 0, length);
    const result = length === 0 ? 0 : (this.#medium.backend?.readv(s.at, vector) ?? 0);
    if (typeof result !== 'number') return result.then(error => this.#fetched(error));
    this.#fetched(result);
    return undefined;
  }

  #fetched(error: number): void {
    if (error === 0) return;
    this.flag(CSR.CARD_ECC_FAILED | CSR.ERROR);
    this.failed = true;
  }

  /** The next byte of the data; 0 where the card sends none. */
  readByte(): number {
    const s = this.#s;
    if (s.state !== STATE.SENDING || this.#refuses) return 0;
    const blocks = !s.appCommand && (s.command === 17 || s.command === 18);
    if (!s.appCommand && s.command === 19) {
      const byte = TUNING_BLOCK[s.offset++] ?? 0;
      if (s.offset >= TUNING_BLOCK.length) s.state = STATE.TRANSFER;
      return byte;
    }
    if (!s.loaded) return 0;
    const byte = s.data[s.offset++] ?? 0;
    if (s.offset < (blocks ? this.#length : this.#dataLength)) return byte;
    s.offset = 0;
    if (s.command !== 18 || s.appCommand) {
      s.state = STATE.TRANSFER;
      return byte;
    }
    s.at += this.#length;
    s.loaded = false;
    this.#countBlock();
    return byte;
  }

  /** Bytes of the data of a command that does not read blocks. */
  get #dataLength(): number {
    const { command, appCommand, blockLength } = this.#s;
    if (appCommand) return command === 13 ? 64 : command === 51 ? 8 : 4;
    return command === 6 ? 64 : command === 30 ? 4 : blockLength;
  }

  /** After CMD23 the last block ends the transfer by itself. */
  #countBlock(): void {
    const s = this.#s;
    if (s.blocksLeft === 0) return;
    s.blocksLeft--;
    if (s.blocksLeft === 0) s.state = STATE.TRANSFER;
  }

  writeByte(value: number): void {
    const s = this.#s;
    if (s.state !== STATE.RECEIVING || this.#refuses) return;
    if (s.command === 25 && s.offset === 0 && !this.#mayWrite()) return;
    if (s.offset < BLOCK) s.data[s.offset++] = value;
    const length = s.command === 26 || s.command === 27 ? 16 : s.blockLength;
    if (s.offset < length) return;
    this.#received();
  }

  #mayWrite(): boolean {
    const s = this.#s;
    if (!this.inRange(s.at, s.blockLength)) return false;
    if (this.highCapacity || !this.#isProtected(s.at)) return true;
    this.flag(CSR.WP_VIOLATION);
    return false;
  }

  #received(): void {
    const s = this.#s;
    const length = s.offset;
    s.offset = 0;
    switch (s.command) {
      case 24:
        this.#program(length);
        s.state = STATE.TRANSFER;
        break;
      case 25:
        this.#program(length);
        s.at += s.blockLength;
        this.#countBlock();
        break;
      case 26:
        this.#programRegister(this.#kept.cid, undefined);
        break;
      case 27:
        this.#programRegister(this.#kept.csd, CSD_WRITABLE);
        break;
      case 42:
        this.#lock();
        s.state = STATE.TRANSFER;
        break;
      default:
        s.state = STATE.TRANSFER;
    }
  }

  #noteWrite(): void {
    const { csd } = this.#kept;
    csd[14] = (csd[14] ?? 0) | CSD_COPY;
  }

  #program(length: number): void {
    const s = this.#s;
    s.written++;
    this.#noteWrite();
    if (length === 0) return;
    // The host may send the next block while this one is being written.
    const vector = new IoVector().add(this.#medium.backend === undefined ? s.data : s.data.slice(0, length), 0, length);
    const result = this.#medium.backend?.writev(s.at, vector) ?? 0;
    if (typeof result !== 'number') this.#work(result.then(error => this.#programmed(error)));
    else this.#programmed(result);
  }

  #programmed(error: number): void {
    if (error === 0) return;
    this.flag(CSR.ERROR);
    this.failed = true;
  }

  /** CMD26 and CMD27 (section 4.3.4 and 5.3): bits that are programmed once stay. */
  #programRegister(register: Uint8Array, writable: Uint8Array | undefined): void {
    const s = this.#s;
    s.state = STATE.TRANSFER;
    const mask = (index: number): number => writable?.[index] ?? 0;
    const changed = register.some((byte, index) => (byte | mask(index)) !== ((s.data[index] ?? 0) | mask(index)));
    const unprogrammed = writable !== undefined && ((register[14] ?? 0) & ~(s.data[14] ?? 0) & 0x60) !== 0;
    if (changed || unprogrammed) this.flag(CSR.CSD_OVERWRITE);
    else
      for (const index of register.keys())
        register[index] = ((register[index] ?? 0) | mask(index)) & (s.data[index] ?? 0);
  }

  /** CMD42: the password that was there comes first, then the new one. */
  #lock(): void {
    const s = this.#s;
    const kept = this.#kept;
    const [mode = 0, count = 0] = s.data;
    const { length } = kept.password;
    const given = s.blockLength > 1 ? count : 0;
    const set = (mode & LOCK.SET_PASSWORD) !== 0;
    const clear = (mode & LOCK.CLEAR_PASSWORD) !== 0;
    const lock = (mode & LOCK.LOCK) !== 0;
    const locked = (s.status & CSR.CARD_IS_LOCKED) !== 0;
    const same = kept.password.every((byte, index) => byte === s.data[2 + index]);
    const fresh = given - length;
    const impossible =
      fresh < 0 ||
      fresh > PASSWORD_MAX ||
      !same ||
      (fresh > 0 && !set) ||
      (clear && (set || lock)) ||
      (lock && length === 0 && !set) ||
      (!set && !clear && lock === locked);
    if (impossible) {
      this.flag(CSR.LOCK_UNLOCK_FAILED);
      return;
    }
    if (set) kept.password = s.data.slice(2 + length, 2 + length + fresh);
    if (clear) kept.password = new Uint8Array(0);
    if (lock) this.flag(CSR.CARD_IS_LOCKED);
    else s.status = (s.status & ~CSR.CARD_IS_LOCKED) >>> 0;
  }
}
