import { didYouMean, SouthbridgeError } from '../errors.ts';
import type { BarDeclaration, PciIdentity } from '../pci/identity.ts';
import { pciProperties } from '../pci/identity.ts';
import type { Bus } from './bus.ts';
import type { Device } from './device.ts';
import { type PropInput, type PropSet, type PropValues, parseProperties } from './property.ts';
import type { DeviceServices } from './services.ts';

/** QEMU's groups in `-device help`. */
export type DeviceCategory =
  | 'bridge'
  | 'usb'
  | 'storage'
  | 'network'
  | 'input'
  | 'display'
  | 'sound'
  | 'misc'
  | 'cpu'
  | 'watchdog'
  | 'uncategorized';

/** What a device's constructor is handed. Pass it on to `super`. */
export interface DeviceContext<S extends PropSet = PropSet> {
  readonly type: DeviceTypeInfo;
  readonly id: string | undefined;
  readonly props: PropValues<S>;
  readonly services: DeviceServices;
  readonly bus: Bus;
  /** The type itself, to make another one of. */
  readonly ownType: DeviceType;
}

/** The facts of a device type that do not depend on its TypeScript types. */
export interface DeviceTypeInfo {
  /** QEMU's name: `e1000`, `isa-serial`. */
  readonly type: string;
  readonly summary: string;
  /** The kind of bus that it plugs into: `PCI`, `ISA`, `System`, `SCSI`, `IDE`, ... */
  readonly bus: string;
  readonly category: DeviceCategory;
  readonly aliases: readonly string[];
  /** Abstract QOM ancestors, nearest first, up to `device`. */
  readonly parents: readonly string[];
  /** May be created by `-device` and `device_add`. */
  readonly userCreatable: boolean;
  readonly hotpluggable: boolean;
  readonly properties: PropSet;
  readonly pci: PciIdentity | undefined;
  readonly bars: Readonly<Record<number, BarDeclaration>>;
}

/** A device type: make one with {@link deviceType}. `S` are its properties, `D` its class. */
export interface DeviceType<S extends PropSet = PropSet, D extends Device = Device> extends DeviceTypeInfo {
  readonly properties: S;
  /**
   * Makes an instance, which is not yet on its bus.
   * @throws SouthbridgeError ERR_PROPERTY_* where a value does not fit
   */
  make(bus: Bus, services: DeviceServices, id: string | undefined, input: Readonly<Record<string, unknown>>): D;
  /** The same under another name, for a second version of it beside the first. */
  renamed(type: string, aliases: readonly string[]): DeviceType<S, D>;
}

/** What may be given on plugging in a device of this type. */
export type DeviceInput<T extends DeviceType> = PropInput<T['properties']>;

interface Definition<S extends PropSet, D extends Device> {
  readonly type: string;
  readonly summary: string;
  readonly properties?: S;
  readonly bus?: string;
  readonly category?: DeviceCategory;
  readonly aliases?: readonly string[];
  readonly parents?: readonly string[];
  readonly userCreatable?: boolean;
  readonly hotpluggable?: boolean;
  readonly pci?: PciIdentity;
  /** Base address registers 0 to 5 (PCI 3.0, section 6.2.5). */
  readonly bars?: Readonly<Record<number, BarDeclaration>>;
  // The base types declare the parameter of `create` for its own properties, which TypeScript infers from the class.
  readonly create: new (
    context: DeviceContext<S>,
  ) => D;
}

/**
 * Declares a device type.
 * @throws SouthbridgeError ERR_DEVICE_TYPE where the definition contradicts itself
 */
export function deviceType<S extends PropSet, D extends Device>(definition: Definition<S, D>): DeviceType<S, D> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._+-]*$/.test(definition.type)) {
    throw new SouthbridgeError(
      'ERR_DEVICE_TYPE',
      `'${definition.type}' is no name for a device type`,
      'use letters, digits, dots and dashes',
    );
  }
  const own: PropSet = definition.properties ?? {};
  const properties = (definition.pci === undefined ? own : { ...pciProperties, ...own }) as S;
  const info: DeviceTypeInfo = {
    type: definition.type,
    summary: definition.summary,
    bus: definition.bus ?? (definition.pci === undefined ? 'System' : 'PCI'),
    category: definition.category ?? 'misc',
    aliases: definition.aliases ?? [],
    parents: definition.parents ?? (definition.pci === undefined ? ['device'] : ['pci-device', 'device']),
    userCreatable: definition.userCreatable ?? true,
    hotpluggable: definition.hotpluggable ?? definition.pci !== undefined,
    properties,
    pci: definition.pci,
    bars: definition.bars ?? {},
  };
  const whole: DeviceType<S, D> = {
    ...info,
    properties,
    make(bus, services, id, input) {
      refuseUnknown(info.type, properties, input);
      const props = parseProperties(info.type, properties, input, services.backends);
      return new definition.create({ type: info, id, props, services, bus, ownType: whole });
    },
    renamed: (type, aliases) => deviceType({ ...definition, type, aliases }),
  };
  return whole;
}

function refuseUnknown(type: string, properties: PropSet, input: Readonly<Record<string, unknown>>): void {
  for (const name of Object.keys(input)) {
    if (Object.hasOwn(properties, name) || input[name] === undefined) continue;
    throw new SouthbridgeError(
      'ERR_PROPERTY_UNKNOWN',
      `Property '${type}.${name}' not found`,
      didYouMean(name, Object.keys(properties), `-device ${type},help`),
    );
  }
}
