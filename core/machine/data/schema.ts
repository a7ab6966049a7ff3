import type { DeviceType } from '../../device/device-type.ts';
import type { Prop } from '../../device/property.ts';
import type { MachineType } from '../machine-type.ts';
import { OPTION_KINDS } from './format.ts';

type Schema = Readonly<Record<string, unknown>>;

const NAME: Schema = { type: 'string', pattern: '^[A-Za-z][A-Za-z0-9._-]*$' };
const TEXT: Schema = { type: 'string' };
const FLAG: Schema = { type: 'boolean' };
const OPTION_REFERENCE: Schema = {
  type: 'object',
  properties: { option: TEXT },
  required: ['option'],
  additionalProperties: false,
  description: "the value of one of the machine's options",
};

const record = (properties: Readonly<Record<string, Schema>>, required: readonly string[] = []): Schema => ({
  type: 'object',
  properties,
  ...(required.length > 0 && { required }),
  additionalProperties: false,
});
/** One of the names that there are, or another, of a plugin's. */
const named = (names: readonly string[], description: string): Schema => ({
  description,
  anyOf: [{ enum: names }, TEXT],
});

/** The JSON schema (draft 2020-12) of machine files, with the names and properties of these types, for editors to complete. */
export function machineSchema(devices: readonly DeviceType[], machines: readonly MachineType[]): Schema {
  const usable = devices.filter(type => type.userCreatable);
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'A machine type of Southbridge',
    ...record(
      {
        $schema: TEXT,
        type: { ...NAME, description: 'its name, for -machine' },
        summary: { ...TEXT, description: 'what -machine help says' },
        extends: named(
          machines.flatMap(({ type, aliases }) => [type, ...aliases]),
          'the machine type that it is, and more',
        ),
        aliases: { type: 'array', items: NAME },
        plugins: {
          type: 'array',
          items: TEXT,
          description: 'plugins that it needs: paths from this file on, or packages',
        },
        memory: { ...TEXT, description: 'RAM without -m: 128M, 1G' },
        options: {
          type: 'object',
          description: 'what -machine TYPE,name=value takes',
          additionalProperties: record(
            { type: { enum: OPTION_KINDS }, default: { type: ['string', 'number', 'boolean'] }, help: TEXT },
            ['type'],
          ),
        },
        defaults: record({ serial: FLAG, parallel: FLAG, floppy: FLAG, cdrom: FLAG }),
        globals: {
          type: 'object',
          description: 'properties of all devices of a type',
          additionalProperties: { type: 'object', additionalProperties: TEXT },
        },
        devices: { type: 'array', items: deviceSchema(usable) },
        wires: {
          type: 'array',
          description: "from an output to an input: 'ID:PIN', 'ID:LIST[INDEX]', 'isa.0:irq[5]', 'gsi:[16]'",
          items: record({ from: TEXT, to: TEXT }, ['from', 'to']),
        },
      },
      ['type', 'summary', 'extends'],
    ),
    $defs: Object.fromEntries(VALUES),
  };
}

function deviceSchema(devices: readonly DeviceType[]): Schema {
  return {
    ...record(
      {
        driver: named(
          devices.map(({ type }) => type),
          'the device type, as for -device',
        ),
        id: { ...NAME, description: 'what it is called in wires, on buses and by management tools' },
        bus: { ...TEXT, description: 'a bus by name, or the id of the device that has it; else the first that fits' },
        if: { ...TEXT, description: "only where this option of the machine's is given, and not off" },
        properties: { type: 'object' },
      },
      ['driver'],
    ),
    allOf: devices.map(type => ({
      if: { properties: { driver: { const: type.type } } },
      // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
      then: {
        properties: {
          driver: { description: type.summary },
          properties: record(
            Object.fromEntries(Object.entries(type.properties).map(([name, each]) => [name, propertySchema(each)])),
          ),
        },
      },
    })),
  };
}

const unsigned = (maximum: number): Schema => ({
  anyOf: [{ type: 'integer', minimum: 0, maximum }, TEXT, OPTION_REFERENCE],
});

/** The forms that values have; numbers may be text too, as on the command line. */
const VALUES: ReadonlyMap<string, Schema> = new Map([
  ['uint8', unsigned(0xff)],
  ['uint16', unsigned(0xffff)],
  ['uint32', unsigned(0xffff_ffff)],
  ['bool', { anyOf: [FLAG, TEXT, OPTION_REFERENCE] }],
  ['any', { anyOf: [{ type: ['string', 'number', 'boolean'] }, OPTION_REFERENCE] }],
]);

function propertySchema(property: Prop<unknown>): Schema {
  const { type, help, default: fallback } = property;
  const formatted = fallback === undefined ? undefined : property.format(fallback);
  return {
    $ref: `#/$defs/${VALUES.has(type) ? type : 'any'}`,
    ...(help !== undefined && help !== 'on/off' && { description: help }),
    ...(formatted !== undefined && { default: typeof formatted === 'bigint' ? String(formatted) : formatted }),
  };
}

/** The schema as text: one device a line. */
export function schemaText(schema: Schema): string {
  return `${JSON.stringify(schema).replaceAll('{"if":', '\n{"if":').replaceAll('"$defs":', '\n"$defs":')}\n`;
}
