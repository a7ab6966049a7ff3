/** A table of the user's own: `-acpitable` with a header in the file, or with one made from the parameters. */
import { SouthbridgeError } from '../errors.ts';
import type { AcpiOem } from './acpi-blob.ts';
import { concat } from './aml.ts';

const HEADER_SIZE = 36;
const MAX_SIZE = 0xffff;
const LENGTH = 4;
const CHECKSUM = 9;
/** Where text parameters go in the header, and how long they may be (ACPI 6.4 section 5.2.6). */
const TEXTS: Readonly<Record<string, readonly [offset: number, size: number]>> = {
  sig: [0, 4],
  oem_id: [10, 6],
  oem_table_id: [16, 8],
  asl_compiler_id: [28, 4],
};
/** The same of numbers. */
const NUMBERS: Readonly<Record<string, readonly [offset: number, size: number]>> = {
  rev: [8, 1],
  oem_rev: [24, 4],
  asl_compiler_rev: [32, 4],
};

function fail(message: string): never {
  throw new SouthbridgeError('ERR_ACPI_TABLE', message);
}

/** A header that names us in every field. */
function defaultHeader(): Uint8Array {
  const one = [1, 0, 0, 0];
  const text = (value: string): Buffer => Buffer.from(value, 'latin1');
  return concat(text('QEMU'), [0, 0, 0, 0, 1, 0], text('QEMUQEQEMUQEMU'), one, text('QEMU'), one);
}

export interface UserTable {
  readonly bytes: Uint8Array;
  readonly warnings: readonly string[];
}

/**
 * Makes the table of one `-acpitable`.
 *
 * @param parameters as the user gave them; `file` or `data` lists paths between colons
 * @param readFile the contents of a host file; undefined where it cannot be read
 * @throws SouthbridgeError ERR_ACPI_TABLE with QEMU's wording
 */
export function userTable(
  parameters: Readonly<Record<string, string>>,
  readFile: (path: string) => Uint8Array | undefined,
): UserTable {
  const { file, data } = parameters;
  if ((file === undefined) === (data === undefined)) fail("'-acpitable' requires one of 'data' or 'file'");
  const parts = (file ?? data ?? '').split(':').map(path => {
    return readFile(path) ?? fail(`can't open file ${path}: No such file or directory`);
  });
  const body = concat(...parts);
  const hasHeader = file !== undefined;
  if (hasHeader && body.length < HEADER_SIZE) {
    fail(`ACPI table claiming to have header is too short, available: ${body.length}, expected: ${HEADER_SIZE}`);
  }
  const table = hasHeader ? body : concat(defaultHeader(), body);
  if (table.length > MAX_SIZE) fail(`ACPI table too big, requested: ${table.length}, max: ${MAX_SIZE}`);
  const warnings: string[] = [];
  const view = new DataView(table.buffer, table.byteOffset, table.length);
  const claimed = view.getUint32(LENGTH, true);
  if (hasHeader && claimed !== table.length) {
    warnings.push(`ACPI table has wrong length, header says ${claimed}, actual size ${table.length} bytes`);
  }
  const changed = overrideHeader(table, view, parameters);
  if (!hasHeader && changed === 0) warnings.push('ACPI table: no headers are specified');
  view.setUint32(LENGTH, table.length, true);
  table[CHECKSUM] = 0;
  table[CHECKSUM] = -table.reduce((sum, byte) => sum + byte, 0) & 0xff;
  return { bytes: table, warnings };
}

/** Writes what the user gave over the header. Returns how much that was. */
function overrideHeader(table: Uint8Array, view: DataView, parameters: Readonly<Record<string, string>>): number {
  let changed = 0;
  for (const [key, value] of Object.entries(parameters)) {
    const text = TEXTS[key];
    const number = NUMBERS[key];
    if (text !== undefined) {
      const [offset, size] = text;
      table.fill(0, offset, offset + size);
      table.set(Buffer.from(value, 'latin1').subarray(0, size), offset);
    } else if (number !== undefined) {
      const [offset, size] = number;
      const parsed = parseNumber(key, value, size);
      if (size === 1) view.setUint8(offset, parsed);
      else view.setUint32(offset, parsed, true);
    } else {
      if (key !== 'file' && key !== 'data') fail(`Invalid parameter '${key}'`);
      continue;
    }
    changed++;
  }
  return changed;
}

function parseNumber(key: string, value: string, size: number): number {
  const digits = /^0[0-7]+$/.test(value) ? `0o${value.slice(1)}` : value;
  const parsed = /^(0x[0-9a-f]+|0o[0-7]+|\d+)$/i.test(digits) ? Number(digits) : Number.NaN;
  if (!(parsed < 256 ** size)) fail(`Parameter '${key}' expects uint${size * 8}_t`);
  return parsed;
}

/** The OEM fields of a user's SLIC, which systems want to find in the FADT and RSDT too. */
export function slicOem(tables: readonly Uint8Array[]): AcpiOem | undefined {
  const text = (table: Uint8Array, key: 'sig' | 'oem_id' | 'oem_table_id'): string => {
    const [offset, size] = TEXTS[key] ?? [0, 0];
    return Buffer.from(table.subarray(offset, offset + size))
      .toString('latin1')
      .replace(/\0.*$/s, '');
  };
  const slic = tables.find(table => text(table, 'sig') === 'SLIC');
  return slic === undefined ? undefined : { id: text(slic, 'oem_id'), tableId: text(slic, 'oem_table_id') };
}
