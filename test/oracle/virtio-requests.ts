import { STATUS } from '../../core/virtio/features.ts';
import { COMMON, LAYOUT } from '../../core/virtio/pci-registers.ts';
import type { PciPlace, RegisterScript } from './register-script.ts';

const BASE = 0xe000_0000;
const ENTRIES = 64;
/** Where the driver has its queues, a stretch for each, and its buffers. */
const QUEUES = 0x1_0000;
const QUEUE_STRIDE = 0x4000;
const AVAIL = 0x1000;
const USED = 0x2000;
const OUT = 0x8_0000;
const IN = 0x9_0000;
const NEXT = 1;
const WRITE = 2;

/** The driver of a virtio PCI function in a register script: what it asks for, and what it looks at afterwards. */
export class VirtioRequests {
  readonly #script: RegisterScript;
  readonly #counts: number[] = [];

  constructor(script: RegisterScript, place: PciPlace) {
    this.#script = script;
    script.pciWrite(place, 0x20, BASE).pciWrite(place, 0x24, 0).pciWrite(place, 0x04, 6);
  }

  /** Looks at the first `words` 32-bit words of the device's configuration. */
  config(when: string, words: number): this {
    for (let at = 0; at < 4 * words; at += 4)
      this.#script.about(`${when}: configuration ${at}`).read32(BASE + LAYOUT.DEVICE + at);
    return this;
  }

  /** Accepts all that is offered but what makes rings other than the oldest ones, and starts `queues` queues. */
  start(queues: number): this {
    const s = this.#script;
    s.about('negotiation').write8(BASE + COMMON.DEVICE_STATUS, STATUS.ACKNOWLEDGE | STATUS.DRIVER);
    for (const word of [0, 1])
      s.write32(BASE + COMMON.DEVICE_FEATURE_SELECT, word)
        .read32(BASE + COMMON.DEVICE_FEATURE)
        .write32(BASE + COMMON.DRIVER_FEATURE_SELECT, word)
        .write32(BASE + COMMON.DRIVER_FEATURE, word === 0 ? 0xff_ffff : 1);
    s.write8(BASE + COMMON.DEVICE_STATUS, STATUS.ACKNOWLEDGE | STATUS.DRIVER | STATUS.FEATURES_OK);
    this.status('features accepted');
    for (let queue = 0; queue < queues; queue++) this.#startQueue(queue);
    s.write8(BASE + COMMON.DEVICE_STATUS, STATUS.ACKNOWLEDGE | STATUS.DRIVER | STATUS.FEATURES_OK | STATUS.DRIVER_OK);
    return this;
  }

  status(when: string): this {
    this.#script.about(when).read8(BASE + COMMON.DEVICE_STATUS);
    return this;
  }

  /** Gives the device `out` in one buffer, and room for `room` bytes in another; looks at what it makes of it. */
  request(what: string, queue: number, out: Uint8Array, room: number): this {
    const s = this.#script;
    const at = QUEUES + queue * QUEUE_STRIDE;
    const count = this.#counts[queue] ?? 0;
    this.#counts[queue] = count + 1;
    s.about(what);
    if (out.length > 0) s.writeBytes(OUT, out);
    if (room > 0) s.writeBytes(IN, new Uint8Array(room).fill(0xee));
    const buffers = [
      ...(out.length > 0 ? [{ address: OUT, length: out.length, flags: 0 }] : []),
      ...(room > 0 ? [{ address: IN, length: room, flags: WRITE }] : []),
    ];
    for (const [index, { address, length, flags }] of buffers.entries()) {
      const descriptor = Buffer.alloc(16);
      descriptor.writeUInt32LE(address, 0);
      descriptor.writeUInt32LE(length, 8);
      descriptor.writeUInt16LE(flags | (index < buffers.length - 1 ? NEXT : 0), 12);
      descriptor.writeUInt16LE(index + 1, 14);
      s.writeBytes(at + 16 * index, descriptor);
    }
    s.write16(at + AVAIL + 4 + 2 * (count % ENTRIES), 0).write16(at + AVAIL + 2, count + 1);
    s.write16(BASE + LAYOUT.NOTIFY + 4 * queue, queue);
    s.read16(at + USED + 2).readBytes(at + USED + 4 + 8 * (count % ENTRIES), 8);
    if (room > 0) s.readBytes(IN, room);
    return this;
  }

  #startQueue(queue: number): void {
    const s = this.#script;
    const at = QUEUES + queue * QUEUE_STRIDE;
    s.about(`queue ${queue}`)
      .write16(BASE + COMMON.QUEUE_SELECT, queue)
      .read16(BASE + COMMON.QUEUE_SIZE)
      .write16(BASE + COMMON.QUEUE_SIZE, ENTRIES);
    for (const [register, address] of [
      [COMMON.QUEUE_DESC_LOW, at],
      [COMMON.QUEUE_DRIVER_LOW, at + AVAIL],
      [COMMON.QUEUE_DEVICE_LOW, at + USED],
    ] as const)
      s.write32(BASE + register, address).write32(BASE + register + 4, 0);
    s.write16(BASE + COMMON.QUEUE_ENABLE, 1);
  }
}
