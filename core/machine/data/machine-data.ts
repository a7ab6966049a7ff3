import type { Bus } from '../../device/bus.ts';
import type { DeviceType } from '../../device/device-type.ts';
import { type Prop, type PropSet, parseSize, prop } from '../../device/property.ts';
import type { TypeRegistry } from '../../device/registry.ts';
import { didYouMean } from '../../errors.ts';
import type { Machine } from '../machine.ts';
import { extendMachine, type MachineType } from '../machine-type.ts';
import { DataPlace, type DataValue, type DeviceData, type MachineData, type OptionData } from './format.ts';
import { readMachine } from './read.ts';
import { Wiring } from './wires.ts';

interface PlannedDevice {
  readonly data: DeviceData;
  readonly type: DeviceType;
  readonly place: DataPlace;
}

/**
 * The machine type that a JSON text describes. All that can be checked without a machine is checked now.
 * @param file for messages
 * @throws SouthbridgeError ERR_MACHINE_DATA with the file and the path in it
 */
export async function machineFromJson(text: string, file: string, registry: TypeRegistry): Promise<MachineType> {
  const place = new DataPlace(file);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw place.error(`is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  return machineFromData(readMachine(value, place), file, registry);
}

/** As {@link machineFromJson}, from what was read. */
export async function machineFromData(data: MachineData, file: string, registry: TypeRegistry): Promise<MachineType> {
  const place = new DataPlace(file);
  const base = await find(place.member('extends'), () => registry.requireMachine(data.extends), data.extends);
  const options = optionsOf(data, place);
  const known = { ...base.options, ...options };
  const devices: PlannedDevice[] = [];
  for (const [index, device] of (data.devices ?? []).entries()) {
    const at = place.member('devices').element(index);
    const type = await find(at.member('driver'), () => registry.requireDevice(device.driver), device.driver);
    checkDevice(device, type, at, known);
    devices.push({ data: device, type, place: at });
  }
  return extendMachine(base, {
    type: data.type,
    summary: data.summary,
    ...(data.aliases && { aliases: data.aliases }),
    ...(data.memory !== undefined && { defaultRam: sizeOf(data.memory, place.member('memory')) }),
    defaults: data.defaults ?? {},
    globals: Object.entries(data.globals ?? {}).flatMap(([driver, values]) =>
      Object.entries(values).map(([property, value]) => ({ driver, property, value })),
    ),
    options,
    build(machine, values) {
      const given = { ...machine.config.options, ...values };
      for (const device of devices) plug(machine, device, given);
      const wiring = new Wiring(machine);
      const at = place.member('wires');
      for (const [index, wire] of (data.wires ?? []).entries()) wiring.connect(wire, at.element(index));
    },
  });
}

async function find<T>(place: DataPlace, search: () => Promise<T>, name: string): Promise<T> {
  try {
    return await search();
  } catch (error) {
    const located = place.located(error);
    // The registry's message for machines is QEMU's, which leaves the name out.
    if (located instanceof Error && !located.message.includes(name))
      throw place.error(`there is no '${name}'`, undefined, error);
    throw located;
  }
}

function optionsOf(data: MachineData, place: DataPlace): PropSet {
  const at = place.member('options');
  const declared = Object.entries(data.options ?? {}).map(([name, option]) => {
    const property = optionProperty(option);
    const { default: fallback } = option;
    const where = at.member(name);
    if (fallback === undefined) return [name, property] as const;
    if (property.backend !== undefined) throw where.member('default').error(`a ${property.backend} has no default`);
    const value = where.member('default').within(() => property.parse(fallback, { name, owner: data.type }));
    return [name, { ...property, default: value }] as const;
  });
  return Object.fromEntries(declared);
}

function optionProperty({ type, help }: OptionData): Prop<unknown> {
  const options = help === undefined ? {} : { help };
  switch (type) {
    case 'bool':
      return prop.bool(options);
    case 'uint8':
      return prop.u8(options);
    case 'uint16':
      return prop.u16(options);
    case 'uint32':
      return prop.u32(options);
    case 'uint64':
      return prop.u64(options);
    case 'size':
      return prop.size(options);
    case 'string':
      return prop.string(options);
    default:
      return prop.backend(type, options);
  }
}

/** Names and values that do not depend on the machine. */
function checkDevice(device: DeviceData, type: DeviceType, place: DataPlace, options: PropSet): void {
  const { if: condition, properties = {} } = device;
  const known = Object.keys(options);
  if (condition !== undefined && !known.includes(condition))
    throw place.member('if').error(`there is no option '${condition}'`, didYouMean(condition, known));
  for (const [name, value] of Object.entries(properties)) {
    const at = place.member('properties').member(name);
    const property = type.properties[name];
    if (property === undefined) {
      const hint = didYouMean(name, Object.keys(type.properties), `-device ${type.type},help`);
      throw at.error(`'${type.type}' has no property of that name`, hint);
    }
    if (typeof value === 'object') {
      if (!known.includes(value.option))
        throw at.member('option').error(`there is no option '${value.option}'`, didYouMean(value.option, known));
    } else if (property.backend === undefined) {
      at.within(() => property.parse(value, { name, owner: type.type }));
    }
  }
}

function plug(
  machine: Machine,
  { data, type, place }: PlannedDevice,
  options: Readonly<Record<string, unknown>>,
): void {
  const { if: condition, id, properties = {} } = data;
  if (condition !== undefined && isOff(options[condition])) return;
  if (id !== undefined && machine.findDevice(id) !== undefined)
    throw place.member('id').error(`there is a device '${id}' already`);
  const bus = busFor(machine, type, data.bus, place);
  const given = Object.entries(properties).map(([name, value]) => [name, resolved(value, options)] as const);
  place.within(() => bus.plug(type, {}, Object.fromEntries(given), id));
}

const resolved = (value: DataValue, options: Readonly<Record<string, unknown>>): unknown =>
  typeof value === 'object' ? options[value.option] : value;

const isOff = (value: unknown): boolean => [undefined, false, 'off', 'no', 'false', ''].includes(value as string);

function busFor(machine: Machine, type: DeviceType, name: string | undefined, place: DataPlace): Bus {
  if (name === undefined) {
    if (type.bus === 'System') return machine.system;
    const free = machine.busFor(type);
    if (free !== undefined) return free;
    throw place.error(`no bus here takes '${type.type}'`, `it needs a ${type.bus} bus`);
  }
  const bus = machine.findBus(name) ?? machine.findDevice(name)?.buses[0];
  if (bus !== undefined) return bus;
  const names = [...machine.buses()].map(each => each.busName);
  throw place
    .member('bus')
    .error(`there is no bus '${name}'`, didYouMean(name, names) ?? `there is ${names.join(', ')}`);
}

function sizeOf(text: string, place: DataPlace): number {
  const bytes = parseSize(text, 'm');
  if (bytes === undefined || bytes === 0) throw place.error(`'${text}' is no size`, 'write 128M or 1G');
  return bytes;
}
