import { errno, IoError } from './io-error.ts';
import type { BlockNode } from './node.ts';

/** Flags of a write. */
export const writeFlag = {
  /** On the disk when done. */
  FUA: 1,
  /** Zeroes may be made by giving the blocks back. */
  MAY_UNMAP: 2,
  /** Zeroes only if that is cheaper than writing them: ENOTSUP otherwise. */
  NO_FALLBACK: 4,
  /** Writes what is there already: not a change of content. */
  UNCHANGED: 8,
  /** The data is to be compressed, a whole cluster at a time. */
  COMPRESSED: 16,
} as const;

/** What a stretch of a node is. */
export interface BlockStatus {
  /** From the offset asked for: all of this stretch is the same; at least 1. */
  readonly bytes: number;
  /** Allocated in this node rather than in what backs it. */
  readonly allocated: boolean;
  readonly data: boolean;
  readonly zero: boolean;
  readonly compressed?: boolean;
  /** Where in `file` the data lies, if it lies there as it is. */
  readonly offset?: number;
  readonly file?: BlockNode;
}

/** No image is longer, in bytes: offsets of 63 bits, in whole GiB. */
export const MAX_LENGTH = 2n ** 63n - 2n ** 30n;

/**
 * A length that an image is to have, in bytes.
 *
 * @throws IoError where no image is that long, or none that can be addressed here
 */
export function imageLength(bytes: bigint): number {
  if (bytes >= 2n ** 63n) throw new IoError(errno.EINVAL, 'Image size cannot be negative');
  if (bytes > MAX_LENGTH) throw new IoError(errno.EFBIG, `offset(${bytes}) exceeds maximum(${MAX_LENGTH})`);
  const length = Number(bytes);
  if (!Number.isSafeInteger(length)) throw new IoError(errno.EFBIG);
  return length;
}

export const PREALLOCATIONS = ['off', 'metadata', 'falloc', 'full'] as const;
export type Preallocation = (typeof PREALLOCATIONS)[number];

export interface TruncateOptions {
  readonly preallocation?: Preallocation;
  /** What is added must read as zeroes. */
  readonly zero?: boolean;
}

export type DetectZeroes = 'off' | 'on' | 'unmap';

/** The options that every node has. */
export interface NodeSettings {
  readOnly: boolean;
  autoReadOnly: boolean;
  direct: boolean;
  noFlush: boolean;
  discard: boolean;
  forceShare: boolean;
  detectZeroes: DetectZeroes;
}

/** Requests a user makes of its own do not cross this, whatever the guest asks for. */
export const MAX_REQUEST = 2 ** 31 - 2 ** 16;
