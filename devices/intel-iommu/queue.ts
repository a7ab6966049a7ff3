/** Queued invalidation (section 6.5.2): what software wants forgotten, as a ring of descriptors in memory. */
import type { Dma } from '../../core/memory/dma.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { pageAt } from './tables.ts';

/** Section 6.5.2.1 to 6.5.2.8. */
const TYPE = {
  NONE: 0,
  CONTEXT_CACHE: 1,
  IOTLB: 2,
  DEVICE_TLB: 3,
  INTERRUPT_ENTRIES: 4,
  WAIT: 5,
  PASID_IOTLB: 6,
  PASID_CACHE: 7,
} as const;

const DESCRIPTOR_SIZE = 16;
const TWO_32 = 2 ** 32;
/** CAP.MAMV: the most pages of one invalidation, as a power of two. */
export const MAX_PAGES_ORDER = 18;

/** Reserved bits of the four words of each descriptor. */
const RESERVED: Readonly<Record<number, readonly [number, number, number, number]>> = {
  [TYPE.CONTEXT_CACHE]: [0x0000_ffc0, 0xfffc_0000, 0xffff_ffff, 0xffff_ffff],
  [TYPE.IOTLB]: [0x0000_ff00, 0xffff_ffff, 0x0000_0f80, 0],
  [TYPE.DEVICE_TLB]: [0xffe0_fff8, 0xffff_0000, 0x0000_0ffe, 0],
  [TYPE.INTERRUPT_ENTRIES]: [0, 0, 0, 0],
  [TYPE.WAIT]: [0xffff_ff80, 0, 0x3, 0],
  [TYPE.PASID_IOTLB]: [0, 0, 0, 0],
  [TYPE.PASID_CACHE]: [0, 0, 0, 0],
};
const WAIT = { INTERRUPT: 1 << 4, STATUS_WRITE: 1 << 5 } as const;

/** What the descriptors are carried out on. */
export interface InvalidationTarget {
  /** `granularity` as in CCMD.CIRG. Returns whether there is such a one. */
  invalidateContexts(granularity: number): boolean;
  /** `granularity` as in IOTLB.IIRG. */
  invalidateTlb(granularity: number, domain: number, address: number, order: number): boolean;
  completed(): void;
  failed(): void;
}

export const queueState = {
  enabled: field.bool(),
  base: field.number(),
  entries: field.u32(),
  head: field.u32(),
  tail: field.u32(),
  lastType: field.u8(),
} as const;

export class InvalidationQueue {
  readonly #dma: Dma;
  readonly #state: StateValues<typeof queueState>;
  readonly #target: InvalidationTarget;
  readonly #words = new Uint32Array(4);
  readonly #status = new Uint8Array(4);

  constructor(dma: Dma, state: StateValues<typeof queueState>, target: InvalidationTarget) {
    this.#dma = dma;
    this.#state = state;
    this.#target = target;
  }

  enable(base: number, order: number): void {
    Object.assign(this.#state, { enabled: true, base, entries: 2 ** (order + 8) });
  }

  /** Section 6.5.2: software lets it run empty first, and a wait descriptor be the last. */
  disable(): boolean {
    const state = this.#state;
    if (!state.enabled || state.head !== state.tail || state.lastType !== TYPE.WAIT) return false;
    state.enabled = false;
    state.head = 0;
    return true;
  }

  /** Carries out what there is, until the first one that is wrong. */
  run(): void {
    const state = this.#state;
    if (state.tail >= state.entries) return this.#target.failed();
    while (state.head !== state.tail) {
      if (!this.#fetch() || !this.#execute()) return this.#target.failed();
      state.head = (state.head + 1) % state.entries;
    }
  }

  #fetch(): boolean {
    const state = this.#state;
    const there = this.#dma.readWords(state.base + state.head * DESCRIPTOR_SIZE, this.#words);
    state.lastType = there ? this.#word(0) & 0xf : TYPE.NONE;
    return there;
  }

  #word(index: number): number {
    return this.#words[index] ?? 0;
  }

  #execute(): boolean {
    const type = this.#state.lastType;
    const reserved = RESERVED[type];
    if (reserved === undefined) return false;
    for (let index = 0; index < 4; index++) if ((this.#word(index) & (reserved[index] ?? 0)) !== 0) return false;
    const first = this.#word(0);
    const second = this.#word(1);
    const granularity = (first >>> 4) & 3;
    switch (type) {
      case TYPE.CONTEXT_CACHE:
        return this.#target.invalidateContexts(granularity);
      case TYPE.IOTLB: {
        const third = this.#word(2);
        const address = pageAt(third, this.#word(3));
        return this.#target.invalidateTlb(granularity, first >>> 16, address, third & 0x3f);
      }
      case TYPE.WAIT:
        return this.#wait(first, second);
      default:
        // No function here keeps translations of its own, and there are no PASIDs.
        return true;
    }
  }

  /** Section 6.5.2.8. */
  #wait(flags: number, data: number): boolean {
    if ((flags & (WAIT.STATUS_WRITE | WAIT.INTERRUPT)) === 0) return false;
    if ((flags & WAIT.STATUS_WRITE) !== 0) {
      for (let at = 0; at < 4; at++) this.#status[at] = data >>> (8 * at);
      if (!this.#dma.write(this.#word(3) * TWO_32 + this.#word(2), this.#status)) return false;
    }
    if ((flags & WAIT.INTERRUPT) !== 0) this.#target.completed();
    return true;
  }
}
