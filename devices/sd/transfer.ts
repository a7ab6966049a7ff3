import { type Pending, start, type Task } from '../../core/block/pending.ts';
import type { Dma } from '../../core/memory/dma.ts';
import { ADMA_ERROR, ATTRIBUTE, CAPABILITY, CONTROL2, DMA, ERROR, MODE, NORMAL, PRESENT } from './registers.ts';
import type { SdCard } from './sd-card.ts';

export const BUFFER_MAX = 2048;
const BLOCK_SIZE = 0xfff;
const BOUNDARY_SHIFT = 12;
const PAGE = 4096;
/** Descriptors that are carried out before the guest goes on: a table may go in circles. */
const DESCRIPTORS_A_TURN = 5;

/** The registers that a transfer works with. */
export interface TransferRegisters {
  sdmaAddress: number;
  blockSize: number;
  blockCount: number;
  mode: number;
  present: number;
  control: number;
  control2: number;
  admaError: number;
  admaLow: number;
  admaHigh: number;
  /** Bytes of the buffer that are full, or were taken. */
  count: number;
  /** Stopped at a block gap. */
  stopped: 'no' | 'reading' | 'writing';
  readonly buffer: Uint8Array;
}

export interface TransferHost {
  readonly s: TransferRegisters;
  readonly dma: Dma;
  readonly capabilities: number;
  readonly card: SdCard | undefined;
  /** Shows bits of the status that are enabled, and interrupts. */
  raise(normal: number, error?: number): void;
  /** The transfer is over: Auto CMD12, and the status. */
  ended(): void;
  /** There is more to do, a little later. */
  again(): void;
  /** Whether an interrupt is pending. */
  readonly interrupting: boolean;
}

interface AdmaDescriptor {
  readonly address: number;
  readonly length: number;
  readonly attributes: number;
  readonly size: number;
}

/** Data between the card and the host: through the buffer port, by SDMA, or by ADMA (sections 1.12 to 1.14). */
export class Transfer {
  readonly #host: TransferHost;
  readonly #descriptor = new Uint8Array(12);
  readonly #descriptorView = new DataView(this.#descriptor.buffer);
  #epoch = 0;
  #running = false;

  constructor(host: TransferHost) {
    this.#host = host;
  }

  /** Whether the card or the disk is being waited for. */
  get running(): boolean {
    return this.#running;
  }

  /** Nobody waits for what is under way. */
  stop(): void {
    this.#epoch++;
    this.#running = false;
  }

  /** Begins, or goes on with, the transfer that the registers describe. */
  run(): void {
    const { s, capabilities, card } = this.#host;
    if ((s.mode & MODE.DMA) === 0) {
      const reads = (s.mode & MODE.READ) !== 0 && card?.data.sending === true;
      s.present |= PRESENT.DATA_INHIBIT | PRESENT.DATA_ACTIVE;
      s.present |= reads ? PRESENT.READING : PRESENT.WRITING | PRESENT.SPACE;
      if (reads) this.readBlock();
      else this.writeBlock();
      return;
    }
    switch (s.control & DMA.MASK) {
      case DMA.SDMA:
        this.#start(() => this.#sdma());
        break;
      case DMA.ADMA1:
        if ((capabilities & CAPABILITY.ADMA1) !== 0) this.#start(() => this.#adma());
        break;
      case DMA.ADMA2:
        if ((capabilities & CAPABILITY.ADMA2) !== 0) this.#start(() => this.#adma());
        break;
      case DMA.ADMA2_64:
        if ((capabilities & CAPABILITY.ADMA2) !== 0 && (capabilities & CAPABILITY.WIDE) !== 0) {
          this.#start(() => this.#adma());
        }
        break;
    }
  }

