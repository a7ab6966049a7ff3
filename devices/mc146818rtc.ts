import { IsaDevice } from '../core/bus/isa.ts';
import type { DeviceClock } from '../core/device/device.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { field } from '../core/state/fields.ts';
import { type AlarmPattern, secondsToAlarm } from './rtc-alarm.ts';

/** Indices of the MC146818's registers (datasheet, table 2); the century byte is the PC's. */
export const RTC = {
  SECONDS: 0x00,
  SECONDS_ALARM: 0x01,
  MINUTES: 0x02,
  MINUTES_ALARM: 0x03,
  HOURS: 0x04,
  HOURS_ALARM: 0x05,
  DAY_OF_WEEK: 0x06,
  DAY_OF_MONTH: 0x07,
  MONTH: 0x08,
  YEAR: 0x09,
  A: 0x0a,
  B: 0x0b,
  C: 0x0c,
  D: 0x0d,
  CENTURY: 0x32,
  PS2_CENTURY: 0x37,
} as const;

const A = { UIP: 0x80, DIVIDER: 0x70, DIVIDER_RESET: 0x60, DIVIDER_32K: 0x20, RATE: 0x0f } as const;
const B = { SET: 0x80, PIE: 0x40, AIE: 0x20, UIE: 0x10, BINARY: 0x04, HOURS_24: 0x02 } as const;
const C = { IRQF: 0x80, PF: 0x40, AF: 0x20, UF: 0x10 } as const;
const C_SOURCES = C.PF | C.AF | C.UF;
const D_VALID = 0x80;
const PM = 0x80;
const DONT_CARE = 0xc0;

const OSCILLATOR_HZ = 32_768;
const NS = 1e9;
/** UIP goes high 244 microseconds before the update (datasheet, "Update Cycle"). */
const UIP_HOLD_NS = (8 * NS) / OSCILLATOR_HZ;
const HALF_SECOND = NS / 2;

const properties = {
  base_year: prop.i32({ default: 1980 }),
  iobase: prop.u16({ default: 0x70 }),
  irq: prop.u8({ default: 8 }),
  lost_tick_policy: prop.enum(['discard', 'delay', 'slew'], { default: 'discard', typeName: 'LostTickPolicy' }),
  'x-clock': prop.enum(['host', 'rt', 'vm'], {
    default: 'host',
    listed: 'no',
    help: 'which clock drives it: -rtc clock=',
  }),
};

