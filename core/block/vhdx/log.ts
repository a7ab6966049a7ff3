import { randomBytes } from 'node:crypto';
import { Parser } from 'binary-parser';
import { BlockError, errno } from '../io-error.ts';
import { couldNotOpen } from '../mapped-image.ts';
import type { BlockNode } from '../node.ts';
import { readBytes, writeBytes } from '../node-bytes.ts';
import type { Task } from '../pending.ts';
import type { Headers } from './headers.ts';
import { GUID_BYTES, hasChecksum, MIB, NO_GUID, seal } from './layout.ts';

/** MS-VHDX 2.3: the log is a ring of sectors. */
export const LOG_SECTOR = 4096;
const ENTRY_HEADER_BYTES = 64;
const DESCRIPTOR_BYTES = 32;
/** Fewer than the smallest log holds. */
const MAX_ENTRY_BYTES = 64 * MIB;
/** As many data descriptors fit into the first sector of an entry. */
export const MAX_PAGES = (LOG_SECTOR - ENTRY_HEADER_BYTES) / DESCRIPTOR_BYTES;

const ENTRY_SIGNATURE = Buffer.from('loge');
const DATA_DESCRIPTOR = Buffer.from('desc');
const ZERO_DESCRIPTOR = Buffer.from('zero');
const DATA_SECTOR = Buffer.from('data');

interface EntryHeader {
  readonly signature: Buffer;
  readonly length: number;
  /** Where the sequence begins that this entry ends. */
  readonly tail: number;
  readonly sequenceNumber: bigint;
  readonly descriptors: number;
  readonly logGuid: Buffer;
  readonly flushedFileOffset: bigint;
  readonly lastFileOffset: bigint;
}

const entryParser = new Parser()
  .endianness('little')
  .buffer('signature', { length: 4 })
  .uint32('checksum')
  .uint32('length')
  .uint32('tail')
  .uint64('sequenceNumber')
  .uint32('descriptors')
  .uint32('reserved')
  .buffer('logGuid', { length: GUID_BYTES })
  .uint64('flushedFileOffset')
  .uint64('lastFileOffset');

interface Entry {
  readonly at: number;
  readonly header: EntryHeader;
  readonly bytes: Buffer;
}

/** A page of the file that is to be another one, at an offset that is a multiple of it. */
export interface Page {
  readonly offset: number;
  readonly bytes: Buffer;
}

/** The log of an open file: what changes its tables goes through it. */
export class Log {
  readonly #headers: Headers;
  readonly #offset: number;
  readonly #length: number;
  #write = 0;
  #sequence = 1n;

  /** @throws BlockError where the headers say of the log what cannot be */
  constructor(file: BlockNode, headers: Headers) {
    const { logOffset, logLength, logVersion } = headers.current;
    const sound = logOffset >= BigInt(MIB) && logOffset % BigInt(MIB) === 0n && logOffset < 1n << 52n;
    if (!sound || logVersion !== 0) throw couldNotOpen(file, errno.EINVAL);
    this.#headers = headers;
    this.#offset = Number(logOffset);
    this.#length = logLength;
  }

