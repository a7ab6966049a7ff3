import type { BlockBackend, IoResult } from '../core/block/backend.ts';
import { type BlockSizes, blockProperties, blockSizes } from '../core/block/device-properties.ts';
import { type Geometry, guessGeometry } from '../core/block/geometry.ts';
import { settleTransfers } from '../core/block/host-transfer.ts';
import { writeFlag } from '../core/block/requests.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { field, type SavedRecord, type SavedValue } from '../core/state/fields.ts';
import type { VirtqueueElement } from '../core/virtio/element.ts';
import { bit, has, QUEUE_SIZE_MAX, STATUS, VIRTIO_F, VIRTIO_ID } from '../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../core/virtio/virtio-device.ts';
import { virtioPciTypes } from '../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../core/virtio/virtqueue.ts';

/** Feature bits (virtio 1.2, section 5.2.3). */
const F = {
  SIZE_MAX: 1,
  SEG_MAX: 2,
  GEOMETRY: 4,
  RO: 5,
  BLK_SIZE: 6,
  SCSI: 7,
  FLUSH: 9,
  TOPOLOGY: 10,
  CONFIG_WCE: 11,
  MQ: 12,
  DISCARD: 13,
  WRITE_ZEROES: 14,
} as const;

/** Offsets in the configuration space (section 5.2.4). */
const CONFIG = {
  CAPACITY: 0,
  SIZE_MAX: 8,
  SEG_MAX: 12,
  CYLINDERS: 16,
  HEADS: 18,
  SECTORS: 19,
  BLK_SIZE: 20,
  PHYSICAL_BLOCK_EXP: 24,
  ALIGNMENT_OFFSET: 25,
  MIN_IO_SIZE: 26,
  OPT_IO_SIZE: 28,
  WRITEBACK: 32,
  NUM_QUEUES: 34,
  MAX_DISCARD_SECTORS: 36,
  MAX_DISCARD_SEG: 40,
  DISCARD_SECTOR_ALIGNMENT: 44,
  MAX_WRITE_ZEROES_SECTORS: 48,
  MAX_WRITE_ZEROES_SEG: 52,
  WRITE_ZEROES_MAY_UNMAP: 56,
} as const;
const SIZE_BASE = 36;
const SIZE_WITH_DISCARD = 48;
const SIZE_WITH_WRITE_ZEROES = 57;

/** Request types (section 5.2.6). BARRIER is a flag that old drivers set. */
const T = {
  IN: 0,
  OUT: 1,
  SCSI_CMD: 2,
  FLUSH: 4,
  GET_ID: 8,
  DISCARD: 11,
  WRITE_ZEROES: 13,
  BARRIER: 0x8000_0000,
} as const;
const S = { OK: 0, IOERR: 1, UNSUPP: 2 } as const;

const HEADER = 16;
const ID_BYTES = 20;
const RANGE_BYTES = 16;
const UNMAP = 1;

const SECTOR = 512;
/** Of one request, as everywhere in QEMU's block layer. */
const MAX_SECTORS = 0x3f_ffff;
const AUTO = 0xffff;

const properties = {
  ...virtioProperties,
  ...blockProperties,
  bootindex: prop.bootIndex({ default: -1 }),
  cyls: prop.u32({ default: 0 }),
  heads: prop.u32({ default: 0 }),
  secs: prop.u32({ default: 0 }),
  lcyls: prop.u32({ default: 0 }),
  lheads: prop.u32({ default: 0 }),
  lsecs: prop.u32({ default: 0 }),
  serial: prop.string(),
  'config-wce': prop.bit({ default: true }),
  scsi: prop.bit({ default: false }),
  'request-merging': prop.bit({ default: true }),
  'num-queues': prop.u16({ default: AUTO }),
  'queue-size': prop.u16({ default: 256 }),
  'seg-max-adjust': prop.bool({ default: true }),
  iothread: prop.string({ typeName: 'link<iothread>' }),
  discard: prop.bit({ default: true }),
  'report-discard-granularity': prop.bool({ default: true }),
  'write-zeroes': prop.bit({ default: true }),
  'max-discard-sectors': prop.u32({ default: MAX_SECTORS }),
  'max-write-zeroes-sectors': prop.u32({ default: MAX_SECTORS }),
  'x-enable-wce-if-config-wce': prop.bool({ default: true }),
} as const;

