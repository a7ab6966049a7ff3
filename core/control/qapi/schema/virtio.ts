import { command } from '../declare.ts';
import { array, bool, int, opt, str, struct, uint8, uint16, uint32, uint64 } from '../types.ts';

export const VirtioInfo = struct('VirtioInfo', { path: str, name: str });
export const VirtioDeviceFeatures = struct('VirtioDeviceFeatures', {
  transports: array(str),
  'dev-features': opt(array(str)),
  'unknown-dev-features': opt(uint64),
});
export const VirtioDeviceStatus = struct('VirtioDeviceStatus', {
  statuses: array(str),
  'unknown-statuses': opt(uint8),
});
export const VhostDeviceProtocols = struct('VhostDeviceProtocols', {
  protocols: array(str),
  'unknown-protocols': opt(uint64),
});
export const VhostStatus = struct('VhostStatus', {
  'n-mem-sections': int,
  'n-tmp-sections': int,
  nvqs: uint32,
  'vq-index': int,
  features: VirtioDeviceFeatures,
  'acked-features': VirtioDeviceFeatures,
  'backend-features': VirtioDeviceFeatures,
  'protocol-features': VhostDeviceProtocols,
  'max-queues': uint64,
  'backend-cap': uint64,
  'log-enabled': bool,
  'log-size': uint64,
});
export const VirtioStatus = struct('VirtioStatus', {
  name: str,
  'device-id': uint16,
  'vhost-started': bool,
  'device-endian': str,
  'guest-features': VirtioDeviceFeatures,
  'host-features': VirtioDeviceFeatures,
  'backend-features': VirtioDeviceFeatures,
  'num-vqs': int,
  status: VirtioDeviceStatus,
  isr: uint8,
  'queue-sel': uint16,
  'vm-running': bool,
  broken: bool,
  disabled: bool,
  'use-started': bool,
  started: bool,
  'start-on-kick': bool,
  'disable-legacy-check': bool,
  'bus-name': str,
  'use-guest-notifier-mask': bool,
  'vhost-dev': opt(VhostStatus),
});

export const commands = {
  'x-query-virtio': command('The virtio devices', { returns: array(VirtioInfo), features: ['unstable'] }),
  'x-query-virtio-status': command('State of a virtio device', {
    args: { path: str },
    returns: VirtioStatus,
    features: ['unstable'],
  }),
};
