/** Where error records are kept: slots in a stretch of memory, with a header that says which record each holds. */
import { SouthbridgeError } from '../../core/errors.ts';
import type { GuestRam } from '../../core/memory/guest-ram.ts';

/** The header (QEMU docs/specs/acpi_erst): offsets in bytes. A list of record identifiers, one for each slot, follows. */
const HEADER = {
  MAGIC: 0,
  RECORD_SIZE: 8,
  STORAGE_OFFSET: 12,
  VERSION: 16,
  RESERVED: 18,
  RECORD_COUNT: 20,
  IDENTIFIERS: 24,
} as const;
const MAGIC = 0x524f_5453_5453_5245n;
const VERSION = 0x0100;
const SMALLEST_RECORD = 4096;

/** Identifiers that are none: of a slot that is free, and behind the last record. */
export const UNSPECIFIED = 0n;
export const END_OF_RECORDS = 0xffff_ffff_ffff_ffffn;

export const isIdentifier = (identifier: bigint): boolean =>
  identifier !== UNSPECIFIED && identifier !== END_OF_RECORDS;

/** Records of one size each, which outlive the machine where the memory is a file's. */
export class RecordStore {
  /** Bytes of a slot, a power of two. */
  readonly recordSize: number;
  readonly firstSlot: number;
  readonly slotCount: number;
  readonly #ram: GuestRam;

  /**
   * @param recordSize of a store that is new
   * @throws SouthbridgeError ERR_ERST_STORE where the memory holds something else, or a header that contradicts itself
   */
  constructor(ram: GuestRam, recordSize: number) {
    this.#ram = ram;
    const { view } = ram;
    if (ram.size < HEADER.IDENTIFIERS) throw refused(recordSize);
    if (view.getBigUint64(HEADER.MAGIC, true) === 0n) this.#format(recordSize);
    const size = view.getUint32(HEADER.RECORD_SIZE, true);
    if (size < SMALLEST_RECORD || (size & (size - 1)) !== 0)
      throw new SouthbridgeError('ERR_ERST_STORE', `ERST record_size ${size} is invalid`);
    this.recordSize = size;
    const storage = view.getUint32(HEADER.STORAGE_OFFSET, true);
    if (
      view.getBigUint64(HEADER.MAGIC, true) !== MAGIC ||
      view.getUint16(HEADER.VERSION, true) !== VERSION ||
      view.getUint16(HEADER.RESERVED, true) !== 0 ||
      storage % size !== 0
    )
      throw invalidHeader();
    if (ram.size % size !== 0) throw refused(size);
    this.slotCount = ram.size / size;
    this.firstSlot = storage / size;
    if (storage < headerSize(this.slotCount) || this.firstSlot > this.slotCount) throw invalidHeader();
  }

  get count(): number {
    return this.#ram.view.getUint32(HEADER.RECORD_COUNT, true);
  }

  /** The record in a slot; {@link UNSPECIFIED} where there is none. */
  identifierAt(slot: number): bigint {
    return this.#ram.view.getBigUint64(HEADER.IDENTIFIERS + slot * 8, true);
  }

  /** The slot of a record, or undefined. */
  find(identifier: bigint): number | undefined {
    return this.#search(this.firstSlot, found => found === identifier);
  }

  /** The first slot with a record, from `slot` on. */
  occupied(slot: number): number | undefined {
    return this.#search(Math.max(slot, this.firstSlot), found => found !== UNSPECIFIED);
  }

  free(): number | undefined {
    return this.find(UNSPECIFIED);
  }

  /** The bytes of a slot; only valid until the guest runs again. */
  slot(slot: number): Uint8Array {
    return this.#ram.bytes.subarray(slot * this.recordSize, (slot + 1) * this.recordSize);
  }

  /** Puts a record where none is, or another of the same identifier was. */
  put(slot: number, identifier: bigint, record: Uint8Array): void {
    if (this.identifierAt(slot) === UNSPECIFIED) this.#setCount(this.count + 1);
    const bytes = this.slot(slot);
    bytes.set(record);
    bytes.fill(0xff, record.length);
    this.#setIdentifier(slot, identifier);
  }

  remove(slot: number): void {
    this.#setIdentifier(slot, UNSPECIFIED);
    this.#setCount(this.count - 1);
  }

  #search(from: number, wanted: (identifier: bigint) => boolean): number | undefined {
    for (let slot = from; slot < this.slotCount; slot++) if (wanted(this.identifierAt(slot))) return slot;
    return undefined;
  }

  #setCount(count: number): void {
    this.#ram.view.setUint32(HEADER.RECORD_COUNT, count, true);
  }

  #setIdentifier(slot: number, identifier: bigint): void {
    this.#ram.view.setBigUint64(HEADER.IDENTIFIERS + slot * 8, identifier, true);
  }

  #format(recordSize: number): void {
    const { view } = this.#ram;
    const slots = Math.floor(this.#ram.size / Math.max(1, recordSize));
    view.setBigUint64(HEADER.MAGIC, MAGIC, true);
    view.setUint32(HEADER.RECORD_SIZE, recordSize, true);
    view.setUint16(HEADER.VERSION, VERSION, true);
    const whole = Math.ceil(headerSize(slots) / Math.max(1, recordSize)) * recordSize;
    view.setUint32(HEADER.STORAGE_OFFSET, whole, true);
  }
}

const headerSize = (slots: number): number => HEADER.IDENTIFIERS + slots * 8;

const invalidHeader = (): SouthbridgeError =>
  new SouthbridgeError(
    'ERR_ERST_STORE',
    'ERST backend storage header is invalid',
    'the memory holds something else; give the device an empty file',
  );

const refused = (recordSize: number): SouthbridgeError =>
  new SouthbridgeError(
    'ERR_ERST_STORE',
    `ACPI ERST requires storage size be multiple of record size (${recordSize / 1024}KiB)`,
  );
