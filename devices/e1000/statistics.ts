import { isBroadcast, isGroup } from '../../core/net/ethernet.ts';

/** A register that counts up to its end and stays there. */
type Counter = { value: number };

/** The counters that Intel's controllers have in common (8254x manual, section 13.7; 82574 datasheet, section 10.2.7). */
type Name =
  | 'PRC64'
  | 'PRC127'
  | 'PRC255'
  | 'PRC511'
  | 'PRC1023'
  | 'PRC1522'
  | 'PTC64'
  | 'PTC127'
  | 'PTC255'
  | 'PTC511'
  | 'PTC1023'
  | 'PTC1522'
  | 'TPR'
  | 'GPRC'
  | 'BPRC'
  | 'MPRC'
  | 'TPT'
  | 'GPTC'
  | 'BPTC'
  | 'MPTC'
  | 'TORL'
  | 'TORH'
  | 'GORCL'
  | 'GORCH'
  | 'TOTL'
  | 'TOTH'
  | 'GOTCL'
  | 'GOTCH';

/** Counts packets and octets, checksums included. */
export class Statistics {
  readonly #regs: Readonly<Record<Name, Counter>>;

  constructor(regs: Readonly<Record<Name, Counter>>) {
    this.#regs = regs;
  }

  received(frame: Uint8Array, size: number): void {
    const { TPR, GPRC, BPRC, MPRC, TORL, TORH, GORCL, GORCH } = this.#regs;
    increment(TPR);
    increment(GPRC);
    if (isGroup(frame)) increment(isBroadcast(frame) ? BPRC : MPRC);
    increment(this.#receivedOfSize(size));
    addOctets(TORL, TORH, size);
    addOctets(GORCL, GORCH, size);
  }

  sent(frame: Uint8Array, size: number): void {
    const { TPT, GPTC, BPTC, MPTC, TOTL, TOTH, GOTCL, GOTCH } = this.#regs;
    increment(TPT);
    increment(GPTC);
    if (isGroup(frame)) increment(isBroadcast(frame) ? BPTC : MPTC);
    increment(this.#sentOfSize(size));
    addOctets(TOTL, TOTH, size);
    addOctets(GOTCL, GOTCH, size);
  }

  #receivedOfSize(size: number): Counter {
    const { PRC64, PRC127, PRC255, PRC511, PRC1023, PRC1522 } = this.#regs;
    if (size > 1023) return PRC1522;
    return size <= 64 ? PRC64 : size <= 127 ? PRC127 : size <= 255 ? PRC255 : size <= 511 ? PRC511 : PRC1023;
  }

  #sentOfSize(size: number): Counter {
    const { PTC64, PTC127, PTC255, PTC511, PTC1023, PTC1522 } = this.#regs;
    if (size > 1023) return PTC1522;
    return size <= 64 ? PTC64 : size <= 127 ? PTC127 : size <= 255 ? PTC255 : size <= 511 ? PTC511 : PTC1023;
  }
}

export function increment(counter: Counter): void {
  if (counter.value < 0xffff_ffff) counter.value++;
}

/** A pair of registers counts octets together and stays at its end. */
function addOctets(lower: Counter, upper: Counter, size: number): void {
  const sum = lower.value + size;
  if (sum <= 0xffff_ffff) lower.value = sum;
  else if (upper.value < 0xffff_ffff) {
    upper.value++;
    lower.value = sum % 2 ** 32;
  } else lower.value = 0xffff_ffff;
}
