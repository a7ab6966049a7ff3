import t from 'tap';
import { ms } from '../../core/clock/units.ts';
import type { DeviceType } from '../../core/device/device-type.ts';
import { FrameDecoder } from '../../core/net/frame-stream.ts';
import { type NetBackend, NetClient } from '../../core/net/net-client.ts';
import { Packet, PROTOCOL, Segmenter } from '../../core/net/packet.ts';
import { ToeplitzHash } from '../../core/net/rss.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { DriverPort } from '../../core/register/register.ts';
import { bench } from '../../core/testing/bench.ts';
import { SeededRandom } from '../../core/testing/stand-ins.ts';
import { e1000 } from '../../devices/e1000/e1000.ts';
import { e1000e } from '../../devices/e1000e/e1000e.ts';
import { i82559c } from '../../devices/eepro100/eepro100.ts';
import { ne2kPci } from '../../devices/ne2000/ne2000.ts';
import { pcnet } from '../../devices/pcnet/pcnet.ts';
import { rtl8139 } from '../../devices/rtl8139/rtl8139.ts';
import { tulip } from '../../devices/tulip/tulip.ts';
import { virtioNetPci } from '../../devices/virtio-net/virtio-net.ts';
import { MAGIC, QUEUE, SHARED } from '../../devices/vmxnet3/layout.ts';
import { vmxnet3 } from '../../devices/vmxnet3/vmxnet3.ts';

t.setTimeout(300_000);

const RINGS = 0x1_0000;
const RING_BYTES = 0xc000;
/** One of three virtqueues of 256. */
const QUEUE_BYTES = 0x4000;
const RAM = 1 << 20;
const OURS = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const LARGEST = 0x1_0000;
const SEEDS = 16;
/** Memory accesses that one access of the driver, or one frame, may make a card do: the largest ring has 65,528 descriptors. */
const MOST_ACCESSES = 600_000;

// What a hostile driver and a hostile network make

class Hostile {
  readonly random: SeededRandom;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  /** Pointers into the rings, beyond RAM and to the end of it; lengths up to 4 GiB; commands of all cards; anything. */
  word(): number {
    const { random } = this;
    switch (random.below(8)) {
      case 0:
        return random.word();
      case 1:
        return RINGS + 16 * random.below(RING_BYTES / 16);
      case 2:
        return random.pick([0, 1, 0xffff_ffff, 0x8000_0000, 0x7fff_ffff, RAM - 2, RAM, 0xfee0_0000, 0xe000_0000]) ?? 0;
      case 3:
        return random.below(0x1_0000);
      case 4:
        // An 8254x's commands: end of packet, checksums, segmentation, contexts, VLAN tags.
        return ((random.below(256) << 24) | (random.below(2) << 20) | random.below(0x800)) >>> 0;
      case 5:
        // Virtqueue flags and next; an RTL8139's ownership.
        return ((random.below(256) << 16) | random.below(8)) >>> 0;
      case 6:
        return (0x8000_0000 | (random.below(16) << 27) | random.below(0x2000)) >>> 0;
      default:
        return random.below(2048);
    }
  }

  /** Tags, IPv4 with options, IPv6 with extensions, TCP and UDP, all with lengths that may be wrong, cut anywhere. */
  frame(): Uint8Array {
    const { random } = this;
    const size = random.pick([0, 1, 13, 14, 15, 17, 18, 33, 34, 59, 60, 64, 1514, 1522, 9000, 16_384, LARGEST]) ?? 0;
    const bytes = new Uint8Array(random.below(3) === 0 ? random.below(LARGEST) : size);
    for (let at = 0; at < Math.min(bytes.length, 256); at++) bytes[at] = random.below(256);
    bytes.set(
      (random.pick([OURS, [255, 255, 255, 255, 255, 255], [1, 0, 0x5e, 0, 0, 1]]) ?? OURS).slice(0, bytes.length),
    );
    let at = 12;
    const put = (...values: number[]): void => {
      for (const value of values) {
        if (at < bytes.length) bytes[at] = value;
        at++;
      }
    };
    for (let tags = random.below(5); tags > 0; tags--)
      put(0x81 + random.below(2) * 7, tags % 2 === 0 ? 0 : 0x00, random.below(256), random.below(256));
    const protocol = random.pick([6, 17, 0, 43, 44, 51, 60, 1]) ?? 6;
    if (random.below(2) === 0) {
      put(0x08, 0x00, 0x40 | random.below(16), 0, random.below(256), random.below(256), 0, 0, random.below(3) * 16, 0);
      put(64, protocol);
    } else {
      put(0x86, 0xdd, 0x60, 0, 0, 0, random.below(256), random.below(256), protocol, 64);
    }
    return bytes;
  }
}

