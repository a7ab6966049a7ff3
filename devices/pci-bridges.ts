/** PCI and PCI Express bridges: conventional ones, the root ports of Express, and the ports of a switch. */
import type { DeviceContext } from '../core/device/device-type.ts';
import { deviceType } from '../core/device/device-type.ts';
import type { PropertyValue } from '../core/device/object.ts';
import { prop } from '../core/device/property.ts';
import { ExpanderBus } from '../core/pci/expander-bus.ts';
import { PciBridge } from '../core/pci/pci-bridge.ts';

const CAP_SSVID = 0x0d;
const CAP_EXPRESS = 0x10;
const SECONDARY_66MHZ_FAST = 0x00a0;
const EXPRESS_SIZE = 0x3c;
/** PCI Express 4.0, section 7.5.3: offsets in the capability. */
const EXP = {
  FLAGS: 0x02,
  DEVCAP: 0x04,
  DEVCTL: 0x08,
  DEVSTA: 0x0a,
  LNKCAP: 0x0c,
  LNKCTL: 0x10,
  LNKSTA: 0x12,
  SLTCAP: 0x14,
  SLTCTL: 0x18,
  SLTSTA: 0x1a,
  RTCTL: 0x1c,
  RTSTA: 0x20,
  DEVCAP2: 0x24,
  DEVCTL2: 0x28,
  LNKCAP2: 0x2c,
  LNKCTL2: 0x30,
} as const;
export const ROOT_PORT_WITH_SLOT = 0x0142;
const UPSTREAM_PORT = 0x0052;
export const DOWNSTREAM_PORT_WITH_SLOT = 0x0162;
const PCI_BRIDGE_PORT = 0x72;
const ROLE_BASED_ERRORS = 0x8000;
/** Attention button and indicators, power controller and indicator, hot-plug, surprise; an electromechanical interlock. */
const SLOT_CAPS = 0x0002_007b;
const SLOT_CAP_POWER = 1 << 1;
const SLOT_CONTROL = 0x07c0;
/** With a card in it the slot has power, and its indicator is on. */
const SLOT_CONTROL_OCCUPIED = 0x01c0;
/** Without a power controller there is the attention indicator alone. */
const SLOT_CONTROL_UNPOWERED = 0x00c0;
const SLOT_CONTROL_WRITABLE = 0x1fff;
const SLOT_EVENTS = 0x001f;
const SLOT_PRESENCE = 0x0040;
const LINK_ACTIVE = 0x2000;
const DEVCTL_WRITABLE = 0x000f;
/** End-to-end TLP prefixes may be blocked. */
const PREFIX_BLOCKING = 0x8000;

const UNSET = 0xffff_ffff;
/** Addresses to keep free below a bridge; what is not said reads as all ones. */
const reservedSize = {
  ...prop.size({ default: UNSET }),
  format: (value: number): PropertyValue => (value === UNSET ? 0xffff_ffff_ffff_ffffn : value),
};
export const reservations = {
  'bus-reserve': prop.u32({ default: UNSET }),
  'io-reserve': reservedSize,
  'mem-reserve': reservedSize,
  'pref32-reserve': reservedSize,
  'pref64-reserve': reservedSize,
} as const;

const bridgeProperties = {
  chassis_nr: prop.u8({ default: 0 }),
  msi: prop.onOffAuto({ default: 'auto' }),
  shpc: prop.bit({ default: false }),
  /** Set by an expander bridge, whose name the bus behind its own bridge has. */
  'bus-name': prop.string({ listed: 'no' }),
  ...reservations,
} as const;

/** `pci-bridge`: a conventional bridge that is in nobody's chipset. */
class StandardBridge extends PciBridge<typeof bridgeProperties> {
  constructor(context: DeviceContext<typeof bridgeProperties>) {
    super(context, { firstSlot: 1, secondaryStatus: SECONDARY_66MHZ_FAST, busName: context.props['bus-name'] });
    this.config.setStatus(SECONDARY_66MHZ_FAST);
  }
}

const PCIE_PCI_EXPRESS_AT = 0x40;

const expressBridgeProperties = { msi: prop.onOffAuto({ default: 'auto' }) } as const;

