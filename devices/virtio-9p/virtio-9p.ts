import { ms } from '../../core/clock/units.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { ERRNO } from '../../core/fsdev/errno.ts';
import type { FileTree } from '../../core/fsdev/file-tree.ts';
import { field, type SavedRecord } from '../../core/state/fields.ts';
import type { VirtqueueElement } from '../../core/virtio/element.ts';
import { bit, VIRTIO_ID } from '../../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../../core/virtio/virtio-device.ts';
import { virtioPciTypes } from '../../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';
import { fidFields } from './fid.ts';
import { Reply, Request } from './message.ts';
import { HEADER_SIZE, MSIZE_MIN, T } from './protocol.ts';
import { serve } from './server.ts';
import { FIDS_MAX, Session } from './session.ts';

const QUEUE_SIZE = 128;
/** Feature bit (Linux, virtio_9p.h; virtio 1.2 reserves the device's number only). */
const F = { MOUNT_TAG: 0 } as const;
const TAG_MAX = 31;
const TAG_AT = 2;
/** What has to wait is tried again after this long. */
const PATIENCE = ms(100);

const properties = {
  ...virtioProperties,
  mount_tag: prop.string({ help: 'what the guest mounts it by' }),
  fsdev: prop.backend<FileTree>('fsdev', { help: 'id of the -fsdev that is served' }),
} as const;

/** A request that waits for the host, or for the client to give it up. */
interface Waiting {
  readonly element: VirtqueueElement;
  readonly tag: number;
}

