/** CXL host bridges: expander bridges whose root ports lead to memory, with a decoder that chooses among them. */
import { deviceType } from '../../core/device/device-type.ts';
import type { SystemBus } from '../../core/device/system-bus.ts';
import type { MemoryRegion } from '../../core/memory/memory-region.ts';
import type { CxlHost, CxlMemory } from '../../core/pci/cxl-host.ts';
import type { PciBus } from '../../core/pci/pci-bus.ts';
import type { PciDevice } from '../../core/pci/pci-device.ts';
import type { RegisterBank } from '../../core/register/register.ts';
import { ExpanderSeat, expanderType, PxbHost } from '../pxb.ts';
import { componentBlock, decoderHooks, HdmDecoder } from './component.ts';
import { hostBridgeComponent } from './component-registers.ts';
import { CxlUpstream, portNumber } from './ports.ts';
import { CxlType3 } from './type3.ts';

/** The host bridge itself: component registers, and the way to the memory behind its ports. */
export class PxbCxlHost extends PxbHost implements CxlHost {
  readonly #component: RegisterBank<typeof hostBridgeComponent> = this.bank(
    hostBridgeComponent,
    decoderHooks(() => this.#component.regs),
  );
  readonly #decoder = new HdmDecoder(this.#component.regs);
  readonly registers: MemoryRegion = componentBlock(this.typeName, this.#component);

  /** One switch may be on the way. */
  memoryAt(address: number): CxlMemory | undefined {
    const first = behind(this.expander, this.#decoder.port(address));
    const last = first instanceof CxlUpstream ? behind(first.secondary, first.decoder.port(address)) : first;
    return last instanceof CxlType3 ? last : undefined;
  }

  protected override get cxlHost(): CxlHost {
    return this;
  }

  override get firmwareName(): string {
    return 'cxl@ffffffffffffffff';
  }
}

const FUNCTIONS = 256;

/** What is behind the port of that number on a bus. */
function behind(bus: PciBus | undefined, port: number): PciDevice | undefined {
  if (bus === undefined || port < 0) return undefined;
  for (let devfn = 0; devfn < FUNCTIONS; devfn++) {
    const candidate = bus.function(devfn);
    if (candidate !== undefined && portNumber(candidate) === port) return candidate.secondaryBus?.function(0);
  }
  return undefined;
}

/** `pxb-cxl`: the function on the machine's own root bus that stands for it. Software sees no device there (its vendor is 0). */
class PxbCxl extends ExpanderSeat {
  protected readonly link = 'cxl';

  protected override open(system: SystemBus): void {
    this.host(system, pxbCxlHost).open(this.busName, this, 'cxl');
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
