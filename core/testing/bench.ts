import { closeSync } from 'node:fs';
import { qtest } from '../accel/qtest/accelerator.ts';
import { IsaBus } from '../bus/isa.ts';
import type { VirtualClock } from '../clock/clock.ts';
import type { Device } from '../device/device.ts';
import type { DeviceInput, DeviceType } from '../device/device-type.ts';
import type { BackendLookup } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';
import { createMemfd } from '../host/files.ts';
import { IrqLine } from '../irq/line.ts';
import { Machine } from '../machine/machine.ts';
import { DEFAULT_CONFIG } from '../machine/machine-config.ts';
import { machineType } from '../machine/machine-type.ts';
import type { GuestRam } from '../memory/guest-ram.ts';
import { MemoryRegion } from '../memory/memory-region.ts';
import { CFG, COMMAND } from '../pci/config-space.ts';
import { PciBus } from '../pci/pci-bus.ts';
import { type Bar, PciDevice } from '../pci/pci-device.ts';
import { type DriverPort, driverView, type RegisterMap, type Registers } from '../register/register.ts';
import { Faults } from './faults/faults.ts';
import { IrqProbe } from './probes.ts';
import { TrafficRecorder } from './traffic/recorder.ts';
import type { ReplayPort } from './traffic/replay.ts';

const MESSAGE_WINDOW = 0xfee0_0000;
const MESSAGE_WINDOW_SIZE = 0x10_0000;
const MEMORY_BARS = 0xe000_0000;
const IO_BARS = 0xc000;
const ISA_IRQS = 16;
const CAP_MSI = 0x05;
const CAP_MSIX = 0x11;
const MSI_WIDE = 1 << 7;

/** A message-signalled interrupt that a device has sent. */
export interface SentMessage {
  readonly address: number;
  readonly data: number;
}

export interface BenchOptions {
  /** Bytes of RAM from address 0; default 16 MiB. */
  readonly ram?: number;
  /** What `prop.backend` properties find; default: nothing. */
  readonly backends?: BackendLookup;
  /** Whether other processes can map the RAM; default: they cannot. */
  readonly shared?: boolean;
}

/** A PCI function on the bench, seen from its driver's side. */
export class PciProbe<D extends Device> {
  readonly device: D;
  readonly #lab: Bench;
  readonly #function: PciDevice;
  /** Watches the function's interrupt from the beginning, before INTx and messages part. */
  readonly irq: IrqProbe;

  constructor(lab: Bench, device: D, pciFunction: PciDevice) {
    this.#lab = lab;
    this.device = device;
    this.#function = pciFunction;
    this.irq = new IrqProbe(pciFunction.interruptLine, lab.clock);
  }

  /** Configuration space, as {@link PciDevice.configRead}. */
  readConfig(offset: number, size: 1 | 2 | 4): number {
    return this.#function.configRead(offset, size);
  }

  writeConfig(offset: number, size: 1 | 2 | 4, value: number): void {
    this.#function.configWrite(offset, size, value);
  }

