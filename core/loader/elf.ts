import { SouthbridgeError } from '../errors.ts';
import type { Segment } from './image.ts';
import { type Parsed, peek32, Structure, slice } from './structure.ts';

// System V ABI, chapters 4 and 5; names as there.
const ELF_MAGIC = 0x464c_457f;
const ELFCLASS32 = 1;
const ELFCLASS64 = 2;
const ELFDATA2LSB = 1;
const EM_386 = 3;
const EM_X86_64 = 62;
const ET_EXEC = 2;
const ET_DYN = 3;
const PT_LOAD = 1;
const PT_NOTE = 4;
const SHT_NOBITS = 8;

const MAX_PROGRAM_HEADERS = 256;
const MAX_SECTIONS = 4096;
const MAX_NOTE_BYTES = 0x1_0000;

const IDENT_SIZE = 16;
const EHDR_COMMON = { e_type: 'u16', e_machine: 'u16', e_version: 'u32' } as const;
const EHDR_TAIL = {
  e_flags: 'u32',
  e_ehsize: 'u16',
  e_phentsize: 'u16',
  e_phnum: 'u16',
  e_shentsize: 'u16',
  e_shnum: 'u16',
  e_shstrndx: 'u16',
} as const;
const Elf32_Ehdr = new Structure('ELF32 header', {
  ...EHDR_COMMON,
  e_entry: 'u32',
  e_phoff: 'u32',
  e_shoff: 'u32',
  ...EHDR_TAIL,
});
const Elf64_Ehdr = new Structure('ELF64 header', {
  ...EHDR_COMMON,
  e_entry: 'u64',
  e_phoff: 'u64',
  e_shoff: 'u64',
  ...EHDR_TAIL,
});
const Elf32_Phdr = new Structure('ELF32 program header', {
  p_type: 'u32',
  p_offset: 'u32',
  p_vaddr: 'u32',
  p_paddr: 'u32',
  p_filesz: 'u32',
  p_memsz: 'u32',
  p_flags: 'u32',
  p_align: 'u32',
});
const Elf64_Phdr = new Structure('ELF64 program header', {
  p_type: 'u32',
  p_flags: 'u32',
  p_offset: 'u64',
  p_vaddr: 'u64',
  p_paddr: 'u64',
  p_filesz: 'u64',
  p_memsz: 'u64',
  p_align: 'u64',
});
const Elf32_Shdr = new Structure('ELF32 section header', {
  sh_name: 'u32',
  sh_type: 'u32',
  sh_flags: 'u32',
  sh_addr: 'u32',
  sh_offset: 'u32',
  sh_size: 'u32',
  sh_link: 'u32',
  sh_info: 'u32',
  sh_addralign: 'u32',
  sh_entsize: 'u32',
});
const Elf64_Shdr = new Structure('ELF64 section header', {
  sh_name: 'u32',
  sh_type: 'u32',
  sh_flags: 'u64',
  sh_addr: 'u64',
  sh_offset: 'u64',
  sh_size: 'u64',
  sh_link: 'u32',
  sh_info: 'u32',
  sh_addralign: 'u64',
  sh_entsize: 'u64',
});
const Elf_Nhdr = new Structure('ELF note', { n_namesz: 'u32', n_descsz: 'u32', n_type: 'u32' });

interface ProgramHeader {
  readonly p_type: number;
  readonly p_offset: number;
  readonly p_vaddr: number;
  readonly p_paddr: number;
  readonly p_filesz: number;
  readonly p_memsz: number;
}

export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly description: Uint8Array;
}

/** An x86 ELF file whose headers have been checked. */
export interface ElfImage {
  readonly bits: 32 | 64;
  /** True for EM_X86_64, whatever the class. */
  readonly longMode: boolean;
  /** As the file has it: a virtual address. */
  readonly entry: number;
  /** {@link entry} as a guest-physical address, by the segment that holds it. */
  readonly physicalEntry: number;
  /** The PT_LOAD segments, at their physical addresses. */
  readonly segments: readonly Segment[];
  readonly notes: readonly ElfNote[];
}

export function isElf(image: Uint8Array): boolean {
  return peek32(image, 0) === ELF_MAGIC;
}

/**
 * Reads an x86 ELF executable, or with `any` one for whatever machine.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT where it is none, ERR_IMAGE_TRUNCATED where it lacks bytes that its headers promise
 */
