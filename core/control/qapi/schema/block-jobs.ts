import { command, event } from '../declare.ts';
import { alternate, array, bool, enumeration, int, int64, opt, str, struct, uint32 } from '../types.ts';
import { BlockDeviceIoStatus } from './block-info.ts';
import { IoOperationType } from './common.ts';
import { JobStatus, JobType } from './job.ts';

export const ThrottleLimits = struct('ThrottleLimits', {
  'iops-total': opt(int),
  'iops-total-max': opt(int),
  'iops-total-max-length': opt(int),
  'iops-read': opt(int),
  'iops-read-max': opt(int),
  'iops-read-max-length': opt(int),
  'iops-write': opt(int),
  'iops-write-max': opt(int),
  'iops-write-max-length': opt(int),
  'bps-total': opt(int),
  'bps-total-max': opt(int),
  'bps-total-max-length': opt(int),
  'bps-read': opt(int),
  'bps-read-max': opt(int),
  'bps-read-max-length': opt(int),
  'bps-write': opt(int),
  'bps-write-max': opt(int),
  'bps-write-max-length': opt(int),
  'iops-size': opt(int),
});
export const ThrottleGroupProperties = struct('ThrottleGroupProperties', {
  limits: opt(ThrottleLimits),
  'x-iops-total': opt(int, 'unstable'),
  'x-iops-total-max': opt(int, 'unstable'),
  'x-iops-total-max-length': opt(int, 'unstable'),
  'x-iops-read': opt(int, 'unstable'),
  'x-iops-read-max': opt(int, 'unstable'),
  'x-iops-read-max-length': opt(int, 'unstable'),
  'x-iops-write': opt(int, 'unstable'),
  'x-iops-write-max': opt(int, 'unstable'),
  'x-iops-write-max-length': opt(int, 'unstable'),
  'x-bps-total': opt(int, 'unstable'),
  'x-bps-total-max': opt(int, 'unstable'),
  'x-bps-total-max-length': opt(int, 'unstable'),
  'x-bps-read': opt(int, 'unstable'),
  'x-bps-read-max': opt(int, 'unstable'),
  'x-bps-read-max-length': opt(int, 'unstable'),
  'x-bps-write': opt(int, 'unstable'),
  'x-bps-write-max': opt(int, 'unstable'),
  'x-bps-write-max-length': opt(int, 'unstable'),
  'x-iops-size': opt(int, 'unstable'),
});
export const BlockJobInfo = struct('BlockJobInfo', {
  type: str,
  device: str,
  len: int,
  offset: int,
  busy: bool,
  paused: bool,
  speed: int,
  'io-status': BlockDeviceIoStatus,
  ready: bool,
  status: JobStatus,
  'auto-finalize': bool,
  'auto-dismiss': bool,
  error: opt(str),
});
export const BlockdevSnapshot = struct('BlockdevSnapshot', { node: str, overlay: str });
export const NewImageMode = enumeration('NewImageMode', ['existing', 'absolute-paths']);
export const BlockdevSnapshotSync = struct('BlockdevSnapshotSync', {
  device: opt(str),
  'node-name': opt(str),
  'snapshot-file': str,
  'snapshot-node-name': opt(str),
  format: opt(str),
  mode: opt(NewImageMode),
});
export const BlockdevSnapshotInternal = struct('BlockdevSnapshotInternal', { device: str, name: str });
export const BlockIOThrottle = struct('BlockIOThrottle', {
  device: opt(str, 'deprecated'),
  id: opt(str),
  bps: int,
  bps_rd: int,
  bps_wr: int,
  iops: int,
  iops_rd: int,
  iops_wr: int,
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
});
export const BlockdevOnError = enumeration('BlockdevOnError', ['report', 'ignore', 'enospc', 'stop', 'auto']);
export const MirrorSyncMode = enumeration('MirrorSyncMode', ['top', 'full', 'none', 'incremental', 'bitmap']);
export const BitmapSyncMode = enumeration('BitmapSyncMode', ['on-success', 'never', 'always']);
export const BackupPerf = struct('BackupPerf', {
  'use-copy-range': opt(bool),
  'max-workers': opt(int),
  'max-chunk': opt(int64),
});
export const BackupCommon = struct('BackupCommon', {
  'job-id': opt(str),
  device: str,
  sync: MirrorSyncMode,
  speed: opt(int),
  bitmap: opt(str),
  'bitmap-mode': opt(BitmapSyncMode),
  compress: opt(bool),
  'on-source-error': opt(BlockdevOnError),
  'on-target-error': opt(BlockdevOnError),
  'auto-finalize': opt(bool),
  'auto-dismiss': opt(bool),
  'filter-node-name': opt(str),
  'x-perf': opt(BackupPerf, 'unstable'),
});
export const BlockdevBackup = struct('BlockdevBackup', { target: str }, { base: BackupCommon });
export const MirrorCopyMode = enumeration('MirrorCopyMode', ['background', 'write-blocking']);
export const DriveBackup = struct(
  'DriveBackup',
  { target: str, format: opt(str), mode: opt(NewImageMode) },
  { base: BackupCommon },
);
export const DriveMirror = struct('DriveMirror', {
  'job-id': opt(str),
  device: str,
  target: str,
  format: opt(str),
  'node-name': opt(str),
  replaces: opt(str),
  sync: MirrorSyncMode,
  mode: opt(NewImageMode),
  speed: opt(int),
  granularity: opt(uint32),
  'buf-size': opt(int),
  'on-source-error': opt(BlockdevOnError),
  'on-target-error': opt(BlockdevOnError),
  unmap: opt(bool),
  'copy-mode': opt(MirrorCopyMode),
  'auto-finalize': opt(bool),
  'auto-dismiss': opt(bool),
});
export const BlockDirtyBitmapSha256 = struct('BlockDirtyBitmapSha256', { sha256: str });
export const BlockDirtyBitmap = struct('BlockDirtyBitmap', { node: str, name: str });
export const BlockDirtyBitmapOrStr = alternate('BlockDirtyBitmapOrStr', { local: str, external: BlockDirtyBitmap });
export const BlockDirtyBitmapAdd = struct('BlockDirtyBitmapAdd', {
  node: str,
  name: str,
  granularity: opt(uint32),
  persistent: opt(bool),
  disabled: opt(bool),
});
export const BlockDirtyBitmapMerge = struct('BlockDirtyBitmapMerge', {
  node: str,
  target: str,
  bitmaps: array(BlockDirtyBitmapOrStr),
});
export const BlockErrorAction = enumeration('BlockErrorAction', ['ignore', 'report', 'stop']);