  /** The level of the function's INTx pin. */
  get intx(): { readonly level: boolean } {
    return { level: this.#function.intxLevel };
  }

  /** Accesses within base address register `index`. */
  port(index: number): DriverPort {
    const bar = this.#bar(index);
    const space = bar.declaration.space === 'io' ? this.#lab.machine.ports : this.#lab.machine.memory;
    return {
      read: (offset, size) => space.read(bar.address + offset, size),
      write: (offset, size, value) => space.write(bar.address + offset, size, value),
    };
  }

  /** What serves base address register `index`: where faults are injected and traffic is recorded. */
  region(index: number): MemoryRegion {
    return this.#bar(index).region;
  }

  /** Records what is done to base address register `index` from now on. */
  record(index: number): TrafficRecorder {
    return new TrafficRecorder(this.region(index), this.#lab.clock, this.device.typeName);
  }

  /** Base address register `index` as a place to replay traffic. */
  replayPort(index: number): ReplayPort {
    return { ...this.port(index), advance: deltaNs => this.#lab.clock.advance(deltaNs) };
  }

  /**
   * Lets the function send messages (PCI 3.0, section 6.8.1): vector `n` is data `base` + `n` to 0xfee00000.
   * @throws SouthbridgeError ERR_PCI_MSI where it cannot
   */
  enableMsi(vectors = 1, base = 0x40): void {
    const at = this.#capability(CAP_MSI, 'MSI');
    const control = this.readConfig(at + 2, 2);
    this.writeConfig(at + 4, 4, MESSAGE_WINDOW);
    this.writeConfig(at + ((control & MSI_WIDE) !== 0 ? 12 : 8), 2, base);
    this.writeConfig(at + 2, 2, (control & ~0x71) | (Math.log2(vectors) << 4) | 1);
  }

  /** The same with MSI-X (section 6.8.2): all vectors, unmasked. */
  enableMsix(base = 0x40): void {
    const at = this.#capability(CAP_MSIX, 'MSI-X');
    const control = this.readConfig(at + 2, 2);
    const table = this.readConfig(at + 4, 4);
    const port = this.port(table & 7);
    for (let vector = 0; vector <= (control & 0x7ff); vector++) {
      const entry = (table & ~7) + vector * 16;
      for (const [word, value] of [MESSAGE_WINDOW, 0, base + vector, 0].entries())
        port.write(entry + 4 * word, 4, value);
    }
    this.writeConfig(at + 2, 2, control | 0x8000);
  }

  #capability(id: number, name: string): number {
    for (let at = this.readConfig(0x34, 1), left = 48; at !== 0 && left > 0; at = this.readConfig(at + 1, 1), left--)
      if (this.readConfig(at, 1) === id) return at;
    throw new SouthbridgeError('ERR_PCI_MSI', `'${this.device.typeName}' has no ${name} capability`);
  }

  #bar(index: number): Bar {
    const bar = this.#function.bars[index];
    if (bar !== undefined) return bar;
    throw new SouthbridgeError('ERR_PCI_BAR', `'${this.device.typeName}' has no base address register ${index}`);
  }

  /** The driver's view of `map` in base address register `index`: each property access is an access on the bus. */
  bar<M extends RegisterMap>(index: number, map: M): Registers<M> {
    return driverView(map, this.port(index));
  }
}

/** Buses, RAM, a clock and probes, without a CPU: what a hardware test plugs a device into. */
export class Bench {
  readonly machine: Machine;
  readonly clock: VirtualClock;
  /** What breaks hardware. {@link dispose} throws where an injected fault never happened. */
  readonly faults: Faults;
  /** Where messages arrive: 0xfee00000 and up. */
  readonly messageWindow: MemoryRegion;
  /** Messages sent to the interrupt window at 0xfee00000, oldest first. */
  readonly messages: SentMessage[] = [];
  /** The ISA interrupt requests, 0 to 15. */
  readonly isaIrqs: readonly IrqLine[] = Array.from({ length: ISA_IRQS }, (_, irq) => new IrqLine(`irq${irq}`));
  #ram: GuestRam | undefined;
  #pci: PciBus | undefined;
  #isa: IsaBus | undefined;
  readonly #memfd: number | undefined;
  #nextMemoryBar = MEMORY_BARS;
  #nextIoBar = IO_BARS;

  constructor(options: BenchOptions = {}) {
    const size = options.ram ?? 16 * 2 ** 20;
    this.#memfd = options.shared ? createMemfd('bench', size) : undefined;
    this.messageWindow = MemoryRegion.io('messages', MESSAGE_WINDOW_SIZE, {
      read: () => 0,
      write: (offset, _size, data) => {
        this.messages.push({ address: MESSAGE_WINDOW + offset, data });
      },
    });
    const type = machineType({
      type: 'bench',
      summary: 'RAM, a PCI bus and an ISA bus, without a CPU',
      hasCpus: false,
      lowRam: () => size,
      build: machine => this.#build(machine, size),
    });
    this.machine = new Machine({
      type,
      config: { ...DEFAULT_CONFIG, ramSize: size },
      accelerator: qtest,
      ...(options.backends && { backends: options.backends }),
    }).build();
    this.clock = this.machine.clocks.virtual;
    this.faults = new Faults(this.clock);
  }