// The cards: where they are told of their rings, and what makes them go

interface Card {
  readonly type: DeviceType;
  readonly bar: number;
  /** Another window that it has. */
  readonly other?: number;
  /** Points the card at the rings. */
  start(port: DriverPort, hostile: Hostile, ram: DataView<ArrayBufferLike>, other: DriverPort): void;
  /** One thing that a driver does when it has frames, or room for some. */
  poke(port: DriverPort, hostile: Hostile, ram: DataView<ArrayBufferLike>, other: DriverPort): void;
}

const ring = (hostile: Hostile): number => RINGS + 16 * hostile.random.below(64);
const ringBytes = (hostile: Hostile): number => hostile.random.pick([0, 128, 1024, 4096, 0xf_ff80]) ?? 0;

function startIntel(port: DriverPort, hostile: Hostile): void {
  const { random } = hostile;
  for (const base of [0x2800, 0x3800]) {
    port.write(base, 4, ring(hostile));
    port.write(base + 4, 4, random.below(8) === 0 ? hostile.word() : 0);
    port.write(base + 8, 4, ringBytes(hostile));
    for (const register of [0x10, 0x18]) port.write(base + register, 4, random.below(64));
  }
  port.write(0x0, 4, 0x40 | (random.below(2) << 30));
  port.write(0x5008, 4, hostile.word() & 0xffff);
  port.write(0x100, 4, (hostile.word() | 0x8002) >>> 0);
  port.write(0x400, 4, 0x2);
}

