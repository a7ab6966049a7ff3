import { command, event } from '../declare.ts';
import { array, bool, enumeration, opt, str, struct, uint64 } from '../types.ts';
import { BlockIOThrottle } from './block-jobs.ts';

export const BlockdevChangeReadOnlyMode = enumeration('BlockdevChangeReadOnlyMode', [
  'retain',
  'read-only',
  'read-write',
]);
export const PRManagerInfo = struct('PRManagerInfo', { id: str, connected: bool });

export const commands = {
  'blockdev-open-tray': command('Opens a tray', {
    args: { device: opt(str, 'deprecated'), id: opt(str), force: opt(bool) },
  }),
  'blockdev-close-tray': command('Closes a tray', { args: { device: opt(str, 'deprecated'), id: opt(str) } }),
  'blockdev-remove-medium': command('Takes a medium out', { args: { id: str } }),
  'blockdev-insert-medium': command('Puts a medium in', { args: { id: str, 'node-name': str } }),
  'blockdev-change-medium': command('Replaces a medium', {
    args: {
      device: opt(str, 'deprecated'),
      id: opt(str),
      filename: str,
      format: opt(str),
      force: opt(bool),
      'read-only-mode': opt(BlockdevChangeReadOnlyMode),
    },
  }),
  block_set_io_throttle: command('Sets I/O limits of a device', { args: BlockIOThrottle, preconfig: true }),
  'block-latency-histogram-set': command('Configures latency histograms', {
    args: {
      id: str,
      boundaries: opt(array(uint64)),
      'boundaries-read': opt(array(uint64)),
      'boundaries-write': opt(array(uint64)),
      'boundaries-flush': opt(array(uint64)),
    },
    preconfig: true,
  }),
  eject: command('Ejects a medium', { args: { device: opt(str, 'deprecated'), id: opt(str), force: opt(bool) } }),
  'query-pr-managers': command('Persistent reservation managers', { returns: array(PRManagerInfo), preconfig: true }),
};

export const events = {
  DEVICE_TRAY_MOVED: event({ device: str, id: str, 'tray-open': bool }),
};
