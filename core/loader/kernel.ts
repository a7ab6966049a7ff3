import { isElf, parseElf } from './elf.ts';
import { bootGdt, enterLong64, enterProtected32, identityPageTables, LOW_MEMORY } from './entry-state.ts';
import { type BootEnvironment, type BootImage, checkPlacement, type FwCfgItem } from './image.ts';
import { isLinux, linuxFwCfg, loadLinux } from './linux.ts';
import { loadMultiboot, multibootFwCfg, multibootHeader } from './multiboot.ts';
import { loadPvh, pvhEntry, pvhFwCfg } from './pvh.ts';

/** How firmware gets at a kernel: numbered fw_cfg items, and the boot ROM that knows what to do with them. */
export interface FirmwareBoot {
  readonly items: readonly FwCfgItem[];
  readonly rom: 'linuxboot' | 'multiboot' | 'pvh';
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
    if (multibootHeader(image) !== undefined) return { rom: 'multiboot', items: multibootFwCfg(image, environment) };
    if (isElf(image)) return { rom: 'pvh', items: pvhFwCfg(image, environment) };
  }
  return { rom: 'linuxboot', items: linuxFwCfg(image, environment) };
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
