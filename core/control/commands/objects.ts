import { CPU_NAMES, CPU_TYPE_SUFFIX } from '../../cpu/model.ts';
import type { Bus } from '../../device/bus.ts';
import type { ObjectNode } from '../../device/object.ts';
import type { Prop } from '../../device/property.ts';
import { CHARDEV_KINDS } from '../char/spec.ts';
import type { Json, JsonObject } from '../json/value.ts';
import type { Program } from '../program.ts';
import { deviceNotFound, QmpError } from '../qapi/error.ts';
import { ObjectType } from '../qapi/schema/qom.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';
import { ACCELERATOR_NAMES } from '../startup/accelerators.ts';
import { addDevice, deviceRequest, requestUnplug } from '../startup/devices.ts';
import { PARENTS } from '../startup/objects.ts';

export function objectCommands(program: Program): Handlers<QmpSession> {
  const resolve = (path: string): ObjectNode => {
    const node = program.machine.root.resolve(path);
    if (node === undefined) throw deviceNotFound(path);
    return node;
  };
  return {
    'qom-list': ({ path }) => {
      const node = resolve(path);
      return [
        ...node.properties.map(({ name, type }) => ({ name, type })),
        ...[...node.children].map(([name, child]) => ({ name, type: `child<${child.typeName}>` })),
      ];
    },
    'qom-get': ({ path, property }) => {
      const node = resolve(path);
      const child = node.child(property);
      const found = node.property(property);
      if (found === undefined && child !== undefined) return child.path;
      if (found === undefined) throw new QmpError(`Property '${node.typeName}.${property}' not found`);
      return found.get() as Json;
    },
    'qom-set': async ({ path, property, value }) => {
      const node = resolve(path);
      const found = node.property(property);
      if (found === undefined) throw new QmpError(`Property '${node.typeName}.${property}' not found`);
      if (found.set === undefined) throw new QmpError('Insufficient permission to perform this operation');
      await found.set(value as never);
    },
    'qom-list-types': async ({ implements: ancestor = 'object', abstract = false }) => {
      const types = await typeTree(program);
      const descends = (name: string): boolean => {
        for (let at: string | undefined = name; at !== undefined; at = types.get(at)?.parent)
          if (at === ancestor) return true;
        return types.get(name)?.interfaces?.includes(ancestor) ?? false;
      };
      return [...types]
        .filter(([name, type]) => (abstract || !type.abstract) && descends(name))
        .map(([name, type]) => ({
          name,
          ...(type.abstract && { abstract: true }),
          ...(type.parent !== undefined && { parent: type.parent }),
        }));
    },
    'qom-list-properties': async ({ typename }) => {
      const properties = await typeProperties(program, typename);
      if (properties === undefined) throw new QmpError(`Class '${typename}' not found`, 'DeviceNotFound');
      return properties;
    },
    'device-list-properties': async ({ typename }) => {
      await program.registry.load(typename);
      const type = program.registry.device(typename);
      if (type !== undefined) return deviceProperties(type.properties);
      const cpu = await cpuProperties(typename);
      if (cpu !== undefined) return cpu;
      const node = (await typeTree(program)).get(typename);
      if (node === undefined) throw deviceNotFound(typename);
      throw new QmpError("Parameter 'typename' expects a non-abstract device type");
    },
    'object-add': async spec => {
      await (await program.objects()).addFrom(spec as JsonObject, false);
    },
    'object-del': async ({ id }) => (await program.objects()).remove(id),
    device_add: async values => {
      await addDevice(
        program.machine,
        program.registry,
        deviceRequest(values as Readonly<Record<string, unknown>>),
        true,
      );
    },
    device_del: ({ id }) => requestUnplug(program.machine, id),
  };
}

interface PropertyInfo {
  readonly name: string;
  readonly type: string;
  readonly description?: string;
  readonly 'default-value'?: Json;
}

