import type { CpuIdentity, Vm } from '../accel/accelerator.ts';
import { type CpuOption, parseCpuOption } from '../cpu/option.ts';
import type { CpuHost } from '../cpu/resolve.ts';
import { checkedPlace, placeOfApicId } from '../cpu/topology.ts';
import { CpuBus, cpuPropertyNamed, type X86Cpu, x86CpuType } from '../cpu/x86-cpu.ts';
import type { DeviceHome } from '../device/bus.ts';
import type { DeviceTypeInfo } from '../device/device-type.ts';
import type { DeviceServices } from '../device/services.ts';
import { SouthbridgeError } from '../errors.ts';
import { type CpuSlot, CpuSlots } from './cpu-slots.ts';
import type { CpuTopology } from './machine-config.ts';

const UNSET = 0xffff_ffff;

/** Who is told when a CPU comes or goes while the machine runs: the ACPI CPU hot-plug registers. */
export interface CpuHotplugController {
  plugged(slot: CpuSlot): void;
  /** Asks the guest to let go of the CPU; `done` is called once it has. */
  requestUnplug(slot: CpuSlot, done: () => void): void;
}

/** The CPUs of a machine: their model, the slots they sit in, and plugging more of them in. */
export class MachineCpus {
  readonly slots: CpuSlots;
  readonly option: CpuOption;
  hotplugController: CpuHotplugController | undefined;
  readonly #topology: CpuTopology;
  readonly #listeners: (() => void)[] = [];
  #bus: CpuBus | undefined;
  #vm: Vm | undefined;

  /**
   * @param text `-cpu`: a model and its properties
   * @throws SouthbridgeError ERR_CPU_MODEL, ERR_CPU_OPTION
   */
  constructor(text: string, topology: CpuTopology) {
    this.option = parseCpuOption(text);
    this.#topology = topology;
    const { dies, cores, threads, maxCpus } = topology;
    this.slots = new CpuSlots({ dies, cores, threads, maxCpus });
  }

  /** QEMU's name of the CPUs' type: `qemu64-x86_64-cpu`. */
  get typeName(): string {
    return x86CpuType(this.option.cpu).type;
  }

  /** The CPUs that are plugged in, in the order of their numbers. */
  get plugged(): readonly CpuSlot[] {
    return this.slots.slots.filter(slot => slot.cpu !== undefined);
  }