  /** Where it lies, in bytes. */
  get place(): { readonly offset: number; readonly length: number } {
    return { offset: this.#offset, length: this.#length };
  }

  /**
   * Does what the log says was not done when the file was last in use.
   *
   * @throws BlockError where there is something and the file cannot be written to, or it cannot be done
   */
  *replay(file: BlockNode, writable: boolean): Task {
    const { logGuid } = this.#headers.current;
    if (logGuid.equals(NO_GUID) || this.#length === 0) return;
    if (this.#length % MIB !== 0) throw couldNotOpen(file, errno.EINVAL);
    const entries = yield* this.#activeSequence(file, logGuid);
    const last = entries.at(-1);
    if (last === undefined) return;
    if (!writable) {
      const message = `VHDX image file '${file.filename}' opened read-only, but contains a log that needs to be replayed`;
      throw new BlockError(message, { hint: `To replay the log, run:\nqemu-img check -r all '${file.filename}'` });
    }
    this.#sequence = last.header.sequenceNumber + 1n;
    for (const entry of entries) yield* apply(file, entry);
    const flushing = file.flush();
    if (flushing) yield flushing;
    yield* this.#headers.update(file, { logGuid: NO_GUID });
  }

  /** 2.3.2: the valid sequence of entries that ends with the highest number. */
  *#activeSequence(file: BlockNode, logGuid: Buffer): Task<readonly Entry[]> {
    let best: readonly Entry[] = [];
    let at = 0;
    while (at < this.#length) {
      const sequence: Entry[] = [];
      let next = at;
      let used = 0;
      for (;;) {
        const entry = yield* this.#entryAt(file, next, logGuid);
        const before = sequence.at(-1);
        if (entry === undefined || used + entry.bytes.length > this.#length) break;
        if (before !== undefined && entry.header.sequenceNumber !== before.header.sequenceNumber + 1n) break;
        sequence.push(entry);
        used += entry.bytes.length;
        next = (next + entry.bytes.length) % this.#length;
      }
      const head = sequence.at(-1);
      const first = sequence.findIndex(({ at: place }) => place === head?.header.tail);
      const highest = best.at(-1)?.header.sequenceNumber ?? 0n;
      if (head !== undefined && first >= 0 && head.header.sequenceNumber > highest) best = sequence.slice(first);
      at += Math.max(LOG_SECTOR, used);
    }
    return best;
  }

  *#entryAt(file: BlockNode, at: number, logGuid: Buffer): Task<Entry | undefined> {
    const head = yield* readBytes(file, this.#offset + at, ENTRY_HEADER_BYTES);
    const header = entryParser.parse<EntryHeader>(head);
    const { length, descriptors } = header;
    const plausible =
      ENTRY_SIGNATURE.equals(header.signature) &&
      length > 0 &&
      length % LOG_SECTOR === 0 &&
      length <= Math.min(this.#length, MAX_ENTRY_BYTES) &&
      header.sequenceNumber > 0n &&
      header.logGuid.equals(logGuid) &&
      ENTRY_HEADER_BYTES + descriptors * DESCRIPTOR_BYTES <= length;
    if (!plausible) return undefined;
    const toEnd = Math.min(length, this.#length - at);
    const bytes = Buffer.concat([
      yield* readBytes(file, this.#offset + at, toEnd),
      yield* readBytes(file, this.#offset, length - toEnd),
    ]);
    return hasChecksum(bytes) && descriptorsAreSound(bytes, header) ? { at, header, bytes } : undefined;
  }

  /**
   * Changes pages of the file so that all or none are changed whenever the power fails. What they point to is on the disk.
   *
   * @param pages at most {@link MAX_PAGES}
   */
  *change(file: BlockNode, pages: readonly Page[]): Task {
    const length = LOG_SECTOR * (1 + pages.length);
    if (length > this.#length) throw couldNotOpen(file, errno.EINVAL);
    const logGuid = randomBytes(GUID_BYTES);
    yield* this.#headers.update(file, { logGuid });
    yield* this.#writeRing(file, this.#entryFor(pages, length, logGuid, file.length));
    const logged = file.flush();
    if (logged) yield logged;
    for (const { offset, bytes } of pages) yield* writeBytes(file, offset, bytes);
    const changed = file.flush();
    if (changed) yield changed;
    yield* this.#headers.update(file, { logGuid: NO_GUID });
  }

  #entryFor(pages: readonly Page[], length: number, logGuid: Buffer, fileBytes: number): Buffer {
    const bytes = Buffer.alloc(length);
    const sequence = this.#sequence;
    ENTRY_SIGNATURE.copy(bytes);
    bytes.writeUInt32LE(length, 8);
    bytes.writeUInt32LE(this.#write, 12);
    bytes.writeBigUInt64LE(sequence, 16);
    bytes.writeUInt32LE(pages.length, 24);
    logGuid.copy(bytes, 32);
    bytes.writeBigUInt64LE(BigInt(fileBytes), 48);
    bytes.writeBigUInt64LE(BigInt(fileBytes), 56);
    for (const [index, page] of pages.entries()) {
      const at = ENTRY_HEADER_BYTES + index * DESCRIPTOR_BYTES;
      const sector = LOG_SECTOR * (1 + index);
      // 2.3.1.3: the first eight bytes and the last four give way to what marks the sector, and go into the descriptor.
      DATA_DESCRIPTOR.copy(bytes, at);
      page.bytes.copy(bytes, at + 4, LOG_SECTOR - 4);
      page.bytes.copy(bytes, at + 8, 0, 8);
      bytes.writeBigUInt64LE(BigInt(page.offset), at + 16);
      bytes.writeBigUInt64LE(sequence, at + 24);
      page.bytes.copy(bytes, sector);
      DATA_SECTOR.copy(bytes, sector);
      bytes.writeUInt32LE(Number(sequence >> 32n), sector + 4);
      bytes.writeUInt32LE(Number(sequence & 0xffff_ffffn), sector + LOG_SECTOR - 4);
    }
    return seal(bytes);
  }

  *#writeRing(file: BlockNode, bytes: Buffer): Task {
    const toEnd = Math.min(bytes.length, this.#length - this.#write);
    yield* writeBytes(file, this.#offset + this.#write, bytes.subarray(0, toEnd));
    if (toEnd < bytes.length) yield* writeBytes(file, this.#offset, bytes.subarray(toEnd));
    this.#write = (this.#write + bytes.length) % this.#length;
    this.#sequence++;
  }
}

const descriptorSectors = (count: number): number =>
  Math.ceil((ENTRY_HEADER_BYTES + count * DESCRIPTOR_BYTES) / LOG_SECTOR);

function descriptorsAreSound(bytes: Buffer, { descriptors, sequenceNumber }: EntryHeader): boolean {
  let sector = descriptorSectors(descriptors);
  for (let index = 0; index < descriptors; index++) {
    const at = ENTRY_HEADER_BYTES + index * DESCRIPTOR_BYTES;
    const signature = bytes.subarray(at, at + 4);
    const isData = DATA_DESCRIPTOR.equals(signature);
    if (!isData && !ZERO_DESCRIPTOR.equals(signature)) return false;
    if (bytes.readBigUInt64LE(at + 24) !== sequenceNumber) return false;
    if (bytes.readBigUInt64LE(at + 16) % BigInt(LOG_SECTOR) !== 0n) return false;
    if (!isData) {
      if (bytes.readBigUInt64LE(at + 8) % BigInt(LOG_SECTOR) !== 0n) return false;
      continue;
    }
    const from = sector * LOG_SECTOR;
    if (from + LOG_SECTOR > bytes.length) return false;
    const high = BigInt(bytes.readUInt32LE(from + 4));
    const low = BigInt(bytes.readUInt32LE(from + LOG_SECTOR - 4));
    if (((high << 32n) | low) !== sequenceNumber) return false;
    sector++;
  }
  return true;
}

/** 2.3.3: writes what an entry has to where it belongs. */
function* apply(file: BlockNode, { header, bytes }: Entry): Task {
  const { descriptors, flushedFileOffset, lastFileOffset } = header;
  // Shorter than it was when this was written: something cut it off.
  if (flushedFileOffset > BigInt(file.length)) throw couldNotOpen(file, errno.EINVAL);
  if (lastFileOffset > 1n << 52n) throw couldNotOpen(file, errno.EFBIG);
  const end = Math.ceil(Number(lastFileOffset) / MIB) * MIB;
  if (end > file.length) {
    const growing = file.truncate(end);
    if (growing) yield growing;
  }
  let sector = descriptorSectors(descriptors);
  for (let index = 0; index < descriptors; index++) {
    const at = ENTRY_HEADER_BYTES + index * DESCRIPTOR_BYTES;
    const isData = DATA_DESCRIPTOR.equals(bytes.subarray(at, at + 4));
    const offset = bytes.readBigUInt64LE(at + 16);
    const size = isData ? BigInt(LOG_SECTOR) : bytes.readBigUInt64LE(at + 8);
    if (offset + size > BigInt(file.length)) throw couldNotOpen(file, errno.EINVAL);
    if (isData) {
      const page = Buffer.from(bytes.subarray(sector * LOG_SECTOR, (sector + 1) * LOG_SECTOR));
      bytes.copy(page, 0, at + 8, at + 16);
      bytes.copy(page, LOG_SECTOR - 4, at + 4, at + 8);
      yield* writeBytes(file, Number(offset), page);
      sector++;
    } else {
      const zeroing = file.writeZeroes(Number(offset), Number(size));
      if (zeroing) yield zeroing;
    }
  }
}
