import * as lapic from '../lapic-registers.ts';
import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';
import type { InterruptChips, InterruptTargets } from './interrupt-chips.ts';

const NS_PER_MS = 1e6;
const ISA_PINS = 16;
const PIC_PINS = 8;
/** ISA interrupt 0 is the IOAPIC's input 2, as the firmware's tables say (ACPI 6.4, section 5.2.12.5). */
const TIMER_PIN = 2;
/** The slave's place on the master. */
const CASCADE = 2;

/** Redirection table entries (82093AA datasheet, section 3.2.4). */
const LEVEL_TRIGGERED = 1 << 15;
const MASKED = 1 << 16;
const REMOTE_IRR = 1 << 14;

const LAST_VECTOR = 0xfe;

/**
 * The module's 8259A pair, IOAPIC and local APIC. It raises an interrupt as soon as a pin changes, in the middle of the
 * instruction that caused it, unless EFLAGS.IF is clear: so all of this happens with IF held at 0, and the run loop lets
 * the interrupt in at the next boundary.
 */
export class Irqchip implements InterruptChips {
  readonly #targets: InterruptTargets;
  #core: abi.Core;
  #memory: CoreMemory;
  #master = 0;
  #slave = 0;
  #lapic = 0;
  #ioapic = 0;
  /** The levels of all inputs, whatever the controllers make of them. */
  #levels = 0;
  #powerOn: Uint8Array = new Uint8Array(0);

  constructor(core: abi.Core, memory: CoreMemory, targets: InterruptTargets) {
    this.#targets = targets;
    this.#core = core;
    this.#memory = memory;
    this.attach(core, memory);
  }

  /** Moves to a new instance, whose controllers are in their power-on state. */
  attach(core: abi.Core, memory: CoreMemory): void {
    this.#core = core;
    this.#memory = memory;
    this.#master = core.get_pic_addr_master() >>> 0;
    this.#slave = core.get_pic_addr_slave() >>> 0;
    this.#lapic = core.get_apic_addr() >>> 0;
    this.#ioapic = core.get_ioapic_addr() >>> 0;
    this.#powerOn = this.save();
    this.#restoreLevels();
  }

  /** Level of input `gsi`: 0 to 15 are ISA's and go to the 8259A pair too; up to 23 the IOAPIC's alone. */
  setIrq(gsi: number, level: boolean): void {
    const bit = 1 << gsi;
    this.#levels = level ? this.#levels | bit : this.#levels & ~bit;
    const flags = this.#memory.word(abi.FLAGS);
    this.#memory.setWord(abi.FLAGS, flags & ~0x200);
    if (gsi < ISA_PINS && gsi !== CASCADE) this.#setPic(gsi, level);
    this.#setIoapic(gsi === 0 ? TIMER_PIN : gsi, level);
    this.#memory.setWord(abi.FLAGS, flags);
    if (level) this.#targets.interrupted(0);
  }

  message(_address: number, data: number): void {
    const delivery = lapic.deliveryOf(data);
    if (delivery === lapic.DELIVERY.NMI) this.#targets.nonMaskable(0);
    else if (this.#deliver(data & 0xff, delivery, (data & LEVEL_TRIGGERED) !== 0)) this.#targets.interrupted(0);
  }

  nonMaskableLine(): void {
    this.#targets.nonMaskable(0);
  }

  runTimers(nowNs: number): number {
    this.#refreshLevels();
    return nowNs + this.#core.apic_timer(nowNs / NS_PER_MS) * NS_PER_MS;
  }

  /** To the local APIC. Returns false where it is not for a vector. */
  #deliver(vector: number, delivery: number, levelTriggered: boolean): boolean {
    if (delivery !== lapic.DELIVERY.FIXED && delivery !== lapic.DELIVERY.LOWEST) return false;
    if (vector < lapic.FIRST_VECTOR || vector > LAST_VECTOR) return true;
    const at = 4 * (vector >> 5);
    const bit = 1 << (vector & 31);
    const memory = this.#memory;
    const irr = this.#lapic + abi.LAPIC_IRR + at;
    if ((memory.word(irr) & bit) !== 0) return true;
    memory.setWord(irr, memory.word(irr) | bit);
    const tmr = this.#lapic + abi.LAPIC_TMR + at;
    memory.setWord(tmr, levelTriggered ? memory.word(tmr) | bit : memory.word(tmr) & ~bit);
    return true;
  }

