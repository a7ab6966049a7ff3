import { BlockError } from './io-error.ts';
import type { BlockNode } from './node.ts';
import type { BlockOptions, OptionScalar } from './options.ts';
import type { DetectZeroes, NodeSettings } from './requests.ts';

/** What a node is like whose options say nothing. */
export const DEFAULTS: NodeSettings = {
  readOnly: false,
  autoReadOnly: false,
  direct: false,
  noFlush: false,
  discard: false,
  forceShare: false,
  detectZeroes: 'off',
};

/** Those of `options` that are the node's own, and not a child's. */
export function ownOptions(node: BlockNode, options: BlockOptions): ReadonlyMap<string, OptionScalar> {
  const names = [...node.children.keys(), 'backing'];
  // A format's file name is that of its file.
  if (node.file !== undefined) names.push('filename');
  const isChilds = (key: string): boolean => names.some(name => key === name || key.startsWith(`${name}.`));
  return new Map(options.entries().filter(([key]) => !isChilds(key)));
}

/** What the child `name` takes from its parent unless it is told otherwise. */
export function inheritedSettings(parent: NodeSettings, name: string, asProtocol: boolean): Partial<NodeSettings> {
  const { readOnly, autoReadOnly, direct, noFlush, discard } = parent;
  return name === 'backing'
    ? { readOnly: true, autoReadOnly: true, direct, noFlush }
    : { readOnly, autoReadOnly, direct, noFlush, discard: asProtocol ? true : discard };
}

/**
 * Takes the options that every node has.
 *
 * @throws BlockError where they cannot be together
 */
export function takeSettings(options: BlockOptions, inherited: Partial<NodeSettings>): NodeSettings {
  const base = { ...DEFAULTS, ...inherited };
  const discard = options.choice('discard', ['ignore', 'off', 'unmap', 'on']);
  const detectZeroes: DetectZeroes | undefined = options.choice('detect-zeroes', ['off', 'on', 'unmap']);
  const settings: NodeSettings = {
    readOnly: options.bool('read-only') ?? base.readOnly,
    autoReadOnly: options.bool('auto-read-only') ?? base.autoReadOnly,
    direct: options.bool('cache.direct') ?? base.direct,
    noFlush: options.bool('cache.no-flush') ?? base.noFlush,
    discard: discard === undefined ? base.discard : discard === 'unmap' || discard === 'on',
    forceShare: options.bool('force-share') ?? base.forceShare,
    detectZeroes: detectZeroes ?? base.detectZeroes,
  };
  if (settings.forceShare && !settings.readOnly) {
    throw new BlockError('force-share=on can only be used with read-only images');
  }
  if (settings.detectZeroes === 'unmap' && !settings.discard) {
    throw new BlockError('setting detect-zeroes to unmap is not allowed without setting discard operation to unmap');
  }
  return settings;
}
