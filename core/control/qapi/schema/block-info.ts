import { command } from '../declare.ts';
import {
  type AnyType,
  array,
  bool,
  enumeration,
  int,
  lazy,
  number,
  opt,
  str,
  struct,
  uint32,
  uint64,
  union,
} from '../types.ts';
import { QCryptoBlockInfoLUKS } from './crypto.ts';

export const BlockdevDetectZeroesOptions = enumeration('BlockdevDetectZeroesOptions', ['off', 'on', 'unmap']);
export const SnapshotInfo = struct('SnapshotInfo', {
  id: str,
  name: str,
  'vm-state-size': int,
  'date-sec': int,
  'date-nsec': int,
  'vm-clock-sec': int,
  'vm-clock-nsec': int,
  icount: opt(int),
});
export const ImageInfoSpecificKind = enumeration('ImageInfoSpecificKind', ['qcow2', 'vmdk', 'luks']);
export const Qcow2BitmapInfoFlags = enumeration('Qcow2BitmapInfoFlags', ['in-use', 'auto']);
export const Qcow2BitmapInfo = struct('Qcow2BitmapInfo', {
  name: str,
  granularity: uint32,
  flags: array(Qcow2BitmapInfoFlags),
});
export const Qcow2CompressionType = enumeration('Qcow2CompressionType', ['zlib', 'zstd']);
export const BlockdevQcow2EncryptionFormat = enumeration('BlockdevQcow2EncryptionFormat', ['aes', 'luks']);
export const ImageInfoSpecificQCow2Encryption = union(
  'ImageInfoSpecificQCow2Encryption',
  { format: BlockdevQcow2EncryptionFormat },
  'format',
  { luks: QCryptoBlockInfoLUKS },
);
export const ImageInfoSpecificQCow2 = struct('ImageInfoSpecificQCow2', {
  compat: str,
  'data-file': opt(str),
  'data-file-raw': opt(bool),
  'extended-l2': opt(bool),
  'lazy-refcounts': opt(bool),
  corrupt: opt(bool),
  'refcount-bits': int,
  encrypt: opt(ImageInfoSpecificQCow2Encryption),
  bitmaps: opt(array(Qcow2BitmapInfo)),
  'compression-type': Qcow2CompressionType,
});
export const ImageInfoSpecificQCow2Wrapper = struct('ImageInfoSpecificQCow2Wrapper', { data: ImageInfoSpecificQCow2 });
export const ImageInfoSpecificVmdk = struct('ImageInfoSpecificVmdk', {
  'create-type': str,
  cid: int,
  'parent-cid': int,
  extents: array(lazy('ImageInfo', (): AnyType => ImageInfo)),
});
export const ImageInfoSpecificVmdkWrapper = struct('ImageInfoSpecificVmdkWrapper', { data: ImageInfoSpecificVmdk });
export const ImageInfoSpecificLUKSWrapper = struct('ImageInfoSpecificLUKSWrapper', { data: QCryptoBlockInfoLUKS });
export const ImageInfoSpecific = union('ImageInfoSpecific', { type: ImageInfoSpecificKind }, 'type', {
  qcow2: ImageInfoSpecificQCow2Wrapper,
  vmdk: ImageInfoSpecificVmdkWrapper,
  luks: ImageInfoSpecificLUKSWrapper,
});
export const ImageInfo = struct('ImageInfo', {
  filename: str,
  format: str,
  'dirty-flag': opt(bool),
  'actual-size': opt(int),
  'virtual-size': int,
  'cluster-size': opt(int),
  encrypted: opt(bool),
  compressed: opt(bool),
  'backing-filename': opt(str),
  'full-backing-filename': opt(str),
  'backing-filename-format': opt(str),
  snapshots: opt(array(SnapshotInfo)),
  'backing-image': opt(lazy('ImageInfo', (): AnyType => ImageInfo)),
  'format-specific': opt(ImageInfoSpecific),
});
export const BlockdevCacheInfo = struct('BlockdevCacheInfo', { writeback: bool, direct: bool, 'no-flush': bool });
export const BlockDirtyInfo = struct('BlockDirtyInfo', {
  name: opt(str),
  count: int,
  granularity: uint32,
  recording: bool,
  busy: bool,
  persistent: bool,
  inconsistent: opt(bool),
});
export const BlockDeviceInfo = struct('BlockDeviceInfo', {
  file: str,
  'node-name': opt(str),
  ro: bool,
  drv: str,
  backing_file: opt(str),
  backing_file_depth: int,
  encrypted: bool,
  detect_zeroes: BlockdevDetectZeroesOptions,
  bps: int,
  bps_rd: int,
  bps_wr: int,
  iops: int,
  iops_rd: int,
  iops_wr: int,
  image: ImageInfo,
  bps_max: opt(int),
  bps_rd_max: opt(int),
  bps_wr_max: opt(int),
  iops_max: opt(int),
  iops_rd_max: opt(int),
  iops_wr_max: opt(int),
  bps_max_length: opt(int),
  bps_rd_max_length: opt(int),
  bps_wr_max_length: opt(int),
  iops_max_length: opt(int),
  iops_rd_max_length: opt(int),
  iops_wr_max_length: opt(int),
  iops_size: opt(int),
  group: opt(str),
  cache: BlockdevCacheInfo,
  write_threshold: int,
  'dirty-bitmaps': opt(array(BlockDirtyInfo)),
});
export const BlockDeviceIoStatus = enumeration('BlockDeviceIoStatus', ['ok', 'failed', 'nospace']);
export const BlockInfo = struct('BlockInfo', {
  device: str,
  qdev: opt(str),
  type: str,
  removable: bool,
  locked: bool,
  inserted: opt(BlockDeviceInfo),
  tray_open: opt(bool),
  'io-status': opt(BlockDeviceIoStatus),
});
export const BlockDeviceTimedStats = struct('BlockDeviceTimedStats', {
  interval_length: int,
  min_rd_latency_ns: int,
  max_rd_latency_ns: int,
  avg_rd_latency_ns: int,
  min_wr_latency_ns: int,
  max_wr_latency_ns: int,
  avg_wr_latency_ns: int,
  min_flush_latency_ns: int,
  max_flush_latency_ns: int,
  avg_flush_latency_ns: int,
  avg_rd_queue_depth: number,
  avg_wr_queue_depth: number,
});
export const BlockLatencyHistogramInfo = struct('BlockLatencyHistogramInfo', {
  boundaries: array(uint64),
  bins: array(uint64),
});
export const BlockDeviceStats = struct('BlockDeviceStats', {
  rd_bytes: int,
  wr_bytes: int,
  unmap_bytes: int,
  rd_operations: int,
  wr_operations: int,
  flush_operations: int,
  unmap_operations: int,
  rd_total_time_ns: int,
  wr_total_time_ns: int,
  flush_total_time_ns: int,
  unmap_total_time_ns: int,
  wr_highest_offset: int,
  rd_merged: int,
  wr_merged: int,
  unmap_merged: int,
  idle_time_ns: opt(int),
  failed_rd_operations: int,
  failed_wr_operations: int,
  failed_flush_operations: int,
  failed_unmap_operations: int,
  invalid_rd_operations: int,
  invalid_wr_operations: int,
  invalid_flush_operations: int,
  invalid_unmap_operations: int,
  account_invalid: bool,
  account_failed: bool,
  timed_stats: array(BlockDeviceTimedStats),
  rd_latency_histogram: opt(BlockLatencyHistogramInfo),
  wr_latency_histogram: opt(BlockLatencyHistogramInfo),
  flush_latency_histogram: opt(BlockLatencyHistogramInfo),
});
export const BlockdevDriver = enumeration('BlockdevDriver', [
  'blkdebug',
  'blkverify',
  'compress',
  'copy-before-write',
  'copy-on-read',
  'file',
  'host_device',
  'luks',
  'nbd',
  'null-aio',
  'null-co',
  'preallocate',
  'qcow2',
  'quorum',
  'raw',
  'snapshot-access',
  'throttle',
  'vdi',
  'vhdx',
  'vmdk',
  'vpc',
]);
export const BlockStatsSpecificFile = struct('BlockStatsSpecificFile', {
  'discard-nb-ok': uint64,
  'discard-nb-failed': uint64,
  'discard-bytes-ok': uint64,
});
export const BlockStatsSpecific = union('BlockStatsSpecific', { driver: BlockdevDriver }, 'driver', {
  file: BlockStatsSpecificFile,
});
export const BlockStats = struct('BlockStats', {
  device: opt(str),
  qdev: opt(str),
  'node-name': opt(str),
  stats: BlockDeviceStats,
  'driver-specific': opt(BlockStatsSpecific),
  parent: opt(lazy('BlockStats', (): AnyType => BlockStats)),
  backing: opt(lazy('BlockStats', (): AnyType => BlockStats)),
});

export const commands = {
  'query-block': command('The block devices', { returns: array(BlockInfo), preconfig: true }),
  'query-blockstats': command('Statistics of block devices', {
    args: { 'query-nodes': opt(bool) },
    returns: array(BlockStats),
    preconfig: true,
  }),
  'query-named-block-nodes': command('The named nodes of the block graph', {
    args: { flat: opt(bool) },
    returns: array(BlockDeviceInfo),
    preconfig: true,
  }),
};
