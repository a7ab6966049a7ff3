/** A dump in makedumpfile's compressed form (makedumpfile's IMPLEMENTATION), flattened so that a pipe can take it. */
import { deflateSync } from 'node:zlib';
import type { AddressSpace } from '../../memory/address-space.ts';
import { isZero } from '../../memory/zero.ts';
import type { GuestBlock } from './guest-blocks.ts';
import type { DumpOutput } from './output.ts';

const BLOCK = 4096;
const VERSION = 6;
const COMPRESSED_ZLIB = 1;
/** Zero pages are not left out, but all share one. */
const DUMP_LEVEL = 1;
/** `struct disk_dump_header` and `struct kdump_sub_header` of 64-bit makedumpfile. */
const DISK_HEADER = 464;
const SUB_HEADER = 104;
const PAGE_DESCRIPTOR = 24;
const CACHE = 4 * BLOCK;
const FLAT_HEADER = 4096;
/** Rounds of pages between which others get their turn. */
const PAGES_AT_ONCE = 256;

export interface KdumpFacts {
  readonly notes: Buffer;
  /** The kernel's description of itself, and where it is in {@link notes}. */
  readonly vmcoreinfo?: { readonly offset: number; readonly text: Buffer } | undefined;
  readonly blocks: readonly GuestBlock[];
  readonly memory: AddressSpace;
  readonly cpuCount: number;
  readonly longMode: boolean;
}

/** Header, sub header with notes, two equal bitmaps of the pages there are, their descriptors, and their contents. */
export async function writeKdump(out: DumpOutput, facts: KdumpFacts, wrote: (bytes: number) => void): Promise<void> {
  const { notes, blocks, memory } = facts;
  const pages = pageNumbers(blocks);
  const maxMapNumber = Math.floor((blocks.at(-1)?.end ?? 0) / BLOCK);
  const subHeaderBlocks = Math.ceil((SUB_HEADER + notes.length) / BLOCK);
  const bitmapBlocks = Math.ceil(Math.ceil(maxMapNumber / 8) / BLOCK);
  const bitmapAt = (1 + subHeaderBlocks) * BLOCK;
  const pagesAt = bitmapAt + 2 * bitmapBlocks * BLOCK;

  const flat = new FlatFile(out);
  await flat.begin();
  await flat.write(0, diskHeader(facts, { maxMapNumber, subHeaderBlocks, bitmapBlocks: 2 * bitmapBlocks }));
  await flat.write(BLOCK, subHeader(maxMapNumber, facts));
  await flat.write(BLOCK + SUB_HEADER, notes);
  await writeBitmaps(flat, pages, bitmapAt, bitmapBlocks);

  const descriptors = new Cached(flat, pagesAt);
  const contents = new Cached(flat, pagesAt + PAGE_DESCRIPTOR * pages.length);
  const zeroPageAt = contents.offset;
  await contents.write(Buffer.alloc(BLOCK));
  const page = Buffer.alloc(BLOCK);
  for (const [index, number] of pages.entries()) {
    page.fill(0);
    memory.readBytes(number * BLOCK, page, 0, BLOCK);
    if (isZero(page)) {
      await descriptors.write(descriptor(zeroPageAt, BLOCK, 0));
    } else {
      const packed = deflateSync(page, { level: 1 });
      const small = packed.length < BLOCK;
      const bytes = small ? packed : Buffer.from(page);
      await descriptors.write(descriptor(contents.offset, bytes.length, small ? COMPRESSED_ZLIB : 0));
      await contents.write(bytes);
    }
    wrote(BLOCK);
    if (index % PAGES_AT_ONCE === 0) await new Promise(resolve => setImmediate(resolve));
  }
  await descriptors.flush();
  await contents.flush();
  await flat.end();
}

/** Pages that are at least partly memory, once each. */
function pageNumbers(blocks: readonly GuestBlock[]): number[] {
  const numbers: number[] = [];
  for (const { start, end } of blocks) {
    for (let page = Math.floor(start / BLOCK); page * BLOCK < end; page++) {
      if (numbers.at(-1) !== page) numbers.push(page);
    }
  }
  return numbers;
}

async function writeBitmaps(flat: FlatFile, pages: readonly number[], at: number, blocks: number): Promise<void> {
  const bitmap = Buffer.alloc(BLOCK);
  let next = 0;
  for (let block = 0; block < blocks; block++) {
    bitmap.fill(0);
    const first = block * BLOCK * 8;
    for (let page = pages[next]; page !== undefined && page < first + BLOCK * 8; page = pages[++next]) {
      const bit = page - first;
      bitmap[bit >> 3] = (bitmap[bit >> 3] ?? 0) | (1 << (bit & 7));
    }
    await flat.write(at + block * BLOCK, bitmap);
    await flat.write(at + (blocks + block) * BLOCK, bitmap);
  }
}

