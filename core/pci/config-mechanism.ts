import type { IoHandler } from '../memory/memory-region.ts';
import type { PciBus } from './pci-bus.ts';

const ENABLE = 0x8000_0000;
/** Enhanced configuration (PCI Express 3.0, section 7.2.2): 1 MiB a bus, 4 KiB a function. */
export const ECAM_BUS_SHIFT = 20;
const ECAM_FUNCTION_SHIFT = 12;
const ECAM_FUNCTION_MASK = (1 << ECAM_FUNCTION_SHIFT) - 1;

/**
 * Configuration mechanism #1 (PCI 3.0, section 3.2.2.3.2): an address register of 32 bits, and a data window onto what it
 * selects.
 */
export class ConfigMechanism {
  address = 0;
  readonly #bus: PciBus;

  constructor(bus: PciBus) {
    this.#bus = bus;
  }

  /** CONFIG_ADDRESS, 0xcf8: only whole 32-bit accesses reach it. */
  readonly addressPort: IoHandler = {
    read: (offset, size) => (offset === 0 && size === 4 ? this.address : allOnes(size)),
    write: (offset, size, value) => {
      if (offset === 0 && size === 4) this.address = value;
    },
  };

  /** CONFIG_DATA, 0xcfc to 0xcff. Software that leaves the low address bits set gets what QEMU gives it: the byte that they name. */
  readonly dataPort: IoHandler = {
    read: (offset, size) => {
      if ((this.address & ENABLE) === 0) return allOnes(size);
      return configRead(
        this.#bus,
        (this.address >>> 16) & 0xff,
        (this.address >>> 8) & 0xff,
        (this.address & 0xff) | offset,
        size,
      );
    },
    write: (offset, size, value) => {
      if ((this.address & ENABLE) === 0) return;
      configWrite(
        this.#bus,
        (this.address >>> 16) & 0xff,
        (this.address >>> 8) & 0xff,
        (this.address & 0xff) | offset,
        size,
        value,
      );
    },
  };
}

/** The enhanced configuration access mechanism: all of configuration space below `root` in memory, bus after bus. */
export function enhancedConfiguration(root: PciBus): IoHandler {
  return {
    read: (offset, size) =>
      configRead(
        root,
        offset >>> ECAM_BUS_SHIFT,
        (offset >>> ECAM_FUNCTION_SHIFT) & 0xff,
        offset & ECAM_FUNCTION_MASK,
        size,
      ),
    write: (offset, size, value) =>
      configWrite(
        root,
        offset >>> ECAM_BUS_SHIFT,
        (offset >>> ECAM_FUNCTION_SHIFT) & 0xff,
        offset & ECAM_FUNCTION_MASK,
        size,
        value,
      ),
  };
}

/** Reads configuration space; all ones where no function answers (a master abort). */
export function configRead(root: PciBus, bus: number, devfn: number, offset: number, size: number): number {
  return root.find(bus, devfn)?.configRead(offset, size) ?? allOnes(size);
}

export function configWrite(
  root: PciBus,
  bus: number,
  devfn: number,
  offset: number,
  size: number,
  value: number,
): void {
  root.find(bus, devfn)?.configWrite(offset, size, value);
}

function allOnes(size: number): number {
  return size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
}