function deviceProperties(properties: Readonly<Record<string, Prop<unknown>>>): PropertyInfo[] {
  return Object.entries(properties)
    .filter(([, property]) => property.listed !== 'no')
    .map(([name, property]) => ({
      name,
      type: property.type,
      ...(property.description !== undefined && { description: property.description }),
      ...(property.default !== undefined &&
        property.listed === 'yes' && { 'default-value': property.format(property.default) as Json }),
    }));
}

/** Those of a CPU type, with the values that can only be read; undefined where there is no such type. */
async function cpuProperties(typename: string): Promise<PropertyInfo[] | undefined> {
  const cpu = typename.endsWith(CPU_TYPE_SUFFIX)
    ? CPU_NAMES.get(typename.slice(0, -CPU_TYPE_SUFFIX.length))
    : undefined;
  if (cpu === undefined) return undefined;
  const { CPU_VALUES, x86CpuType } = await import('../../cpu/x86-cpu.ts');
  return [...deviceProperties(x86CpuType(cpu).properties), ...CPU_VALUES];
}

async function typeProperties(program: Program, name: string): Promise<PropertyInfo[] | undefined> {
  await program.registry.loadAll();
  const device = program.registry.device(name);
  if (device !== undefined) return deviceProperties(device.properties);
  const machine = name.endsWith('-machine') ? program.registry.machine(name.slice(0, -'-machine'.length)) : undefined;
  if (machine !== undefined) return [...deviceProperties(machine.options), ...MACHINE_PROPERTIES];
  const cpu = await cpuProperties(name);
  if (cpu !== undefined) return cpu;
  const types = await typeTree(program);
  return types.has(name) ? [{ name: 'type', type: 'string' }] : undefined;
}

/** What every machine has (QEMU's abstract type `machine`). */
const MACHINE_PROPERTIES: readonly PropertyInfo[] = [
  'accel',
  'kernel',
  'initrd',
  'append',
  'dtb',
  'memory-backend',
  'firmware',
  'graphics',
  'usb',
  'dump-guest-core',
  'mem-merge',
].map(name => ({ name, type: ['graphics', 'usb', 'dump-guest-core', 'mem-merge'].includes(name) ? 'bool' : 'string' }));

interface TypeNode {
  readonly parent: string | undefined;
  readonly abstract: boolean;
  readonly interfaces?: readonly string[];
}

/** Every type with its parent, as `qom-list-types` shows them. */
async function typeTree(program: Program): Promise<Map<string, TypeNode>> {
  const { registry } = program;
  await registry.loadAll();
  const types = new Map<string, TypeNode>();
  const chain = (names: readonly string[], interfaces: readonly string[] = []): void => {
    names.forEach((name, index) => {
      const parent = names[index + 1];
      if (index === 0) types.set(name, { parent, abstract: false, interfaces });
      else if (!types.has(name)) types.set(name, { parent, abstract: true });
    });
  };
  types.set('object', { parent: undefined, abstract: true });
  types.set('container', { parent: 'object', abstract: false });
  for (const type of registry.devices()) chain([type.type, ...type.parents, 'object']);
  for (const type of registry.machines()) chain([`${type.type}-machine`, ...type.parents, 'machine', 'object']);
  for (const name of CPU_NAMES.keys()) chain([`${name}-x86_64-cpu`, 'x86_64-cpu', 'cpu', 'device', 'object']);
  for (const name of [...ACCELERATOR_NAMES, 'tcg']) chain([`${name}-accel`, 'accel', 'object']);
  for (const name of program.plugins.backends.keys()) chain([name, 'object'], ['user-creatable']);
  for (const name of ObjectType.values) chain([name, ...(PARENTS[name] ?? []), 'object'], ['user-creatable']);
  for (const kind of CHARDEV_KINDS) chain([`chardev-${kind}`, 'chardev', 'object']);
  for (const bus of busKinds(program)) chain([bus, 'bus', 'object']);
  return types;
}

function busKinds(program: Program): Set<string> {
  const kinds = new Set(program.registry.devices().map(type => type.bus));
  for (const bus of program.machine.buses() as Iterable<Bus>) kinds.add(bus.kind);
  return kinds;
}
