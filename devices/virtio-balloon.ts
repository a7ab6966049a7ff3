import { seconds } from '../core/clock/units.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { discardRam } from '../core/memory/discard.ts';
import { field } from '../core/state/fields.ts';
import type { Balloon } from '../core/virtio/balloon.ts';
import type { VirtqueueElement } from '../core/virtio/element.ts';
import { bit, VIRTIO_ID } from '../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../core/virtio/virtio-device.ts';
import { virtioPciTypes } from '../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../core/virtio/virtqueue.ts';

/** Feature bits (virtio 1.2, section 5.5.3). */
const F = { STATS_VQ: 1, DEFLATE_ON_OOM: 2, PAGE_POISON: 4, REPORTING: 5 } as const;

/** Offsets in the configuration space (section 5.5.4). */
const CONFIG = { NUM_PAGES: 0, ACTUAL: 4, FREE_PAGE_HINT_CMD_ID: 8, POISON_VAL: 12 } as const;
const CONFIG_SIZE = 16;
const CONFIG_BASE = 8;

const PAGE_SHIFT = 12;
const PAGE = 1 << PAGE_SHIFT;
const PFN_BYTES = 4;
const QUEUE_SIZE = 128;
const REPORTING_QUEUE_SIZE = 32;

/** Statistics by their tags (section 5.5.6.4). */
const STATS = [
  'stat-swap-in',
  'stat-swap-out',
  'stat-major-faults',
  'stat-minor-faults',
  'stat-free-memory',
  'stat-total-memory',
  'stat-available-memory',
  'stat-disk-caches',
  'stat-htlb-pgalloc',
  'stat-htlb-pgfail',
] as const;
const STAT_BYTES = 10;
const UNKNOWN = 0xffff_ffff_ffff_ffffn;
const NONE = -1;
const CHUNK = 1024 * PFN_BYTES;

const properties = {
  ...virtioProperties,
  'deflate-on-oom': prop.bit({ default: false }),
  'free-page-hint': prop.bit({ default: false }),
  'page-poison': prop.bit({ default: true }),
  'free-page-reporting': prop.bit({ default: false }),
  'qemu-4-0-config-size': prop.bool({ default: false }),
  iothread: prop.string({ typeName: 'link<iothread>' }),
} as const;