  #start(make: () => Task): void {
    if (this.#running) return;
    const epoch = this.#epoch;
    this.#running = true;
    const over = (): void => {
      if (epoch === this.#epoch) this.#running = false;
    };
    const pending: Pending = start(make());
    if (pending === undefined) over();
    else void pending.then(over);
  }

  get #size(): number {
    return Math.min(this.#host.s.blockSize & BLOCK_SIZE, BUFFER_MAX);
  }

  /** Fills the buffer from the card. False where that fails, or nobody waits for it any more. */
  *#fromCard(): Task<boolean> {
    const { s, card } = this.#host;
    const epoch = this.#epoch;
    const size = this.#size;
    for (let at = 0; at < size; at++) {
      const waiting = card?.data.fetch();
      if (waiting !== undefined) {
        yield waiting;
        if (epoch !== this.#epoch) return false;
      }
      s.buffer[at] = card?.data.readByte() ?? 0;
    }
    return this.#well();
  }

  *#toCard(): Task<boolean> {
    const { s, card } = this.#host;
    const epoch = this.#epoch;
    const size = this.#size;
    for (let at = 0; at < size; at++) card?.data.writeByte(s.buffer[at] ?? 0);
    const waiting = card?.data.busy;
    if (waiting !== undefined) {
      yield waiting;
      if (epoch !== this.#epoch) return false;
    }
    return this.#well();
  }

  /** A card that has no data, or could not write it, leaves the host waiting. */
  #well(): boolean {
    const { card } = this.#host;
    if (card?.data.failed !== true) return true;
    card.data.failed = false;
    this.#host.ended();
    this.#host.raise(0, ERROR.DATA_TIMEOUT);
    return false;
  }

