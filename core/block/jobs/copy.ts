import { IoVector } from '../io-vector.ts';
import type { BlockNode } from '../node.ts';
import { writeFlag } from '../requests.ts';

/** Bytes that are copied at once. */
export const CHUNK = 1 << 20;

/**
 * Whether the data at `offset` comes from a node between `top` and `base` (not counting `base` itself), and for how far
 * that is the same.
 */
export async function allocatedAbove(
  top: BlockNode,
  base: BlockNode | undefined,
  offset: number,
  bytes: number,
): Promise<{ readonly allocated: boolean; readonly bytes: number; readonly zero: boolean }> {
  let left = bytes;
  const end = base?.withoutFilters;
  for (
    let node: BlockNode | undefined = top.withoutFilters;
    node !== undefined && node !== end;
    node = node.backing?.withoutFilters
  ) {
    if (offset >= node.length) continue;
    const status = await node.status(offset, Math.min(left, node.length - offset));
    if (status.allocated) return { allocated: true, bytes: Math.min(left, status.bytes), zero: status.zero };
    left = Math.min(left, status.bytes);
  }
  return { allocated: false, bytes: left, zero: false };
}

/** Copies a range from one node to another: zeroes as zeroes. */
export async function copyRange(
  source: BlockNode,
  target: BlockNode,
  offset: number,
  bytes: number,
  options: { readonly compress?: boolean; readonly unmap?: boolean } = {},
): Promise<void> {
  const size = Math.min(bytes, target.length - offset);
  if (size <= 0) return;
  const buffer = new Uint8Array(size);
  const iov = IoVector.of(buffer);
  try {
    await source.readv(offset, size, iov);
  } catch (error) {
    throw new CopyError('read', error);
  }
  try {
    if (iov.isZero(0, size)) await target.writeZeroes(offset, size, options.unmap === true ? writeFlag.MAY_UNMAP : 0);
    else await target.writev(offset, size, iov, 0, options.compress === true ? writeFlag.COMPRESSED : 0);
  } catch (error) {
    throw new CopyError('write', error);
  }
}

/** Zeroes a range of a node. */
export async function zeroRange(target: BlockNode, offset: number, bytes: number, unmap: boolean): Promise<void> {
  try {
    await target.writeZeroes(offset, Math.min(bytes, target.length - offset), unmap ? writeFlag.MAY_UNMAP : 0);
  } catch (error) {
    throw new CopyError('write', error);
  }
}

/** Which half of a copy failed. */
export class CopyError extends Error {
  readonly operation: 'read' | 'write';

  constructor(operation: 'read' | 'write', cause: unknown) {
    super('', { cause });
    this.operation = operation;
  }
}
