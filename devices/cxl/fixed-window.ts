import { type IoHandler, MemoryRegion } from '../../core/memory/memory-region.ts';
import type { PciBus } from '../../core/pci/pci-bus.ts';
import type { PciDevice } from '../../core/pci/pci-device.ts';
import type { PxbCxl } from './host.ts';
import { CxlUpstream, portNumber } from './ports.ts';
import { CxlType3 } from './type3.ts';

/**
 * A fixed memory window (CXL 2.0 ECN "CEDT CFMWS & QTG _DSM"): addresses that the machine hands to host bridges, some at a time in turn,
 * and these by their decoders to the devices behind their ports. What no decoder takes reads as 0, and is lost when written.
 */
export class FixedWindow {
  readonly region: MemoryRegion;
  readonly base: number;
  readonly granularity: number;
  /** The host bridges in turn, once they are there. */
  targets: readonly PxbCxl[] = [];

  /** @param window its first address, its bytes, and how many of them go to one host bridge before the next */
  constructor({
    base,
    size,
    granularity,
  }: { readonly base: number; readonly size: number; readonly granularity: number }) {
    this.base = base;
    this.granularity = granularity;
    const handler: IoHandler = {
      read: (offset, bytes) => this.#device(base + offset)?.readMemory(base + offset, bytes) ?? 0,
      write: (offset, bytes, value) => this.#device(base + offset)?.writeMemory(base + offset, bytes, value),
    };
    this.region = MemoryRegion.io('cxl-fixed-memory-region', size, handler);
  }

  /** The device that `address` leads to; one switch may be on the way. */
  #device(address: number): CxlType3 | undefined {
    const { targets } = this;
    const host = targets[Math.floor(address / this.granularity) % targets.length]?.hostBridge;
    if (host === undefined) return undefined;
    const first = behind(host.expander, host.decoder.port(address));
    const last = first instanceof CxlUpstream ? behind(first.secondary, first.decoder.port(address)) : first;
    return last instanceof CxlType3 ? last : undefined;
  }
}

/** What is behind the port of that number on a bus. */
function behind(bus: PciBus | undefined, port: number): PciDevice | undefined {
  if (bus === undefined || port < 0) return undefined;
  for (let devfn = 0; devfn < FUNCTIONS; devfn++) {
    const candidate = bus.function(devfn);
    if (candidate !== undefined && portNumber(candidate) === port) return candidate.secondaryBus?.function(0);
  }
  return undefined;
}

const FUNCTIONS = 256;
