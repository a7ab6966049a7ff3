import type {
  Accelerator,
  GuestBus,
  InstructionClock,
  InterruptSource,
  Vcpu,
  Vm,
  VmStop,
} from '../accel/accelerator.ts';
import { MemoryBus } from '../bus/memory-bus.ts';
import { HostClock, RealtimeClock, VirtualClock } from '../clock/clock.ts';
import { ANY_CPU } from '../cpu/resolve.ts';
import type { Bus, DeviceHome } from '../device/bus.ts';
import { Device } from '../device/device.ts';
import type { DeviceTypeInfo } from '../device/device-type.ts';
import { ObjectNode } from '../device/object.ts';
import type { BackendLookup } from '../device/property.ts';
import type { DeviceServices } from '../device/services.ts';
import { SystemBus } from '../device/system-bus.ts';
import { InputHub } from '../display/input.ts';
import { KeyQueue } from '../display/key-queue.ts';
import { DisplayHub } from '../display/screen.ts';
import { SouthbridgeError } from '../errors.ts';
import type { IrqLine } from '../irq/line.ts';
import { MemoryImages } from '../loader/memory-images.ts';
import { AddressSpace, type RamListener } from '../memory/address-space.ts';
import { type GuestRam, type RamFile, SharedRam } from '../memory/guest-ram.ts';
import type { MemoryBackend } from '../memory/memory-backend.ts';
import { MemoryRegion } from '../memory/memory-region.ts';
import { PORT_COUNT, PortSpace } from '../memory/port-space.ts';
import { SharedMemory } from '../memory/shared-memory.ts';
import { transaction } from '../memory/transaction.ts';
import { NetCards } from '../net/net-cards.ts';
import { TraceHub } from '../trace/trace.ts';
import { bootTarget } from './boot-target.ts';
import type { CpuSlot } from './cpu-slots.ts';
import { MachineCpus } from './cpus.ts';
import { MachineClocks } from './deadlines.ts';
import type { MachineConfig } from './machine-config.ts';
import type { MachineType } from './machine-type.ts';
import { Numa } from './numa.ts';
import { PowerControl } from './power-control.ts';
import type { RunState } from './run-state.ts';

/** Physical addresses end here (52 bits on x86). */
const ADDRESS_LIMIT = 2 ** 52;
const MSI_BASE = 0xfee0_0000;
const MSI_SIZE = 0x10_0000;
const ABOVE_ALL = 0x1000;

/** Everything that a machine takes from its host. */
export interface MachineParts {
  readonly type: MachineType;
  readonly config: MachineConfig;
  readonly accelerator: Accelerator;
  readonly backends?: BackendLookup;
  readonly trace?: TraceHub;
  /** The contents of a ROM image by file name. */
  readonly romImage?: (name: string) => Uint8Array;
  /** In [0, 1). */
  readonly random?: () => number;
  /** Whether the accelerator is to provide the interrupt controllers, where it can choose. */
  readonly kernelIrqchip?: boolean;
  /** Virtual time counts instructions, where the accelerator can. */
  readonly icount?: InstructionClock;
}

/** Something that happened, with QEMU's event name and data. */
export type MachineListener = (event: string, data: Readonly<Record<string, unknown>>) => void;

/**
 * One computer: address spaces, clocks, the tree of devices, an accelerator that runs it, and its power. Building one runs the
 * machine type's definition; nothing moves until {@link start}.
 */
export class Machine {
  readonly type: MachineType;
  readonly config: MachineConfig;
  readonly accelerator: Accelerator;
  readonly root = new ObjectNode('container');
  readonly object: ObjectNode;
  readonly trace: TraceHub;
  readonly clocks: MachineClocks;
  readonly power: PowerControl;
  readonly services: DeviceServices;
  /** Keys that people press from outside. */
  readonly keys: KeyQueue;
  readonly memoryRoot = MemoryRegion.container('system', ADDRESS_LIMIT);
  readonly ioRoot = MemoryRegion.container('io', PORT_COUNT);
  readonly memory: AddressSpace;
  readonly ports: PortSpace;
  readonly system: SystemBus;
  readonly cpus: MachineCpus;
  readonly numa: Numa;
  /** Where memory modules go, on machines that take them. */
  memoryBus: MemoryBus | undefined;
  /** What the user should know about the configuration, in QEMU's words. */
  readonly warnings: string[] = [];
  /** Whether PIC, IOAPIC and local APICs are the accelerator's. */
  readonly acceleratorIrqchip: boolean;
  /** Tells firmware another boot order, in drive letters; absent where the machine's firmware has none. */
  setBootOrder: ((order: string) => void) | undefined;
  readonly #listeners = new Set<MachineListener>();
  readonly #resetHooks = new Set<() => void>();
  readonly #images: MemoryImages;
  readonly #ram: GuestRam[] = [];
  readonly #icount: InstructionClock | undefined;
  #vm: Vm | undefined;
  readonly #interrupts = new InterruptRelay();
  readonly #endOfInterrupt: ((vector: number) => void)[] = [];
  #disposed = false;

