import type { Test } from 'tap';
import { type GuestOffloads, type NetBackend, NetClient } from '../../core/net/net-client.ts';
import { type Bench, type BenchOptions, bench } from '../../core/testing/bench.ts';
import { VirtioDriver } from '../../core/testing/virtio-driver.ts';
import type { DriverQueue } from '../../core/testing/virtio-driver-queue.ts';
import { virtioNetPci } from '../../devices/virtio-net/virtio-net.ts';

/** Feature bits by their names (virtio 1.2, section 5.1.3). */
export const FEATURE = {
  CSUM: 1n << 0n,
  GUEST_CSUM: 1n << 1n,
  CTRL_GUEST_OFFLOADS: 1n << 2n,
  GUEST_TSO4: 1n << 7n,
  GUEST_TSO6: 1n << 8n,
  GUEST_ECN: 1n << 9n,
  GUEST_UFO: 1n << 10n,
  HOST_TSO4: 1n << 11n,
  HOST_UFO: 1n << 14n,
  MRG_RXBUF: 1n << 15n,
  STATUS: 1n << 16n,
  CTRL_VQ: 1n << 17n,
  CTRL_RX: 1n << 18n,
  GUEST_ANNOUNCE: 1n << 21n,
  MQ: 1n << 22n,
  HASH_REPORT: 1n << 57n,
  RSS: 1n << 60n,
} as const;
export const ALL_FEATURES = 0xffff_ffff_ffff_ffffn & ~(1n << 34n);

const BUFFER = 2048;

/** A backend that keeps what it is told: frames by queue, header lengths, offloads, which queues are attached. */
export class TestWire implements NetBackend {
  readonly id = 'wire';
  readonly client: NetClient;
  readonly queues: readonly NetClient[];
  readonly sent: Buffer[][] = [];
  readonly headerLengths: number[] = [];
  readonly offloads: GuestOffloads[] = [];
  readonly attached: boolean[] = [];

  constructor(options: { queues?: number; headers?: boolean; ufo?: boolean } = {}) {
    const { queues = 1, headers = false, ufo = true } = options;
    this.queues = Array.from({ length: queues }, (_, index) => {
      const frames: Buffer[] = [];
      this.sent.push(frames);
      const client = new NetClient('wire', 'test', {
        canReceive: () => true,
        receive: (frame, length) => {
          frames.push(Buffer.from(frame.subarray(0, length)));
          return true;
        },
      });
      if (headers) {
        client.vnetHeaders = {
          ufo,
          use: length => this.headerLengths.push(length),
          offload: accepted => this.offloads.push(accepted),
        };
      }
      client.attachQueue = on => {
        this.attached[index] = on;
      };
      return client;
    });
    const [first] = this.queues;
    if (first === undefined) throw new RangeError('a wire has an end');
    this.client = first;
  }

  /** Gives the card a frame on a queue. Returns what {@link NetClient.send} does. */
  give(queue: number, frame: Uint8Array): boolean {
    return this.queues[queue]?.send(frame) ?? false;
  }

  dispose(): void {
    for (const client of this.queues) client.disconnect();
  }
}

/** What the driver has got: which pair, the header and the frame behind it. */
export interface Got {
  readonly pair: number;
  readonly header: Buffer;
  readonly frame: Buffer;
}

/** A driver of virtio-net: pairs of queues and the control queue. */
export class NetDriver {
  readonly lab: Bench;
  readonly driver: VirtioDriver;
  readonly wire: NetBackend;
  pairs: { readonly rx: DriverQueue; readonly tx: DriverQueue; readonly buffers: Map<number, number> }[] = [];
  control: DriverQueue | undefined;
  headerLength = 12;
  #device: { save(): unknown };

  constructor(t: Test, wire: NetBackend, props: Record<string, unknown> = {}, options: BenchOptions = {}) {
    this.wire = wire;
    const lab = bench(options);
    t.teardown(() => lab.dispose());
    lab.machine.start();
    this.lab = lab;
    const probe = lab.pci(virtioNetPci, { netdev: wire, mac: '52:54:00:12:34:56', ...props });
    this.#device = probe.device;
    this.driver = new VirtioDriver(lab, probe);
  }

  get device(): { save(): unknown } {
    return this.#device;
  }

