import { MemoryDevice } from '../../bus/memory-bus.ts';
import { CPU_TYPE_SUFFIX } from '../../cpu/model.ts';
import { X86Cpu } from '../../cpu/x86-cpu.ts';
import type { Bus } from '../../device/bus.ts';
import type { Device } from '../../device/device.ts';
import { DeviceLog } from '../../device/device-log.ts';
import type { DeviceType } from '../../device/device-type.ts';
import type { TypeRegistry } from '../../device/registry.ts';
import { didYouMean, SouthbridgeError } from '../../errors.ts';
import type { Machine } from '../../machine/machine.ts';
import type { PrimaryCard, StandbyCard } from '../../net/failover.ts';
import { PciBus } from '../../pci/pci-bus.ts';
import { PciDevice } from '../../pci/pci-device.ts';
import { deviceNotFound, QmpError } from '../qapi/error.ts';

/** What a device is to be made of: `driver`, `bus`, `id` and its properties, as text or typed. */
export interface DeviceRequest {
  readonly driver: string;
  readonly bus?: string | undefined;
  readonly id?: string | undefined;
  readonly properties: Readonly<Record<string, unknown>>;
}

/** Kinds of buses that take devices while the machine runs. */
const HOTPLUG_BUSES = new Set([
  'x86-cpu',
  'PCI',
  'PCIE',
  'SCSI',
  'usb-bus',
  'virtio-serial-bus',
  'System',
  'virtio-bus',
  'memory-device',
]);

/** Splits the values of `-device` or `device_add`. */
export function deviceRequest(values: Readonly<Record<string, unknown>>): DeviceRequest {
  const { driver, bus, id, ...properties } = values;
  if (typeof driver !== 'string') throw new QmpError("Parameter 'driver' is missing");
  return {
    driver,
    properties,
    ...(typeof bus === 'string' && { bus }),
    ...(typeof id === 'string' && { id }),
  };
}

/** The device type of that name, if a user may make one. Throws with QEMU's wording. */
export async function requireCreatable(registry: TypeRegistry, driver: string): Promise<DeviceType> {
  if (driver.endsWith(CPU_TYPE_SUFFIX)) await registerCpus(registry);
  const type = await registry.requireDevice(driver);
  if (!type.userCreatable) throw new QmpError("Parameter 'driver' expects a pluggable device type");
  return type;
}

/** The CPU types are made from a table, so they are only registered where somebody asks. */
export async function registerCpus(registry: TypeRegistry): Promise<void> {
  const { x86CpuTypes } = await import('../../cpu/x86-cpu.ts');
  for (const type of x86CpuTypes()) if (registry.device(type.type) === undefined) registry.registerDevice(type);
}

/**
 * Makes a device and plugs it in, as `-device` and `device_add` do.
 * @returns nothing where the device waits until the guest can have it beside its standby
 * @throws SouthbridgeError or QmpError with QEMU's wording; nothing is left behind
 */
export async function addDevice(
  machine: Machine,
  registry: TypeRegistry,
  request: DeviceRequest,
  hotplug: boolean,
): Promise<Device | undefined> {
  const type = await requireCreatable(registry, request.driver);
  const primary = new FailoverPrimary(machine, registry, request);
  if (hidden(machine, primary, type, request, hotplug)) return undefined;
  checkId(machine, request.id);
  if (machine.cpus.accepts(type)) {
    if (!hotplug || machine.cpus.hotplugController !== undefined)
      return machine.cpus.plug(type, request.id, request.properties);
    throw new QmpError(`Device '${type.type}' can not be hotplugged on this machine`);
  }
  const bus = busFor(machine, type, request.bus);
  if (hotplug) {
    if (!HOTPLUG_BUSES.has(bus.kind)) throw new QmpError(`Bus '${bus.busName}' does not support hotplugging`);
    if (!type.hotpluggable) throw new QmpError(`Device '${type.type}' does not support hotplugging`);
  }
  for (const { backend } of Object.values(type.properties))
    if (backend !== undefined) await machine.services.backends.prepare?.(backend);
  const device = bus.plug(type, {}, request.properties, request.id, true);
  if (device instanceof PciDevice) primary.plugged(device);
  if (hotplug && device instanceof PciDevice) device.pciBus.hotplugController?.plugged(device);
  if (hotplug && device instanceof MemoryDevice) machine.memoryBus?.controllers.get(device.kind)?.plugged(device);
  return device;
}

