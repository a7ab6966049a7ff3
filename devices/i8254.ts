import { IsaDevice } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { field, type StateValues } from '../core/state/fields.ts';

/** The input clock of a PC's interval timer. */
export const PIT_HZ = 1_193_182;
const NS_PER_SECOND = 1e9;
const CHANNELS = 3;
const CONTROL = 3;

/** Read/load formats (8254 datasheet, "Control Word Format"). */
const LATCH = 0;
const LSB = 1;
const MSB = 2;
const WORD = 3;
const READ_BACK = 3;

const channelState = {
  count: field.u32(0x10000),
  countedFrom: field.number(),
  latch: field.u16(),
  latched: field.u8(),
  status: field.u8(),
  statusLatched: field.bool(),
  mode: field.u8(3),
  bcd: field.bool(),
  format: field.u8(LSB),
  writeLow: field.u8(),
  readHigh: field.bool(),
  writeHigh: field.bool(),
  gate: field.bool(true),
  nextTransition: field.number(),
};

const properties = { iobase: prop.u32({ default: 0xffff_ffff }) };

/** The 8254 programmable interval timer: three counters of one clock. Counter 0 interrupts, counter 2 makes the speaker's tone. */
export class I8254 extends IsaDevice<typeof properties> {
  readonly interrupt = this.output('irq0');
  /** High lets another timer (HPET in legacy mode) have the interrupt. */
  readonly disable = this.inputs('', 1, (_index, level) => this.#setInterruptDisabled(level));
  readonly #channels = Array.from({ length: CHANNELS }, (_, index) =>
    this.state(1, channelState, { name: `counter${index}` }),
  );
  readonly #s = this.state(1, { interruptDisabled: field.bool() });
  readonly #timer = this.clock.timer('irq', () => this.#updateInterrupt(this.#channel(0).nextTransition));

  protected override realize(): void {
    if (this.props.iobase === 0xffff_ffff) return;
    this.ports(
      this.props.iobase,
      4,
      { read: offset => this.#read(offset), write: (offset, _size, value) => this.#write(offset, value) },
      { impl: { min: 1, max: 1 } },
      'pit',
    );
  }

  protected override resetHold(): void {
    for (let index = 0; index < CHANNELS; index++) {
      const channel = this.#channel(index);
      channel.gate = index !== 2;
      channel.count = 0x10000;
      channel.countedFrom = this.clock.now();
    }
    // OUT of counter 0 is high from the start: that is no edge, so no interrupt.
    const first = this.#channel(0);
    first.nextTransition = this.#nextTransition(0, first.countedFrom);
    if (!this.#s.interruptDisabled) this.#timer.armAt(first.nextTransition);
  }

  /** The level of OUT of counter `index` now. */
  output2(): boolean {
    return this.#outputAt(2, this.clock.now());
  }

  /** Hertz of the square wave that counter 2 makes; 0 in modes that make none. */
  get tone2(): number {
    const { mode, count } = this.#channel(2);
    return mode === 3 ? PIT_HZ / count : 0;
  }

  get gate2(): boolean {
    return this.#channel(2).gate;
  }

  /** The gate of counter 2: bit 0 of port 61h. */
  setGate2(gate: boolean): void {
    const channel = this.#channel(2);
    const rising = !channel.gate && gate;
    // Modes 1 and 5 start on the rising edge; 2 and 3 start again; 0 and 4 merely stop counting, which nobody relies on.
    if (rising && channel.mode !== 0 && channel.mode !== 4) channel.countedFrom = this.clock.now();
    channel.gate = gate;
  }

  #channel(index: number) {
    const channel = this.#channels[index];
    if (channel === undefined) throw new RangeError(`the 8254 has no counter ${index}`);
    return channel;
  }

  #setInterruptDisabled(disabled: boolean): void {
    this.#s.interruptDisabled = disabled;
    if (disabled) {
      this.#timer.cancel();
      this.interrupt.lower();
    } else {
      this.#loadCount(0, this.#channel(0).count & 0xffff);
    }
  }

  /** Clocks since the count was loaded. */
  #elapsed(index: number, now: number): number {
    return Math.floor(((now - this.#channel(index).countedFrom) * PIT_HZ) / NS_PER_SECOND);
  }

  #counterValue(index: number): number {
    const { mode, count } = this.#channel(index);
    const elapsed = this.#elapsed(index, this.clock.now());
    if (mode === 0 || mode === 1 || mode === 4 || mode === 5) return (count - elapsed) & 0xffff;
    if (mode === 3) return count - ((2 * elapsed) % count);
    return count - (elapsed % count);
  }

  /** Datasheet, "Mode Definitions". */
  #outputAt(index: number, now: number): boolean {
    const { mode, count } = this.#channel(index);
    const elapsed = this.#elapsed(index, now);
    switch (mode) {
      case 0:
        return elapsed >= count;
      case 1:
        return elapsed < count;
      case 2:
        return elapsed % count === 0 && elapsed !== 0;
      case 3:
        return elapsed % count < (count + 1) >> 1;
      default:
        return elapsed === count;
    }
  }

