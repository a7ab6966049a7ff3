import type { Timer } from '../../core/clock/timer-queue.ts';
import type { Registers } from '../../core/register/register.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { increment } from '../e1000/statistics.ts';
import { CTRL_EXT, type e1000eRegisters, INT, RFCTL, VECTORS } from './registers.ts';

/** Receive and transmit delays count 1.024 µs, throttling counts 256 ns (82574 datasheet, sections 10.2.5.10 and 10.2.4.2). */
const DELAY_NS = 1024;
const THROTTLE_NS = 256;
/** Intervals below this are taken as this: no more than 7813 interrupts a second. */
const SHORTEST_INTERVAL = 500;
/** Causes that wait for the receive timers, and for the transmit timers (sections 7.4.4.1 and 7.4.4.2). */
const RECEIVE_CAUSES = INT.RXQ0 | INT.RXQ1 | INT.RXT0;
const TRANSMIT_CAUSES = INT.TXQ0 | INT.TXQ1 | INT.TXQE | INT.TXDW;
/** Causes that MSI-X tells of together. */
const OTHER_CAUSES = INT.LSC | INT.RXO | INT.MDAC | INT.SRPD | INT.ACK | INT.MNG;
const QUEUE_CAUSES = INT.RXQ0 | INT.RXQ1 | INT.TXQ0 | INT.TXQ1 | INT.OTHER;
const MASKABLE =
  INT.TXDW |
  INT.TXQE |
  INT.LSC |
  INT.RXDMT0 |
  INT.RXO |
  INT.RXT0 |
  INT.MDAC |
  INT.TXD_LOW |
  INT.SRPD |
  INT.ACK |
  INT.MNG |
  QUEUE_CAUSES;
/** Which four bits of IVAR say the vector of a cause (section 10.2.4.9). */
const ALLOCATION = [
  [INT.RXQ0, 0],
  [INT.RXQ1, 4],
  [INT.TXQ0, 8],
  [INT.TXQ1, 12],
  [INT.OTHER, 16],
] as const;
const IVAR_VALID = 8;
const IVAR_VECTOR = 7;

export const interruptState = {
  delayed: field.u32(),
  signalled: field.u32(),
  held: field.bool(),
  heldVectors: field.u8(),
  interval: field.u16(),
  intervals: field.words(VECTORS),
};

/** How software wants to be interrupted. */
export type SignalMode = 'pin' | 'msi' | 'msi-x';

/** What the interrupt unit needs of its card. */
export interface InterruptHost {
  readonly signalMode: SignalMode;
  setPin(level: boolean): void;
  signal(vector: number): void;
  clearPending(vector: number): void;
  timer(name: string, callback: () => void): Timer;
}

/** Causes, masks, moderation and vectors (section 7.4). */
export class Interrupts {
  readonly #regs: Registers<typeof e1000eRegisters>;
  readonly #s: StateValues<typeof interruptState>;
  readonly #host: InterruptHost;
  readonly #rdtr: Timer;
  readonly #radv: Timer;
  readonly #raid: Timer;
  readonly #tidv: Timer;
  readonly #tadv: Timer;
  readonly #throttle: Timer;
  readonly #throttles: readonly Timer[];

  constructor(regs: Registers<typeof e1000eRegisters>, state: StateValues<typeof interruptState>, host: InterruptHost) {
    this.#regs = regs;
    this.#s = state;
    this.#host = host;
    const delay = (name: string): Timer => host.timer(name, () => this.raise(0));
    this.#rdtr = delay('rdtr');
    this.#radv = delay('radv');
    this.#raid = delay('raid');
    this.#tidv = delay('tidv');
    this.#tadv = delay('tadv');
    this.#throttle = host.timer('itr', () => this.#throttled());
    this.#throttles = Array.from({ length: VECTORS }, (_, vector) =>
      host.timer(`eitr${vector}`, () => this.#vectorThrottled(vector)),
    );
  }

  // What software does

