/** The coherent device attribute table (CDAT specification 1.03): what a device or a switch says of the memory that is reached through it. */
import { readFileSync } from 'node:fs';
import { reason } from '../../core/block/io-error.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { concat, u8, u16, u32, u64 } from '../../core/firmware/aml.ts';
import type { DataObjectProtocol } from '../../core/pci/data-object-exchange.ts';

/** Tables 1 and 2. */
const HEADER_SIZE = 16;
const REVISION = 2;
const CHECKSUM_AT = 5;
const TYPE = { DSMAS: 0, DSLBIS: 1, DSMSCIS: 2, DSIS: 3, DSEMTS: 4, SSLBIS: 5 } as const;
/** Bytes of a structure by its type; the last has as many entries as it likes. */
const SIZES: readonly number[] = [24, 24, 20, 8, 24];
const SSLBIS = { SIZE: 16, ENTRY: 8 } as const;
const STRUCTURE_HEADER = 4;

const NON_VOLATILE = 1 << 2;
/** EFI memory type: what matters is that the range is non-volatile. */
const RESERVED_MEMORY = 2;
/** HMAT (ACPI 6.4, 5.2.27.4): data types, in units of 10 ns, and of 1,000 MB/s. */
const DATA = {
  ACCESS_LATENCY: 0,
  READ_LATENCY: 1,
  WRITE_LATENCY: 2,
  ACCESS_BANDWIDTH: 3,
  READ_BANDWIDTH: 4,
  WRITE_BANDWIDTH: 5,
} as const;
const LATENCY_UNIT = 10_000;
const BANDWIDTH_UNIT = 1000;
const READ_LATENCY = 15;
const WRITE_LATENCY = 25;
const BANDWIDTH = 16;
const UPSTREAM_PORT = 0x100;

/** CXL 2.0, 8.1.11: reading the table by data object exchange. */
const VENDOR = 0x1e98;
const TABLE_ACCESS = 2;
const READ_ENTRY = 0;
const LAST_ENTRY = 0xffff;
const REQUEST_WORDS = 3;

/** The table: its header, and the structures one by one. */
export type AttributeTable = readonly Uint8Array[];

function structure(type: number, ...fields: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  const body = concat(...fields);
  return concat(u8(type), u8(0), u16(STRUCTURE_HEADER + body.length), body);
}

/** Tables 3, 5 and 8: a device with `size` bytes of memory that keeps its contents. */
export function memoryTable(size: number): AttributeTable {
  const handle = 0;
  const performance = (data: number, unit: number, value: number): Uint8Array =>
    structure(TYPE.DSLBIS, [handle, 0, data, 0], u64(unit), u16(value), u16(0), u16(0), u16(0));
  return withHeader([
    structure(TYPE.DSMAS, [handle, NON_VOLATILE, 0, 0], u64(0), u64(size)),
    performance(DATA.READ_LATENCY, LATENCY_UNIT, READ_LATENCY),
    performance(DATA.WRITE_LATENCY, LATENCY_UNIT, WRITE_LATENCY),
    performance(DATA.READ_BANDWIDTH, BANDWIDTH_UNIT, BANDWIDTH),
    performance(DATA.WRITE_BANDWIDTH, BANDWIDTH_UNIT, BANDWIDTH),
    structure(TYPE.DSEMTS, [handle, RESERVED_MEMORY, 0, 0], u64(0), u64(size)),
  ]);
}

/** Tables 9 and 10: a switch, from its upstream port to each of `ports`. */
export function switchTable(ports: readonly number[]): AttributeTable {
  const performance = (data: number, unit: number, value: number): Uint8Array =>
    structure(
      TYPE.SSLBIS,
      [data, 0, 0, 0],
      u64(unit),
      ...ports.map(port => concat(u16(UPSTREAM_PORT), u16(port), u16(value), u16(0))),
    );
  return withHeader([
    performance(DATA.ACCESS_LATENCY, LATENCY_UNIT, READ_LATENCY),
    performance(DATA.ACCESS_BANDWIDTH, BANDWIDTH_UNIT, BANDWIDTH),
  ]);
}

function withHeader(structures: readonly Uint8Array[]): AttributeTable {
  const length = structures.reduce((sum, { length: bytes }) => sum + bytes, HEADER_SIZE);
  const header = concat(u32(length), [REVISION, 0], new Uint8Array(6), u32(0));
  header[CHECKSUM_AT] = -sumOf([header, ...structures]);
  return [header, ...structures];
}

function sumOf(parts: readonly Uint8Array[]): number {
  let sum = 0;
  for (const part of parts) for (const byte of part) sum = (sum + byte) & 0xff;
  return sum;
}

/**
 * A table from a file, as `cdat=` names it.
 * @param warn is told of a checksum that is wrong
 * @throws SouthbridgeError ERR_CDAT where the file cannot be read or is no such table
 */
export function tableFromFile(path: string, warn: (message: string) => void): AttributeTable {
  const bytes = contents(path);
  if (bytes.length < HEADER_SIZE) throw refused('File too short', path);
  const table = [bytes.subarray(0, HEADER_SIZE)];
  for (let at = HEADER_SIZE; at < bytes.length; ) {
    const length = structureLength(bytes, at, path);
    table.push(bytes.subarray(at, at + length));
    at += length;
  }
  if (sumOf(table) !== 0) warn(`CDAT: Found checksum mismatch in ${path}`);
  return table;
}

function contents(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new SouthbridgeError('ERR_CDAT', 'CDAT: Unable to open file', `'${path}': ${reason(cause)}`, { cause });
  }
}

function structureLength(bytes: Uint8Array, at: number, path: string): number {
  const [type = 0, , low = 0, high = 0] = bytes.subarray(at, at + STRUCTURE_HEADER);
  const length = low | (high << 8);
  if (type > TYPE.SSLBIS) throw new SouthbridgeError('ERR_CDAT', `Type ${type} is reserved`, `at ${at} of '${path}'`);
  const fits =
    type === TYPE.SSLBIS
      ? length >= SSLBIS.SIZE && (length - SSLBIS.SIZE) % SSLBIS.ENTRY === 0
      : length === SIZES[type];
  if (!fits || at + length > bytes.length) throw refused('File length mismatch', path);
  return length;
}

function refused(what: string, path: string): SouthbridgeError {
  return new SouthbridgeError('ERR_CDAT', `CDAT: ${what}`, `give cdat= another file than '${path}'`);
}

/** 8.1.11.1: gives out the table an entry at a time. @param table undefined while there is nothing to say */
export function tableAccess(table: () => AttributeTable | undefined): DataObjectProtocol {
  return {
    vendor: VENDOR,
    type: TABLE_ACCESS,
    answer([request = 0], length) {
      const entries = table();
      const handle = request >>> 16;
      const entry = entries?.[handle];
      // A table of another type there is none of; nor are there requests of another code.
      if (length < REQUEST_WORDS || (request & 0xffff) !== READ_ENTRY || entries === undefined || entry === undefined)
        return undefined;
      return concat([0, 0], u16(handle + 1 < entries.length ? handle + 1 : LAST_ENTRY), entry);
    },
  };
}
