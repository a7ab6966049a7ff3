import { SouthbridgeError } from '../errors.ts';
import { type ElfImage, parseElf } from './elf.ts';
import { bootGdt, enterProtected32, LOW_MEMORY } from './entry-state.ts';
import {
  type BootEnvironment,
  type BootImage,
  checkPlacement,
  cString,
  FW_CFG,
  type FwCfgItem,
  fwCfgNumber,
  type Segment,
  segment,
} from './image.ts';
import { firmwareInitrdMax, placeInitrd } from './initrd.ts';

/** xen/include/public/elfnote.h: the 32-bit physical entry point of a PVH guest. */
const XEN_ELFNOTE_PHYS32_ENTRY = 18;
/** xen/include/public/arch-x86/hvm/start_info.h. */
const XEN_HVM_START_MAGIC_VALUE = 0x336e_c578;
const START_INFO_SIZE = 56;
const MODLIST_ENTRY_SIZE = 32;
const MEMMAP_ENTRY_SIZE = 24;
/** Version 1 added the memory map. */
const START_INFO_VERSION = 1;

/** The PVH entry point of an ELF image, or undefined where it has none. */
export function pvhEntry(elf: ElfImage): number | undefined {
  const note = elf.notes.find(({ name, type }) => name === 'Xen' && type === XEN_ELFNOTE_PHYS32_ENTRY);
  if (note === undefined || note.description.length < 4) return undefined;
  return new DataView(note.description.buffer, note.description.byteOffset).getUint32(0, true);
}

/**
 * An ELF image with a PVH note, entered without firmware.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT where it has no such note, and the errors of {@link parseElf} and placement
 */
export function loadPvh(image: Uint8Array, environment: BootEnvironment): BootImage {
  const elf = parseElf(image);
  const entry = pvhEntry(elf);
  if (entry === undefined) {
    // QEMU's wording, which its users search for.
    throw new SouthbridgeError('ERR_IMAGE_FORMAT', 'Error loading uncompressed kernel without PVH ELF Note');
  }
  const segments: Segment[] = [
    ...elf.segments,
    bootGdt('protected32'),
    segment(LOW_MEMORY.COMMAND_LINE, cString(environment.commandLine ?? '')),
  ];
  const initrd = placeInitrd(environment, segments, 0xffff_ffff);
  if (initrd !== undefined) segments.push(initrd);
  segments.push(startInfo(environment, initrd));
  checkPlacement(segments, environment.memory);
  return {
    format: 'pvh',
    segments,
    entry,
    enter: cpu => enterProtected32(cpu, entry, { ebx: LOW_MEMORY.BOOT_INFO, esp: LOW_MEMORY.STACK_TOP }),
  };
}

/** The fw_cfg items with which firmware and its PVH boot ROM load the same image. */
export function pvhFwCfg(image: Uint8Array, environment: BootEnvironment): FwCfgItem[] {
  const elf = parseElf(image);
  const entry = pvhEntry(elf);
  if (entry === undefined) {
    throw new SouthbridgeError('ERR_IMAGE_FORMAT', 'Error loading uncompressed kernel without PVH ELF Note');
  }
  const start = Math.min(...elf.segments.map(({ address }) => address));
  const end = Math.max(...elf.segments.map(({ address, size }) => address + size));
  const commandLine = cString(environment.commandLine ?? '');
  // The boot ROM learns from the ELF class in these bytes how the kernel's headers read.
  const setup = new Uint8Array(8192);
  setup.set(image.subarray(0, setup.length));
  const items = [
    fwCfgNumber(FW_CFG.KERNEL_ENTRY, entry),
    fwCfgNumber(FW_CFG.KERNEL_ADDR, start),
    fwCfgNumber(FW_CFG.KERNEL_SIZE, end - start),
    fwCfgNumber(FW_CFG.CMDLINE_SIZE, commandLine.length),
    { selector: FW_CFG.CMDLINE_DATA, bytes: commandLine },
    fwCfgNumber(FW_CFG.SETUP_SIZE, setup.length),
    { selector: FW_CFG.SETUP_DATA, bytes: setup },
  ];
  const initrd = placeInitrd(environment, elf.segments, firmwareInitrdMax(environment));
  if (initrd !== undefined) {
    items.push(fwCfgNumber(FW_CFG.INITRD_ADDR, initrd.address), fwCfgNumber(FW_CFG.INITRD_SIZE, initrd.size));
    items.push({ selector: FW_CFG.INITRD_DATA, bytes: initrd.bytes });
  }
  return items;
}

/** struct hvm_start_info with its module list and memory map behind it. */
function startInfo(environment: BootEnvironment, initrd: Segment | undefined): Segment {
  const modules = initrd === undefined ? 0 : 1;
  const moduleList = START_INFO_SIZE;
  const memoryMap = moduleList + modules * MODLIST_ENTRY_SIZE;
  const bytes = new Uint8Array(memoryMap + environment.memory.length * MEMMAP_ENTRY_SIZE);
  const view = new DataView(bytes.buffer);
  const put64 = (offset: number, value: number): void => view.setBigUint64(offset, BigInt(value), true);
  const base = LOW_MEMORY.BOOT_INFO;
  view.setUint32(0, XEN_HVM_START_MAGIC_VALUE, true);
  view.setUint32(4, START_INFO_VERSION, true);
  view.setUint32(12, modules, true);
  put64(16, modules === 0 ? 0 : base + moduleList);
  put64(24, LOW_MEMORY.COMMAND_LINE);
  put64(32, environment.rsdp ?? 0);
  put64(40, base + memoryMap);
  view.setUint32(48, environment.memory.length, true);
  if (initrd !== undefined) {
    put64(moduleList, initrd.address);
    put64(moduleList + 8, initrd.size);
  }
  for (const [index, range] of environment.memory.entries()) {
    const at = memoryMap + index * MEMMAP_ENTRY_SIZE;
    put64(at, range.address);
    put64(at + 8, range.size);
    view.setUint32(at + 16, range.type, true);
  }
  return segment(base, bytes);
}
