import type { VirtualClock } from '../../clock/clock.ts';
import type { Device } from '../../device/device.ts';
import { SouthbridgeError } from '../../errors.ts';
import type { IrqLine } from '../../irq/line.ts';
import { Dma } from '../../memory/dma.ts';
import type { IoHandler, MemoryRegion } from '../../memory/memory-region.ts';
import type { NetClient } from '../../net/net-client.ts';
import type { PciDevice } from '../../pci/pci-device.ts';
import { fieldMask, type RegisterMap } from '../../register/map.ts';
import { Fault, type Occasions, refuseUnused } from './fault.ts';

/** Which of a device's accesses to memory. */
export interface DmaMatch extends Occasions {
  /** Only reads, or only writes. */
  readonly direction?: 'read' | 'write';
  /** Only where they touch these addresses. */
  readonly address?: number;
  readonly length?: number;
}

/** Which accesses to registers. */
export interface IoMatch extends Occasions {
  readonly direction?: 'read' | 'write';
  /** Only where they touch these bytes of the region. */
  readonly offset?: number;
  readonly length?: number;
}

/** What breaks hardware. Each is a {@link Fault}, which counts, and can be taken out. */
export class Faults {
  readonly #clock: VirtualClock;
  readonly #faults: Fault[] = [];

  constructor(clock: VirtualClock) {
    this.#clock = clock;
  }

  /** All that have been injected. */
  get injected(): readonly Fault[] {
    return this.#faults;
  }