  constructor(parts: MachineParts) {
    this.type = parts.type;
    this.config = parts.config;
    this.accelerator = parts.accelerator;
    this.#icount = parts.icount;
    this.acceleratorIrqchip = ownsIrqchip(parts);
    this.trace = parts.trace ?? new TraceHub();
    const hostClock = new HostClock();
    this.clocks = new MachineClocks(new VirtualClock(), hostClock, new RealtimeClock());
    this.trace.now = () => this.clocks.virtual.now();
    this.object = this.root.addChild('machine', new MachineObject(parts.type));
    for (const name of ['peripheral', 'peripheral-anon', 'unattached'])
      this.object.addChild(name, new ObjectNode('container'));
    this.root.addChild('objects', new ObjectNode('container'));
    this.root.addChild('chardevs', new ObjectNode('container'));
    this.memory = new AddressSpace('memory', this.memoryRoot);
    this.ports = new PortSpace('I/O', this.ioRoot);
    this.#images = new MemoryImages(this.memory);
    this.power = new PowerControl(this);
    this.services = {
      clock: this.clocks.virtual,
      hostClock,
      realtimeClock: this.clocks.realtime,
      trace: this.trace,
      backends: withDevices(parts.backends ?? NO_BACKENDS, id => this.findDevice(id)),
      globals: type => globalProperties([...parts.type.globals, ...parts.config.globals], type),
      system: this.power,
      input: new InputHub(() => this.power.running || this.power.state === 'suspended'),
      displays: new DisplayHub(),
      netCards: new NetCards(),
      romImage: parts.romImage ?? noRom,
      ramSize: parts.config.ramSize,
      currentRamSize: () => parts.config.ramSize + (this.memoryBus?.plugged ?? 0),
      guestRam: ram => this.adoptRam(ram),
      sharedMemory: new SharedMemory(this.memory),
      cpuCount: parts.config.cpus.cpus,
      memoryBus: () => this.memoryBus,
      boot: bootTarget(this, this.#images),
      accessRegisters: () => this.vm.accessRegisters,
      random: parts.random ?? Math.random,
    };
    this.keys = new KeyQueue(this.services.input, this.clocks.virtual);
    this.system = this.#unattached().addChild(
      'sysbus',
      new SystemBus({
        services: this.services,
        home: this.#home(),
        memory: this.memoryRoot,
        io: this.ioRoot,
        dmaSpace: this.memory,
      }),
    );
    this.cpus = new MachineCpus(parts.config.cpuModel ?? parts.type.defaultCpuModel, parts.config.cpus);
    this.numa = new Numa({
      cpus: this.cpus.slots,
      hmat: isOn(parts.config.options['hmat']),
      memdevSize: id => backendNamed(this.services.backends, id)?.size,
    });
    for (const option of parts.config.numa) this.numa.set(option);
  }

  /** The homes of devices in the object tree; a bus needs it to be made. */
  get home(): DeviceHome {
    return this.system.home;
  }

