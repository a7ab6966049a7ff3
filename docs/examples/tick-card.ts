import { us } from '../../core/clock/units.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { bit, type Registers, r32, registerMap } from '../../core/register/register.ts';

export const tickRegisters = registerMap('tick', {
  ID: r32(0x00, {}, { access: 'ro', reset: 0x7469_636b }),
  PERIOD: r32(0x04, {}, { reset: 1000, doc: 'microseconds between ticks' }),
  CONTROL: r32(0x08, { RUN: bit(0), IRQ_ENABLE: bit(1) }),
  STATUS: r32(0x0c, { TICKED: bit(0, 'w1c') }),
  COUNT: r32(0x10, {}, { access: 'ro' }),
});
const properties = { limit: prop.u32({ default: 0xffff_ffff, help: 'ticks before the card stops' }) };

class TickCard extends PciDevice<typeof properties> {
  readonly #regs: Registers<typeof tickRegisters> = this.bind(tickRegisters, {
    CONTROL: { wrote: () => this.#control() },
    STATUS: { wrote: () => this.#update() },
  });
  readonly #timer = this.clock.timer('tick', () => this.#tick());

  #control(): void {
    if (this.#regs.CONTROL.RUN) this.#timer.arm(us(this.#regs.PERIOD.value));
    else this.#timer.cancel();
    this.#update();
  }

  #tick(): void {
    this.#regs.COUNT.value++;
    this.#regs.STATUS.TICKED = true;
    if (this.#regs.COUNT.value < this.props.limit) this.#timer.arm(us(Math.max(1, this.#regs.PERIOD.value)));
    this.#update();
  }

  #update(): void {
    this.irq.set(this.#regs.STATUS.TICKED && this.#regs.CONTROL.IRQ_ENABLE);
  }
}

export const tickCard = deviceType({
  type: 'tick-card',
  summary: 'A card that counts ticks and interrupts',
  properties,
  pci: { vendor: 0x1b36, device: 0x70ff, class: 0x088000, pin: 'A' },
  bars: { 0: { size: 4096, map: tickRegisters } },
  create: TickCard,
});
