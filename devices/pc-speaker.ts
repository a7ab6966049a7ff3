import { IsaDevice } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { field } from '../core/state/fields.ts';
import type { I8254 } from './i8254.ts';

const properties = {
  iobase: prop.u32({ default: 0x61 }),
  audiodev: prop.string({ description: 'ID of an audiodev to use as a backend' }),
  migrate: prop.bool({ default: true }),
};

/** Port 61h of a PC: the gate and output of the timer's counter 2, and the refresh clock (82371SB datasheet, section 2.5.5). */
class PcSpeaker extends IsaDevice<typeof properties> {
  readonly #s = this.state(1, { dataOn: field.bool(), refresh: field.bool() });
  /** Wired by the machine. */
  pit: I8254 | undefined;

  protected override realize(): void {
    this.ports(
      this.props.iobase,
      1,
      { read: () => this.#read(), write: (_offset, _size, value) => this.#write(value) },
      { impl: { min: 1, max: 1 } },
      'pcspk',
    );
  }

  #read(): number {
    // Bit 4 toggles with each memory refresh; software only waits for it to change.
    this.#s.refresh = !this.#s.refresh;
    const { pit } = this;
    return (
      (pit?.gate2 ? 0x01 : 0) | (this.#s.dataOn ? 0x02 : 0) | (this.#s.refresh ? 0x10 : 0) | (pit?.output2() ? 0x20 : 0)
    );
  }

  #write(value: number): void {
    this.#s.dataOn = (value & 2) !== 0;
    this.pit?.setGate2((value & 1) !== 0);
  }
}

export const pcSpeaker = deviceType({
  type: 'isa-pcspk',
  summary: 'PC speaker',
  bus: 'ISA',
  parents: ['isa-device', 'device'],
  userCreatable: false,
  properties,
  create: PcSpeaker,
});
