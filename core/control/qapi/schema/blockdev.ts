import { command, event } from '../declare.ts';
import {
  type AnyType,
  alternate,
  array,
  bool,
  enumeration,
  int,
  int32,
  lazy,
  nil,
  opt,
  size,
  str,
  struct,
  uint32,
  uint64,
  union,
} from '../types.ts';
import {
  BlockdevDetectZeroesOptions,
  BlockdevDriver,
  BlockdevQcow2EncryptionFormat,
  Qcow2CompressionType,
  SnapshotInfo,
} from './block-info.ts';
import {
  BlockDirtyBitmap,
  BlockdevSnapshot,
  BlockdevSnapshotInternal,
  BlockdevSnapshotSync,
  BlockErrorAction,
} from './block-jobs.ts';
import { IoOperationType, OnOffAuto, StrOrNull } from './common.ts';
import {
  QCryptoBlockAmendOptions,
  QCryptoBlockAmendOptionsLUKS,
  QCryptoBlockCreateOptions,
  QCryptoBlockCreateOptionsLUKS,
  QCryptoBlockOptionsLUKS,
  QCryptoBlockOptionsQCow,
} from './crypto.ts';
import { SocketAddress } from './sockets.ts';

export const BlockdevDiscardOptions = enumeration('BlockdevDiscardOptions', ['ignore', 'unmap']);
export const BlockdevCacheOptions = struct('BlockdevCacheOptions', { direct: opt(bool), 'no-flush': opt(bool) });
export const BlockdevRef = alternate('BlockdevRef', {
  definition: lazy('BlockdevOptions', (): AnyType => BlockdevOptions),
  reference: str,
});
export const BlkdebugEvent = enumeration('BlkdebugEvent', [
  'l1_update',
  'l1_grow_alloc_table',
  'l1_grow_write_table',
  'l1_grow_activate_table',
  'l2_load',
  'l2_update',
  'l2_update_compressed',
  'l2_alloc_cow_read',
  'l2_alloc_write',
  'read_aio',
  'read_backing_aio',
  'read_compressed',
  'write_aio',
  'write_compressed',
  'vmstate_load',
  'vmstate_save',
  'cow_read',
  'cow_write',
  'reftable_load',
  'reftable_grow',
  'reftable_update',
  'refblock_load',
  'refblock_update',
  'refblock_update_part',
  'refblock_alloc',
  'refblock_alloc_hookup',
  'refblock_alloc_write',
  'refblock_alloc_write_blocks',
  'refblock_alloc_write_table',
  'refblock_alloc_switch_table',
  'cluster_alloc',
  'cluster_alloc_bytes',
  'cluster_free',
  'flush_to_os',
  'flush_to_disk',
  'pwritev_rmw_head',
  'pwritev_rmw_after_head',
  'pwritev_rmw_tail',
  'pwritev_rmw_after_tail',
  'pwritev',
  'pwritev_zero',
  'pwritev_done',
  'empty_image_prepare',
  'l1_shrink_write_table',
  'l1_shrink_free_l2_clusters',
  'cor_write',
  'cluster_alloc_space',
  'none',
]);
export const BlkdebugIOType = enumeration('BlkdebugIOType', [
  'read',
  'write',
  'write-zeroes',
  'discard',
  'flush',
  'block-status',
]);
export const BlkdebugInjectErrorOptions = struct('BlkdebugInjectErrorOptions', {
  event: BlkdebugEvent,
  state: opt(int),
  iotype: opt(BlkdebugIOType),
  errno: opt(int),
  sector: opt(int),
  once: opt(bool),
  immediately: opt(bool),
});
export const BlkdebugSetStateOptions = struct('BlkdebugSetStateOptions', {
  event: BlkdebugEvent,
  state: opt(int),
  new_state: int,
});
export const BlockPermission = enumeration('BlockPermission', [
  'consistent-read',
  'write',
  'write-unchanged',
  'resize',
]);
export const BlockdevOptionsBlkdebug = struct('BlockdevOptionsBlkdebug', {
  image: BlockdevRef,
  config: opt(str),
  align: opt(int),
  'max-transfer': opt(int32),
  'opt-write-zero': opt(int32),
  'max-write-zero': opt(int32),
  'opt-discard': opt(int32),
  'max-discard': opt(int32),
  'inject-error': opt(array(BlkdebugInjectErrorOptions)),
  'set-state': opt(array(BlkdebugSetStateOptions)),
  'take-child-perms': opt(array(BlockPermission)),
  'unshare-child-perms': opt(array(BlockPermission)),
});
export const BlockdevOptionsGenericFormat = struct('BlockdevOptionsGenericFormat', { file: BlockdevRef });
export const BlockdevOptionsCor = struct(
  'BlockdevOptionsCor',
  { bottom: opt(str) },
  { base: BlockdevOptionsGenericFormat },
);
export const OnCbwError = enumeration('OnCbwError', ['break-guest-write', 'break-snapshot']);
export const BlockdevOptionsCbw = struct(
  'BlockdevOptionsCbw',
  {
    target: BlockdevRef,
    bitmap: opt(BlockDirtyBitmap),
    'on-cbw-error': opt(OnCbwError),
    'cbw-timeout': opt(uint32),
  },
  { base: BlockdevOptionsGenericFormat },
);
export const QuorumReadPattern = enumeration('QuorumReadPattern', ['quorum', 'fifo']);
export const BlockdevOptionsQuorum = struct('BlockdevOptionsQuorum', {
  blkverify: opt(bool),
  children: array(BlockdevRef),
  'vote-threshold': int,
  'rewrite-corrupted': opt(bool),
  'read-pattern': opt(QuorumReadPattern),
});
export const BlockdevAioOptions = enumeration('BlockdevAioOptions', ['threads', 'native']);
export const BlockdevOptionsFile = struct(
  'BlockdevOptionsFile',
  {
    filename: str,
    'pr-manager': opt(str),
    locking: opt(OnOffAuto),
    aio: opt(BlockdevAioOptions),
    'aio-max-batch': opt(int),
    'drop-cache': opt(bool),
    'x-check-cache-dropped': opt(bool, 'unstable'),
  },
  { features: ['dynamic-auto-read-only'] },
);
export const BlockdevOptionsNbd = struct('BlockdevOptionsNbd', {
  server: SocketAddress,
  export: opt(str),
  'tls-creds': opt(str),
  'tls-hostname': opt(str),
  'x-dirty-bitmap': opt(str, 'unstable'),
  'reconnect-delay': opt(uint32),
  'open-timeout': opt(uint32),
});
export const BlockdevOptionsNull = struct('BlockdevOptionsNull', {
  size: opt(int),
  'latency-ns': opt(uint64),
  'read-zeroes': opt(bool),
});
export const BlockdevRefOrNull = alternate('BlockdevRefOrNull', {
  definition: lazy('BlockdevOptions', (): AnyType => BlockdevOptions),
  reference: str,
  null: nil,
});
export const BlockdevOptionsGenericCOWFormat = struct(
  'BlockdevOptionsGenericCOWFormat',
  { backing: opt(BlockdevRefOrNull) },
  { base: BlockdevOptionsGenericFormat },
);
export const Qcow2OverlapCheckMode = enumeration('Qcow2OverlapCheckMode', ['none', 'constant', 'cached', 'all']);
export const Qcow2OverlapCheckFlags = struct('Qcow2OverlapCheckFlags', {
  template: opt(Qcow2OverlapCheckMode),
  'main-header': opt(bool),
  'active-l1': opt(bool),
  'active-l2': opt(bool),
  'refcount-table': opt(bool),
  'refcount-block': opt(bool),
  'snapshot-table': opt(bool),
  'inactive-l1': opt(bool),
  'inactive-l2': opt(bool),
  'bitmap-directory': opt(bool),
});
export const Qcow2OverlapChecks = alternate('Qcow2OverlapChecks', {
  flags: Qcow2OverlapCheckFlags,
  mode: Qcow2OverlapCheckMode,
});
export const BlockdevQcow2Encryption = union(
  'BlockdevQcow2Encryption',
  { format: BlockdevQcow2EncryptionFormat },
  'format',
  { aes: QCryptoBlockOptionsQCow, luks: QCryptoBlockOptionsLUKS },
);
export const BlockdevOptionsLUKS = struct(
  'BlockdevOptionsLUKS',
  { 'key-secret': opt(str) },
  { base: BlockdevOptionsGenericFormat },
);
export const BlockdevOptionsQcow2 = struct(
  'BlockdevOptionsQcow2',
  {
    'lazy-refcounts': opt(bool),
    'pass-discard-request': opt(bool),
    'pass-discard-snapshot': opt(bool),
    'pass-discard-other': opt(bool),
    'overlap-check': opt(Qcow2OverlapChecks),
    'cache-size': opt(int),
    'l2-cache-size': opt(int),
    'l2-cache-entry-size': opt(int),
    'refcount-cache-size': opt(int),
    'cache-clean-interval': opt(int),
    encrypt: opt(BlockdevQcow2Encryption),
    'data-file': opt(BlockdevRef),
  },
  { base: BlockdevOptionsGenericCOWFormat },
);
export const BlockdevOptionsBlkverify = struct('BlockdevOptionsBlkverify', { test: BlockdevRef, raw: BlockdevRef });
export const BlockdevOptionsPreallocate = struct(
  'BlockdevOptionsPreallocate',
  { 'prealloc-align': opt(int), 'prealloc-size': opt(int) },
  { base: BlockdevOptionsGenericFormat },
);
export const BlockdevOptionsRaw = struct(
  'BlockdevOptionsRaw',
  { offset: opt(int), size: opt(int) },
  { base: BlockdevOptionsGenericFormat },
);
export const BlockdevOptionsThrottle = struct('BlockdevOptionsThrottle', { 'throttle-group': str, file: BlockdevRef });
export const BlockdevOptions = union(
  'BlockdevOptions',
  {
    driver: BlockdevDriver,
    'node-name': opt(str),
    discard: opt(BlockdevDiscardOptions),
    cache: opt(BlockdevCacheOptions),
    'read-only': opt(bool),
    'auto-read-only': opt(bool),
    'force-share': opt(bool),
    'detect-zeroes': opt(BlockdevDetectZeroesOptions),
  },
  'driver',
  {
    blkdebug: BlockdevOptionsBlkdebug,
    blkverify: BlockdevOptionsBlkverify,
    compress: BlockdevOptionsGenericFormat,
    'copy-before-write': BlockdevOptionsCbw,
    'copy-on-read': BlockdevOptionsCor,
    file: BlockdevOptionsFile,
    host_device: BlockdevOptionsFile,
    luks: BlockdevOptionsLUKS,
    nbd: BlockdevOptionsNbd,
    'null-aio': BlockdevOptionsNull,
    'null-co': BlockdevOptionsNull,
    preallocate: BlockdevOptionsPreallocate,
    qcow2: BlockdevOptionsQcow2,
    quorum: BlockdevOptionsQuorum,
    raw: BlockdevOptionsRaw,
    'snapshot-access': BlockdevOptionsGenericFormat,
    throttle: BlockdevOptionsThrottle,
    vdi: BlockdevOptionsGenericFormat,
    vhdx: BlockdevOptionsGenericFormat,
    vmdk: BlockdevOptionsGenericCOWFormat,
    vpc: BlockdevOptionsGenericFormat,
  },
);
export const PreallocMode = enumeration('PreallocMode', ['off', 'metadata', 'falloc', 'full']);
export const BlockdevCreateOptionsFile = struct('BlockdevCreateOptionsFile', {
  filename: str,
  size: size,
  preallocation: opt(PreallocMode),
  nocow: opt(bool),
  'extent-size-hint': opt(size),
});
export const BlockdevCreateOptionsLUKS = struct(
  'BlockdevCreateOptionsLUKS',
  { file: BlockdevRef, size: size, preallocation: opt(PreallocMode) },
  { base: QCryptoBlockCreateOptionsLUKS },
);
export const BlockdevQcow2Version = enumeration('BlockdevQcow2Version', ['v2', 'v3']);
export const BlockdevCreateOptionsQcow2 = struct('BlockdevCreateOptionsQcow2', {
  file: BlockdevRef,
  'data-file': opt(BlockdevRef),
  'data-file-raw': opt(bool),
  'extended-l2': opt(bool),
  size: size,
  version: opt(BlockdevQcow2Version),
  'backing-file': opt(str),
  'backing-fmt': opt(BlockdevDriver),
  encrypt: opt(QCryptoBlockCreateOptions),
  'cluster-size': opt(size),
  preallocation: opt(PreallocMode),
  'lazy-refcounts': opt(bool),
  'refcount-bits': opt(int),
  'compression-type': opt(Qcow2CompressionType),
});
export const BlockdevCreateOptionsVdi = struct('BlockdevCreateOptionsVdi', {
  file: BlockdevRef,
  size: size,
  preallocation: opt(PreallocMode),
});
export const BlockdevVhdxSubformat = enumeration('BlockdevVhdxSubformat', ['dynamic', 'fixed']);
export const BlockdevCreateOptionsVhdx = struct('BlockdevCreateOptionsVhdx', {
  file: BlockdevRef,
  size: size,
  'log-size': opt(size),
  'block-size': opt(size),
  subformat: opt(BlockdevVhdxSubformat),
  'block-state-zero': opt(bool),
});
export const BlockdevVmdkSubformat = enumeration('BlockdevVmdkSubformat', [
  'monolithicSparse',
  'monolithicFlat',
  'twoGbMaxExtentSparse',
  'twoGbMaxExtentFlat',
  'streamOptimized',
]);
export const BlockdevVmdkAdapterType = enumeration('BlockdevVmdkAdapterType', [
  'ide',
  'buslogic',
  'lsilogic',
  'legacyESX',
]);
export const BlockdevCreateOptionsVmdk = struct('BlockdevCreateOptionsVmdk', {
  file: BlockdevRef,
  size: size,
  extents: opt(array(BlockdevRef)),
  subformat: opt(BlockdevVmdkSubformat),
  'backing-file': opt(str),
  'adapter-type': opt(BlockdevVmdkAdapterType),
  hwversion: opt(str),
  toolsversion: opt(str),
  'zeroed-grain': opt(bool),
});
export const BlockdevVpcSubformat = enumeration('BlockdevVpcSubformat', ['dynamic', 'fixed']);
export const BlockdevCreateOptionsVpc = struct('BlockdevCreateOptionsVpc', {
  file: BlockdevRef,
  size: size,
  subformat: opt(BlockdevVpcSubformat),
  'force-size': opt(bool),
});
export const BlockdevCreateOptions = union('BlockdevCreateOptions', { driver: BlockdevDriver }, 'driver', {
  file: BlockdevCreateOptionsFile,
  luks: BlockdevCreateOptionsLUKS,
  qcow2: BlockdevCreateOptionsQcow2,
  vdi: BlockdevCreateOptionsVdi,
  vhdx: BlockdevCreateOptionsVhdx,
  vmdk: BlockdevCreateOptionsVmdk,
  vpc: BlockdevCreateOptionsVpc,
});

