import { errno, IoError } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import { SECTOR, type SectorCipher } from '../luks/cipher.ts';
import type { LuksHeader } from '../luks/header.ts';
import { readEnciphered, writeEnciphered } from '../luks/luks.ts';
import type { BlockNode } from '../node.ts';
import { readBytes, writeBytes } from '../node-bytes.ts';
import { type Pending, start, type Task } from '../pending.ts';
import { autoclear, headerOffset, incompatible, type Qcow2Header, serializeHeader } from './header.ts';

/** What all parts of an open image share: its file, its header, and the knowledge of where its tables lie. */
export class Qcow2Image {
  file: BlockNode;
  /** Where guest data lies if that is not `file`. */
  data: BlockNode | undefined;
  /** What guest data is enciphered with: a sector's number is that of its place in the file. */
  cipher: SectorCipher | undefined;
  /** The header that `cipher` comes from. */
  luks: LuksHeader | undefined;
  /** The name of the secret that opened it. */
  secret = '';
  readonly header: Qcow2Header;
  readonly clusterSize: number;
  /** The numbers of the clusters that hold tables: no guest data may be written there. */
  readonly tables = new Map<number, string>();
  /** Kinds of tables that data may be written over all the same. */
  unguarded: ReadonlySet<string> = new Set();
  /** Set once the image was found damaged: nothing is read or written any more. */
  broken = false;
  #complained = false;
  /** Whether anything may be written to the image now. */
  isWritable: () => boolean = () => !this.file.readOnly;
  /** Tells those above of damage. */
  onCorruption: (message: string, offset: number, size: number, fatal: boolean) => void = () => {};

  constructor(file: BlockNode, header: Qcow2Header) {
    this.file = file;
    this.header = header;
    this.clusterSize = 2 ** header.clusterBits;
  }

  /** L2 entries say of each 32nd part of a cluster whether it is there. */
  get extended(): boolean {
    return (this.header.incompatible & incompatible.EXTENDED_L2) !== 0;
  }

  /** Others may read the data file as a raw image. */
  get rawData(): boolean {
    return (this.header.autoclear & autoclear.DATA_FILE_RAW) !== 0;
  }

  /** Notes that `bytes` bytes at `offset` hold a table. */
  claim(what: string, offset: number, bytes: number): void {
    const end = Math.ceil((offset + bytes) / this.clusterSize);
    for (let cluster = Math.floor(offset / this.clusterSize); cluster < end; cluster++) this.tables.set(cluster, what);
  }

  release(offset: number, bytes: number): void {
    const end = Math.ceil((offset + bytes) / this.clusterSize);
    for (let cluster = Math.floor(offset / this.clusterSize); cluster < end; cluster++) this.tables.delete(cluster);
  }

  /** @throws IoError EIO, and marks the image corrupt, where data would overwrite a table */
  guardData(offset: number, bytes: number): void {
    const end = Math.ceil((offset + bytes) / this.clusterSize);
    for (let cluster = Math.floor(offset / this.clusterSize); cluster < end; cluster++) {
      const table = this.tables.get(cluster);
      if (table === undefined || this.unguarded.has(table)) continue;
      throw this.corrupt(`Preventing invalid write on metadata (overlaps with ${table})`, offset, bytes);
    }
  }

  /**
   * The image contradicts itself: says so, sets its corrupt bit so that nobody writes to it before it is repaired, and
   * stops using it. Where it cannot be written to, or is another process's still, it is only spoken of, once.
   */
  corrupt(message: string, offset = -1, size = -1, fatal = true): IoError {
    const final = fatal && this.isWritable();
    if (!this.broken && (final || !this.#complained)) {
      this.#complained = true;
      this.onCorruption(message, offset, size, final);
      if (final) {
        this.broken = true;
        this.header.incompatible |= incompatible.CORRUPT;
        if (this.header.version === 3) this.#writeCorruptBit();
      }
    }
    return new IoError(errno.EIO, message);
  }

  #writeCorruptBit(): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(this.header.incompatible));
    try {
      const writing = this.file.writev(headerOffset.INCOMPATIBLE, 8, IoVector.of(bytes));
      if (writing !== undefined) writing.catch(() => {});
    } catch {
      // The image is out of use in any case.
    }
  }

  /** What was never written in the file reads as zeroes to the guest. */
  get holesAreZero(): boolean {
    return this.data === undefined && this.cipher === undefined;
  }

  /** Reads guest data that lies at `host`. */
  readData(host: number, bytes: number, iov: IoVector, at: number): Pending {
    const below = this.data ?? this.file;
    if (this.cipher === undefined) return below.readv(host, bytes, iov, at);
    return start(readEnciphered(below, this.cipher, host, host / SECTOR, bytes, iov, at));
  }

  /** Writes guest data to where it is to lie. */
  writeData(host: number, bytes: number, iov: IoVector, at: number): Pending {
    const below = this.data ?? this.file;
    if (this.cipher === undefined) return below.writev(host, bytes, iov, at);
    return writeEnciphered(below, this.cipher, host, host / SECTOR, bytes, iov, at);
  }

  *read(offset: number, bytes: number): Task<Uint8Array> {
    return yield* readBytes(this.file, offset, bytes);
  }

  *write(offset: number, bytes: Uint8Array): Task {
    yield* writeBytes(this.file, offset, bytes);
  }

  *flush(): Task {
    const flushing = this.file.flush();
    if (flushing) yield flushing;
  }

  /** The guest's data is on the disk when this is done. */
  *flushData(): Task {
    const flushing = (this.data ?? this.file).flush();
    if (flushing) yield flushing;
  }

  /** Writes the whole header anew. */
  *writeHeader(): Task {
    yield* this.write(0, serializeHeader(this.header));
  }

  /** Sets or clears incompatible features on the disk, at once and for sure. */
  *setIncompatible(bits: number, on: boolean): Task {
    const before = this.header.incompatible;
    this.header.incompatible = on ? before | bits : before & ~bits;
    if (this.header.incompatible === before || this.header.version < 3) return;
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(this.header.incompatible));
    yield* this.write(headerOffset.INCOMPATIBLE, bytes);
    yield* this.flush();
  }
}

/** A number as C's `%#x` writes it: zero has no prefix. */
export function hex(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}
