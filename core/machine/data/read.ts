import { didYouMean } from '../../errors.ts';
import {
  type DataPlace,
  type DataValue,
  type DeviceData,
  type MachineData,
  OPTION_KINDS,
  type OptionData,
  type WireData,
} from './format.ts';

type Reader<T> = (value: unknown, place: DataPlace) => T;

const DEFAULTS = ['serial', 'parallel', 'floppy', 'cdrom'] as const;

/** Reads a machine out of parsed JSON. @throws SouthbridgeError ERR_MACHINE_DATA with the path of what is wrong */
export const readMachine: Reader<MachineData> = (value, place) =>
  record(value, place, {
    $schema: optional(text),
    type: name,
    summary: text,
    extends: text,
    aliases: optional(list(name)),
    plugins: optional(list(text)),
    memory: optional(text),
    options: optional(mapping(readOption)),
    defaults: optional((given, at) =>
      record(given, at, Object.fromEntries(DEFAULTS.map(each => [each, optional(flag)]))),
    ),
    globals: optional(mapping(mapping(text))),
    devices: optional(list(readDevice)),
    wires: optional(list(readWire)),
  }) as unknown as MachineData;

const readDevice: Reader<DeviceData> = (value, place) =>
  record(value, place, {
    driver: text,
    id: optional(name),
    bus: optional(text),
    if: optional(text),
    properties: optional(mapping(propertyValue)),
  }) as unknown as DeviceData;

const readWire: Reader<WireData> = (value, place) =>
  record(value, place, { from: text, to: text }) as unknown as WireData;

const readOption: Reader<OptionData> = (value, place) =>
  record(value, place, {
    type: oneOf(OPTION_KINDS),
    default: optional(scalar),
    help: optional(text),
  }) as unknown as OptionData;

const propertyValue: Reader<DataValue> = (value, place) =>
  typeof value === 'object' && value !== null
    ? (record(value, place, { option: text }) as { readonly option: string })
    : scalar(value, place);

function kindOf(value: unknown): string {
  return value === null
    ? 'null'
    : Array.isArray(value)
      ? 'a list'
      : typeof value === 'object'
        ? 'an object'
        : `a ${typeof value}`;
}

const text: Reader<string> = (value, place) => {
  if (typeof value === 'string') return value;
  throw place.error(value === undefined ? 'is missing' : `is ${kindOf(value)}, and must be text`);
};

const name: Reader<string> = (value, place) => {
  const given = text(value, place);
  if (/^[A-Za-z][A-Za-z0-9._-]*$/.test(given)) return given;
  throw place.error(`'${given}' is no name`, 'use letters, digits, dots and dashes, and begin with a letter');
};

const flag: Reader<boolean> = (value, place) => {
  if (typeof value === 'boolean') return value;
  throw place.error(`is ${kindOf(value)}, and must be true or false`);
};

const scalar: Reader<string | number | boolean> = (value, place) => {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value;
  throw place.error(`is ${kindOf(value)}, and must be text, a number, true or false`);
};

const oneOf =
  <const C extends readonly string[]>(choices: C): Reader<C[number]> =>
  (value, place) => {
    const given = text(value, place);
    const found = choices.find(choice => choice === given);
    if (found !== undefined) return found;
    throw place.error(`'${given}' is none of ${choices.join(', ')}`, didYouMean(given, choices));
  };

const optional =
  <T>(reader: Reader<T>): Reader<T | undefined> =>
  (value, place) =>
    value === undefined ? undefined : reader(value, place);

const list =
  <T>(reader: Reader<T>): Reader<readonly T[]> =>
  (value, place) => {
    if (!Array.isArray(value)) throw place.error(`is ${kindOf(value)}, and must be a list`);
    return value.map((element, index) => reader(element, place.element(index)));
  };

const mapping =
  <T>(reader: Reader<T>): Reader<Readonly<Record<string, T>>> =>
  (value, place) =>
    Object.fromEntries(
      Object.entries(object(value, place)).map(([key, each]) => [key, reader(each, place.member(key))]),
    );

function object(value: unknown, place: DataPlace): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw place.error(value === undefined ? 'is missing' : `is ${kindOf(value)}, and must be an object`);
}

function record(
  value: unknown,
  place: DataPlace,
  members: Readonly<Record<string, Reader<unknown>>>,
): Readonly<Record<string, unknown>> {
  const given = object(value, place);
  for (const key of Object.keys(given)) {
    if (!Object.hasOwn(members, key))
      throw place.member(key).error('is not known here', didYouMean(key, Object.keys(members)));
  }
  const read = Object.entries(members).map(([key, reader]) => [key, reader(given[key], place.member(key))] as const);
  return Object.fromEntries(read.filter(([, each]) => each !== undefined));
}