  get vm(): Vm {
    if (this.#vm === undefined)
      throw new SouthbridgeError('ERR_MACHINE_STATE', 'the machine has no CPUs yet', 'build() comes first');
    return this.#vm;
  }

  /** How many CPUs the guest starts with: those that the user asked for and the accelerator can run. */
  get cpuCount(): number {
    return Math.min(this.config.cpus.cpus, this.accelerator.caps.maxCpus);
  }

  /** Whether the guest is to see a CPU in that slot. One that the accelerator cannot run is there for management tools only. */
  runsCpu(slot: CpuSlot): boolean {
    const { fixedCpus, maxCpus } = this.accelerator.caps;
    return slot.cpu !== undefined && slot.index < (fixedCpus === true ? this.cpuCount : maxCpus);
  }

  /** How many CPUs the guest sees. */
  get guestCpuCount(): number {
    return this.cpus.plugged.filter(slot => this.runsCpu(slot)).length;
  }

  /** CPU number `index`, where it is plugged in and the accelerator runs it. */
  vcpu(index: number): Vcpu | undefined {
    if (this.cpus.slots.slots[index]?.cpu === undefined) return undefined;
    return this.vm.vcpus.find(vcpu => vcpu.index === index);
  }

  get runState(): RunState {
    return this.power.state;
  }

  /**
   * Makes the CPUs and runs the machine type's definition.
   * @throws whatever the definition or the accelerator refuses, by name; nothing is left behind
   */
  build(): this {
    try {
      this.warnings.push(...this.cpus.option.warnings, ...this.numa.complete(this.config.ramSize));
      const { name, caps } = this.accelerator;
      const asked = this.config.cpus.cpus;
      if (asked > caps.maxCpus) {
        this.warnings.push(`accelerator ${name} runs ${caps.maxCpus} of ${asked} CPUs; the others stay off`);
      }
      this.#vm = this.accelerator.createVm({
        bus: this.#guestBus(),
        clock: this.clocks,
        cpus: this.cpuCount,
        irqchip: this.acceleratorIrqchip,
        interrupts: this.#interrupts,
        endOfInterrupt: vector => {
          for (const listener of this.#endOfInterrupt) listener(vector);
        },
        cpuModel: this.cpus.option.cpu.name,
        apicIds: this.cpus.apicIds.slice(0, this.cpuCount),
        laterApicIds: this.cpus.laterApicIds.slice(0, this.accelerator.caps.maxCpus - this.cpuCount),
        lowRam: this.type.lowRam(this.config),
        ...(this.#icount !== undefined && { icount: this.#icount }),
        stopped: stop => this.#stopped(stop),
      });
      if (this.type.hasCpus || this.config.cpuModel !== undefined) {
        const { services, home, vm } = this;
        this.cpus.populate({ services, home, host: vm.cpuHost ?? ANY_CPU, vm });
      }
      transaction(() => this.type.build(this));
      this.cpus.finish();
      this.#mapMsi();
      this.memory.listen(this.#memorySlots());
      this.memory.ramWritten = (address, length) => this.vm.dmaWritten(address, length);
    } catch (error) {
      this.dispose();
      throw error;
    }
    for (const bus of this.buses()) bus.hotplugging = true;
    return this;
  }

  /** Where the accelerator fetches interrupts if the interrupt controllers are ours: the i8259 pair. */
  setInterruptSource(source: InterruptSource): void {
    this.#interrupts.connect(source);
  }

  /** `listener` hears of level-triggered interrupts that CPUs have served, unless the interrupt controllers are the accelerator's. */
  onEndOfInterrupt(listener: (vector: number) => void): void {
    this.#endOfInterrupt.push(listener);
  }

  /** Guest RAM of `size` bytes, not yet mapped; the accelerator's own where it insists, which then has no files. */
  allocateRam(name: string, size: number, files: readonly RamFile[] = []): GuestRam {
    const ram = this.vm.allocateRam?.(name, size) ?? new SharedRam(name, size, { files });
    this.#ram.push(ram);
    return ram;
  }

  /** The files that a user's memory backends are, of the `size` bytes from offset `at` of all RAM (`-m`). */
  ramFiles(at: number, size: number): RamFile[] {
    const { config, services } = this;
    const one = config.options['memory-backend'];
    const ids = typeof one === 'string' ? [one] : config.numa.flatMap(node => ('memdev' in node && node.memdev) || []);
    const files: RamFile[] = [];
    let begin = 0;
    for (const id of ids) {
      const backend = backendNamed(services.backends, id);
      if (backend === undefined) break;
      const from = Math.max(at, begin);
      const to = Math.min(at + size, begin + backend.size);
      if (backend.file !== undefined && from < to) {
        files.push({ ...backend.file, start: from - at, size: to - from, offset: from - begin });
      }
      begin += backend.size;
    }
    return files;
  }

  /** RAM that a device or the machine made itself and that belongs to the guest's state. Returns what takes it out again. */
  adoptRam(ram: GuestRam): () => void {
    this.#ram.push(ram);
    return () => {
      const index = this.#ram.indexOf(ram);
      if (index >= 0) this.#ram.splice(index, 1);
    };
  }

  /**
   * Gives the machine a bus for memory modules, which lie from `base` on. QEMU's `maxmem` and `slots` say how many.
   * @throws SouthbridgeError ERR_MEMORY_SLOTS
   */
  openMemoryBus(base: number): void {
    const { ramSize, maxRamSize, ramSlots } = this.config;
    const bus = new MemoryBus({
      services: this.services,
      home: this.home,
      memory: this.memoryRoot,
      base,
      capacity: maxRamSize - ramSize,
      slotCount: ramSlots,
      nodeCount: this.numa.nodes.length,
      adopt: ram => this.adoptRam(ram),
    });
    this.memoryBus = this.system.own(bus);
  }

  /** Whether the i8254 is the accelerator's. */
  get acceleratorPit(): boolean {
    return this.acceleratorIrqchip && this.accelerator.caps.pit;
  }

  /** All guest RAM, for snapshots. */
  get ram(): readonly GuestRam[] {
    return this.#ram;
  }

  /** `hook` runs at the end of each reset, after the devices': loaders put their images back. Returns what takes it out again. */
  onReset(hook: () => void): () => void {
    this.#resetHooks.add(hook);
    return () => this.#resetHooks.delete(hook);
  }

  listen(listener: MachineListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(event: string, data: Readonly<Record<string, unknown>> = {}): void {
    for (const listener of this.#listeners) listener(event, data);
  }

  /** Every bus, from the root down. */
  *buses(from: Bus = this.system): Generator<Bus> {
    yield from;
    if (from instanceof SystemBus) for (const owned of from.owned) yield* this.buses(owned);
    for (const device of from.devices) for (const below of device.buses) yield* this.buses(below);
  }

  /** Every device, in the order of their buses. */
  *devices(): Generator<Device> {
    for (const bus of this.buses()) yield* bus.devices;
  }

  /** The bus of `name` (`pci.0`) or path. */
  findBus(name: string): Bus | undefined {
    return this.#searchBus(this.system, bus => bus.busName === name || bus.path === name);
  }

  /**
   * A bus that takes devices of `type` and has room. Of several it is the one that QEMU takes: a bus before those of its devices, and what
   * was plugged in last before the others.
   */
  busFor(type: DeviceTypeInfo): Bus | undefined {
    return this.#searchBus(this.system, bus => bus.accepts(type) && !bus.full);
  }

  #searchBus(bus: Bus, fits: (bus: Bus) => boolean): Bus | undefined {
    if (fits(bus)) return bus;
    for (const device of bus.devices.toReversed())
      for (const below of device.buses.toReversed()) {
        const found = this.#searchBus(below, fits);
        if (found !== undefined) return found;
      }
    if (!(bus instanceof SystemBus)) return undefined;
    for (const owned of bus.owned) {
      const found = this.#searchBus(owned, fits);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The device of that id or path. */
  findDevice(idOrPath: string): Device | undefined {
    const node = idOrPath.startsWith('/')
      ? this.root.resolve(idOrPath)
      : this.object.child('peripheral')?.child(idOrPath);
    return node instanceof Device ? node : undefined;
  }

  start(): void {
    this.power.start();
  }

  /** Stops the guest; `state` says why. */
  stop(state: RunState = 'paused'): void {
    this.power.stop(state);
  }

  /** Resets devices in tree order, then the CPUs, then what loaders put into memory. The guest must not be running. */
  resetDevices(): void {
    for (const phase of ['enter', 'hold', 'exit'] as const) this.system.resetPhase(phase);
    this.vm.reset();
    this.#images.place();
    for (const hook of this.#resetHooks) hook();
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#vm?.pause();
    this.power.dispose();
    this.system.removeAll();
    this.clocks.dispose();
    this.#vm?.dispose();
  }

  /** Connects `line` to input `gsi` of the accelerator's interrupt controllers. */
  connectGsi(line: IrqLine, gsi: number): void {
    line.connect(level => this.vm.setIrq(gsi, level));
  }

  #unattached(): ObjectNode {
    return this.object.child('unattached') ?? this.object;
  }

  #home(): DeviceHome {
    return {
      adopt: (device, byUser) => {
        if (device.parent !== undefined) return;
        const users = byUser || device.bus.hotplugging;
        const folder = device.id !== undefined ? 'peripheral' : users ? 'peripheral-anon' : 'unattached';
        (this.object.child(folder) ?? this.object).addChild(device.id ?? 'device[*]', device);
      },
      disown: device => device.parent?.removeChild(device),
    };
  }

  #guestBus(): GuestBus {
    const { ports, memory } = this;
    return {
      portRead: (port, size) => ports.read(port, size),
      portWrite: (port, size, value) => ports.write(port, size, value),
      memoryRead: (address, size) => memory.read(address, size),
      memoryWrite: (address, size, value) => memory.write(address, size, value),
    };
  }

  #mapMsi(): void {
    const region = MemoryRegion.io(
      'apic-msi',
      MSI_SIZE,
      {
        read: () => 0,
        write: (offset, _size, value) => this.vm.injectMsi(MSI_BASE + offset, value),
      },
      { valid: { min: 1, max: 4 }, impl: { min: 1, max: 4 } },
    );
    this.memoryRoot.add(region, MSI_BASE, ABOVE_ALL);
  }

  #memorySlots(): RamListener {
    return {
      ramAdded: (address, ram, offset, size, readonly) => this.vm.mapRam(address, ram, offset, size, readonly),
      ramRemoved: (address, size) => this.vm.unmapRam(address, size),
    };
  }

  #stopped(stop: VmStop): void {
    this.power.vmStopped(stop);
  }
}