/** `pcie-pci-bridge`: conventional PCI behind an Express port. */
class ExpressToPciBridge extends PciBridge<typeof expressBridgeProperties> {
  constructor(context: DeviceContext<typeof expressBridgeProperties>) {
    super(context, { firstSlot: 1, secondaryStatus: SECONDARY_66MHZ_FAST });
    const { config } = this;
    config.setStatus(SECONDARY_66MHZ_FAST);
    const at = config.addCapability(CAP_EXPRESS, EXPRESS_SIZE, PCIE_PCI_EXPRESS_AT + 8);
    config.set16(at + EXP.FLAGS, PCI_BRIDGE_PORT);
    config.set32(at + EXP.DEVCAP, ROLE_BASED_ERRORS);
    config.set32(at + EXP.LNKCAP, 0x0000_0411);
    config.set16(at + EXP.LNKSTA, 0x0011);
    config.mask16(config.writable, at + EXP.DEVCTL, DEVCTL_WRITABLE);
  }
}

const I82801_SSVID_AT = 0x50;

/** `i82801b11-bridge`: the DMI-to-PCI bridge of ICH9. */
class Ich9Bridge extends PciBridge {
  constructor(context: DeviceContext) {
    super(context, { secondaryStatus: SECONDARY_66MHZ_FAST });
    this.config.setStatus(SECONDARY_66MHZ_FAST);
    this.config.addCapability(CAP_SSVID, 8, I82801_SSVID_AT);
  }
}

/** Of every port. */
export const linkProperties = { port: prop.u8({ default: 0 }), aer_log_max: prop.u16({ default: 8 }) } as const;

/** Of ports with a slot. */
export const slotProperties = {
  ...linkProperties,
  chassis: prop.u8({ default: 0 }),
  slot: prop.u16({ default: 0 }),
  hotplug: prop.bool({ default: true }),
  'x-native-hotplug': prop.bool({ default: true }),
} as const;

export const portProperties = {
  ...slotProperties,
  power_controller_present: prop.bit({ default: true }),
  'disable-acs': prop.bool({ default: false }),
} as const;

const genericPortProperties = {
  ...portProperties,
  'x-speed': prop.enum(['2_5', '5', '8', '16'], { default: '16', typeName: 'PCIELinkSpeed' }),
  'x-width': prop.enum(['1', '2', '4', '8', '12', '16', '32'], { default: '32', typeName: 'PCIELinkWidth' }),
  'x-migrate-msix': prop.bool({ default: true }),
  ...reservations,
} as const;

const MSIX_PENDING = 0x800;

/** Where a port's capabilities are, and how fast its link is. */
export interface PortShape {
  /** The kind of port, in the capability's flags. */
  readonly flags: number;
  /** Where the subsystem of the port is, if it says one. */
  readonly ssvid?: number;
  readonly express: number;
  readonly linkCaps: number;
  readonly linkStatus: number;
  readonly linkCaps2: number;
  readonly linkControl2: number;
  /** Its slot has a power controller; default true. */
  readonly powerController?: boolean;
  /** The bus below is Compute Express Link. */
  readonly cxl?: boolean;
}

/** A port of PCI Express with a slot below it. */
export abstract class SlotPort<S extends typeof slotProperties> extends PciBridge<S> {
  /** What decoders of CXL know it by. */
  readonly portNumber = Number(this.props.port);
  readonly #express: number;
  readonly #powerController: boolean;

  constructor(context: DeviceContext<S>, shape: PortShape) {
    const { cxl = false, powerController = true } = shape;
    super(context, { express: true, cxl, closedAtReset: shape.flags === ROOT_PORT_WITH_SLOT });
    this.#powerController = powerController;
    const { config, props } = this;
    const { vendor } = this.identity;
    if (shape.ssvid !== undefined) {
      const ssvid = config.addCapability(CAP_SSVID, 8, shape.ssvid);
      if (shape.flags === ROOT_PORT_WITH_SLOT) config.set16(ssvid + 4, vendor);
    }
    const at = config.addCapability(CAP_EXPRESS, EXPRESS_SIZE, shape.express);
    this.#express = at;
    config.set16(at + EXP.FLAGS, shape.flags);
    config.set32(at + EXP.DEVCAP, ROLE_BASED_ERRORS);
    config.mask16(config.writable, at + EXP.DEVCTL, DEVCTL_WRITABLE);
    config.mask16(config.writeOneToClear, at + EXP.DEVSTA, DEVCTL_WRITABLE);
    config.set32(at + EXP.LNKCAP, shape.linkCaps | (this.portNumber << 24));
    config.set16(at + EXP.LNKSTA, shape.linkStatus);
    const slotCaps = powerController ? SLOT_CAPS : SLOT_CAPS & ~SLOT_CAP_POWER;
    config.set32(at + EXP.SLTCAP, slotCaps | (Number(props.slot) << 19));
    config.set16(at + EXP.SLTCTL, SLOT_CONTROL);
    config.mask16(config.writable, at + EXP.SLTCTL, SLOT_CONTROL_WRITABLE);
    config.mask16(config.writeOneToClear, at + EXP.SLTSTA, SLOT_EVENTS);
    if (shape.flags === ROOT_PORT_WITH_SLOT) config.mask16(config.writable, at + EXP.RTCTL, 0x0007);
    config.set32(at + EXP.DEVCAP2, 0x0030_0020);
    config.mask16(config.writable, at + EXP.DEVCTL2, PREFIX_BLOCKING | 0x0020);
    config.set32(at + EXP.LNKCAP2, shape.linkCaps2);
    config.set16(at + EXP.LNKCTL2, shape.linkControl2);
    if (shape.flags === DOWNSTREAM_PORT_WITH_SLOT) this.addFunctionLevelReset(at);
  }

