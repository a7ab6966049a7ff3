/** Descriptors (USB 2.0, section 9.6; USB 3.0, section 9.6): what a device is, and the bytes that say so. */
import type { TransferType } from './endpoint.ts';

export const DESCRIPTOR = {
  DEVICE: 0x01,
  CONFIGURATION: 0x02,
  STRING: 0x03,
  INTERFACE: 0x04,
  ENDPOINT: 0x05,
  DEVICE_QUALIFIER: 0x06,
  OTHER_SPEED: 0x07,
  ASSOCIATION: 0x0b,
  BOS: 0x0f,
  CAPABILITY: 0x10,
  CS_INTERFACE: 0x24,
  ENDPOINT_COMPANION: 0x30,
} as const;

/** bmAttributes of a configuration. */
export const ATTRIBUTE = { ALWAYS: 0x80, SELF_POWERED: 0x40, REMOTE_WAKEUP: 0x20 } as const;
export const ENDPOINT_IN = 0x80;
/** bcdUSB of USB 3.0. */
const SUPER_SPEED = 0x0300;
const LANGUAGE_EN_US = 0x0409;
const MAX_STRING = 126;

export interface EndpointDescription {
  /** Number, with {@link ENDPOINT_IN} for the direction. */
  readonly address: number;
  readonly type: TransferType;
  /** bmAttributes, where it says more than the type: how isochronous data are synchronized, and what they are. */
  readonly attributes?: number;
  /** Has bRefresh and bSynchAddress, both 0 (Audio 1.0, section 4.6.1.1). */
  readonly audio?: boolean;
  readonly maxPacketSize: number;
  readonly interval?: number;
  /** SuperSpeed endpoint companion: packets in a burst less 1, and log2 of the streams. */
  readonly maxBurst?: number;
  readonly streams?: number;
  readonly bytesPerInterval?: number;
  /** Class-specific descriptor that follows. */
  readonly extra?: readonly number[];
}

export interface InterfaceDescription {
  readonly number: number;
  readonly alternate?: number;
  readonly class: number;
  readonly subclass?: number;
  readonly protocol?: number;
  /** Index of a string. */
  readonly name?: number;
  /** Class-specific descriptors that come before the endpoints. */
  readonly extra?: readonly (readonly number[])[];
  readonly endpoints: readonly EndpointDescription[];
}

export interface ConfigurationDescription {
  readonly value: number;
  readonly name?: number;
  readonly attributes: number;
  /** In units of 2 mA; 8 mA at SuperSpeed. */
  readonly maxPower?: number;
  /** How many interfaces, alternate settings not counted. */
  readonly interfaceCount: number;
  readonly interfaces: readonly InterfaceDescription[];
}

/** A device as it presents itself at one speed. */
export interface SpeedDescription {
  /** bcdUSB. */
  readonly usb: number;
  readonly class?: number;
  readonly subclass?: number;
  readonly protocol?: number;
  readonly maxPacketSize0: number;
  readonly configurations: readonly ConfigurationDescription[];
}

export interface UsbDescription {
  readonly vendor: number;
  readonly product: number;
  readonly release: number;
  /** Indices of strings. */
  readonly manufacturerName: number;
  readonly productName: number;
  readonly serialNumber: number;
  readonly strings: Readonly<Record<number, string>>;
  readonly full?: SpeedDescription;
  readonly high?: SpeedDescription;
  readonly super?: SpeedDescription;
  /** What Microsoft's OS descriptors say. */
  readonly microsoft?: MicrosoftDescription;
}

/** Microsoft OS Descriptors 1.0. */
export interface MicrosoftDescription {
  /** Up to 8 characters, such as `RNDIS`. */
  readonly compatibleId?: string;
  readonly label?: string;
  readonly selectiveSuspend?: boolean;
}

/** String index of the Microsoft OS string descriptor, its text, and the vendor request that it announces. */
export const MICROSOFT_STRING = 0xee;
export const MICROSOFT_SIGNATURE = 'MSFT100Q';
export const MICROSOFT_REQUEST = 0x51;

const word = (value: number): [number, number] => [value & 0xff, (value >> 8) & 0xff];
const dword = (value: number): number[] => [...word(value), ...word(value >>> 16)];

/** @param microsoft Windows asks for OS descriptors only where bcdUSB is 2.0 or more */
export function deviceDescriptor(device: UsbDescription, at: SpeedDescription, microsoft: boolean): number[] {
  return [
    18,
    DESCRIPTOR.DEVICE,
    ...word(microsoft ? Math.max(at.usb, 0x0200) : at.usb),
    at.class ?? 0,
    at.subclass ?? 0,
    at.protocol ?? 0,
    at.maxPacketSize0,
    ...word(device.vendor),
    ...word(device.product),
    ...word(device.release),
    device.manufacturerName,
    device.productName,
    device.serialNumber,
    at.configurations.length,
  ];
}