  /** True once the last block has been counted. */
  #countBlock(): boolean {
    const { s } = this.#host;
    if ((s.mode & MODE.COUNT) === 0) return false;
    s.blockCount = (s.blockCount - 1) & 0xffff;
    return s.blockCount === 0;
  }

  // The buffer port (section 1.9)

  /** Makes a block of the card's ready for the host. */
  readBlock(): void {
    this.#start(() => this.#readBlock());
  }

  *#readBlock(): Task {
    const { s } = this.#host;
    const multi = (s.mode & MODE.MULTI) !== 0;
    if (multi && (s.mode & MODE.COUNT) !== 0 && s.blockCount === 0) return;
    if ((s.control2 & CONTROL2.TUNE) !== 0) {
      s.control2 = (s.control2 & ~CONTROL2.TUNE) | CONTROL2.TUNED;
      s.present &= ~(PRESENT.DATA_ACTIVE | PRESENT.READING | PRESENT.DATA_INHIBIT);
      this.#host.raise(0);
      return;
    }
    if (!(yield* this.#fromCard())) return;
    s.present |= PRESENT.DATA;
    if (!multi || s.blockCount === 1) s.present &= ~PRESENT.DATA_ACTIVE;
    const gap = s.stopped === 'reading' && multi && s.blockCount !== 1;
    if (gap) s.present &= ~PRESENT.DATA_ACTIVE;
    this.#host.raise(NORMAL.READ_READY | (gap ? NORMAL.GAP : 0));
  }

  /** Nothing while the card is waited for. */
  readPort(size: number): number {
    const { s } = this.#host;
    let value = 0;
    if ((s.present & PRESENT.DATA) === 0) return 0;
    for (let index = 0; index < size; index++) {
      value |= (s.buffer[s.count++] ?? 0) << (8 * index);
      if (s.count < this.#size) continue;
      s.present &= ~PRESENT.DATA;
      s.count = 0;
      const last = this.#countBlock() || (s.mode & MODE.MULTI) === 0;
      const gap = s.stopped === 'reading' && (s.present & PRESENT.DATA_ACTIVE) === 0;
      if (last || gap) this.#host.ended();
      else this.readBlock();
      break;
    }
    return value >>> 0;
  }

  /** Gives the card the block that the host has written, or asks the host for one. */
  writeBlock(): void {
    this.#start(() => this.#writeBlock());
  }

  *#writeBlock(): Task {
    const { s } = this.#host;
    if ((s.present & PRESENT.SPACE) !== 0) {
      this.#host.raise(NORMAL.WRITE_READY);
      return;
    }
    if ((s.mode & MODE.COUNT) !== 0 && s.blockCount === 0) return;
    const counted = this.#countBlock();
    if (!(yield* this.#toCard())) return;
    s.present |= PRESENT.SPACE;
    const multi = (s.mode & MODE.MULTI) !== 0;
    if (!multi || counted) this.#host.ended();
    else this.#host.raise(NORMAL.WRITE_READY);
    if (s.stopped === 'writing' && multi && s.blockCount > 0) {
      s.present &= ~PRESENT.WRITING;
      this.#host.raise(NORMAL.GAP);
      this.#host.ended();
    }
  }

  writePort(value: number, size: number): void {
    const { s } = this.#host;
    if ((s.present & PRESENT.SPACE) === 0) return;
    for (let index = 0; index < size; index++) {
      if (s.count < BUFFER_MAX) s.buffer[s.count] = value >>> (8 * index);
      s.count++;
      if (s.count < this.#size) continue;
      s.count = 0;
      s.present &= ~PRESENT.SPACE;
      if ((s.present & PRESENT.WRITING) !== 0) this.writeBlock();
      if ((s.present & PRESENT.SPACE) === 0) break;
    }
  }

  // SDMA (section 1.13.1): the engine stops where the address crosses a boundary, unless it began between two

  *#sdma(): Task {
    const { s, dma } = this.#host;
    const epoch = this.#epoch;
    const size = this.#size;
    const reads = (s.mode & MODE.READ) !== 0;
    const single = s.blockCount === 1 || (s.mode & MODE.MULTI) === 0;
    const boundary = 2 ** ((s.blockSize >>> BOUNDARY_SHIFT) + BOUNDARY_SHIFT);
    if (size === 0) return;
    // Without a count there is no end.
    if (!single && ((s.mode & MODE.COUNT) === 0 || s.blockCount === 0)) return;
    const stops = !single && s.sdmaAddress % boundary === 0;
    let room = stops ? boundary : Number.POSITIVE_INFINITY;
    s.present |= PRESENT.DATA_INHIBIT | PRESENT.DATA_ACTIVE | (reads ? PRESENT.READING : PRESENT.WRITING);
    while (room > 0) {
      if (reads && s.count === 0 && !(yield* this.#fromCard())) return;
      if (epoch !== this.#epoch) return;
      const part = Math.min(size - s.count, room);
      if (reads) dma.write(s.sdmaAddress, s.buffer, s.count, part);
      else if (!dma.read(s.sdmaAddress, s.buffer, s.count, part)) s.buffer.fill(0, s.count, s.count + part);
      s.sdmaAddress = (s.sdmaAddress + part) >>> 0;
      s.count += part;
      room -= part;
      if (s.count < size) continue;
      s.count = 0;
      if (!reads && !(yield* this.#toCard())) return;
      s.blockCount = (s.blockCount - 1) & 0xffff;
      if (single || s.blockCount === 0) {
        this.#host.ended();
        return;
      }
    }
    this.#host.raise(NORMAL.DMA);
  }

  // ADMA (sections 1.13.2 to 1.13.5)

  #fetchDescriptor(): AdmaDescriptor {
    const { s, dma } = this.#host;
    const view = this.#descriptorView;
    const at = s.admaHigh * 2 ** 32 + s.admaLow;
    const kind = s.control & DMA.MASK;
    const size = kind === DMA.ADMA1 ? 4 : kind === DMA.ADMA2 ? 8 : 12;
    this.#descriptor.fill(0);
    dma.read(at, this.#descriptor, 0, size);
    const first = view.getUint32(0, true);
    if (kind === DMA.ADMA1) {
      const sets = (first & ATTRIBUTE.ACTION) === ATTRIBUTE.SET_LENGTH;
      const length = sets ? (first >>> 12) & 0xffff : PAGE;
      return { address: (first & ~0xfff) >>> 0, length, attributes: first & 0x3f, size };
    }
    const low = view.getUint32(4, true);
    const address = kind === DMA.ADMA2 ? (low & ~3) >>> 0 : view.getUint32(8, true) * 2 ** 32 + low;
    return { address, length: first >>> 16, attributes: first & 0x3f, size };
  }

  *#adma(): Task {
    const { s } = this.#host;
    if ((s.mode & MODE.COUNT) !== 0 && s.blockCount === 0) {
      this.#host.ended();
      return;
    }
    for (let count = 0; count < DESCRIPTORS_A_TURN; count++) {
      s.admaError &= ~ADMA_ERROR.LENGTH_MISMATCH;
      const descriptor = this.#fetchDescriptor();
      if ((descriptor.attributes & ATTRIBUTE.VALID) === 0) {
        s.admaError = (s.admaError & ~ADMA_ERROR.STATE) | ADMA_ERROR.FETCH;
        this.#host.raise(0, ERROR.ADMA);
        return;
      }
      const action = descriptor.attributes & ATTRIBUTE.ACTION;
      let left = 0;
      if (action === ATTRIBUTE.TRANSFER) {
        const outcome = yield* this.#describedTransfer(descriptor);
        if (outcome < 0) return;
        left = outcome;
      }
      if (action === ATTRIBUTE.LINK) this.#pointTo(descriptor.address);
      else this.#pointTo(s.admaHigh * 2 ** 32 + s.admaLow + descriptor.size);
      const ends = (descriptor.attributes & ATTRIBUTE.END) !== 0;
      if ((descriptor.attributes & ATTRIBUTE.INTERRUPT) !== 0) {
        this.#host.raise(NORMAL.DMA);
        if (this.#host.interrupting && !ends) break;
      }
      const counted = (s.mode & MODE.COUNT) !== 0;
      if (!ends && !(counted && s.blockCount === 0)) continue;
      const mismatch = left > 0 || (ends && counted && s.blockCount !== 0);
      if (mismatch) s.admaError |= ADMA_ERROR.LENGTH_MISMATCH | ADMA_ERROR.TRANSFER;
      this.#host.ended();
      if (mismatch) this.#host.raise(0, ERROR.ADMA);
      return;
    }
    this.#host.again();
  }

  #pointTo(address: number): void {
    const { s } = this.#host;
    s.admaLow = address >>> 0;
    s.admaHigh = Math.floor(address / 2 ** 32) >>> 0;
  }

  /** Returns the bytes of the descriptor that were not needed, or -1 where the transfer is over. */
  *#describedTransfer({ address, length }: AdmaDescriptor): Task<number> {
    const { s, dma } = this.#host;
    const epoch = this.#epoch;
    const size = this.#size;
    const reads = (s.mode & MODE.READ) !== 0;
    let left = length === 0 ? 0x1_0000 : length;
    s.present |= PRESENT.DATA_INHIBIT | PRESENT.DATA_ACTIVE | (reads ? PRESENT.READING : PRESENT.WRITING);
    while (left > 0 && size > 0) {
      if (reads && s.count === 0 && !(yield* this.#fromCard())) return -1;
      if (epoch !== this.#epoch) return -1;
      const part = Math.max(0, Math.min(size - s.count, left));
      const moved = reads ? dma.write(address, s.buffer, s.count, part) : dma.read(address, s.buffer, s.count, part);
      if (!moved) {
        this.#host.raise(0, ERROR.ADMA);
        return -1;
      }
      address += part;
      s.count += part;
      left -= part;
      if (s.count < size) continue;
      s.count = 0;
      if (!reads && !(yield* this.#toCard())) return -1;
      if (this.#countBlock()) return left;
    }
    return left;
  }
}
