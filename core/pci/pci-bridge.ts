import type { DeviceContext } from '../device/device-type.ts';
import type { PropSet } from '../device/property.ts';
import { MemoryRegion } from '../memory/memory-region.ts';
import { transaction } from '../memory/transaction.ts';
import { COMMAND } from './config-space.ts';
import { rotatedPin } from './intx.ts';
import { PciBus } from './pci-bus.ts';
import { PciDevice } from './pci-device.ts';

/** Section numbers are those of the PCI-to-PCI Bridge Architecture Specification 1.2. */

/** 3.2: the type 1 header. */
const HEADER = {
  COMMAND: 0x04,
  PRIMARY_BUS: 0x18,
  SECONDARY_BUS: 0x19,
  SUBORDINATE_BUS: 0x1a,
  IO_BASE: 0x1c,
  IO_LIMIT: 0x1d,
  SECONDARY_STATUS: 0x1e,
  MEMORY_BASE: 0x20,
  MEMORY_LIMIT: 0x22,
  PREFETCH_BASE: 0x24,
  PREFETCH_LIMIT: 0x26,
  PREFETCH_BASE_UPPER: 0x28,
  PREFETCH_LIMIT_UPPER: 0x2c,
  IO_BASE_UPPER: 0x30,
  CONTROL: 0x3e,
} as const;
const PREFETCH_64 = 0x01;
const CONTROL_BUS_RESET = 1 << 6;
const CONTROL_WRITABLE = 0x0bff;
const CONTROL_DISCARD_STATUS = 0x0400;
const SECONDARY_ERRORS = 0xf900;
const WINDOW_PRIORITY = 1;
const PORTS = 0x1_0000;

export interface BridgeOptions {
  /** The bus below is PCI Express. */
  readonly express?: boolean;
  /** It is Compute Express Link. */
  readonly cxl?: boolean;
  /** Device numbers below: 1 under an Express port. */
  readonly slots?: number;
  readonly firstSlot?: number;
  /** After reset all windows are closed by a base above the limit, as Express ports do, instead of being at 0. */
  readonly closedAtReset?: boolean;
  readonly secondaryStatus?: number;
  /** Of the bus behind it; by default the bridge's own id. */
  readonly busName?: string | undefined;
}

