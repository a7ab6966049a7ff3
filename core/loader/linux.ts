import { SouthbridgeError } from '../errors.ts';
import { isElf, parseElf } from './elf.ts';
import { bootGdt, enterLong64, enterProtected32, identityPageTables, LOW_MEMORY } from './entry-state.ts';
import {
  type BootEnvironment,
  type BootImage,
  checkPlacement,
  cString,
  E820,
  FW_CFG,
  type FwCfgItem,
  fwCfgNumber,
  type Segment,
  segment,
} from './image.ts';
import { firmwareInitrdMax, placeInitrd } from './initrd.ts';
import { type Parsed, peek32, Structure, slice } from './structure.ts';

// The Linux/x86 boot protocol, version 2.15 (Documentation/x86/boot.rst); field names and offsets as there.
const HDRS = 0x5372_6448;
const SETUP_HEADER_OFFSET = 0x1f1;
const SETUP_HEADER_END_MAX = 0x290;
const SECTOR = 512;

const SETUP_HEADER = {
  setup_sects: 'u8',
  root_flags: 'u16',
  syssize: 'u32',
  ram_size: 'u16',
  vid_mode: 'u16',
  root_dev: 'u16',
  boot_flag: 'u16',
  jump: 'u16',
  header: 'u32',
  version: 'u16',
  realmode_swtch: 'u32',
  start_sys_seg: 'u16',
  kernel_version: 'u16',
  type_of_loader: 'u8',
  loadflags: 'u8',
  setup_move_size: 'u16',
  code32_start: 'u32',
  ramdisk_image: 'u32',
  ramdisk_size: 'u32',
  bootsect_kludge: 'u32',
  heap_end_ptr: 'u16',
  ext_loader_ver: 'u8',
  ext_loader_type: 'u8',
  cmd_line_ptr: 'u32',
  initrd_addr_max: 'u32',
  kernel_alignment: 'u32',
  relocatable_kernel: 'u8',
  min_alignment: 'u8',
  xloadflags: 'u16',
  cmdline_size: 'u32',
  hardware_subarch: 'u32',
  hardware_subarch_data: 'u64',
  payload_offset: 'u32',
  payload_length: 'u32',
  setup_data: 'u64',
  pref_address: 'u64',
  init_size: 'u32',
  handover_offset: 'u32',
  kernel_info_offset: 'u32',
} as const;
const setupHeader = new Structure('the Linux setup header', SETUP_HEADER);

// Offsets in the boot sector and the zero page that are written.
const VID_MODE = 0x1fa;
const BOOT_FLAG = 0x1fe;
const HEADER = 0x202;
const VERSION = 0x206;
const TYPE_OF_LOADER = 0x210;
const LOADFLAGS = 0x211;
const RAMDISK_IMAGE = 0x218;
const RAMDISK_SIZE = 0x21c;
const HEAP_END_PTR = 0x224;
const CMD_LINE_PTR = 0x228;
const KERNEL_ALIGNMENT = 0x230;
// Before protocol 2.02 (boot.rst, "The real-mode kernel header", the old command line protocol).
const OLD_CL_MAGIC = 0x20;
const OLD_CL_OFFSET = 0x22;
const OLD_CL_MAGIC_VALUE = 0xa33f;
// Zero page only (Documentation/x86/zero-page.rst).
const ACPI_RSDP_ADDR = 0x70;
const E820_ENTRIES = 0x1e8;
const E820_TABLE = 0x2d0;
const E820_ENTRY_SIZE = 20;
const E820_MAX_ENTRIES = 128;
const ZERO_PAGE_SIZE = 0x1000;

const LOADED_HIGH = 1 << 0;
const CAN_USE_HEAP = 1 << 7;
const XLF_KERNEL_64 = 1 << 0;
const XLF_CAN_BE_LOADED_ABOVE_4G = 1 << 1;
const LOADER_UNDEFINED = 0xff;
const LOADER_QEMU = 0xb0;
const ENTRY_64_OFFSET = 0x200;

const KERNEL_HIGH = 0x10_0000;
const KERNEL_LOW = 0x1_0000;
const OLD_INITRD_MAX = 0x37ff_ffff;
const OLD_COMMAND_LINE_MAX = 255;