  /** Initialization command word 1 forgets the levels of the 8259A's inputs; level-triggered ones are still there. */
  #refreshLevels(): void {
    const memory = this.#memory;
    const master =
      memory.byte(this.#master + abi.PIC_ELCR) & this.#levels & ~memory.byte(this.#master + abi.PIC_LEVELS);
    const slave =
      memory.byte(this.#slave + abi.PIC_ELCR) & (this.#levels >> PIC_PINS) & ~memory.byte(this.#slave + abi.PIC_LEVELS);
    const lost = (master & 0xff) | ((slave & 0xff) << PIC_PINS);
    if (lost === 0) return;
    for (let pin = 0; pin < ISA_PINS; pin++) if ((lost & (1 << pin)) !== 0) this.setIrq(pin, true);
  }

  /** Makes `action` see an 8259A that answers the next acknowledge cycle with `vector`. */
  asVector(vector: number, action: () => void): void {
    const { bytes } = this.#memory;
    const saved = bytes.slice(this.#master, this.#master + abi.PIC_SIZE);
    bytes[this.#master + abi.PIC_ENABLED] = 0xff;
    bytes[this.#master + abi.PIC_VECTOR] = vector;
    bytes[this.#master + abi.PIC_ISR] = 0;
    bytes[this.#master + abi.PIC_IRR] = 1;
    bytes[this.#master + abi.PIC_AUTO_EOI] = 1;
    bytes[this.#master + abi.PIC_ELCR] = 0;
    action();
    this.#memory.bytes.set(saved, this.#master);
  }

  /** The local APIC's page, a word for each 16 bytes of it, as the CPU reads it. */
  readLapic(): Uint32Array {
    return lapic.registersOf(offset => this.#core.read32s((lapic.PAGE + offset) | 0));
  }

  reset(): void {
    this.restore(this.#powerOn, this.#levels, 0);
    this.#restoreLevels();
  }

  /** The controllers' registers as bytes. */
  save(): Uint8Array {
    const { bytes } = this.#memory;
    const state = new Uint8Array(2 * abi.PIC_SIZE + abi.LAPIC_SIZE + abi.IOAPIC_SIZE);
    let at = 0;
    for (const [start, size] of this.#parts()) {
      state.set(bytes.subarray(start, start + size), at);
      at += size;
    }
    return state;
  }

  restore(state: Uint8Array, levels: number, deltaMs: number): void {
    this.#levels = levels;
    let at = 0;
    for (const [start, size] of this.#parts()) {
      this.#memory.bytes.set(state.subarray(at, at + size), start);
      at += size;
    }
    this.#shiftTimer(deltaMs);
  }

  get levels(): number {
    return this.#levels;
  }

  /** Moves the local APIC's timer by `deltaMs`: its clock is not the one that it was saved with. */
  #shiftTimer(deltaMs: number): void {
    const at = this.#lapic + abi.LAPIC_TIMER_LAST_TICK;
    const { view } = this.#memory;
    view.setFloat64(at, view.getFloat64(at, true) + deltaMs, true);
  }

  #parts(): readonly (readonly [start: number, size: number])[] {
    return [
      [this.#master, abi.PIC_SIZE],
      [this.#slave, abi.PIC_SIZE],
      [this.#lapic, abi.LAPIC_SIZE],
      [this.#ioapic, abi.IOAPIC_SIZE],
    ];
  }

  #restoreLevels(): void {
    const cascade = 1 << CASCADE;
    this.#memory.setByte(this.#master + abi.PIC_LEVELS, this.#levels & 0xff & ~cascade);
    this.#memory.setByte(this.#slave + abi.PIC_LEVELS, (this.#levels >> PIC_PINS) & 0xff);
    const timer = (this.#levels & 1) << TIMER_PIN;
    this.#memory.setWord(this.#ioapic + abi.IOAPIC_LEVELS, (this.#levels & ~(1 | (1 << TIMER_PIN))) | timer);
  }

  /** The module would pass the pin on to an IOAPIC input of the same number, so it is told that there is none. */
  #setPic(pin: number, level: boolean): void {
    const present = this.#memory.byte(abi.APIC_PRESENT);
    this.#memory.setByte(abi.APIC_PRESENT, 0);
    if (level) this.#core.device_raise_irq(pin);
    else this.#core.device_lower_irq(pin);
    this.#memory.setByte(abi.APIC_PRESENT, present);
  }

  /** 82093AA datasheet, section 3.2.4: edges are latched where unmasked, levels wait for their end of interrupt. */
  #setIoapic(pin: number, level: boolean): void {
    if (pin >= abi.IOAPIC_PINS) return;
    const memory = this.#memory;
    const bit = 1 << pin;
    const levels = memory.word(this.#ioapic + abi.IOAPIC_LEVELS);
    if (((levels & bit) !== 0) === level) return;
    memory.setWord(this.#ioapic + abi.IOAPIC_LEVELS, levels ^ bit);
    const entryAt = this.#ioapic + abi.IOAPIC_REDIRECTION + 4 * pin;
    const entry = memory.word(entryAt);
    const levelTriggered = (entry & LEVEL_TRIGGERED) !== 0;
    const irrAt = this.#ioapic + abi.IOAPIC_IRR;
    if (!level) {
      if (levelTriggered) memory.setWord(irrAt, memory.word(irrAt) & ~bit);
      return;
    }
    const masked = (entry & MASKED) !== 0;
    if (masked && !levelTriggered) return;
    if (levelTriggered) memory.setWord(irrAt, memory.word(irrAt) | bit);
    if (masked) return;
    if (levelTriggered) {
      if ((entry & REMOTE_IRR) !== 0) return;
      memory.setWord(entryAt, entry | REMOTE_IRR);
    }
    this.#deliver(entry & 0xff, lapic.deliveryOf(entry), levelTriggered);
  }
}
