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

export const VirtQueueStatus = struct('VirtQueueStatus', {
  name: str,
  'queue-index': uint16,
  inuse: uint32,
  'vring-num': uint32,
  'vring-num-default': uint32,
  'vring-align': uint32,
  'vring-desc': uint64,
  'vring-avail': uint64,
  'vring-used': uint64,
  'last-avail-idx': opt(uint16),
  'shadow-avail-idx': opt(uint16),
  'used-idx': uint16,
  'signalled-used': uint16,
  'signalled-used-valid': bool,
});
export const VirtVhostQueueStatus = struct('VirtVhostQueueStatus', {
  name: str,
  kick: int,
  call: int,
  desc: uint64,
  avail: uint64,
  used: uint64,
  num: int,
  'desc-phys': uint64,
  'desc-size': uint32,
  'avail-phys': uint64,
  'avail-size': uint32,
  'used-phys': uint64,
  'used-size': uint32,
});
export const VirtioRingDesc = struct('VirtioRingDesc', { addr: uint64, len: uint32, flags: array(str) });
export const VirtioRingAvail = struct('VirtioRingAvail', { flags: uint16, idx: uint16, ring: uint16 });
export const VirtioRingUsed = struct('VirtioRingUsed', { flags: uint16, idx: uint16 });
export const VirtioQueueElement = struct('VirtioQueueElement', {
  name: str,
  index: uint32,
  descs: array(VirtioRingDesc),
  avail: VirtioRingAvail,
  used: VirtioRingUsed,
});

export const commands = {
  'x-query-virtio': command('The virtio devices', { returns: array(VirtioInfo), features: ['unstable'] }),
  'x-query-virtio-status': command('State of a virtio device', {
    args: { path: str },
    returns: VirtioStatus,
    features: ['unstable'],
  }),
  'x-query-virtio-queue-status': command("State of a virtio device's queue", {
    args: { path: str, queue: uint16 },
    returns: VirtQueueStatus,
    features: ['unstable'],
  }),
  'x-query-virtio-vhost-queue-status': command('State of a queue that another process serves', {
    args: { path: str, queue: uint16 },
    returns: VirtVhostQueueStatus,
    features: ['unstable'],
  }),
  'x-query-virtio-queue-element': command("A chain of descriptors in a virtio device's queue", {
    args: { path: str, queue: uint16, index: opt(uint16) },
    returns: VirtioQueueElement,
    features: ['unstable'],
  }),
};