/** A bzImage or zImage whose header has been checked. */
export interface LinuxImage {
  /** Boot protocol version, such as 0x20f; 0 for the oldest kernels. */
  readonly version: number;
  readonly header: Parsed<typeof SETUP_HEADER>;
  /** The real-mode part: boot sector and setup. */
  readonly setup: Uint8Array;
  /** The protected-mode part. */
  readonly kernel: Uint8Array;
}

export function isLinux(image: Uint8Array): boolean {
  return peek32(image, HEADER) === HDRS;
}

/**
 * Reads a bzImage or zImage.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT, ERR_IMAGE_TRUNCATED
 */
export function parseLinux(image: Uint8Array): LinuxImage {
  if (!isLinux(image)) throw bad("the file has no Linux setup header ('HdrS' at 0x202)");
  // Headers older than 2.15 are shorter than ours: what follows them must not be taken for fields.
  const end = Math.min(HEADER + (image[0x201] ?? 0), SETUP_HEADER_END_MAX, image.length);
  const padded = new Uint8Array(SETUP_HEADER_OFFSET + setupHeader.size);
  padded.set(image.subarray(SETUP_HEADER_OFFSET, Math.min(end, padded.length)), SETUP_HEADER_OFFSET);
  const header = setupHeader.parse(padded, SETUP_HEADER_OFFSET);
  if (header.boot_flag !== 0xaa55) throw bad(`the Linux boot flag is ${header.boot_flag.toString(16)}, not aa55`);
  const setupSize = ((header.setup_sects || 4) + 1) * SECTOR;
  const setup = slice(image, 0, setupSize, 'the Linux setup code');
  const kernel = image.subarray(setupSize);
  if (kernel.length === 0) throw bad('invalid kernel header');
  return { version: header.version, header, setup, kernel };
}

/** The compressed kernel within a bzImage (boot protocol 2.08), as it stands in the file. */
export function linuxPayload(image: LinuxImage): Uint8Array {
  if (image.version < 0x208) throw bad(`boot protocol ${image.version.toString(16)} does not say where the payload is`);
  return slice(image.kernel, image.header.payload_offset, image.header.payload_length, 'the Linux payload');
}

/**
 * A Linux kernel entered without firmware: a bzImage, which decompresses itself, or a vmlinux.
 *
 * @param mode which entry point to use: 32-bit, or 64-bit where the kernel has one. 32 by default, or as a vmlinux needs it
 * @throws SouthbridgeError ERR_IMAGE_FORMAT, ERR_IMAGE_TRUNCATED, ERR_IMAGE_NO_RAM, ERR_IMAGE_OVERLAP
 */
export function loadLinux(image: Uint8Array, environment: BootEnvironment, mode?: 32 | 64): BootImage {
  return isElf(image) ? loadVmlinux(image, environment) : loadBzImage(image, environment, mode ?? 32);
}

function loadBzImage(image: Uint8Array, environment: BootEnvironment, mode: 32 | 64): BootImage {
  const { version, header, setup, kernel } = parseLinux(image);
  if (version < 0x206 || !(header.loadflags & LOADED_HIGH)) {
    throw bad(
      `boot protocol ${version.toString(16)} has no 32-bit entry that goes without firmware`,
      'boot it through firmware',
    );
  }
  if (mode === 64 && !(header.xloadflags & XLF_KERNEL_64)) throw bad('the kernel has no 64-bit entry point');
  const commandLine = checkCommandLine(environment, header.cmdline_size);
  const zeroPage = new Uint8Array(ZERO_PAGE_SIZE);
  const headerEnd = Math.min(HEADER + (setup[0x201] ?? 0), SETUP_HEADER_END_MAX);
  zeroPage.set(setup.subarray(SETUP_HEADER_OFFSET, headerEnd), SETUP_HEADER_OFFSET);
  zeroPage[LOADFLAGS] = (zeroPage[LOADFLAGS] ?? 0) & ~CAN_USE_HEAP;

  const code = segment(KERNEL_HIGH, kernel);
  // The kernel unpacks itself over init_size bytes from pref_address: the initrd stays above.
  const unpacked = { ...segment(header.pref_address, kernel.subarray(0, 0)), size: header.init_size };
  const initrd = placeInitrd(environment, [code, unpacked], initrdMax(version, header));
  const segments = linuxSegments(zeroPage, [code], commandLine, initrd, environment, mode);
  const entry = mode === 64 ? KERNEL_HIGH + ENTRY_64_OFFSET : KERNEL_HIGH;
  return bootImage('linux', segments, entry, mode);
}

