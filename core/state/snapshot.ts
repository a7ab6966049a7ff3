import { inflateSync } from 'node:zlib';
import { SouthbridgeError } from '../errors.ts';
import { zstd } from '../host/zstd.ts';
import type { Machine } from '../machine/machine.ts';
import { RUN_STATES, type RunState } from '../machine/run-state.ts';
import type { GuestRam } from '../memory/guest-ram.ts';
import { isZero } from '../memory/zero.ts';
import { ChunkReader, chunk, damaged, preamble, STREAM } from './chunks.ts';
import { decodeValue, encodeValue } from './codec.ts';
import { asRecord, type SavedRecord, type SavedValue } from './fields.ts';
import { applyDelta } from './page-delta.ts';
import { PAGE } from './page-tracker.ts';

/** RAM goes in pieces of this size; one that is all zero is left out. */
const PIECE = 0x1_0000;
/** Of the pages of one packet, as they were, in bytes. */
const MAX_PACKET = 8 * 2 ** 20;

const Chunk = {
  MANIFEST: 1,
  RAM: 2,
  DEVICE: 3,
  ACCELERATOR: 4,
  END: 5,
  DELTA: 6,
  ZERO: 7,
  EXTRA: 8,
  /** Chunks with a page each, deflated together. */
  PACKET: 9,
  /** Nothing behind it counts before all channels for memory have come to their end. */
  JOIN: 10,
  /** The memory that follows a machine which has gone ahead is all there. */
  MEMORY_END: 11,
  /** As PACKET: what it was in bytes as u32, and a zstd frame. */
  ZSTD_PACKET: 12,
} as const;
const isMemory = (kind: number): boolean => kind === Chunk.RAM || kind === Chunk.DELTA || kind === Chunk.ZERO;
/** In front of the bytes of RAM: the block's number as u32, and the offset as f64. */
const PLACE = 12;

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
  yield preamble(STREAM.machine);
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

/** Several of the above in one, deflated by the caller. */
export const savePacket = (deflated: Buffer): Buffer => chunk(Chunk.PACKET, deflated);

/** Pages in a zstd frame; they were `bytes` bytes. */
export function saveZstdPacket(bytes: number, frame: Buffer): Buffer {
  const size = Buffer.alloc(4);
  size.writeUInt32LE(bytes);
  return chunk(Chunk.ZSTD_PACKET, Buffer.concat([size, frame]));
}

/** What a further channel for memory begins with. */
export const saveMemoryHeader = (): Buffer => preamble(STREAM.memory);

/** The end of a channel for memory, and in the machine's stream the place where all of them have ended. */
export const saveJoin = (): Buffer => chunk(Chunk.JOIN, Buffer.alloc(0));

/** The end of the memory that goes after the machine. */
export const saveMemoryEnd = (): Buffer => chunk(Chunk.MEMORY_END, Buffer.alloc(0));

export interface SaveRestOptions {
  readonly runState?: RunState;
  /** Pages of RAM come after this, up to {@link saveMemoryEnd}. */
  readonly memoryFollows?: boolean;
}

