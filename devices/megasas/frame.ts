import type { Dma } from '../../core/memory/dma.ts';
import { putSense, SENSE_BYTES, type Sense } from '../../core/scsi/sense.ts';
import type { ScatterList } from '../ide/scatter-list.ts';
import { FLAG, FRAME_BYTES, HEADER, IO, MAX_SGE, SGE_IEEE, SGE32, SGE64 } from './registers.ts';

const sense = new Uint8Array(SENSE_BYTES);

/** A frame of the host's, copied when its address came, so that the host cannot change it between check and use. */
export class Frame {
  readonly address: number;
  readonly #dma: Dma;
  readonly #bytes = new Uint8Array(FRAME_BYTES);
  readonly view = new DataView(this.#bytes.buffer);
  /** In two halves. */
  contextLow = 0;
  contextHigh = 0;

  private constructor(dma: Dma, address: number) {
    this.#dma = dma;
    this.address = address;
  }

  /** Undefined where there is no memory for a whole one. */
  static fetch(dma: Dma, address: number): Frame | undefined {
    const frame = new Frame(dma, address);
    if (!dma.read(address, frame.#bytes)) return undefined;
    frame.contextLow = frame.view.getUint32(HEADER.CONTEXT, true);
    frame.contextHigh = frame.view.getUint32(HEADER.CONTEXT + 4, true);
    return frame;
  }

  get command(): number {
    return this.view.getUint8(HEADER.COMMAND);
  }

  get flags(): number {
    return this.view.getUint16(HEADER.FLAGS, true);
  }

  get target(): number {
    return this.view.getUint8(HEADER.TARGET);
  }

  get lun(): number {
    return this.view.getUint8(HEADER.LUN);
  }

  get dataLength(): number {
    return this.view.getUint32(HEADER.DATA_LENGTH, true);
  }

  get sgeCount(): number {
    return this.view.getUint8(HEADER.SGE_COUNT);
  }

  bytes(at: number, length: number): Uint8Array {
    return this.#bytes.subarray(at, at + length);
  }

  /** A number of 64 bits, rounded beyond 2^53: no address and no block has such a one. */
  wide(at: number): number {
    return this.view.getUint32(at + 4, true) * 2 ** 32 + this.view.getUint32(at, true);
  }

  /** Takes the scatter gather list at `at`. False where it is none; it is empty where there is none. */
  describe(list: ScatterList, at: number): boolean {
    list.clear();
    const { flags, sgeCount, view } = this;
    if (sgeCount > MAX_SGE) return false;
    const ieee = (flags & FLAG.IEEE_SGL) !== 0;
    const kind = ieee ? SGE_IEEE : (flags & FLAG.SGL64) !== 0 ? SGE64 : SGE32;
    for (let index = 0; index < sgeCount; index++, at += kind.SIZE) {
      if (at + kind.SIZE > FRAME_BYTES) return false;
      const address = kind === SGE32 ? view.getUint32(at, true) : this.wide(at);
      const length = view.getUint32(at + kind.LENGTH, true);
      if (address === 0 || length === 0) return false;
      list.add(address, length);
    }
    return true;
  }

  /** Writes sense data to where the host wants it, as much as there is room for (the same place in all frames of blocks). */
  putSense(value: Sense): void {
    const room = Math.min(SENSE_BYTES, this.view.getUint8(HEADER.SENSE_LENGTH));
    if (room === 0) return;
    const length = putSense(sense, room, value);
    const wide = (this.flags & FLAG.SENSE64) !== 0;
    this.#dma.write(wide ? this.wide(IO.SENSE) : this.view.getUint32(IO.SENSE, true), sense, 0, length);
    this.#dma.write8(this.address + HEADER.SENSE_LENGTH, length);
  }

  setScsiStatus(status: number): void {
    this.#dma.write8(this.address + HEADER.SCSI_STATUS, status);
  }

  setStatus(status: number): void {
    this.#dma.write8(this.address + HEADER.STATUS, status);
  }
}
