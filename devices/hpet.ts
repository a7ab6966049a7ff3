/** High precision event timers (IA-PC HPET Specification 1.0a): one 100 MHz up-counter and 3 to 32 comparators. */

import { Device } from '../core/device/device.ts';
import { type DeviceContext, deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SystemBus } from '../core/device/system-bus.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { Dma } from '../core/memory/dma.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { bit, bits, r32, registerMap } from '../core/register/register.ts';
import { field } from '../core/state/fields.ts';

export const HPET_BASE = 0xfed0_0000;
const SIZE = 0x400;
const NS_PER_TICK = 10;
/** COUNTER_CLK_PERIOD, in femtoseconds. */
const PERIOD_FS = 10_000_000;
/** Revision 1, 64-bit counter, legacy replacement, Intel. NUM_TIM_CAP comes with the device. */
const CAPABILITIES = 0x8086_a001;
const MIN_TIMERS = 3;
const MAX_TIMERS = 32;
const ROUTES = 32;
const TWO_32 = 2 ** 32;
/** Periods below this are served late: no guest needs a million interrupts a second, and none may keep the host busy. */
const MIN_PERIOD_TICKS = 100;
/** Comparators further away than this are never reached. */
const MAX_DISTANCE_NS = 2 ** 62;
const IRQ0 = 0;
const RTC_IRQ = 8;

/** 2.3.8 Timer N configuration and capabilities. */
const CONF = {
  INT_TYPE: 1 << 1,
  INT_ENB: 1 << 2,
  TYPE: 1 << 3,
  PER_INT_CAP: 1 << 4,
  SIZE_CAP: 1 << 5,
  VAL_SET: 1 << 6,
  MODE_32: 1 << 8,
  INT_ROUTE_SHIFT: 9,
  INT_ROUTE: 0x1f,
  FSB_EN: 1 << 14,
  FSB_CAP: 1 << 15,
} as const;

const perTimer = { count: MAX_TIMERS, stride: 0x20 } as const;

export const hpetRegisters = registerMap('hpet', {
  GCAP_ID: r32(
    0x000,
    {
      REV_ID: bits(0, 8),
      NUM_TIM_CAP: bits(8, 5),
      COUNT_SIZE_CAP: bit(13),
      LEG_RT_CAP: bit(15),
      VENDOR_ID: bits(16, 16),
    },
    { access: 'ro', reset: CAPABILITIES },
  ),
  COUNTER_CLK_PERIOD: r32(0x004, {}, { access: 'ro', reset: PERIOD_FS }),
  GEN_CONF: r32(0x010, { ENABLE_CNF: bit(0), LEG_RT_CNF: bit(1) }),
  GINTR_STA: r32(0x020),
  MAIN_CNT: r32(0x0f0),
  MAIN_CNT_HIGH: r32(0x0f4),
  TN_CONF: r32(
    0x100,
    {
      INT_TYPE: bit(1),
      INT_ENB: bit(2),
      TYPE: bit(3),
      PER_INT_CAP: bit(4, 'ro'),
      SIZE_CAP: bit(5, 'ro'),
      VAL_SET: bit(6),
      MODE_32: bit(8),
      INT_ROUTE: bits(9, 5),
      FSB_EN: bit(14),
      FSB_INT_DEL_CAP: bit(15, 'ro'),
    },
    perTimer,
  ),
  TN_INT_ROUTE_CAP: r32(0x104, {}, { ...perTimer, access: 'ro' }),
  TN_COMP: r32(0x108, {}, perTimer),
  TN_COMP_HIGH: r32(0x10c, {}, perTimer),
  TN_FSB_VAL: r32(0x110, {}, perTimer),
  TN_FSB_ADDR: r32(0x114, {}, perTimer),
});

const properties = {
  timers: prop.u8({ default: MIN_TIMERS, help: 'comparators, 3 to 32' }),
  msi: prop.bit({ default: false }),
  'hpet-intcap': prop.u32({ default: 0, help: 'I/O APIC inputs that the comparators can reach' }),
  'hpet-offset-saved': prop.bool({ default: true }),
} as const;

