import { command, event } from '../declare.ts';
import { array, bool, enumeration, int, number, opt, size, str, struct, uint8, uint32, uint64 } from '../types.ts';
import { StrOrNull } from './common.ts';
import { SocketAddress } from './sockets.ts';

export const MigrationStatus = enumeration('MigrationStatus', [
  'none',
  'setup',
  'cancelling',
  'cancelled',
  'active',
  'postcopy-active',
  'postcopy-paused',
  'postcopy-recover',
  'completed',
  'failed',
  'colo',
  'pre-switchover',
  'device',
  'wait-unplug',
]);
export const MigrationStats = struct('MigrationStats', {
  transferred: int,
  remaining: int,
  total: int,
  duplicate: int,
  skipped: int,
  normal: int,
  'normal-bytes': int,
  'dirty-pages-rate': int,
  mbps: number,
  'dirty-sync-count': int,
  'postcopy-requests': int,
  'page-size': int,
  'multifd-bytes': uint64,
  'pages-per-second': uint64,
  'precopy-bytes': uint64,
  'downtime-bytes': uint64,
  'postcopy-bytes': uint64,
  'dirty-sync-missed-zero-copy': uint64,
});
export const VfioStats = struct('VfioStats', { transferred: int });
export const XBZRLECacheStats = struct('XBZRLECacheStats', {
  'cache-size': size,
  bytes: int,
  pages: int,
  'cache-miss': int,
  'cache-miss-rate': number,
  'encoding-rate': number,
  overflow: int,
});
export const CompressionStats = struct('CompressionStats', {
  pages: int,
  busy: int,
  'busy-rate': number,
  'compressed-size': int,
  'compression-rate': number,
});
export const MigrationInfo = struct('MigrationInfo', {
  status: opt(MigrationStatus),
  ram: opt(MigrationStats),
  disk: opt(MigrationStats),
  vfio: opt(VfioStats),
  'xbzrle-cache': opt(XBZRLECacheStats),
  'total-time': opt(int),
  'expected-downtime': opt(int),
  downtime: opt(int),
  'setup-time': opt(int),
  'cpu-throttle-percentage': opt(int),
  'error-desc': opt(str),
  'blocked-reasons': opt(array(str)),
  'postcopy-blocktime': opt(uint32),
  'postcopy-vcpu-blocktime': opt(array(uint32)),
  compression: opt(CompressionStats),
  'socket-address': opt(array(SocketAddress)),
});
export const MigrationCapability = enumeration('MigrationCapability', [
  'xbzrle',
  'rdma-pin-all',
  'auto-converge',
  'zero-blocks',
  'compress',
  'events',
  'postcopy-ram',
  { name: 'x-colo', features: ['unstable'] },
  'release-ram',
  'block',
  'return-path',
  'pause-before-switchover',
  'multifd',
  'dirty-bitmaps',
  'postcopy-blocktime',
  'late-block-activate',
  { name: 'x-ignore-shared', features: ['unstable'] },
  'validate-uuid',
  'background-snapshot',
  'zero-copy-send',
  'postcopy-preempt',
]);
export const MigrationCapabilityStatus = struct('MigrationCapabilityStatus', {
  capability: MigrationCapability,
  state: bool,
});
export const MultiFDCompression = enumeration('MultiFDCompression', ['none', 'zlib', 'zstd']);
export const BitmapMigrationBitmapAliasTransform = struct('BitmapMigrationBitmapAliasTransform', {
  persistent: opt(bool),
});
export const BitmapMigrationBitmapAlias = struct('BitmapMigrationBitmapAlias', {
  name: str,
  alias: str,
  transform: opt(BitmapMigrationBitmapAliasTransform),
});
export const BitmapMigrationNodeAlias = struct('BitmapMigrationNodeAlias', {
  'node-name': str,
  alias: str,
  bitmaps: array(BitmapMigrationBitmapAlias),
});
export const MigrateSetParameters = struct('MigrateSetParameters', {
  'announce-initial': opt(size),
  'announce-max': opt(size),
  'announce-rounds': opt(size),
  'announce-step': opt(size),
  'compress-level': opt(uint8),
  'compress-threads': opt(uint8),
  'compress-wait-thread': opt(bool),
  'decompress-threads': opt(uint8),
  'throttle-trigger-threshold': opt(uint8),
  'cpu-throttle-initial': opt(uint8),
  'cpu-throttle-increment': opt(uint8),
  'cpu-throttle-tailslow': opt(bool),
  'tls-creds': opt(StrOrNull),
  'tls-hostname': opt(StrOrNull),
  'tls-authz': opt(StrOrNull),
  'max-bandwidth': opt(size),
  'downtime-limit': opt(uint64),
  'x-checkpoint-delay': opt(uint32, 'unstable'),
  'block-incremental': opt(bool),
  'multifd-channels': opt(uint8),
  'xbzrle-cache-size': opt(size),
  'max-postcopy-bandwidth': opt(size),
  'max-cpu-throttle': opt(uint8),
  'multifd-compression': opt(MultiFDCompression),
  'multifd-zlib-level': opt(uint8),
  'multifd-zstd-level': opt(uint8),
  'block-bitmap-mapping': opt(array(BitmapMigrationNodeAlias)),
});
export const MigrationParameters = struct('MigrationParameters', {
  'announce-initial': opt(size),
  'announce-max': opt(size),
  'announce-rounds': opt(size),
  'announce-step': opt(size),
  'compress-level': opt(uint8),
  'compress-threads': opt(uint8),
  'compress-wait-thread': opt(bool),
  'decompress-threads': opt(uint8),
  'throttle-trigger-threshold': opt(uint8),
  'cpu-throttle-initial': opt(uint8),
  'cpu-throttle-increment': opt(uint8),
  'cpu-throttle-tailslow': opt(bool),
  'tls-creds': opt(str),
  'tls-hostname': opt(str),
  'tls-authz': opt(str),
  'max-bandwidth': opt(size),
  'downtime-limit': opt(uint64),
  'x-checkpoint-delay': opt(uint32, 'unstable'),
  'block-incremental': opt(bool),
  'multifd-channels': opt(uint8),
  'xbzrle-cache-size': opt(size),
  'max-postcopy-bandwidth': opt(size),
  'max-cpu-throttle': opt(uint8),
  'multifd-compression': opt(MultiFDCompression),
  'multifd-zlib-level': opt(uint8),
  'multifd-zstd-level': opt(uint8),
  'block-bitmap-mapping': opt(array(BitmapMigrationNodeAlias)),
});

