import type { GuestBus } from '../../core/accel/accelerator.ts';
import { AddressSpace } from '../../core/memory/address-space.ts';
import { type IoHandler, MemoryRegion } from '../../core/memory/memory-region.ts';
import { PortSpace } from '../../core/memory/port-space.ts';

export const HPET = 0xfed0_0000;
export const POST_PORT = 0x80;
/** As many regions as a PC with a few cards has, on each bus. */
const REGIONS = 50;
const REGISTERS = 16;
const PORT_STEP = 8;
const PAGE = 0x1000;

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

/** Others, since a machine's devices are of many types and its calls of their handlers know none beforehand. */
class Counter extends Registers {
  #reads = 0;

  override read(): number {
    this.#reads = (this.#reads + 1) >>> 0;
    return this.#reads;
  }
}
class Mirror extends Registers {
  override read(offset: number): number {
    return offset;
  }
}
class Wired extends Registers {
  override read(_offset: number, size: number): number {
    return size;
  }
}

function device(index: number): IoHandler {
  switch (index % 4) {
    case 1:
      return new Counter();
    case 2:
      return new Mirror();
    case 3:
      return new Wired();
    default:
      return new Registers();
  }
}

/** Where each device of a bus of so many is. */
export const portOf = (index: number): number => POST_PORT + PORT_STEP * index;
export const pageOf = (index: number, regions: number = REGIONS): number => HPET + PAGE * (index - (regions >> 1));

/** The framework's own buses, with devices of 4 ports and devices of a page each; the first has the POST port, the middle one is the HPET. */
export function benchBus(regions: number = REGIONS): GuestBus {
  const portRoot = MemoryRegion.container('io', 0x1_0000);
  const memoryRoot = MemoryRegion.container('memory', 2 ** 40);
  for (let index = 0; index < regions; index++) {
    portRoot.add(MemoryRegion.io(`ports-${index}`, 4, device(index)), portOf(index));
    memoryRoot.add(MemoryRegion.io(`registers-${index}`, PAGE, device(index)), pageOf(index, regions));
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
