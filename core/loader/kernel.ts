import { BOOT_ROMS } from './boot-roms.ts';
import { isElf, parseElf } from './elf.ts';
import { bootGdt, enterLong64, enterProtected32, identityPageTables, LOW_MEMORY } from './entry-state.ts';
import { type BootEnvironment, type BootImage, checkPlacement, type FwCfgItem, type Segment } from './image.ts';
import { isLinux, linuxFwCfg, loadLinux } from './linux.ts';
import { loadMultiboot, multibootFwCfg, multibootHeader } from './multiboot.ts';
import { loadPvh, pvhEntry, pvhFwCfg } from './pvh.ts';

/** How firmware gets at a kernel. */
export interface FirmwareBoot {
  /** Numbered fw_cfg items. */
  readonly items: readonly FwCfgItem[];
  /** QEMU's name of the boot ROM that knows what to do with them: {@link bootRom} has it, for `genroms/` in fw_cfg. */
  readonly rom: BootRomName;
  /** What must be in memory before firmware starts, after each reset: the ROM for ELF kernels does not load them. */
  readonly segments: readonly Segment[];
}

export type BootRomName = keyof typeof BOOT_ROMS;

export function isBootRom(name: string): name is BootRomName {
  return Object.hasOwn(BOOT_ROMS, name);
}

/** The boot ROM of that name, ours. */
export function bootRom(name: BootRomName): Uint8Array {
  return Buffer.from(BOOT_ROMS[name], 'base64');
}

/**
 * What `-kernel` means where there is no firmware: Linux, multiboot, an ELF with a PVH entry, or an ELF as it stands, by
 * what the file says it is, tried in this order.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT, ERR_IMAGE_TRUNCATED, ERR_IMAGE_NO_RAM, ERR_IMAGE_OVERLAP, ERR_IMAGE_COMMAND_LINE
 */
export function loadKernel(image: Uint8Array, environment: BootEnvironment): BootImage {
  if (isLinux(image)) return loadLinux(image, environment);
  if (multibootHeader(image) !== undefined) return loadMultiboot(image, environment);
  const elf = parseElf(image);
  if (pvhEntry(elf) !== undefined) return loadPvh(image, environment);
  return loadElf(image, environment);
}

/**
 * What `-kernel` means to firmware, by the same order.
 *
 * @throws SouthbridgeError as {@link loadKernel}
 */
export function firmwareKernel(image: Uint8Array, environment: BootEnvironment): FirmwareBoot {
  if (!isLinux(image)) {
    if (multibootHeader(image) !== undefined) {
      return { rom: 'multiboot_dma.bin', items: multibootFwCfg(image, environment), segments: [] };
    }
    if (isElf(image))
      return { rom: 'pvh.bin', items: pvhFwCfg(image, environment), segments: parseElf(image).segments };
  }
  return { rom: 'linuxboot_dma.bin', items: linuxFwCfg(image, environment), segments: [] };
}

/**
 * An ELF executable entered at its entry point: in flat protected mode for i386, in 64-bit mode over identity page tables
 * for x86-64.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT, ERR_IMAGE_TRUNCATED, ERR_IMAGE_NO_RAM, ERR_IMAGE_OVERLAP
 */
export function loadElf(image: Uint8Array, environment: BootEnvironment): BootImage {
  const elf = parseElf(image);
  const entry = elf.physicalEntry;
  const registers = { esp: LOW_MEMORY.STACK_TOP };
  const segments = [bootGdt(elf.longMode ? 'long64' : 'protected32'), ...elf.segments];
  if (elf.longMode) segments.push(identityPageTables());
  checkPlacement(segments, environment.memory);
  const enter: BootImage['enter'] = elf.longMode
    ? cpu => enterLong64(cpu, entry, registers)
    : cpu => enterProtected32(cpu, entry, registers);
  return { format: 'elf', segments, entry, enter };
}
