/** A core file in ELF form (System V ABI, "Object Files"): what gdb, crash and libvirt take. */
import type { AddressSpace } from '../../memory/address-space.ts';
import type { GuestBlock, MemoryMapping } from './guest-blocks.ts';
import type { DumpOutput } from './output.ts';

const ELF_HEADER = 64;
const SECTION_HEADER = 64;
const PROGRAM_HEADER = 56;
const ET_CORE = 4;
const EM_386 = 3;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_NOTE = 4;
const SHT_STRTAB = 3;
/** With this many program headers or more, section header 0 has their number (gABI 4.1). */
const PN_XNUM = 0xffff;
const STRINGS = Buffer.from('\0.shstrtab\0');
const PIECE = 2 ** 20;

export interface ElfDump {
  readonly longMode: boolean;
  readonly notes: Buffer;
  /** What goes into the file, in this order. */
  readonly blocks: readonly GuestBlock[];
  readonly mappings: readonly MemoryMapping[];
  readonly memory: AddressSpace;
}

/** Headers, then notes, then memory, then the section names. */
export async function writeElf(out: DumpOutput, dump: ElfDump, wrote: (bytes: number) => void): Promise<void> {
  const { notes, blocks, mappings, memory } = dump;
  const noteAt = ELF_HEADER + 2 * SECTION_HEADER + PROGRAM_HEADER * (1 + mappings.length);
  const memoryAt = noteAt + notes.length;
  const size = blocks.reduce((sum, { start, end }) => sum + end - start, 0);
  await out.write(
    Buffer.concat([
      elfHeader(dump),
      sections(dump, memoryAt + size),
      programHeader(PT_NOTE, noteAt, 0n, 0, notes.length, notes.length),
      ...mappings.map(mapping => load(mapping, blocks, memoryAt)),
      notes,
    ]),
  );
  const piece = Buffer.alloc(PIECE);
  for (const { start, end } of blocks) {
    for (let at = start; at < end; at += PIECE) {
      const length = Math.min(PIECE, end - at);
      memory.readBytes(at, piece, 0, length);
      await out.write(piece.subarray(0, length));
      wrote(length);
    }
  }
  await out.write(STRINGS);
}

function elfHeader({ longMode, mappings }: ElfDump): Buffer {
  const header = Buffer.alloc(ELF_HEADER);
  // Class 64, little-endian, version 1.
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1], 0);
  header.writeUInt16LE(ET_CORE, 0x10);
  header.writeUInt16LE(longMode ? EM_X86_64 : EM_386, 0x12);
  header.writeUInt32LE(1, 0x14);
  header.writeBigUInt64LE(BigInt(ELF_HEADER + 2 * SECTION_HEADER), 0x20);
  header.writeBigUInt64LE(BigInt(ELF_HEADER), 0x28);
  header.writeUInt16LE(ELF_HEADER, 0x34);
  header.writeUInt16LE(PROGRAM_HEADER, 0x36);
  header.writeUInt16LE(Math.min(PN_XNUM, mappings.length + 1), 0x38);
  header.writeUInt16LE(SECTION_HEADER, 0x3a);
  header.writeUInt16LE(2, 0x3c);
  header.writeUInt16LE(1, 0x3e);
  return header;
}

/** The null section, and the names. */
function sections({ mappings }: ElfDump, stringsAt: number): Buffer {
  const bytes = Buffer.alloc(2 * SECTION_HEADER);
  if (mappings.length + 1 >= PN_XNUM) bytes.writeUInt32LE(mappings.length + 1, 0x2c);
  const names = SECTION_HEADER;
  bytes.writeUInt32LE(1, names);
  bytes.writeUInt32LE(SHT_STRTAB, names + 4);
  bytes.writeBigUInt64LE(BigInt(stringsAt), names + 0x18);
  bytes.writeBigUInt64LE(BigInt(STRINGS.length), names + 0x20);
  return bytes;
}

/** Where in the file a mapping is; nowhere if it leads to no memory. */
function load(mapping: MemoryMapping, blocks: readonly GuestBlock[], memoryAt: number): Buffer {
  let offset = memoryAt;
  const { physical, virtual, length } = mapping;
  for (const { start, end } of blocks) {
    if (physical >= start && physical < end) {
      const inFile = Math.min(length, end - physical);
      return programHeader(PT_LOAD, offset + physical - start, virtual, physical, inFile, length);
    }
    offset += end - start;
  }
  return programHeader(PT_LOAD, 0, virtual, physical, 0, length);
}

function programHeader(
  type: number,
  offset: number,
  virtual: bigint,
  physical: number,
  fileSize: number,
  memorySize: number,
): Buffer {
  const header = Buffer.alloc(PROGRAM_HEADER);
  header.writeUInt32LE(type, 0);
  header.writeBigUInt64LE(BigInt(offset), 0x08);
  header.writeBigUInt64LE(virtual, 0x10);
  header.writeBigUInt64LE(BigInt(physical), 0x18);
  header.writeBigUInt64LE(BigInt(fileSize), 0x20);
  header.writeBigUInt64LE(BigInt(memorySize), 0x28);
  return header;
}
