import { crc32 } from 'node:zlib';
import { SouthbridgeError } from '../errors.ts';
import type { Machine } from '../machine/machine.ts';
import { RUN_STATES, type RunState } from '../machine/run-state.ts';
import type { GuestRam } from '../memory/guest-ram.ts';
import { isZero } from '../memory/zero.ts';
import { decodeValue, encodeValue } from './codec.ts';
import { asRecord, type SavedRecord, type SavedValue } from './fields.ts';
import { applyDelta } from './page-delta.ts';
import { PAGE } from './page-tracker.ts';

const MAGIC = Buffer.from('SBRIDGE\0');
const VERSION = 2;
/** RAM goes in pieces of this size; one that is all zero is left out. */
const PIECE = 0x1_0000;
const HEADER = 12;
const MAX_CHUNK = 64 * 2 ** 20;

const Chunk = { MANIFEST: 1, RAM: 2, DEVICE: 3, ACCELERATOR: 4, END: 5, DELTA: 6, ZERO: 7, EXTRA: 8 } as const;
/** In front of the bytes of RAM: the block's number as u32, and the offset as f64. */
const PLACE = 12;

/** One chunk: kind, length and CRC-32 of the contents as u32, then the contents. */
function chunk(kind: number, contents: Buffer): Buffer {
  const header = Buffer.allocUnsafe(HEADER);
  header.writeUInt32LE(kind, 0);
  header.writeUInt32LE(contents.length, 4);
  header.writeUInt32LE(crc32(contents), 8);
  return Buffer.concat([header, contents]);
}

/** What else a stream may carry. */
export interface SaveOptions {
  /** The machine's UUID, which must then be the other's too. */
  readonly uuid?: boolean;
  /** What the machine was doing before it was stopped to be saved. */
  readonly runState?: RunState;
}

function manifest(machine: Machine, { uuid = false }: SaveOptions = {}): SavedRecord {
  return {
    machine: machine.type.type,
    ...(uuid && machine.config.uuid !== undefined && { uuid: machine.config.uuid }),
    accelerator: machine.accelerator.name,
    cpus: machine.cpus.plugged.length,
    ramSize: machine.config.ramSize,
    ram: machine.ram.map(({ name, size }) => ({ name, size })),
    devices: [...machine.devices()].map(device => ({ path: device.location, type: device.typeName })),
  };
}

/** What a stream begins with: who made it, and what machine it is of. */
export function* saveHeader(machine: Machine, options: SaveOptions = {}): Generator<Buffer> {
  yield Buffer.concat([MAGIC, Buffer.from(Uint32Array.of(VERSION).buffer)]);
  yield chunk(Chunk.MANIFEST, encodeValue(manifest(machine, options)));
}

function placed(kind: number, block: number, offset: number, data: Uint8Array): Buffer {
  const contents = Buffer.allocUnsafe(PLACE + data.length);
  contents.writeUInt32LE(block, 0);
  contents.writeDoubleLE(offset, 4);
  contents.set(data, PLACE);
  return chunk(kind, contents);
}

/** Bytes of a block of RAM. A block may be sent in any order and parts of it again: the last one counts. */
export const saveRam = (block: number, offset: number, data: Uint8Array): Buffer =>
  placed(Chunk.RAM, block, offset, data);

/** That a page is all zero now. */
export const saveZeroPage = (block: number, offset: number, length: number): Buffer =>
  placed(Chunk.ZERO, block, offset, Uint8Array.of(length & 0xff, length >>> 8));

/** What has changed of a page that was sent: see `encodeDelta`. */
export const saveDelta = (block: number, offset: number, delta: Uint8Array): Buffer =>
  placed(Chunk.DELTA, block, offset, delta);

/** All but RAM, of a stopped machine: each device by its place, the CPUs with the accelerator's own chips, and an end mark. */
export function* saveRest(machine: Machine, runState?: RunState): Generator<Buffer> {
  for (const device of machine.devices())
    yield chunk(Chunk.DEVICE, encodeValue({ path: device.location, state: device.save() }));
  const accelerator = machine.vm.saveState?.();
  if (accelerator !== undefined) yield chunk(Chunk.ACCELERATOR, Buffer.from(accelerator));
  yield chunk(
    Chunk.END,
    encodeValue({ virtualNs: machine.clocks.virtual.now(), ...(runState !== undefined && { runState }) }),
  );
}

