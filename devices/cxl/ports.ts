/** Ports of CXL: a root port, and the ports of a switch. They are ports of PCI Express with component registers beside. */
import type { DeviceContext } from '../../core/device/device-type.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { COMMAND } from '../../core/pci/config-space.ts';
import { DataObjectExchange, dataObjectState } from '../../core/pci/data-object-exchange.ts';
import {
  ACS_SIZE,
  AER_SIZE,
  addAccessControl,
  addErrorReporting,
  resetAccessControl,
  resetErrorReporting,
} from '../../core/pci/error-reporting.ts';
import type { RegisterBank } from '../../core/register/register.ts';
import {
  BRIDGE_CLASS,
  DOWNSTREAM_PORT_WITH_SLOT,
  linkProperties,
  portProperties,
  ROOT_PORT_WITH_SLOT,
  reservations,
  SlotPort,
  slotProperties,
  UpstreamPort,
} from '../pci-bridges.ts';
import { type AttributeTable, switchTable, tableAccess, tableFromFile } from './cdat.ts';
import { componentBlock, decoderHooks, HdmDecoder } from './component.ts';
import {
  COMPONENT_BLOCK_SIZE,
  downstreamComponent,
  rootPortComponent,
  upstreamComponent,
} from './component-registers.ts';
import { COMPONENT_BAR, DvsecList, FLEX } from './dvsec.ts';

/** PCI-to-PCI bridges, 3.2.5.6: the window of ports. */
const IO_WINDOW = 0x1c;
const ERRORS_AT = 0x100;
const ERRORS_END = ERRORS_AT + AER_SIZE;
const LINK_CAPS = 0x0000_0411;
const LINK_STATUS = 0x0011;
const EXPRESS_AT = 0x90;
const MESSAGES_AT = 0x70;

const rootPortProperties = { ...portProperties, ...reservations } as const;

/** `cxl-rp`: a port of a host bridge. */
export class CxlRootPort extends SlotPort<typeof rootPortProperties> {
  readonly #component: RegisterBank<typeof rootPortComponent> = this.bank(
    rootPortComponent,
    decoderHooks(() => this.#component.regs),
  );

