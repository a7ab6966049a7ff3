import { MemoryDevice, type MemoryKind, refused } from '../../core/bus/memory-bus.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { copyFromRam, copyToRam } from '../../core/memory/copy.ts';
import { eachStretch, type MemoryBackend } from '../../core/memory/memory-backend.ts';
import { moduleProperties } from '../pc-dimm.ts';

/** The least that a namespace label index and its labels take (UEFI 2.8, 13.19.1). */
const MIN_LABEL_SIZE = 128 * 1024;

const properties = {
  ...moduleProperties,
  'label-size': prop.size({
    default: 0,
    help: 'bytes at the end that hold labels, which the guest does not see as memory',
  }),
  unarmed: prop.bool({ default: false, help: 'whether the guest is told that what it writes is not kept' }),
  uuid: prop.uuid({ default: '00000000-0000-0000-0000-000000000000' }),
};

/** A memory module that keeps its contents: what they are kept in is the backend's affair. */
export class Nvdimm extends MemoryDevice<typeof properties> {
  override readonly kind: MemoryKind = 'nvdimm';
  readonly backend = this.props.memdev;
  readonly node = this.props.node;
  readonly wanted = { address: Number(this.props.addr), slot: this.props.slot };
  readonly labelSize = this.props['label-size'];
  readonly unarmed = this.props.unarmed;

  /** What is in front of the labels, in whole pages. */
  override get size(): number {
    return this.backend === undefined ? 0 : this.#dataSize(this.backend);
  }

  override check(backend: MemoryBackend): void {
    const { labelSize } = this;
    if (labelSize !== 0 && labelSize < MIN_LABEL_SIZE) {
      throw new SouthbridgeError(
        'ERR_PROPERTY_RANGE',
        `Property 'nvdimm.label-size' (0x${labelSize.toString(16)}) is required at least 0x${MIN_LABEL_SIZE.toString(16)}`,
      );
    }
    if (this.#dataSize(backend) <= 0) {
      const [whole, labels, page] = [backend.size, labelSize, backend.alignment].map(size => `0x${size.toString(16)}`);
      throw refused(
        `the size of memdev ${backend.id} (${whole}) is too small to contain nvdimm label (${labels}) and aligned PMEM (${page})`,
      );
    }
    if (!this.unarmed && backend.contents().some(ram => ram.readonly))
      throw refused(`'unarmed' property must be 'on' since memdev ${backend.id} is read-only`);
  }

  /** Copies labels from `offset` on; the caller stays within {@link labelSize}. Bytes. */
  readLabels(offset: number, target: Uint8Array, at: number, length: number): void {
    this.#eachLabelPiece(offset, length, (ram, from, done, size) => copyFromRam(ram, from, target, at + done, size));
  }

  /** Writes labels; a module that the guest cannot write keeps them as they are. */
  writeLabels(offset: number, source: Uint8Array, at: number, length: number): boolean {
    if (this.backend?.contents().some(ram => ram.readonly) === true) return false;
    this.#eachLabelPiece(offset, length, (ram, from, done, size) => copyToRam(source, at + done, ram, from, size));
    return true;
  }

  #dataSize(backend: MemoryBackend): number {
    return Math.floor((backend.size - this.labelSize) / backend.alignment) * backend.alignment;
  }

  /** Labels are the backend's last bytes, which may lie in two of its stretches. */
  #eachLabelPiece(
    offset: number,
    length: number,
    copy: (bytes: Uint8Array<ArrayBufferLike>, from: number, done: number, size: number) => void,
  ): void {
    if (this.backend === undefined) return;
    eachStretch(this.backend, this.backend.size - this.labelSize + offset, length, copy);
  }
}

export const nvdimm = deviceType({
  type: 'nvdimm',
  summary: 'DIMM memory module that keeps its contents',
  bus: 'memory-device',
  category: 'storage',
  hotpluggable: true,
  parents: ['pc-dimm', 'device'],
  properties,
  create: Nvdimm,
});
