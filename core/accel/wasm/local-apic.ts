import * as lapic from '../lapic-registers.ts';

const LVTS = [
  lapic.LVT_TIMER,
  lapic.LVT_THERMAL,
  lapic.LVT_COUNTERS,
  lapic.LVT_LINT0,
  lapic.LVT_LINT1,
  lapic.LVT_ERROR,
] as const;
/** Which bits of each local vector table entry can be written (section 11.5.1, figure 11-8). */
const LVT_WRITABLE = new Map<number, number>([
  [lapic.LVT_TIMER, 0x7_00ff],
  [lapic.LVT_THERMAL, 0x1_07ff],
  [lapic.LVT_COUNTERS, 0x1_07ff],
  [lapic.LVT_LINT0, 0x1_a7ff],
  [lapic.LVT_LINT1, 0x1_a7ff],
  [lapic.LVT_ERROR, 0x1_00ff],
]);
const MASKED = 1 << 16;
const PERIODIC = 1 << 17;
const VECTOR = 0xff;
/** Version 14h with six entries in the local vector table (section 11.4.8). */
const VERSION_VALUE = 0x5_0014;
const SVR_ENABLE = 1 << 8;
const SVR_WRITABLE = 0x3ff;
const ICR_PENDING = 1 << 12;
const DFR_CLUSTER = 0;
/** Error status (section 11.5.3). */
const SENT_ILLEGAL_VECTOR = 1 << 5;
const RECEIVED_ILLEGAL_VECTOR = 1 << 6;
const ILLEGAL_REGISTER = 1 << 7;
const EXTINT_UNMASKED = 0x700;

const BROADCAST = 0xff;

/** A message on the bus between APICs. */
export interface ApicMessage {
  readonly vector: number;
  /** One of {@link lapic.DELIVERY}. */
  readonly delivery: number;
  readonly levelTriggered: boolean;
}

/** What a local APIC asks of those around it. */
export interface ApicSurroundings {
  /** Nanoseconds of the machine's virtual time: the timer counts one each, before it divides. */
  nowNs(): number;
  /** The interrupt command register was written. */
  send(low: number, high: number): void;
  /** A level-triggered interrupt has been served: the I/O APICs hear of it. */
  endOfInterrupt(vector: number): void;
}

const WORDS = lapic.REGISTERS_END / lapic.STRIDE;
const STATE_SIZE = 4 * WORDS + 16;

/**
 * One CPU's local APIC (Intel SDM volume 3, chapter 11), as it is memory-mapped. What it has for its CPU is in {@link pending}; the
 * CPU says with {@link accept} that it has taken it.
 */
export class LocalApic {
  static readonly stateSize = STATE_SIZE;
  /** The ID that it has from power-on. */
  readonly initialId: number;
  readonly #bootstrap: boolean;
  readonly #around: ApicSurroundings;
  /** Each register at its offset divided by 16, but what is computed. */
  readonly #words = new Int32Array(WORDS);
  /** What the error status register will show once it is written. */
  #errors = 0;
  #timerStartNs = 0;
  /** When the timer next runs out, in virtual time. */
  #timerDueNs = Number.POSITIVE_INFINITY;

  constructor(initialId: number, bootstrap: boolean, around: ApicSurroundings) {
    this.initialId = initialId;
    this.#bootstrap = bootstrap;
    this.#around = around;
    this.reset();
  }