function descriptor(offset: number, size: number, flags: number): Buffer {
  const bytes = Buffer.alloc(PAGE_DESCRIPTOR);
  bytes.writeBigUInt64LE(BigInt(offset), 0);
  bytes.writeUInt32LE(size, 8);
  bytes.writeUInt32LE(flags, 12);
  return bytes;
}

interface Layout {
  readonly maxMapNumber: number;
  readonly subHeaderBlocks: number;
  readonly bitmapBlocks: number;
}

function diskHeader({ cpuCount }: KdumpFacts, layout: Layout): Buffer {
  const bytes = Buffer.alloc(DISK_HEADER);
  bytes.write('KDUMP   ', 0, 'latin1');
  bytes.writeUInt32LE(VERSION, 8);
  // struct new_utsname: six names of 65 bytes; the fifth is the machine.
  bytes.write('x86_64', 12 + 4 * 65, 'latin1');
  const after = 424;
  bytes.writeUInt32LE(COMPRESSED_ZLIB, after);
  bytes.writeUInt32LE(BLOCK, after + 4);
  bytes.writeUInt32LE(layout.subHeaderBlocks, after + 8);
  bytes.writeUInt32LE(layout.bitmapBlocks, after + 12);
  bytes.writeUInt32LE(Math.min(layout.maxMapNumber, 0xffff_ffff), after + 16);
  bytes.writeUInt32LE(cpuCount, after + 36);
  return bytes;
}

/** Where a 64-bit kernel says that it was loaded, in hexadecimal. */
const PHYSICAL_BASE = /^NUMBER\(phys_base\)=(?:0x)?([0-9a-f]{1,16})$/im;

function subHeader(maxMapNumber: number, { notes, vmcoreinfo, longMode }: KdumpFacts): Buffer {
  const bytes = Buffer.alloc(SUB_HEADER);
  if (vmcoreinfo !== undefined) {
    const base = longMode ? PHYSICAL_BASE.exec(vmcoreinfo.text.toString('latin1'))?.[1] : undefined;
    if (base !== undefined) bytes.writeBigUInt64LE(BigInt(`0x${base}`), 0);
    bytes.writeBigUInt64LE(BigInt(BLOCK + SUB_HEADER + vmcoreinfo.offset), 32);
    bytes.writeBigUInt64LE(BigInt(vmcoreinfo.text.length), 40);
  }
  bytes.writeUInt32LE(DUMP_LEVEL, 8);
  bytes.writeBigUInt64LE(BigInt(BLOCK + SUB_HEADER), 48);
  bytes.writeBigUInt64LE(BigInt(notes.length), 56);
  bytes.writeBigUInt64LE(BigInt(maxMapNumber), 96);
  return bytes;
}

/** Writes at any place of a file that only has an end: each is preceded by where and how much. */
class FlatFile {
  readonly #out: DumpOutput;

  constructor(out: DumpOutput) {
    this.#out = out;
  }

  begin(): Promise<void> {
    const header = Buffer.alloc(FLAT_HEADER);
    header.write('makedumpfile', 0, 'latin1');
    header.writeBigUInt64BE(1n, 16);
    header.writeBigUInt64BE(1n, 24);
    return this.#out.write(header);
  }

  write(offset: number, bytes: Buffer): Promise<void> {
    const header = Buffer.alloc(16);
    header.writeBigUInt64BE(BigInt(offset), 0);
    header.writeBigUInt64BE(BigInt(bytes.length), 8);
    return this.#out.write(Buffer.concat([header, bytes]));
  }

  end(): Promise<void> {
    return this.#out.write(Buffer.alloc(16, 0xff));
  }
}

/** Collects small pieces that follow each other. */
class Cached {
  readonly #flat: FlatFile;
  readonly #pieces: Buffer[] = [];
  #at: number;
  #length = 0;

  constructor(flat: FlatFile, at: number) {
    this.#flat = flat;
    this.#at = at;
  }

  /** Where the next piece goes. */
  get offset(): number {
    return this.#at + this.#length;
  }

  async write(piece: Buffer): Promise<void> {
    if (this.#length + piece.length > CACHE) await this.flush();
    this.#pieces.push(piece);
    this.#length += piece.length;
  }

  async flush(): Promise<void> {
    if (this.#length === 0) return;
    const bytes = Buffer.concat(this.#pieces.splice(0));
    const at = this.#at;
    this.#at += bytes.length;
    this.#length = 0;
    await this.#flat.write(at, bytes);
  }
}
