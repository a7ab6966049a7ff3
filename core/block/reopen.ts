import { reaches } from './chain.ts';
import { BlockError } from './io-error.ts';
import type { BlockNode } from './node.ts';
import type { OptionScalar } from './options.ts';
import { Edge, PERM_ALL, settlePermissions } from './permissions.ts';
import type { ReopenSteps } from './reopen-steps.ts';
import type { NodeSettings } from './requests.ts';

/** What becomes of one node. */
export interface Reopened {
  readonly node: BlockNode;
  readonly settings: NodeSettings;
  readonly steps: ReopenSteps;
  /** Other nodes for its children; undefined takes one away. */
  readonly children?: ReadonlyMap<string, BlockNode | undefined>;
  /** The options it has from now on. */
  readonly given?: ReadonlyMap<string, OptionScalar>;
}

/**
 * Has all nodes become what is said of them. Nothing of them is under way.
 *
 * @throws BlockError, IoError where one cannot; then all are what they were
 */
export async function reopenAll(all: readonly Reopened[]): Promise<void> {
  const prepared: ReopenSteps[] = [];
  const changed: (() => void)[] = [];
  const touched = new Set<BlockNode>();
  const before = new Set<BlockNode>();
  try {
    for (const { node, settings, steps } of all) {
      prepared.push(steps);
      if (settings.readOnly && !node.readOnly) await node.flush();
      await steps.prepare?.();
    }
    const lessened = new Set<BlockNode>();
    for (const { node, settings, children = new Map(), steps } of all) {
      touched.add(node);
      if (settings.readOnly && !node.readOnly) lessened.add(node);
      changed.push(changeSettings(node, settings));
      for (const [name, child] of children) {
        const old = node.children.get(name)?.node;
        if (old !== undefined) before.add(old);
        changed.push(relink(node, name, child));
      }
      steps.commit?.();
      changed.push(() => steps.revert?.());
    }
    // Those that lost a user are asked less of.
    settlePermissions([...touched, ...before], lessened);
    for (const { steps } of all) await steps.activate?.();
  } catch (error) {
    const anything = changed.length > 0;
    while (changed.length > 0) changed.pop()?.();
    if (anything) settlePermissions([...touched, ...before]);
    while (prepared.length > 0) await prepared.pop()?.abort?.();
    throw error;
  }
  for (const { node, steps, given } of all) {
    if (given !== undefined) node.given = given;
    steps.finish?.();
  }
  for (const old of before) {
    const user = old.inheritsFrom;
    if (user !== undefined && ![...old.parents].some(({ parent }) => parent.asNode === user))
      old.inheritsFrom = undefined;
    await old.graph.released(old);
  }
}

/** The result takes it back. */
function changeSettings(node: BlockNode, settings: NodeSettings): () => void {
  const before = { ...node.settings };
  Object.assign(node.settings, settings);
  return () => Object.assign(node.settings, before);
}

/**
 * Makes `to` the child `name`, or nothing. What it needs of it is not settled. The result takes it back.
 *
 * @throws BlockError where that cannot be
 */
function relink(node: BlockNode, name: string, to: BlockNode | undefined): () => void {
  const edge = node.children.get(name);
  if (edge !== undefined && edge.frozen > 0) {
    throw new BlockError(`Cannot change frozen '${name}' link from '${node.nodeName}' to '${edge.node.nodeName}'`);
  }
  if (to !== undefined && reaches(to, node))
    throw new BlockError(`Making '${to.nodeName}' a ${name} child of '${node.nodeName}' would create a cycle`);
  const point = (link: Edge, target: BlockNode): void => {
    link.node.parents.delete(link);
    link.node = target;
    target.parents.add(link);
    node.childReplaced(name, target);
  };
  if (to === undefined) {
    if (edge === undefined) return () => {};
    node.children.delete(name);
    edge.node.parents.delete(edge);
    return () => {
      node.children.set(name, edge);
      edge.node.parents.add(edge);
    };
  }
  if (edge !== undefined) {
    const old = edge.node;
    point(edge, to);
    return () => point(edge, old);
  }
  const made = new Edge(name, node, to, { perm: 0, shared: PERM_ALL });
  node.children.set(name, made);
  to.parents.add(made);
  node.childReplaced(name, to);
  return () => {
    node.children.delete(name);
    to.parents.delete(made);
  };
}

/** Opens a node anew with other settings, and the file under it where that has to be written to. Nothing of it is under way. */
export async function reopen(node: BlockNode, changes: Partial<NodeSettings>): Promise<void> {
  const settings = { ...node.settings, ...changes };
  const below = !settings.readOnly && node.readOnly ? [...readOnlyBelow(node)] : [];
  const all = below.map(child => withSettings(child, { ...child.settings, readOnly: false }));
  await reopenAll([...all, withSettings(node, settings)]);
}

/** What a node keeps its data in and cannot write to, the lowest first. */
function* readOnlyBelow(node: BlockNode): Generator<BlockNode> {
  for (const [name, { node: child }] of node.children) {
    if (name === 'backing' || !child.readOnly) continue;
    yield* readOnlyBelow(child);
    yield child;
  }
}

function withSettings(node: BlockNode, settings: NodeSettings): Reopened {
  const target = { settings, options: undefined, otherFile: false };
  return { node, settings, steps: node.driver.reopening?.steps(node, target) ?? {} };
}

/** Has `work` done while a node can be written to, and makes it what it was before. */
export async function whileWritable<T>(node: BlockNode, work: () => Promise<T>): Promise<T> {
  if (!node.readOnly) return work();
  await reopen(node, { readOnly: false });
  try {
    return await work();
  } finally {
    await reopen(node, { readOnly: true });
  }
}
