import type { BlockNode } from './node.ts';

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

/** The image, not counting the first, whose file is called that. */
export function backingImage(top: BlockNode, file: string): BlockNode | undefined {
  for (let node = top.withoutFilters.backing?.withoutFilters; node !== undefined; node = node.backing?.withoutFilters)
    if (node.filename === file) return node;
  return undefined;
}

/** The image that `below` backs, with nothing but filters between. */
export function overlayOf(active: BlockNode, below: BlockNode): BlockNode | undefined {
  const wanted = below.withoutFilters;
  for (const node of chainOf(active))
    if (node.backing?.withoutFilters === wanted && node.filtered === undefined) return node;
  return undefined;
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
