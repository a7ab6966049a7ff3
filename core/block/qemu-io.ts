import { BlkdebugNode } from './blkdebug.ts';
import type { BlockGraph } from './graph.ts';
import { BlockError, errnoOf, errnoText, IoError } from './io-error.ts';
import { IoVector } from './io-vector.ts';
import { type BlockNode, MAX_REQUEST, writeFlag } from './node.ts';
import { parseSize } from './options.ts';

/**
 * Executes a line of qemu-io's language on a device or node, as the monitor's `qemu-io` does.
 *
 * @returns what it prints
 */
export async function qemuIo(graph: BlockGraph, device: string, line: string): Promise<string> {
  const node = graph.lookup(device);
  const [command = '', ...words] = line.trim().split(/\s+/);
  const flags = words.filter(word => word.startsWith('-'));
  const given = withoutFlags(words);
  switch (command) {
    case 'break':
      return attempt('Could not set a breakpoint', () => debugged(node).break(given[0] ?? '', given[1] ?? ''));
    case 'resume':
      return attempt('Could not resume request', () => debugged(node).resume(given[0] ?? ''));
    case 'remove_break':
      return attempt(`Could not remove breakpoint ${given[0] ?? ''}`, () => debugged(node).removeBreak(given[0] ?? ''));
    case 'wait_break':
      while (!debugged(node).isSuspended(given[0] ?? '')) await new Promise(resolve => setImmediate(resolve));
      return '';
    case 'flush':
    case 'aio_flush':
      await node.flush();
      return '';
    case 'length':
    case 'l':
      return `${node.length}\n`;
    case 'read':
    case 'r':
    case 'aio_read':
      return transfer('read', node, given, patternOf(words));
    case 'write':
    case 'w':
    case 'aio_write':
      return flags.includes('-z') ? zero(node, given, flags) : transfer('write', node, given, patternOf(words));
    case 'discard':
    case 'd':
      return discard(node, given);
    default:
      throw new BlockError(`command "${command}" not found`);
  }
}

function debugged(node: BlockNode): BlkdebugNode {
  for (let at: BlockNode | undefined = node; at !== undefined; at = at.file) if (at instanceof BlkdebugNode) return at;
  throw new IoError(95);
}

function attempt(what: string, action: () => void): string {
  try {
    action();
    return '';
  } catch (error) {
    return `${what}: ${errnoText(errnoOf(error))}\n`;
  }
}

function withoutFlags(words: readonly string[]): string[] {
  const rest: string[] = [];
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? '';
    if (word === '-P' || word === '-l' || word === '-s') index++;
    else if (!word.startsWith('-')) rest.push(word);
  }
  return rest;
}

function patternOf(words: readonly string[]): number | undefined {
  const at = words.indexOf('-P');
  return at < 0 ? undefined : Number(words[at + 1] ?? '0') & 0xff;
}

function range(words: readonly string[]): { readonly offset: number; readonly bytes: number } {
  const offset = parseSize(words[0] ?? '');
  const bytes = parseSize(words[1] ?? '');
  if (offset === undefined) throw new BlockError(`non-numeric offset argument -- ${words[0] ?? ''}`);
  if (bytes === undefined || bytes > MAX_REQUEST)
    throw new BlockError(`non-numeric length argument -- ${words[1] ?? ''}`);
  return { offset, bytes };
}

async function transfer(
  way: 'read' | 'write',
  node: BlockNode,
  words: readonly string[],
  pattern: number | undefined,
): Promise<string> {
  const { offset, bytes } = range(words);
  const buffer = new Uint8Array(bytes).fill(way === 'write' ? (pattern ?? 0xcd) : 0xab);
  const iov = IoVector.of(buffer);
  try {
    await (way === 'read' ? node.readv(offset, bytes, iov) : node.writev(offset, bytes, iov));
  } catch (error) {
    return `${way} failed: ${errnoText(errnoOf(error))}\n`;
  }
  const wrong = way === 'read' && pattern !== undefined && buffer.some(byte => byte !== pattern);
  const verdict = wrong ? `Pattern verification failed at offset ${offset}, ${bytes} bytes\n` : '';
  return `${verdict}${way === 'read' ? 'read' : 'wrote'} ${bytes}/${bytes} bytes at offset ${offset}\n`;
}

async function zero(node: BlockNode, words: readonly string[], flags: readonly string[]): Promise<string> {
  const { offset, bytes } = range(words);
  try {
    await node.writeZeroes(offset, bytes, flags.includes('-u') ? writeFlag.MAY_UNMAP : 0);
  } catch (error) {
    return `write failed: ${errnoText(errnoOf(error))}\n`;
  }
  return `wrote ${bytes}/${bytes} bytes at offset ${offset}\n`;
}

async function discard(node: BlockNode, words: readonly string[]): Promise<string> {
  const { offset, bytes } = range(words);
  try {
    await node.discard(offset, bytes);
  } catch (error) {
    return `discard failed: ${errnoText(errnoOf(error))}\n`;
  }
  return `discard ${bytes}/${bytes} bytes at offset ${offset}\n`;
}
