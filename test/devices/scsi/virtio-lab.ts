import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { blockGraph } from '../../../core/block/block.ts';
import { Drives } from '../../../core/block/drives.ts';
import type { DeviceType } from '../../../core/device/device-type.ts';
import { ScsiBus } from '../../../core/scsi/scsi-bus.ts';
import { ScsiDevice } from '../../../core/scsi/scsi-device.ts';
import { type Bench, bench } from '../../../core/testing/bench.ts';
import { VirtioDriver } from '../../../core/testing/virtio-driver.ts';
import type { DriverQueue } from '../../../core/testing/virtio-driver-queue.ts';
import { VirtioPci } from '../../../core/virtio/virtio-pci.ts';
import { virtioScsiPci } from '../../../devices/virtio-scsi/virtio-scsi.ts';

const ALL_FEATURES = (1n << 34n) - 1n;
const UNANSWERED = 0xff;
const QUEUE_MEMORY = 0x10_0000;

export interface Answer {
  readonly response: number;
  readonly status: number;
  readonly residual: number;
  readonly sense: Uint8Array;
  /** Sense key, additional sense code, qualifier; empty without sense data. */
  readonly why: string;
  readonly data: Uint8Array;
}

export interface CommandOptions {
  readonly target?: number;
  readonly lun?: number;
  /** Bytes of the command's data: to be had, or to be given. */
  readonly in?: number;
  readonly out?: Uint8Array;
  readonly tag?: number;
}

export type Drive = readonly (readonly [string, string])[];

/** A virtio-scsi adapter on the bench, its driver, and drives for what is plugged into it. */
export class VirtioScsiLab {
  readonly bench: Bench;
  readonly driver: VirtioDriver;
  readonly bus: ScsiBus;
  readonly drives: Drives;
  readonly folder: string;
  readonly #adapter: VirtioPci;
  readonly #features: bigint;
  #queues: readonly [DriverQueue, DriverQueue, DriverQueue];
  #memory = 0;

  private constructor(t: Test, drives: Drives, folder: string, props: Readonly<Record<string, string>>) {
    this.drives = drives;
    this.folder = folder;
    this.bench = bench({ backends: { find: (_kind, id) => drives.graph.backend(id) } });
    t.teardown(() => this.bench.dispose());
    this.bench.machine.start();
    const probe = this.bench.pci(virtioScsiPci, props);
    if (!(probe.device instanceof VirtioPci)) throw new TypeError('not a virtio function');
    this.#adapter = probe.device;
    const bus = [...this.bench.machine.buses()].find(candidate => candidate instanceof ScsiBus);
    if (!(bus instanceof ScsiBus)) throw new TypeError('the adapter has no bus');
    this.bus = bus;
    this.driver = new VirtioDriver(this.bench, probe);
    this.#features = (ALL_FEATURES & ~(1n << 33n)) | (props['packed'] === 'on' ? 1n << 34n : 0n);
    this.#queues = this.#begin();
  }

  #begin(): readonly [DriverQueue, DriverQueue, DriverQueue] {
    const { driver } = this;
    driver.negotiate(this.#features);
    const queues = [driver.queue(0), driver.queue(1), driver.queue(2)] as const;
    driver.start();
    this.#memory = driver.allocate(0);
    return queues;
  }

  get control(): DriverQueue {
    return this.#queues[0];
  }

  get events(): DriverQueue {
    return this.#queues[1];
  }

  get requests(): DriverQueue {
    return this.#queues[2];
  }

  /** The driver begins again. */
  restart(): void {
    this.driver.rewind(QUEUE_MEMORY);
    this.#queues = this.#begin();
  }

