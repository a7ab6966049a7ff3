import { IsaDevice } from '../../core/bus/isa.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { type CardReceiver, cardProperties, NetCard } from '../../core/net/net-cards.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { Dp8390, ne2000State, PORTS } from './dp8390.ts';
import { dp8390Registers } from './registers.ts';

const PCI_BAR = 0x100;

/** Realtek's RTL8029AS: an NE2000 on PCI. */
export class Ne2000Pci extends PciDevice<typeof cardProperties> implements CardReceiver {
  readonly #card = new NetCard(this, {
    owner: this,
    mac: this.props.mac,
    backend: this.props.netdev,
  });
  readonly #chip = new Dp8390({
    bank: hooks => this.bank(dp8390Registers, hooks),
    state: this.state(1, ne2000State, { onReset: 'keep' }),
    client: this.#card.client,
    mac: this.#card.mac,
    setInterrupt: level => this.irq.set(level),
  });

  protected override realize(): void {
    this.onUnrealize(this.#card.plug(this.services.netCards));
    this.bar(0, {
      read: (offset, size) => this.#chip.read(offset, size),
      write: (offset, size, value) => this.#chip.write(offset, size, value),
    });
    this.#chip.reset();
  }

  protected override resetHold(): void {
    this.#chip.reset();
    this.#card.client.purge();
  }

  canReceive(): boolean {
    return this.#chip.canReceive();
  }

  receive(frame: Uint8Array, length: number): boolean {
    return this.#chip.receive(frame, length);
  }
}

const isaProperties = {
  iobase: prop.u32({ default: 0x300 }),
  irq: prop.u32({ default: 9 }),
  ...cardProperties,
};

/** An NE2000 compatible card on ISA. */
export class Ne2000Isa extends IsaDevice<typeof isaProperties> implements CardReceiver {
  readonly #irq = this.output('irq');
  readonly #card = new NetCard(this, {
    owner: this,
    mac: this.props.mac,
    backend: this.props.netdev,
  });
  readonly #chip = new Dp8390({
    bank: hooks => this.bank(dp8390Registers, hooks),
    state: this.state(1, ne2000State, { onReset: 'keep' }),
    client: this.#card.client,
    mac: this.#card.mac,
    setInterrupt: level => this.#irq.set(level),
  });

  protected override realize(): void {
    this.onUnrealize(this.#card.plug(this.services.netCards));
    this.ports(this.props.iobase, PORTS, {
      read: (offset, size) => this.#chip.read(offset, size),
      write: (offset, size, value) => this.#chip.write(offset, size, value),
    });
    this.connectIrq(this.#irq, this.props.irq);
    this.#chip.reset();
  }

  protected override resetHold(): void {
    this.#chip.reset();
    this.#card.client.purge();
  }

  canReceive(): boolean {
    return this.#chip.canReceive();
  }

  receive(frame: Uint8Array, length: number): boolean {
    return this.#chip.receive(frame, length);
  }
}

export const ne2kPci = deviceType({
  type: 'ne2k_pci',
  summary: 'NE2000 compatible network card (RTL8029AS)',
  category: 'network',
  properties: cardProperties,
  pci: { vendor: 0x10ec, device: 0x8029, class: 0x020000, pin: 'A', rom: 'efi-ne2k_pci.rom' },
  bars: { 0: { size: PCI_BAR, space: 'io' } },
  create: Ne2000Pci,
});

export const ne2kIsa = deviceType({
  type: 'ne2k_isa',
  summary: 'NE2000 compatible network card on ISA',
  bus: 'ISA',
  category: 'network',
  parents: ['isa-device', 'device'],
  properties: isaProperties,
  create: Ne2000Isa,
});
