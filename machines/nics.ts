import { SouthbridgeError } from '../core/errors.ts';
import type { NicConfig } from '../core/machine/machine-config.ts';
import type { PciBus } from '../core/pci/pci-bus.ts';
import { e1000, e1000_82544gc, e1000_82545em } from '../devices/e1000/e1000.ts';
import { virtioNetPci } from '../devices/virtio-net.ts';

/** The first MAC address of a machine's own cards; each further one has the next. */
const FIRST_MAC = 0x56;

/** Plugs in the network cards of `-nic`, `-net nic` and the machine's default, each in the next free slot. */
export function plugNics(nics: readonly NicConfig[], pci: PciBus, standard: string): void {
  for (const [index, { netdev, model = standard, mac }] of nics.entries()) {
    const props = { netdev, mac: mac ?? `52:54:00:12:34:${(FIRST_MAC + index).toString(16)}` };
    switch (model) {
      case 'e1000':
      case 'e1000-82540em':
        pci.plug(e1000, {}, props);
        break;
      case 'e1000-82544gc':
        pci.plug(e1000_82544gc, {}, props);
        break;
      case 'e1000-82545em':
        pci.plug(e1000_82545em, {}, props);
        break;
      case 'virtio':
      case 'virtio-net-pci':
        pci.plug(virtioNetPci, {}, props);
        break;
      default:
        // A machine's own card may not be there yet; one that was asked for has to be.
        if (model === standard) break;
        throw new SouthbridgeError(
          'ERR_NIC_MODEL',
          `Unsupported NIC model: ${model}`,
          'there are e1000 and virtio-net-pci',
        );
    }
  }
}