export const commands = {
  'query-block-jobs': command('The block jobs', { returns: array(BlockJobInfo), preconfig: true }),
  'block-commit': command('Commits an overlay to its backing file', {
    args: {
      'job-id': opt(str),
      device: str,
      'base-node': opt(str),
      base: opt(str, 'deprecated'),
      'top-node': opt(str),
      top: opt(str, 'deprecated'),
      'backing-file': opt(str),
      speed: opt(int),
      'on-error': opt(BlockdevOnError),
      'filter-node-name': opt(str),
      'auto-finalize': opt(bool),
      'auto-dismiss': opt(bool),
    },
    preconfig: true,
  }),
  'block-stream': command('Copies backing data into an image', {
    args: {
      'job-id': opt(str),
      device: str,
      base: opt(str),
      'base-node': opt(str),
      'backing-file': opt(str),
      bottom: opt(str),
      speed: opt(int),
      'on-error': opt(BlockdevOnError),
      'filter-node-name': opt(str),
      'auto-finalize': opt(bool),
      'auto-dismiss': opt(bool),
    },
    preconfig: true,
  }),
  'blockdev-backup': command('Backs a device up to a node', { args: BlockdevBackup, preconfig: true }),
  'blockdev-mirror': command('Mirrors a device to a node', {
    args: {
      'job-id': opt(str),
      device: str,
      target: str,
      replaces: opt(str),
      sync: MirrorSyncMode,
      speed: opt(int),
      granularity: opt(uint32),
      'buf-size': opt(int),
      'on-source-error': opt(BlockdevOnError),
      'on-target-error': opt(BlockdevOnError),
      'filter-node-name': opt(str),
      'copy-mode': opt(MirrorCopyMode),
      'auto-finalize': opt(bool),
      'auto-dismiss': opt(bool),
    },
    preconfig: true,
  }),
  'drive-backup': command('Backs a device up to a new image', {
    args: DriveBackup,
    features: ['deprecated'],
    preconfig: true,
  }),
  'drive-mirror': command('Mirrors a device to a new image', { args: DriveMirror, preconfig: true }),
  'block-job-cancel': command('Cancels a block job', { args: { device: str, force: opt(bool) }, preconfig: true }),
  'block-job-pause': command('Pauses a block job', { args: { device: str }, preconfig: true }),
  'block-job-resume': command('Resumes a block job', { args: { device: str }, preconfig: true }),
  'block-job-complete': command('Lets a ready block job complete', { args: { device: str }, preconfig: true }),
  'block-job-dismiss': command('Forgets a concluded block job', { args: { id: str }, preconfig: true }),
  'block-job-finalize': command('Lets a pending block job commit', { args: { id: str }, preconfig: true }),
  'block-job-set-speed': command('Limits the speed of a block job', {
    args: { device: str, speed: int },
    preconfig: true,
  }),
  'block-dirty-bitmap-add': command('Records the writes to a node', { args: BlockDirtyBitmapAdd, preconfig: true }),
  'block-dirty-bitmap-remove': command('Forgets a dirty bitmap', { args: BlockDirtyBitmap, preconfig: true }),
  'block-dirty-bitmap-clear': command('Empties a dirty bitmap', { args: BlockDirtyBitmap, preconfig: true }),
  'block-dirty-bitmap-enable': command('Lets a dirty bitmap record', { args: BlockDirtyBitmap, preconfig: true }),
  'block-dirty-bitmap-disable': command('Stops a dirty bitmap', { args: BlockDirtyBitmap, preconfig: true }),
  'x-debug-block-dirty-bitmap-sha256': command("The hash of a dirty bitmap's marks", {
    args: BlockDirtyBitmap,
    returns: BlockDirtyBitmapSha256,
    features: ['unstable'],
    preconfig: true,
  }),
  'block-dirty-bitmap-merge': command('Merges dirty bitmaps', { args: BlockDirtyBitmapMerge, preconfig: true }),
  'change-backing-file': command("Rewrites the backing file's name in an image", {
    args: { device: str, 'image-node-name': str, 'backing-file': str },
    preconfig: true,
  }),
};

export const events = {
  BLOCK_JOB_COMPLETED: event({ type: JobType, device: str, len: int, offset: int, speed: int, error: opt(str) }),
  BLOCK_JOB_CANCELLED: event({ type: JobType, device: str, len: int, offset: int, speed: int }),
  BLOCK_JOB_ERROR: event({ device: str, operation: IoOperationType, action: BlockErrorAction }),
  BLOCK_JOB_READY: event({ type: JobType, device: str, len: int, offset: int, speed: int }),
  BLOCK_JOB_PENDING: event({ type: JobType, id: str }),
};
