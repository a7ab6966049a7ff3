import { BlockError } from './io-error.ts';
import type { BlockOptions } from './options.ts';
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
