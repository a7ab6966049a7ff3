import { IsaDevice } from '../core/bus/isa.ts';
import { seconds } from '../core/clock/units.ts';
import { deviceType } from '../core/device/device-type.ts';

/** The two ports of the iBASE IB700 board's watchdog (its user's manual, appendix "Watchdog Timer Configuration"). */
const DISABLE_PORT = 0x441;
const ENABLE_PORT = 0x443;
const LONGEST_S = 30;
const STEP_S = 2;

/** A watchdog that a write to one port starts over, and a write to another stops. */
class Ib700 extends IsaDevice {
  readonly #watchdog = this.clock.timer('watchdog', () => this.services.system.watchdogExpired(this.typeName));

  protected override realize(): void {
    const bytes = { impl: { max: 1 } } as const;
    this.ports(DISABLE_PORT, 2, { read: () => 0xff, write: offset => offset === 0 && this.#watchdog.cancel() }, bytes);
    this.ports(
      ENABLE_PORT,
      2,
      { read: () => 0xff, write: (offset, _, value) => offset === 0 && this.#start(value) },
      bytes,
    );
  }

  /** The low nibble counts down from 30 seconds in steps of 2. */
  #start(value: number): void {
    this.#watchdog.arm(seconds(LONGEST_S - STEP_S * (value & 0x0f)));
  }
}

export const ib700 = deviceType({
  type: 'ib700',
  summary: 'iBASE 700',
  bus: 'ISA',
  category: 'watchdog',
  parents: ['isa-device', 'device'],
  create: Ib700,
});
