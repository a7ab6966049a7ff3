import { IsaDevice } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import { bit, type Registers, r8, registerMap } from '../core/register/register.ts';

/** System control port A (82371SB datasheet, section 2.5.5.4). */
export const port92Registers = registerMap('port92', {
  PORT92: r8(0, { INIT_NOW: bit(0), A20: bit(1), LEDS: bit(3), LED6: bit(6), LED7: bit(7) }),
});

/** Fast A20 gate and fast reset. */
class Port92 extends IsaDevice {
  readonly a20 = this.output('a20', 'a20');
  readonly #bank = this.bank(port92Registers, {
    PORT92: { wrote: (value, previous) => this.#written(value, previous) },
  });
  readonly #regs: Registers<typeof port92Registers> = this.#bank.regs;

  protected override realize(): void {
    this.ports(0x92, 1, this.#bank, { impl: { min: 1, max: 1 } });
  }

  #written(value: number, previous: number): void {
    this.a20.set(this.#regs.PORT92.A20);
    // A reset follows the rising edge only.
    if ((value & 1) !== 0 && (previous & 1) === 0) this.services.system.requestReset('guest-reset');
  }
}

export const port92 = deviceType({
  type: 'port92',
  summary: 'System control port A',
  bus: 'ISA',
  parents: ['isa-device', 'device'],
  userCreatable: false,
  create: Port92,
});
