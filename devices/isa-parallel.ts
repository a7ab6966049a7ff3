import { IsaDevice } from '../core/bus/isa.ts';
import type { Chardev } from '../core/char/chardev.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { bit, type Registers, r8, registerMap } from '../core/register/register.ts';
import { field } from '../core/state/fields.ts';

const UNSET = 0xffff_ffff;
const PORTS = [0x378, 0x278, 0x3bc] as const;
const DEFAULT_IRQ = 7;

/** The standard parallel port (IEEE 1284, "compatibility mode", as in a PC). */
export const parallelRegisters = registerMap('parallel', {
  DATA: r8(0, {}, { reset: 0xff }),
  STATUS: r8(
    1,
    { TIMEOUT: bit(0), IRQ: bit(2), ERROR: bit(3), SELECTED: bit(4), PAPER_OUT: bit(5), ACK: bit(6), BUSY: bit(7) },
    { access: 'ro', reset: 0xd9 },
  ),
  CONTROL: r8(
    2,
    { STROBE: bit(0), AUTO_FEED: bit(1), INIT: bit(2), SELECT: bit(3), IRQ_ENABLE: bit(4), DIRECTION: bit(5) },
    { reset: 0x0c },
  ),
});
const CONTROL_ONES = 0xc0;

const properties = {
  index: prop.u32({ default: UNSET }),
  iobase: prop.u32({ default: UNSET }),
  irq: prop.u32({ default: DEFAULT_IRQ }),
  chardev: prop.backend<Chardev>('chardev'),
};

/** A printer port: each strobe sends the data register to the host. */
class IsaParallel extends IsaDevice<typeof properties> {
  readonly #irq = this.unlistedOutput('irq');
  readonly #bank = this.bank(parallelRegisters, {
    DATA: { wrote: () => this.#update() },
    STATUS: { read: stored => this.#readStatus(stored) },
    CONTROL: { read: stored => stored | CONTROL_ONES, wrote: (value, previous) => this.#control(value, previous) },
  });
  readonly #regs: Registers<typeof parallelRegisters> = this.#bank.regs;
  readonly #s = this.state(1, { irqPending: field.bool() });
  readonly #byte = new Uint8Array(1);

  protected override realize(): void {
    const index =
      this.props.index === UNSET
        ? this.isaBus.devices.filter(device => device.typeName === this.typeName).indexOf(this)
        : this.props.index;
    const iobase = this.props.iobase === UNSET ? PORTS[index] : this.props.iobase;
    if (iobase === undefined)
      throw new SouthbridgeError(
        'ERR_PARALLEL_INDEX',
        `Max. supported number of parallel ports is ${PORTS.length}.`,
        'give it an iobase',
      );
    this.connectIrq(this.#irq, this.props.irq);
    this.ports(
      iobase,
      8,
      {
        read: offset => (offset < 3 ? this.#bank.read(offset, 1) : 0xff),
        write: (offset, _size, value) => this.#bank.write(offset, 1, value),
      },
      { impl: { min: 1, max: 1 } },
      'parallel',
    );
    const user = { canReceive: () => 0, receive: () => {} };
    this.props.chardev?.attach(user);
    this.onUnrealize(() => this.props.chardev?.detach());
  }

  /** Reading the status takes back the interrupt; BUSY is seen for one read after each byte. */
  #readStatus(stored: number): number {
    const { STATUS, CONTROL } = this.#regs;
    this.#s.irqPending = false;
    if (!STATUS.BUSY && !CONTROL.STROBE) STATUS.BUSY = true;
    STATUS.ACK = true;
    this.#update();
    return stored;
  }

  #control(value: number, previous: number): void {
    const { CONTROL, STATUS, DATA } = this.#regs;
    if (!CONTROL.INIT) {
      STATUS.value = 0xd8;
    } else if (CONTROL.SELECT && CONTROL.STROBE) {
      STATUS.BUSY = false;
      // The printer takes the byte on the rising edge of the strobe.
      if (((value ^ previous) & 1) !== 0) {
        this.#byte[0] = DATA.value;
        this.props.chardev?.write(this.#byte);
      }
    } else if (CONTROL.IRQ_ENABLE) {
      this.#s.irqPending = true;
    }
    this.#update();
  }

  #update(): void {
    this.#irq.set(this.#s.irqPending);
  }
}

export const isaParallel = deviceType({
  type: 'isa-parallel',
  summary: 'Parallel port of a PC',
  bus: 'ISA',
  category: 'input',
  parents: ['isa-device', 'device'],
  properties,
  create: IsaParallel,
});