/** What goes with the machine but is not its own: whoever loads the stream gets it, in order. */
export const saveExtra = (contents: SavedRecord): Buffer => chunk(Chunk.EXTRA, encodeValue(contents));

/** The whole state of a stopped machine as a stream: RAM goes without its zero pages. */
export function* saveMachine(machine: Machine, options: SaveOptions = {}): Generator<Buffer> {
  yield* saveHeader(machine, options);
  for (const [index, ram] of machine.ram.entries()) {
    for (let offset = 0; offset < ram.size; offset += PIECE) {
      const length = Math.min(PIECE, ram.size - offset);
      if (!isZero(ram.bytes, offset, length)) yield saveRam(index, offset, ram.bytes.subarray(offset, offset + length));
    }
  }
  yield* saveRest(machine, options.runState);
}

const damaged = (what: string): SouthbridgeError =>
  new SouthbridgeError('ERR_STATE_FORMAT', `the machine's state ${what}`, 'make it again');

const mismatch = (what: string, saved: unknown, here: unknown): SouthbridgeError =>
  new SouthbridgeError(
    'ERR_STATE_MACHINE',
    `the saved state has ${what} ${String(saved)}, this machine ${String(here)}`,
    'start both with the same options',
  );

/**
 * Puts a stream of {@link saveMachine} into a stopped machine of the same make. RAM is written as it comes; devices and CPUs
 * are restored together at the end, so that a stream that ends early changes nothing but RAM.
 */
export class MachineLoader {
  readonly #machine: Machine;
  readonly #devices = new Map<string, SavedValue>();
  #pending: Buffer = Buffer.alloc(0);
  #started = false;
  #manifest: SavedRecord | undefined;
  #accelerator: Buffer | undefined;
  #complete = false;
  /** This machine's RAM in the order of the stream: what was plugged in while it ran may have come in another. */
  #blocks: readonly (GuestRam | undefined)[] = [];
  #runState: RunState = 'running';
  /** Bytes of RAM so far. */
  transferred = 0;
  /** Gets what goes with the machine; see {@link saveExtra}. */
  onExtra: (contents: SavedRecord) => void = () => {
    throw damaged('holds something that has no place here');
  };

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  get complete(): boolean {
    return this.#complete;
  }

  /** What the machine was doing when it was saved, where the stream says. */
  get runState(): RunState {
    return this.#runState;
  }