  /** When OUT next changes after `now`, in nanoseconds; Infinity if never. */
  #nextTransition(index: number, now: number): number {
    const channel = this.#channel(index);
    const { mode, count } = channel;
    const elapsed = this.#elapsed(index, now);
    let next: number;
    if (mode === 0 || mode === 1) {
      if (elapsed >= count) return Number.POSITIVE_INFINITY;
      next = count;
    } else if (mode === 2) {
      const base = elapsed - (elapsed % count);
      next = elapsed === base && elapsed !== 0 ? base + 1 : base + count;
    } else if (mode === 3) {
      const base = elapsed - (elapsed % count);
      const half = (count + 1) >> 1;
      next = elapsed - base < half ? base + half : base + count;
    } else if (elapsed < count) {
      next = count;
    } else if (elapsed === count) {
      next = count + 1;
    } else {
      return Number.POSITIVE_INFINITY;
    }
    // Rounding may give a time that is not later than now: then it is the next clock.
    return Math.max(now + 1, channel.countedFrom + Math.ceil((next * NS_PER_SECOND) / PIT_HZ));
  }

  #updateInterrupt(now: number): void {
    const channel = this.#channel(0);
    if (this.#s.interruptDisabled) {
      this.#timer.cancel();
      return;
    }
    const next = this.#nextTransition(0, now);
    this.interrupt.set(this.#outputAt(0, now));
    channel.nextTransition = next;
    if (next === Number.POSITIVE_INFINITY) this.#timer.cancel();
    else this.#timer.armAt(next);
  }

  #loadCount(index: number, value: number): void {
    const channel = this.#channel(index);
    channel.count = value === 0 ? 0x10000 : value;
    channel.countedFrom = this.clock.now();
    if (index === 0) this.#updateInterrupt(channel.countedFrom);
  }

  #latchCount(index: number): void {
    const channel = this.#channel(index);
    if (channel.latched !== 0) return;
    channel.latch = this.#counterValue(index) & 0xffff;
    channel.latched = channel.format;
  }

  #write(offset: number, value: number): void {
    if (offset !== CONTROL) return this.#writeCount(offset, value);
    const select = value >>> 6;
    if (select === READ_BACK) return this.#readBack(value);
    const channel = this.#channel(select);
    const format = (value >>> 4) & 3;
    if (format === LATCH) return this.#latchCount(select);
    channel.format = format;
    channel.mode = (value >>> 1) & 7;
    if (channel.mode > 5) channel.mode &= 3; // modes 6 and 7 are 2 and 3
    channel.bcd = (value & 1) !== 0;
    channel.readHigh = false;
    channel.writeHigh = false;
    if (select === 0) this.#updateInterrupt(this.clock.now());
  }

  /** Datasheet, "Read-Back Command": bits 5 and 4 are active low. */
  #readBack(value: number): void {
    for (let index = 0; index < CHANNELS; index++) {
      if ((value & (2 << index)) === 0) continue;
      if ((value & 0x20) === 0) this.#latchCount(index);
      const channel = this.#channel(index);
      if ((value & 0x10) !== 0 || channel.statusLatched) continue;
      channel.status =
        (this.#outputAt(index, this.clock.now()) ? 0x80 : 0) |
        (channel.format << 4) |
        (channel.mode << 1) |
        (channel.bcd ? 1 : 0);
      channel.statusLatched = true;
    }
  }

  #writeCount(index: number, value: number): void {
    const channel = this.#channel(index);
    if (channel.format === LSB) this.#loadCount(index, value);
    else if (channel.format === MSB) this.#loadCount(index, value << 8);
    else if (!channel.writeHigh) {
      channel.writeLow = value;
      channel.writeHigh = true;
    } else {
      channel.writeHigh = false;
      this.#loadCount(index, channel.writeLow | (value << 8));
    }
  }

  #read(offset: number): number {
    if (offset === CONTROL) return 0;
    const channel = this.#channel(offset);
    if (channel.statusLatched) {
      channel.statusLatched = false;
      return channel.status;
    }
    if (channel.latched !== 0) return this.#readLatch(channel);
    const count = this.#counterValue(offset);
    if (channel.format === LSB) return count & 0xff;
    if (channel.format === MSB) return (count >>> 8) & 0xff;
    channel.readHigh = !channel.readHigh;
    return channel.readHigh ? count & 0xff : (count >>> 8) & 0xff;
  }

  #readLatch(channel: StateValues<typeof channelState>): number {
    if (channel.latched === WORD) {
      channel.latched = MSB;
      return channel.latch & 0xff;
    }
    const high = channel.latched === MSB;
    channel.latched = 0;
    return high ? channel.latch >>> 8 : channel.latch & 0xff;
  }
}

export const i8254 = deviceType({
  type: 'isa-pit',
  summary: '8254 programmable interval timer',
  bus: 'ISA',
  parents: ['pit-common', 'isa-device', 'device'],
  userCreatable: false,
  properties,
  create: I8254,
});
