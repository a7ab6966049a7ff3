import { command } from '../declare.ts';
import { array, enumeration, opt, struct, union } from '../types.ts';
import {
  BlockDirtyBitmap,
  BlockDirtyBitmapAdd,
  BlockDirtyBitmapMerge,
  BlockdevBackup,
  BlockdevSnapshot,
  BlockdevSnapshotInternal,
  BlockdevSnapshotSync,
  DriveBackup,
} from './block-jobs.ts';

export const TransactionActionKind = enumeration('TransactionActionKind', [
  'abort',
  'block-dirty-bitmap-add',
  'block-dirty-bitmap-remove',
  'block-dirty-bitmap-clear',
  'block-dirty-bitmap-enable',
  'block-dirty-bitmap-disable',
  'block-dirty-bitmap-merge',
  'blockdev-backup',
  'blockdev-snapshot',
  'blockdev-snapshot-internal-sync',
  'blockdev-snapshot-sync',
  { name: 'drive-backup', features: ['deprecated'] },
]);
export const Abort = struct('Abort', {});
export const AbortWrapper = struct('AbortWrapper', { data: Abort });
export const BlockDirtyBitmapWrapper = struct('BlockDirtyBitmapWrapper', { data: BlockDirtyBitmap });
export const BlockDirtyBitmapAddWrapper = struct('BlockDirtyBitmapAddWrapper', { data: BlockDirtyBitmapAdd });
export const BlockDirtyBitmapMergeWrapper = struct('BlockDirtyBitmapMergeWrapper', { data: BlockDirtyBitmapMerge });
export const BlockdevBackupWrapper = struct('BlockdevBackupWrapper', { data: BlockdevBackup });
export const BlockdevSnapshotWrapper = struct('BlockdevSnapshotWrapper', { data: BlockdevSnapshot });
export const BlockdevSnapshotInternalWrapper = struct('BlockdevSnapshotInternalWrapper', {
  data: BlockdevSnapshotInternal,
});
export const BlockdevSnapshotSyncWrapper = struct('BlockdevSnapshotSyncWrapper', { data: BlockdevSnapshotSync });
export const DriveBackupWrapper = struct('DriveBackupWrapper', { data: DriveBackup });
export const TransactionAction = union('TransactionAction', { type: TransactionActionKind }, 'type', {
  abort: AbortWrapper,
  'block-dirty-bitmap-add': BlockDirtyBitmapAddWrapper,
  'block-dirty-bitmap-remove': BlockDirtyBitmapWrapper,
  'block-dirty-bitmap-clear': BlockDirtyBitmapWrapper,
  'block-dirty-bitmap-enable': BlockDirtyBitmapWrapper,
  'block-dirty-bitmap-disable': BlockDirtyBitmapWrapper,
  'block-dirty-bitmap-merge': BlockDirtyBitmapMergeWrapper,
  'blockdev-backup': BlockdevBackupWrapper,
  'blockdev-snapshot': BlockdevSnapshotWrapper,
  'blockdev-snapshot-internal-sync': BlockdevSnapshotInternalWrapper,
  'blockdev-snapshot-sync': BlockdevSnapshotSyncWrapper,
  'drive-backup': DriveBackupWrapper,
});
export const ActionCompletionMode = enumeration('ActionCompletionMode', ['individual', 'grouped']);
export const TransactionProperties = struct('TransactionProperties', { 'completion-mode': opt(ActionCompletionMode) });

export const commands = {
  transaction: command('Executes several actions, all or none', {
    args: { actions: array(TransactionAction), properties: opt(TransactionProperties) },
  }),
};
