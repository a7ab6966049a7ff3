import { VIRTIO_F } from '../../virtio/features.ts';
import { featureNames, statusNames, virtioName } from '../../virtio/names.ts';
import { DESC, DESCRIPTOR_SIZE } from '../../virtio/ring.ts';
import { Descriptor } from '../../virtio/ring-memory.ts';
import { VirtioDevice } from '../../virtio/virtio-device.ts';
import type { Virtqueue } from '../../virtio/virtqueue.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

/** The alignment of a legacy driver's ring (virtio 1.2, section 2.7.2), which all transports here begin with. */
const RING_ALIGN = 4096;
/** Both rings begin with their flags and their index (section 2.7.6). */
const FLAGS = 0;
const INDEX = 2;
const ENTRIES = 4;

const DESCRIPTOR_FLAGS = [
  [DESC.NEXT, 'next'],
  [DESC.WRITE, 'write'],
  [DESC.INDIRECT, 'indirect'],
] as const;

const features = (id: number, bits: bigint) => {
  const { common, own, unknown } = featureNames(id, bits);
  return { transports: common, 'dev-features': own, ...(unknown !== 0n && { 'unknown-dev-features': unknown }) };
};

/** What virtio devices and their queues are up to, for people who write drivers. */
export function virtioCommands(program: Program): Handlers<QmpSession> {
  const devices = (): VirtioDevice[] =>
    [...program.machine.devices()].filter(device => device instanceof VirtioDevice).reverse();
  const find = (path: string): VirtioDevice => {
    const device = devices().find(candidate => candidate.path === path);
    if (device === undefined) throw new QmpError(`Path ${path} is not a VirtIODevice`);
    return device;
  };
  const findQueue = (path: string, index: number): [VirtioDevice, Virtqueue] => {
    const device = find(path);
    const queue = device.queue(index);
    if (queue === undefined || queue.size === 0) throw new QmpError(`Invalid virtqueue number ${index}`);
    return [device, queue];
  };
  return {
    'x-query-virtio': () => devices().map(device => ({ path: device.path, name: virtioName(device.kind.id) })),
    'x-query-virtio-status': ({ path }) => {
      const device = find(path);
      const { id } = device.kind;
      const { names, unknown } = statusNames(device.status);
      const running = program.runState === 'running';
      return {
        name: virtioName(id),
        'device-id': id,
        'vhost-started': false,
        'device-endian': 'little',
        'guest-features': features(id, device.guestFeatures),
        'host-features': features(id, device.hostFeatures),
        'backend-features': features(id, 0n),
        'num-vqs': device.queues.filter(queue => queue.size !== 0).length,
        status: { statuses: names, ...(unknown !== 0 && { 'unknown-statuses': unknown }) },
        isr: device.isr,
        'queue-sel': device.queueSelect,
        'vm-running': running && device.running,
        broken: device.isBroken,
        disabled: device.disabled && !device.isBroken,
        'use-started': device.property('use-started')?.get() === true,
        started: device.running,
        'start-on-kick': false,
        'disable-legacy-check': device.property('x-disable-legacy-check')?.get() === true,
        'bus-name': '',
        'use-guest-notifier-mask': true,
      };
    },
    'x-query-virtio-queue-status': ({ path, queue: index }) => {
      const [device, queue] = findQueue(path, index);
      return {
        name: virtioName(device.kind.id),
        'queue-index': index,
        inuse: queue.inUse,
        'vring-num': queue.size,
        'vring-num-default': queue.defaultSize,
        'vring-align': RING_ALIGN,
        'vring-desc': queue.desc.address,
        'vring-avail': queue.avail.address,
        'vring-used': queue.used.address,
        'last-avail-idx': queue.lastAvail,
        'shadow-avail-idx': queue.seenAvail,
        'used-idx': queue.usedIndex,
        'signalled-used': queue.signalledUsed,
        'signalled-used-valid': queue.signalledValid,
      };
    },
    'x-query-virtio-vhost-queue-status': ({ path, queue: index }) => {
      findQueue(path, index);
      throw new QmpError('Error: vhost device has not started yet');
    },
    'x-query-virtio-queue-element': ({ path, queue: number, index }) => {
      const [device, queue] = findQueue(path, number);
      if (device.accepted(VIRTIO_F.RING_PACKED)) throw new QmpError('Packed ring not supported');
      if (!queue.ready) throw new QmpError('Region caches not initialized');
      const { avail, used } = queue;
      const position = (index ?? queue.lastAvail) % queue.size;
      const head = avail.get16(ENTRIES + position * 2);
      return {
        name: virtioName(device.kind.id),
        index: head,
        descs: chain(device, queue, head),
        avail: { flags: avail.get16(FLAGS), idx: avail.get16(INDEX), ring: head },
        used: { flags: used.get16(FLAGS), idx: used.get16(INDEX) },
      };
    },
  };
}

interface RingDescriptor {
  readonly addr: number;
  readonly len: number;
  readonly flags: string[];
}

/** The descriptors of a chain, in an indirect table or not; one that goes round is left where the table ends. */
function chain(device: VirtioDevice, queue: Virtqueue, head: number): RingDescriptor[] {
  const descriptor = new Descriptor(device.dma);
  let table = queue.desc.address;
  let entries = queue.size;
  if (head >= entries) return [];
  descriptor.load(table + head * DESCRIPTOR_SIZE, false);
  if ((descriptor.flags & DESC.INDIRECT) !== 0) {
    table = descriptor.address;
    entries = Math.min(Math.floor(descriptor.length / DESCRIPTOR_SIZE), 0x1_0000);
    if (entries === 0) return [];
    descriptor.load(table, false);
  }
  const found: RingDescriptor[] = [];
  for (;;) {
    const { address, length, flags, next } = descriptor;
    found.push({
      addr: address,
      len: length,
      flags: DESCRIPTOR_FLAGS.filter(([flag]) => (flags & flag) !== 0).map(([, name]) => name),
    });
    if ((flags & DESC.NEXT) === 0 || next >= entries || found.length >= entries) return found;
    descriptor.load(table + next * DESCRIPTOR_SIZE, false);
  }
}