export const BlockdevAmendOptionsQcow2 = struct('BlockdevAmendOptionsQcow2', {
  encrypt: opt(QCryptoBlockAmendOptions),
});
export const BlockdevAmendOptions = union('BlockdevAmendOptions', { driver: BlockdevDriver }, 'driver', {
  luks: QCryptoBlockAmendOptionsLUKS,
  qcow2: BlockdevAmendOptionsQcow2,
});

export const QuorumOpType = enumeration('QuorumOpType', ['read', 'write', 'flush']);
export const XDbgBlockGraphNodeType = enumeration('XDbgBlockGraphNodeType', [
  'block-backend',
  'block-job',
  'block-driver',
]);
export const XDbgBlockGraphNode = struct('XDbgBlockGraphNode', {
  id: uint64,
  type: XDbgBlockGraphNodeType,
  name: str,
});
export const XDbgBlockGraphEdge = struct('XDbgBlockGraphEdge', {
  parent: uint64,
  child: uint64,
  name: str,
  perm: array(BlockPermission),
  'shared-perm': array(BlockPermission),
});
export const XDbgBlockGraph = struct('XDbgBlockGraph', {
  nodes: array(XDbgBlockGraphNode),
  edges: array(XDbgBlockGraphEdge),
});

export const commands = {
  'blockdev-add': command('Creates a block node', { args: BlockdevOptions, preconfig: true }),
  'blockdev-del': command('Deletes a block node', { args: { 'node-name': str }, preconfig: true }),
  'blockdev-reopen': command('Changes the options of block nodes', {
    args: { options: array(BlockdevOptions) },
    preconfig: true,
  }),
  'x-blockdev-change': command('Adds a child to a node, or takes one away', {
    args: { parent: str, child: opt(str), node: opt(str) },
    features: ['unstable'],
    preconfig: true,
  }),
  'x-blockdev-set-iothread': command('Moves a node to an I/O thread', {
    args: { 'node-name': str, iothread: StrOrNull, force: opt(bool) },
    features: ['unstable'],
    preconfig: true,
  }),
  'x-debug-query-block-graph': command('The graph of backends, jobs and nodes', {
    returns: XDbgBlockGraph,
    features: ['unstable'],
    preconfig: true,
  }),
  'blockdev-create': command('Creates an image in a job', {
    args: { 'job-id': str, options: BlockdevCreateOptions },
    preconfig: true,
  }),
  'x-blockdev-amend': command("Changes what an open image's format is like in a job", {
    args: { 'job-id': str, 'node-name': str, options: BlockdevAmendOptions, force: opt(bool) },
    features: ['unstable'],
    preconfig: true,
  }),
  'blockdev-snapshot': command('Installs an overlay over a node', {
    args: BlockdevSnapshot,
    features: ['allow-write-only-overlay'],
    preconfig: true,
  }),
  'blockdev-snapshot-sync': command('Creates an overlay image and installs it', {
    args: BlockdevSnapshotSync,
    preconfig: true,
  }),
  'blockdev-snapshot-internal-sync': command('Creates an internal snapshot', {
    args: BlockdevSnapshotInternal,
    preconfig: true,
  }),
  'blockdev-snapshot-delete-internal-sync': command('Deletes an internal snapshot', {
    args: { device: str, id: opt(str), name: opt(str) },
    returns: SnapshotInfo,
    preconfig: true,
  }),
  block_resize: command('Resizes an image', {
    args: { device: opt(str), 'node-name': opt(str), size: int },
    preconfig: true,
  }),
  'block-set-write-threshold': command('Sets a write threshold', {
    args: { 'node-name': str, 'write-threshold': uint64 },
    preconfig: true,
  }),
};

export const events = {
  BLOCK_IMAGE_CORRUPTED: event({
    device: str,
    'node-name': opt(str),
    msg: str,
    offset: opt(int),
    size: opt(int),
    fatal: bool,
  }),
  BLOCK_IO_ERROR: event({
    device: str,
    'node-name': opt(str),
    operation: IoOperationType,
    action: BlockErrorAction,
    nospace: opt(bool),
    reason: str,
  }),
  QUORUM_FAILURE: event({ reference: str, 'sector-num': int, 'sectors-count': int }),
  QUORUM_REPORT_BAD: event({
    type: QuorumOpType,
    error: opt(str),
    'node-name': str,
    'sector-num': int,
    'sectors-count': int,
  }),
  BLOCK_WRITE_THRESHOLD: event({ 'node-name': str, 'amount-exceeded': uint64, 'write-threshold': uint64 }),
};