  /** The APIC IDs of the CPUs that are there from the start. */
  get apicIds(): readonly number[] {
    return this.slots.slots.slice(0, this.#topology.cpus).map(slot => slot.apicId);
  }

  /** The APIC IDs of those that may come later. */
  get laterApicIds(): readonly number[] {
    return this.slots.slots.slice(this.#topology.cpus).map(slot => slot.apicId);
  }

  /** What the accelerator is to make of a CPU. */
  #identityOf(cpu: X86Cpu): CpuIdentity {
    const { resolved, apicId, physicalBits, props } = cpu;
    return { cpu: resolved, apicId, topology: this.#topology, physicalBits, hostPmu: props.pmu };
  }

  /** Makes the CPUs that are there from the start. @throws SouthbridgeError where the model and its properties do not fit */
  populate(parts: { services: DeviceServices; home: DeviceHome; host: CpuHost; vm: Vm }): void {
    this.#bus = new CpuBus(parts);
    this.#vm = parts.vm;
    for (const slot of this.slots.slots.slice(0, this.#topology.cpus)) this.#seat(this.#make(undefined, {}), slot);
  }

  /** From here on CPUs are hot-plugged. */
  finish(): void {
    if (this.#bus !== undefined) this.#bus.hotplugging = true;
  }

  accepts(type: DeviceTypeInfo): boolean {
    return type.bus === 'x86-cpu';
  }

  /**
   * Plugs one more CPU in.
   * @throws SouthbridgeError, with QEMU's text, where the type is another, the place is taken or does not exist
   */
  plug(type: DeviceTypeInfo, id: string | undefined, input: Readonly<Record<string, unknown>>): X86Cpu {
    if (type.type !== this.typeName) {
      throw new SouthbridgeError('ERR_CPU_TYPE', `Invalid CPU type, expected cpu type: '${this.typeName}'`);
    }
    const cpu = this.#make(id, input);
    const slot = this.#slotFor(cpu);
    this.#seat(cpu, slot);
    this.hotplugController?.plugged(slot);
    for (const listener of this.#listeners) listener();
    return cpu;
  }

  /** Takes the CPU out. CPU 0 stays. */
  unplug(cpu: X86Cpu): void {
    const slot = this.slots.byApicId(cpu.apicId);
    if (slot?.cpu !== cpu) return;
    if (slot.index === 0) throw new SouthbridgeError('ERR_CPU_UNPLUG', 'Boot CPU is unpluggable');
    slot.cpu = undefined;
    this.#bus?.unplug(cpu);
    this.#vm?.unplugCpu?.(slot.index);
    for (const listener of this.#listeners) listener();
  }

  /** `listener` is called when a CPU has come or gone. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  #make(id: string | undefined, input: Readonly<Record<string, unknown>>): X86Cpu {
    const bus = this.#bus;
    if (bus === undefined)
      throw new SouthbridgeError('ERR_MACHINE_STATE', 'the machine has no CPUs yet', 'build() comes first');
    const type = x86CpuType(this.option.cpu);
    const properties: Record<string, unknown> = {};
    for (const [name, value] of this.option.properties) {
      const known = cpuPropertyNamed(name);
      if (typeof value === 'string' && !Object.hasOwn(type.properties, known)) {
        throw new SouthbridgeError(
          'ERR_PROPERTY_UNKNOWN',
          `can't apply global ${type.type}.${name}=${value}: Property '${type.type}.${name}' not found`,
        );
      }
      properties[known] = value;
    }
    return type.make(bus, bus.services, id, { ...properties, ...input });
  }

  #seat(cpu: X86Cpu, slot: CpuSlot): void {
    cpu.seat(slot.index, slot.apicId, slot.place);
    if (slot.nodeId !== undefined) cpu.nodeId = slot.nodeId;
    this.#bus?.insert(cpu);
    slot.cpu = cpu;
    const vcpu = this.#vm?.vcpus.find(({ index }) => index === slot.index) ?? this.#vm?.plugCpu?.(slot.index);
    vcpu?.setIdentity?.(this.#identityOf(cpu));
  }

  #slotFor(cpu: X86Cpu): CpuSlot {
    const { shape } = this.slots;
    const slot =
      cpu.apicId === UNSET
        ? this.slots.matching(withoutDie(checkedPlace(cpu.place, shape)))[0]
        : this.slots.byApicId(cpu.apicId);
    if (slot === undefined) {
      const { socket, die, core, thread } = cpu.apicId === UNSET ? cpu.place : placeOfApicId(cpu.apicId, shape);
      throw new SouthbridgeError(
        'ERR_CPU_PLACE',
        `Invalid CPU [socket: ${socket}, die: ${die}, core: ${core}, thread: ${thread}] with APIC ID ${cpu.apicId}, valid index range 0:${shape.maxCpus - 1}`,
      );
    }
    if (slot.cpu !== undefined) {
      throw new SouthbridgeError('ERR_CPU_PLACE', `CPU[${slot.index}] with APIC ID ${slot.apicId} exists`);
    }
    const node = cpu.nodeId;
    if (node >= 0 && node !== slot.nodeId) {
      throw new SouthbridgeError(
        'ERR_CPU_PLACE',
        slot.nodeId === undefined
          ? 'invalid node-id, node-id is not supported'
          : `node-id=${node} must match numa node specified with -numa option`,
      );
    }
    return slot;

    function withoutDie<T extends { readonly die: number }>(place: T): Omit<T, 'die'> & { die: number | undefined } {
      return { ...place, die: shape.dies > 1 ? place.die : undefined };
    }
  }
}
