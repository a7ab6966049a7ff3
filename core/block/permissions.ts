import { BlockError } from './io-error.ts';
import type { BlockNode } from './node.ts';

/** What a user of a node needs, and what it lets others do beside it: bits, with the numbers of QEMU's file locks. */
export const perm = {
  /** What is read is what was last written. */
  CONSISTENT_READ: 1,
  WRITE: 2,
  /** Writing what is there already, as copy-on-read does. */
  WRITE_UNCHANGED: 4,
  RESIZE: 8,
} as const;

export const PERM_ALL = 15;

const names: readonly (readonly [number, string])[] = [
  [perm.CONSISTENT_READ, 'consistent read'],
  [perm.WRITE, 'write'],
  [perm.WRITE_UNCHANGED, 'write unchanged'],
  [perm.RESIZE, 'resize'],
];

const namesOf = (bits: number): string[] => names.filter(([bit]) => (bits & bit) !== 0).map(([, name]) => name);
const qmpName = (name: string): string => name.replace(' ', '-');

/** The bits as QMP's BlockPermission names them. */
export function permBits(bits: number): string[] {
  return namesOf(bits).map(qmpName);
}

/** The bit of a permission by QMP's name; 0 where there is none. */
export function permNamed(name: string): number {
  return names.find(([, known]) => qmpName(known) === name)?.[0] ?? 0;
}

export function permNames(bits: number): string {
  return namesOf(bits).join(', ');
}

/** What a filter or an image format needs of its child `name` when its own users need and share this. */
export function usualNeeds(node: BlockNode, name: string, needed: number, shared: number): Permissions {
  if (node.driver.kind === 'filter') return { perm: needed, shared: shared | perm.WRITE_UNCHANGED };
  if (name === 'backing') {
    return {
      perm: needed & perm.CONSISTENT_READ,
      shared:
        ((shared & perm.WRITE) !== 0 ? perm.WRITE | perm.RESIZE : 0) | perm.CONSISTENT_READ | perm.WRITE_UNCHANGED,
    };
  }
  const writable = node.readOnly ? 0 : perm.WRITE | perm.RESIZE;
  return {
    perm: needed | perm.CONSISTENT_READ | writable,
    shared: node.settings.forceShare
      ? PERM_ALL
      : (shared & ~(perm.WRITE | perm.RESIZE)) | perm.CONSISTENT_READ | perm.WRITE_UNCHANGED,
  };
}

/** Who uses a node: another node, a device's backend, a job, an export. */
export interface EdgeParent {
  /** `block device 'drive0'`, `node 'top'`, `the commit job 'job0'`. */
  readonly description: string;
  /** The node behind it changed its size. */
  resized?(): void;
  /** The drive that the node belongs to goes away with its device. */
  driveGone?(): void;
  /** The parent, where it is a node. */
  readonly asNode?: BlockNode;
  /** The parent's name, where it is a backend. */
  readonly backendName?: string;
}

/** One use of a node. */
export class Edge {
  /** What the parent calls it: `root`, `file`, `backing`. */
  readonly name: string;
  readonly parent: EdgeParent;
  node: BlockNode;
  perm: number;
  shared: number;
  /** Why nothing else may be done with the node: a job works on it. */
  blocks: string | undefined;
  /** Set while a job counts on the link staying as it is. */
  frozen = 0;
  /** Stays where it is when the node it points to is replaced by another one. */
  readonly sticky: boolean;
  /** Grows from use to use. */
  readonly serial: number;
  static #made = 0;

  constructor(name: string, parent: EdgeParent, node: BlockNode, permissions: Permissions, sticky = false) {
    this.name = name;
    this.parent = parent;
    this.node = node;
    this.perm = permissions.perm;
    this.shared = permissions.shared;
    this.sticky = sticky;
    this.serial = ++Edge.#made;
  }
}

export interface Permissions {
  readonly perm: number;
  readonly shared: number;
}

/** What all users of a node together need and allow. */
export function cumulative(node: BlockNode, planned?: ReadonlyMap<Edge, Permissions>): Permissions {
  let needed = 0;
  let shared = PERM_ALL;
  for (const edge of node.parents) {
    const { perm: edgePerm, shared: edgeShared } = planned?.get(edge) ?? edge;
    needed |= edgePerm;
    shared &= edgeShared;
  }
  return { perm: needed, shared };
}

/**
 * Settles the permissions of `nodes` and of all below them after a change above.
 *
 * @param lessened nodes that could be written to until now
 * @throws BlockError in QEMU's words where two users exclude each other; nothing has changed then
 */
export function settlePermissions(nodes: Iterable<BlockNode>, lessened?: ReadonlySet<BlockNode>): void {
  const planned = new Map<Edge, Permissions>();
  const order: BlockNode[] = [];
  const roots = [...nodes];
  for (const node of roots) collect(node, order);
  // Parents come before children, so that each node is looked at once with all that is asked of it.
  for (const node of order) {
    checkConflicts(node, planned);
    const { perm: needed, shared } = cumulative(node, planned);
    if (node.readOnly && (needed & (perm.WRITE | perm.WRITE_UNCHANGED)) !== 0 && !node.canBecomeWritable) {
      throw new BlockError(
        lessened?.has(node) === true
          ? `Read-only block node '${node.nodeName}' cannot support read-write users`
          : 'Block node is read-only',
      );
    }
    for (const edge of node.children.values()) planned.set(edge, node.childPermissions(edge.name, needed, shared));
  }
  const settled: BlockNode[] = [];
  try {
    for (const node of order) {
      node.applyPermissions(cumulative(node, planned));
      settled.push(node);
    }
  } catch (error) {
    for (const node of settled) node.applyPermissions(cumulative(node));
    throw error;
  }
  for (const [edge, permissions] of planned) {
    edge.perm = permissions.perm;
    edge.shared = permissions.shared;
  }
}

function collect(node: BlockNode, order: BlockNode[]): void {
  const seen = new Set<BlockNode>(order);
  const found: BlockNode[] = [];
  const visit = (current: BlockNode): void => {
    if (seen.has(current)) return;
    seen.add(current);
    for (const edge of current.children.values()) visit(edge.node);
    found.push(current);
  };
  visit(node);
  order.unshift(...found.reverse());
}

function checkConflicts(node: BlockNode, planned: ReadonlyMap<Edge, Permissions>): void {
  const edges = [...node.parents];
  for (const [index, first] of edges.entries()) {
    for (const second of edges.slice(index + 1)) {
      conflict(node, first, second, planned);
      conflict(node, second, first, planned);
    }
  }
}

function conflict(node: BlockNode, user: Edge, owner: Edge, planned: ReadonlyMap<Edge, Permissions>): void {
  const denied = (planned.get(user)?.perm ?? user.perm) & ~(planned.get(owner)?.shared ?? owner.shared);
  if (denied === 0) return;
  throw new BlockError(
    `Permission conflict on node '${node.nodeName}': permissions '${permNames(denied)}' are both required by ` +
      `${user.parent.description} (uses node '${node.nodeName}' as '${user.name}' child) and unshared by ` +
      `${owner.parent.description} (uses node '${node.nodeName}' as '${owner.name}' child).`,
  );
}