/** The MC146818 real-time clock with its 128 bytes of battery-backed RAM. */
export class Mc146818Rtc extends IsaDevice<typeof properties> {
  readonly interrupt = this.output('irq');
  /** The RAM survives a reset; so does the time. */
  readonly #s = this.state(
    1,
    {
      cmos: field.bytes(128),
      index: field.u8(),
      baseSeconds: field.number(),
      lastUpdate: field.number(),
      offset: field.number(),
      nextAlarm: field.number(),
      nextPeriodic: field.number(),
    },
    { onReset: 'keep' },
  );
  readonly #time: DeviceClock =
    this.props['x-clock'] === 'vm' ? this.clock : this.props['x-clock'] === 'rt' ? this.realtimeClock : this.hostClock;
  readonly #updateTimer = this.#time.timer('update', () => this.#updateCycle(), { onReset: 'keep' });
  readonly #periodicTimer = this.#time.timer('periodic', () => this.#periodic(), { onReset: 'keep' });
  /** Host time of day, in seconds, at which the guest's clock would be right; for RTC_CHANGE. */
  #referenceSeconds: () => number = () => this.#guestNs() / NS;

  /** Sets the time to `milliseconds` since 1970, as it is when this is called. `reference` is the host's time of day in ms. */
  setTime(milliseconds: number, reference?: () => number): void {
    const s = this.#s;
    s.baseSeconds = Math.floor(milliseconds / 1000);
    s.lastUpdate = this.#time.now();
    s.offset = 0;
    if (reference !== undefined) this.#referenceSeconds = () => reference() / 1000;
    this.#showTime();
    this.#checkUpdateTimer();
  }

  /** What the machine's builder, or firmware before it, left in the battery-backed RAM. */
  setCmos(index: number, value: number): void {
    this.#s.cmos[index & 0x7f] = value;
  }

  getCmos(index: number): number {
    return this.#s.cmos[index & 0x7f] ?? 0;
  }

  /** Broken-down UTC time of the guest, for the `date` property. */
  get date(): Date {
    this.#updateTime();
    return new Date(this.#guestNs() / 1e6);
  }

  protected override realize(): void {
    const { cmos } = this.#s;
    cmos[RTC.A] = 0x26;
    cmos[RTC.B] = B.HOURS_24;
    cmos[RTC.D] = D_VALID;
    this.setTime(0);
    this.connectIrq(this.interrupt, this.props.irq);
    this.ports(
      this.props.iobase,
      2,
      {
        read: offset => (offset === 0 ? 0xff : this.#read(this.#s.index)),
        write: (offset, _size, value) => this.#writePort(offset, value),
      },
      { impl: { min: 1, max: 1 } },
      'rtc',
    );
    this.defineProperty({ name: 'date', type: 'struct tm', get: () => this.#dateProperty() });
  }

  /** A reset disables interrupts; time and RAM go on (datasheet, "RESET"). */
  protected override resetHold(): void {
    const { cmos } = this.#s;
    cmos[RTC.B] = this.getCmos(RTC.B) & ~(B.PIE | B.AIE | B.UIE | 0x08);
    cmos[RTC.C] = 0;
    this.#periodicTimer.cancel();
    this.#checkUpdateTimer();
  }

  protected override restored(): void {}

  #dateProperty(): { [key: string]: number } {
    const { date } = this;
    return {
      tm_year: date.getUTCFullYear() - 1900,
      tm_mon: date.getUTCMonth(),
      tm_mday: date.getUTCDate(),
      tm_hour: date.getUTCHours(),
      tm_min: date.getUTCMinutes(),
      tm_sec: date.getUTCSeconds(),
    };
  }

  #writePort(offset: number, value: number): void {
    if (offset === 0) this.#s.index = value & 0x7f;
    else this.#write(this.#s.index === RTC.PS2_CENTURY ? RTC.CENTURY : this.#s.index, value);
  }

  #read(rawIndex: number): number {
    const index = rawIndex === RTC.PS2_CENTURY ? RTC.CENTURY : rawIndex;
    switch (index) {
      case RTC.SECONDS:
      case RTC.MINUTES:
      case RTC.HOURS:
      case RTC.DAY_OF_WEEK:
      case RTC.DAY_OF_MONTH:
      case RTC.MONTH:
      case RTC.YEAR:
      case RTC.CENTURY:
        if (this.#counting) this.#updateTime();
        return this.getCmos(index);
      case RTC.A:
        return this.getCmos(RTC.A) | (this.#updateInProgress() ? A.UIP : 0);
      case RTC.C: {
        const flags = this.getCmos(RTC.C);
        this.interrupt.lower();
        this.#s.cmos[RTC.C] = 0;
        if ((flags & (C.UF | C.AF)) !== 0) this.#checkUpdateTimer();
        return flags;
      }
      default:
        return this.getCmos(index);
    }
  }

  #write(index: number, value: number): void {
    switch (index) {
      case RTC.SECONDS_ALARM:
      case RTC.MINUTES_ALARM:
      case RTC.HOURS_ALARM:
        this.#s.cmos[index] = value;
        this.#checkUpdateTimer();
        break;
      case RTC.SECONDS:
      case RTC.MINUTES:
      case RTC.HOURS:
      case RTC.DAY_OF_WEEK:
      case RTC.DAY_OF_MONTH:
      case RTC.MONTH:
      case RTC.YEAR:
      case RTC.CENTURY:
        this.#s.cmos[index] = value;
        if (this.#counting) {
          this.#takeTime();
          this.#checkUpdateTimer();
        }
        break;
      case RTC.A:
        this.#writeA(value);
        break;
      case RTC.B:
        this.#writeB(value);
        break;
      case RTC.C:
      case RTC.D:
        break; // read-only
      default:
        this.#s.cmos[index] = value;
    }
  }

  #writeA(value: number): void {
    const old = this.getCmos(RTC.A);
    const oldPeriod = this.#period();
    if ((value & A.DIVIDER_RESET) === A.DIVIDER_RESET) {
      if (this.#counting) this.#updateTime();
      this.#s.cmos[RTC.A] = old & ~A.UIP;
    } else if ((old & A.DIVIDER_RESET) === A.DIVIDER_RESET && (value & A.DIVIDER) <= A.DIVIDER_32K) {
      // The first update follows half a second after the divider is let go (datasheet, "Divider Control").
      if ((this.getCmos(RTC.B) & B.SET) === 0) {
        this.#s.offset = HALF_SECOND;
        this.#takeTime();
      }
      this.#s.cmos[RTC.A] = old & ~A.UIP;
    }
    this.#s.cmos[RTC.A] = (value & ~A.UIP) | (this.getCmos(RTC.A) & A.UIP);
    if (((value ^ old) & A.RATE) !== 0) this.#schedulePeriodic(this.#time.now(), oldPeriod, true);
    this.#checkUpdateTimer();
  }

  #writeB(written: number): void {
    const old = this.getCmos(RTC.B);
    const oldPeriod = this.#period();
    let value = written;
    if ((value & B.SET) !== 0) {
      if (this.#counting) this.#updateTime();
      this.#s.cmos[RTC.A] = this.getCmos(RTC.A) & ~A.UIP;
      value &= ~B.UIE;
    } else if ((old & B.SET) !== 0 && (this.getCmos(RTC.A) & A.DIVIDER) <= A.DIVIDER_32K) {
      this.#s.offset = this.#guestFraction();
      this.#takeTime();
    }
    this.#setFlags(0, value & this.getCmos(RTC.C) & C_SOURCES);
    this.#s.cmos[RTC.B] = value;
    if (((value ^ old) & B.PIE) !== 0) this.#schedulePeriodic(this.#time.now(), oldPeriod, true);
    this.#checkUpdateTimer();
  }

  /** Adds `flags` to register C; IRQF and the line follow `pending`. */
  #setFlags(flags: number, pending: number): void {
    const set = this.getCmos(RTC.C) | flags;
    this.#s.cmos[RTC.C] = pending !== 0 ? set | C.IRQF : set & ~C.IRQF;
    this.interrupt.set(pending !== 0);
  }

  // Time

  get #counting(): boolean {
    return (this.getCmos(RTC.B) & B.SET) === 0 && (this.getCmos(RTC.A) & A.DIVIDER) <= A.DIVIDER_32K;
  }

  /** Nanoseconds since 1970 by the guest's clock. */
  #guestNs(): number {
    const s = this.#s;
    return s.baseSeconds * NS + (this.#time.now() - s.lastUpdate) + s.offset;
  }

  /** Split, because nanoseconds since 1970 are beyond what a number holds exactly. */
  #guestFraction(): number {
    const s = this.#s;
    return (this.#time.now() - s.lastUpdate + s.offset) % NS;
  }

  #guestSeconds(): number {
    const s = this.#s;
    return s.baseSeconds + Math.floor((this.#time.now() - s.lastUpdate + s.offset) / NS);
  }

  #updateTime(): void {
    if ((this.getCmos(RTC.B) & B.SET) === 0) this.#showTime();
  }

  #showTime(): void {
    const time = new Date(this.#guestSeconds() * 1000);
    const { cmos } = this.#s;
    const hours = time.getUTCHours();
    cmos[RTC.SECONDS] = this.#encode(time.getUTCSeconds());
    cmos[RTC.MINUTES] = this.#encode(time.getUTCMinutes());
    if ((this.getCmos(RTC.B) & B.HOURS_24) !== 0) cmos[RTC.HOURS] = this.#encode(hours);
    else cmos[RTC.HOURS] = this.#encode(hours % 12 === 0 ? 12 : hours % 12) | (hours >= 12 ? PM : 0);
    cmos[RTC.DAY_OF_WEEK] = this.#encode(time.getUTCDay() + 1);
    cmos[RTC.DAY_OF_MONTH] = this.#encode(time.getUTCDate());
    cmos[RTC.MONTH] = this.#encode(time.getUTCMonth() + 1);
    const year = time.getUTCFullYear();
    cmos[RTC.YEAR] = this.#encode(year % 100);
    cmos[RTC.CENTURY] = this.#encode(Math.floor(year / 100));
  }

  /** The guest has set a register of the time: the clock goes on from there. */
  #takeTime(): void {
    const s = this.#s;
    const year = this.#decode(this.getCmos(RTC.YEAR)) + this.#decode(this.getCmos(RTC.CENTURY)) * 100;
    const time = Date.UTC(
      2000,
      this.#decode(this.getCmos(RTC.MONTH)) - 1,
      this.#decode(this.getCmos(RTC.DAY_OF_MONTH)),
      this.#hours(this.getCmos(RTC.HOURS)),
      this.#decode(this.getCmos(RTC.MINUTES)),
      this.#decode(this.getCmos(RTC.SECONDS)),
    );
    // Date.UTC reads years below 100 as of the twentieth century.
    const date = new Date(time);
    date.setUTCFullYear(date.getUTCFullYear() - 2000 + year);
    s.baseSeconds = Math.floor(date.getTime() / 1000);
    s.lastUpdate = this.#time.now();
    this.services.system.emit('RTC_CHANGE', {
      offset: Math.round(s.baseSeconds - this.#referenceSeconds()),
      'qom-path': this.path,
    });
  }

  #hours(raw: number): number {
    const hours = this.#decode(raw & 0x7f);
    if ((this.getCmos(RTC.B) & B.HOURS_24) !== 0) return this.#decode(raw);
    return (hours % 12) + ((raw & PM) !== 0 ? 12 : 0);
  }

  #encode(value: number): number {
    return (this.getCmos(RTC.B) & B.BINARY) !== 0 ? value : (Math.floor(value / 10) << 4) | (value % 10);
  }

  #decode(value: number): number {
    return (this.getCmos(RTC.B) & B.BINARY) !== 0 ? value : (value >> 4) * 10 + (value & 0x0f);
  }

  // The update cycle and the alarm

  #updateInProgress(): boolean {
    if (!this.#counting) return false;
    if (this.#updateTimer.pending && this.#time.now() >= this.#updateTimer.deadlineNs - UIP_HOLD_NS) {
      // Once seen it stays until the cycle has ended.
      this.#s.cmos[RTC.A] = this.getCmos(RTC.A) | A.UIP;
      return true;
    }
    return this.#guestFraction() >= NS - UIP_HOLD_NS;
  }

  #updateCycle(): void {
    this.#updateTime();
    this.#s.cmos[RTC.A] = this.getCmos(RTC.A) & ~A.UIP;
    let flags: number = C.UF;
    if (this.#time.now() >= this.#s.nextAlarm) {
      flags |= C.AF;
      if ((this.getCmos(RTC.B) & B.AIE) !== 0) this.services.system.requestWakeup('rtc');
    }
    const fresh = flags & ~this.getCmos(RTC.C);
    this.#s.cmos[RTC.C] = this.getCmos(RTC.C) | flags;
    if ((fresh & this.getCmos(RTC.B)) !== 0) {
      this.#s.cmos[RTC.C] = this.getCmos(RTC.C) | C.IRQF;
      this.interrupt.raise();
    }
    this.#checkUpdateTimer();
  }

  /** Arms the timer for the next update cycle that somebody could notice: the next second, or the alarm. */
  #checkUpdateTimer(): void {
    if ((this.getCmos(RTC.A) & A.DIVIDER_RESET) === A.DIVIDER_RESET) {
      this.#updateTimer.cancel();
      return;
    }
    let next = this.#time.now() + NS - this.#guestFraction();
    this.#s.nextAlarm = next + (this.#secondsToAlarm() - 1) * NS;
    const flags = this.getCmos(RTC.C);
    if ((this.getCmos(RTC.A) & A.UIP) === 0 && (flags & C.UF) !== 0) {
      if ((this.getCmos(RTC.B) & B.SET) !== 0 || (flags & C.AF) !== 0) {
        this.#updateTimer.cancel();
        return;
      }
      next = this.#s.nextAlarm;
    }
    if (next !== this.#updateTimer.deadlineNs) this.#updateTimer.armAt(next);
  }

  #secondsToAlarm(): number {
    this.#updateTime();
    const pattern: AlarmPattern = {
      hours: this.#alarmField(RTC.HOURS_ALARM, raw => this.#hours(raw)),
      minutes: this.#alarmField(RTC.MINUTES_ALARM, raw => this.#decode(raw)),
      seconds: this.#alarmField(RTC.SECONDS_ALARM, raw => this.#decode(raw)),
    };
    return secondsToAlarm(
      pattern,
      this.#hours(this.getCmos(RTC.HOURS)),
      this.#decode(this.getCmos(RTC.MINUTES)),
      this.#decode(this.getCmos(RTC.SECONDS)),
    );
  }

  #alarmField(index: number, decode: (raw: number) => number): number | undefined {
    const raw = this.getCmos(index);
    return (raw & DONT_CARE) === DONT_CARE ? undefined : decode(raw);
  }

  // The periodic interrupt

  /** Oscillator clocks between periodic interrupts, 0 while off (datasheet, table 5). */
  #period(): number {
    const rate = this.getCmos(RTC.A) & A.RATE;
    if ((this.getCmos(RTC.B) & B.PIE) === 0 || rate === 0) return 0;
    return 1 << ((rate <= 2 ? rate + 7 : rate) - 1);
  }

  #schedulePeriodic(now: number, oldPeriod: number, changed: boolean): void {
    const period = this.#period();
    if (period === 0) {
      this.#periodicTimer.cancel();
      return;
    }
    const clock = Math.floor((now * OSCILLATOR_HZ) / NS);
    let elapsed = 0;
    if (oldPeriod !== 0 && changed) {
      const last = Math.floor((this.#s.nextPeriodic * OSCILLATOR_HZ) / NS) - oldPeriod;
      elapsed = Math.min(Math.max(0, clock - last), period);
    }
    this.#s.nextPeriodic = Math.floor(((clock + period - elapsed) * NS) / OSCILLATOR_HZ) + 1;
    this.#periodicTimer.armAt(this.#s.nextPeriodic);
  }

  #periodic(): void {
    this.#schedulePeriodic(this.#s.nextPeriodic, this.#period(), false);
    this.#s.cmos[RTC.C] = this.getCmos(RTC.C) | C.PF;
    if ((this.getCmos(RTC.B) & B.PIE) === 0) return;
    this.#s.cmos[RTC.C] = this.getCmos(RTC.C) | C.IRQF;
    this.interrupt.raise();
  }
}

export const mc146818rtc = deviceType({
  type: 'mc146818rtc',
  summary: 'MC146818 real-time clock and CMOS RAM',
  bus: 'ISA',
  parents: ['isa-device', 'device'],
  userCreatable: false,
  properties,
  create: Mc146818Rtc,
});
