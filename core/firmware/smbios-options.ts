/** What the user says with `-smbios type=...` and `-smbios file=...`, checked as it comes in. */
import { SouthbridgeError } from '../errors.ts';

export type SmbiosFields = Readonly<Record<string, string>>;

export interface SmbiosFile {
  readonly type: number;
  readonly bytes: Uint8Array;
}

/** Parameters by structure type; a `#` marks those that are numbers. */
const PARAMETERS: Readonly<Record<number, readonly string[]>> = {
  0: ['vendor', 'version', 'date', 'release', 'uefi'],
  1: ['manufacturer', 'product', 'version', 'serial', 'uuid', 'sku', 'family'],
  2: ['manufacturer', 'product', 'version', 'serial', 'asset', 'location'],
  3: ['manufacturer', 'version', 'serial', 'asset', 'sku'],
  4: [
    'sock_pfx',
    'manufacturer',
    'version',
    '#max-speed',
    '#current-speed',
    'serial',
    'asset',
    'part',
    '#processor-id',
  ],
  8: ['internal_reference', 'external_reference', '#connector_type', '#port_type'],
  11: ['value', 'path'],
  17: ['loc_pfx', 'bank', 'manufacturer', 'serial', 'asset', 'part', '#speed'],
  41: ['designation', 'kind', '#instance', 'pcidev'],
};

const MAX_TYPE = 127;
const HEADER_SIZE = 4;
const MAX_SPEED = 0xffff;
/** Type 41: what a device on the board is, from 1 up (7.42.2). */
export const ONBOARD_KINDS: readonly string[] = [
  'other',
  'unknown',
  'video',
  'scsi',
  'ethernet',
  'tokenring',
  'sound',
  'pata',
  'sata',
  'sas',
];
const NUMBER = /^(0x[0-9a-f]+|[0-9]+)$/i;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

function fail(message: string): never {
  throw new SouthbridgeError('ERR_SMBIOS', message);
}

function parseNumber(value: string): bigint {
  return BigInt(/^0[0-7]+$/.test(value) ? `0o${value.slice(1)}` : value);
}

export class SmbiosOptions {
  readonly files: SmbiosFile[] = [];
  readonly ports: SmbiosFields[] = [];
  readonly oemStrings: string[] = [];
  readonly onboard: SmbiosFields[] = [];
  readonly #fields = new Map<number, Record<string, string>>();
  readonly #readFile: (path: string) => Uint8Array | undefined;

  /** @param readFile the contents of a host file; undefined where it cannot be read */
  constructor(readFile: (path: string) => Uint8Array | undefined) {
    this.#readFile = readFile;
  }

  /**
   * Takes one `-smbios` argument as its parameters, in order.
   *
   * @throws SouthbridgeError ERR_SMBIOS with QEMU's wording
   */
  add(parameters: readonly (readonly [string, string])[]): void {
    const given = new Map(parameters);
    const path = given.get('file');
    if (path !== undefined) {
      this.#validate(parameters, ['file']);
      this.#addFile(path);
      return;
    }
    const typeText = given.get('type');
    if (typeText === undefined) fail('Must specify type= or file=');
    const type = NUMBER.test(typeText) ? Number(parseNumber(typeText)) : 0;
    if (type > MAX_TYPE) fail('out of range!');
    if (this.hasFile(type)) fail("can't add fields, binary file already loaded!");
    const known = PARAMETERS[type];
    if (known === undefined) fail(`Don't know how to build fields for SMBIOS type ${type}`);
    this.#validate(parameters, ['#type', ...known]);
    this.#addFields(type, parameters, given);
  }

  /** The user supplied a whole structure of this type. */
  hasFile(type: number): boolean {
    return this.files.some(file => file.type === type);
  }

  /** The user set fields of this type. */
  hasFields(type: number): boolean {
    return this.#fields.has(type);
  }

  fields(type: number): SmbiosFields {
    return this.#fields.get(type) ?? {};
  }

  number(fields: SmbiosFields, key: string, otherwise: number): number {
    const value = fields[key];
    return value === undefined ? otherwise : Number(parseNumber(value));
  }

  bigint(fields: SmbiosFields, key: string): bigint {
    const value = fields[key];
    return value === undefined ? 0n : BigInt.asUintN(64, parseNumber(value));
  }

  boolean(fields: SmbiosFields, key: string): boolean {
    return /^(on|yes|true|y)$/.test(fields[key] ?? '');
  }

  #addFile(path: string): void {
    const bytes = this.#readFile(path);
    if (bytes === undefined || bytes.length < HEADER_SIZE) fail(`Cannot read SMBIOS file ${path}`);
    const type = bytes[0] ?? 0;
    if (type <= MAX_TYPE && this.hasFields(type)) {
      fail(`can't load type ${type} struct, fields already specified!`);
    }
    this.files.push({ type, bytes });
  }

  #addFields(type: number, parameters: readonly (readonly [string, string])[], given: Map<string, string>): void {
    const fields = this.#fields.get(type) ?? {};
    this.#fields.set(type, fields);
    switch (type) {
      case 0: {
        const release = given.get('release');
        if (release !== undefined && !/^\s*[0-9]+\.[0-9]+/.test(release)) fail('Invalid release');
        break;
      }
      case 1: {
        const uuid = given.get('uuid');
        if (uuid !== undefined && !UUID.test(uuid)) fail('Invalid UUID');
        break;
      }
      case 4:
        for (const key of ['max-speed', 'current-speed']) {
          if (parseNumber(given.get(key) ?? '0') > MAX_SPEED) {
            fail(`SMBIOS CPU speed is too large (> ${MAX_SPEED})`);
          }
        }
        break;
      case 8:
        this.ports.push(Object.fromEntries(given));
        return;
      case 11:
        for (const [key, value] of parameters) this.#addOemString(key, value);
        return;
      case 41: {
        const kind = given.get('kind');
        if (kind !== undefined && !ONBOARD_KINDS.includes(kind)) {
          fail(`invalid parameter value: ${kind}`);
        }
        this.onboard.push(Object.fromEntries(given));
        return;
      }
    }
    Object.assign(fields, Object.fromEntries(given));
  }

  #addOemString(key: string, value: string): void {
    if (key === 'value') this.oemStrings.push(value);
    if (key !== 'path') return;
    const bytes = this.#readFile(value);
    if (bytes === undefined) fail(`Could not open '${value}': No such file or directory`);
    if (bytes.includes(0)) fail(`NUL in OEM strings value in ${value}`);
    this.oemStrings.push(Buffer.from(bytes).toString('utf8'));
  }

  #validate(parameters: readonly (readonly [string, string])[], known: readonly string[]): void {
    for (const [key, value] of parameters) {
      if (known.includes(`#${key}`)) {
        if (!NUMBER.test(value)) fail(`Parameter '${key}' expects a number`);
      } else if (!known.includes(key)) {
        fail(`Invalid parameter '${key}'`);
      }
    }
  }
}
