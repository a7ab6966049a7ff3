/**
 * Expander bridges: root buses beside the host bridge's own, each with a number of its own and, where the machine has NUMA nodes, on one
 * of them (QEMU docs/pci_expander_bridge). What is on them sees the same address spaces.
 */
import { Device } from '../core/device/device.ts';
import { type DeviceType, deviceType } from '../core/device/device-type.ts';
import { type PropSet, prop } from '../core/device/property.ts';
import { SystemBus } from '../core/device/system-bus.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { STATUS } from '../core/pci/config-space.ts';
import type { CxlHost } from '../core/pci/cxl-host.ts';
import { ExpanderBus, type ExpanderLink } from '../core/pci/expander-bus.ts';
import { PciDevice } from '../core/pci/pci-device.ts';
import { pciBridge } from './pci-bridges.ts';

const NO_NODE = 0xffff;

export const expanderProperties = {
  bus_nr: prop.u8({ default: 0 }),
  numa_node: prop.u16({ default: NO_NODE }),
  bypass_iommu: prop.bool({ default: false }),
} as const;

/** The host bridge of one such bus: what firmware knows the bus by. */
export class PxbHost extends Device {
  /** Set once it has its bus. */
  expander: ExpanderBus | undefined;

  open(busName: string, seat: ExpanderSeat, link: ExpanderLink): ExpanderBus {
    const { bus_nr: number, numa_node: node, bypass_iommu: bypassIommu } = seat.props;
    const numaNode = node === NO_NODE ? undefined : node;
    const bus = new ExpanderBus(busName, {
      ...{ root: seat.pciBus, function: seat, host: this, number, link, cxlHost: this.cxlHost, numaNode, bypassIommu },
    });
    this.onUnrealize(bus.join());
    this.expander = this.addBus(bus);
    return bus;
  }

  protected get cxlHost(): CxlHost | undefined {
    return undefined;
  }

  override get firmwareName(): string {
    return `pci@i0cf8,${(this.expander?.position ?? 1).toString(16)}`;
  }
}

/** A function that does nothing but hold the place of its bus. */
export abstract class ExpanderSeat extends PciDevice<typeof expanderProperties> {
  protected abstract readonly link: ExpanderLink;

  protected override realize(): void {
    const { pciBus, link } = this;
    const { numa_node: node } = this.props;
    this.config.setStatus(STATUS.MHZ66 | STATUS.FAST_BACK);
    if (pciBus.express !== (link !== 'pci'))
      throw misplaced(`${this.typeName} devices cannot reside on a ${pciBus.express ? 'PCIe' : 'PCI'} bus`);
    if (pciBus.root !== pciBus || pciBus instanceof ExpanderBus)
      throw misplaced('PXB devices can be attached only to root bus');
    const { owner, numaNodes } = pciBus;
    if (numaNodes === undefined || !(owner?.bus instanceof SystemBus))
      throw misplaced('NUMA is not supported by this machine-type');
    if (node !== NO_NODE && node >= numaNodes)
      throw new SouthbridgeError('ERR_PROPERTY_RANGE', `Illegal numa node ${node}`, 'give -numa node options');
    const system = owner.bus;
    this.open(system);
  }

  /** Makes the bus. */
  protected abstract open(system: SystemBus): void;

  /** Plugs in the host bridge of the bus, for as long as this function is there. */
  protected host<H extends PxbHost>(system: SystemBus, type: DeviceType<PropSet, H>): H {
    const host = system.plug(type);
    this.onUnrealize(() => system.unplug(host));
    return host;
  }

  /** What its bus is called where that is for people to name. */
  protected get busName(): string {
    return this.id ?? `${this.typeName}-bus.${this.pciBus.expanders.length}`;
  }
}

/** Conventional PCI: what is plugged in goes behind a bridge, which has the expander's name. */
class Pxb extends ExpanderSeat {
  protected readonly link = 'pci';

  protected override open(system: SystemBus): void {
    const bus = this.host(system, pxbHost).open('pxb-internal', this, 'pci');
    const name = this.id ?? `pci.${this.pciBus.devices.length}`;
    bus.plug(pciBridge, {}, { chassis_nr: this.props.bus_nr, 'bus-name': name });
  }
}

/** PCI Express: root ports go onto the bus itself. */
class PxbPcie extends ExpanderSeat {
  protected readonly link = 'express';

  protected override open(system: SystemBus): void {
    this.host(system, pxbHost).open(this.busName, this, 'express');
  }
}

function misplaced(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_BUS_KIND', message);
}

/** What the types of these functions have in common. */
export const expanderType = {
  category: 'bridge',
  hotpluggable: false,
  parents: ['pci-device', 'device'],
  properties: expanderProperties,
} as const;

export const pxb = deviceType({
  ...expanderType,
  type: 'pxb',
  summary: 'PCI Expander Bridge',
  pci: { vendor: 0x1b36, device: 0x0009, class: 0x060000 },
  create: Pxb,
});

export const pxbPcie = deviceType({
  ...expanderType,
  type: 'pxb-pcie',
  summary: 'PCI Express Expander Bridge',
  pci: { vendor: 0x1b36, device: 0x000b, class: 0x060000 },
  create: PxbPcie,
});

export const pxbHost = deviceType({
  type: 'pxb-host',
  summary: 'Host bridge of an expander',
  bus: 'System',
  category: 'bridge',
  parents: ['pci-host-bridge', 'sys-bus-device', 'device'],
  userCreatable: false,
  properties: {},
  create: PxbHost,
});