const CARDS: readonly Card[] = [
  {
    type: e1000,
    bar: 0,
    start: startIntel,
    poke: (port, hostile) =>
      port.write(hostile.random.pick([0x2818, 0x3818, 0x3810, 0x2810]) ?? 0, 4, hostile.random.below(70)),
  },
  {
    type: e1000e,
    bar: 0,
    start: startIntel,
    poke: (port, hostile) =>
      port.write(
        (hostile.random.pick([0x2818, 0x3818, 0x3810, 0x2810]) ?? 0) + hostile.random.below(2) * 0x100,
        4,
        hostile.random.below(70),
      ),
  },
  {
    type: rtl8139,
    bar: 1,
    start: (port, hostile) => {
      port.write(0x37, 1, 0x0c);
      if (hostile.random.below(2) === 0) {
        port.write(0xe0, 2, 0x63);
        for (const register of [0xe4, 0x20]) {
          port.write(register, 4, ring(hostile));
          port.write(register + 4, 4, 0);
        }
      }
      port.write(0x30, 4, hostile.word());
      port.write(0x44, 4, (hostile.word() | 0xf) >>> 0);
    },
    poke: (port, hostile) => {
      const { random } = hostile;
      if (random.below(2) === 0) port.write(0xd9, 1, 0x40);
      const slot = 4 * random.below(4);
      port.write(0x20 + slot, 4, hostile.word());
      port.write(0x10 + slot, 4, random.below(0x2000));
      port.write(0x38, 2, random.below(0x1_0000));
    },
  },
  {
    type: i82559c,
    bar: 1,
    start: (port, hostile, ram) => {
      // Command blocks that send what follows them, linked anyhow (8255x manual, section 6.4.2.5).
      for (let at = RINGS; at < RINGS + 1024; at += 16) {
        if (hostile.random.below(4) === 0) continue;
        ram.setUint32(at, ((hostile.random.below(8) << 29) | 0x0004_0000) >>> 0, true);
        ram.setUint32(at + 4, ring(hostile), true);
        ram.setUint32(at + 8, hostile.random.below(2) === 0 ? 0xffff_ffff : hostile.word(), true);
        ram.setUint32(at + 12, hostile.random.below(0x1_0000), true);
      }
      port.write(4, 4, 0);
      port.write(2, 1, 0x60);
      port.write(2, 1, 0x06);
      port.write(4, 4, ring(hostile));
      port.write(2, 1, 0x01);
    },
    poke: (port, hostile) => {
      port.write(4, 4, hostile.random.below(4) === 0 ? hostile.word() : ring(hostile));
      port.write(2, 1, hostile.random.pick([0x10, 0x20, 0x40, 0x50, 0x70, 0x01, 0x02]) ?? 0);
    },
  },
  {
    type: pcnet,
    bar: 0,
    start: (port, hostile, ram) => {
      const { random } = hostile;
      const style = random.below(4);
      // Descriptors of 16 bytes that may be the card's; 512 of them in a ring, or as many as the block says.
      for (let at = RINGS; at < RINGS + 0x2000; at += 16) {
        ram.setUint32(at, random.below(RAM), true);
        ram.setUint32(at + 4, (random.word() | (random.below(4) === 0 ? 0 : 0x8000_0000)) >>> 0, true);
        ram.setUint32(at + 8, random.below(2) === 0 ? random.below(RAM) : hostile.word(), true);
      }
      const block = RINGS + 0x4000;
      ram.setUint32(block, random.below(2) === 0 ? 0 : random.word(), true);
      for (const [at, value] of [
        [2, random.below(0x1_0000)],
        [20, ring(hostile)],
        [24, ring(hostile)],
      ] as const)
        ram.setUint16(block + at, value & 0xffff, true);
      for (const at of [16, 20, 24]) ram.setUint32(block + at, ring(hostile), true);
      const csr = (number: number, value: number): void => {
        port.write(0x12, 2, number);
        port.write(0x10, 2, value);
      };
      csr(0, 4);
      csr(58, style);
      csr(1, block & 0xffff);
      csr(2, block >> 16);
      csr(0, 1);
      csr(0, 0x42);
    },
    poke: (port, hostile) => {
      const { random } = hostile;
      port.write(0x12, 2, random.below(4) === 0 ? random.below(128) : 0);
      port.write(0x10, 2, random.below(4) === 0 ? random.below(0x1_0000) & ~4 : 0x48);
    },
  },
  {
    type: tulip,
    bar: 1,
    start: (port, hostile, ram) => {
      const { random } = hostile;
      for (let at = RINGS; at < RINGS + 1024; at += 16) {
        if (random.below(4) === 0) continue;
        ram.setUint32(at, ((random.below(4) === 0 ? 0 : 0x8000_0000) | random.below(0x8000)) >>> 0, true);
        ram.setUint32(at + 4, ((random.below(1024) << 22) | random.below(1 << 22)) >>> 0, true);
        ram.setUint32(at + 8, random.below(RAM), true);
        ram.setUint32(at + 12, random.below(2) === 0 ? ring(hostile) : hostile.word(), true);
      }
      port.write(0, 4, hostile.random.below(32) << 2);
      port.write(0x18, 4, ring(hostile));
      port.write(0x20, 4, ring(hostile));
      port.write(0x30, 4, (hostile.word() | 0x2002) >>> 0);
    },
    poke: (port, hostile) => {
      port.write(hostile.random.pick([0x08, 0x10]) ?? 8, 4, 1);
      if (hostile.random.below(8) === 0) port.write(hostile.random.pick([0x18, 0x20]) ?? 0, 4, hostile.word());
    },
  },
  {
    type: ne2kPci,
    bar: 0,
    start: (port, hostile) => {
      for (const register of [1, 2, 3, 4, 12, 13, 14]) port.write(register, 1, hostile.random.below(256));
      port.write(0, 1, 0x22);
    },
    poke: (port, hostile) => {
      const { random } = hostile;
      port.write(0, 1, random.below(256));
      for (let count = 0; count < 8; count++) port.write(random.below(16), 1, random.below(256));
      port.write(0x10, 2, random.below(0x1_0000));
    },
  },
  {
    type: vmxnet3,
    bar: 0,
    other: 1,
    start: (_port, hostile, ram, device) => {
      const { random } = hostile;
      for (let at = RINGS; at < RINGS + 0x2000; at += 16) {
        ram.setUint32(at, random.below(4) === 0 ? hostile.word() : random.below(RAM), true);
        ram.setUint32(at + 4, random.below(16) === 0 ? hostile.word() : 0, true);
        ram.setUint32(at + 8, random.below(4) === 0 ? hostile.word() : random.word(), true);
        ram.setUint32(at + 12, random.below(2) === 0 ? hostile.word() : 0x1000, true);
      }
      const shared = RINGS + 0x8000;
      const queues = shared + 0x1000;
      const odd = (usual: number): number => (random.below(128) === 0 ? hostile.word() : usual);
      for (const [at, value] of [
        [SHARED.MAGIC, odd(MAGIC)],
        [SHARED.FEATURES, random.below(16)],
        [SHARED.QUEUES, odd(queues)],
        [SHARED.QUEUES + 4, 0],
        [SHARED.MTU, odd(1500)],
        [SHARED.RX_MODE, odd(0x1f)],
        [SHARED.RSS_LENGTH, random.below(256)],
      ] as const)
        ram.setUint32(shared + at, value, true);
      ram.setUint16(shared + SHARED.MAX_RX_FRAGMENTS, random.pick([0, 1, 2, 17, 0xffff]) ?? 0, true);
      for (const at of [SHARED.TX_QUEUES, SHARED.RX_QUEUES]) ram.setUint8(shared + at, odd(1 + random.below(8)) & 0xff);
      ram.setUint8(shared + SHARED.EVENT_VECTOR, odd(random.below(25)) & 0xff);
      for (let queue = 0; queue < 16; queue++) {
        const at = queues + queue * QUEUE.SIZE;
        for (const place of [0, 8, 16]) {
          ram.setUint32(at + QUEUE.RINGS + place, odd(RINGS + 16 * random.below(256)), true);
          ram.setUint32(at + QUEUE.RINGS + place + 4, 0, true);
        }
        for (const place of [0, 4, 8])
          ram.setUint32(at + QUEUE.RING_SIZES + place, random.pick([0, 1, 32, 512, 4096, 0xffff_ffff]) ?? 0, true);
        ram.setUint8(at + QUEUE.VECTOR, odd(random.below(25)) & 0xff);
      }
      device.write(0x20, 4, 0xcafe_0001);
      device.write(0x10, 4, shared);
      device.write(0x18, 4, 0);
      device.write(0x20, 4, 0xcafe_0000);
    },
    poke: (port, hostile, _ram, device) => {
      const { random } = hostile;
      port.write(0x600 + 8 * random.below(8), 4, random.below(64));
      port.write(random.pick([0, 0x800, 0xa00]) ?? 0, 4, random.below(2));
      if (random.below(8) === 0) device.write(0x20, 4, 0xcafe_0000 + random.below(10));
      if (random.below(8) === 0) device.write(0x20, 4, 0xf00d_0000 + random.below(10));
      device.read(0x38, 4);
    },
  },
  {
    // Its legacy registers (virtio 1.2, section 4.1.4.10). Queues that make some sense, with descriptors that may not.
    type: virtioNetPci,
    bar: 0,
    start: (port, hostile, ram) => {
      const { random } = hostile;
      port.write(18, 1, 0);
      port.write(18, 1, 3);
      port.write(4, 4, random.below(2) === 0 ? hostile.word() : port.read(0, 4));
      for (let queue = 0; queue < 3; queue++) {
        const base = RINGS + queue * QUEUE_BYTES;
        for (let descriptor = 0; descriptor < 256; descriptor++) {
          const at = base + 16 * descriptor;
          const odd = random.below(16);
          ram.setUint32(at, odd === 0 ? hostile.word() : random.below(RAM - 4096), true);
          ram.setUint32(at + 4, odd === 1 ? hostile.word() : 0, true);
          ram.setUint32(at + 8, odd === 2 ? hostile.word() : random.below(2048), true);
          const flags = (queue === 0 ? 2 : 0) | (random.below(2) * random.below(2)) | (odd === 3 ? random.below(8) : 0);
          ram.setUint32(at + 12, (flags | (random.below(odd === 4 ? 0x1_0000 : 256) << 16)) >>> 0, true);
        }
        for (let index = 0; index < 256; index++)
          ram.setUint16(base + 4100 + 2 * index, random.below(random.below(64) === 0 ? 0x1_0000 : 256), true);
        ram.setUint16(base + 4098, 0, true);
        port.write(14, 2, queue);
        port.write(8, 4, base >> 12);
      }
      port.write(18, 1, 7);
    },
    poke: (port, hostile, ram) => {
      const { random } = hostile;
      const queue = random.below(3);
      const index = RINGS + queue * QUEUE_BYTES + 4098;
      ram.setUint16(index, ram.getUint16(index, true) + random.below(random.below(16) === 0 ? 0x1_0000 : 12), true);
      port.write(16, 2, random.below(16) === 0 ? random.below(0x1_0000) : queue);
    },
  },
];