/** Memory balloon (virtio 1.2, section 5.5): the guest gives pages up, and takes them back. */
class VirtioBalloon extends VirtioDevice<typeof properties> implements Balloon {
  readonly #saved = this.state(
    1,
    { pages: field.u32(), actual: field.u32(), poison: field.u32(), statsKey: field.number(NONE) },
    { onReset: 'keep' },
  );
  readonly #chunk = new Uint8Array(CHUNK);
  readonly #view = new DataView(this.#chunk.buffer);
  readonly #stats: bigint[] = STATS.map(() => UNKNOWN);
  readonly #poll = this.clock.timer('statistics', () => this.#askForStatistics(), { onReset: 'keep' });
  /** The driver's buffer for statistics; giving it back asks for new ones. */
  #statsElement: VirtqueueElement | undefined;
  #statsQueue: Virtqueue | undefined;
  #interval = 0;
  #updated = 0;

  protected override realize(): void {
    const { props } = this;
    if (props['free-page-hint']) {
      throw new SouthbridgeError(
        'ERR_UNSUPPORTED',
        "'free-page-hint' requires 'iothread' to be set",
        'the hints only speed up a migration that goes on while the guest runs; leave the property off',
      );
    }
    const whole = props['page-poison'] || props['qemu-4-0-config-size'];
    this.begin({ id: VIRTIO_ID.BALLOON, configSize: whole ? CONFIG_SIZE : CONFIG_BASE });
    this.addQueue(QUEUE_SIZE, queue => this.#inflate(queue));
    this.addQueue(QUEUE_SIZE, queue => this.#drain(queue));
    this.#statsQueue = this.addQueue(QUEUE_SIZE, queue => this.#takeStatistics(queue));
    if (props['free-page-reporting']) this.addQueue(REPORTING_QUEUE_SIZE, queue => this.#report(queue));
    this.#defineStatistics();
  }

  // Configuration

  protected override offeredFeatures(common: bigint): bigint {
    const { props } = this;
    return (
      common |
      bit(F.STATS_VQ) |
      (props['deflate-on-oom'] ? bit(F.DEFLATE_ON_OOM) : 0n) |
      (props['page-poison'] ? bit(F.PAGE_POISON) : 0n) |
      (props['free-page-reporting'] ? bit(F.REPORTING) : 0n)
    );
  }

  protected override readConfig(config: DataView): void {
    config.setUint32(CONFIG.NUM_PAGES, this.#saved.pages, true);
    config.setUint32(CONFIG.ACTUAL, this.#saved.actual, true);
    if (config.byteLength <= CONFIG_BASE) return;
    config.setUint32(CONFIG.FREE_PAGE_HINT_CMD_ID, 0, true);
    config.setUint32(CONFIG.POISON_VAL, this.#saved.poison, true);
  }

  protected override configWritten(config: DataView): void {
    const saved = this.#saved;
    const before = saved.actual;
    saved.actual = config.getUint32(CONFIG.ACTUAL, true);
    if (saved.actual !== before) this.services.system.emit('BALLOON_CHANGE', { actual: this.balloonBytes });
    saved.poison = this.accepted(F.PAGE_POISON) ? config.getUint32(CONFIG.POISON_VAL, true) : 0;
  }

  protected override virtioReset(): void {
    if (this.#statsElement !== undefined) this.#statsQueue?.detach(this.#statsElement);
    this.#statsElement = undefined;
    this.#saved.statsKey = NONE;
    this.#saved.poison = 0;
  }

  get balloonBytes(): number {
    return this.services.currentRamSize() - this.#saved.actual * PAGE;
  }

  balloonTo(bytes: number): void {
    const ramSize = this.services.currentRamSize();
    const target = Math.min(bytes, ramSize);
    if (target <= 0) return;
    this.#saved.pages = Math.floor((ramSize - target) / PAGE);
    this.configChanged();
  }

  // Pages (section 5.5.6)

  #inflate(queue: Virtqueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      for (let from = 0; from < element.out.length; from += CHUNK) {
        const length = element.read(this.#chunk, from);
        for (let at = 0; at + PFN_BYTES <= length; at += PFN_BYTES) this.#discard(this.#view.getUint32(at, true));
      }
      queue.push(element, 0);
    }
    queue.notify();
  }

  #discard(page: number): void {
    const ram = this.dma.ramAt(page * PAGE, PAGE, true);
    if (ram === undefined || this.dma.ramLength < PAGE) return;
    discardRam(ram, this.dma.ramOffset, PAGE);
    this.dma.written(page * PAGE, PAGE);
  }

  /** Pages that the guest takes back need nothing done; they are there as soon as it touches them. */
  #drain(queue: Virtqueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) queue.push(element, 0);
    queue.notify();
  }

  /** Free pages that the guest does not need for now (section 5.5.6.7); they come back as zeroes, which a poison forbids. */
  #report(queue: Virtqueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      if (this.#saved.poison === 0) {
        element.in.forEach(0, element.in.length, (base, start, length) => {
          if (start % PAGE === 0 && length % PAGE === 0) base.fill(0, start, start + length);
        });
      }
      queue.push(element, 0);
    }
    queue.notify();
  }

  // Statistics (section 5.5.6.3)

  #takeStatistics(queue: Virtqueue): void {
    const element = queue.pop();
    if (element !== undefined) {
      // A driver that gives a second buffer has forgotten the first.
      if (this.#statsElement !== undefined) queue.push(this.#statsElement, 0);
      this.#statsElement = element;
      this.#saved.statsKey = queue.keyOf(element);
      this.#stats.fill(UNKNOWN);
      const length = element.read(this.#chunk);
      for (let at = 0; at + STAT_BYTES <= length; at += STAT_BYTES) {
        const tag = this.#view.getUint16(at, true);
        if (tag < STATS.length) this.#stats[tag] = this.#view.getBigUint64(at + 2, true);
      }
      this.#updated = Math.floor(this.hostClock.now() / seconds(1));
    }
    if (this.#interval > 0) this.#poll.arm(seconds(this.#interval));
  }

  #askForStatistics(): void {
    const queue = this.#statsQueue;
    if (this.#statsElement === undefined && this.#saved.statsKey !== NONE) {
      this.#statsElement = queue?.retake(this.#saved.statsKey);
    }
    if (queue === undefined || this.#statsElement === undefined || !this.accepted(F.STATS_VQ)) {
      if (this.#interval > 0) this.#poll.arm(seconds(this.#interval));
      return;
    }
    queue.push(this.#statsElement, 0);
    this.#statsElement = undefined;
    this.#saved.statsKey = NONE;
    queue.notify();
  }

  #defineStatistics(): void {
    this.defineProperty({
      name: 'guest-stats',
      type: 'guest statistics',
      get: () => ({
        'last-update': this.#updated,
        stats: Object.fromEntries(STATS.map((name, tag) => [name, this.#stats[tag] ?? UNKNOWN])),
      }),
    });
    this.defineProperty({
      name: 'guest-stats-polling-interval',
      type: 'int',
      get: () => this.#interval,
      set: value => this.#setInterval(Number(value)),
    });
  }

  #setInterval(interval: number): void {
    if (!(interval >= 0)) throw new SouthbridgeError('ERR_PROPERTY_VALUE', 'timer value must be greater than zero');
    if (interval > 0xffff_ffff) throw new SouthbridgeError('ERR_PROPERTY_VALUE', 'timer value is too big');
    if (interval === this.#interval) return;
    const first = this.#interval === 0;
    this.#interval = interval;
    if (interval === 0) this.#poll.cancel();
    else this.#poll.arm(first ? 0 : seconds(interval));
  }
}

export const virtioBalloonDevice = deviceType({
  type: 'virtio-balloon-device',
  summary: 'Memory balloon (virtio)',
  bus: 'virtio-bus',
  category: 'misc',
  parents: ['virtio-device', 'device'],
  properties,
  create: VirtioBalloon,
});

export const [virtioBalloonPci, virtioBalloonPciTransitional, virtioBalloonPciNonTransitional] = virtioPciTypes({
  name: 'virtio-balloon',
  summary: 'Memory balloon (virtio, PCI)',
  category: 'misc',
  backend: virtioBalloonDevice,
  virtioId: VIRTIO_ID.BALLOON,
  legacyId: 0x1002,
  class: 0x00_ff00,
  properties: {
    vectors: prop.u32({ default: 0, listed: 'no' }),
    ioeventfd: prop.bit({ default: true, listed: 'no' }),
  },
  vectors: () => 0,
});
