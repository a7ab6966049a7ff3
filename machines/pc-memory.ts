import { SouthbridgeError } from '../core/errors.ts';
import type { Machine } from '../core/machine/machine.ts';
import type { FlashConfig, MachineConfig } from '../core/machine/machine-config.ts';
import { type GuestRam, SharedRam } from '../core/memory/guest-ram.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { pflashCfi01 } from '../devices/pflash-cfi01.ts';

const FOUR_GIB = 2 ** 32;
const GIB = 2 ** 30;
const KIB = 1024;
/** Where the system firmware's last 128 KiB are seen below 1 MiB. */
const LEGACY_BIOS_END = 0x10_0000;
const LEGACY_BIOS_MAX = 128 * KIB;
/** Option ROMs are copied here by firmware. */
const OPTION_ROM_BASE = 0xc_0000;
const OPTION_ROM_SIZE = 0x2_0000;
/** Erase blocks of the system's flash. */
const FLASH_BLOCK = 4 * KIB;
const EMPTY_FIRMWARE_SIZE = 256 * KIB;

/** How a PC divides its RAM around the hole below 4 GiB. Bytes. */
export interface PcRamLayout {
  readonly below4g: number;
  readonly above4g: number;
}

/**
 * The division: as much below 4 GiB as `limit` allows, and if not all fits, only `split`, which leaves the rest gigabyte-aligned.
 */
export function pcRamLayout(size: number, limit: number, split: number): PcRamLayout {
  const below4g = size > limit ? split : size;
  return { below4g: Math.min(size, below4g), above4g: Math.max(0, size - below4g) };
}

export interface PcRam extends PcRamLayout {
  readonly low: GuestRam;
  /** The region that shadow RAM windows alias. */
  readonly lowRegion: MemoryRegion;
}

/** Makes and maps the RAM. */
export function mapPcRam(machine: Machine, layout: PcRamLayout): PcRam {
  const { defaultRamId } = machine.type;
  const low = machine.allocateRam(defaultRamId, layout.below4g, machine.ramFiles(0, layout.below4g));
  const lowRegion = MemoryRegion.ram(low, defaultRamId);
  machine.memoryRoot.add(lowRegion, 0, 0);
  if (layout.above4g > 0) {
    // A WebAssembly memory ends at 4 GiB, so that more RAM is several pieces, one after the other.
    let at = 0;
    for (let index = 0; at < layout.above4g; index++) {
      const size = Math.min(FOUR_GIB, layout.above4g - at);
      const files = machine.ramFiles(layout.below4g + at, size);
      const piece = machine.allocateRam(`${defaultRamId}.high${index}`, size, files);
      machine.memoryRoot.add(MemoryRegion.ram(piece), FOUR_GIB + at, 0);
      at += size;
    }
  }
  return { ...layout, low, lowRegion };
}

/** Memory modules lie behind all other RAM, from the next gigabyte on. */
export function openMemorySlots(machine: Machine, layout: PcRamLayout): void {
  machine.openMemoryBus(Math.ceil((FOUR_GIB + layout.above4g) / GIB) * GIB);
}

/**
 * The system firmware, in flash or in ROM: at the end of the 32-bit address space, its last 128 KiB again below 1 MiB, and the
 * RAM for option ROMs.
 * @throws SouthbridgeError ERR_BIOS_SIZE, or what the ROM search throws
 */
export function mapPcFirmware(machine: Machine, pciMemory: MemoryRegion): void {
  const { bios, flash } = machine.config;
  if (flash.length > 0) plugFlash(machine, pciMemory, flash);
  else mapRom(machine, pciMemory, bios ?? 'bios-256k.bin');
  const optionRoms = new SharedRam('pc.rom', OPTION_ROM_SIZE);
  pciMemory.add(MemoryRegion.rom(optionRoms), OPTION_ROM_BASE, 1);
  machine.adoptRam(optionRoms);
}

