/** Designated vendor-specific extended capabilities, by which functions say that they are CXL's (CXL 2.0, section 8.1). */
import type { ConfigSpace } from '../../core/pci/config-space.ts';

const DVSEC = { ID: 0x0023, VERSION: 1, HEADER_1: 4, HEADER_2: 8 } as const;
const VENDOR = 0x1e98;

/** Table 124: what each is, its revision and its bytes. */
const DEVICE = { id: 0, revision: 1, size: 0x38 } as const;
const PORT_EXTENSIONS = { id: 3, revision: 0, size: 0x28 } as const;
const PORT_GPF = { id: 4, revision: 0, size: 0x10 } as const;
const DEVICE_GPF = { id: 5, revision: 0, size: 0x10 } as const;
const FLEX_BUS = { id: 7, revision: 1, size: 0x14 } as const;
const REGISTER_LOCATOR = { id: 8, revision: 0, size: 0x24 } as const;

/** 8.1.9.1: blocks of registers, with the BAR that shows each from its start. */
const COMPONENT_BLOCK = 1 << 8;
const DEVICE_BLOCK = 3 << 8;
export const COMPONENT_BAR = 0;
export const DEVICE_BAR = 2;

/** 8.1.8.1 to 8.1.8.3: what a link of the flex bus can carry, is told to, and carries. */
export const FLEX = { CACHE: 1 << 0, IO: 1 << 1, MEM: 1 << 2, CXL_2_0: 1 << 5, MULTI_LOGICAL: 1 << 6 } as const;
/** Received modified TS data: what the other end said that it is. */
const LINK_PARTNER = 0xef;

/** Writes the capabilities one behind the other. */
export class DvsecList {
  readonly #config: ConfigSpace;
  #next: number;

  constructor(config: ConfigSpace, at: number) {
    this.#config = config;
    this.#next = at;
  }

  /** The first free offset. */
  get end(): number {
    return this.#next;
  }

  /** 8.1.3: a device with memory of `size` bytes, which keeps it; CXL.io and CXL.mem, one range. */
  device(size: number): this {
    const at = this.#open(DEVICE);
    const config = this.#config;
    const CAPABILITY = { IO: 1 << 1, MEM: 1 << 2, MEM_HARDWARE_INIT: 1 << 3, ONE_RANGE: 1 << 4 } as const;
    const { IO, MEM, MEM_HARDWARE_INIT, ONE_RANGE } = CAPABILITY;
    config.set16(at + 0x0a, IO | MEM | MEM_HARDWARE_INIT | ONE_RANGE);
    config.set16(at + 0x0c, IO);
    // What these lock once LOCK is set is for firmware that leaves the ranges to no one else (8.1.3.2, 8.1.3.6).
    config.mask16(config.writable, at + 0x0c, 0x4ffd);
    config.mask16(config.writable, at + 0x10, 0x000f);
    config.set16(at + 0x12, 1 << 1);
    config.mask16(config.writable, at + 0x14, 0x0001);
    const [VALID, ACTIVE, TYPE_MEMORY, CLASS_MEMORY] = [1 << 0, 1 << 1, 2 << 2, 2 << 5];
    config.set32(at + 0x18, Math.floor(size / 2 ** 32));
    config.set32(at + 0x1c, (VALID | ACTIVE | TYPE_MEMORY | CLASS_MEMORY | (size & 0xf000_0000)) >>> 0);
    for (const base of [at + 0x20, at + 0x30]) {
      config.mask32(config.writable, base, 0xffff_ffff);
      config.mask32(config.writable, base + 4, 0xf000_0000);
    }
    return this;
  }

  /** 8.1.5: alternate bus numbers and windows. @param ready whether power management has started */
  portExtensions(ready = false): this {
    const at = this.#open(PORT_EXTENSIONS);
    const config = this.#config;
    config.set16(at + 0x0a, ready ? 1 : 0);
    config.mask16(config.writable, at + 0x0c, 0x400f);
    // Bus numbers; memory and prefetchable memory; the upper halves of the latter.
    config.mask16(config.writable, at + 0x0e, 0xffff);
    for (const window of [0x10, 0x12, 0x14, 0x16]) config.mask16(config.writable, at + window, 0xfff0);
    config.mask32(config.writable, at + 0x18, 0xffff_ffff);
    config.mask32(config.writable, at + 0x1c, 0xffff_ffff);
    return this;
  }

  /** 8.1.6: how long a port waits in each phase of a global persistent flush: a microsecond. */
  portFlush(): this {
    const at = this.#open(PORT_GPF);
    const config = this.#config;
    for (const phase of [at + 0x0c, at + 0x0e]) {
      config.set16(phase, 1);
      config.mask16(config.writable, phase, 0x0f0f);
    }
    return this;
  }

  /** 8.1.7: what a device needs to write back what it holds: three seconds, 51 mW. */
  deviceFlush(): this {
    const at = this.#open(DEVICE_GPF);
    const config = this.#config;
    config.set16(at + 0x0a, 0x0603);
    config.mask16(config.writable, at + 0x0a, 0x0f0f);
    config.set32(at + 0x0c, 0x33);
    config.mask32(config.writable, at + 0x0c, 0xffff_ffff);
    return this;
  }

  /** 8.1.8: a link, by {@link FLEX}. @param writable bits of its control that software may write */
  flexBus(link: { readonly capability: number; readonly control: number; readonly writable?: number }): this {
    const at = this.#open(FLEX_BUS);
    const config = this.#config;
    config.set16(at + 0x0a, link.capability);
    config.set16(at + 0x0c, link.control);
    config.mask16(config.writable, at + 0x0c, link.writable ?? 0);
    config.set16(at + 0x0e, FLEX.IO | FLEX.MEM | FLEX.CXL_2_0);
    config.set32(at + 0x10, LINK_PARTNER);
    return this;
  }

  /** 8.1.9: which BARs have the component's registers, and the device's. */
  registerLocator(blocks: 'component' | 'component and device'): this {
    const at = this.#open(REGISTER_LOCATOR);
    const config = this.#config;
    config.set32(at + 0x0c, COMPONENT_BLOCK | COMPONENT_BAR);
    if (blocks === 'component and device') config.set32(at + 0x14, DEVICE_BLOCK | DEVICE_BAR);
    return this;
  }

  #open({ id, revision, size }: { readonly id: number; readonly revision: number; readonly size: number }): number {
    const at = this.#next;
    const config = this.#config;
    config.addExtendedCapability(DVSEC.ID, DVSEC.VERSION, at);
    config.set32(at + DVSEC.HEADER_1, (VENDOR | (revision << 16) | (size << 20)) >>> 0);
    config.set16(at + DVSEC.HEADER_2, id);
    this.#next = at + size;
    return at;
  }
}