/** A buffer that the device holds: which queue it is of, and what it asks for. */
interface Request {
  readonly queue: Virtqueue;
  readonly element: VirtqueueElement;
  readonly type: number;
}

/** Block device (virtio 1.2, section 5.2). */
class VirtioBlk extends VirtioDevice<typeof properties> {
  readonly #header = new Uint8Array(HEADER);
  readonly #headerView = new DataView(this.#header.buffer);
  readonly #statusByte = new Uint8Array(1);
  readonly #saved = this.state(1, { held: field.list(field.u32(), QUEUE_SIZE_MAX * 64) });
  #backend: BlockBackend | undefined;
  #sizes: BlockSizes = blockSizes({
    logical_block_size: 0,
    physical_block_size: 0,
    min_io_size: 0,
    opt_io_size: 0,
    discard_granularity: 0xffff_ffff,
  });
  #geometry: Geometry = { cylinders: 0, heads: 0, sectors: 0 };
  #originalCache = true;
  /** Requests that failed and wait for the machine to go on (`werror=stop`). */
  readonly #stopped: Request[] = [];
  /** Requests that are under way, so that a snapshot has them too. */
  readonly #underWay = new Set<Request>();
  /** Grows with each reset: what was under way before is not for the driver any more. */
  #epoch = 0;

  #blk(): BlockBackend {
    if (this.#backend === undefined) throw new SouthbridgeError('ERR_BACKEND', 'drive property not set');
    return this.#backend;
  }

  protected override realize(): void {
    const { props } = this;
    const backend = props.drive;
    if (backend === undefined) throw new SouthbridgeError('ERR_BACKEND', 'drive property not set');
    if (!backend.inserted) throw new SouthbridgeError('ERR_BACKEND', 'Device needs media, but drive is empty');
    const queues = props['num-queues'] === AUTO ? 1 : props['num-queues'];
    this.#check(queues);
    this.#sizes = blockSizes(props);
    this.#backend = backend;
    this.#takeBackend(backend);
    this.#geometry = this.#chooseGeometry();
    const configSize = props['write-zeroes'] ? SIZE_WITH_WRITE_ZEROES : props.discard ? SIZE_WITH_DISCARD : SIZE_BASE;
    this.begin({ id: VIRTIO_ID.BLOCK, configSize, legacyFeatures: bit(F.SCSI) });
    for (let index = 0; index < queues; index++) this.addQueue(props['queue-size'], queue => this.#serve(queue));
    this.onUnrealize(this.services.system.onRunning(() => this.#retryStopped()));
  }

  #check(queues: number): void {
    const { props } = this;
    const size = props['queue-size'];
    const refuse = (message: string): never => {
      throw new SouthbridgeError('ERR_PROPERTY_VALUE', message);
    };
    if (queues === 0) refuse('num-queues property must be larger than 0');
    if (size <= 2) refuse(`invalid queue-size property (${size}), must be > 2`);
    if ((size & (size - 1)) !== 0 || size > QUEUE_SIZE_MAX) {
      refuse(`invalid queue-size property (${size}), must be a power of 2 (max ${QUEUE_SIZE_MAX})`);
    }
    for (const kind of ['discard', 'write-zeroes'] as const) {
      const name = `max-${kind}-sectors` as const;
      const sectors = props[name];
      if (props[kind] && (sectors === 0 || sectors > MAX_SECTORS)) {
        refuse(`invalid ${name} property (${sectors}), must be between 1 and ${MAX_SECTORS}`);
      }
    }
    if (props.scsi && has(this.transport.transportFeatures(), VIRTIO_F.VERSION_1)) {
      refuse('Please set scsi=off for virtio-blk devices in order to use virtio 1.0');
    }
  }

  #takeBackend(backend: BlockBackend): void {
    const { rerror, werror, 'share-rw': shareRw, 'write-cache': cache } = this.props;
    const path = (): string => this.path;
    const device = {
      // QEMU's clients know the disk by the path of the device behind the transport.
      get id() {
        return path();
      },
      removable: false,
      resized: () => this.configChanged(),
    };
    backend.attachDevice(device, { writable: !backend.readOnly, shareRw, resizable: true });
    this.onUnrealize(() => backend.detachDevice(device));
    if (rerror !== 'auto') backend.onReadError = rerror;
    if (werror !== 'auto') backend.onWriteError = werror;
    if (cache !== 'auto') backend.writeCache = cache === 'on';
    this.#originalCache = backend.writeCache;
    backend.enableIoStatus();
  }

  #chooseGeometry(): Geometry {
    const { cyls, heads, secs } = this.props;
    if (cyls || heads || secs) {
      const limits = [
        ['cyls', cyls, 65535],
        ['heads', heads, 255],
        ['secs', secs, 255],
      ] as const;
      for (const [name, value, max] of limits) {
        if (value < 1 || value > max) {
          throw new SouthbridgeError('ERR_PROPERTY_VALUE', `${name} must be between 1 and ${max}`);
        }
      }
      return { cylinders: cyls, heads, sectors: secs };
    }
    return guessGeometry(this.#blk().peekBootSector(), this.#blk().length).geometry;
  }

  // Features and configuration

  protected override offeredFeatures(common: bigint): bigint {
    const { props } = this;
    const wce = props['config-wce'];
    let features = common | bit(F.SEG_MAX) | bit(F.GEOMETRY) | bit(F.TOPOLOGY) | bit(F.BLK_SIZE);
    if (!has(common, VIRTIO_F.VERSION_1)) features = (features & ~bit(VIRTIO_F.ANY_LAYOUT)) | bit(F.SCSI);
    if (wce) features |= bit(F.CONFIG_WCE);
    if (props.discard) features |= bit(F.DISCARD);
    if (props['write-zeroes']) features |= bit(F.WRITE_ZEROES);
    if (this.#blk().writeCache || (wce && props['x-enable-wce-if-config-wce'])) features |= bit(F.FLUSH);
    if (this.#blk().readOnly) features |= bit(F.RO);
    if (props['num-queues'] !== AUTO && props['num-queues'] > 1) features |= bit(F.MQ);
    return features;
  }

  protected override readConfig(config: DataView): void {
    const { props } = this;
    const { cylinders, heads, sectors } = this.#geometry;
    const { logical, physical, minIo, optIo, discardGranularity } = this.#sizes;
    const { length } = this.#blk();
    const capacity = Math.floor(length / SECTOR);
    const whole = length === 0 || (length / heads / sectors) % logical === 0;
    config.setUint32(CONFIG.CAPACITY, capacity, true);
    config.setUint32(CONFIG.CAPACITY + 4, capacity / 0x1_0000_0000, true);
    config.setUint32(CONFIG.SIZE_MAX, 0, true);
    config.setUint32(CONFIG.SEG_MAX, (props['seg-max-adjust'] ? props['queue-size'] : 128) - 2, true);
    config.setUint16(CONFIG.CYLINDERS, cylinders, true);
    config.setUint8(CONFIG.HEADS, heads);
    config.setUint8(CONFIG.SECTORS, whole ? sectors : sectors & ~(logical / SECTOR - 1));
    config.setUint32(CONFIG.BLK_SIZE, logical, true);
    config.setUint8(CONFIG.PHYSICAL_BLOCK_EXP, Math.log2(physical / logical));
    config.setUint8(CONFIG.ALIGNMENT_OFFSET, 0);
    config.setUint16(CONFIG.MIN_IO_SIZE, minIo / logical, true);
    config.setUint32(CONFIG.OPT_IO_SIZE, optIo / logical, true);
    config.setUint8(CONFIG.WRITEBACK, this.#blk().writeCache ? 1 : 0);
    config.setUint8(CONFIG.WRITEBACK + 1, 0);
    config.setUint16(CONFIG.NUM_QUEUES, this.queues.length, true);
    if (config.byteLength >= SIZE_WITH_DISCARD) {
      const granularity = props['report-discard-granularity'] ? (discardGranularity ?? logical) : logical;
      config.setUint32(CONFIG.MAX_DISCARD_SECTORS, props.discard ? props['max-discard-sectors'] : 0, true);
      config.setUint32(CONFIG.MAX_DISCARD_SEG, props.discard ? 1 : 0, true);
      config.setUint32(CONFIG.DISCARD_SECTOR_ALIGNMENT, props.discard ? granularity / SECTOR : 0, true);
    }
    if (config.byteLength >= SIZE_WITH_WRITE_ZEROES) {
      config.setUint32(CONFIG.MAX_WRITE_ZEROES_SECTORS, props['max-write-zeroes-sectors'], true);
      config.setUint32(CONFIG.MAX_WRITE_ZEROES_SEG, 1, true);
      config.setUint8(CONFIG.WRITE_ZEROES_MAY_UNMAP, 1);
    }
  }

  protected override configWritten(config: DataView): void {
    this.#blk().writeCache = config.getUint8(CONFIG.WRITEBACK) !== 0;
  }

  /** A driver that cannot flush must not have a cache that needs it (section 5.2.5.2). */
  protected override statusChanging(status: number): void {
    if ((status & STATUS.DRIVER_OK) !== 0 && !this.accepted(F.CONFIG_WCE))
      this.#blk().writeCache = this.accepted(F.FLUSH);
  }

  protected override virtioReset(): void {
    this.#epoch++;
    for (const { element } of this.#underWay) element.revoke();
    if (this.#underWay.size > 0) settleTransfers();
    this.#underWay.clear();
    this.#stopped.length = 0;
    if (this.#backend !== undefined) this.#backend.writeCache = this.#originalCache;
  }

  // Requests (section 5.2.6)

  #serve(queue: Virtqueue): void {
    const backend = this.#blk();
    let completed = false;
    backend.plug();
    try {
      do {
        queue.setNotification(false);
        for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
          if (this.#start(queue, element)) completed = true;
        }
        queue.setNotification(true);
      } while (!queue.empty);
    } finally {
      backend.unplug();
    }
    if (completed) queue.notify();
  }

  /** Begins a request. True where it is finished already. */
  #start(queue: Virtqueue, element: VirtqueueElement): boolean {
    if (element.outCount < 1 || element.inCount < 1) return this.#refuse(queue, element, 'virtio-blk missing headers');
    if (element.read(this.#header) < HEADER) {
      return this.#refuse(queue, element, 'virtio-blk request outhdr too short');
    }
    const type = this.#headerView.getUint32(0, true);
    const sector = this.#headerView.getUint32(12, true) * 0x1_0000_0000 + this.#headerView.getUint32(8, true);
    switch ((type & ~(T.OUT | T.BARRIER)) >>> 0) {
      case T.IN:
        return this.#transfer(queue, element, type, sector);
      case T.FLUSH:
        return this.#await(queue, element, type, this.#blk().flush());
      case T.GET_ID:
        this.#writeId(element);
        return this.#complete(queue, element, S.OK);
      case T.DISCARD & ~T.OUT:
      case T.WRITE_ZEROES & ~T.OUT:
        return this.#range(queue, element, type);
      default:
        return this.#complete(queue, element, S.UNSUPP);
    }
  }

  #refuse(queue: Virtqueue, element: VirtqueueElement, message: string): false {
    this.broken(message);
    queue.detach(element);
    return false;
  }

  #transfer(queue: Virtqueue, element: VirtqueueElement, type: number, sector: number): boolean {
    const write = (type & T.OUT) !== 0;
    const bytes = write ? element.out.length - HEADER : element.in.length - 1;
    if (!this.#inRange(sector, bytes)) return this.#complete(queue, element, S.IOERR);
    const offset = sector * SECTOR;
    return this.#await(
      queue,
      element,
      type,
      write ? this.#blk().writev(offset, element.out, bytes, HEADER) : this.#blk().readv(offset, element.in, bytes),
    );
  }

  #inRange(sector: number, bytes: number): boolean {
    const { logical } = this.#sizes;
    const sectors = Math.floor(bytes / SECTOR);
    const total = Math.floor(this.#blk().length / SECTOR);
    if (sectors > MAX_SECTORS || bytes % logical !== 0 || sector % (logical / SECTOR) !== 0) return false;
    return sector <= total && sectors <= total - sector;
  }

  /** Discard and write zeroes, of one range each. */
  #range(queue: Virtqueue, element: VirtqueueElement, type: number): boolean {
    const zeroes = (type & ~T.BARRIER) >>> 0 === T.WRITE_ZEROES;
    const { length } = element.out;
    if ((type & T.OUT) === 0 || length - HEADER > RANGE_BYTES) return this.#complete(queue, element, S.UNSUPP);
    if (element.read(this.#header, HEADER) < RANGE_BYTES) {
      return this.#refuse(queue, element, 'virtio-blk discard/write_zeroes header too short');
    }
    const view = this.#headerView;
    const sector = view.getUint32(4, true) * 0x1_0000_0000 + view.getUint32(0, true);
    const sectors = view.getUint32(8, true);
    const flags = view.getUint32(12, true);
    const limit = this.props[zeroes ? 'max-write-zeroes-sectors' : 'max-discard-sectors'];
    if (sectors > limit || !this.#inRange(sector, sectors * SECTOR)) return this.#complete(queue, element, S.IOERR);
    if ((flags & ~UNMAP) !== 0 || (!zeroes && flags !== 0)) return this.#complete(queue, element, S.UNSUPP);
    const offset = sector * SECTOR;
    const bytes = sectors * SECTOR;
    const unmap = (flags & UNMAP) !== 0 ? writeFlag.MAY_UNMAP : 0;
    const result = zeroes ? this.#blk().writeZeroes(offset, bytes, unmap) : this.#blk().discard(offset, bytes);
    return this.#await(queue, element, type, result);
  }

  #writeId(element: VirtqueueElement): void {
    const serial = this.props.serial ?? this.#blk().legacy?.serial ?? '';
    const text = Buffer.from(`${serial}\0`, 'latin1');
    element.write(text, 0, 0, Math.min(text.length, ID_BYTES, element.in.length - 1));
  }

  /** Finishes a request when its result is there. True where that is now. */
  #await(queue: Virtqueue, element: VirtqueueElement, type: number, result: IoResult): boolean {
    if (result === 0) return this.#complete(queue, element, S.OK);
    const request: Request = { queue, element, type };
    if (typeof result === 'number') return this.#failed(request, result);
    const epoch = this.#epoch;
    this.#underWay.add(request);
    void result.then(error => {
      if (epoch !== this.#epoch) return;
      this.#underWay.delete(request);
      if (error === 0 ? this.#complete(queue, element, S.OK) : this.#failed(request, error)) queue.notify();
    });
    return false;
  }

  /** What `rerror` and `werror` say. True where the driver is told now. */
  #failed(request: Request, error: number): boolean {
    const read = (request.type & T.OUT) === 0;
    const action = this.#blk().requestFailed(read, error);
    if (action === 'stop') {
      this.#stopped.push(request);
      return false;
    }
    return this.#complete(request.queue, request.element, action === 'report' ? S.IOERR : S.OK);
  }

  #retryStopped(): void {
    if (this.#stopped.length === 0) return;
    this.#blk().resetIoStatus();
    for (const { queue, element } of this.#stopped.splice(0)) {
      if (this.#start(queue, element)) queue.notify();
    }
  }

  /** The last byte of the driver's buffer is the status. */
  #complete(queue: Virtqueue, element: VirtqueueElement, status: number): true {
    const { length } = element.in;
    this.#statusByte[0] = status;
    element.in.scatter(length - 1, this.#statusByte, 0, 1);
    queue.push(element, length);
    return true;
  }

  // What is under way is saved by its place in the rings, and begun again after a restore.

  override save(): SavedRecord {
    this.#saved.held = [...this.#underWay, ...this.#stopped].map(
      ({ queue, element }) => queue.index * 0x1_0000 + queue.keyOf(element),
    );
    return super.save();
  }

  override restore(saved: SavedValue): void {
    this.virtioReset();
    super.restore(saved);
    for (const key of this.#saved.held) {
      const queue = this.queues[key >>> 16];
      const element = queue?.retake(key & 0xffff);
      if (queue !== undefined && element !== undefined) this.#stopped.push({ queue, element, type: T.OUT });
    }
    this.#saved.held = [];
  }
}

export const virtioBlkDevice = deviceType({
  type: 'virtio-blk-device',
  summary: 'Block device (virtio)',
  bus: 'virtio-bus',
  category: 'storage',
  parents: ['virtio-device', 'device'],
  properties,
  create: VirtioBlk,
});

export const [virtioBlkPci, virtioBlkPciTransitional, virtioBlkPciNonTransitional] = virtioPciTypes({
  name: 'virtio-blk',
  summary: 'Block device (virtio, PCI)',
  category: 'storage',
  backend: virtioBlkDevice,
  virtioId: VIRTIO_ID.BLOCK,
  legacyId: 0x1001,
  class: 0x01_0000,
  properties: { class: prop.u32({ default: 0, help: 'PCI class and sub-class instead of SCSI storage' }) },
  queues: { property: 'num-queues', auto: AUTO, fixed: 0 },
  vectors: props => Number(props['num-queues']) + 1,
});
