import { SouthbridgeError } from '../errors.ts';
import { isElf, parseElf } from './elf.ts';
import { bootGdt, enterProtected32, LOW_MEMORY } from './entry-state.ts';
import {
  type BootEnvironment,
  type BootImage,
  type BootModule,
  checkPlacement,
  cString,
  E820,
  FW_CFG,
  type FwCfgItem,
  fwCfgNumber,
  hex,
  type MemoryRange,
  ramEnd,
  type Segment,
  segment,
} from './image.ts';
import { type Parsed, peek32, Structure, slice } from './structure.ts';

// Multiboot specification 0.6.96; field names and flags as there.
const MULTIBOOT_HEADER_MAGIC = 0x1bad_b002;
const MULTIBOOT_BOOTLOADER_MAGIC = 0x2bad_b002;
const MULTIBOOT_SEARCH = 8192;
const HEADER_VIDEO_MODE = 1 << 2;
const HEADER_AOUT_KLUDGE = 1 << 16;
const header = new Structure('the multiboot header', {
  magic: 'u32',
  flags: 'u32',
  checksum: 'u32',
  header_addr: 'u32',
  load_addr: 'u32',
  load_end_addr: 'u32',
  bss_end_addr: 'u32',
  entry_addr: 'u32',
});

const INFO_SIZE = 88;
const INFO = {
  flags: 0,
  mem_lower: 4,
  mem_upper: 8,
  boot_device: 12,
  cmdline: 16,
  mods_count: 20,
  mods_addr: 24,
  mmap_length: 44,
  mmap_addr: 48,
  boot_loader_name: 64,
} as const;
const INFO_MEMORY = 1 << 0;
const INFO_BOOTDEV = 1 << 1;
const INFO_CMDLINE = 1 << 2;
const INFO_MODS = 1 << 3;
const INFO_MEM_MAP = 1 << 6;
const INFO_BOOT_LOADER_NAME = 1 << 9;
const MODULE_SIZE = 16;
const MMAP_ENTRY_SIZE = 24;
const BOOT_LOADER_NAME = 'qemu';
const FIRST_HARD_DISK = 0x8000_ffff;

/** Where the boot ROM puts the memory map and the information structure when firmware loads the kernel. */
const ROM_MEMORY_MAP = 0x9000;
const ROM_INFO = 0x9500;
/** Nothing larger is loaded: a header may name any 32-bit size. */
const MAX_KERNEL_SIZE = 0x4000_0000;
const PAGE = 0x1000;
const ONE_MIB = 0x10_0000;

interface Kernel {
  readonly segments: readonly Segment[];
  readonly start: number;
  readonly end: number;
  readonly entry: number;
}

/** The offset of a multiboot header with a right checksum, or undefined where the image has none. */
export function multibootHeader(image: Uint8Array): number | undefined {
  for (let offset = 0; offset < MULTIBOOT_SEARCH - 48; offset += 4) {
    if (peek32(image, offset) !== MULTIBOOT_HEADER_MAGIC) continue;
    const flags = peek32(image, offset + 4) ?? 0;
    const checksum = peek32(image, offset + 8) ?? 0;
    if ((MULTIBOOT_HEADER_MAGIC + flags + checksum) >>> 0 === 0) return offset;
  }
  return undefined;
}

/**
 * A multiboot kernel entered without firmware.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT, ERR_IMAGE_TRUNCATED, ERR_IMAGE_NO_RAM, ERR_IMAGE_OVERLAP
 */
