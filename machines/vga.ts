import type { PciBus } from '../core/pci/pci-bus.ts';
import { cirrusVga } from '../devices/cirrus/cirrus-vga.ts';
import { vga } from '../devices/vga/vga.ts';
import { virtioVga } from '../devices/virtio-gpu/virtio-vga.ts';

/** Plugs in the adapter that `-vga` names. */
export function plugVga(name: string, pci: PciBus): void {
  if (name === 'std') pci.plug(vga);
  else if (name === 'cirrus') pci.plug(cirrusVga);
  else if (name === 'virtio') pci.plug(virtioVga);
}