/** Chips of 4 KiB blocks, the first at the end and the others below it; the first one's end is copied below 1 MiB. */
function plugFlash(machine: Machine, pciMemory: MemoryRegion, flash: readonly FlashConfig[]): void {
  let end = FOUR_GIB;
  for (const [index, { drive, image }] of flash.entries()) {
    const name = `system.flash${index}`;
    const chip = machine.system.plug(
      pflashCfi01,
      {},
      { drive, name, width: 1, 'sector-length': BigInt(FLASH_BLOCK), 'num-blocks': image.length / FLASH_BLOCK },
    );
    chip.load(image);
    chip.parent?.removeChild(chip);
    machine.object.addChild(name, chip);
    end -= image.length;
    machine.memoryRoot.add(chip.region, end, 0);
    if (index > 0) continue;
    const legacy = new SharedRam('isa-bios', Math.min(image.length, LEGACY_BIOS_MAX), { readonly: true });
    legacy.bytes.set(image.subarray(image.length - legacy.size));
    pciMemory.add(MemoryRegion.rom(legacy), LEGACY_BIOS_END - legacy.size, 1);
  }
}

function mapRom(machine: Machine, pciMemory: MemoryRegion, fileName: string): void {
  const image = checkedFirmware(machine, fileName);
  const bios = new SharedRam('pc.bios', image.length, { readonly: true });
  bios.bytes.set(image);
  const region = MemoryRegion.rom(bios);
  const legacySize = Math.min(image.length, LEGACY_BIOS_MAX);
  const legacy = MemoryRegion.alias('isa-bios', region, image.length - legacySize, legacySize);
  legacy.setReadonly(true);
  pciMemory.add(legacy, LEGACY_BIOS_END - legacySize, 1);
  pciMemory.add(region, FOUR_GIB - image.length, 0);
}

/**
 * The system firmware where the processor starts, and its last 128 KiB in the RAM below 1 MiB, which firmware without a chipset to
 * shadow it runs from and writes to; that part is seen at the end as well. Each reset renews it.
 * @throws SouthbridgeError as {@link mapPcFirmware}
 */
export function mapWritableFirmware(machine: Machine, { low, lowRegion }: PcRam, fileName: string): void {
  const image = checkedFirmware(machine, fileName);
  const legacySize = Math.min(image.length, LEGACY_BIOS_MAX);
  const legacyBase = LEGACY_BIOS_END - legacySize;
  const rest = image.length - legacySize;
  const load = (): void => low.bytes.set(image.subarray(rest), legacyBase);
  // Accelerators that copy RAM do so when it is mapped, before the first reset.
  load();
  const end = MemoryRegion.alias('pc.bios', lowRegion, legacyBase, legacySize);
  machine.memoryRoot.add(end, FOUR_GIB - legacySize, 0);
  machine.onReset(load);
  if (rest === 0) return;
  const rom = new SharedRam('pc.bios', rest, { readonly: true });
  rom.bytes.set(image.subarray(0, rest));
  machine.memoryRoot.add(MemoryRegion.rom(rom), FOUR_GIB - image.length, 0);
}

function checkedFirmware(machine: Machine, fileName: string): Uint8Array {
  const image = firmwareImage(machine, fileName);
  if (image.length === 0 || image.length % (64 * KIB) !== 0 || image.length > 16 * KIB * KIB) {
    throw new SouthbridgeError(
      'ERR_BIOS_SIZE',
      `could not load PC BIOS '${fileName}'`,
      'a firmware image is a multiple of 64 KiB, at most 16 MiB',
    );
  }
  return image;
}

/** A machine without CPUs never runs its firmware, so it is built on hosts that have none, too. */
function firmwareImage(machine: Machine, fileName: string): Uint8Array {
  try {
    return machine.services.romImage(fileName);
  } catch (error) {
    if (machine.accelerator.name !== 'qtest' || machine.config.bios !== undefined) throw error;
    return new Uint8Array(EMPTY_FIRMWARE_SIZE).fill(0xff);
  }
}

/** RAM below 4 GiB of the i440FX machines: the PCI hole begins at 3.5 GiB, or at 3 GiB where RAM goes beyond. */
export function i440fxRamLayout(config: MachineConfig, maxBelow4g: number): PcRamLayout {
  const limit = Math.min(maxBelow4g, 0xe000_0000);
  return config.ramSize >= limit
    ? pcRamLayout(config.ramSize, Math.min(0xc000_0000, limit), Math.min(0xc000_0000, limit))
    : { below4g: config.ramSize, above4g: 0 };
}
