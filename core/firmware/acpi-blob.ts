/** The file `etc/acpi/tables`: system description tables in a row, and the script that makes the firmware link them. */
import { concat, u32, u64 } from './aml.ts';
import { TableLoader } from './table-loader.ts';

export const TABLES_FILE = 'etc/acpi/tables';
export const RSDP_FILE = 'etc/acpi/rsdp';
export const LOADER_FILE = 'etc/table-loader';

/** The vendor that every table names (ACPI 6.4 section 5.2.6). */
export interface AcpiOem {
  /** At most six characters. */
  readonly id: string;
  /** At most eight characters. */
  readonly tableId: string;
}

export const DEFAULT_OEM: AcpiOem = { id: 'BOCHS ', tableId: 'BXPC    ' };

const CREATOR_ID = 'BXPC';
const HEADER_SIZE = 36;
const CHECKSUM_OFFSET = 9;
/** The file's size is rounded up, so that tables which grow a little stay migratable. */
const FILE_ALIGNMENT = 0x2_0000;
/** The FACS is the one table with an alignment of its own (5.2.10); it comes first. */
const FACS_ALIGNMENT = 64;

/** An address in a table's body, which the firmware fills in: `target` is an offset into `file`. */
export interface TablePointer {
  readonly at: number;
  readonly size: 4 | 8;
  readonly target: number;
  readonly file?: string;
}

/** Everything of a system description table but its header. */
export interface TableContent {
  readonly signature: string;
  readonly revision: number;
  readonly body: Uint8Array;
  readonly pointers?: readonly TablePointer[];
}

/** ASCII in a field of `size` bytes, zeroes behind it. */
export function padded(value: string, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  bytes.set(Buffer.from(value, 'latin1').subarray(0, size));
  return bytes;
}

/** A whole table (5.2.6) with its checksum, as a system would find it once linked at address zero. */
export function tableBytes(content: TableContent, oem: AcpiOem): Uint8Array {
  const table = concat(
    padded(content.signature, 4),
    u32(HEADER_SIZE + content.body.length),
    [content.revision, 0],
    padded(oem.id, 6),
    padded(oem.tableId, 8),
    u32(1),
    padded(CREATOR_ID, 4),
    u32(1),
    content.body,
  );
  table[CHECKSUM_OFFSET] = -table.reduce((sum, byte) => sum + byte, 0) & 0xff;
  return table;
}

/** Collects tables and writes the loader script beside them. */
export class AcpiBlob {
  readonly loader = new TableLoader();
  readonly #oem: AcpiOem;
  readonly #parts: Uint8Array[] = [];
  readonly #listed: number[] = [];
  #length = 0;
  #rsdp: Uint8Array = new Uint8Array(0);

  constructor(oem: AcpiOem = DEFAULT_OEM) {
    this.#oem = oem;
    this.loader.allocate(TABLES_FILE, FACS_ALIGNMENT, 'high');
  }

  /** Bytes in use so far: the offset of what is appended next. */
  get length(): number {
    return this.#length;
  }

  /** Appends bytes that bear no table header: the FACS, or a table that the user supplied. */
  append(bytes: Uint8Array): number {
    const offset = this.#length;
    this.#parts.push(bytes);
    this.#length += bytes.length;
    return offset;
  }

  /** Appends a table. Returns its offset. */
  add(content: TableContent, oem: AcpiOem = this.#oem): number {
    const table = tableBytes(content, oem);
    const offset = this.append(table);
    const view = new DataView(table.buffer, table.byteOffset);
    for (const pointer of content.pointers ?? []) {
      const at = HEADER_SIZE + pointer.at;
      if (pointer.size === 8) view.setBigUint64(at, BigInt(pointer.target), true);
      else view.setUint32(at, pointer.target, true);
      this.loader.addPointer(TABLES_FILE, offset + at, pointer.size, pointer.file ?? TABLES_FILE);
    }
    table[CHECKSUM_OFFSET] = 0;
    this.loader.addChecksum(TABLES_FILE, offset + CHECKSUM_OFFSET, offset, table.length);
    return offset;
  }

  /** Appends a table that the RSDT or XSDT lists. */
  list(content: TableContent, oem: AcpiOem = this.#oem): number {
    const offset = this.add(content, oem);
    this.#listed.push(offset);
    return offset;
  }

  /** Appends and lists a complete table (`-acpitable`). */
  listRaw(table: Uint8Array): void {
    this.#listed.push(this.append(table));
  }

  /** Ends the tables with an RSDT (5.2.7) or an XSDT (5.2.8) and builds the RSDP (5.2.5) that points at it. */
  finish(root: 'RSDT' | 'XSDT', rootOem: AcpiOem = this.#oem): void {
    const size = root === 'RSDT' ? 4 : 8;
    const pointers = this.#listed.map((target, index): TablePointer => ({ at: index * size, size, target }));
    const body = new Uint8Array(this.#listed.length * size);
    const offset = this.add({ signature: root, revision: 1, body, pointers }, rootOem);
    const isV1 = root === 'RSDT';
    this.loader.allocate(RSDP_FILE, 16, 'fSegment');
    const oemId = padded(this.#oem.id, 6);
    this.#rsdp = isV1
      ? concat(padded('RSD PTR ', 8), [0], oemId, [0], u32(offset))
      : concat(padded('RSD PTR ', 8), [0], oemId, [2], u32(0), u32(36), u64(offset), [0, 0, 0, 0]);
    if (isV1) {
      this.loader.addPointer(RSDP_FILE, 16, 4, TABLES_FILE);
      this.loader.addChecksum(RSDP_FILE, 8, 0, 20);
    } else {
      this.loader.addChecksum(RSDP_FILE, 8, 0, 20);
      this.loader.addPointer(RSDP_FILE, 24, 8, TABLES_FILE);
      this.loader.addChecksum(RSDP_FILE, 32, 0, 36);
    }
  }

  /**
   * The files to offer over fw_cfg, by name.
   * @param alignment bytes; tables that may grow while the machine runs are padded, so that a migrated machine's have the same size
   */
  files(alignment = FILE_ALIGNMENT): {
    readonly tables: Uint8Array;
    readonly rsdp: Uint8Array;
    readonly loader: Uint8Array;
  } {
    const tables = new Uint8Array(Math.ceil(this.#length / alignment) * alignment);
    tables.set(concat(...this.#parts));
    return { tables, rsdp: this.#rsdp, loader: this.loader.bytes() };
  }
}