  /**
   * Ends the faults.
   * @throws SouthbridgeError ERR_FAULT_UNUSED where one never happened
   */
  verify(): void {
    for (const fault of this.#faults) fault.remove();
    refuseUnused(this.#faults.splice(0));
  }

  /** The device's reads or writes of memory fail, as where the bus ends a cycle with master abort (PCI 3.0, section 3.3.3.1). */
  dmaFailure(device: Device, match: DmaMatch = {}): Fault {
    const dma = 'dma' in device ? device.dma : undefined;
    if (!(dma instanceof Dma))
      throw new SouthbridgeError('ERR_FAULT_TARGET', `'${device.typeName}' does no DMA by itself`);
    const { direction, address = 0, length = Number.POSITIVE_INFINITY } = match;
    const fault = this.#add(`DMA failure of ${device.typeName}`, match);
    const before = dma.fault;
    dma.fault = (at, bytes, write) => {
      if (before?.(at, bytes, write)) return true;
      if (direction !== undefined && (direction === 'write') !== write) return false;
      return at < address + length && at + bytes > address && fault.strikes();
    };
    return fault.installed(() => {
      dma.fault = before;
    });
  }

  /**
   * A bit that reads as it should not, whatever the device says.
   * @param name a register, `STATUS`, for all of its bits, or a field, `STATUS.BUSY`
   */
  stuck(region: MemoryRegion, map: RegisterMap, name: string, level: boolean, occasions: Occasions = {}): Fault {
    const { offset, bytes, mask } = placeOf(map, name);
    const fault = this.#add(`${map.name}.${name} stuck at ${level ? 1 : 0}`, occasions);
    return this.#layer(fault, region, inner => ({
      read: (at, size) => {
        const value = inner.read(at, size);
        const touched = shifted(mask, offset - at, size);
        if (at >= offset + bytes || at + size <= offset || touched === 0) return value;
        const wrong = level ? (value | touched) >>> 0 : (value & ~touched) >>> 0;
        // Only a bit that would have been otherwise is a fault that somebody could notice.
        return wrong !== value && fault.strikes() ? wrong : value;
      },
      write: (at, size, value) => inner.write(at, size, value),
    }));
  }

  /** Accesses that take `delayNs`: time passes, and timers go off, before they are served. */
  slowIo(region: MemoryRegion, delayNs: number, match: IoMatch = {}): Fault {
    const fault = this.#add(`slow access to ${region.name}`, match);
    const wait = (at: number, size: number, write: boolean): void => {
      if (touches(match, at, size, write) && fault.strikes()) this.#clock.advance(delayNs);
    };
    return this.#layer(fault, region, inner => ({
      read(at, size) {
        wait(at, size, false);
        return inner.read(at, size);
      },
      write(at, size, value) {
        wait(at, size, true);
        inner.write(at, size, value);
      },
    }));
  }

  /** A bus that breaks accesses into pieces of `piece` bytes, the high ones first, with `betweenNs` between them. */
  tornIo(region: MemoryRegion, piece: 1 | 2 = 1, match: IoMatch & { readonly betweenNs?: number } = {}): Fault {
    const fault = this.#add(`torn access to ${region.name}`, match);
    const { betweenNs = 0 } = match;
    const torn = (at: number, size: number, write: boolean): boolean =>
      size > piece && touches(match, at, size, write) && fault.strikes();
    const ones = piece === 1 ? 0xff : 0xffff;
    return this.#layer(fault, region, inner => ({
      read: (at, size) => {
        if (!torn(at, size, false)) return inner.read(at, size);
        let value = 0;
        for (let within = size - piece; within >= 0; within -= piece) {
          value |= (inner.read(at + within, piece) & ones) << (8 * within);
          this.#clock.advance(betweenNs);
        }
        return value >>> 0;
      },
      write: (at, size, value) => {
        if (!torn(at, size, true)) return inner.write(at, size, value);
        for (let within = size - piece; within >= 0; within -= piece) {
          inner.write(at + within, piece, (value >>> (8 * within)) & ones);
          this.#clock.advance(betweenNs);
        }
      },
    }));
  }

  /** Edges that raise the line do not arrive: the driver waits in vain. */
  lostInterrupts(line: IrqLine, occasions: Occasions = {}): Fault {
    const fault = this.#add(`lost interrupt of ${line.name}`, occasions);
    let reached = line.level;
    const undo = line.interpose((level, pass) => {
      const arrives = level ? !fault.strikes() : reached;
      if (!arrives) return;
      reached = level;
      pass(level);
    });
    return fault.installed(undo);
  }

  /** Messages to the region behind 0xfee00000 that never arrive; `data` chooses a vector. */
  lostMessages(window: MemoryRegion, occasions: Occasions & { readonly data?: number } = {}): Fault {
    const fault = this.#add('lost message', occasions);
    const { data } = occasions;
    return this.#layer(fault, window, inner => ({
      read: (at, size) => inner.read(at, size),
      write: (at, size, value) => {
        if ((data === undefined || data === value) && fault.strikes()) return;
        inner.write(at, size, value);
      },
    }));
  }

  /** An interrupt that the device did not ask for: its line is high for `durationNs`, or until the fault is taken out. */
  spuriousInterrupt(line: IrqLine, durationNs?: number): Fault {
    const fault = this.#add(`spurious interrupt of ${line.name}`);
    // What the device does meanwhile is held back; the line is released with what it says by then.
    const undo = line.interpose(() => {});
    line.force(true);
    fault.strikes();
    const timer = this.#clock.timer('spurious interrupt', undo);
    if (durationNs !== undefined) timer.arm(durationNs);
    return fault.installed(() => {
      timer.dispose();
      undo();
    });
  }

  /**
   * The card is pulled out while it works: registers and configuration space read as ones, writes go nowhere, it neither reaches
   * memory nor interrupts. Its driver has not been asked.
   */
  surpriseRemoval(device: PciDevice): Fault {
    const fault = this.#add(`surprise removal of ${device.typeName}`);
    const noticed = <T>(answer: T): T => {
      fault.strikes();
      return answer;
    };
    const gone: IoHandler = {
      read: (_at, size) => noticed(size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff),
      write: () => noticed(undefined),
    };
    const undo = device.bars.flatMap(bar => (bar === undefined ? [] : [bar.region.interpose(() => gone)]));
    const before = device.dma.fault;
    device.dma.fault = () => noticed(true);
    const line = device.interruptLine;
    line.force(false);
    undo.push(line.interpose(() => {}));
    device.absent = true;
    return fault.installed(() => {
      device.absent = false;
      device.dma.fault = before;
      for (const each of undo) each();
    });
  }

  /** The cable is out for `downNs`, then in again, `times` times with `downNs` between. */
  linkFlap(client: NetClient, downNs: number, times = 1): Fault {
    const fault = this.#add(`link flap of ${client.name}`);
    let left = times;
    const flip = (): void => {
      if (client.linkUp) {
        if (left-- === 0) return;
        fault.strikes();
        client.setLink(false);
      } else client.setLink(true);
      if (left > 0 || !client.linkUp) timer.arm(downNs);
    };
    const timer = this.#clock.timer('link flap', flip);
    flip();
    return fault.installed(() => {
      timer.dispose();
      client.setLink(true);
    });
  }

  /** The guest's clock goes wrong by so many parts in a million: 100 is a bad quartz, -500,000 half as fast. */
  clockSkew(partsPerMillion: number): Fault {
    const fault = this.#add(`clock off by ${partsPerMillion} ppm`);
    const clock = this.#clock;
    const before = clock.rate;
    const since = clock.now();
    clock.rate = before * (1 + partsPerMillion / 1e6);
    return fault.installed(() => {
      clock.rate = before;
      if (clock.now() > since) fault.strikes();
    });
  }

  #add(name: string, occasions: Occasions = {}): Fault {
    const fault = new Fault(name, occasions);
    this.#faults.push(fault);
    return fault;
  }

  #layer(fault: Fault, region: MemoryRegion, layer: (inner: IoHandler) => IoHandler): Fault {
    return fault.installed(region.interpose(layer));
  }
}

function touches({ direction, offset = 0, length }: IoMatch, at: number, size: number, write: boolean): boolean {
  if (direction !== undefined && (direction === 'write') !== write) return false;
  return at < offset + (length ?? Number.POSITIVE_INFINITY) && at + size > offset;
}

/** `mask`, which begins `bytes` behind an access, within that access. */
function shifted(mask: number, bytes: number, size: number): number {
  if (Math.abs(bytes) >= 4) return 0;
  const moved = bytes >= 0 ? mask << (8 * bytes) : mask >>> (-8 * bytes);
  return (size === 4 ? moved : moved & (size === 2 ? 0xffff : 0xff)) >>> 0;
}

function placeOf(map: RegisterMap, name: string): { offset: number; bytes: number; mask: number } {
  const [registerName = '', fieldName] = name.split('.');
  const entry = map.layout.find(each => each.name === registerName);
  const field = fieldName === undefined ? undefined : entry?.register.fields[fieldName];
  if (entry === undefined || (fieldName !== undefined && field === undefined))
    throw new SouthbridgeError('ERR_FAULT_TARGET', `'${map.name}' has no ${name}`);
  const { offset } = entry.register;
  if (field === undefined) return { offset, bytes: Math.min(4, entry.bytes), mask: entry.masks[0]?.all ?? 0 };
  return { offset: offset + 4 * (field.low >> 5), bytes: Math.min(4, entry.bytes), mask: fieldMask(field) };
}
