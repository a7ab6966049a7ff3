import type { BlockBackend } from '../backend.ts';
import type { DirtyBitmap } from '../dirty-bitmap.ts';
import { errno, IoError } from '../io-error.ts';
import type { BlockNode } from '../node.ts';
import { extent } from './protocol.ts';

/** Bytes from an offset on that are all the same, and what they are: the context gives the number its meaning. */
interface Extent {
  readonly bytes: number;
  readonly state: number;
}

/** Something that clients may ask about each stretch of an export: NBD's metadata contexts. */
export interface MetaContext {
  readonly name: string;
  look(offset: number, bytes: number): Extent | Promise<Extent>;
}

/** The extents of a range as they are sent: length and state, one after the other. At most `most` of them. */
export async function describe(context: MetaContext, offset: number, length: number, most: number): Promise<number[]> {
  const extents: number[] = [];
  for (let at = offset; at < offset + length; ) {
    const { bytes, state } = await context.look(at, offset + length - at);
    const last = extents.length - 2;
    if (last >= 0 && extents[last + 1] === state) extents[last] = (extents[last] ?? 0) + bytes;
    else if (extents.length === most * 2) break;
    else extents.push(bytes, state);
    at += bytes;
  }
  return extents;
}

function rootOf({ root }: BlockBackend): BlockNode {
  if (root === undefined) throw new IoError(errno.ENOMEDIUM);
  return root;
}

/** Holes and zeroes. */
export function baseAllocation(backend: BlockBackend): MetaContext {
  return {
    name: 'base:allocation',
    async look(offset, bytes) {
      const found = await chainStatus(rootOf(backend), offset, bytes);
      return { bytes: found.bytes, state: (found.data ? 0 : extent.HOLE) | (found.zero ? extent.ZERO : 0) };
    },
  };
}

/** How many images deep a stretch is: 1 for the export's own, 0 where no image has it. */
export function allocationDepth(backend: BlockBackend): MetaContext {
  return {
    name: 'qemu:allocation-depth',
    async look(offset, bytes) {
      const { bytes: run, depth } = await chainStatus(rootOf(backend), offset, bytes);
      return { bytes: run, state: depth };
    },
  };
}

/** What was written: 1 where a bit is set. */
export function dirtyBitmap(bitmap: DirtyBitmap): MetaContext {
  return {
    name: `qemu:dirty-bitmap:${bitmap.name}`,
    look(offset, bytes) {
      const dirty = bitmap.get(offset);
      const end = dirty ? bitmap.nextClean(offset) : bitmap.nextDirty(offset);
      return { bytes: end < 0 ? bytes : Math.max(1, Math.min(bytes, end - offset)), state: dirty ? 1 : 0 };
    },
  };
}

/** What a stretch is, wherever in the chain of images it comes from. */
async function chainStatus(
  node: BlockNode,
  offset: number,
  bytes: number,
): Promise<{ bytes: number; data: boolean; zero: boolean; depth: number }> {
  let left = bytes;
  let depth = 0;
  for (let at: BlockNode | undefined = node.withoutFilters; at !== undefined; at = at.backing?.withoutFilters) {
    if (offset >= at.length) return { bytes: left, data: false, zero: true, depth: 0 };
    depth++;
    const status = await at.status(offset, Math.min(left, at.length - offset));
    left = Math.min(left, status.bytes);
    if (status.allocated || (status.zero && at.backing === undefined)) {
      return { bytes: left, data: status.data, zero: status.zero, depth: status.allocated ? depth : 0 };
    }
  }
  return { bytes: left, data: false, zero: true, depth: 0 };
}