  /** Negotiates, makes the queues of `pairs` pairs and starts; `posted` receive buffers of 2 KiB are given to each pair. */
  start(wanted: bigint, pairs = 1, posted = 16): bigint {
    const features = this.driver.negotiate(wanted);
    this.headerLength = (features & FEATURE.HASH_REPORT) !== 0n ? 20 : 12;
    const many = (features & (FEATURE.MQ | FEATURE.RSS)) !== 0n;
    const queues = many ? (this.wire.queues?.length ?? 1) : 1;
    this.pairs = Array.from({ length: Math.min(pairs, queues) }, (_, index) => ({
      rx: this.driver.queue(2 * index),
      tx: this.driver.queue(2 * index + 1),
      buffers: new Map<number, number>(),
    }));
    this.control = (features & FEATURE.CTRL_VQ) !== 0n ? this.driver.queue(2 * queues) : undefined;
    this.driver.start();
    for (let pair = 0; pair < this.pairs.length; pair++) this.post(pair, posted);
    return features;
  }

  post(pair: number, count: number, length = BUFFER): void {
    const { rx, buffers } = this.pairs[pair] ?? {};
    for (let index = 0; index < count; index++) {
      const address = this.driver.allocate(length);
      const id = rx?.add([{ address, length, writable: true }]);
      if (id !== undefined) buffers?.set(id, address);
    }
    rx?.kick();
  }

  /** The next frame on any of the pairs, put together. */
  receive(): Got | undefined {
    for (const [pair, { rx, buffers }] of this.pairs.entries()) {
      const first = rx.used();
      if (first === undefined) continue;
      const bytes = [this.#bytes(buffers.get(first.id) ?? 0, first.length)];
      const header = bytes[0]?.subarray(0, this.headerLength) ?? Buffer.alloc(0);
      for (let more = header.readUInt16LE(10); more > 1; more--) {
        const next = rx.used();
        if (next !== undefined) bytes.push(this.#bytes(buffers.get(next.id) ?? 0, next.length));
      }
      const whole = Buffer.concat(bytes);
      return { pair, header: Buffer.from(header), frame: whole.subarray(this.headerLength) };
    }
    return undefined;
  }

  #bytes(address: number, length: number): Buffer {
    return Buffer.from(this.driver.ram.bytes.slice(address, address + length));
  }

  /** Sends a frame with `header` before it, through a pair. */
  send(pair: number, frame: Uint8Array, header: Uint8Array = new Uint8Array(this.headerLength)): void {
    const address = this.driver.allocate(header.length + frame.length);
    this.driver.ram.bytes.set(header, address);
    this.driver.ram.bytes.set(frame, address + header.length);
    const queue = this.pairs[pair]?.tx;
    queue?.add([
      { address, length: header.length },
      { address: address + header.length, length: frame.length },
    ]);
    queue?.kick();
    queue?.used();
  }

  /** A command of the control queue. Returns the device's answer: 0 where it took it. */
  command(kind: number, command: number, argument: readonly number[] | Uint8Array): number | undefined {
    const { control, driver } = this;
    if (control === undefined) return undefined;
    const address = driver.allocate(2 + argument.length);
    const ack = driver.allocate(1);
    driver.ram.bytes.set([kind, command, ...argument], address);
    driver.ram.bytes[ack] = 0xff;
    control.add([
      { address, length: 2 + argument.length },
      { address: ack, length: 1, writable: true },
    ]);
    control.kick();
    control.used();
    return driver.ram.bytes[ack];
  }
}

/** An Ethernet frame with UDP or TCP over IPv4 or IPv6 in it. Addresses are bytes; checksums are left at 0. */
export function packet(options: {
  readonly source: readonly number[];
  readonly destination: readonly number[];
  readonly ports?: readonly [number, number];
  readonly protocol: 'tcp' | 'udp';
  readonly payload?: number;
}): Buffer {
  const { source, destination, ports = [0, 0], protocol, payload = 8 } = options;
  const transport = Buffer.alloc((protocol === 'tcp' ? 20 : 8) + payload);
  transport.writeUInt16BE(ports[0], 0);
  transport.writeUInt16BE(ports[1], 2);
  if (protocol === 'tcp') transport[12] = 0x50;
  else transport.writeUInt16BE(8 + payload, 4);
  const number = protocol === 'tcp' ? 6 : 17;
  const isV4 = source.length === 4;
  const network = Buffer.alloc(isV4 ? 20 : 40);
  if (isV4) {
    network[0] = 0x45;
    network.writeUInt16BE(20 + transport.length, 2);
    network.set([64, number], 8);
    network.set([...source, ...destination], 12);
  } else {
    network[0] = 0x60;
    network.writeUInt16BE(transport.length, 4);
    network.set([number, 64, ...source, ...destination], 6);
  }
  const ethernet = Buffer.from([0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, isV4 ? 8 : 0x86, isV4 ? 0 : 0xdd]);
  return Buffer.concat([ethernet, network, transport]);
}
