import type { Chardev } from '../core/char/chardev.ts';
import { type DeviceContext, deviceType } from '../core/device/device-type.ts';
import { type PropSet, prop } from '../core/device/property.ts';
import type { IrqLine } from '../core/irq/line.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { CFG } from '../core/pci/config-space.ts';
import { PciDevice } from '../core/pci/pci-device.ts';
import { Serial, serialProperties, serialRegisters, serialState } from './serial.ts';

/** Ports of one UART; those of a card with several follow each other (QEMU's docs/specs/pci-serial.txt). */
const UART_PORTS = 8;
const BYTES = { impl: { min: 1, max: 1 } } as const;

/** Serial controller (PCI Code and ID Assignment 1.11, section 1.8), of a function whose device id tells how many UARTs it has. */
const identity = (device: number) => ({ vendor: 0x1b36, device, revision: 1, class: 0x07_0002, pin: 'A' }) as const;

const interfaceProperty = {
  prog_if: prop.u8({ default: 0x02, help: 'programming interface: which UART it is compatible with; 2 is the 16550' }),
} as const;

const single = {
  ...interfaceProperty,
  ...serialProperties,
} as const;

/** One 16550A in a range of ports. */
class PciSerial extends PciDevice<typeof single> {
  readonly #uart = new Serial(hooks => this.bank(serialRegisters, hooks), {
    clock: this.clock,
    irq: this.irq,
    chardev: this.props.chardev,
    baudbase: this.props.baudbase,
    received: () => {
      if (this.props.wakeup) this.services.system.requestWakeup('other');
    },
    state: this.state(1, serialState),
  });

  protected override realize(): void {
    this.config.set8(CFG.CLASS_CODE, this.props.prog_if);
    this.bar(0, this.#uart, { size: UART_PORTS, space: 'io' }, BYTES);
    this.onUnrealize(() => this.#uart.dispose());
  }

  protected override resetHold(): void {
    this.#uart.reset();
  }
}

/** Several 16550As in a row, which share the function's interrupt. */
abstract class MultiSerial<S extends PropSet> extends PciDevice<S> {
  readonly #lines: IrqLine[] = [];
  readonly #uarts: Serial[] = [];

  constructor(context: DeviceContext<S>, programmingInterface: number, chardevs: readonly (Chardev | undefined)[]) {
    super(context);
    this.config.set8(CFG.CLASS_CODE, programmingInterface);
    for (const [index, chardev] of chardevs.entries()) {
      const irq = this.unlistedOutput(`uart${index + 1}`);
      irq.connect(() => this.#interrupt());
      this.#lines.push(irq);
      const clock = {
        ...this.clock,
        timer: (name: string, callback: () => void) => this.clock.timer(`uart${index + 1}-${name}`, callback),
      };
      const state = this.state(1, serialState, { name: `uart${index + 1}` });
      this.#uarts.push(new Serial(hooks => this.bank(serialRegisters, hooks), { clock, irq, chardev, state }));
    }
  }

  protected override realize(): void {
    const size = UART_PORTS * this.#uarts.length;
    const ports = MemoryRegion.container('multiserial', size);
    for (const [index, uart] of this.#uarts.entries()) {
      const region = MemoryRegion.io(`uart #${index + 1}`, UART_PORTS, this.shielded(uart), BYTES);
      ports.add(region, UART_PORTS * index);
    }
    this.bar(0, ports, { size, space: 'io' });
    this.onUnrealize(() => {
      for (const uart of this.#uarts) uart.dispose();
    });
  }

  protected override resetHold(): void {
    for (const uart of this.#uarts) uart.reset();
  }

  override detach(): void {
    for (const line of this.#lines) line.lower();
    super.detach();
  }

  #interrupt(): void {
    let level = false;
    for (const line of this.#lines) level ||= line.level;
    this.irq.set(level);
  }
}

const two = {
  ...interfaceProperty,
  chardev1: prop.backend<Chardev>('chardev'),
  chardev2: prop.backend<Chardev>('chardev'),
} as const;

class PciSerial2x extends MultiSerial<typeof two> {
  constructor(context: DeviceContext<typeof two>) {
    const { prog_if, chardev1, chardev2 } = context.props;
    super(context, prog_if, [chardev1, chardev2]);
  }
}

const four = {
  ...two,
  chardev3: prop.backend<Chardev>('chardev'),
  chardev4: prop.backend<Chardev>('chardev'),
} as const;

class PciSerial4x extends MultiSerial<typeof four> {
  constructor(context: DeviceContext<typeof four>) {
    const { prog_if, chardev1, chardev2, chardev3, chardev4 } = context.props;
    super(context, prog_if, [chardev1, chardev2, chardev3, chardev4]);
  }
}

export const pciSerial = deviceType({
  type: 'pci-serial',
  summary: 'Serial port on PCI (16550A)',
  category: 'input',
  properties: single,
  pci: identity(0x0002),
  create: PciSerial,
});

export const pciSerial2x = deviceType({
  type: 'pci-serial-2x',
  summary: 'Two serial ports on PCI (16550A)',
  category: 'input',
  properties: two,
  pci: identity(0x0003),
  create: PciSerial2x,
});

export const pciSerial4x = deviceType({
  type: 'pci-serial-4x',
  summary: 'Four serial ports on PCI (16550A)',
  category: 'input',
  properties: four,
  pci: identity(0x0004),
  create: PciSerial4x,
});