for (const { type, bar, other = bar, start, poke } of CARDS) {
  t.test(`${type.type}: hostile rings and frames`, async t => {
    let sent = 0;
    let longest = 0;
    let most = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const hostile = new Hostile(seed * 7919);
      const { random } = hostile;
      const client = new NetClient('net0', 'test', {
        canReceive: () => true,
        receive: (_frame, length) => {
          sent++;
          longest = Math.max(longest, length);
          return true;
        },
      });
      const backend: NetBackend = { id: 'net0', client, dispose() {} };
      const lab = bench({ ram: RAM, backends: { find: () => backend } });
      lab.machine.start();
      const probe = lab.pci(type, { netdev: 'net0', mac: '52:54:00:12:34:56' });
      const port = probe.port(bar);
      const second = probe.port(other);
      let accesses = 0;
      const { device } = probe;
      if (!(device instanceof PciDevice)) throw new TypeError('not a PCI function');
      device.dma.fault = () => {
        accesses++;
        return false;
      };
      const bounded = (action: () => void): void => {
        accesses = 0;
        action();
        most = Math.max(most, accesses);
      };
      const fill = (): void => {
        for (let at = RINGS; at < RINGS + RING_BYTES; at += 4) lab.ram.view.setUint32(at, hostile.word(), true);
      };
      for (let turn = 0; turn < 4; turn++) {
        fill();
        bounded(() => start(port, hostile, lab.ram.view, second));
        for (let step = 0; step < 24; step++) {
          bounded(() => poke(port, hostile, lab.ram.view, second));
          bounded(() => client.send(hostile.frame()));
          if (random.below(4) === 0) bounded(() => lab.clock.advance(ms(1)));
        }
      }
      t.ok((client.peer?.queued ?? 0) <= 4 * 24, 'no more waits than was given');
      lab.dispose();
    }
    t.ok(most < MOST_ACCESSES, `at most ${most} memory accesses at once`);
    t.ok(longest <= 0x1_1000, `no frame of more than ${longest} bytes in ${sent}`);
    t.ok(sent > 0, 'some of what it was told made sense');
  });
}