export function loadMultiboot(image: Uint8Array, environment: BootEnvironment): BootImage {
  const kernel = readKernel(image);
  const attached = attachments(kernel, environment);
  const map = memoryMap(environment.memory);
  const mapAddress = LOW_MEMORY.BOOT_INFO + INFO_SIZE;
  const view = new DataView(attached.info.buffer);
  view.setUint32(INFO.mem_lower, ramEnd(environment.memory, 0, 0xa_0000) / 1024, true);
  view.setUint32(INFO.mem_upper, (ramEnd(environment.memory, ONE_MIB, 2 ** 32) - ONE_MIB) / 1024, true);
  view.setUint32(INFO.mmap_length, map.length, true);
  view.setUint32(INFO.mmap_addr, mapAddress, true);
  const segments = [
    bootGdt('protected32'),
    segment(LOW_MEMORY.BOOT_INFO, attached.info),
    segment(mapAddress, map),
    ...kernel.segments,
    attached.segment,
  ];
  checkPlacement(segments, environment.memory);
  const registers = { eax: MULTIBOOT_BOOTLOADER_MAGIC, ebx: LOW_MEMORY.BOOT_INFO, esp: LOW_MEMORY.STACK_TOP };
  return {
    format: 'multiboot',
    segments,
    entry: kernel.entry,
    enter: cpu => enterProtected32(cpu, kernel.entry, registers),
  };
}

/**
 * The fw_cfg items with which firmware and its multiboot boot ROM load the kernel: the ROM adds the memory map.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT, ERR_IMAGE_TRUNCATED
 */
export function multibootFwCfg(image: Uint8Array, environment: BootEnvironment): FwCfgItem[] {
  const kernel = readKernel(image);
  const attached = attachments(kernel, environment);
  new DataView(attached.info.buffer).setUint32(INFO.mmap_addr, ROM_MEMORY_MAP, true);
  const bytes = new Uint8Array(attached.segment.address + attached.segment.size - kernel.start);
  for (const part of [...kernel.segments, attached.segment]) bytes.set(part.bytes, part.address - kernel.start);
  return [
    fwCfgNumber(FW_CFG.KERNEL_ENTRY, kernel.entry),
    fwCfgNumber(FW_CFG.KERNEL_ADDR, kernel.start),
    fwCfgNumber(FW_CFG.KERNEL_SIZE, bytes.length),
    { selector: FW_CFG.KERNEL_DATA, bytes },
    fwCfgNumber(FW_CFG.INITRD_ADDR, ROM_INFO),
    fwCfgNumber(FW_CFG.INITRD_SIZE, attached.info.length),
    { selector: FW_CFG.INITRD_DATA, bytes: attached.info },
  ];
}

function readKernel(image: Uint8Array): Kernel {
  const offset = multibootHeader(image);
  if (offset === undefined) throw bad('the file has no multiboot header in its first 8 KiB');
  const { flags, ...addresses } = header.parse(padded(image, offset), 0);
  if (flags & HEADER_VIDEO_MODE)
    throw bad('the multiboot kernel asks for a video mode', 'build it without flag 2 in its header');
  return flags & HEADER_AOUT_KLUDGE ? readFlat(image, offset, addresses) : readElfKernel(image);
}

/** The header may end with the file where its address fields do not count. */
function padded(image: Uint8Array, offset: number): Uint8Array {
  const bytes = new Uint8Array(header.size);
  bytes.set(image.subarray(offset, offset + header.size));
  return bytes;
}

function readElfKernel(image: Uint8Array): Kernel {
  if (!isElf(image)) throw bad('the multiboot kernel is no ELF file, and its header has no addresses (flag 16)');
  const elf = parseElf(image);
  if (elf.longMode) throw bad('Cannot load x86-64 image, give a 32bit one.');
  const start = Math.min(...elf.segments.map(({ address }) => address));
  const end = Math.max(...elf.segments.map(({ address, size }) => address + size));
  checkSize(start, end - start);
  return { segments: elf.segments, start, end, entry: elf.physicalEntry };
}

type Addresses = Parsed<Record<'header_addr' | 'load_addr' | 'load_end_addr' | 'bss_end_addr' | 'entry_addr', 'u32'>>;

/** The a.out kludge (3.1.3): the file is loaded as the header's addresses say. */
function readFlat(
  image: Uint8Array,
  offset: number,
  { header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr }: Addresses,
): Kernel {
  if (header_addr < load_addr) throw bad('invalid load_addr address');
  if (header_addr - load_addr > offset) throw bad('invalid header_addr address');
  const text = offset - (header_addr - load_addr);
  if (load_end_addr !== 0 && load_end_addr < load_addr) throw bad('invalid load_end_addr address');
  const loadSize = load_end_addr === 0 ? image.length - text : load_end_addr - load_addr;
  if (bss_end_addr !== 0 && bss_end_addr < load_addr + loadSize) throw bad('invalid bss_end_addr address');
  const size = bss_end_addr === 0 ? loadSize : bss_end_addr - load_addr;
  checkSize(load_addr, size);
  const bytes = slice(image, text, loadSize, 'the multiboot kernel');
  return {
    segments: [{ address: load_addr, bytes, size }],
    start: load_addr,
    end: load_addr + size,
    entry: entry_addr,
  };
}