export function parseElf(image: Uint8Array, machine: 'x86' | 'any' = 'x86'): ElfImage {
  const { bits, header } = readHeader(image, machine);
  if (header.e_type !== ET_EXEC && header.e_type !== ET_DYN)
    throw bad(`ELF type ${header.e_type} is not an executable`);
  if (header.e_phnum > MAX_PROGRAM_HEADERS)
    throw bad(`${header.e_phnum} program headers are more than ${MAX_PROGRAM_HEADERS}`);
  const phdr = bits === 32 ? Elf32_Phdr : Elf64_Phdr;
  if (header.e_phnum > 0 && header.e_phentsize < phdr.size)
    throw bad(`program headers of ${header.e_phentsize} bytes are too small`);

  const segments: Segment[] = [];
  const notes: ElfNote[] = [];
  let physicalEntry = header.e_entry;
  for (let index = 0; index < header.e_phnum; index++) {
    const program: ProgramHeader = phdr.parse(image, header.e_phoff + index * header.e_phentsize);
    if (program.p_type === PT_NOTE) readNotes(image, program, notes);
    if (program.p_type !== PT_LOAD || program.p_memsz === 0) continue;
    if (program.p_filesz > program.p_memsz) throw bad(`segment ${index} has more bytes in the file than in memory`);
    if (!Number.isSafeInteger(program.p_paddr + program.p_memsz))
      throw bad(`segment ${index} ends beyond the address space`);
    const bytes = slice(image, program.p_offset, program.p_filesz, `ELF segment ${index}`);
    segments.push({ address: program.p_paddr, bytes, size: program.p_memsz });
    const within = header.e_entry - program.p_vaddr;
    if (within >= 0 && within < program.p_memsz) physicalEntry = program.p_paddr + within;
  }
  if (segments.length === 0) throw bad('the ELF file has nothing to load');
  return { bits, longMode: header.e_machine === EM_X86_64, entry: header.e_entry, physicalEntry, segments, notes };
}

/**
 * The contents of the section called `name`, or undefined where the file has none; for object files too.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT, ERR_IMAGE_TRUNCATED
 */
export function elfSection(image: Uint8Array, name: string): Uint8Array | undefined {
  const { bits, header } = readHeader(image);
  if (header.e_shnum > MAX_SECTIONS) throw bad(`${header.e_shnum} sections are more than ${MAX_SECTIONS}`);
  const shdr = bits === 32 ? Elf32_Shdr : Elf64_Shdr;
  const section = (index: number): Parsed<{ sh_name: 'u32'; sh_type: 'u32'; sh_offset: 'u32'; sh_size: 'u32' }> =>
    shdr.parse(image, header.e_shoff + index * header.e_shentsize);
  if (header.e_shstrndx >= header.e_shnum) return undefined;
  const strings = section(header.e_shstrndx);
  const names = slice(image, strings.sh_offset, strings.sh_size, 'ELF section names');
  const wanted = new TextEncoder().encode(`${name}\0`);
  for (let index = 0; index < header.e_shnum; index++) {
    const candidate = section(index);
    if (candidate.sh_type === SHT_NOBITS || candidate.sh_name + wanted.length > names.length) continue;
    if (!wanted.every((byte, offset) => names[candidate.sh_name + offset] === byte)) continue;
    return slice(image, candidate.sh_offset, candidate.sh_size, `ELF section '${name}'`);
  }
  return undefined;
}

function readHeader(
  image: Uint8Array,
  machine: 'x86' | 'any' = 'x86',
): {
  bits: 32 | 64;
  header: Parsed<typeof EHDR_COMMON & typeof EHDR_TAIL & { e_entry: 'u64'; e_phoff: 'u64'; e_shoff: 'u64' }>;
} {
  if (!isElf(image)) throw bad('the file does not begin with the ELF magic');
  const elfClass = image[4];
  if (elfClass !== ELFCLASS32 && elfClass !== ELFCLASS64) throw bad(`ELF class ${elfClass} is neither 32 nor 64 bits`);
  if (image[5] !== ELFDATA2LSB) throw bad('the ELF file is not little-endian');
  const bits = elfClass === ELFCLASS32 ? 32 : 64;
  const header = (bits === 32 ? Elf32_Ehdr : Elf64_Ehdr).parse(image, IDENT_SIZE);
  if (machine === 'x86' && header.e_machine !== EM_386 && header.e_machine !== EM_X86_64) {
    throw bad(`ELF machine ${header.e_machine} is not an x86`);
  }
  return { bits, header };
}

function readNotes(image: Uint8Array, program: ProgramHeader, notes: ElfNote[]): void {
  if (program.p_filesz > MAX_NOTE_BYTES)
    throw bad(`${program.p_filesz} bytes of ELF notes are more than ${MAX_NOTE_BYTES}`);
  const bytes = slice(image, program.p_offset, program.p_filesz, 'ELF notes');
  let offset = 0;
  while (offset + Elf_Nhdr.size <= bytes.length) {
    const { n_namesz, n_descsz, n_type } = Elf_Nhdr.parse(bytes, offset);
    const name = slice(bytes, offset + Elf_Nhdr.size, n_namesz, 'the name of an ELF note');
    const description = slice(
      bytes,
      offset + Elf_Nhdr.size + align4(n_namesz),
      n_descsz,
      'the contents of an ELF note',
    );
    notes.push({ name: new TextDecoder().decode(name).replace(/\0.*$/s, ''), type: n_type, description });
    offset += Elf_Nhdr.size + align4(n_namesz) + align4(n_descsz);
  }
}

function align4(size: number): number {
  return Math.ceil(size / 4) * 4;
}

function bad(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_IMAGE_FORMAT', message);
}