t.test(
  'a hostile frame: headers lie within it, checksums that were put are right, segments hold all of it',
  async t => {
    const hostile = new Hostile(5);
    const packet = new Packet();
    const segmenter = new Segmenter();
    const hash = new ToeplitzHash(Uint8Array.from({ length: 40 }, () => hostile.random.below(256)));
    let [transports, segments] = [0, 0];
    for (let count = 0; count < 4000; count++) {
      const frame = hostile.frame();
      packet.parse(frame, frame.length);
      const { version, l3, l3Length, l4, payload, protocol } = packet;
      if (version === 0) continue;
      hash.of(packet, frame, 'extended-addresses');
      if (l3 + l3Length > frame.length) t.fail('a datagram is longer than its frame');
      if (version === 4) {
        packet.putNetworkChecksum(frame);
        if (!packet.networkChecksumGood(frame)) t.fail('the network checksum is wrong');
      }
      if (l4 === 0) continue;
      transports++;
      if (payload > l3 + l3Length) t.fail('the data begin behind the frame');
      hash.of(packet, frame, 'extended-addresses-and-ports');
      packet.putTransportChecksum(frame);
      if (!packet.transportChecksumGood(frame)) t.fail('the transport checksum is wrong');
      if (protocol !== PROTOCOL.TCP) continue;
      let bytes = 0;
      const mss = 1 + hostile.random.below(1500);
      segmenter.segment(frame, packet, mss, (_segment, length) => {
        segments++;
        if (length > payload + mss) t.fail('a segment is too long');
        bytes += length - payload;
      });
      if (bytes !== l3 + l3Length - payload) t.fail('data are missing');
    }
    t.ok(transports > 50 && segments > 100, `${transports} transports, ${segments} segments`);
  },
);

t.test('a hostile stream: what is decoded is bounded, and a length that nobody sends ends it', async t => {
  const hostile = new Hostile(11);
  const { random } = hostile;
  for (let run = 0; run < 200; run++) {
    let bytes = 0;
    let given = 0;
    const decoder: FrameDecoder = new FrameDecoder((frame, length) => {
      if (frame.length < length) t.fail('a frame is shorter than said');
      bytes += length;
      return random.below(4) !== 0;
    });
    for (let piece = 0; piece < 20; piece++) {
      const data = Buffer.alloc(random.below(3000), 0);
      if (data.length > 4) data.writeUInt32BE(random.below(8) === 0 ? random.word() : random.below(200), 0);
      given += data.length;
      if (!decoder.push(data) || !decoder.goOn()) break;
    }
    if (bytes > given) t.fail('more came out than went in');
  }
  t.pass();
});
