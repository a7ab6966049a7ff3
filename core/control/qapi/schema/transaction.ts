import { command } from '../declare.ts';
import { array, enumeration, opt, struct, union } from '../types.ts';
import {
  BlockdevBackup,
  BlockdevSnapshot,
  BlockdevSnapshotInternal,
  BlockdevSnapshotSync,
  DriveBackup,
} from './block-jobs.ts';

export const TransactionActionKind = enumeration('TransactionActionKind', [
  'abort',
  'blockdev-backup',
  'blockdev-snapshot',
  'blockdev-snapshot-internal-sync',
  'blockdev-snapshot-sync',
  { name: 'drive-backup', features: ['deprecated'] },
]);
export const Abort = struct('Abort', {});
export const AbortWrapper = struct('AbortWrapper', { data: Abort });
export const BlockdevBackupWrapper = struct('BlockdevBackupWrapper', { data: BlockdevBackup });
export const BlockdevSnapshotWrapper = struct('BlockdevSnapshotWrapper', { data: BlockdevSnapshot });
export const BlockdevSnapshotInternalWrapper = struct('BlockdevSnapshotInternalWrapper', {
  data: BlockdevSnapshotInternal,
});
export const BlockdevSnapshotSyncWrapper = struct('BlockdevSnapshotSyncWrapper', { data: BlockdevSnapshotSync });
export const DriveBackupWrapper = struct('DriveBackupWrapper', { data: DriveBackup });
export const TransactionAction = union('TransactionAction', { type: TransactionActionKind }, 'type', {
  abort: AbortWrapper,
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
