import type { GuestBus } from '../../core/accel/accelerator.ts';
import { AddressSpace } from '../../core/memory/address-space.ts';
import { type IoHandler, MemoryRegion } from '../../core/memory/memory-region.ts';
import { PortSpace } from '../../core/memory/port-space.ts';

export const HPET = 0xfed0_0000;
export const POST_PORT = 0x80;
/** As many regions as a PC with a few cards has, on each bus. */
const REGIONS = 50;
const REGISTERS = 16;

/** A device of plain registers. */
class Registers implements IoHandler {
  readonly #values = new Uint32Array(REGISTERS);

  read(offset: number, _size: number): number {
    return this.#values[(offset >>> 2) & (REGISTERS - 1)] ?? 0;
  }

  write(offset: number, _size: number, value: number): void {
    this.#values[(offset >>> 2) & (REGISTERS - 1)] = value;
  }
}

/** The framework's own buses, with 50 devices of 4 ports and 50 of a page each; one is the POST port, one the HPET. */
export function benchBus(): GuestBus {
  const portRoot = MemoryRegion.container('io', 0x1_0000);
  const memoryRoot = MemoryRegion.container('memory', 2 ** 40);
  for (let index = 0; index < REGIONS; index++) {
    portRoot.add(MemoryRegion.io(`ports-${index}`, 4, new Registers()), POST_PORT + 16 * index);
    memoryRoot.add(
      MemoryRegion.io(`registers-${index}`, 0x1000, new Registers()),
      HPET + 0x1000 * (index - REGIONS / 2),
    );
  }
  const ports = new PortSpace('io', portRoot);
  const memory = new AddressSpace('memory', memoryRoot);
  return {
    portRead: (port, size) => ports.read(port, size),
    portWrite: (port, size, value) => ports.write(port, size, value),
    memoryRead: (address, size) => memory.read(address, size),
    memoryWrite: (address, size, value) => memory.write(address, size, value),
  };
}
