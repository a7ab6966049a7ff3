import fs from 'node:fs';
import path from 'node:path';
import { hasProtocol, relativeTo } from './file-name.ts';
import type { BlockNode } from './node.ts';
import { perm } from './permissions.ts';

/** The nodes from `top` down: filters, and the images that back each other. */
export function* chainOf(top: BlockNode): Generator<BlockNode> {
  for (let node: BlockNode | undefined = top; node !== undefined; node = node.filtered ?? node.backing) yield node;
}

/** Whether `below` is `top` or backs it. */
export function contains(top: BlockNode, below: BlockNode): boolean {
  for (const node of chainOf(top)) if (node === below) return true;
  return false;
}

/** The nodes from `top` down to above `base`. */
export function* between(top: BlockNode, base: BlockNode | undefined): Generator<BlockNode> {
  for (const node of chainOf(top)) {
    if (node === base) return;
    yield node;
  }
}

/**
 * The nodes from `top` down to above `base` that a commit takes away, and what it lets their other users do meanwhile: what
 * they show does not make sense any more, but for filters over the base itself.
 */
export function* mergedNodes(top: BlockNode, base: BlockNode): Generator<readonly [node: BlockNode, shared: number]> {
  let shared: number = perm.WRITE_UNCHANGED | perm.WRITE;
  for (const node of between(top, base)) {
    if (node.withoutFilters === base.withoutFilters) shared |= perm.CONSISTENT_READ;
    yield [node, shared];
  }
}

/** The image, not counting the first, whose file is called that, or is that file as the image over it sees it. */
export function backingImage(top: BlockNode, file: string): BlockNode | undefined {
  for (let over = top.withoutFilters; ; ) {
    const node = over.backing?.withoutFilters;
    if (node === undefined) return undefined;
    if (isCalled(node, over, file)) return node;
    over = node;
  }
}

function isCalled(node: BlockNode, over: BlockNode, file: string): boolean {
  const said = over.backingFileName;
  const full = said === undefined ? undefined : inFolderOf(over, said);
  // Where another node was put below, only its own name counts.
  if (said === undefined || full !== node.filename) return node.filename === file;
  if (hasProtocol(file) || hasProtocol(said)) return file === said || file === full;
  const wanted = inFolderOf(over, file);
  return wanted !== undefined && samePath(wanted, full);
}

function inFolderOf(image: BlockNode, name: string): string | undefined {
  try {
    return relativeTo(image.filename, name);
  } catch {
    return undefined;
  }
}

function samePath(one: string, other: string): boolean {
  try {
    return fs.realpathSync(one) === fs.realpathSync(other);
  } catch {
    return path.resolve(one) === path.resolve(other);
  }
}

/** The image that `below` backs, with nothing but filters between. */
export function overlayOf(active: BlockNode, below: BlockNode): BlockNode | undefined {
  const wanted = below.withoutFilters;
  for (const node of chainOf(active))
    if (node.backing?.withoutFilters === wanted && node.filtered === undefined) return node;
  return undefined;
}

/** The images that `below` backs, with nothing but filters between. */
export function* imagesOver(below: BlockNode): Generator<BlockNode> {
  for (const { name, parent } of below.parents) {
    const over = parent.asNode;
    if (over?.filtered !== undefined) yield* imagesOver(over);
    else if (over !== undefined && name === 'backing') yield over;
  }
}

/**
 * Whether `to` may be replaced by something that shows what `top` shows, without anybody seeing another content: `top` itself,
 * what it shows as a filter, or a child that it votes about.
 */
export function canReplace(top: BlockNode, to: BlockNode): boolean {
  if (top === to) return true;
  if (top.filtered !== undefined) return canReplace(top.filtered, to);
  return top.toleratesChange(to) && to.parents.size === 1;
}

/** The last image of the chain. */
export function bottomOf(top: BlockNode): BlockNode {
  let node = top;
  for (const next of chainOf(top)) node = next;
  return node;
}

/** Whether `target` is `from` or lies under it. */
export function reaches(from: BlockNode, target: BlockNode): boolean {
  if (from === target) return true;
  for (const edge of from.children.values()) if (reaches(edge.node, target)) return true;
  return false;
}

/** Whether `node` was opened as a child of `parent`, or of what was: where what is between goes, it is that one's own child. */
export function inherits(node: BlockNode, parent: BlockNode): boolean {
  for (let from = node.inheritsFrom; from !== undefined; from = from.inheritsFrom) if (from === parent) return true;
  return false;
}