  /** After power-up, reset and INIT (sections 11.4.7.1 and 11.4.7.3). The bootstrap CPU hears the 8259A, as firmware expects. */
  reset(): void {
    this.#words.fill(0);
    this.#set(lapic.ID, this.initialId << 24);
    this.#set(lapic.DFR, -1);
    this.#set(lapic.SVR, 0xff);
    for (const lvt of LVTS) this.#set(lvt, MASKED);
    if (this.#bootstrap) this.#set(lapic.LVT_LINT0, EXTINT_UNMASKED);
    this.#errors = 0;
    this.#timerStartNs = 0;
    this.#timerDueNs = Number.POSITIVE_INFINITY;
  }

  get id(): number {
    return this.#get(lapic.ID) >>> 24;
  }

  /** When {@link runTimer} has something to do, in nanoseconds of virtual time. */
  get timerDueNs(): number {
    return this.#timerDueNs;
  }

  /** Whether the 8259A's INTR reaches the CPU: through LINT0. */
  get acceptsExternal(): boolean {
    const lint0 = this.#get(lapic.LVT_LINT0);
    return (lint0 & MASKED) === 0 && lapic.deliveryOf(lint0) === lapic.DELIVERY.EXTINT;
  }

  /** Whether a NMI line, which is at LINT1, reaches the CPU. */
  get acceptsNmiLine(): boolean {
    const lint1 = this.#get(lapic.LVT_LINT1);
    return (lint1 & MASKED) === 0 && lapic.deliveryOf(lint1) === lapic.DELIVERY.NMI;
  }

  /** The vector for the CPU to take now, or -1 (section 11.8.4). */
  get pending(): number {
    if ((this.#get(lapic.SVR) & SVR_ENABLE) === 0) return -1;
    const requested = this.#highest(lapic.IRR);
    return requested >> 4 > this.priority >> 4 ? requested : -1;
  }

  /** The processor priority (section 11.8.3.1). */
  get priority(): number {
    const task = this.#get(lapic.TPR);
    const inService = Math.max(0, this.#highest(lapic.ISR));
    return task >> 4 >= inService >> 4 ? task : inService & 0xf0;
  }

  /** The CPU takes `vector`. */
  accept(vector: number): void {
    this.#clearBit(lapic.IRR, vector);
    this.#setBit(lapic.ISR, vector);
  }

  /** Whether a message to `destination` is for this CPU (section 11.6.2). */
  isDestination(destination: number, logical: boolean): boolean {
    if (destination === BROADCAST) return true;
    if (!logical) return destination === this.id;
    const own = this.#get(lapic.LDR) >>> 24;
    if (this.#get(lapic.DFR) >>> 28 !== DFR_CLUSTER) return (destination & own) !== 0;
    return destination >> 4 === own >> 4 && (destination & own & 0xf) !== 0;
  }

  /** A fixed or lowest-priority interrupt arrives. */
  request({ vector, levelTriggered }: ApicMessage): void {
    if (vector < lapic.FIRST_VECTOR) {
      this.#error(RECEIVED_ILLEGAL_VECTOR);
      return;
    }
    this.#setBit(lapic.IRR, vector);
    if (levelTriggered) this.#setBit(lapic.TMR, vector);
    else this.#clearBit(lapic.TMR, vector);
  }

  // --- registers

  read(offset: number): number {
    switch (offset) {
      case lapic.VERSION:
        return VERSION_VALUE;
      case lapic.APR:
      case lapic.PPR:
        return this.priority;
      case lapic.EOI:
        return 0;
      case lapic.CURRENT_COUNT:
        return this.#currentCount();
      default:
        if (!isRegister(offset)) this.#error(ILLEGAL_REGISTER);
        return this.#get(offset);
    }
  }

  /** All registers as the CPU reads them. */
  page(): Uint32Array {
    return lapic.registersOf(offset => (isRegister(offset) ? this.read(offset) : 0));
  }

  write(offset: number, value: number): void {
    switch (offset) {
      case lapic.ID:
        this.#set(lapic.ID, value & 0xff00_0000);
        break;
      case lapic.TPR:
        this.#set(lapic.TPR, value & 0xff);
        break;
      case lapic.EOI:
        this.#finish();
        break;
      case lapic.LDR:
        this.#set(lapic.LDR, value & 0xff00_0000);
        break;
      case lapic.DFR:
        this.#set(lapic.DFR, value | 0x0fff_ffff);
        break;
      case lapic.SVR:
        this.#set(lapic.SVR, value & SVR_WRITABLE);
        // Section 11.4.7.2: all entries are masked, and stay so while it is disabled.
        if ((value & SVR_ENABLE) === 0) for (const lvt of LVTS) this.#set(lvt, this.#get(lvt) | MASKED);
        break;
      case lapic.ESR:
        this.#set(lapic.ESR, this.#errors);
        this.#errors = 0;
        break;
      case lapic.ICR_LOW:
        this.#set(lapic.ICR_LOW, value & ~ICR_PENDING);
        this.#command(value);
        break;
      case lapic.ICR_HIGH:
        this.#set(lapic.ICR_HIGH, value & 0xff00_0000);
        break;
      case lapic.INITIAL_COUNT:
        this.#set(lapic.INITIAL_COUNT, value);
        this.#timerStartNs = this.#around.nowNs();
        this.#scheduleTimer(true);
        break;
      case lapic.DIVIDE:
        this.#set(lapic.DIVIDE, value & 0xb);
        this.#scheduleTimer(this.#timerDueNs !== Number.POSITIVE_INFINITY);
        break;
      default:
        this.#writeOther(offset, value);
    }
  }

  #writeOther(offset: number, value: number): void {
    const writable = LVT_WRITABLE.get(offset);
    if (writable === undefined) {
      if (!isRegister(offset)) this.#error(ILLEGAL_REGISTER);
      return;
    }
    const disabled = (this.#get(lapic.SVR) & SVR_ENABLE) === 0;
    this.#set(offset, (value & writable) | (disabled ? MASKED : 0));
    if (offset === lapic.LVT_TIMER) this.#scheduleTimer(this.#timerDueNs !== Number.POSITIVE_INFINITY);
  }

  #command(low: number): void {
    const delivery = lapic.deliveryOf(low);
    if (delivery <= lapic.DELIVERY.LOWEST && (low & VECTOR) < lapic.FIRST_VECTOR) this.#error(SENT_ILLEGAL_VECTOR);
    else this.#around.send(low, this.#get(lapic.ICR_HIGH));
  }

  /** Section 11.8.5. */
  #finish(): void {
    const vector = this.#highest(lapic.ISR);
    if (vector < 0) return;
    this.#clearBit(lapic.ISR, vector);
    if (this.#bit(lapic.TMR, vector)) this.#around.endOfInterrupt(vector);
  }

  #error(bit: number): void {
    this.#errors |= bit;
    this.#raiseLocal(lapic.LVT_ERROR);
  }

  #raiseLocal(lvt: number): void {
    const entry = this.#get(lvt);
    if ((entry & MASKED) === 0 && (entry & VECTOR) >= lapic.FIRST_VECTOR)
      this.request({ vector: entry & VECTOR, delivery: lapic.DELIVERY.FIXED, levelTriggered: false });
  }

  // --- the timer (section 11.5.4)

  #tickNs(): number {
    return lapic.divisorOf(this.#get(lapic.DIVIDE));
  }

  #periodNs(): number {
    return (this.#get(lapic.INITIAL_COUNT) >>> 0) * this.#tickNs();
  }

  /** @param owed whether it still has an interrupt to give; otherwise it may have run out unseen, while it was masked */
  #scheduleTimer(owed: boolean): void {
    const period = this.#periodNs();
    this.#timerDueNs = Number.POSITIVE_INFINITY;
    if (period === 0 || (this.#get(lapic.LVT_TIMER) & MASKED) !== 0) return;
    const due = this.#timerStartNs + period;
    const now = this.#around.nowNs();
    if (owed || due > now) this.#timerDueNs = due;
    else if ((this.#get(lapic.LVT_TIMER) & PERIODIC) !== 0)
      this.#timerDueNs = this.#timerStartNs + period * (Math.floor((now - this.#timerStartNs) / period) + 1);
  }

  /** Raises the timer's interrupt if it is due. Periods that nobody had time for are left out. */
  runTimer(nowNs: number): void {
    if (nowNs < this.#timerDueNs) return;
    if ((this.#get(lapic.LVT_TIMER) & PERIODIC) !== 0) {
      const period = this.#periodNs();
      this.#timerDueNs += period * (Math.floor((nowNs - this.#timerDueNs) / period) + 1);
    } else {
      this.#timerDueNs = Number.POSITIVE_INFINITY;
    }
    this.#raiseLocal(lapic.LVT_TIMER);
  }

  #currentCount(): number {
    const initial = this.#get(lapic.INITIAL_COUNT) >>> 0;
    if (initial === 0) return 0;
    const ticks = Math.floor((this.#around.nowNs() - this.#timerStartNs) / this.#tickNs());
    if (ticks < initial) return (initial - ticks) | 0;
    return (this.#get(lapic.LVT_TIMER) & PERIODIC) !== 0 ? (initial - (ticks % initial)) | 0 : 0;
  }

  // --- state

  /** Whether `bytes` can be a saved state. */
  static isState(bytes: Uint8Array): boolean {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return (
      bytes.length === STATE_SIZE &&
      Number.isFinite(view.getFloat64(4 * WORDS, true)) &&
      view.getFloat64(4 * WORDS + 8, true) >= 0
    );
  }

  save(): Uint8Array {
    const bytes = new Uint8Array(STATE_SIZE);
    const view = new DataView(bytes.buffer);
    this.#words.forEach((word, index) => view.setInt32(4 * index, word, true));
    view.setInt32(4 * (lapic.EOI / lapic.STRIDE), this.#errors, true);
    view.setFloat64(4 * WORDS, this.#timerStartNs, true);
    view.setFloat64(4 * WORDS + 8, this.#timerDueNs, true);
    return bytes;
  }

  /** @param deltaNs how much later it is now, by this machine's clock, than it was by that of the saved one */
  restore(bytes: Uint8Array, deltaNs: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let index = 0; index < WORDS; index++) this.#words[index] = view.getInt32(4 * index, true);
    this.#errors = this.#get(lapic.EOI);
    this.#set(lapic.EOI, 0);
    this.#timerStartNs = view.getFloat64(4 * WORDS, true) + deltaNs;
    this.#timerDueNs = view.getFloat64(4 * WORDS + 8, true) + deltaNs;
  }

  #get(offset: number): number {
    return this.#words[offset / lapic.STRIDE] ?? 0;
  }

  #set(offset: number, value: number): void {
    this.#words[offset / lapic.STRIDE] = value;
  }

  // --- the three registers of 256 bits

  #bit(register: number, vector: number): boolean {
    return (this.#get(register + lapic.STRIDE * (vector >> 5)) & (1 << (vector & 31))) !== 0;
  }

  #setBit(register: number, vector: number): void {
    const at = register + lapic.STRIDE * (vector >> 5);
    this.#set(at, this.#get(at) | (1 << (vector & 31)));
  }

  #clearBit(register: number, vector: number): void {
    const at = register + lapic.STRIDE * (vector >> 5);
    this.#set(at, this.#get(at) & ~(1 << (vector & 31)));
  }

  #highest(register: number): number {
    for (let word = 7; word >= 0; word--) {
      const bits = this.#get(register + lapic.STRIDE * word);
      if (bits !== 0) return 32 * word + 31 - Math.clz32(bits);
    }
    return -1;
  }
}

/** Whether there is a register at `offset`, which is a multiple of 16. */
function isRegister(offset: number): boolean {
  return (
    offset === lapic.ID ||
    offset === lapic.VERSION ||
    (offset >= lapic.TPR && offset <= lapic.EOI) ||
    (offset >= lapic.LDR && offset <= lapic.ESR) ||
    (offset >= lapic.ICR_LOW && offset <= lapic.CURRENT_COUNT) ||
    offset === lapic.DIVIDE
  );
}
