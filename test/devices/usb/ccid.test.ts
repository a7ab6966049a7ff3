import t, { type Test } from 'tap';
import { CcidBus } from '../../../core/bus/ccid.ts';
import { Chardev } from '../../../core/char/chardev.ts';
import { bench } from '../../../core/testing/bench.ts';
import { UsbBus } from '../../../core/usb/bus.ts';
import type { UsbDevice } from '../../../core/usb/device.ts';
import { PID, type Pid, UsbPacket } from '../../../core/usb/packet.ts';
import { usbCcid } from '../../../devices/usb/ccid/ccid.ts';
import { ccidCardPassthru } from '../../../devices/usb/ccid/passthru.ts';
import { piix3UsbUhci } from '../../../devices/usb/uhci/uhci.ts';

/** The other end of the card's character device. */
class Peer extends Chardev {
  readonly sent: Buffer[] = [];

  readonly filename = 'peer';

  override dispose(): void {}

  protected override transmit(bytes: Uint8Array): number {
    this.sent.push(Buffer.from(bytes));
    return bytes.length;
  }

  say(type: number, reader: number, contents: readonly number[] = []): void {
    const message = Buffer.alloc(12 + contents.length);
    message.writeUInt32BE(type, 0);
    message.writeUInt32BE(reader, 4);
    message.writeUInt32BE(contents.length, 8);
    message.set(contents, 12);
    this.deliver(message);
  }

  deliver(bytes: Buffer): void {
    this.push(bytes);
  }
}

/** A host that has given the reader a configuration. */
class Host {
  readonly device: UsbDevice;
  readonly #packet = new UsbPacket({ packetDone: () => {} });

  constructor(device: UsbDevice) {
    this.device = device;
    device.resetSignal();
    this.control([0x00, 0x09, 1, 0, 0, 0, 0, 0]);
  }

  control(setup: readonly number[]): string {
    this.#packet.prepare(PID.SETUP, this.#endpoint(PID.SETUP, 0), 64);
    this.#packet.whole = true;
    this.#packet.setup.set(setup);
    this.device.submit(this.#packet);
    return this.#packet.status;
  }

  #endpoint(pid: Pid, number: number) {
    const endpoint = this.device.endpoint(pid, number);
    if (endpoint === undefined) throw new TypeError('there is no such endpoint');
    return endpoint;
  }

