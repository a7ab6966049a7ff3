import type { Dma } from '../../core/memory/dma.ts';

const SHORT = 8;
const LONG = 16;
/** Software style 3 has the address and the count the other way round, so that a burst reads them. */
const REORDERED = 3;
const ADDRESS_24 = 0xff_ffff;

/** One descriptor of either ring, in any of the formats that BCR20 chooses. Read once, before it is looked at. */
export class RingDescriptor {
  /** Where the buffer is, as the descriptor says. */
  address = 0;
  /** Bytes of the buffer: 1 to 4096. */
  length = 0;
  status = 0;
  /** What went wrong in transmission; how long a received message is. */
  misc = 0;
  readonly #dma: Dma;
  readonly #words = new Uint32Array(LONG / 4);
  readonly #shortWords = this.#words.subarray(0, SHORT / 4);
  #at = 0;
  #style = 0;

  constructor(dma: Dma) {
    this.#dma = dma;
  }

  static size(style: number): number {
    return style === 0 ? SHORT : LONG;
  }

  /** False where there is no memory. */
  load(at: number, style: number): boolean {
    this.#at = at;
    this.#style = style;
    const words = style === 0 ? this.#shortWords : this.#words;
    if (!this.#dma.readWords(at, words)) return false;
    const [first = 0, second = 0, third = 0] = this.#words;
    this.length = 4096 - (second & 0xfff);
    if (style === 0) {
      this.address = first & ADDRESS_24;
      this.status = (first >>> 16) & 0xff00;
      this.misc = (second & 0xffff_0000) >>> 0;
    } else {
      this.address = style === REORDERED ? third : first;
      this.misc = style === REORDERED ? first : third;
      this.status = second >>> 16;
    }
    return true;
  }

  /** Gives it back: the status, with its ownership, goes last. `misc` as {@link misc}; a short one has its upper or lower half. */
  store(misc: number, half: 'upper' | 'lower'): void {
    const dma = this.#dma;
    const at = this.#at;
    if (this.#style === 0) {
      dma.write16(at + 6, half === 'upper' ? misc >>> 16 : misc & 0xffff);
      dma.write8(at + 3, this.status >>> 8);
      return;
    }
    dma.write32(at + (this.#style === REORDERED ? 0 : 8), misc >>> 0);
    dma.write16(at + 6, this.status);
  }
}