  protected override resetHold(): void {
    super.resetHold();
    const occupied = this.secondary.devices.length > 0;
    const powered = occupied ? SLOT_CONTROL_OCCUPIED : SLOT_CONTROL;
    this.config.set16(this.#express + EXP.SLTCTL, this.#powerController ? powered : SLOT_CONTROL_UNPOWERED);
    if (occupied && this.pciBus.root instanceof ExpanderBus) this.#showPresence();
  }

  /** A card is there, and its link is up. Elsewhere than behind expander bridges that is for ACPI to tell, and QEMU's ports do not. */
  #showPresence(): void {
    const { config } = this;
    const at = this.#express;
    config.set16(at + EXP.SLTSTA, config.get16(at + EXP.SLTSTA) | SLOT_PRESENCE);
    config.set16(at + EXP.LNKSTA, config.get16(at + EXP.LNKSTA) | LINK_ACTIVE);
  }
}

class GenericRootPort extends SlotPort<typeof genericPortProperties> {
  constructor(context: DeviceContext<typeof genericPortProperties>) {
    super(context, {
      flags: ROOT_PORT_WITH_SLOT,
      ssvid: 0x40,
      express: 0x54,
      linkCaps: 0x0030_0604,
      linkStatus: 0x0204,
      linkCaps2: 0x1e,
      linkControl2: 4,
    });
  }
}

class Ioh3420 extends SlotPort<typeof portProperties> {
  constructor(context: DeviceContext<typeof portProperties>) {
    super(context, {
      flags: ROOT_PORT_WITH_SLOT,
      ssvid: 0x40,
      express: 0x90,
      linkCaps: 0x0000_0411,
      linkStatus: 0x0011,
      linkCaps2: 0,
      linkControl2: 0,
    });
  }
}

/** Texas Instruments' XIO3130 (SCPS222), as far as QEMU has it: where its capabilities are. */
const X3130 = { MSI: 0x70, SSVID: 0x80, EXPRESS: 0x90, LINK: 0x0000_0411, LINK_STATUS: 0x0011 } as const;

/** The port of a switch that faces the root: the bus behind it is the switch's own. */
export abstract class UpstreamPort<S extends typeof linkProperties> extends PciBridge<S> {
  readonly portNumber = Number(this.props.port);

  constructor(context: DeviceContext<S>, ssvid?: number) {
    super(context, { express: true });
    const { config } = this;
    if (ssvid !== undefined) config.addCapability(CAP_SSVID, 8, ssvid);
    const at = config.addCapability(CAP_EXPRESS, EXPRESS_SIZE, X3130.EXPRESS);
    config.set16(at + EXP.FLAGS, UPSTREAM_PORT);
    config.set32(at + EXP.DEVCAP, ROLE_BASED_ERRORS);
    config.mask16(config.writable, at + EXP.DEVCTL, DEVCTL_WRITABLE);
    config.mask16(config.writeOneToClear, at + EXP.DEVSTA, DEVCTL_WRITABLE);
    config.set32(at + EXP.LNKCAP, X3130.LINK | (this.portNumber << 24));
    config.set16(at + EXP.LNKSTA, X3130.LINK_STATUS);
    config.set32(at + EXP.DEVCAP2, 0x0030_0000);
    config.mask16(config.writable, at + EXP.DEVCTL2, PREFIX_BLOCKING);
    this.addFunctionLevelReset(at);
  }
}

