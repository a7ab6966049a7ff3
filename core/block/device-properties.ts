import { prop } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';
import type { BlockBackend } from './backend.ts';
import { exchangeNode } from './media.ts';

const UNSET = 0xffff_ffff;

/** A drive, or a node. Another node can take its place while the machine runs (`qom-set`). */
export const driveProperty = prop.backend<BlockBackend>('drive', { exchange: exchangeNode });

/** The properties of a device with a disk behind it, with QEMU's names. */
export const blockProperties = {
  drive: driveProperty,
  backend_defaults: prop.onOffAuto({ default: 'auto' }),
  logical_block_size: prop.size({ default: 0, description: 'A power of two between 512 B and 2 MiB' }),
  physical_block_size: prop.size({ default: 0, description: 'A power of two between 512 B and 2 MiB' }),
  min_io_size: prop.size({ default: 0 }),
  opt_io_size: prop.size({ default: 0 }),
  discard_granularity: prop.size({ default: UNSET }),
  'write-cache': prop.onOffAuto({ default: 'auto' }),
  'share-rw': prop.bool({ default: false }),
  'account-invalid': prop.onOffAuto({ default: 'auto' }),
  'account-failed': prop.onOffAuto({ default: 'auto' }),
  rerror: prop.enum(['auto', 'report', 'ignore', 'stop'], { default: 'auto', typeName: 'BlockdevOnError' }),
  werror: prop.enum(['auto', 'report', 'ignore', 'enospc', 'stop'], { default: 'auto', typeName: 'BlockdevOnError' }),
} as const;

/** What the user says about a disk's blocks, checked. */
export interface BlockSizes {
  readonly logical: number;
  readonly physical: number;
  readonly minIo: number;
  readonly optIo: number;
  /** Undefined where nothing is known. */
  readonly discardGranularity: number | undefined;
}

interface GivenSizes {
  readonly logical_block_size: number;
  readonly physical_block_size: number;
  readonly min_io_size: number;
  readonly opt_io_size: number;
  readonly discard_granularity: number;
}

/** @throws SouthbridgeError ERR_PROPERTY_VALUE where the sizes do not fit together, in QEMU's words */
export function blockSizes(given: GivenSizes): BlockSizes {
  const logical = given.logical_block_size || 512;
  const physical = given.physical_block_size || 512;
  const { min_io_size: minIo, opt_io_size: optIo, discard_granularity: granularity } = given;
  for (const [name, size] of [
    ['logical_block_size', logical],
    ['physical_block_size', physical],
  ] as const) {
    if (size < 512 || size > 2 * 2 ** 20 || (size & (size - 1)) !== 0) {
      refuse(`Property .${name} doesn't take value ${size} (minimum: 512, maximum: 2097152)`);
    }
  }
  if (logical > physical) refuse('logical_block_size > physical_block_size not supported');
  if (minIo % logical !== 0) refuse('min_io_size must be a multiple of logical_block_size');
  if (minIo / logical > 0xffff) refuse('min_io_size must not exceed 65535 logical blocks');
  if (optIo % logical !== 0) refuse('opt_io_size must be a multiple of logical_block_size');
  if (granularity !== UNSET && granularity % logical !== 0) {
    refuse('discard_granularity must be a multiple of logical_block_size');
  }
  return { logical, physical, minIo, optIo, discardGranularity: granularity === UNSET ? undefined : granularity };
}

function refuse(message: string): never {
  throw new SouthbridgeError('ERR_PROPERTY_VALUE', message);
}