  out(bytes: Uint8Array): string {
    const endpoint = this.#endpoint(PID.OUT, 3);
    for (let at = 0; at < bytes.length || at === 0; at += 64) {
      const piece = bytes.subarray(at, at + 64);
      this.#packet.prepare(PID.OUT, endpoint, piece.length);
      this.#packet.data.set(piece);
      this.device.submit(this.#packet);
      if (this.#packet.status !== 'success') break;
    }
    return this.#packet.status;
  }

  in(number: number): Buffer | string {
    const pieces: Buffer[] = [];
    for (;;) {
      this.#packet.prepare(PID.IN, this.#endpoint(PID.IN, number), 64);
      this.device.submit(this.#packet);
      if (this.#packet.status !== 'success') return this.#packet.status;
      pieces.push(Buffer.from(this.#packet.data.subarray(0, this.#packet.transferred)));
      if (this.#packet.transferred < 64) return Buffer.concat(pieces);
    }
  }

  /** A command and its answer. */
  command(type: number, data: readonly number[] = [], slot = 0, own = 0): Buffer {
    const message = Buffer.alloc(10 + data.length);
    message[0] = type;
    message.writeUInt32LE(data.length, 1);
    message[5] = slot;
    message[6] = 0x42;
    message[7] = own;
    message.set(data, 10);
    this.out(message);
    return this.answer();
  }

  answer(): Buffer {
    const answer = this.in(2);
    if (typeof answer === 'string') throw new Error(`no answer: ${answer}`);
    return answer;
  }
}

function reader(t: Test) {
  const peer = new Peer('card');
  const lab = bench({ backends: { find: () => peer } });
  t.teardown(() => lab.dispose());
  const uhci = lab.pci(piix3UsbUhci).device;
  const bus = uhci.buses.find(candidate => candidate instanceof UsbBus);
  const device = bus?.plug(usbCcid, {}, {}, 'ccid');
  const slot = device?.buses.find(candidate => candidate instanceof CcidBus);
  if (device === undefined || slot === undefined || bus === undefined) throw new TypeError('there is no reader');
  return { peer, bus, slot, device, host: new Host(device) };
}

t.test('a reader without a card', async t => {
  const { host } = reader(t);
  t.equal(host.in(1), 'nak', 'nothing has changed');
  t.same([...host.command(0x65)], [0x81, 0, 0, 0, 0, 0, 0x42, 0x02, 0, 0]);
  t.same([...host.command(0x62)], [0x80, 0, 0, 0, 0, 0, 0x42, 0x42, 0xfe, 0], 'ICC mute');
  t.same([...host.command(0x6f, [0, 0xa4])].slice(7, 9), [0x42, 0xfe]);
  t.same([...host.command(0x65, [], 3)].slice(7, 9), [0x42, 5], 'there is one slot');
  t.same([...host.command(0x6c)].slice(0, 10), [0x82, 5, 0, 0, 0, 0, 0x42, 2, 0, 0]);
  t.same([...host.command(0x61, [1, 2, 3, 4, 5, 6, 7], 0, 1)].slice(9), [1, 1, 2, 3, 4, 5, 6, 7], 'T=1');
  t.same([...host.command(0x6d)].slice(9, 11), [0, 0x77]);
  t.equal(host.command(0x6b, [1])[0], 0x83, 'an escape is refused with its own answer');
  t.same([...host.command(0x71)].slice(7, 9), [0x42, 0], 'not supported');
  t.equal(host.control([0x21, 0x01, 0, 0, 0, 0, 0, 0]), 'stall');
  const lying = Buffer.alloc(10);
  lying[0] = 0x65;
  lying.writeUInt32LE(500, 1);
  host.out(lying);
  t.same([...host.answer()].slice(7, 9), [0x42, 1], 'a length that is not there');
});

t.test('a card behind a character device', async t => {
  const { peer, slot, device, host } = reader(t);
  const card = slot.plug(ccidCardPassthru, {}, { chardev: 'card' });
  t.throws(() => slot.plug(ccidCardPassthru, {}, { chardev: 'card' }), /already full/);
  peer.say(1, 0xffff_ffff, [0x56, 0x43, 0x53, 0x44, 0, 0, 0, 2, 0, 0, 0, 0]);
  t.equal(peer.sent.pop()?.readUInt32BE(0), 1, 'a greeting is answered with one');
  peer.say(3, 0xffff_ffff);
  t.same([...(peer.sent.pop() ?? [])].slice(-4), [0, 0, 0, 0], 'the reader is there');
  peer.say(3, 0xffff_ffff);
  t.same([...(peer.sent.pop() ?? [])].slice(-4), [0, 0, 0, 2], 'and there is no second');
  t.equal(host.in(1), 'nak');
  peer.say(5, 0, [0x3b, 0x02, 0x14, 0x50]);
  t.same(host.in(1), Buffer.of(0x50, 3), 'a card has come');
  t.equal(host.in(1), 'nak');
  t.same([...host.command(0x65)].slice(7), [1, 0, 0], 'not powered');
  t.same([...host.command(0x62)].slice(7), [0, 0, 0, 0x3b, 0x02, 0x14, 0x50]);
  const apdu = Array.from({ length: 100 }, (_, index) => index);
  const message = Buffer.from([0x6f, 100, 0, 0, 0, 0, 7, 0, 0, 0, ...apdu]);
  host.out(message);
  t.same([...(peer.sent.pop() ?? [])].slice(12), apdu, 'the card gets the command');
  t.equal(host.in(2), 'nak');
  const saved = device.save();
  device.restore(saved);
  peer.say(7, 0, new Array(54).fill(0x90));
  const answer = host.answer();
  t.same([answer.length, answer[6], answer[7]], [64, 7, 0], 'with an empty packet at its end');
  host.out(message);
  peer.say(6, 0);
  t.same([...host.answer()].slice(7, 9), [0x42, 0xfe], 'the card went with a command');
  t.same(host.in(1), Buffer.of(0x50, 2));
  peer.deliver(Buffer.from('ffffffffffffffffffffffff', 'hex'));
  peer.say(5, 0, [0x3b]);
  t.same(host.in(1), Buffer.of(0x50, 3), 'nonsense is dropped');
  slot.unplug(card);
  t.same(host.in(1), Buffer.of(0x50, 2));
});

t.test('the reader comes and goes while the machine runs', async t => {
  const { bus, device } = reader(t);
  t.equal(bus.usedPorts.length, 1);
  bus.unplug(device);
  t.equal(bus.usedPorts.length, 0);
  t.ok(bus.plug(usbCcid, {}, {}, 'ccid'));
});