/** Stands between an accelerator, which is made first, and the interrupt controller that the machine definition plugs in. */
class InterruptRelay implements InterruptSource {
  #source: InterruptSource | undefined;
  #changed: () => void = () => {};

  get pending(): boolean {
    return this.#source?.pending ?? false;
  }

  acknowledge(): number {
    return this.#source?.acknowledge() ?? 0xff;
  }

  onPending(changed: () => void): void {
    this.#changed = changed;
  }

  connect(source: InterruptSource): void {
    this.#source = source;
    source.onPending(() => this.#changed());
  }
}

function ownsIrqchip({ accelerator, config, kernelIrqchip }: MachineParts): boolean {
  const { irqchip } = accelerator.caps;
  if (irqchip === 'one-cpu') return config.cpus.maxCpus === 1;
  return irqchip === 'optional' && (kernelIrqchip ?? true);
}

class MachineObject extends ObjectNode {
  readonly #type: MachineType;

  constructor(type: MachineType) {
    super(`${type.type}-machine`);
    this.#type = type;
    this.defineProperty({ name: 'type', type: 'string', get: () => this.typeName });
  }

  override get typeChain(): readonly string[] {
    return [this.typeName, ...this.#type.parents, 'machine', 'object'];
  }
}

/** `-global driver.property=value` for this type or an ancestor of it; the last one counts. */
function globalProperties(globals: MachineConfig['globals'], type: DeviceTypeInfo): Record<string, string> {
  const result: Record<string, string> = {};
  for (const { driver, property, value } of globals) {
    if ((driver === type.type || type.parents.includes(driver)) && Object.hasOwn(type.properties, property))
      result[property] = value;
  }
  return result;
}

function isOn(value: unknown): boolean {
  return value === true || value === 'on' || value === 'yes' || value === 'true' || value === 'y';
}

/** The memory backend of that id, if there is one. */
function backendNamed(backends: BackendLookup, id: string): MemoryBackend | undefined {
  try {
    const backend = backends.find('memory-backend', id);
    return isMemoryBackend(backend) ? backend : undefined;
  } catch {
    return undefined;
  }
}

const isMemoryBackend = (value: unknown): value is MemoryBackend =>
  typeof value === 'object' && value !== null && 'claim' in value;

/** Devices that refer to another device (kind `device`) find it in the machine, all else where it was. */
function withDevices(backends: BackendLookup, find: (id: string) => Device | undefined): BackendLookup {
  return {
    find(kind, id) {
      if (kind !== 'device') return backends.find(kind, id);
      const device = find(id);
      if (device === undefined) throw new SouthbridgeError('ERR_BACKEND', `Device '${id}' not found`);
      return device;
    },
    prepare: async kind => backends.prepare?.(kind),
  };
}

const NO_BACKENDS: BackendLookup = {
  find(kind, id) {
    throw new SouthbridgeError('ERR_BACKEND', `there is no ${kind} '${id}'`, `make one before the device that uses it`);
  },
};

function noRom(name: string): never {
  throw new SouthbridgeError('ERR_ROM_MISSING', `failed to find romfile "${name}"`);
}