  /** The driver uses its memory for buffers again. */
  rewind(): void {
    this.driver.rewind(this.#memory);
  }

  static async create(t: Test, props: Readonly<Record<string, string>> = {}): Promise<VirtioScsiLab> {
    const folder = mkdtempSync(join(tmpdir(), 'southbridge-scsi-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    return new VirtioScsiLab(t, new Drives(blockGraph()), folder, props);
  }

  get adapter(): VirtioPci {
    return this.#adapter;
  }

  /** A drive with an image of `bytes`. */
  async image(id: string, bytes: Uint8Array, more: Drive = []): Promise<() => Buffer> {
    const file = join(this.folder, `${id}.img`);
    writeFileSync(file, bytes);
    await this.drive(id, [['file', file], ['format', 'raw'], ...more]);
    return () => readFileSync(file);
  }

  async drive(id: string, options: Drive): Promise<void> {
    await this.drives.add([['id', id], ['if', 'none'], ...options], { interface: 'none' });
  }

  plug(type: DeviceType, props: Readonly<Record<string, string>>, id?: string): ScsiDevice {
    const device = this.bus.plug(type, {}, props, id);
    if (!(device instanceof ScsiDevice)) throw new TypeError('not a SCSI device');
    return device;
  }

  /** Gives a command to the device; the answer comes when it has ended. */
  start(cdb: readonly number[], options: CommandOptions = {}): () => Answer | undefined {
    const { driver } = this;
    const { target = 0, lun = 0, in: wanted = 0, out, tag = 1 } = options;
    const header = driver.allocate(51);
    const result = driver.allocate(108);
    const length = out?.length ?? wanted;
    const data = driver.allocate(Math.max(1, length));
    const { bytes, view } = driver.ram;
    bytes.set([1, target, lun >>> 8 === 0 ? 0 : 0x40 | (lun >>> 8), lun & 0xff], header);
    view.setUint32(header + 8, tag, true);
    bytes.set(cdb, header + 19);
    bytes[result + 11] = UNANSWERED;
    if (out !== undefined) bytes.set(out, data);
    this.requests.add([
      { address: header, length: 51 },
      ...(out !== undefined ? [{ address: data, length }] : []),
      { address: result, length: 108, writable: true },
      ...(wanted > 0 ? [{ address: data, length, writable: true }] : []),
    ]);
    this.requests.kick();
    return () => {
      const response = bytes[result + 11] ?? UNANSWERED;
      if (response === UNANSWERED) return undefined;
      const sense = bytes.slice(result + 12, result + 12 + view.getUint32(result, true));
      const why = sense.length === 0 ? '' : [sense[2], sense[12], sense[13]].map(byte => hex(byte ?? 0)).join('/');
      return {
        response,
        status: bytes[result + 10] ?? 0,
        residual: view.getUint32(result + 4, true),
        sense,
        why,
        data: bytes.slice(data, data + length),
      };
    };
  }

  async run(cdb: readonly number[], options: CommandOptions = {}): Promise<Answer> {
    return settled(this.start(cdb, options));
  }

  /** Takes the unit attentions away: of a reset, and of logical units that have come. */
  async ready(options: CommandOptions = {}): Promise<void> {
    while ((await this.run([0, 0, 0, 0, 0, 0], options)).why.startsWith('06')) {}
  }

  /** A request of the control queue; its answer is as long as `answer`. */
  async manage(request: Uint8Array, answer: number): Promise<Uint8Array> {
    return settled(this.startManaging(request, answer));
  }

  startManaging(request: Uint8Array, answer: number): () => Uint8Array | undefined {
    const { driver } = this;
    const at = driver.allocate(request.length);
    const reply = driver.allocate(16);
    driver.ram.bytes.set(request, at);
    const id = this.control.add([
      { address: at, length: request.length },
      { address: reply, length: answer, writable: true },
    ]);
    this.control.kick();
    return () => (this.control.used()?.id === id ? driver.ram.bytes.slice(reply, reply + answer) : undefined);
  }

  /** Room for `count` events. */
  offerEvents(count: number): void {
    for (let index = 0; index < count; index++) {
      this.events.add([{ address: this.driver.allocate(16), length: 16, writable: true }]);
    }
    this.#eventMemory = this.driver.allocate(0, 16) - 16 * count;
    this.events.kick();
  }

  #eventMemory = 0;

  /** The next event: its type, its address and its reason. */
  event(): { type: number; lun: number[]; reason: number } | undefined {
    if (this.events.used() === undefined) return undefined;
    const { view, bytes } = this.driver.ram;
    const at = this.#eventMemory;
    this.#eventMemory += 16;
    return {
      type: view.getUint32(at, true),
      lun: [...bytes.slice(at + 4, at + 8)],
      reason: view.getUint32(at + 12, true),
    };
  }
}

const hex = (byte: number): string => byte.toString(16).padStart(2, '0');

/** Waits for what comes after turns of the event loop. */
export async function settled<T>(poll: () => T | undefined): Promise<T> {
  for (;;) {
    const value = poll();
    if (value !== undefined) return value;
    await new Promise(resolve => setImmediate(resolve));
  }
}

/** A task management function (virtio 1.2, section 5.6.6.2). */
export function tmf(subtype: number, target: number, lun: number, tag = 0): Uint8Array {
  const bytes = new Uint8Array(24);
  const view = new DataView(bytes.buffer);
  view.setUint32(4, subtype, true);
  bytes.set([1, target, 0, lun], 8);
  view.setUint32(16, tag, true);
  return bytes;
}