export const COLOMode = enumeration('COLOMode', ['none', 'primary', 'secondary']);
export const COLOExitReason = enumeration('COLOExitReason', ['none', 'request', 'error', 'processing']);
export const COLOStatus = struct('COLOStatus', { mode: COLOMode, 'last-mode': COLOMode, reason: COLOExitReason });

export const commands = {
  client_migrate_info: command('Tells clients of the screen where the machine goes', {
    args: { protocol: str, hostname: str, port: opt(int), 'tls-port': opt(int), 'cert-subject': opt(str) },
  }),
  'x-colo-lost-heartbeat': command('The other half of a pair is gone', { features: ['unstable'] }),
  'query-colo-status': command('State of a pair of machines that follow one another', { returns: COLOStatus }),
  migrate: command("Sends the machine's state to another host", {
    args: { uri: str, blk: opt(bool), inc: opt(bool), detach: opt(bool), resume: opt(bool) },
  }),
  migrate_cancel: command('Cancels the migration', {}),
  'migrate-continue': command('Continues a paused migration', { args: { state: MigrationStatus } }),
  'query-migrate': command('State and statistics of the migration', { returns: MigrationInfo }),
  'migrate-set-capabilities': command('Switches capabilities of migration', {
    args: { capabilities: array(MigrationCapabilityStatus) },
  }),
  'query-migrate-capabilities': command('Capabilities of migration', { returns: array(MigrationCapabilityStatus) }),
  'migrate-set-parameters': command('Sets parameters of migration', { args: MigrateSetParameters }),
  'query-migrate-parameters': command('Parameters of migration', { returns: MigrationParameters }),
  'migrate-incoming': command('Starts to wait for an incoming migration', { args: { uri: str } }),
  'migrate-recover': command('Takes up a postcopy migration that was interrupted', { args: { uri: str }, oob: true }),
  'migrate-pause': command('Interrupts a postcopy migration', { oob: true }),
  'migrate-start-postcopy': command('Lets the machine run on the other side before all of its memory is there', {}),
  'snapshot-save': command("Saves the machine's state in a job", {
    args: { 'job-id': str, tag: str, vmstate: str, devices: array(str) },
  }),
  'snapshot-load': command("Loads the machine's state in a job", {
    args: { 'job-id': str, tag: str, vmstate: str, devices: array(str) },
  }),
  'snapshot-delete': command('Deletes a snapshot in a job', { args: { 'job-id': str, tag: str, devices: array(str) } }),
};

export const events = {
  RDMA_GID_STATUS_CHANGED: event({ netdev: str, 'gid-status': bool, 'subnet-prefix': uint64, 'interface-id': uint64 }),
  MIGRATION: event({ status: MigrationStatus }),
  MIGRATION_PASS: event({ pass: int }),
  UNPLUG_PRIMARY: event({ 'device-id': str }),
};
