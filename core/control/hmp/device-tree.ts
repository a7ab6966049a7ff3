import type { Bus } from '../../device/bus.ts';
import type { Device } from '../../device/device.ts';
import type { ObjectNode, PropertyValue } from '../../device/object.ts';
import type { Prop } from '../../device/property.ts';
import { pciClassName } from '../../pci/class-names.ts';
import { CFG } from '../../pci/config-space.ts';
import { pciProperties } from '../../pci/identity.ts';
import { PciDevice } from '../../pci/pci-device.ts';
import { hex } from '../hex.ts';

/** `info qtree`: buses and the devices on them, the last one plugged in first, as QEMU lists them. */
export function busTree(bus: Bus, level = 0): string {
  const indent = '  '.repeat(level);
  const devices = [...bus.devices].reverse().map(device => deviceTree(device, level + 1));
  return `${indent}bus: ${bus.busName}\n${indent}  type ${bus.typeName}\n${devices.join('')}`;
}

function deviceTree(device: Device, level: number): string {
  const indent = '  '.repeat(level);
  const lines = [
    ...pinLines(device),
    ...propertyLines(device),
    ...(device instanceof PciDevice ? pciLines(device) : []),
    ...device.mappedRegions.map(({ offset, size }) => `mmio ${address(offset)}/${address(size)}`),
  ];
  const head = `${indent}dev: ${device.typeName}, id "${device.id ?? ''}"\n`;
  const below = [...device.buses].reverse().map(bus => busTree(bus, level + 1));
  return head + lines.map(line => `${indent}  ${line}\n`).join('') + below.join('');
}

const address = (value: number): string => value.toString(16).padStart(16, '0');

function pinLines(device: Device): string[] {
  return [...device.pinLists].reverse().flatMap(name => {
    const inputs = device.inputPins.get(name)?.length ?? 0;
    const outputs = device.outputPins.get(name)?.length ?? 0;
    return [
      ...(inputs > 0 ? [`gpio-in "${name}" ${inputs}`] : []),
      ...(outputs > 0 ? [`gpio-out "${name}" ${outputs}`] : []),
    ];
  });
}

/** The type's own properties come before those of the types that it is made from. */
function propertyLines(device: Device): string[] {
  const entries = Object.entries(device.type.properties);
  const inherited = (name: string): boolean => device instanceof PciDevice && Object.hasOwn(pciProperties, name);
  return [...entries.filter(([name]) => !inherited(name)), ...entries.filter(([name]) => inherited(name))]
    .filter(([, property]) => property.listed !== 'no' && !isClassProperty(property))
    .map(([name, property]) => `${name} = ${shown(device, name, property)}`);
}

/** Boot indexes and links are properties of QEMU's classes, which its tree leaves out. */
const isClassProperty = ({ type, listed }: Prop<unknown>): boolean =>
  type.startsWith('link<') || (type === 'int32' && listed === 'value');

function shown(device: Device, name: string, property: Prop<unknown>): string {
  const value = device.property(name)?.get() ?? null;
  return property.print === undefined ? printed(value, property.type) : property.print(value);
}

/** A value for people: numbers in both bases, sizes with their unit, text in quotes. */
export function printed(value: PropertyValue, type: string): string {
  if (value === null) return '""';
  if (typeof value === 'string') return `"${value}"`;
  if (typeof value === 'number' || typeof value === 'bigint') {
    if (type === 'size') return `${value} (${humanSize(Number(value))})`;
    return `${value} (0x${BigInt.asUintN(64, BigInt(value)).toString(16)})`;
  }
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

const UNITS = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];

/** `2 GiB`, with three significant digits. */
export function humanSize(bytes: number): string {
  let unit = 0;
  let left = bytes;
  while (left >= 1000 && unit < UNITS.length - 1) {
    left /= 1024;
    unit++;
  }
  return `${Number(left.toPrecision(3))} ${UNITS[unit]}B`;
}

function pciLines(card: PciDevice): string[] {
  const { config, devfn } = card;
  const word = (offset: number): string => hex(config.get16(offset), 4);
  const code = config.get16(CFG.CLASS_CODE + 1);
  const place = `${hex(card.pciBus.number, 2)}:${hex(devfn >> 3, 2)}.${devfn & 7}`;
  const identity = `${word(CFG.VENDOR_ID)}:${word(CFG.DEVICE_ID)} (sub ${word(CFG.SUBSYSTEM_VENDOR_ID)}:${word(CFG.SUBSYSTEM_ID)})`;
  const bars = card.bars.flatMap(bar => {
    if (bar === undefined) return [];
    const { index, declaration, address: at } = bar;
    const wrapped = (value: number): string => BigInt.asUintN(64, BigInt(value)).toString(16);
    return `bar ${index}: ${declaration.space === 'io' ? 'i/o' : 'mem'} at 0x${wrapped(at)} [0x${wrapped(at + declaration.size - 1)}]`;
  });
  return [`class ${pciClassName(code) ?? `Class ${hex(code, 4)}`}, addr ${place}, pci id ${identity}`, ...bars];
}

/** `info qom-tree`. */
export function objectTree(node: ObjectNode, name: string, level = 0): string {
  const shown = level === 0 ? name : `/${name}`;
  const below = [...node.children].map(([child, found]) => objectTree(found, child, level + 1));
  return `${'  '.repeat(level)}${shown} (${node.typeName})\n${below.join('')}`;
}