function loadVmlinux(image: Uint8Array, environment: BootEnvironment): BootImage {
  const elf = parseElf(image);
  const zeroPage = new Uint8Array(ZERO_PAGE_SIZE);
  const view = new DataView(zeroPage.buffer);
  view.setUint16(BOOT_FLAG, 0xaa55, true);
  view.setUint32(HEADER, HDRS, true);
  view.setUint16(VERSION, 0x20f, true);
  view.setUint8(LOADFLAGS, LOADED_HIGH);
  view.setUint32(KERNEL_ALIGNMENT, 0x100_0000, true);
  const mode = elf.longMode ? 64 : 32;
  const commandLine = checkCommandLine(environment, 2047);
  const initrd = placeInitrd(environment, elf.segments, 0x7fff_ffff);
  const segments = linuxSegments(zeroPage, elf.segments, commandLine, initrd, environment, mode);
  return bootImage('linux', segments, elf.physicalEntry, mode);
}

function linuxSegments(
  zeroPage: Uint8Array,
  kernel: readonly Segment[],
  commandLine: Uint8Array,
  initrd: Segment | undefined,
  environment: BootEnvironment,
  mode: 32 | 64,
): Segment[] {
  const view = new DataView(zeroPage.buffer);
  view.setUint8(TYPE_OF_LOADER, LOADER_UNDEFINED);
  view.setUint32(CMD_LINE_PTR, LOW_MEMORY.COMMAND_LINE, true);
  view.setBigUint64(ACPI_RSDP_ADDR, BigInt(environment.rsdp ?? 0), true);
  if (initrd !== undefined) {
    view.setUint32(RAMDISK_IMAGE, initrd.address, true);
    view.setUint32(RAMDISK_SIZE, initrd.size, true);
  }
  if (environment.memory.length > E820_MAX_ENTRIES)
    throw bad(`a memory map of ${environment.memory.length} ranges is too long`);
  view.setUint8(E820_ENTRIES, environment.memory.length);
  for (const [index, range] of environment.memory.entries()) {
    const at = E820_TABLE + index * E820_ENTRY_SIZE;
    view.setBigUint64(at, BigInt(range.address), true);
    view.setBigUint64(at + 8, BigInt(range.size), true);
    view.setUint32(at + 16, range.type, true);
  }
  const segments = [
    bootGdt(mode === 64 ? 'long64' : 'protected32'),
    segment(LOW_MEMORY.BOOT_PARAMS, zeroPage),
    segment(LOW_MEMORY.COMMAND_LINE, commandLine),
    ...kernel,
  ];
  if (mode === 64) segments.push(identityPageTables());
  if (initrd !== undefined) segments.push(initrd);
  checkPlacement(segments, environment.memory);
  return segments;
}

function bootImage(format: BootImage['format'], segments: readonly Segment[], entry: number, mode: 32 | 64): BootImage {
  const registers = { esi: LOW_MEMORY.BOOT_PARAMS, esp: LOW_MEMORY.STACK_TOP };
  const enter: BootImage['enter'] =
    mode === 64 ? cpu => enterLong64(cpu, entry, registers) : cpu => enterProtected32(cpu, entry, registers);
  return { format, segments, entry, enter };
}

/**
 * The fw_cfg items with which firmware and its Linux boot ROM load a bzImage or zImage: the kernel is entered in real mode.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT, ERR_IMAGE_TRUNCATED, ERR_IMAGE_NO_RAM
 */
