import { hex } from '../../hex.ts';
import type { Value } from '../../qapi/declare.ts';
import type {
  VirtioDeviceFeatures,
  VirtioInfo,
  VirtioQueueElement,
  VirtioStatus,
  VirtQueueStatus,
} from '../../qapi/schema/virtio.ts';
import type { HmpArguments } from '../arguments.ts';
import { type HmpCommand, hmp, viaQmp } from '../command.ts';

const list = (names: readonly string[]): string => (names.length === 0 ? '' : `\t${names.join(',\n\t')}\n`);
/** Names and what they stand for, side by side: `width` characters for a name and its colon. */
const table = (indent: string, width: number, rows: readonly (readonly [name: string, value: unknown])[]): string =>
  rows.map(([name, value]) => `${indent}${`${name}:`.padEnd(width)} ${String(value)}\n`).join('');
const place = (args: HmpArguments) => ({ path: args.text('path'), queue: args.integer('queue') });

function featureList(title: string, features: Value<typeof VirtioDeviceFeatures>): string {
  const unknown = features['unknown-dev-features'];
  const rest = unknown === undefined ? '' : `  unknown-features(0x${hex(unknown, 16)})\n`;
  return `  ${title} features:\n${list([...features.transports, ...(features['dev-features'] ?? [])])}${rest}`;
}

/** Virtio devices and their queues. */
export const VIRTIO_INFO: readonly HmpCommand[] = [
  hmp('virtio', '', '', 'the virtio devices', async context => {
    const devices = (await context.qmp('x-query-virtio')) as Value<typeof VirtioInfo>[];
    if (devices.length === 0) return 'No VirtIO devices\n';
    return devices.map(({ path, name }) => `${path} [${name}]\n`).join('');
  }),
  hmp('virtio-status', 'path:s', 'path', 'features and state of a virtio device', async (context, args) => {
    const path = args.text('path');
    const status = (await context.qmp('x-query-virtio-status', { path })) as Value<typeof VirtioStatus>;
    const lines = table('  ', 24, [
      ['device_name', status.name],
      ['device_id', status['device-id']],
      ['vhost_started', status['vhost-started']],
      ['bus_name', status['bus-name'] || '(null)'],
      ['broken', status.broken],
      ['disabled', status.disabled],
      ['disable_legacy_check', status['disable-legacy-check']],
      ['started', status.started],
      ['use_started', status['use-started']],
      ['start_on_kick', status['start-on-kick']],
      ['use_guest_notifier_mask', status['use-guest-notifier-mask']],
      ['vm_running', status['vm-running']],
      ['num_vqs', status['num-vqs']],
      ['queue_sel', status['queue-sel']],
      ['isr', status.isr],
      ['endianness', status['device-endian']],
    ]);
    return [
      `${path}:\n${lines}  status:\n${list(status.status.statuses)}`,
      featureList('Guest', status['guest-features']),
      featureList('Host', status['host-features']),
      featureList('Backend', status['backend-features']),
    ].join('\n');
  }),
  hmp(
    'virtio-queue-status',
    'path:s,queue:i',
    'path queue',
    "state of a virtio device's queue",
    async (context, args) => {
      const queue = (await context.qmp('x-query-virtio-queue-status', place(args))) as Value<typeof VirtQueueStatus>;
      const lines = table('  ', 21, [
        ['device_name', queue.name],
        ['queue_index', queue['queue-index']],
        ['inuse', queue.inuse],
        ['used_idx', queue['used-idx']],
        ['signalled_used', queue['signalled-used']],
        ['signalled_used_valid', queue['signalled-used-valid']],
        ['last_avail_idx', queue['last-avail-idx']],
        ['shadow_avail_idx', queue['shadow-avail-idx']],
      ]);
      const ring = table('    ', 13, [
        ['num', queue['vring-num']],
        ['num_default', queue['vring-num-default']],
        ['align', queue['vring-align']],
        ['desc', `0x${hex(queue['vring-desc'], 16)}`],
        ['avail', `0x${hex(queue['vring-avail'], 16)}`],
        ['used', `0x${hex(queue['vring-used'], 16)}`],
      ]);
      return `${args.text('path')}:\n${lines}  VRing:\n${ring}`;
    },
  ),
  hmp(
    'virtio-vhost-queue-status',
    'path:s,queue:i',
    'path queue',
    'state of a queue that another process serves',
    viaQmp('x-query-virtio-vhost-queue-status', place),
  ),
  hmp(
    'virtio-queue-element',
    'path:s,queue:i,index:i?',
    'path queue [index]',
    "a chain of descriptors in a virtio device's queue",
    async (context, args) => {
      const index = args.optionalInteger('index');
      const found = (await context.qmp('x-query-virtio-queue-element', {
        ...place(args),
        ...(index !== undefined && { index }),
      })) as Value<typeof VirtioQueueElement>;
      const descriptors = found.descs.map(({ addr, len, flags }) => {
        const shown = flags.length === 0 ? '' : ` (${flags.join(', ')})`;
        return `        addr 0x${addr.toString(16)} len ${len}${shown}`;
      });
      const { avail, used } = found;
      return [
        `${args.text('path')}:\n  device_name: ${found.name}\n  index:   ${found.index}\n  desc:\n    descs:\n`,
        `${descriptors.join(',\n')}\n`,
        `  avail:\n    flags: ${avail.flags}\n    idx:   ${avail.idx}\n    ring:  ${avail.ring}\n`,
        `  used:\n    flags: ${used.flags}\n    idx:   ${used.idx}\n`,
      ].join('');
    },
  ),
];
