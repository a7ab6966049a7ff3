import { deviceType } from '../../core/device/device-type.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { bmcLink, namedBmc } from './bmc.ts';
import { Bt, btRegisters, btState } from './bt.ts';
import { Kcs, kcsRegisters, kcsState } from './kcs.ts';

const BAR = { size: 8, space: 'io' } as const;
const BYTES = { impl: { min: 1, max: 1 } } as const;

/** Class code 0Ch 07h: the programming interface says which style (PCI Code and ID Assignment 1.11, section 1.13). */
const identity = (style: number) =>
  ({ vendor: 0x1234, device: 0x1112, revision: 1, class: 0x0c0700 | style, pin: 'A' }) as const;

class PciIpmiKcs extends PciDevice<typeof bmcLink> {
  readonly #bmc = namedBmc(this.props);
  readonly #kcs = new Kcs({
    bmc: this.#bmc,
    bank: this.bank(kcsRegisters),
    state: this.state(1, kcsState),
    irq: this.irq,
  });

  protected override realize(): void {
    this.onUnrealize(this.#bmc.join(this.#kcs));
    this.bar(0, this.#kcs.handler, BAR, BYTES);
  }
}

class PciIpmiBt extends PciDevice<typeof bmcLink> {
  readonly #bmc = namedBmc(this.props);
  readonly #bt = new Bt({
    bmc: this.#bmc,
    bank: hooks => this.bank(btRegisters, hooks),
    state: this.state(1, btState),
    irq: this.irq,
  });

  protected override realize(): void {
    this.onUnrealize(this.#bmc.join(this.#bt));
    this.bar(0, this.#bt.handler, BAR, BYTES);
  }
}

export const pciIpmiKcs = deviceType({
  type: 'pci-ipmi-kcs',
  summary: 'PCI IPMI KCS',
  properties: bmcLink,
  pci: identity(1),
  create: PciIpmiKcs,
});

export const pciIpmiBt = deviceType({
  type: 'pci-ipmi-bt',
  summary: 'PCI IPMI BT',
  properties: bmcLink,
  pci: identity(2),
  create: PciIpmiBt,
});
