import type { PciBus } from './pci-bus.ts';
import type { PciDevice } from './pci-device.ts';

const CAP_EXPRESS = 0x10;
/** Device/port type of a bridge from PCI Express to PCI (PCI Express 3.0, section 7.8.2). */
const PCI_EXPRESS_TO_PCI = 7;

/**
 * Whom the root complex takes for the one that asks. Conventional buses do not say who it is: a bridge from Express asks in its
 * secondary bus's name (PCI Express to PCI/PCI-X Bridge 1.0, section 2.3), others in their own.
 */
export class Requester {
  readonly #bus: PciBus;
  readonly #devfn: number;

  constructor(device: PciDevice) {
    let bus: PciBus = device.pciBus;
    let { devfn } = device;
    for (let below = device.pciBus, bridge = below.bridge; bridge !== undefined; bridge = below.bridge) {
      if (!below.express) {
        const own = portType(bridge) !== PCI_EXPRESS_TO_PCI;
        bus = own ? bridge.pciBus : below;
        devfn = own ? bridge.devfn : 0;
      }
      below = bridge.pciBus;
    }
    this.#bus = bus;
    this.#devfn = devfn;
  }

  /** Bus number * 256 + devfn, as software has numbered the buses. */
  get id(): number {
    return this.#bus.number * 256 + this.#devfn;
  }
}

function portType({ config }: PciDevice): number | undefined {
  const at = config.findCapability(CAP_EXPRESS);
  return at === 0 ? undefined : (config.get16(at + 2) >>> 4) & 0xf;
}
