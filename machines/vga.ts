import type { PciBus } from '../core/pci/pci-bus.ts';
import { vga } from '../devices/vga/vga.ts';

/** The adapter that `-vga` names. */
export function plugVga(name: string, pci: PciBus): void {
  if (name === 'std') pci.plug(vga);
}