function checkSize(start: number, size: number): void {
  if (size > MAX_KERNEL_SIZE || start + size > 2 ** 32) {
    throw bad(`a multiboot kernel of ${size} bytes at ${hex(start)} does not fit into the address space`);
  }
}

/** All that follows the kernel in memory: module list, strings and modules; and the information that points to them. */
function attachments(
  kernel: Kernel,
  environment: BootEnvironment,
): { segment: Segment; info: Uint8Array<ArrayBuffer> } {
  const modules: readonly BootModule[] =
    environment.modules ?? (environment.initrd === undefined ? [] : [{ bytes: environment.initrd, commandLine: '' }]);
  const base = align(kernel.end, PAGE);
  const commandLine = cString(`${environment.kernelName ?? ''} ${environment.commandLine ?? ''}`);
  const loader = cString(BOOT_LOADER_NAME);
  const moduleLines = modules.map(module => cString(module.commandLine));
  const strings = [...moduleLines, commandLine, loader];
  const stringsAt = modules.length * MODULE_SIZE;
  const modulesAt = align(stringsAt + strings.reduce((size, { length }) => size + length, 0), PAGE);
  const size = modules.reduce((total, { bytes }) => total + align(bytes.length, PAGE), modulesAt);
  checkSize(base, size);

  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  const stringAddresses: number[] = [];
  let at = stringsAt;
  for (const text of strings) {
    bytes.set(text, at);
    stringAddresses.push(base + at);
    at += text.length;
  }
  at = modulesAt;
  for (const [index, module] of modules.entries()) {
    bytes.set(module.bytes, at);
    view.setUint32(index * MODULE_SIZE, base + at, true);
    view.setUint32(index * MODULE_SIZE + 4, base + at + module.bytes.length, true);
    view.setUint32(index * MODULE_SIZE + 8, stringAddresses[index] ?? 0, true);
    at += align(module.bytes.length, PAGE);
  }

  const info = new Uint8Array(INFO_SIZE);
  const fields = new DataView(info.buffer);
  const flags = INFO_MEMORY | INFO_BOOTDEV | INFO_CMDLINE | INFO_MODS | INFO_MEM_MAP | INFO_BOOT_LOADER_NAME;
  fields.setUint32(INFO.flags, flags, true);
  fields.setUint32(INFO.boot_device, FIRST_HARD_DISK, true);
  fields.setUint32(INFO.cmdline, stringAddresses[modules.length] ?? 0, true);
  fields.setUint32(INFO.mods_count, modules.length, true);
  fields.setUint32(INFO.mods_addr, base, true);
  fields.setUint32(INFO.boot_loader_name, stringAddresses[modules.length + 1] ?? 0, true);
  return { segment: segment(base, bytes), info };
}

/** Memory map entries, each behind its own size, which does not count itself (3.3). */
function memoryMap(memory: readonly MemoryRange[]): Uint8Array {
  const bytes = new Uint8Array(memory.length * MMAP_ENTRY_SIZE);
  const view = new DataView(bytes.buffer);
  for (const [index, range] of memory.entries()) {
    const at = index * MMAP_ENTRY_SIZE;
    view.setUint32(at, MMAP_ENTRY_SIZE - 4, true);
    view.setBigUint64(at + 4, BigInt(range.address), true);
    view.setBigUint64(at + 12, BigInt(range.size), true);
    view.setUint32(at + 20, range.type === E820.RAM ? E820.RAM : E820.RESERVED, true);
  }
  return bytes;
}

function align(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

function bad(message: string, hint?: string): SouthbridgeError {
  return new SouthbridgeError('ERR_IMAGE_FORMAT', message, hint);
}