export class Hpet extends Device<typeof properties> {
  /** I/O APIC inputs by number; 0 is the timer's, which arrives at input 2. */
  readonly interrupts = Array.from({ length: ROUTES }, (_, irq) => this.output(`irq${irq}`, 'sysbus-irq'));
  /** High while the legacy replacement route keeps the interval timer and the real-time clock from interrupting. */
  readonly legacyReplacement = this.output('legacy');
  /** The interrupts of the interval timer and of the real-time clock, which pass through. */
  readonly legacy = this.inputs('', 2, (source, level) => this.#legacyInterrupt(source, level));
  readonly #count = Math.min(MAX_TIMERS, Math.max(MIN_TIMERS, this.props.timers));
  readonly #bank = this.bank(hpetRegisters, {
    GCAP_ID: { read: stored => (stored | ((this.#count - 1) << 8)) >>> 0 },
    GEN_CONF: { wrote: (value, previous) => this.#configured(value, previous) },
    GINTR_STA: { write: (_value, status, _index, written) => this.#acknowledge(written, status) },
    MAIN_CNT: { read: stored => (this.#running() ? this.#counterLow() : stored) },
    MAIN_CNT_HIGH: { read: stored => (this.#running() ? this.#counterHigh() : stored) },
    TN_CONF: {
      read: (stored, index) => (index < this.#count ? stored : 0),
      write: (value, previous, index) => this.#configure(index, value, previous),
      wrote: (value, previous, index) => this.#timerConfigured(index, value, previous),
    },
    TN_COMP: {
      write: (value, previous, index) => this.#writeComparator(index, value, previous, this.#periods),
      wrote: (_value, _previous, index) => this.#comparatorWritten(index),
    },
    TN_COMP_HIGH: {
      write: (value, previous, index) => this.#writeComparator(index, value, previous, this.#periodsHigh),
      wrote: (_value, _previous, index) => this.#comparatorWritten(index),
    },
  });
  readonly #regs = this.#bank.regs;
  readonly #s = this.state(1, {
    /** When the counter was started, and what it then was. */
    startedNs: field.number(),
    startLow: field.u32(),
    startHigh: field.u32(),
    periods: field.words(MAX_TIMERS),
    periodsHigh: field.words(MAX_TIMERS),
    /** Timers whose next event is the wrap of the 32-bit counter and not the comparator, as bits. */
    wraps: field.u32(),
    rtcLevel: field.bool(),
  });
  readonly #timers = Array.from({ length: this.#count }, (_, index) =>
    this.clock.timer(`timer${index}`, () => this.#expired(index)),
  );
  readonly #dma: Dma;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    if (!(context.bus instanceof SystemBus)) {
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' goes onto the system bus`);
    }
    this.#dma = new Dma(context.bus.dmaSpace);
  }

  override get mappedRegions(): readonly { readonly offset: number; readonly size: number }[] {
    return [{ offset: HPET_BASE, size: SIZE }];
  }

  protected override realize(): void {
    const { bus } = this;
    if (!(bus instanceof SystemBus)) return;
    // Registers are 32 or 64 bits wide, and nothing narrower reaches them (2.3.2).
    const region = MemoryRegion.io('hpet', SIZE, this.#bank, { valid: { min: 4, max: 4 }, impl: { min: 4, max: 4 } });
    bus.memory.add(region, HPET_BASE);
    this.onUnrealize(() => bus.memory.remove(region));
  }

  protected override resetEnter(): void {
    const { TN_CONF, TN_INT_ROUTE_CAP, TN_COMP, TN_COMP_HIGH } = this.#regs;
    TN_CONF.values.fill(CONF.PER_INT_CAP | CONF.SIZE_CAP | (this.props.msi ? CONF.FSB_CAP : 0), 0, this.#count);
    TN_INT_ROUTE_CAP.values.fill(this.props['hpet-intcap'], 0, this.#count);
    TN_COMP.values.fill(0xffff_ffff, 0, this.#count);
    TN_COMP_HIGH.values.fill(0xffff_ffff, 0, this.#count);
  }

  get #periods(): Uint32Array {
    return this.#s.periods;
  }

  get #periodsHigh(): Uint32Array {
    return this.#s.periodsHigh;
  }

  // 2.3.7 Main counter

  #running(): boolean {
    return this.#regs.GEN_CONF.ENABLE_CNF;
  }

  #elapsed(): number {
    return Math.max(0, Math.floor((this.clock.now() - this.#s.startedNs) / NS_PER_TICK));
  }

  #counterLow(): number {
    return (this.#s.startLow + this.#elapsed()) % TWO_32;
  }

  #counterHigh(): number {
    return (this.#s.startHigh + Math.floor((this.#s.startLow + this.#elapsed()) / TWO_32)) % TWO_32;
  }

  #start(): void {
    this.#s.startedNs = this.clock.now();
    this.#s.startLow = this.#regs.MAIN_CNT.value;
    this.#s.startHigh = this.#regs.MAIN_CNT_HIGH.value;
    for (let index = 0; index < this.#count; index++) if (this.#isSet(index)) this.#arm(index);
  }

  /** The comparator has been written since the reset. */
  #isSet(index: number): boolean {
    const { TN_COMP, TN_COMP_HIGH } = this.#regs;
    return TN_COMP.values[index] !== 0xffff_ffff || TN_COMP_HIGH.values[index] !== 0xffff_ffff;
  }

  // 2.3.5 General configuration

  #configured(value: number, previous: number): void {
    const changed = value ^ previous;
    const { GEN_CONF } = this.#regs;
    if ((changed & 1) !== 0) {
      if (GEN_CONF.ENABLE_CNF) {
        this.#start();
      } else {
        this.#regs.MAIN_CNT.value = this.#counterLow();
        this.#regs.MAIN_CNT_HIGH.value = this.#counterHigh();
        for (let index = 0; index < this.#count; index++) this.#stop(index);
      }
    }
    if ((changed & 2) === 0) return;
    const legacy = GEN_CONF.LEG_RT_CNF;
    this.legacyReplacement.set(legacy);
    this.#line(IRQ0)?.lower();
    this.#line(RTC_IRQ)?.set(!legacy && this.#s.rtcLevel);
  }

  /** With the legacy replacement route the interval timer and the real-time clock do not interrupt (2.3.5). */
  #legacyInterrupt(source: number, level: boolean): void {
    if (source === 1) this.#s.rtcLevel = level;
    if (this.#regs.GEN_CONF.LEG_RT_CNF) return;
    this.#line(source === 0 ? IRQ0 : RTC_IRQ)?.set(level);
  }

  // 2.3.8 and 2.3.9 Timers

  #config(index: number): number {
    return this.#regs.TN_CONF.values[index] ?? 0;
  }

  #configure(index: number, value: number, previous: number): number {
    if (index >= this.#count) return previous;
    // The line falls before messages take its place.
    if ((value & ~previous & CONF.FSB_EN) !== 0) this.#interrupt(index, false);
    return value;
  }

  #timerConfigured(index: number, value: number, previous: number): void {
    if (index >= this.#count) return;
    if ((value & CONF.MODE_32) !== 0) {
      this.#regs.TN_COMP_HIGH.values[index] = 0;
      this.#periodsHigh[index] = 0;
    }
    if ((value & ~previous & CONF.INT_ENB) !== 0) {
      if (this.#running()) this.#arm(index);
    } else if ((previous & ~value & CONF.INT_ENB) !== 0) {
      this.#stop(index);
    }
  }

  /** One half of a comparator: for periodic timers also of the period, and the comparator only where VAL_SET allows. */
  #writeComparator(index: number, value: number, previous: number, periods: Uint32Array): number {
    if (index >= this.#count) return previous;
    const config = this.#config(index);
    const high = periods === this.#periodsHigh;
    const periodic = (config & CONF.TYPE) !== 0;
    const accepted = !periodic || (config & CONF.VAL_SET) !== 0;
    if (periodic && !(high && accepted)) {
      // A period is positive in as many bits as the timer has.
      const signed = high || (config & CONF.MODE_32) !== 0;
      periods[index] = signed ? value & 0x7fff_ffff : value;
    }
    if (high && (config & CONF.MODE_32) !== 0) return previous;
    return accepted ? value : previous;
  }

  #comparatorWritten(index: number): void {
    if (index >= this.#count) return;
    this.#regs.TN_CONF.values[index] = this.#config(index) & ~CONF.VAL_SET;
    if (this.#running()) this.#arm(index);
  }

  /** Ticks from now to the comparator; 1 where it lies behind. */
  #distance(index: number): number {
    const comparator = this.#regs.TN_COMP.values[index] ?? 0;
    const low = (comparator - this.#counterLow()) | 0;
    if ((this.#config(index) & CONF.MODE_32) !== 0) return Math.max(1, low);
    const ticks = this.#distance64(index);
    return ticks > 0n ? Number(ticks) : 1;
  }

  #distance64(index: number): bigint {
    const { TN_COMP, TN_COMP_HIGH } = this.#regs;
    const comparator = wide(TN_COMP_HIGH.values[index], TN_COMP.values[index]);
    return BigInt.asIntN(64, comparator - wide(this.#counterHigh(), this.#counterLow()));
  }

  #arm(index: number): void {
    const config = this.#config(index);
    let ticks = this.#distance(index);
    this.#s.wraps = (this.#s.wraps & ~(1 << index)) >>> 0;
    if ((config & CONF.MODE_32) !== 0 && (config & CONF.TYPE) === 0) {
      // A 32-bit one-shot timer interrupts when the counter wraps as well (2.3.9.2.1).
      const untilWrap = 0xffff_ffff - this.#counterLow();
      if (untilWrap < ticks) {
        ticks = untilWrap;
        this.#s.wraps = (this.#s.wraps | (1 << index)) >>> 0;
      }
    }
    this.#armIn(index, ticks);
  }

  #armIn(index: number, ticks: number): void {
    const delayNs = ticks * NS_PER_TICK;
    const timer = this.#timers[index];
    if (delayNs >= MAX_DISTANCE_NS) timer?.cancel();
    else timer?.armAt(this.#s.startedNs + (this.#elapsed() + ticks) * NS_PER_TICK);
  }

  #stop(index: number): void {
    this.#timers[index]?.cancel();
    this.#interrupt(index, false);
  }

  #expired(index: number): void {
    const config = this.#config(index);
    if ((config & CONF.TYPE) !== 0) {
      this.#nextPeriod(index);
    } else if ((this.#s.wraps & (1 << index)) !== 0) {
      this.#s.wraps = (this.#s.wraps & ~(1 << index)) >>> 0;
      this.#armIn(index, this.#distance(index));
    }
    this.#interrupt(index, true);
  }

  /** Moves the comparator by as many periods as have passed. */
  #nextPeriod(index: number): void {
    const { TN_COMP, TN_COMP_HIGH } = this.#regs;
    const low = this.#periods[index] ?? 0;
    const high = this.#periodsHigh[index] ?? 0;
    if (low === 0 && high === 0) return;
    if ((this.#config(index) & CONF.MODE_32) !== 0) {
      const behind = (this.#counterLow() - (TN_COMP.values[index] ?? 0)) | 0;
      if (behind >= 0 && low > 0) {
        const periods = Math.floor(behind / low) + 1;
        TN_COMP.values[index] = ((TN_COMP.values[index] ?? 0) + periods * low) % TWO_32;
      }
    } else {
      const period = wide(high, low);
      const behind = -this.#distance64(index);
      if (behind >= 0n) {
        const comparator = wide(TN_COMP_HIGH.values[index], TN_COMP.values[index]) + (behind / period + 1n) * period;
        TN_COMP.values[index] = Number(comparator & 0xffff_ffffn);
        TN_COMP_HIGH.values[index] = Number((comparator >> 32n) & 0xffff_ffffn);
      }
    }
    this.#armIn(index, Math.max(MIN_PERIOD_TICKS, this.#distance(index)));
  }

  // Interrupts: lines, level or edge, or messages (2.3.6, 2.3.10)

  #line(route: number) {
    return this.interrupts[route];
  }

  #route(index: number): number {
    if (index <= 1 && this.#regs.GEN_CONF.LEG_RT_CNF) return index === 0 ? IRQ0 : RTC_IRQ;
    return (this.#config(index) >>> CONF.INT_ROUTE_SHIFT) & CONF.INT_ROUTE;
  }

  #interrupt(index: number, active: boolean): void {
    const config = this.#config(index);
    const { GINTR_STA, TN_FSB_ADDR, TN_FSB_VAL } = this.#regs;
    const mask = 1 << index;
    const line = this.#line(this.#route(index));
    if (!active || (config & CONF.INT_ENB) === 0 || !this.#running()) {
      GINTR_STA.value = (GINTR_STA.value & ~mask) >>> 0;
      if ((config & CONF.FSB_EN) === 0) line?.lower();
    } else if ((config & CONF.FSB_EN) !== 0) {
      this.#dma.write32(TN_FSB_ADDR.values[index] ?? 0, TN_FSB_VAL.values[index] ?? 0);
    } else if ((config & CONF.INT_TYPE) !== 0) {
      GINTR_STA.value = (GINTR_STA.value | mask) >>> 0;
      line?.raise();
    } else {
      GINTR_STA.value = (GINTR_STA.value & ~mask) >>> 0;
      line?.pulse();
    }
  }

  /** Writing 1 clears. Returns what is left. */
  #acknowledge(written: number, status: number): number {
    let left = status;
    for (let index = 0; index < this.#count; index++) {
      const mask = 1 << index;
      if ((written & status & mask) === 0) continue;
      this.#interrupt(index, false);
      left &= ~mask;
    }
    return left >>> 0;
  }
}

function wide(high: number | undefined, low: number | undefined): bigint {
  return (BigInt(high ?? 0) << 32n) | BigInt(low ?? 0);
}

export const hpet = deviceType({
  type: 'hpet',
  summary: 'High precision event timers',
  parents: ['sys-bus-device', 'device'],
  category: 'misc',
  userCreatable: false,
  properties,
  create: Hpet,
});
