import { IoVector } from './io-vector.ts';
import type { BlockNode } from './node.ts';
import type { Task } from './pending.ts';

/** Reads `bytes` bytes of a node; what lies behind its end is 0. */
export function* readBytes(node: BlockNode, offset: number, bytes: number): Task<Buffer> {
  const buffer = Buffer.alloc(bytes);
  const reading = node.readv(offset, bytes, IoVector.of(buffer));
  if (reading) yield reading;
  return buffer;
}

export function* writeBytes(node: BlockNode, offset: number, bytes: Uint8Array): Task {
  const writing = node.writev(offset, bytes.length, IoVector.of(bytes));
  if (writing) yield writing;
}