class X3130Upstream extends UpstreamPort<typeof linkProperties> {
  constructor(context: DeviceContext<typeof linkProperties>) {
    super(context, X3130.SSVID);
  }
}

/** A port of a switch with a slot. */
class Xio3130Downstream extends SlotPort<typeof portProperties> {
  constructor(context: DeviceContext<typeof portProperties>) {
    super(context, {
      flags: DOWNSTREAM_PORT_WITH_SLOT,
      ssvid: X3130.SSVID,
      express: X3130.EXPRESS,
      linkCaps: 0x0000_0400,
      linkStatus: X3130.LINK_STATUS,
      linkCaps2: 0,
      linkControl2: 0,
    });
  }
}

export const BRIDGE_CLASS = 0x060400;

export const pciBridge = deviceType({
  type: 'pci-bridge',
  summary: 'Standard PCI Bridge',
  category: 'bridge',
  parents: ['base-pci-bridge', 'pci-device', 'device'],
  properties: bridgeProperties,
  pci: { vendor: 0x1b36, device: 0x0001, class: BRIDGE_CLASS, bridge: true, pin: 'A' },
  create: StandardBridge,
});

export const pciePciBridge = deviceType({
  type: 'pcie-pci-bridge',
  summary: 'PCIe-to-PCI bridge',
  category: 'bridge',
  parents: ['base-pci-bridge', 'pci-device', 'device'],
  properties: expressBridgeProperties,
  pci: { vendor: 0x1b36, device: 0x000e, class: BRIDGE_CLASS, bridge: true, pin: 'A' },
  create: ExpressToPciBridge,
});

export const i82801b11Bridge = deviceType({
  type: 'i82801b11-bridge',
  summary: 'ICH9 DMI-to-PCI bridge',
  category: 'bridge',
  parents: ['base-pci-bridge', 'pci-device', 'device'],
  pci: { vendor: 0x8086, device: 0x244e, revision: 0x92, class: 0x060401, bridge: true },
  create: Ich9Bridge,
});

export const pcieRootPort = deviceType({
  type: 'pcie-root-port',
  summary: 'PCI Express Root Port',
  category: 'bridge',
  parents: ['pcie-root-port-base', 'pcie-slot', 'pcie-port', 'base-pci-bridge', 'pci-device', 'device'],
  properties: genericPortProperties,
  pci: {
    vendor: 0x1b36,
    device: 0x000c,
    class: BRIDGE_CLASS,
    bridge: true,
    pin: 'A',
    msix: { vectors: 1, bar: 0, pba: MSIX_PENDING, offset: 0x48 },
  },
  create: GenericRootPort,
});

export const ioh3420 = deviceType({
  type: 'ioh3420',
  summary: 'Intel IOH device id 3420 PCIE Root Port',
  category: 'bridge',
  parents: ['pcie-root-port-base', 'pcie-slot', 'pcie-port', 'base-pci-bridge', 'pci-device', 'device'],
  properties: portProperties,
  pci: {
    vendor: 0x8086,
    device: 0x3420,
    revision: 2,
    class: BRIDGE_CLASS,
    bridge: true,
    pin: 'A',
    msi: { vectors: 2, wide: false, maskable: true, offset: 0x60 },
  },
  create: Ioh3420,
});

const X3130_MSI = { vectors: 1, wide: true, maskable: false, offset: X3130.MSI } as const;

export const x3130Upstream = deviceType({
  type: 'x3130-upstream',
  summary: 'TI X3130 Upstream Port of PCI Express Switch',
  category: 'bridge',
  parents: ['pcie-port', 'base-pci-bridge', 'pci-device', 'device'],
  properties: linkProperties,
  pci: { vendor: 0x104c, device: 0x8232, revision: 2, class: BRIDGE_CLASS, bridge: true, msi: X3130_MSI },
  create: X3130Upstream,
});

export const xio3130Downstream = deviceType({
  type: 'xio3130-downstream',
  summary: 'TI X3130 Downstream Port of PCI Express Switch',
  category: 'bridge',
  parents: ['pcie-slot', 'pcie-port', 'base-pci-bridge', 'pci-device', 'device'],
  properties: portProperties,
  pci: { vendor: 0x104c, device: 0x8233, revision: 1, class: BRIDGE_CLASS, bridge: true, msi: X3130_MSI },
  create: Xio3130Downstream,
});