  /** Watches any line: an output pin of a device, an ISA request. */
  watch(line: IrqLine): IrqProbe {
    return new IrqProbe(line, this.clock);
  }

  /** How often message `data` has arrived. */
  messageCount(data: number): number {
    return this.messages.filter(message => message.data === data).length;
  }

  /** What serves an I/O port, for faults and recorders. */
  portRegion(port: number): MemoryRegion {
    const range = this.machine.ports.find(port);
    if (range !== undefined) return range.region;
    throw new SouthbridgeError('ERR_BENCH_PORT', `nothing is at port 0x${port.toString(16)}`);
  }

  /** Guest RAM from address 0. */
  get ram(): GuestRam {
    if (this.#ram === undefined) throw new SouthbridgeError('ERR_MACHINE_STATE', 'the bench has no RAM');
    return this.#ram;
  }

  /** Plugs in a PCI function, gives its BARs addresses, and lets it decode them and master the bus. */
  pci<T extends DeviceType>(type: T, props: DeviceInput<T> = {}): PciProbe<ReturnType<T['make']>> {
    if (this.#pci === undefined) throw new SouthbridgeError('ERR_MACHINE_STATE', 'the bench has no PCI bus');
    const device = this.#pci.plug(type, {}, props);
    if (!(device instanceof PciDevice))
      throw new SouthbridgeError('ERR_BUS_KIND', `'${type.type}' is not a PCI device`);
    this.#assignBars(device);
    device.configWrite(CFG.COMMAND, 2, COMMAND.IO | COMMAND.MEMORY | COMMAND.MASTER);
    return new PciProbe(this, device, device);
  }

  /** Plugs in an ISA device. */
  isa<T extends DeviceType>(type: T, props: DeviceInput<T> = {}): ReturnType<T['make']> {
    if (this.#isa === undefined) throw new SouthbridgeError('ERR_MACHINE_STATE', 'the bench has no ISA bus');
    return this.#isa.plug(type, {}, props);
  }

  /** The driver's view of `map` at I/O port `base`. */
  ports<M extends RegisterMap>(base: number, map: M): Registers<M> {
    const { ports } = this.machine;
    return driverView(map, {
      read: (offset, size) => ports.read(base + offset, size),
      write: (offset, size, value) => ports.write(base + offset, size, value),
    });
  }

  /** Lets go of all. @throws SouthbridgeError ERR_FAULT_UNUSED where an injected fault never happened */
  dispose(): void {
    try {
      this.faults.verify();
    } finally {
      this.machine.dispose();
      if (this.#memfd !== undefined) closeSync(this.#memfd);
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #build(machine: Machine, size: number): void {
    const { services, home, memoryRoot: memory, ioRoot: io, memory: dmaSpace } = machine;
    const fd = this.#memfd;
    this.#ram = machine.allocateRam(
      'ram',
      size,
      fd === undefined ? [] : [{ fd, start: 0, size, offset: 0, shared: true }],
    );
    memory.add(MemoryRegion.ram(this.#ram), 0, 0);
    // Above the machine's own window, which has no CPU to send to.
    memory.add(this.messageWindow, MESSAGE_WINDOW, 0x2000);
    const router = { route: (_devfn: number, pin: number) => pin, setIrq: () => {} };
    this.#pci = machine.system.own(new PciBus('pci.0', { services, home, memory, io, dmaSpace, router }));
    this.#isa = machine.system.own(new IsaBus('isa.0', { services, home, memory, io, dmaSpace, irqs: this.isaIrqs }));
  }

  #assignBars(device: PciDevice): void {
    for (const bar of device.bars) {
      if (bar === undefined || bar.index > 5) continue;
      const { size, space } = bar.declaration;
      const next = space === 'io' ? this.#nextIoBar : this.#nextMemoryBar;
      const address = Math.ceil(next / size) * size;
      if (space === 'io') this.#nextIoBar = address + size;
      else this.#nextMemoryBar = address + size;
      device.configWrite(CFG.BAR0 + 4 * bar.index, 4, address);
    }
  }
}

/** An empty bench. Dispose of it, or let the process end. */
export function bench(options: BenchOptions = {}): Bench {
  return new Bench(options);
}
