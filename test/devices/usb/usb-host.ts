import type { UsbDevice } from '../../../core/usb/device.ts';
import { PID, type Pid, UsbPacket } from '../../../core/usb/packet.ts';

const SETUP_ROOM = 4096;

/** A host that has given a device its first configuration, and talks to it without a controller. */
export class UsbHost {
  readonly device: UsbDevice;
  readonly #packet = new UsbPacket({ packetDone: () => {} });

  constructor(device: UsbDevice, configuration = 1) {
    this.device = device;
    device.resetSignal();
    this.request(0x0009, configuration);
  }

  /** A control request by its type and number in one word; `data` is what it sends. Returns what comes back, or the failure. */
  request(request: number, value = 0, index = 0, data: Uint8Array | number = 0): Buffer | string {
    const packet = this.#packet;
    const length = typeof data === 'number' ? data : data.length;
    const pid = request >> 15 === 1 ? PID.IN : PID.OUT;
    packet.prepare(pid, this.#endpoint(pid, 0), SETUP_ROOM);
    packet.whole = true;
    const setup = Buffer.alloc(8);
    setup.writeUInt16BE(request, 0);
    [value, index, length].forEach((word, at) => setup.writeUInt16LE(word, 2 + 2 * at));
    packet.setup.set(setup);
    if (typeof data !== 'number') packet.data.set(data);
    this.device.submit(packet);
    if (packet.status !== 'success') return packet.status;
    return pid === PID.IN ? Buffer.from(packet.data.subarray(0, packet.transferred)) : Buffer.alloc(0);
  }

  out(number: number, bytes: Uint8Array): string {
    this.#packet.prepare(PID.OUT, this.#endpoint(PID.OUT, number), bytes.length);
    this.#packet.data.set(bytes);
    this.device.submit(this.#packet);
    return this.#packet.status;
  }

  in(number: number, size = 64): Buffer | string {
    this.#packet.prepare(PID.IN, this.#endpoint(PID.IN, number), size);
    this.device.submit(this.#packet);
    if (this.#packet.status !== 'success') return this.#packet.status;
    return Buffer.from(this.#packet.data.subarray(0, this.#packet.transferred));
  }

  #endpoint(pid: Pid, number: number) {
    const endpoint = this.device.endpoint(pid, number);
    if (endpoint === undefined) throw new TypeError('there is no such endpoint');
    return endpoint;
  }
}
