/** The block of component registers, and what a decoder of host-managed device memory makes of an address (CXL 2.0, 8.2.5.12). */
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import type { AnyRegisterBank, RegisterHook } from '../../core/register/register.ts';
import { CACHE_MEM_AT, CACHE_MEM_SIZE, COMPONENT_BLOCK_SIZE } from './component-registers.ts';

interface Word {
  readonly value: number;
}

/** The registers of one decoder, whosever they are. */
interface DecoderRegisters {
  readonly HDM_GLOBAL_CONTROL: { readonly ENABLE: boolean };
  readonly DECODER_BASE_LOW: Word;
  readonly DECODER_BASE_HIGH: Word;
  readonly DECODER_SIZE_LOW: Word;
  readonly DECODER_SIZE_HIGH: Word;
  readonly DECODER_CONTROL: Word;
  readonly TARGETS_LOW: Word;
  readonly TARGETS_HIGH: Word;
}

const CONTROL = {
  GRANULARITY: 0x000f,
  WAYS: 0x00f0,
  WAYS_SHIFT: 4,
  LOCK_ON_COMMIT: 1 << 8,
  COMMIT: 1 << 9,
  COMMITTED: 1 << 10,
  ERROR_NOT_COMMITTED: 1 << 11,
} as const;
/** 16 KiB, and 8 ways. */
const MAX_GRANULARITY = 6;
const MAX_WAYS = 3;
const MIN_GRANULE = 256;
const HIGH = 2 ** 32;
const NOWHERE = -1;

/** The block as a BAR or a host bridge shows it; what is not CXL.cache's and CXL.mem's reads as 0. */
export function componentBlock(name: string, bank: AnyRegisterBank): MemoryRegion {
  const block = MemoryRegion.container(name, COMPONENT_BLOCK_SIZE);
  const nothing = { read: () => 0, write: () => {} };
  block.add(MemoryRegion.io('.io', CACHE_MEM_AT, nothing), 0);
  // 8.2.2: these registers take no accesses of parts of them.
  const whole = { valid: { min: 4, max: 8, unaligned: false }, impl: { min: 4, max: 4 } } as const;
  block.add(MemoryRegion.io('.cache_mem', CACHE_MEM_SIZE, bank, whole), CACHE_MEM_AT);
  return block;
}

/** Where an address goes by the one decoder that each component has. Addresses in bytes. */
export class HdmDecoder {
  readonly #regs: DecoderRegisters;

  constructor(regs: DecoderRegisters) {
    this.#regs = regs;
  }

  /** The number of the port behind which `address` is, or -1 where that is nowhere. Of bridges and upstream ports. */
  port(address: number): number {
    const regs = this.#regs;
    if (this.#offset(address) < 0) return NOWHERE;
    const control = regs.DECODER_CONTROL.value;
    const way = Math.floor(address / granule(control)) % ways(control);
    return ((way < 4 ? regs.TARGETS_LOW.value : regs.TARGETS_HIGH.value) >>> (8 * (way & 3))) & 0xff;
  }

  /** Where in the device's own memory `address` is, or -1. Of devices. */
  deviceAddress(address: number): number {
    const regs = this.#regs;
    // 8.2.5.12.2: only devices have a switch for their decoders.
    const offset = regs.HDM_GLOBAL_CONTROL.ENABLE ? this.#offset(address) : NOWHERE;
    if (offset < 0) return NOWHERE;
    const control = regs.DECODER_CONTROL.value;
    const size = granule(control);
    const whole = Math.floor(offset / (size * ways(control))) * size;
    return regs.TARGETS_HIGH.value * HIGH + regs.TARGETS_LOW.value + whole + (offset % size);
  }

  #offset(address: number): number {
    const regs = this.#regs;
    if ((regs.DECODER_CONTROL.value & CONTROL.COMMITTED) === 0) return NOWHERE;
    const offset = address - (regs.DECODER_BASE_HIGH.value * HIGH + regs.DECODER_BASE_LOW.value);
    return offset < regs.DECODER_SIZE_HIGH.value * HIGH + regs.DECODER_SIZE_LOW.value ? offset : NOWHERE;
  }
}

/**
 * What the decoder's registers do: committing makes its range count. Reserved interleaving is refused, and what locks on commit keeps
 * its values until reset.
 */
export function decoderHooks(
  regs: () => DecoderRegisters,
): Readonly<Record<Exclude<keyof DecoderRegisters, 'HDM_GLOBAL_CONTROL'>, RegisterHook<number>>> {
  const locked = (): boolean => {
    const control = regs().DECODER_CONTROL.value;
    return (control & CONTROL.COMMITTED) !== 0 && (control & CONTROL.LOCK_ON_COMMIT) !== 0;
  };
  const lockable = { write: (value: number, previous: number) => (locked() ? previous : value) };
  return {
    DECODER_BASE_LOW: lockable,
    DECODER_BASE_HIGH: lockable,
    DECODER_SIZE_LOW: lockable,
    DECODER_SIZE_HIGH: lockable,
    TARGETS_LOW: lockable,
    TARGETS_HIGH: lockable,
    DECODER_CONTROL: { write: (value, previous) => (locked() ? previous : committed(value, previous)) },
  };
}

/** 8.2.5.12.7: the outcome of what software asks for with COMMIT. */
function committed(value: number, previous: number): number {
  const { COMMIT, COMMITTED, ERROR_NOT_COMMITTED } = CONTROL;
  const asked = value & ~(COMMITTED | ERROR_NOT_COMMITTED);
  if ((value & COMMIT) === 0) return asked;
  if ((previous & COMMITTED) !== 0) return asked | COMMITTED;
  const possible =
    (value & CONTROL.GRANULARITY) <= MAX_GRANULARITY && (value & CONTROL.WAYS) >> CONTROL.WAYS_SHIFT <= MAX_WAYS;
  return asked | (possible ? COMMITTED : ERROR_NOT_COMMITTED);
}

function granule(control: number): number {
  return MIN_GRANULE << (control & CONTROL.GRANULARITY);
}

function ways(control: number): number {
  return 1 << ((control & CONTROL.WAYS) >> CONTROL.WAYS_SHIFT);
}
