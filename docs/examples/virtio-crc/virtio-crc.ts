import { crc32 } from 'node:zlib';
import { deviceType, field, VirtioDevice, type Virtqueue, virtioPciType, virtioProperties } from 'southbridge';

/** No device has this id yet (virtio 1.2, section 5). */
export const VIRTIO_ID_CRC = 63;
const QUEUE_SIZE = 64;
const MAX_LENGTH = 2 ** 20;
const RESULT_SIZE = 4;
/** Configuration space: the longest message, and how many have been taken (both u32, little-endian). */
const CONFIG = { MAX_LENGTH: 0, MESSAGES: 4, SIZE: 8 } as const;

/** Takes a message in the readable part of each buffer and writes its CRC-32 (IEEE 802.3) into the writable part. */
class VirtioCrc extends VirtioDevice<typeof virtioProperties> {
  readonly #s = this.state(1, { messages: field.u32() });

  protected override realize(): void {
    this.begin({ id: VIRTIO_ID_CRC, configSize: CONFIG.SIZE });
    this.addQueue(QUEUE_SIZE, queue => this.#take(queue));
  }

  protected override readConfig(config: DataView): void {
    config.setUint32(CONFIG.MAX_LENGTH, MAX_LENGTH, true);
    config.setUint32(CONFIG.MESSAGES, this.#s.messages, true);
  }

  #take(queue: Virtqueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      const { length } = element.out;
      if (length > MAX_LENGTH || element.in.length < RESULT_SIZE) {
        this.broken(`a message of ${length} bytes with ${element.in.length} bytes for its CRC`);
        return;
      }
      const message = new Uint8Array(length);
      element.read(message);
      const result = new Uint8Array(RESULT_SIZE);
      new DataView(result.buffer).setUint32(0, crc32(message), true);
      this.#s.messages++;
      queue.push(element, element.write(result));
    }
    queue.notify();
  }
}

export const virtioCrcDevice = deviceType({
  type: 'virtio-crc-device',
  summary: 'Checksum device (virtio)',
  bus: 'virtio-bus',
  category: 'misc',
  parents: ['virtio-device', 'device'],
  properties: virtioProperties,
  create: VirtioCrc,
});

export const virtioCrcPci = virtioPciType({
  name: 'virtio-crc',
  summary: 'Checksum device (virtio, PCI)',
  category: 'misc',
  backend: virtioCrcDevice,
  virtioId: VIRTIO_ID_CRC,
  class: 0x00_ff00,
  vectors: () => 2,
});