/** A function with a bus behind it: forwards three windows of addresses down, and interrupts and bus masters up. */
export abstract class PciBridge<S extends PropSet = PropSet> extends PciDevice<S> {
  readonly secondary: PciBus;
  readonly #memory = MemoryRegion.container('pci-bridge-memory', 2 ** 52);
  readonly #io = MemoryRegion.container('pci-bridge-io', PORTS);
  readonly #windows = {
    io: MemoryRegion.alias('pci_bridge_io', this.#io, 0, PORTS),
    memory: MemoryRegion.alias('pci_bridge_mem', this.#memory, 0, 2 ** 32),
    prefetch: MemoryRegion.alias('pci_bridge_pref_mem', this.#memory, 0, 2 ** 32),
  };
  readonly #options: BridgeOptions;

  constructor(context: DeviceContext<S>, options: BridgeOptions = {}) {
    super(context);
    this.#options = options;
    this.secondary = this.addBus(
      new PciBus(options.busName ?? context.id ?? `pci.${this.pciBus.devices.length}`, {
        ...{
          services: this.services,
          home: this.pciBus.home,
          owner: this,
          memory: this.#memory,
          io: this.#io,
          dmaSpace: this.pciBus.dmaSpace,
        },
        router: {
          route: rotatedPin,
          setIrq: (pin, level) => this.pciBus.setIntx(this.devfn, pin, level),
        },
        express: options.express ?? false,
        cxl: options.cxl ?? false,
        firstSlot: options.firstSlot ?? 0,
        slots: options.slots ?? 32,
      }),
    );
    this.#openHeader();
  }

  override get secondaryBus(): PciBus {
    return this.secondary;
  }

  override get secondaryBusNumber(): number {
    return this.config.get8(HEADER.SECONDARY_BUS);
  }

  get primaryBusNumber(): number {
    return this.config.get8(HEADER.PRIMARY_BUS);
  }

  /** 3.2.5.6 to 3.2.5.10: the windows that software has set; one whose base is above its limit is closed. */
  get windows(): Readonly<Record<'io' | 'memory' | 'prefetch', { readonly base: number; readonly limit: number }>> {
    const { config } = this;
    const upper = 2 ** 32;
    return {
      io: {
        base: (config.get8(HEADER.IO_BASE) & 0xf0) << 8,
        limit: ((config.get8(HEADER.IO_LIMIT) & 0xf0) << 8) | 0xfff,
      },
      memory: {
        base: (config.get16(HEADER.MEMORY_BASE) & 0xfff0) * 0x1_0000,
        limit: (config.get16(HEADER.MEMORY_LIMIT) & 0xfff0) * 0x1_0000 + 0xf_ffff,
      },
      prefetch: {
        base:
          (config.get16(HEADER.PREFETCH_BASE) & 0xfff0) * 0x1_0000 + config.get32(HEADER.PREFETCH_BASE_UPPER) * upper,
        limit:
          (config.get16(HEADER.PREFETCH_LIMIT) & 0xfff0) * 0x1_0000 +
          0xf_ffff +
          config.get32(HEADER.PREFETCH_LIMIT_UPPER) * upper,
      },
    };
  }

  override get subordinateBusNumber(): number {
    return this.config.get8(HEADER.SUBORDINATE_BUS);
  }

  #openHeader(): void {
    const { config } = this;
    config.mask32(config.writable, HEADER.PRIMARY_BUS, 0xffff_ffff);
    config.mask16(config.writable, HEADER.IO_BASE, 0xf0f0);
    config.mask32(config.writable, HEADER.MEMORY_BASE, 0xfff0_fff0);
    config.mask32(config.writable, HEADER.PREFETCH_BASE, 0xfff0_fff0);
    config.mask32(config.writable, HEADER.PREFETCH_BASE_UPPER, 0xffff_ffff);
    config.mask32(config.writable, HEADER.PREFETCH_LIMIT_UPPER, 0xffff_ffff);
    config.mask16(config.writable, HEADER.CONTROL, CONTROL_WRITABLE);
    config.mask16(config.writeOneToClear, HEADER.CONTROL, CONTROL_DISCARD_STATUS);
    config.mask16(config.writeOneToClear, HEADER.SECONDARY_STATUS, SECONDARY_ERRORS);
    this.#resetHeader();
  }

  #resetHeader(): void {
    const { config } = this;
    const closed = this.#options.closedAtReset ?? false;
    config.set32(HEADER.PRIMARY_BUS, 0);
    config.set16(HEADER.IO_BASE, closed ? 0x00f0 : 0);
    config.set16(HEADER.SECONDARY_STATUS, this.#options.secondaryStatus ?? 0);
    config.set32(HEADER.MEMORY_BASE, closed ? 0x0000_fff0 : 0);
    config.set32(HEADER.PREFETCH_BASE, (closed ? 0x0000_fff0 : 0) | (PREFETCH_64 << 16) | PREFETCH_64);
    config.set32(HEADER.PREFETCH_BASE_UPPER, 0);
    config.set32(HEADER.PREFETCH_LIMIT_UPPER, 0);
    config.set16(HEADER.CONTROL, 0);
  }

  override attach(): void {
    const { io, memory, prefetch } = this.#windows;
    for (const window of [io, memory, prefetch]) window.setEnabled(false);
    this.pciBus.io.add(io, 0, WINDOW_PRIORITY);
    this.pciBus.memory.add(memory, 0, WINDOW_PRIORITY);
    this.pciBus.memory.add(prefetch, 0, WINDOW_PRIORITY);
    super.attach();
  }

  override detach(): void {
    super.detach();
    for (const window of Object.values(this.#windows)) window.dispose();
  }

  override resetPhase(phase: 'enter' | 'hold' | 'exit'): void {
    super.resetPhase(phase);
    if (phase !== 'hold') return;
    this.#resetHeader();
    this.#placeWindows();
  }

  override configWrite(offset: number, size: number, value: number): void {
    const before = this.config.get16(HEADER.CONTROL);
    super.configWrite(offset, size, value);
    const after = this.config.get16(HEADER.CONTROL);
    if ((after & ~before & CONTROL_BUS_RESET) !== 0) {
      // 3.2.5.17: what is below is reset, the bridge is not.
      for (const phase of ['enter', 'hold', 'exit'] as const) this.secondary.resetPhase(phase);
    }
    if (offset < HEADER.IO_BASE_UPPER + 4 && offset + size > HEADER.COMMAND) this.#placeWindows();
  }

  protected override restored(): void {
    this.#placeWindows();
    this.secondary.restoreIntx();
  }

  #placeWindows(): void {
    const { windows } = this;
    const { command } = this.config;
    const memoryOn = (command & COMMAND.MEMORY) !== 0;
    transaction(() => {
      place(this.#windows.io, windows.io, (command & COMMAND.IO) !== 0);
      place(this.#windows.memory, windows.memory, memoryOn);
      place(this.#windows.prefetch, windows.prefetch, memoryOn);
    });
  }
}

function place(
  window: MemoryRegion,
  { base, limit }: { readonly base: number; readonly limit: number },
  on: boolean,
): void {
  const open = on && base <= limit && limit < 2 ** 52;
  window.setEnabled(false);
  if (!open) return;
  window.setOffset(base);
  window.setAliasOffset(base);
  window.setSize(limit - base + 1);
  window.setEnabled(true);
}
