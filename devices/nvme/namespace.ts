import type { BlockBackend, BlockDevice } from '../../core/block/backend.ts';
import { type BlockSizes, blockProperties, blockSizes } from '../../core/block/device-properties.ts';
import type { PropValues } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';

// What to do about failed requests is the driver's business alone.
const { rerror: _rerror, werror: _werror, ...properties } = blockProperties;
export const namespaceProperties = properties;

const MIN_DISCARD_GRANULARITY = 4096;
/** Powers of two of the sizes of logical blocks that every namespace knows. */
const BLOCK_FORMATS = [9, 12];

/** Offsets in the Identify Namespace data (NVMe 1.4, figure 245). */
const ID = {
  NSZE: 0,
  NCAP: 8,
  NUSE: 16,
  NSFEAT: 24,
  NLBAF: 25,
  FLBAS: 26,
  NMIC: 30,
  DLFEAT: 33,
  NPDG: 68,
  NPDA: 70,
  EUI64: 120,
  LBAF: 128,
} as const;
/** NPWG to NOWS are there. */
const NSFEAT_OPTIMAL = 0x10;
const NMIC_SHARED = 1;
/** Deallocated blocks read as zeroes. */
const DLFEAT_ZEROES = 1;

export interface NamespaceParts {
  readonly nsid: number;
  readonly props: PropValues<typeof namespaceProperties>;
  /** 16 bytes. */
  readonly uuid?: Uint8Array | undefined;
  readonly eui64?: bigint;
  /** Several controllers may be attached to it. */
  readonly shared?: boolean;
  readonly startsDetached?: boolean;
  /** Path of the device, for the monitor. */
  readonly path: () => string;
  readonly resized: () => void;
}

/** A namespace: logical blocks on a disk (NVMe 1.4, section 6.1). */
export class Namespace {
  readonly nsid: number;
  readonly backend: BlockBackend;
  readonly uuid: Uint8Array | undefined;
  readonly eui64: bigint;
  readonly shared: boolean;
  /** No controller is attached to it before software says so. */
  readonly startsDetached: boolean;
  readonly #sizes: BlockSizes;
  readonly #device: BlockDevice;

  /** @throws SouthbridgeError ERR_BACKEND, ERR_PROPERTY_VALUE in QEMU's words; BlockError where another device has the disk */
  constructor({ nsid, props, uuid, eui64, shared, startsDetached, path, resized }: NamespaceParts) {
    const { drive, 'write-cache': cache, 'share-rw': shareRw } = props;
    if (drive === undefined) throw new SouthbridgeError('ERR_BACKEND', 'block backend not configured');
    if (!drive.inserted) throw new SouthbridgeError('ERR_BACKEND', 'Device needs media, but drive is empty');
    this.#sizes = blockSizes(props);
    this.nsid = nsid;
    this.backend = drive;
    this.uuid = uuid;
    this.eui64 = eui64 ?? 0n;
    this.shared = shared ?? false;
    this.startsDetached = startsDetached ?? false;
    this.#device = {
      get id() {
        return path();
      },
      removable: false,
      resized,
    };
    drive.attachDevice(this.#device, { writable: !drive.readOnly, shareRw });
    if (cache !== 'auto') drive.writeCache = cache === 'on';
  }

  /** Lets go of the disk. */
  close(): void {
    this.backend.detachDevice(this.#device);
  }

  /** Bytes of a logical block. */
  get blockSize(): number {
    return this.#sizes.logical;
  }

  /** Logical blocks. */
  get blocks(): number {
    return Math.floor(this.backend.length / this.blockSize);
  }

  /** Whether so many blocks from `first` are all there. */
  contains(first: number, count: number): boolean {
    return first + count <= this.blocks;
  }

  /** Fills in the Identify Namespace data, which is all zeroes. */
  identify(data: DataView): void {
    const { blocks, blockSize } = this;
    for (const at of [ID.NSZE, ID.NCAP, ID.NUSE]) data.setBigUint64(at, BigInt(blocks), true);
    data.setUint8(ID.NSFEAT, NSFEAT_OPTIMAL);
    const shift = Math.log2(blockSize);
    const formats = BLOCK_FORMATS.includes(shift) ? BLOCK_FORMATS : [...BLOCK_FORMATS, shift];
    for (const [index, size] of formats.entries()) data.setUint8(ID.LBAF + 4 * index + 2, size);
    data.setUint8(ID.NLBAF, formats.length - 1);
    data.setUint8(ID.FLBAS, formats.indexOf(shift));
    if (this.shared) data.setUint8(ID.NMIC, NMIC_SHARED);
    data.setUint8(ID.DLFEAT, DLFEAT_ZEROES);
    const granularity = this.#sizes.discardGranularity ?? Math.max(blockSize, MIN_DISCARD_GRANULARITY);
    const blocksPerDiscard = Math.max(1, Math.floor(granularity / blockSize));
    for (const at of [ID.NPDG, ID.NPDA]) data.setUint16(at, Math.min(blocksPerDiscard - 1, 0xffff), true);
    data.setBigUint64(ID.EUI64, this.eui64);
  }
}
