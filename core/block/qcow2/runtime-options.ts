import { BlockError } from '../io-error.ts';
import type { BlockOptions } from '../options.ts';
import type { DiscardPolicy } from './clearing.ts';
import { compatible } from './header.ts';
import type { Qcow2Image } from './image.ts';

/** QEMU's own default for the cache of L2 tables: enough for a disk of 256 GiB. */
const L2_CACHE_LIMIT = 32 << 20;
const L2_ENTRY = 4096;
const CLEAN_INTERVAL_S = 600;

/** What data must not be written over: the option, and how the image's claims call it. */
const TABLES = [
  ['main-header', 'main image header'],
  ['active-l1', 'active L1 table'],
  ['active-l2', 'active L2 table'],
  ['refcount-table', 'refcount table'],
  ['refcount-block', 'refcount block'],
  ['snapshot-table', 'snapshot table'],
  ['inactive-l1', 'inactive L1 table'],
  ['inactive-l2', 'inactive L2 table'],
  ['bitmap-directory', 'bitmap directory'],
] as const;
type TableOption = (typeof TABLES)[number][0];
const ALL: readonly TableOption[] = TABLES.map(([option]) => option);
const CONSTANT: readonly TableOption[] = [
  'main-header',
  'active-l1',
  'refcount-table',
  'snapshot-table',
  'bitmap-directory',
];
const CACHED: readonly TableOption[] = [...CONSTANT, 'active-l2', 'refcount-block', 'inactive-l1'];
const TEMPLATES = { none: [], constant: CONSTANT, cached: CACHED, all: ALL } as const;

/** Options that can be changed while the image is open. */
export const RUNTIME_OPTIONS: readonly string[] = [
  'lazy-refcounts',
  'pass-discard-request',
  'pass-discard-snapshot',
  'pass-discard-other',
  'overlap-check',
  'overlap-check.template',
  ...ALL.map(name => `overlap-check.${name}`),
  'cache-size',
  'l2-cache-size',
  'l2-cache-entry-size',
  'refcount-cache-size',
  'cache-clean-interval',
];

/** What the options of an open image say. */
export interface Qcow2Options {
  readonly lazyRefcounts: boolean | undefined;
  readonly discards: DiscardPolicy;
  readonly unguarded: ReadonlySet<string>;
  readonly l2Cache: number | undefined;
  readonly l2Entry: number | undefined;
  readonly refcountCache: number | undefined;
  readonly cleanInterval: number;
}

/** What they mean for one image. */
export interface Qcow2Runtime {
  readonly lazyRefcounts: boolean;
  /** Which freed clusters the host is told of. */
  readonly discards: DiscardPolicy;
  /** Tables that are not looked for where data is written. */
  readonly unguarded: ReadonlySet<string>;
  /** How much of the tables is kept in memory, in bytes. */
  readonly l2: number;
  readonly l2Entry: number;
  readonly refcount: number;
  /** Tables that nobody used for this long are forgotten, in seconds; 0 for never. */
  readonly cleanInterval: number;
}

/**
 * Takes qcow2's options for an open image.
 *
 * @param unmap what `discard` says
 * @throws BlockError where they contradict each other
 */
export function takeOptions(options: BlockOptions, unmap: boolean): Qcow2Options {
  const lazyRefcounts = options.bool('lazy-refcounts');
  const discards = {
    request: options.bool('pass-discard-request') ?? unmap,
    snapshot: options.bool('pass-discard-snapshot') ?? true,
    other: options.bool('pass-discard-other') ?? false,
  };
  const unguarded = takeOverlapCheck(options);
  const total = options.bytes('cache-size');
  const l2 = options.bytes('l2-cache-size');
  const refcountCache = options.bytes('refcount-cache-size');
  if (total !== undefined && l2 !== undefined && refcountCache !== undefined) {
    throw new BlockError('cache-size, l2-cache-size and refcount-cache-size may not be set at the same time');
  }
  if (total !== undefined && l2 !== undefined && l2 > total)
    throw new BlockError('l2-cache-size may not exceed cache-size');
  if (total !== undefined && refcountCache !== undefined && refcountCache > total) {
    throw new BlockError('refcount-cache-size may not exceed cache-size');
  }
  const cleanInterval = options.number('cache-clean-interval') ?? CLEAN_INTERVAL_S;
  if (cleanInterval > 0xffff_ffff) throw new BlockError('Cache clean interval too big');
  const l2Entry = options.bytes('l2-cache-entry-size');
  return { lazyRefcounts, discards, unguarded, l2Cache: l2 ?? total, l2Entry, refcountCache, cleanInterval };
}

function takeOverlapCheck(options: BlockOptions): ReadonlySet<string> {
  const short = options.string('overlap-check');
  const own = options.child('overlap-check');
  const long = own.string('template');
  if (short !== undefined && long !== undefined && short !== long) {
    throw new BlockError(
      `Conflicting values for qcow2 options 'overlap-check' ('${short}') and 'overlap-check.template' ('${long}')`,
    );
  }
  const name = short ?? long ?? 'cached';
  if (name !== 'none' && name !== 'constant' && name !== 'cached' && name !== 'all') {
    throw new BlockError(
      `Unsupported value '${name}' for qcow2 option 'overlap-check'. Allowed are any of the following: none, constant, cached, all`,
    );
  }
  const guarded: readonly TableOption[] = TEMPLATES[name];
  const unguarded = new Set<string>();
  for (const [option, table] of TABLES) if (!(own.bool(option) ?? guarded.includes(option))) unguarded.add(table);
  const [unknown] = own.keys();
  if (unknown !== undefined) options.set(`overlap-check.${unknown}`, true);
  return unguarded;
}

/** @throws BlockError where the image cannot be used that way */
export function runtimeOf(options: Qcow2Options, { header, clusterSize, extended }: Qcow2Image): Qcow2Runtime {
  const { lazyRefcounts, discards, unguarded, l2Entry, cleanInterval } = options;
  if (lazyRefcounts === true && header.version < 3)
    throw new BlockError('Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level');
  if (l2Entry !== undefined && (l2Entry < 512 || l2Entry > clusterSize || (l2Entry & (l2Entry - 1)) !== 0)) {
    throw new BlockError(
      `L2 cache entry size must be a power of two between 512 and the cluster size (${clusterSize})`,
    );
  }
  const fullCover = Math.ceil(header.size / clusterSize) * (extended ? 16 : 8);
  return {
    lazyRefcounts: header.version >= 3 && (lazyRefcounts ?? (header.compatible & compatible.LAZY_REFCOUNTS) !== 0),
    discards,
    unguarded,
    l2: options.l2Cache ?? Math.min(L2_CACHE_LIMIT, Math.max(fullCover, clusterSize)),
    l2Entry: Math.min(l2Entry ?? L2_ENTRY, clusterSize),
    refcount: options.refcountCache ?? Math.max(4 * clusterSize, 256 << 10),
    cleanInterval,
  };
}