  /** @throws SouthbridgeError ERR_STATE_FORMAT, ERR_STATE_VERSION, ERR_STATE_MACHINE or what a device says of its state */
  feed(bytes: Buffer): void {
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    let at = this.#magic();
    while (this.#started && this.#pending.length - at >= HEADER) {
      const length = this.#pending.readUInt32LE(at + 4);
      if (length > MAX_CHUNK) throw damaged('is damaged: a piece is too long');
      if (this.#pending.length - at < HEADER + length) break;
      const contents = this.#pending.subarray(at + HEADER, at + HEADER + length);
      if (crc32(contents) !== this.#pending.readUInt32LE(at + 8)) throw damaged('was altered: a checksum is wrong');
      this.#accept(this.#pending.readUInt32LE(at), contents);
      at += HEADER + length;
    }
    this.#pending = Buffer.from(this.#pending.subarray(at));
  }

  /** The stream has ended. @throws SouthbridgeError ERR_STATE_FORMAT where that came early */
  end(): void {
    if (!this.#complete) throw damaged('ends early');
  }

  #magic(): number {
    if (this.#started) return 0;
    const known = Math.min(MAGIC.length, this.#pending.length);
    if (!this.#pending.subarray(0, known).equals(MAGIC.subarray(0, known)))
      throw damaged('is not a saved state of this program');
    if (this.#pending.length < MAGIC.length + 4) return 0;
    const version = this.#pending.readUInt32LE(MAGIC.length);
    if (version !== VERSION) {
      throw new SouthbridgeError(
        'ERR_STATE_VERSION',
        `the saved state is of version ${version}, this program reads version ${VERSION}`,
      );
    }
    this.#started = true;
    for (const ram of this.#machine.ram) if (!ram.readonly) ram.bytes.fill(0);
    return MAGIC.length + 4;
  }

  #accept(kind: number, contents: Buffer): void {
    if (this.#complete) throw damaged('goes on behind its end');
    if ((kind === Chunk.MANIFEST) === (this.#manifest !== undefined))
      throw damaged('is damaged: its manifest is not in its place');
    switch (kind) {
      case Chunk.MANIFEST:
        this.#manifest = asRecord(decodeValue(contents), 'manifest');
        this.#check(this.#manifest);
        break;
      case Chunk.RAM:
      case Chunk.DELTA:
      case Chunk.ZERO:
        this.#loadRam(kind, contents);
        break;
      case Chunk.DEVICE: {
        const { path, state } = asRecord(decodeValue(contents), 'device');
        if (typeof path !== 'string' || state === undefined || this.#devices.has(path))
          throw damaged('is damaged: a device');
        this.#devices.set(path, state);
        break;
      }
      case Chunk.ACCELERATOR:
        this.#accelerator = Buffer.from(contents);
        break;
      case Chunk.EXTRA:
        this.onExtra(asRecord(decodeValue(contents), 'extra'));
        break;
      case Chunk.END:
        this.#finish(asRecord(decodeValue(contents), 'end'));
        break;
      default:
        throw damaged(`is damaged: a piece of kind ${kind}`);
    }
  }

  #check(saved: SavedRecord): void {
    const here = manifest(this.#machine, { uuid: true });
    if (saved['uuid'] !== undefined && here['uuid'] !== undefined && saved['uuid'] !== here['uuid'])
      throw mismatch('UUID', saved['uuid'], here['uuid']);
    for (const [name, what] of [
      ['machine', 'machine type'],
      ['accelerator', 'accelerator'],
      ['cpus', 'CPUs:'],
      ['ramSize', 'RAM of'],
    ] as const) {
      if (saved[name] !== here[name]) throw mismatch(what, saved[name], here[name]);
    }
    const names = (value: SavedValue | undefined): string[] =>
      Array.isArray(value) ? value.map(item => Object.values(asRecord(item, 'manifest')).join(' ')) : [];
    for (const list of ['ram', 'devices'] as const) {
      const theirs = names(saved[list]);
      const ours = names(here[list]);
      const missing = theirs.find(name => !ours.includes(name));
      const extra = ours.find(name => !theirs.includes(name));
      if (missing !== undefined) throw mismatch(list === 'ram' ? 'memory' : 'device', missing, 'does not');
      if (extra !== undefined) throw mismatch(list === 'ram' ? 'no memory' : 'no device', extra, 'does');
    }
    const left = [...this.#machine.ram];
    this.#blocks = names(saved['ram']).map(name => {
      const index = left.findIndex(ram => `${ram.name} ${ram.size}` === name);
      return index < 0 ? undefined : left.splice(index, 1)[0];
    });
  }

  #loadRam(kind: number, contents: Buffer): void {
    if (contents.length < PLACE) throw damaged('is damaged: a piece of RAM');
    const ram = this.#blocks[contents.readUInt32LE(0)];
    const offset = contents.readDoubleLE(4);
    const data = contents.subarray(PLACE);
    if (kind === Chunk.ZERO && data.length !== 2) throw damaged('is damaged: a piece of RAM');
    const length = kind === Chunk.RAM ? data.length : kind === Chunk.DELTA ? PAGE : data.readUInt16LE(0);
    if (ram === undefined || !Number.isSafeInteger(offset) || offset < 0 || offset + length > ram.size) {
      throw damaged('is damaged: a piece of RAM lies outside of it');
    }
    if (kind === Chunk.RAM) ram.bytes.set(data, offset);
    else if (kind === Chunk.ZERO) ram.bytes.fill(0, offset, offset + length);
    else applyDelta(ram.bytes.subarray(offset, offset + length), data);
    this.transferred += data.length;
  }

  #finish({ virtualNs, runState }: SavedRecord): void {
    const machine = this.#machine;
    const devices = [...machine.devices()];
    for (const device of devices)
      if (!this.#devices.has(device.location)) throw damaged(`lacks device ${device.location}`);
    if (typeof virtualNs === 'number' && virtualNs >= 0) machine.clocks.virtual.restore(virtualNs);
    for (const device of devices) device.restore(this.#devices.get(device.location) ?? null);
    if (this.#accelerator !== undefined) machine.vm.restoreState?.(this.#accelerator);
    this.#runState = RUN_STATES.find(state => state === runState) ?? 'running';
    this.#complete = true;
  }
}