export function linuxFwCfg(image: Uint8Array, environment: BootEnvironment): FwCfgItem[] {
  const { version, header, setup: original, kernel } = parseLinux(image);
  const setup = original.slice();
  const view = new DataView(setup.buffer);
  const commandLine = checkCommandLine(environment, version < 0x206 ? OLD_COMMAND_LINE_MAX : header.cmdline_size);
  const roomForCommandLine = Math.ceil(commandLine.length / 16) * 16;
  const high = version >= 0x200 && (header.loadflags & LOADED_HIGH) !== 0;
  const recent = high && version >= 0x202;
  const realAddress = recent ? 0x1_0000 : 0x9_0000;
  const commandLineAddress = recent ? LOW_MEMORY.COMMAND_LINE : 0x9_a000 - roomForCommandLine;
  const kernelAddress = high ? KERNEL_HIGH : KERNEL_LOW;

  if (version >= 0x202) {
    view.setUint32(CMD_LINE_PTR, commandLineAddress, true);
  } else {
    view.setUint16(OLD_CL_MAGIC, OLD_CL_MAGIC_VALUE, true);
    view.setUint16(OLD_CL_OFFSET, commandLineAddress - realAddress, true);
  }
  const mode = videoMode(environment.commandLine ?? '');
  if (mode !== undefined) view.setUint16(VID_MODE, mode, true);
  if (version >= 0x200) view.setUint8(TYPE_OF_LOADER, LOADER_QEMU);
  if (version >= 0x201) {
    view.setUint8(LOADFLAGS, header.loadflags | CAN_USE_HEAP);
    view.setUint16(HEAP_END_PTR, commandLineAddress - realAddress - 0x200, true);
  }

  const items = [
    fwCfgNumber(FW_CFG.CMDLINE_ADDR, commandLineAddress),
    fwCfgNumber(FW_CFG.CMDLINE_SIZE, commandLine.length),
    { selector: FW_CFG.CMDLINE_DATA, bytes: commandLine },
  ];
  if (environment.initrd !== undefined) {
    if (version < 0x200) throw bad('linux kernel too old to load a ram disk');
    const initrd = placeInitrd(
      environment,
      [segment(kernelAddress, kernel)],
      Math.min(initrdMax(version, header), firmwareInitrdMax(environment)),
    );
    if (initrd !== undefined) {
      items.push(fwCfgNumber(FW_CFG.INITRD_ADDR, initrd.address), fwCfgNumber(FW_CFG.INITRD_SIZE, initrd.size));
      items.push({ selector: FW_CFG.INITRD_DATA, bytes: initrd.bytes });
      view.setUint32(RAMDISK_IMAGE, initrd.address, true);
      view.setUint32(RAMDISK_SIZE, initrd.size, true);
    }
  }
  items.push(
    fwCfgNumber(FW_CFG.KERNEL_ADDR, kernelAddress),
    fwCfgNumber(FW_CFG.KERNEL_SIZE, kernel.length),
    { selector: FW_CFG.KERNEL_DATA, bytes: kernel },
    fwCfgNumber(FW_CFG.SETUP_ADDR, realAddress),
    fwCfgNumber(FW_CFG.SETUP_SIZE, setup.length),
    { selector: FW_CFG.SETUP_DATA, bytes: setup },
  );
  return items;
}

/** The ranges of a machine with this memory map when nothing but RAM matters. */
export function ramRange(address: number, size: number): { address: number; size: number; type: number } {
  return { address, size, type: E820.RAM };
}

function initrdMax(version: number, header: Parsed<typeof SETUP_HEADER>): number {
  if (version >= 0x20c && header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G) return 0xffff_ffff;
  return version >= 0x203 ? header.initrd_addr_max : OLD_INITRD_MAX;
}

function checkCommandLine(environment: BootEnvironment, limit: number): Uint8Array {
  const commandLine = cString(environment.commandLine ?? '');
  if (commandLine.length - 1 > limit) {
    throw new SouthbridgeError(
      'ERR_IMAGE_COMMAND_LINE',
      `the kernel takes a command line of ${limit} bytes, not ${commandLine.length - 1}`,
    );
  }
  return commandLine;
}

/** The `vga=` parameter, which boot loaders handle in the kernel's place (boot.rst, "Special command line options"). */
function videoMode(commandLine: string): number | undefined {
  const value = /vga=(\S*)/.exec(commandLine)?.[1];
  if (value === undefined) return undefined;
  if (value.startsWith('normal')) return 0xffff;
  if (value.startsWith('ext')) return 0xfffe;
  if (value.startsWith('ask')) return 0xfffd;
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(value))
    throw new SouthbridgeError('ERR_IMAGE_COMMAND_LINE', "invalid 'vga=' kernel parameter.");
  return Number(value) & 0xffff;
}

function bad(message: string, hint?: string): SouthbridgeError {
  return new SouthbridgeError('ERR_IMAGE_FORMAT', message, hint);
}
