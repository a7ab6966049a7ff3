import type { BlockGraph } from './graph.ts';
import { BlockError } from './io-error.ts';
import type { BlockNode } from './node.ts';
import { DEFAULTS, inheritedSettings, ownOptions, takeSettings } from './node-settings.ts';
import type { BlockOptions, OptionScalar } from './options.ts';
import { type Reopened, reopenAll } from './reopen.ts';
import type { NodeSettings } from './requests.ts';

/** Options of every node, which go back to their default where they are left out. */
const COMMON = new Set([
  'node-name',
  'discard',
  'cache.direct',
  'cache.no-flush',
  'read-only',
  'auto-read-only',
  'detect-zeroes',
]);

/** A node, and all that is asked of it. */
interface Request {
  readonly node: BlockNode;
  /** What nobody has taken yet. */
  readonly options: BlockOptions;
  readonly given: BlockOptions;
  readonly settings: NodeSettings;
  readonly backingMissing: boolean;
}

/**
 * Gives open nodes other options (QMP's `blockdev-reopen`), and the nodes below that were opened with them; what is left
 * out goes back to its default. No request is under way.
 *
 * @throws BlockError where one of them cannot be; then all nodes are what they were
 */
export async function reopenByOptions(graph: BlockGraph, all: readonly BlockOptions[]): Promise<void> {
  const requests = new Map<BlockNode, Request>();
  for (const options of all) {
    const name = options.peek('node-name');
    if (typeof name !== 'string') throw new BlockError('node-name not specified');
    const node = graph.node(name);
    if (node === undefined) throw new BlockError(`Failed to find node with node-name='${name}'`);
    collect(requests, node, options, false, undefined);
  }
  const found = [...requests.values()].map(request => prepared(graph, request));
  await reopenAll(found);
}

/**
 * Notes what is asked of a node and of the children that take settings from it.
 *
 * @param keep what the options leave out stays as it is
 * @param inherited what comes from the parent, if it does
 */
function collect(
  requests: Map<BlockNode, Request>,
  node: BlockNode,
  options: BlockOptions,
  keep: boolean,
  inherited: Partial<NodeSettings> | undefined,
): void {
  const earlier = requests.get(node);
  if (earlier !== undefined || keep)
    for (const [key, value] of earlier?.given.entries() ?? node.given) options.setDefault(key, value);
  const given = options.copy();
  const { discard, forceShare } = node.settings;
  const base = keep ? node.settings : { ...DEFAULTS, ...(inherited === undefined && { discard }) };
  // It cannot be changed, which is for `prepared` to say.
  const shared = options.peek('force-share');
  options.delete('force-share');
  const settings = { ...takeSettings(options, { ...base, ...inherited, forceShare: false }), forceShare };
  if (shared !== undefined) options.set('force-share', shared);
  const backingMissing = !keep && !options.has('backing') && !options.has('backing.driver');
  requests.set(node, { node, options, given, settings, backingMissing });
  for (const [name, { node: child }] of node.children) {
    if (child.inheritsFrom !== node) continue;
    const reference = options.peek(name);
    if (reference !== undefined && reference !== child.nodeName) continue;
    given.child(name);
    const asProtocol = name !== 'backing' && node.driver.kind === 'format';
    const own = options.child(name);
    collect(requests, child, own, keep || reference !== undefined, inheritedSettings(settings, name, asProtocol));
  }
}

/** Looks at all that is asked of a node. Nothing happens to it yet. */
function prepared(graph: BlockGraph, { node, options, given, settings, backingMissing }: Request): Reopened {
  const { driver } = node;
  if (driver.reopening === undefined) {
    throw new BlockError(
      `Block format '${driver.name}' used by node '${node.deviceName || node.nodeName}' does not support reopening files`,
    );
  }
  for (const key of node.given.keys())
    if (!given.has(key) && !COMMON.has(key) && !driver.reopening.resettable.includes(key))
      throw new BlockError(`Option '${key}' cannot be reset to its default value`);
  const children = new Map<string, BlockNode | undefined>();
  const file = newChild(graph, node, 'file', options);
  if (file !== undefined) children.set('file', file.node);
  const steps = driver.reopening.steps(node, { settings, options, otherFile: file !== undefined });
  if (backingMissing && driver.supportsBacking === true && (node.backing ?? node.backingFileName) !== undefined)
    throw new BlockError(`backing is missing for '${node.nodeName}'`);
  const backing = newChild(graph, node, 'backing', options);
  if (backing !== undefined) children.set('backing', backing.node);
  checkUnchanged(node, options);
  return { node, settings, steps, children, given: ownOptions(node, given) };
}

/** What is to be the child `name`; undefined where that stays. */
function newChild(
  graph: BlockGraph,
  node: BlockNode,
  name: 'file' | 'backing',
  options: BlockOptions,
): { readonly node: BlockNode | undefined } | undefined {
  const wanted = options.peek(name);
  const before = node.children.get(name)?.node;
  if (wanted === undefined || (wanted !== null && typeof wanted !== 'string')) return undefined;
  const child = wanted === null ? undefined : graph.lookupPair('', wanted);
  const exists = name === 'backing' ? node.driver.supportsBacking === true : before !== undefined;
  if (exists || child === before) options.delete(name);
  if (!exists || child === before || (before !== undefined && before.withoutImplicit === child)) return undefined;
  if (before?.implicitFilter === true)
    throw new BlockError(`Cannot replace implicit ${name} child of ${node.nodeName}`);
  return { node: child };
}

/** @throws BlockError where something else than before is asked for, and nobody has taken it */
function checkUnchanged(node: BlockNode, options: BlockOptions): void {
  const rest = options.entries();
  // What was meant for a child that is not there comes first: all the rest may follow from that.
  for (const [key] of rest) if (isChildless(node, key)) throw cannotChange(key);
  for (const [key, value] of rest) if (!isSame(node, key, value)) throw cannotChange(key);
}

const cannotChange = (key: string): BlockError => new BlockError(`Cannot change the option '${key}'`);

function isChildless(node: BlockNode, key: string): boolean {
  return !node.given.has(key) && (key.startsWith('file.') || key.startsWith('backing.'));
}

function isSame(node: BlockNode, key: string, value: OptionScalar): boolean {
  const child = node.children.get(key)?.node;
  if (child !== undefined) return value === child.nodeName;
  const before = node.given.get(key);
  return before !== undefined && plain(before) === plain(value);
}

/** As the command line would have it. */
function plain(value: OptionScalar): string {
  return typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value);
}