/** A device with `failover_pair_id`, as its standby sees it. Others have no standby, and nothing comes of it. */
class FailoverPrimary implements PrimaryCard {
  readonly id: string;
  readonly standby: StandbyCard | undefined;
  readonly #machine: Machine;
  readonly #registry: TypeRegistry;
  readonly #request: DeviceRequest;
  #device: PciDevice | undefined;

  /** @throws QmpError where it could not be found again */
  constructor(machine: Machine, registry: TypeRegistry, request: DeviceRequest) {
    this.#machine = machine;
    this.#registry = registry;
    this.#request = request;
    const { standbys } = machine.services.netCards;
    const pair = request.properties['failover_pair_id'];
    if (pair !== undefined && standbys.size > 0 && request.id === undefined)
      throw new QmpError('Device with failover_pair_id needs to have id');
    this.id = request.id ?? '';
    this.standby = pair === undefined ? undefined : standbys.get(String(pair));
  }

  plugged(device: PciDevice): void {
    this.#device = device;
    this.standby?.plugged(this);
  }

  async plug(): Promise<void> {
    try {
      await addDevice(this.#machine, this.#registry, this.#request, true);
    } catch (error) {
      new DeviceLog(this.#machine.services.trace, this.#request.driver).guestError(String(error));
    }
  }

  unplug(gone: () => void): boolean {
    const device = this.#device;
    if (device === undefined || this.#machine.findDevice(this.id) !== device || pending.has(device)) return false;
    const done = (): void => {
      device.bus.unplug(device);
      gone();
    };
    const controller = device.pciBus.hotplugController;
    if (controller === undefined) {
      done();
    } else {
      controller.requestUnplug(device, done);
      pending.add(device);
    }
    return true;
  }
}

/** A primary network device is kept away from a guest that could not have it beside its standby. */
function hidden(
  machine: Machine,
  primary: FailoverPrimary,
  type: DeviceType,
  request: DeviceRequest,
  hotplug: boolean,
): boolean {
  const { id, standby } = primary;
  if (standby === undefined) return false;
  const rival = standby.rivalOf(id);
  if (rival !== undefined)
    throw new QmpError(`Cannot attach more than one primary device to '${standby.id}': '${rival}' and '${id}'`);
  if (!standby.hide(primary)) return false;
  const bus = busFor(machine, type, request.bus);
  if (hotplug && bus instanceof PciBus && bus.hotplugController === undefined)
    throw new QmpError(`Bus '${bus.busName}' does not support hotplugging`);
  return true;
}

function checkId(machine: Machine, id: string | undefined): void {
  if (id === undefined) return;
  if (!/^[A-Za-z][A-Za-z0-9\-._]*$/.test(id)) throw new QmpError("Parameter 'id' expects an identifier");
  if (machine.object.child('peripheral')?.child(id) !== undefined) throw new QmpError(`Duplicate device ID '${id}'`);
}

function busFor(machine: Machine, type: DeviceType, name: string | undefined): Bus {
  if (name !== undefined) {
    const bus = busNamed(machine, name);
    if (!bus.accepts(type)) throw new QmpError(`Device '${type.type}' can't go on ${bus.kind} bus`);
    if (bus.full) throw new QmpError(`Bus '${name}' is full`);
    return bus;
  }
  if (type.bus === 'System') return machine.system;
  if (type.bus === 'memory-device') return memoryBusOf(machine);
  const bus = machine.busFor(type);
  if (bus !== undefined) return bus;
  throw new QmpError(`No '${type.bus}' bus found for device '${type.type}'`);
}

const NO_MEMORY_HOTPLUG = 'memory hotplug is not enabled: missing acpi device or acpi disabled';

function memoryBusOf(machine: Machine): Bus {
  if (machine.memoryBus === undefined)
    throw new QmpError('memory devices (e.g. for memory hotplug) are not supported by the machine');
  if (!machine.config.acpi) throw new QmpError(NO_MEMORY_HOTPLUG);
  return machine.memoryBus;
}

/** By name (`pci.0`), by path, or as `device-id` or `device-id/bus`. */
function busNamed(machine: Machine, name: string): Bus {
  const direct = machine.findBus(name);
  if (direct !== undefined) return direct;
  const [deviceId = '', busName] = name.replace(/^\//, '').split('/');
  const device = machine.findDevice(deviceId);
  if (device !== undefined) {
    const bus = busName === undefined ? device.buses[0] : device.buses.find(candidate => candidate.busName === busName);
    if (bus !== undefined) return bus;
    if (busName === undefined) throw new QmpError(`Device '${deviceId}' has no child bus`);
  }
  const names = [...machine.buses()].map(bus => bus.busName);
  const hint = didYouMean(name, names);
  throw new SouthbridgeError('ERR_BUS_UNKNOWN', `Bus '${name}' not found`, hint);
}

/** PCI functions whose removal waits for the guest. CPUs and memory may be asked for again. */
const pending = new WeakSet<Device>();

/**
 * Asks for a device to be taken out, as `device_del` does: the bus decides whether the guest has a say. `DEVICE_DELETED`
 * follows once it is gone.
 */
export function requestUnplug(machine: Machine, idOrPath: string): void {
  const device = machine.findDevice(idOrPath);
  if (device === undefined) throw deviceNotFound(idOrPath);
  if (!HOTPLUG_BUSES.has(device.bus.kind))
    throw new QmpError(`Bus '${device.bus.busName}' does not support hotplugging`);
  if (!device.type.hotpluggable) throw new QmpError(`Device '${device.type.type}' does not support hotplugging`);
  if (pending.has(device)) throw new QmpError(`Device ${idOrPath} is already in the process of unplug`);
  if (device.fixture !== undefined) throw new QmpError(device.fixture);
  const done = (): void => removeDevice(machine, device);
  if (device instanceof X86Cpu) {
    const slot = machine.cpus.slots.byApicId(device.apicId);
    if (slot?.index === 0) throw new QmpError('Boot CPU is unpluggable');
    if (slot === undefined || machine.cpus.hotplugController === undefined)
      throw new QmpError('CPU unplug is not supported');
    machine.cpus.hotplugController.requestUnplug(slot, done);
  } else if (device instanceof PciDevice && device.pciBus.hotplugController !== undefined) {
    device.pciBus.hotplugController.requestUnplug(device, done);
    pending.add(device);
  } else if (device instanceof MemoryDevice) {
    const controller = machine.memoryBus?.controllers.get(device.kind);
    if (controller === undefined || !machine.config.acpi) throw new QmpError(NO_MEMORY_HOTPLUG);
    controller.requestUnplug(device, done);
  } else done();
}

/** Takes a device out and says so. */
export function removeDevice(machine: Machine, device: Device): void {
  const gone = [...withThoseBelow(device)].map(({ id, path }) => ({ ...(id !== undefined && { device: id }), path }));
  if (device instanceof X86Cpu) machine.cpus.unplug(device);
  else device.bus.unplug(device);
  for (const one of gone) machine.emit('DEVICE_DELETED', one);
}

/** What goes with a device, the device last: what lies behind its transport, what is plugged into it. */
function* withThoseBelow(device: Device): Generator<Device> {
  for (const bus of device.buses) for (const below of bus.devices) yield* withThoseBelow(below);
  yield device;
}