export function deviceQualifier(at: SpeedDescription): number[] {
  return [
    10,
    DESCRIPTOR.DEVICE_QUALIFIER,
    ...word(at.usb),
    at.class ?? 0,
    at.subclass ?? 0,
    at.protocol ?? 0,
    at.maxPacketSize0,
    at.configurations.length,
    0,
  ];
}

/** A configuration with all that is in it. `type` is CONFIGURATION or OTHER_SPEED. */
export function configurationDescriptor(
  at: SpeedDescription,
  configuration: ConfigurationDescription,
  type: number,
): number[] {
  const body = configuration.interfaces.flatMap(description => interfaceDescriptor(description, at.usb >= SUPER_SPEED));
  return [
    9,
    type,
    ...word(9 + body.length),
    configuration.interfaceCount,
    configuration.value,
    configuration.name ?? 0,
    configuration.attributes,
    configuration.maxPower ?? 0,
    ...body,
  ];
}

function interfaceDescriptor(description: InterfaceDescription, superSpeed: boolean): number[] {
  return [
    9,
    DESCRIPTOR.INTERFACE,
    description.number,
    description.alternate ?? 0,
    description.endpoints.length,
    description.class,
    description.subclass ?? 0,
    description.protocol ?? 0,
    description.name ?? 0,
    ...(description.extra ?? []).flat(),
    ...description.endpoints.flatMap(endpoint => endpointDescriptor(endpoint, superSpeed)),
  ];
}

function endpointDescriptor(endpoint: EndpointDescription, superSpeed: boolean): number[] {
  const companion = [
    6,
    DESCRIPTOR.ENDPOINT_COMPANION,
    endpoint.maxBurst ?? 0,
    endpoint.streams ?? 0,
    ...word(endpoint.bytesPerInterval ?? 0),
  ];
  return [
    endpoint.audio === true ? 9 : 7,
    DESCRIPTOR.ENDPOINT,
    endpoint.address,
    endpoint.attributes ?? endpoint.type,
    ...word(endpoint.maxPacketSize),
    endpoint.interval ?? 0,
    ...(endpoint.audio === true ? [0, 0] : []),
    ...(superSpeed ? companion : []),
    ...(endpoint.extra ?? []),
  ];
}

/** String 0 lists the languages: English only. */
export function languageDescriptor(): number[] {
  return [4, DESCRIPTOR.STRING, ...word(LANGUAGE_EN_US)];
}

export function stringDescriptor(text: string): number[] {
  const units = [...text.slice(0, MAX_STRING)].flatMap(character => word(character.charCodeAt(0)));
  return [2 + units.length, DESCRIPTOR.STRING, ...units];
}

/** The binary object store (USB 3.0, section 9.6.2): a USB 2.0 extension, and the SuperSpeed capability. */
export function bosDescriptor(device: UsbDescription): number[] {
  const capabilities: number[][] = [];
  if (device.high !== undefined) capabilities.push([7, DESCRIPTOR.CAPABILITY, 2, ...dword(1 << 1)]);
  if (device.super !== undefined) {
    const speeds = [device.full, device.high, device.super];
    const mask = speeds.reduce((bits, at, index) => (at === undefined ? bits : bits | (2 << index)), 0);
    const lowest = 1 + speeds.findIndex(at => at !== undefined);
    capabilities.push([10, DESCRIPTOR.CAPABILITY, 3, 0, ...word(mask), lowest, 0x0a, ...word(0x20)]);
  }
  const body = capabilities.flat();
  return [5, DESCRIPTOR.BOS, ...word(5 + body.length), capabilities.length, ...body];
}

/** Extended compat ID (`index` 4) and extended properties (`index` 5); empty for others. */
export function microsoftDescriptor(description: MicrosoftDescription, index: number): number[] {
  if (index === 4) {
    const id = [...(description.compatibleId ?? '').padEnd(8, '\0')].map(character => character.charCodeAt(0));
    const body = [0, 1, ...id.slice(0, 8), ...new Array<number>(14).fill(0)];
    return [...dword(16 + body.length), ...word(0x0100), ...word(4), 1, ...new Array<number>(7).fill(0), ...body];
  }
  if (index !== 5) return [];
  const properties: number[][] = [];
  if (description.label !== undefined) properties.push(microsoftProperty(1, 'Label', utf16(description.label)));
  if (description.selectiveSuspend) properties.push(microsoftProperty(4, 'SelectiveSuspendEnabled', dword(1)));
  const body = properties.flat();
  return [...dword(10 + body.length), ...word(0x0100), ...word(5), ...word(properties.length), ...body];
}

function microsoftProperty(type: number, name: string, data: readonly number[]): number[] {
  const nameBytes = utf16(name);
  return [
    ...dword(14 + nameBytes.length + data.length),
    ...dword(type),
    ...word(nameBytes.length),
    ...nameBytes,
    ...dword(data.length),
    ...data,
  ];
}

function utf16(text: string): number[] {
  return [...`${text}\0`].flatMap(character => word(character.charCodeAt(0)));
}