  constructor(context: DeviceContext<typeof rootPortProperties>) {
    super(context, {
      flags: ROOT_PORT_WITH_SLOT,
      ssvid: 0x40,
      express: 0x48,
      linkCaps: LINK_CAPS,
      linkStatus: LINK_STATUS,
      linkCaps2: 0,
      linkControl2: 0,
      cxl: true,
    });
    const { config } = this;
    addErrorReporting(config, ERRORS_AT, { root: true });
    if (!this.props['disable-acs']) addAccessControl(config, ERRORS_END);
    new DvsecList(config, ERRORS_END + ACS_SIZE)
      .portExtensions()
      .portFlush()
      // All but CXL.io may be switched off.
      .flexBus({ capability: FLEX.IO | FLEX.MEM | FLEX.CXL_2_0, control: FLEX.IO, writable: 0xbd })
      .registerLocator('component');
    this.bar(COMPONENT_BAR, componentBlock(this.typeName, this.#component));
    if (!hasPorts(this.props['io-reserve'])) this.#closePorts();
  }

  /** What needs no I/O ports is not asked for any. */
  #closePorts(): void {
    const { writable } = this.config;
    this.config.mask16(writable, 0x04, this.config.read16Mask(writable, 0x04) & ~COMMAND.IO);
    this.config.mask16(writable, IO_WINDOW, 0);
  }

  protected override resetHold(): void {
    super.resetHold();
    resetErrorReporting(this.config, ERRORS_AT);
    if (!this.props['disable-acs']) resetAccessControl(this.config, ERRORS_END);
  }
}

/** As much as nobody said is none. */
function hasPorts(reserved: number): boolean {
  return reserved !== 0 && reserved !== 0xffff_ffff;
}

const upstreamProperties = {
  ...linkProperties,
  cdat: prop.string({ help: 'file with the attributes of the switch' }),
} as const;
const SWITCH_LINK = FLEX.CACHE | FLEX.IO | FLEX.MEM | FLEX.CXL_2_0;

/** `cxl-upstream`: the port of a switch that faces the root. Its decoder chooses among the ports below. */
export class CxlUpstream extends UpstreamPort<typeof upstreamProperties> {
  readonly #component: RegisterBank<typeof upstreamComponent> = this.bank(
    upstreamComponent,
    decoderHooks(() => this.#component.regs),
  );
  readonly decoder = new HdmDecoder(this.#component.regs);
  readonly #exchange: DataObjectExchange;
  #table: AttributeTable | undefined;

  constructor(context: DeviceContext<typeof upstreamProperties>) {
    super(context);
    const { config } = this;
    addErrorReporting(config, ERRORS_AT);
    const dvsecs = new DvsecList(config, ERRORS_END)
      .portExtensions(true)
      .flexBus({ capability: SWITCH_LINK, control: SWITCH_LINK })
      .registerLocator('component');
    this.bar(COMPONENT_BAR, componentBlock(this.typeName, this.#component));
    this.#exchange = new DataObjectExchange(
      {
        ...{ config, at: dvsecs.end, vector: 1, notify: vector => this.notify(vector) },
        protocols: [tableAccess(() => this.#table ?? this.#currentTable())],
      },
      this.state(1, dataObjectState, { name: 'exchange' }),
    );
  }

  protected override realize(): void {
    const { cdat } = this.props;
    if (cdat !== undefined) this.#table = tableFromFile(cdat, message => this.log.guestError(message));
  }

  /** The ports that there are by now; a switch without any has nothing to say. */
  #currentTable(): AttributeTable | undefined {
    const ports = this.secondary.functions.map(portNumber).filter(port => port >= 0);
    return ports.length === 0 ? undefined : switchTable(ports);
  }

  override configWrite(offset: number, size: number, value: number): void {
    super.configWrite(offset, size, value);
    if (!this.absent) this.#exchange.written(offset, size, value);
  }

  protected override resetHold(): void {
    this.#exchange.refresh();
  }

  protected override restored(): void {
    super.restored();
    this.#exchange.refresh();
  }
}

/** `cxl-downstream`: a port of a switch with a slot. */
export class CxlDownstream extends SlotPort<typeof slotProperties> {
  constructor(context: DeviceContext<typeof slotProperties>) {
    super(context, {
      flags: DOWNSTREAM_PORT_WITH_SLOT,
      express: EXPRESS_AT,
      linkCaps: LINK_CAPS & ~0x11,
      linkStatus: LINK_STATUS,
      linkCaps2: 0,
      linkControl2: 0,
      powerController: false,
    });
    const { config } = this;
    addErrorReporting(config, ERRORS_AT);
    new DvsecList(config, ERRORS_END)
      .portExtensions()
      .flexBus({ capability: SWITCH_LINK, control: FLEX.IO, writable: 0xfd })
      .portFlush()
      .registerLocator('component');
    this.bar(COMPONENT_BAR, componentBlock(this.typeName, this.bank(downstreamComponent)));
  }
}

/** The number that decoders know a port of Express by; -1 for other functions. */
export function portNumber(port: object | undefined): number {
  return port instanceof SlotPort || port instanceof UpstreamPort ? port.portNumber : -1;
}

const component = { [COMPONENT_BAR]: { size: COMPONENT_BLOCK_SIZE, wide: true } } as const;

const express = (offset: number) =>
  ({ express: 'endpoint', expressOnly: true, expressCapability: { version: 2, offset, after: 'device' } }) as const;

export const cxlRootPort = deviceType({
  type: 'cxl-rp',
  summary: 'CXL Root Port',
  category: 'bridge',
  hotpluggable: false,
  parents: ['pcie-root-port-base', 'pcie-slot', 'pcie-port', 'base-pci-bridge', 'pci-device', 'device'],
  properties: rootPortProperties,
  pci: { vendor: 0x8086, device: 0x7075, class: BRIDGE_CLASS, bridge: true, pin: 'A', ...express(0x48) },
  bars: component,
  create: CxlRootPort,
});

export const cxlUpstream = deviceType({
  type: 'cxl-upstream',
  summary: 'CXL Switch Upstream Port',
  category: 'bridge',
  parents: ['pcie-port', 'base-pci-bridge', 'pci-device', 'device'],
  properties: upstreamProperties,
  pci: {
    ...{ vendor: 0x19e5, device: 0xa128, class: BRIDGE_CLASS, bridge: true, ...express(EXPRESS_AT) },
    msi: { vectors: 2, wide: true, maskable: true, offset: MESSAGES_AT },
  },
  bars: component,
  create: CxlUpstream,
});

export const cxlDownstream = deviceType({
  type: 'cxl-downstream',
  summary: 'CXL Switch Downstream Port',
  category: 'bridge',
  parents: ['pcie-slot', 'pcie-port', 'base-pci-bridge', 'pci-device', 'device'],
  properties: slotProperties,
  pci: {
    ...{ vendor: 0x19e5, device: 0xa129, class: BRIDGE_CLASS, bridge: true, ...express(EXPRESS_AT) },
    msi: { vectors: 1, wide: true, maskable: true, offset: MESSAGES_AT },
  },
  bars: component,
  create: CxlDownstream,
});
