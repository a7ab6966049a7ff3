import type { DeviceType } from '../core/device/device-type.ts';
import type { NicConfig } from '../core/machine/machine-config.ts';
import type { PciBus } from '../core/pci/pci-bus.ts';

/**
 * Plugs in the network cards of `-nic`, `-net nic` and the machine's default, each in the next free slot.
 * @param standard the machine's own kind of card
 */
export function plugNics(nics: readonly NicConfig[], pci: PciBus, standard: DeviceType): void {
  for (const { netdev, type = standard, mac, addr, vectors } of nics) {
    const props = { netdev, mac, vectors };
    const known = Object.entries(props).filter(([name, value]) => value !== undefined && name in type.properties);
    pci.plug(type, addr === undefined ? {} : { addr }, Object.fromEntries(known));
  }
}