/** A server of files over virtio (9P2000.L): a folder of the host for the guest to mount. */
class Virtio9p extends VirtioDevice<typeof properties> {
  readonly #saved = this.state(
    1,
    {
      msize: field.u32(MSIZE_MIN),
      fids: field.list(field.record(fidFields), FIDS_MAX),
      waiting: field.list(field.number(), QUEUE_SIZE),
    },
    { onReset: 'keep' },
  );
  readonly #retry = this.realtimeClock.timer('retry', () => this.#tryAgain(), { onReset: 'keep' });
  readonly #trace = this.log.event('request');
  readonly #request = new Request();
  readonly #reply = new Reply();
  readonly #waiting: Waiting[] = [];
  #session: Session | undefined;
  #tag: Buffer = Buffer.alloc(0);

  protected override realize(): void {
    const { fsdev, mount_tag: tag } = this.props;
    if (fsdev === undefined) throw refused("9pfs device couldn't find fsdev with the id = NULL");
    if (tag === undefined) throw refused(`fsdev with id ${fsdev.id} needs mount_tag arguments`);
    this.#tag = Buffer.from(tag);
    if (this.#tag.length > TAG_MAX) {
      throw refused(`mount tag '${tag}' (${this.#tag.length} bytes) is longer than maximum (${TAG_MAX} bytes)`);
    }
    fsdev.start();
    this.onUnrealize(() => {
      this.#session?.reset();
      fsdev.stop();
    });
    const session = new Session(fsdev, message => this.log.guestError(message));
    this.#session = session;
    if (session.start() < 0) throw refused(`cannot initialize fsdev '${fsdev.id}': its folder cannot be looked at`);
    this.begin({ id: VIRTIO_ID.NINE_P, configSize: TAG_AT + this.#tag.length });
    this.addQueue(QUEUE_SIZE, queue => this.#serveAll(queue));
  }

  protected override offeredFeatures(common: bigint): bigint {
    return common | bit(F.MOUNT_TAG);
  }

  protected override readConfig(config: DataView): void {
    config.setUint16(0, this.#tag.length, true);
    for (const [index, byte] of this.#tag.entries()) config.setUint8(TAG_AT + index, byte);
  }

  protected override virtioReset(): void {
    this.#giveUpAll();
    this.#session?.reset();
  }

  protected override queueReset(): void {
    this.#giveUpAll();
  }

  #serveAll(queue: Virtqueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      if (!this.#serve(queue, element)) return;
    }
    queue.notify();
  }

  /** Returns false where the guest has broken the rules, and nothing else is served. */
  #serve(queue: Virtqueue, element: VirtqueueElement): boolean {
    const session = this.#session;
    const request = this.#request;
    const reply = this.#reply;
    if (session === undefined) return false;
    if (element.in.length < HEADER_SIZE) return this.#refuse(queue, element, 'no space for the reply');
    request.load(element.out);
    if (request.malformed) return this.#refuse(queue, element, 'no whole header');
    reply.begin();
    let outcome = 0;
    if (request.type === T.FLUSH) this.#flush(queue, request.u16());
    else outcome = serve(session, { request, reply, message: element.out, answer: element.in });
    if (request.malformed) return this.#refuse(queue, element, `type ${request.type} ends too early`);
    if (outcome === -ERRNO.EINTR) {
      this.#waiting.push({ element, tag: request.tag });
      if (!this.#retry.pending) this.#retry.arm(PATIENCE);
      return true;
    }
    if (this.#trace.enabled) this.#trace.emit(`type ${request.type} tag ${request.tag}: ${outcome}`);
    const length = reply.finish(request, Math.max(0, -outcome), element.in);
    if (length === 0) return this.#refuse(queue, element, `no space for the reply to type ${request.type}`);
    queue.push(element, length);
    return true;
  }

  /** Tflush: what waits is answered with nothing, and only then the flush itself. */
  #flush(queue: Virtqueue, tag: number): void {
    const index = this.#waiting.findIndex(waiting => waiting.tag === tag);
    const [cancelled] = index < 0 ? [] : this.#waiting.splice(index, 1);
    if (cancelled !== undefined) queue.push(cancelled.element, 0);
  }

  #tryAgain(): void {
    const queue = this.queues[0];
    if (queue === undefined || this.disabled) return;
    for (const { element } of this.#waiting.splice(0)) this.#serve(queue, element);
    queue.notify();
  }

  #giveUpAll(): void {
    this.#retry.cancel();
    for (const { element } of this.#waiting.splice(0)) this.queues[0]?.detach(element);
  }

  #refuse(queue: Virtqueue, element: VirtqueueElement, why: string): false {
    queue.detach(element);
    this.broken(`The guest sent a malformed VirtFS request: ${why}`);
    return false;
  }

  override save(): SavedRecord {
    const queue = this.queues[0];
    this.#saved.msize = this.#session?.msize ?? MSIZE_MIN;
    this.#saved.fids = [...(this.#session?.save() ?? [])];
    this.#saved.waiting = queue === undefined ? [] : this.#waiting.map(({ element }) => queue.keyOf(element));
    const saved = super.save();
    this.#saved.fids = [];
    return saved;
  }

  protected override restored(): void {
    const queue = this.queues[0];
    const session = this.#session;
    if (session === undefined || queue === undefined) return;
    session.msize = Math.max(MSIZE_MIN, this.#saved.msize);
    session.restore(this.#saved.fids);
    this.#saved.fids = [];
    this.#waiting.length = 0;
    for (const key of this.#saved.waiting) {
      const element = queue.retake(key);
      if (element === undefined) continue;
      this.#request.load(element.out);
      this.#waiting.push({ element, tag: this.#request.malformed ? 0 : this.#request.tag });
    }
  }
}

function refused(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_PROPERTY_VALUE', message, '-fsdev local,id=ID,path=...,security_model=...');
}

export const virtio9pDevice = deviceType({
  type: 'virtio-9p-device',
  summary: 'Shared folder (virtio, 9P)',
  bus: 'virtio-bus',
  category: 'storage',
  parents: ['virtio-device', 'device'],
  properties,
  create: Virtio9p,
});

export const [virtio9pPci, virtio9pPciTransitional, virtio9pPciNonTransitional] = virtioPciTypes({
  name: 'virtio-9p',
  summary: 'Shared folder (virtio, 9P, PCI)',
  category: 'storage',
  backend: virtio9pDevice,
  virtioId: VIRTIO_ID.NINE_P,
  legacyId: 0x1009,
  class: 0x00_0200,
  vectors: () => 2,
});
