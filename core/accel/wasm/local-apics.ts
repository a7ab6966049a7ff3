import type { GuestBus, InterruptSource } from '../accelerator.ts';
import * as lapic from '../lapic-registers.ts';
import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';
import type { InterruptChips, InterruptTargets } from './interrupt-chips.ts';
import { type ApicMessage, LocalApic } from './local-apic.ts';

const NS_PER_MS = 1e6;
const NONE = -1;
const PAGE_MASK = ~0xfff;

/** The interrupt command register (Intel SDM volume 3, section 11.6.1) and the data of messages (section 11.11.2). */
const LOGICAL = 1 << 11;
const ASSERT = 1 << 14;
const LEVEL = 1 << 15;
const SHORTHAND_SHIFT = 18;
const SHORTHAND = { NONE: 0, SELF: 1, ALL: 2, OTHERS: 3 } as const;
/** The address of a message (section 11.11.1). */
const MESSAGE_LOGICAL = 1 << 2;
const MESSAGE_DESTINATION_SHIFT = 12;

/** What else the APICs' messages do to CPUs. */
export interface ApicTargets extends InterruptTargets {
  init(cpu: number): void;
  /** A start-up message: real mode from that page on. */
  startUp(cpu: number, page: number): void;
  /** IA32_APIC_BASE.EN of that CPU. */
  apicEnabled(cpu: number): boolean;
}

export interface LocalApicsOptions {
  readonly apicIds: readonly number[];
  /** The 8259A pair. */
  readonly external: InterruptSource | undefined;
  nowNs(): number;
  endOfInterrupt(vector: number): void;
  readonly targets: ApicTargets;
}

/**
 * The local APICs of all CPUs and the bus between them. The CPU that the module executes sees its own at FEE00000, through
 * {@link LocalApics.busOf}, and takes what that has for it with {@link LocalApics.acknowledge}.
 */
export class LocalApics implements InterruptChips {
  readonly #apics: readonly LocalApic[];
  readonly #options: LocalApicsOptions;
  #memory: CoreMemory;
  /** Which CPU the module executes. */
  #current = 0;
  /** What {@link asVector} has for it, or -1. */
  #forced = NONE;

  constructor(memory: CoreMemory, options: LocalApicsOptions) {
    this.#options = options;
    this.#memory = memory;
    const { nowNs, endOfInterrupt } = options;
    this.#apics = options.apicIds.map(
      (id, index) =>
        new LocalApic(id, index === 0, { nowNs, endOfInterrupt, send: (low, high) => this.#send(index, low, high) }),
    );
    options.external?.onPending(() => {
      this.#refresh();
      if (this.#externalCpu >= 0) options.targets.interrupted(this.#externalCpu);
    });
  }

  readonly levels = 0;

  attach(_core: abi.Core, memory: CoreMemory): void {
    this.#memory = memory;
    this.#refresh();
  }

  /** The module executes another CPU from now on. */
  switchTo(cpu: number): void {
    this.#current = cpu;
    this.#refresh();
  }

  /** Whether that CPU has an interrupt to take once EFLAGS.IF lets it. */
  pendingFor(cpu: number): boolean {
    return this.#vectorFor(cpu) !== NONE || this.#hasExternal(cpu);
  }

  initialize(cpu: number): void {
    this.#apics[cpu]?.reset();
    this.#refresh();
  }

  /** The inputs are those of devices of the machine's. */
  setIrq(): void {}

  message(address: number, data: number): void {
    const destination = (address >>> MESSAGE_DESTINATION_SHIFT) & 0xff;
    this.#route(this.#destinations(destination, (address & MESSAGE_LOGICAL) !== 0), {
      vector: data & 0xff,
      delivery: lapic.deliveryOf(data),
      levelTriggered: (data & LEVEL) !== 0,
    });
  }

