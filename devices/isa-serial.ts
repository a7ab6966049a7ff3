import { IsaDevice } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { Serial, serialProperties, serialRegisters, serialState } from './serial.ts';

const UNSET = 0xffff_ffff;
/** Where COM1 to COM4 of a PC are. */
const PORTS = [0x3f8, 0x2f8, 0x3e8, 0x2e8] as const;
const IRQS = [4, 3, 4, 3] as const;

const properties = {
  index: prop.u32({ default: UNSET, help: 'which COM port, from 0' }),
  iobase: prop.u32({ default: UNSET }),
  irq: prop.u32({ default: UNSET }),
  ...serialProperties,
};

/** A serial port of a PC: a 16550A at a COM port's address. */
class IsaSerial extends IsaDevice<typeof properties> {
  readonly #irq = this.unlistedOutput('irq');
  readonly #uart = new Serial(hooks => this.bank(serialRegisters, hooks), {
    clock: this.clock,
    irq: this.#irq,
    chardev: this.props.chardev,
    baudbase: this.props.baudbase,
    received: () => {
      if (this.props.wakeup) this.services.system.requestWakeup('other');
    },
    state: this.state(1, serialState),
  });

  protected override realize(): void {
    const index = this.#index();
    const iobase = this.props.iobase === UNSET ? PORTS[index] : this.props.iobase;
    const irq = this.props.irq === UNSET ? IRQS[index] : this.props.irq;
    if (iobase === undefined || irq === undefined) {
      throw new SouthbridgeError(
        'ERR_SERIAL_INDEX',
        `Max. supported number of ISA serial ports is ${PORTS.length}.`,
        'give it an iobase and an irq',
      );
    }
    this.connectIrq(this.#irq, irq);
    this.ports(iobase, 8, this.#uart, { impl: { min: 1, max: 1 } }, 'serial');
    this.onUnrealize(() => this.#uart.dispose());
  }

  protected override resetHold(): void {
    this.#uart.reset();
  }

  #index(): number {
    if (this.props.index !== UNSET) return this.props.index;
    return this.isaBus.devices.filter(device => device.typeName === this.typeName).indexOf(this);
  }
}

export const isaSerial = deviceType({
  type: 'isa-serial',
  summary: 'Serial port of a PC (16550A)',
  bus: 'ISA',
  category: 'input',
  parents: ['isa-device', 'device'],
  properties,
  create: IsaSerial,
});