  /**
   * Reading ICR acknowledges what it shows, unless MSI-X does so by itself (section 7.4.5): then where it has a cause that is not
   * masked, or nothing is masked in (Intel's "PCIe GbE Controllers Open Source Software Developer's Manual", section 13.3.27). Linux
   * counts on it for changes of the link.
   */
  read(stored: number): number {
    const { ICR, IMS, IAM, CTRL_EXT: control } = this.#regs;
    if (IMS.value === 0 || this.#host.signalMode !== 'msi-x') ICR.value = 0;
    if ((ICR.value & INT.ASSERTED) !== 0 && (control.value & CTRL_EXT.IAME) !== 0) {
      ICR.value = 0;
      IMS.value &= ~IAM.value;
    }
    if ((ICR.value & IMS.value) !== 0) ICR.value = 0;
    this.update();
    return stored;
  }

  /** What ICR holds after ones were written to it. */
  acknowledge(previous: number, written: number): number {
    const { IMS, IAM, CTRL_EXT: control } = this.#regs;
    if ((previous & INT.ASSERTED) !== 0 && (control.value & CTRL_EXT.IAME) !== 0) IMS.value &= ~IAM.value;
    const left = previous & ~written;
    return ((written & INT.OTHER) !== 0 ? left & ~OTHER_CAUSES : left) >>> 0;
  }

  unmask(causes: number): void {
    const { IMS, CTRL_EXT: control } = this.#regs;
    const wanted = causes & MASKABLE;
    IMS.value |= wanted;
    if ((control.value & CTRL_EXT.PBA_CLR) !== 0 && this.#host.signalMode === 'msi-x') {
      for (const [cause, shift] of ALLOCATION) if ((wanted & cause) !== 0) this.#clearVector(shift);
    }
    if (wanted === MASKABLE && (control.value & CTRL_EXT.INT_TIMERS_CLEAR) !== 0) this.#endAllDelays();
    this.update();
  }

  mask(causes: number): void {
    this.#regs.IMS.value &= ~causes;
    this.update();
  }

  get interval(): number {
    return this.#s.interval;
  }

  /** What ITR holds of `value`. */
  throttle(value: number): number {
    this.#s.interval = value & 0xffff;
    return Math.max(this.#s.interval, SHORTEST_INTERVAL);
  }

  intervalOf(vector: number): number {
    return this.#s.intervals[vector] ?? 0;
  }

  throttleVector(vector: number, value: number): number {
    this.#s.intervals[vector] = value & 0xffff;
    return Math.max(value & 0xffff, SHORTEST_INTERVAL);
  }

  /** Software does not want to wait for the receive or the transmit timer any longer. */
  flush(direction: 'receive' | 'transmit'): void {
    if ((direction === 'receive' ? this.#rdtr : this.#tidv).pending) this.raise(0);
  }

  // What the card does

  raise(causes: number): void {
    this.#regs.ICR.value = (this.#regs.ICR.value | causes | this.#takeDelayed()) >>> 0;
    this.update();
  }

  received(causes: number): void {
    const { RDTR, RADV, RAID, RFCTL: filter } = this.#regs;
    if (this.#host.signalMode === 'msi-x') {
      this.raise(causes);
      return;
    }
    const s = this.#s;
    const delayable = RECEIVE_CAUSES | ((filter.value & RFCTL.ACK_DIS) === 0 ? INT.ACK : 0);
    s.delayed = (s.delayed | (causes & delayable)) >>> 0;
    const now = causes & ~delayable;
    if (RDTR.value === 0 || now !== 0 || (RAID.value === 0 && (s.delayed & INT.ACK) !== 0)) {
      this.raise(now);
      return;
    }
    this.#rdtr.arm(RDTR.value * DELAY_NS);
    if (RADV.value !== 0 && !this.#radv.pending) this.#radv.arm(RADV.value * DELAY_NS);
    if ((s.delayed & INT.ACK) !== 0 && !this.#raid.pending) this.#raid.arm(RAID.value * DELAY_NS);
  }

  /** `delayed` where software has set IDE in a descriptor. */
  sent(causes: number, delayed: boolean): void {
    const { TIDV, TADV } = this.#regs;
    const s = this.#s;
    if (!delayed || this.#host.signalMode === 'msi-x') {
      this.raise(causes);
      return;
    }
    s.delayed = (s.delayed | (causes & TRANSMIT_CAUSES)) >>> 0;
    const now = causes & ~TRANSMIT_CAUSES;
    if (now !== 0) {
      this.raise(now);
      return;
    }
    this.#tidv.arm(TIDV.value * DELAY_NS);
    if (TADV.value !== 0 && !this.#tadv.pending) this.#tadv.arm(TADV.value * DELAY_NS);
  }

  reset(): void {
    for (const timer of [...this.#delays, this.#throttle, ...this.#throttles]) timer.cancel();
    const { ITR, EITR } = this.#regs;
    ITR.value = SHORTEST_INTERVAL;
    EITR.values.fill(SHORTEST_INTERVAL);
    this.#s.delayed = 0;
    this.#s.signalled = 0;
    this.#s.held = false;
    this.#s.heldVectors = 0;
  }

  get #delays(): readonly Timer[] {
    return [this.#rdtr, this.#radv, this.#raid, this.#tidv, this.#tadv];
  }

  #takeDelayed(): number {
    const { delayed } = this.#s;
    if (delayed === 0) return 0;
    this.#s.delayed = 0;
    this.#rdtr.cancel();
    this.#radv.cancel();
    this.#raid.cancel();
    this.#tidv.cancel();
    this.#tadv.cancel();
    return delayed;
  }

  #endAllDelays(): void {
    this.#regs.ICR.value = (this.#regs.ICR.value | this.#takeDelayed()) >>> 0;
    if (this.#throttle.pending) {
      this.#throttle.cancel();
      this.#throttled();
    }
    for (const [vector, timer] of this.#throttles.entries()) {
      if (!timer.pending) continue;
      timer.cancel();
      this.#vectorThrottled(vector);
    }
  }

  update(): void {
    const { ICR, ICS, IMS } = this.#regs;
    const mode = this.#host.signalMode;
    let causes = ICR.value & ~INT.ASSERTED;
    if (mode === 'msi-x' && (causes & OTHER_CAUSES) !== 0) causes |= INT.OTHER;
    ICR.value = (causes === 0 ? 0 : causes | INT.ASSERTED) >>> 0;
    ICS.value = ICR.value;
    const pending = ICR.value & IMS.value & ~INT.ASSERTED;
    if (pending === 0) this.#s.signalled = 0;
    if (mode === 'pin') this.#drivePin(pending !== 0);
    else if (pending !== 0) this.#signal(pending, mode === 'msi-x');
  }

  #drivePin(pending: boolean): void {
    if (!pending) this.#host.setPin(false);
    else if (!this.#held()) {
      increment(this.#regs.IAC);
      this.#host.setPin(true);
    }
  }

  /** Messages tell of causes that they have not told of before. */
  #signal(pending: number, vectors: boolean): void {
    const s = this.#s;
    s.signalled &= pending;
    const news = pending & ~s.signalled;
    if (news === 0) return;
    s.signalled |= news;
    if (vectors) {
      for (const [cause, shift] of ALLOCATION) if ((news & cause) !== 0) this.#signalVector(cause, shift);
    } else if (!this.#held()) this.#host.signal(0);
  }

  /** Throttling (section 7.4.4): an interrupt soon after another waits. */
  #held(): boolean {
    if (this.#throttle.pending) {
      this.#s.held = true;
      return true;
    }
    this.#throttle.arm(this.#regs.ITR.value * THROTTLE_NS);
    return false;
  }

  #throttled(): void {
    if (!this.#s.held) return;
    this.#s.held = false;
    if (this.#host.signalMode === 'msi') this.#s.signalled = 0;
    this.raise(0);
  }

  // MSI-X (section 7.4.2)

  #vectorOf(shift: number): number | undefined {
    const allocation = (this.#regs.IVAR.value >>> shift) & 0xf;
    const vector = allocation & IVAR_VECTOR;
    return (allocation & IVAR_VALID) !== 0 && vector < VECTORS ? vector : undefined;
  }

  #signalVector(cause: number, shift: number): void {
    const { CTRL_EXT: control, IAM, EIAC, ICR, IMS } = this.#regs;
    const vector = this.#vectorOf(shift);
    if (vector !== undefined && !this.#vectorHeld(vector)) this.#host.signal(vector);
    if ((control.value & CTRL_EXT.EIAME) !== 0) IAM.value &= ~cause;
    const cleared = EIAC.value & cause;
    ICR.value &= ~cleared;
    this.#s.signalled &= ~cleared;
    if ((control.value & CTRL_EXT.IAME) === 0) IMS.value &= ~cleared;
  }

  #vectorHeld(vector: number): boolean {
    const timer = this.#throttles[vector];
    if (timer === undefined) return false;
    if (timer.pending) {
      this.#s.heldVectors |= 1 << vector;
      return true;
    }
    timer.arm(this.#regs.EITR.at(vector).value * THROTTLE_NS);
    return false;
  }

  #vectorThrottled(vector: number): void {
    if ((this.#s.heldVectors & (1 << vector)) === 0) return;
    this.#s.heldVectors &= ~(1 << vector);
    if (this.#host.signalMode === 'msi-x') this.#host.signal(vector);
  }

  #clearVector(shift: number): void {
    const vector = this.#vectorOf(shift);
    if (vector !== undefined) this.#host.clearPending(vector);
  }
}
