import { bit, deviceType, field, IsaDevice, prop, type Registers, r8, r32, registerMap, us } from 'southbridge';

/** Eight ports, as on a card with jumpers for its address and its interrupt. */
export const stopwatchRegisters = registerMap('isa-stopwatch', {
  ID: r8(0, {}, { access: 'ro', reset: 0x5a }),
  CONTROL: r8(1, { RUN: bit(0), IRQ_ENABLE: bit(1), CLEAR: bit(7, 'pulse') }),
  STATUS: r8(2, { ALARM: bit(0, 'w1c') }),
  MICROSECONDS: r32(4, {}, { doc: 'read: time run; write: when to raise the alarm' }),
});

const CLEAR = 0x80;
const properties = {
  iobase: prop.u16({ default: 0x300, help: 'first of its eight ports' }),
  irq: prop.u8({ default: 5, help: 'interrupt request line' }),
} as const;

class IsaStopwatch extends IsaDevice<typeof properties> {
  readonly #bank = this.bank(stopwatchRegisters, {
    CONTROL: { wrote: (_value, previous, _index, written) => this.#control(previous, written) },
    STATUS: { wrote: () => this.#update() },
    MICROSECONDS: { read: () => Math.floor(this.#elapsed / us(1)) >>> 0, wrote: () => this.#aim() },
  });
  readonly #regs: Registers<typeof stopwatchRegisters> = this.#bank.regs;
  /** Nanoseconds: when it was started last, and how long it had run before. */
  readonly #s = this.state(1, { startedAt: field.number(), before: field.number() });
  readonly #irq = this.output('irq');
  readonly #alarm = this.clock.timer('alarm', () => this.#ring());

  protected override realize(): void {
    this.connectIrq(this.#irq, this.props.irq);
    this.ports(this.props.iobase, 8, this.#bank);
  }

  get #elapsed(): number {
    const { startedAt, before } = this.#s;
    return before + (this.#regs.CONTROL.RUN ? this.clock.now() - startedAt : 0);
  }

  #control(previous: number, written: number): void {
    const { CONTROL } = this.#regs;
    const now = this.clock.now();
    const wasRunning = (previous & 1) !== 0;
    if (wasRunning && !CONTROL.RUN) this.#s.before += now - this.#s.startedAt;
    if ((written & CLEAR) !== 0) this.#s.before = 0;
    if (CONTROL.RUN && (!wasRunning || (written & CLEAR) !== 0)) this.#s.startedAt = now;
    this.#aim();
    this.#update();
  }

  #aim(): void {
    const left = us(this.#regs.MICROSECONDS.value) - this.#elapsed;
    if (this.#regs.CONTROL.RUN && left > 0) this.#alarm.arm(left);
    else this.#alarm.cancel();
  }

  #ring(): void {
    this.#regs.STATUS.ALARM = true;
    this.#update();
  }

  #update(): void {
    this.#irq.set(this.#regs.STATUS.ALARM && this.#regs.CONTROL.IRQ_ENABLE);
  }
}

export const isaStopwatch = deviceType({
  type: 'isa-stopwatch',
  summary: 'ISA card that measures time and rings',
  bus: 'ISA',
  properties,
  create: IsaStopwatch,
});