  nonMaskableLine(): void {
    const { targets } = this.#options;
    for (const [cpu, apic] of this.#apics.entries())
      if (apic.acceptsNmiLine || !targets.apicEnabled(cpu)) targets.nonMaskable(cpu);
  }

  runTimers(nowNs: number): number {
    let due = Number.POSITIVE_INFINITY;
    for (const [cpu, apic] of this.#apics.entries()) {
      if (apic.timerDueNs <= nowNs) {
        apic.runTimer(nowNs);
        if (cpu === this.#current) this.#refresh();
        this.#options.targets.interrupted(cpu);
      }
      if (apic.timerDueNs < due) due = apic.timerDueNs;
    }
    return due;
  }

  readLapic(cpu: number): Uint32Array {
    return this.#apics[cpu]?.page() ?? new Uint32Array(0);
  }

  asVector(vector: number, action: () => void): void {
    this.#forced = vector;
    this.#memory.setByte(abi.INTERRUPT_PENDING, 1);
    action();
    this.#forced = NONE;
    this.#refresh();
  }

  /** The CPU that the module executes takes its interrupt: returns the vector, or -1 where there is none. */
  acknowledge(): number {
    if (this.#forced !== NONE) return this.#forced;
    const { external } = this.#options;
    const cpu = this.#current;
    let vector = NONE;
    if (external !== undefined && this.#hasExternal(cpu)) vector = external.acknowledge();
    else {
      vector = this.#vectorFor(cpu);
      if (vector !== NONE) this.#apics[cpu]?.accept(vector);
    }
    this.#refresh();
    return vector;
  }

  /** `bus` with the local APIC of whichever CPU is asking. */
  busOf(bus: GuestBus): GuestBus {
    return {
      portRead: (port, size) => bus.portRead(port, size),
      portWrite: (port, size, value) => bus.portWrite(port, size, value),
      memoryRead: (address, size) => (this.#isOwn(address) ? this.#read(address, size) : bus.memoryRead(address, size)),
      memoryWrite: (address, size, value) => {
        if (this.#isOwn(address)) this.#write(address, size, value);
        else bus.memoryWrite(address, size, value);
      },
    };
  }

  #isOwn(address: number): boolean {
    return (address & PAGE_MASK) >>> 0 === lapic.PAGE && this.#options.targets.apicEnabled(this.#current);
  }

  /** Registers are 32 bits wide and 16 bytes apart. */
  #read(address: number, size: number): number {
    const value = (address & 0xc) === 0 ? (this.#apics[this.#current]?.read(address & 0xff0) ?? 0) : 0;
    this.#refresh();
    const part = value >>> (8 * (address & 3));
    return size === 4 ? part >>> 0 : part & (2 ** (8 * size) - 1);
  }

  #write(address: number, size: number, value: number): void {
    if (size !== 4 || (address & 0xf) !== 0) return;
    this.#apics[this.#current]?.write(address & 0xff0, value | 0);
    if (this.#refresh()) this.#options.targets.interrupted(this.#current);
  }

  // --- messages

  #send(from: number, low: number, high: number): void {
    const delivery = lapic.deliveryOf(low);
    // An INIT that is withdrawn only set arbitration IDs, on a bus that is no more.
    if (delivery === lapic.DELIVERY.INIT && (low & (LEVEL | ASSERT)) === LEVEL) return;
    const shorthand = (low >> SHORTHAND_SHIFT) & 3;
    const message = { vector: low & 0xff, delivery, levelTriggered: (low & LEVEL) !== 0 };
    const all = this.#apics.map((_, cpu) => cpu);
    if (shorthand === SHORTHAND.SELF) this.#route([from], { ...message, delivery: lapic.DELIVERY.FIXED });
    else if (shorthand === SHORTHAND.ALL) this.#route(all, message);
    else if (shorthand === SHORTHAND.OTHERS)
      this.#route(
        all.filter(cpu => cpu !== from),
        message,
      );
    else this.#route(this.#destinations(high >>> 24, (low & LOGICAL) !== 0), message);
  }

  #destinations(destination: number, logical: boolean): number[] {
    const cpus: number[] = [];
    for (const [cpu, apic] of this.#apics.entries()) if (apic.isDestination(destination, logical)) cpus.push(cpu);
    return cpus;
  }

  #route(cpus: readonly number[], message: ApicMessage): void {
    if (message.delivery === lapic.DELIVERY.LOWEST) {
      const least = this.#leastBusy(cpus);
      if (least >= 0) this.#deliver(least, message);
      return;
    }
    for (const cpu of cpus) this.#deliver(cpu, message);
  }

  /** Section 11.6.2.4: the lowest priority gets it. */
  #leastBusy(cpus: readonly number[]): number {
    let least = NONE;
    let priority = Number.POSITIVE_INFINITY;
    for (const cpu of cpus) {
      const own = this.#apics[cpu]?.priority ?? Number.POSITIVE_INFINITY;
      if (own >= priority || !this.#options.targets.apicEnabled(cpu)) continue;
      least = cpu;
      priority = own;
    }
    return least;
  }

  #deliver(cpu: number, message: ApicMessage): void {
    const { targets } = this.#options;
    switch (message.delivery) {
      case lapic.DELIVERY.FIXED:
      case lapic.DELIVERY.LOWEST:
      case lapic.DELIVERY.EXTINT:
        if (!targets.apicEnabled(cpu)) return;
        this.#apics[cpu]?.request(message);
        if (cpu === this.#current) this.#refresh();
        targets.interrupted(cpu);
        break;
      case lapic.DELIVERY.NMI:
        targets.nonMaskable(cpu);
        break;
      case lapic.DELIVERY.INIT:
        targets.init(cpu);
        break;
      case lapic.DELIVERY.STARTUP:
        targets.startUp(cpu, message.vector);
        break;
      default:
        // There is no system management mode.
        break;
    }
  }

  // --- what lies ready for the CPU

  /** The CPU that hears the 8259A, or -1. */
  get #externalCpu(): number {
    return this.#apics.findIndex((_, cpu) => this.#hearsExternal(cpu));
  }

  /** Without a local APIC the first CPU is wired to the 8259A directly (section 11.4.3). */
  #hearsExternal(cpu: number): boolean {
    if (!this.#options.targets.apicEnabled(cpu)) return cpu === 0;
    return this.#apics[cpu]?.acceptsExternal ?? false;
  }

  #hasExternal(cpu: number): boolean {
    return (this.#options.external?.pending ?? false) && this.#hearsExternal(cpu);
  }

  #vectorFor(cpu: number): number {
    return this.#options.targets.apicEnabled(cpu) ? (this.#apics[cpu]?.pending ?? NONE) : NONE;
  }

  /** Tells the module whether it is worth asking. Returns that. */
  #refresh(): boolean {
    const pending = this.pendingFor(this.#current);
    this.#memory.setByte(abi.INTERRUPT_PENDING, pending ? 1 : 0);
    return pending;
  }

  // --- state

  reset(): void {
    for (const apic of this.#apics) apic.reset();
    this.#refresh();
  }

  save(): Uint8Array {
    const state = new Uint8Array(LocalApic.stateSize * this.#apics.length);
    for (const [cpu, apic] of this.#apics.entries()) state.set(apic.save(), cpu * LocalApic.stateSize);
    return state;
  }

  restore(state: Uint8Array, _levels: number, deltaMs: number): void {
    const size = LocalApic.stateSize;
    for (const [cpu, apic] of this.#apics.entries())
      apic.restore(state.subarray(cpu * size, (cpu + 1) * size), deltaMs * NS_PER_MS);
    this.#refresh();
  }
}
