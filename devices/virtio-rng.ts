import { ms } from '../core/clock/units.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { BuiltinRng, type RngBackend } from '../core/rng/rng.ts';
import { field } from '../core/state/fields.ts';
import { VIRTIO_ID } from '../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../core/virtio/virtio-device.ts';
import { virtioPciTypes } from '../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../core/virtio/virtqueue.ts';

const QUEUE_SIZE = 8;
/** What is asked of the backend at once, at most. */
const CHUNK = 4096;
const INT64_MAX = 2n ** 63n - 1n;

const properties = {
  ...virtioProperties,
  'max-bytes': prop.u64({ default: INT64_MAX, help: 'bytes per period that the guest may have' }),
  period: prop.u32({ default: 0x1_0000, help: 'milliseconds' }),
  rng: prop.backend<RngBackend>('rng', { typeName: 'link<rng-backend>', help: 'id of the source of random numbers' }),
} as const;

/** Entropy device (virtio 1.2, section 5.4): one queue of buffers to be filled with random bytes. */
class VirtioRng extends VirtioDevice<typeof properties> {
  readonly #saved = this.state(1, { quota: field.number(), limited: field.bool() }, { onReset: 'keep' });
  readonly #period = this.clock.timer('rate-limit', () => this.#renew(), { onReset: 'keep' });
  readonly #chunk = new Uint8Array(CHUNK);
  #source: RngBackend = new BuiltinRng();
  #asking = false;

  protected override realize(): void {
    const { props } = this;
    if (props.period === 0) throw refused("'period' parameter expects a positive integer");
    if (props['max-bytes'] > INT64_MAX) {
      throw refused("'max-bytes' parameter must be non-negative, and less than 2^63");
    }
    if (props.rng !== undefined) this.#source = props.rng;
    this.#saved.quota = Number(props['max-bytes']);
    this.begin({ id: VIRTIO_ID.RNG, configSize: 0 });
    this.addQueue(QUEUE_SIZE, queue => this.#fill(queue));
    this.onUnrealize(this.services.system.onRunning(() => this.#fillAll()));
  }

  #fillAll(): void {
    for (const queue of this.queues) this.#fill(queue);
  }

  /** A new period has begun. The next one begins with the next request. */
  #renew(): void {
    this.#saved.quota = Number(this.props['max-bytes']);
    this.#saved.limited = false;
    this.#fillAll();
  }

  #fill(queue: Virtqueue): void {
    if (this.#asking || !this.running || queue.empty || !this.services.system.running) return;
    if (!this.#saved.limited) {
      this.#saved.limited = true;
      this.#period.arm(ms(this.props.period));
    }
    const length = Math.min(this.#saved.quota, CHUNK);
    if (length <= 0) return;
    const element = queue.pop();
    if (element === undefined) return;
    const wanted = Math.min(length, element.in.length);
    queue.unpop(element);
    if (wanted === 0) {
      this.broken('virtio-rng buffer has no room');
      return;
    }
    this.#asking = true;
    const bytes = wanted === CHUNK ? this.#chunk : this.#chunk.subarray(0, wanted);
    this.#source.request(bytes, () => this.#deliver(queue, bytes));
  }

  #deliver(queue: Virtqueue, bytes: Uint8Array): void {
    this.#asking = false;
    if (!this.running || !this.services.system.running) return;
    const element = queue.pop();
    if (element === undefined) return;
    const written = element.write(bytes);
    this.#saved.quota -= written;
    queue.push(element, written);
    queue.notify();
    this.#fill(queue);
  }
}

function refused(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_PROPERTY_VALUE', message);
}

export const virtioRngDevice = deviceType({
  type: 'virtio-rng-device',
  summary: 'Entropy device (virtio)',
  bus: 'virtio-bus',
  category: 'misc',
  parents: ['virtio-device', 'device'],
  properties,
  create: VirtioRng,
});

export const [virtioRngPci, virtioRngPciTransitional, virtioRngPciNonTransitional] = virtioPciTypes({
  name: 'virtio-rng',
  summary: 'Entropy device (virtio, PCI)',
  category: 'misc',
  backend: virtioRngDevice,
  virtioId: VIRTIO_ID.RNG,
  legacyId: 0x1005,
  class: 0x00_ff00,
  vectors: () => 2,
});
