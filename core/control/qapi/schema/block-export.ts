import { command, event } from '../declare.ts';
import { array, bool, enumeration, opt, str, struct, uint32, union } from '../types.ts';
import { BlockDirtyBitmapOrStr } from './block-jobs.ts';
import { SocketAddressLegacy } from './sockets.ts';

export const BlockExportOptionsNbdBase = struct('BlockExportOptionsNbdBase', { name: opt(str), description: opt(str) });
export const NbdServerAddOptions = struct(
  'NbdServerAddOptions',
  { device: str, writable: opt(bool), bitmap: opt(str) },
  { base: BlockExportOptionsNbdBase },
);
export const BlockExportRemoveMode = enumeration('BlockExportRemoveMode', ['safe', 'hard']);
export const BlockExportType = enumeration('BlockExportType', ['nbd']);
export const BlockExportOptionsNbd = struct(
  'BlockExportOptionsNbd',
  { bitmaps: opt(array(BlockDirtyBitmapOrStr)), 'allocation-depth': opt(bool) },
  { base: BlockExportOptionsNbdBase },
);
export const BlockExportOptions = union(
  'BlockExportOptions',
  {
    type: BlockExportType,
    id: str,
    'fixed-iothread': opt(bool),
    iothread: opt(str),
    'node-name': str,
    writable: opt(bool),
    writethrough: opt(bool),
  },
  'type',
  { nbd: BlockExportOptionsNbd },
);
export const BlockExportInfo = struct('BlockExportInfo', {
  id: str,
  type: BlockExportType,
  'node-name': str,
  'shutting-down': bool,
});

export const commands = {
  'nbd-server-start': command('Starts the NBD server', {
    args: { addr: SocketAddressLegacy, 'tls-creds': opt(str), 'tls-authz': opt(str), 'max-connections': opt(uint32) },
    preconfig: true,
  }),
  'nbd-server-add': command('Exports a node by NBD', {
    args: NbdServerAddOptions,
    features: ['deprecated'],
    preconfig: true,
  }),
  'nbd-server-remove': command('Ends an NBD export', {
    args: { name: str, mode: opt(BlockExportRemoveMode) },
    features: ['deprecated'],
    preconfig: true,
  }),
  'nbd-server-stop': command('Stops the NBD server', { preconfig: true }),
  'block-export-add': command('Exports a block node', { args: BlockExportOptions, preconfig: true }),
  'block-export-del': command('Ends an export', {
    args: { id: str, mode: opt(BlockExportRemoveMode) },
    preconfig: true,
  }),
  'query-block-exports': command('The exports', { returns: array(BlockExportInfo), preconfig: true }),
};

export const events = {
  BLOCK_EXPORT_DELETED: event({ id: str }),
};
