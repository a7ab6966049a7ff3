/** CXL host bridges: expander bridges whose root ports lead to memory, with a decoder that chooses among them. */
import { deviceType } from '../../core/device/device-type.ts';
import type { SystemBus } from '../../core/device/system-bus.ts';
import type { MemoryRegion } from '../../core/memory/memory-region.ts';
import type { RegisterBank } from '../../core/register/register.ts';
import { ExpanderSeat, expanderType, PxbHost } from '../pxb.ts';
import { componentBlock, decoderHooks, HdmDecoder } from './component.ts';
import { hostBridgeComponent } from './component-registers.ts';

/** The host bridge itself: component registers, which the machine shows in its memory. */
export class PxbCxlHost extends PxbHost {
  readonly #component: RegisterBank<typeof hostBridgeComponent> = this.bank(
    hostBridgeComponent,
    decoderHooks(() => this.#component.regs),
  );
  readonly decoder = new HdmDecoder(this.#component.regs);
  readonly registers: MemoryRegion = componentBlock(this.typeName, this.#component);

  override get firmwareName(): string {
    return 'cxl@ffffffffffffffff';
  }
}

/** `pxb-cxl`: the function on the machine's own root bus that stands for it. Software sees no device there (its vendor is 0). */
export class PxbCxl extends ExpanderSeat {
  protected readonly link = 'cxl';
  #host: PxbCxlHost | undefined;

  /** Its host bridge, once it is on its bus. */
  get hostBridge(): PxbCxlHost | undefined {
    return this.#host;
  }

  protected override open(system: SystemBus): void {
    this.#host = this.host(system, pxbCxlHost);
    this.#host.open(this.busName, this, 'cxl');
  }
}

export const pxbCxl = deviceType({
  ...expanderType,
  type: 'pxb-cxl',
  summary: 'CXL Host Bridge',
  pci: { vendor: 0, device: 0, class: 0x060000 },
  create: PxbCxl,
});

export const pxbCxlHost = deviceType({
  type: 'pxb-cxl-host',
  summary: 'Host bridge of a CXL expander',
  bus: 'System',
  category: 'bridge',
  parents: ['pci-host-bridge', 'sys-bus-device', 'device'],
  userCreatable: false,
  properties: {},
  create: PxbCxlHost,
});
