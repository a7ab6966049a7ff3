/** Resource descriptors (ACPI 6.4 section 6.4) and the template that holds them. */
import { SouthbridgeError } from '../errors.ts';
import { type Aml, buffer, concat, littleEndian, u16, u32 } from './aml.ts';

const END_TAG = 0x79;

/** ResourceTemplate: a Buffer of descriptors. A checksum of zero counts as correct (6.4.2.9). */
export function resourceTemplate(descriptors: readonly Aml[]): Aml {
  return buffer(concat(...descriptors, [END_TAG, 0]));
}

// 6.4.2 Small Resource Data Types

/** IRQNoFlags (6.4.2.1): one edge-triggered, active-high ISA interrupt. */
export function irqNoFlags(irq: number): Aml {
  if (irq < 0 || irq > 15) throw new SouthbridgeError('ERR_AML_IRQ', `IRQ ${irq} is not between 0 and 15`);
  return concat([0x22], u16(1 << irq));
}

/** DMA (6.4.2.2): one 8-bit, compatibility-mode ISA channel that is not a bus master. */
export function dma8(channel: number): Aml {
  if (channel < 0 || channel > 7) throw new SouthbridgeError('ERR_AML_DMA', `DMA ${channel} is not between 0 and 7`);
  return Uint8Array.of(0x2a, 1 << channel, 0);
}

/** IO (6.4.2.5): `length` ports at a fixed base, or up to `last`, all 16 address bits decoded. */
export function io(base: number, length: number, alignment = 1, last = base): Aml {
  return concat([0x47, 1], u16(base), u16(last), [alignment, length]);
}

// 6.4.3 Large Resource Data Types

const STANDARD_SPEED = 100_000;

/** I2C Serial Bus Connection (6.4.3.8.2.1) to the 7-bit `address` on the bus of the controller `source`. */
export function i2cSerialBus(address: number, source: string): Aml {
  const data = concat(u32(STANDARD_SPEED), u16(address));
  const body = concat([1, 0, 1, 0], u16(0), [1], u16(data.length), data, Buffer.from(`${source}\0`));
  return concat([0x8e], u16(body.length), body);
}

export type Writability = 'readOnly' | 'readWrite';

/** Memory32Fixed (6.4.3.4). */
export function memory32Fixed(base: number, length: number, write: Writability): Aml {
  return concat([0x86, 9, 0, write === 'readWrite' ? 1 : 0], u32(base), u32(length));
}

/** Interrupt (6.4.3.6): GSIs that the device consumes; level-triggered, active-high and shared unless said otherwise. */
export function interrupt(
  gsis: readonly number[],
  options: { readonly edge?: true; readonly activeLow?: true; readonly exclusive?: true } = {},
): Aml {
  const flags = 1 | (options.edge ? 2 : 0) | (options.activeLow ? 4 : 0) | (options.exclusive ? 0 : 8);
  const numbers = gsis.map(gsi => u32(gsi));
  return concat([0x89], u16(2 + 4 * gsis.length), [flags, gsis.length], ...numbers);
}

// 6.4.3.5 Address Space Resource Descriptors: produced, positively decoded, both ends fixed

const MIN_AND_MAX_FIXED = 0b1100;
const ENTIRE_RANGE = 3;
const addressTypes = { memory: 0, io: 1, bus: 2 } as const;

function addressSpace(
  tag: number,
  size: 2 | 4 | 8,
  type: keyof typeof addressTypes,
  typeFlags: number,
  min: number | bigint,
  max: number | bigint,
  length: number | bigint,
): Aml {
  return concat(
    [tag],
    u16(3 + 5 * size),
    [addressTypes[type], MIN_AND_MAX_FIXED, typeFlags],
    littleEndian(0, size),
    littleEndian(min, size),
    littleEndian(max, size),
    littleEndian(0, size),
    littleEndian(length, size),
  );
}

/** The size of [min, max]: in bigint arithmetic, as a 64-bit window may end beyond 2^53. */
function lengthOf(min: number | bigint, max: number | bigint): bigint {
  return BigInt(max) - BigInt(min) + 1n;
}

export function wordBusNumber(min: number, max: number): Aml {
  return addressSpace(0x88, 2, 'bus', 0, min, max, max - min + 1);
}

export function wordIo(min: number, max: number): Aml {
  return addressSpace(0x88, 2, 'io', ENTIRE_RANGE, min, max, max - min + 1);
}

export function dwordIo(min: number, max: number): Aml {
  return addressSpace(0x87, 4, 'io', ENTIRE_RANGE, min, max, max - min + 1);
}

export interface MemoryAttributes {
  readonly cacheable: boolean;
  readonly write: Writability;
}

function memoryFlags(attributes: MemoryAttributes): number {
  return (attributes.write === 'readWrite' ? 1 : 0) | (attributes.cacheable ? 2 : 0);
}

export function dwordMemory(min: number, max: number, attributes: MemoryAttributes): Aml {
  return addressSpace(0x87, 4, 'memory', memoryFlags(attributes), min, max, lengthOf(min, max) & 0xffff_ffffn);
}

export function qwordMemory(
  min: number | bigint,
  max: number | bigint,
  attributes: MemoryAttributes,
  length: bigint = lengthOf(min, max),
): Aml {
  return addressSpace(0x8a, 8, 'memory', memoryFlags(attributes), min, max, length);
}