/** All but RAM, of a stopped machine: each device by its place, the CPUs with the accelerator's own chips, and an end mark. */
export function* saveRest(machine: Machine, options: SaveRestOptions = {}): Generator<Buffer> {
  const { runState, memoryFollows } = options;
  for (const device of machine.devices())
    yield chunk(Chunk.DEVICE, encodeValue({ path: device.location, state: device.save() }));
  const accelerator = machine.vm.saveState?.();
  if (accelerator !== undefined) yield chunk(Chunk.ACCELERATOR, Buffer.from(accelerator));
  yield chunk(
    Chunk.END,
    encodeValue({
      virtualNs: machine.clocks.virtual.now(),
      ...(runState !== undefined && { runState }),
      ...(memoryFollows === true && { memoryFollows }),
    }),
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
  yield* saveRest(machine, options);
}

const mismatch = (what: string, saved: unknown, here: unknown): SouthbridgeError =>
  new SouthbridgeError(
    'ERR_STATE_MACHINE',
    `the saved state has ${what} ${String(saved)}, this machine ${String(here)}`,
    'start both with the same options',
  );

/** Where in RAM something is: the block by its number in the stream, and bytes from its start. */
export interface RamPlace {
  readonly block: number;
  readonly offset: number;
}

/**
 * Puts a stream of {@link saveMachine} into a stopped machine of the same make. RAM is written as it comes; devices and CPUs
 * are restored together at the end, so that a stream that ends early changes nothing but RAM.
 */
export class MachineLoader {
  readonly #machine: Machine;
  readonly #devices = new Map<string, SavedValue>();
  #reader = new ChunkReader(STREAM.machine);
  #manifest: SavedRecord | undefined;
  #accelerator: Buffer | undefined;
  #arrived = false;
  #complete = false;
  #joining = false;
  /** This machine's RAM in the order of the stream: what was plugged in while it ran may have come in another. */
  #blocks: readonly (GuestRam | undefined)[] = [];
  #runState: RunState = 'running';
  #last: RamPlace | undefined;
  /** Bytes of RAM so far. */
  transferred = 0;
  /** Gets what goes with the machine; see {@link saveExtra}. */
  onExtra: (contents: SavedRecord) => void = () => {
    throw damaged('holds something that has no place here');
  };

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** It is known what machine this is, and where its memory goes. */
  get known(): boolean {
    return this.#manifest !== undefined;
  }

  /** The devices and CPUs are what they were; memory may yet follow. */
  get arrived(): boolean {
    return this.#arrived;
  }

  get complete(): boolean {
    return this.#complete;
  }

  /** The channels for memory are to be waited for: then call {@link joined}. */
  get joining(): boolean {
    return this.#joining;
  }

  /** The last page that came after the machine had {@link arrived}. */
  get last(): RamPlace | undefined {
    return this.#last;
  }

  /** What the machine was doing when it was saved, where the stream says. */
  get runState(): RunState {
    return this.#runState;
  }

  /** @throws SouthbridgeError ERR_STATE_FORMAT, ERR_STATE_VERSION, ERR_STATE_MACHINE or what a device says of its state */
  feed(bytes: Buffer): void {
    this.#reader.feed(bytes, (kind, contents) => this.#accept(kind, contents));
  }

  /** All channels for memory have ended. @throws as {@link feed} */
  joined(): void {
    this.#joining = false;
    this.feed(Buffer.alloc(0));
  }

  /** Another channel for this machine's memory. */
  memoryChannel(): MemoryChannel {
    return new MemoryChannel((kind, contents) => this.#loadRam(kind, contents));
  }

  /** The memory that follows goes on over another connection: half a chunk of the old one is lost. */
  reconnected(): void {
    this.#reader = new ChunkReader();
  }

  /** The stream has ended. @throws SouthbridgeError ERR_STATE_FORMAT where that came early */
  end(): void {
    if (!this.#complete) throw damaged('ends early');
  }

  /** @returns false where what follows has to wait */
  #accept(kind: number, contents: Buffer): boolean {
    if (this.#complete) throw damaged('goes on behind its end');
    if ((kind === Chunk.MANIFEST) === (this.#manifest !== undefined))
      throw damaged('is damaged: its manifest is not in its place');
    switch (kind) {
      case Chunk.RAM:
      case Chunk.DELTA:
      case Chunk.ZERO:
        this.#loadRam(kind, contents);
        return true;
      case Chunk.JOIN:
        this.#joining = true;
        return false;
      case Chunk.MEMORY_END:
        if (!this.#arrived) throw damaged('is damaged: its memory ends before the machine');
        this.#complete = true;
        return true;
      default:
        if (this.#arrived) throw damaged('goes on behind its end');
        this.#acceptState(kind, contents);
        return true;
    }
  }

  #acceptState(kind: number, contents: Buffer): void {
    switch (kind) {
      case Chunk.MANIFEST:
        this.#manifest = asRecord(decodeValue(contents), 'manifest');
        this.#check(this.#manifest);
        for (const ram of this.#machine.ram) if (!ram.readonly) ram.bytes.fill(0);
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
        this.#arrive(asRecord(decodeValue(contents), 'end'));
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
    const block = contents.readUInt32LE(0);
    const ram = this.#blocks[block];
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
    if (this.#arrived) this.#last = { block, offset };
  }

  #arrive({ virtualNs, runState, memoryFollows }: SavedRecord): void {
    const machine = this.#machine;
    const devices = [...machine.devices()];
    for (const device of devices)
      if (!this.#devices.has(device.location)) throw damaged(`lacks device ${device.location}`);
    if (typeof virtualNs === 'number' && virtualNs >= 0) machine.clocks.virtual.restore(virtualNs);
    for (const device of devices) device.restore(this.#devices.get(device.location) ?? null);
    if (this.#accelerator !== undefined) machine.vm.restoreState?.(this.#accelerator);
    this.#runState = RUN_STATES.find(state => state === runState) ?? 'running';
    this.#arrived = true;
    this.#complete = memoryFollows !== true;
  }
}

/** A further channel for memory of a machine that is on its way. */
export class MemoryChannel {
  readonly #reader = new ChunkReader(STREAM.memory);
  readonly #load: (kind: number, contents: Buffer) => void;
  #ended = false;

  constructor(load: (kind: number, contents: Buffer) => void) {
    this.#load = load;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** @throws SouthbridgeError ERR_STATE_FORMAT, ERR_STATE_VERSION */
  feed(bytes: Buffer): void {
    this.#reader.feed(bytes, (kind, contents) => this.#accept(kind, contents));
  }

  #accept(kind: number, contents: Buffer): boolean {
    if (this.#ended) throw damaged('goes on behind the end of a channel');
    if (kind === Chunk.JOIN) this.#ended = true;
    else if (kind === Chunk.PACKET) this.#unpack(inflated(contents));
    else if (kind === Chunk.ZSTD_PACKET) this.#unpack(unzstd(contents));
    else if (isMemory(kind)) this.#load(kind, contents);
    else throw damaged(`is damaged: a piece of kind ${kind} in a channel for memory`);
    return true;
  }

  #unpack(pages: Buffer): void {
    new ChunkReader().feed(pages, (kind, contents) => {
      if (!isMemory(kind)) throw damaged('is damaged: a packet');
      this.#load(kind, contents);
      return true;
    });
  }
}

function inflated(packet: Buffer): Buffer {
  try {
    return inflateSync(packet, { maxOutputLength: MAX_PACKET });
  } catch {
    throw damaged('is damaged: a packet of pages');
  }
}

function unzstd(packet: Buffer): Buffer {
  const size = packet.length < 4 ? 0 : packet.readUInt32LE(0);
  if (size === 0 || size > MAX_PACKET) throw damaged('is damaged: a packet of pages');
  const pages = Buffer.alloc(size);
  if (!zstd().decompress(packet.subarray(4), pages)) throw damaged('is damaged: a packet of pages');
  return pages;
}
