import { MemoryRegion } from '../core/memory/memory-region.ts';

/** Where a segment of a programmable attribute map leads (82441FX datasheet, section 3.2.18): RE and WE bits. */
const PCI_ONLY = 0;
const ATTRIBUTE = 3;
const PAM_PRIORITY = 1;

interface Segment {
  /** Configuration byte, counted from PAM0, and the nibble in it. */
  readonly byte: number;
  readonly shift: number;
  /** One window for each of the four attributes; one is enabled at a time. */
  readonly windows: readonly MemoryRegion[];
}

/**
 * The segments from C0000 to FFFFF that firmware shadows: 13 windows that read and write RAM or PCI. A window that reads PCI but
 * writes RAM shows PCI: no PC firmware depends on writes alone reaching RAM.
 */
export class PamWindows {
  readonly #segments: readonly Segment[];

  constructor(systemMemory: MemoryRegion, ram: MemoryRegion, pci: MemoryRegion) {
    const places: [byte: number, shift: number, start: number, size: number][] = [[0, 4, 0xf0000, 0x10000]];
    for (let index = 0; index < 12; index++)
      places.push([1 + (index >> 1), (index & 1) * 4, 0xc0000 + index * 0x4000, 0x4000]);
    this.#segments = places.map(([byte, shift, start, size]) => {
      const ramWindow = MemoryRegion.alias('pam-ram', ram, start, size);
      const romWindow = MemoryRegion.alias('pam-rom', ram, start, size);
      romWindow.setReadonly(true);
      const pciWindow = MemoryRegion.alias('pam-pci', pci, start, size);
      const pciWriteRam = MemoryRegion.alias('pam-pci', ram, start, size);
      const windows = [pciWindow, romWindow, pciWriteRam, ramWindow];
      windows.forEach((window, attribute) => {
        window.setEnabled(attribute === PCI_ONLY);
        systemMemory.add(window, start, PAM_PRIORITY);
      });
      return { byte, shift, windows };
    });
  }

  /** Follows the registers: seven bytes of `config` from `at`. */
  update(config: Uint8Array, at: number): void {
    for (const { byte, shift, windows } of this.#segments) {
      const attribute = ((config[at + byte] ?? 0) >> shift) & ATTRIBUTE;
      windows.forEach((window, index) => window.setEnabled(index === attribute));
    }
  }
}
