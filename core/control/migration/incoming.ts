import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { type NodeAlias, takeBitmap } from '../../block/bitmap-migration.ts';
import { STREAM } from '../../state/chunks.ts';
import { MachineLoader } from '../../state/snapshot.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import { IncomingBitmaps } from './bitmaps.ts';
import {
  acknowledge,
  answer,
  type MigrationUri,
  openSource,
  type Secure,
  type SocketAddress,
  type Source,
} from './channel.ts';
import type { MigrationSettings } from './settings.ts';

/** What the receiver needs to be told, and tells. */
export interface IncomingHost {
  readonly settings: MigrationSettings;
  readonly secure: Secure;
  set(status: 'setup' | 'active' | 'postcopy-active' | 'postcopy-paused' | 'postcopy-recover' | 'completed'): void;
  failed(error: unknown): void;
  listening(address: SocketAddress): void;
  mapping(): readonly NodeAlias[] | undefined;
  /** Says in the network that the cards are here now. */
  announce(): Promise<void>;
  /** @returns false where the images cannot be had; the user was told */
  takeImages(): Promise<boolean>;
}

interface Connections {
  readonly main: Readable;
  readonly memory: readonly Readable[];
}

/** Takes a machine in: its memory, then what it is, and where it has gone ahead of its memory that too. */
export class Incoming {
  readonly #program: Program;
  readonly #host: IncomingHost;
  readonly #loader: MachineLoader;
  #main: Readable | undefined;
  #source: Source | undefined;
  #channels: readonly Readable[] = [];
  /** That all of those have come to their end; they are read once it is known where memory goes. */
  #memory: Promise<unknown> | undefined;
  #heldAt: number | undefined;
  #reconnect: ((stream: Readable) => void) | undefined;

  /** How long the CPUs had to wait for memory, in milliseconds; undefined where the machine did not go ahead of it. */
  blockedMs: number | undefined;

  constructor(program: Program, host: IncomingHost) {
    this.#program = program;
    this.#host = host;
    this.#loader = new MachineLoader(program.machine);
  }

  /** Resolves once the machine is here, or has come to grief: the program ends then. */
  async receive(uri: MigrationUri): Promise<void> {
    const { graph } = await this.#program.blocks();
    const { main, memory } = await this.#connections(uri);
    this.#main = main;
    // Nothing may be waited for from here on: what a command has written is lost once it has ended and nobody reads.
    this.#host.set('active');
    const bitmaps = new IncomingBitmaps(
      bitmap => takeBitmap(graph, this.#host.mapping(), bitmap),
      error => this.#program.report.error(error),
    );
    this.#loader.onExtra = extra => bitmaps.feed(extra);
    this.#channels = memory;
    try {
      await this.#readAll(main);
    } catch (error) {
      for (const stream of [this.#main ?? main, ...memory]) stream.destroy();
      this.#host.failed(error);
      return;
    }
    await this.#settle(this.#main ?? main);
  }

  /** `migrate-pause`: as if the connection had been lost. */
  interrupt(): void {
    this.#main?.destroy();
  }

  /** `migrate-recover`: the rest of the memory comes over another connection. */
  async recover(uri: MigrationUri): Promise<void> {
    this.#source?.close();
    this.#source = await openSource(uri, {
      listening: address => this.#host.listening(address),
      secure: this.#host.secure,
      refused: error => this.#program.report.error(error),
      connected: stream => {
        this.#source?.close();
        this.#reconnect?.(stream);
      },
    });
  }

  /** All connections that a machine comes over: its own is told from those for its memory by what it begins with. */
  #connections(uri: MigrationUri): Promise<Connections> {
    const memory: Readable[] = [];
    let main: Readable | undefined;
    return new Promise((resolve, reject) => {
      const come = async (stream: Readable): Promise<void> => {
        const wanted = this.#memoryConnections;
        if (wanted > 0 && (await begins(stream)).equals(STREAM.memory)) memory.push(stream);
        else main = stream;
        if (main === undefined || memory.length < wanted) return;
        this.#source?.close();
        resolve({ main, memory });
      };
      openSource(uri, {
        listening: address => this.#host.listening(address),
        secure: this.#host.secure,
        refused: error => this.#program.report.error(error),
        connected: stream => void come(stream).catch(reject),
      }).then(source => {
        this.#source = source;
        if (main !== undefined && memory.length === this.#memoryConnections) source.close();
      }, reject);
    });
  }

  get #memoryConnections(): number {
    const { settings } = this.#host;
    return settings.has('multifd') ? settings.number('multifd-channels') : 0;
  }

  #readChannels(): Promise<unknown> {
    const all = Promise.all(this.#channels.map(stream => this.#readMemory(stream)));
    all.catch(() => undefined);
    return all;
  }

  async #readMemory(stream: Readable): Promise<void> {
    const channel = this.#loader.memoryChannel();
    for await (const chunk of stream as AsyncIterable<Buffer>) channel.feed(chunk);
    if (!channel.ended) throw new QmpError('a connection for memory was closed');
  }

  /** Reads until all is here; while memory follows a machine that has gone ahead, over as many connections as it takes. */
  async #readAll(main: Readable): Promise<void> {
    for (let stream = main; !(await this.#read(stream)); ) {
      if (!this.#loader.arrived) {
        this.#loader.end();
        return;
      }
      stream.destroy();
      const another = new Promise<Readable>(resolve => {
        this.#reconnect = resolve;
      });
      this.#host.set('postcopy-paused');
      stream = await another;
      this.#main = stream;
      this.#host.set('postcopy-recover');
      this.#loader.reconnected();
      answer(stream, JSON.stringify(this.#loader.last ?? null));
      this.#host.set('postcopy-active');
    }
  }

  /** @returns false where the connection ended before all was here */
  async #read(stream: Readable): Promise<boolean> {
    const loader = this.#loader;
    const pieces = stream.iterator({ destroyOnReturn: false })[Symbol.asyncIterator]();
    while (!loader.complete) {
      const chunk: Buffer | undefined = await pieces.next().then(
        ({ value }) => value,
        error => {
          if (!loader.arrived) throw error;
        },
      );
      if (chunk === undefined) return false;
      loader.feed(chunk);
      if (loader.known) this.#memory ??= this.#readChannels();
      if (loader.joining) {
        await this.#memory;
        loader.joined();
      }
      if (loader.arrived && !loader.complete && this.#heldAt === undefined) await this.#goAhead();
    }
    return true;
  }

  /** The machine is here, but not all of its memory: to those who ask it runs, and waits for what it has not got. */
  async #goAhead(): Promise<void> {
    const { power } = this.#program.machine;
    this.#heldAt = performance.now();
    power.hold();
    this.#host.set('postcopy-active');
    await this.#start();
  }

  /** All is here. */
  async #settle(main: Readable): Promise<void> {
    acknowledge(main);
    if (this.#heldAt === undefined) {
      await this.#start('completed');
      return;
    }
    this.blockedMs = Math.round(performance.now() - this.#heldAt);
    this.#program.machine.power.release();
    this.#host.set('completed');
  }

  async #start(status?: 'completed'): Promise<void> {
    const { machine, line } = this.#program;
    const state = this.#loader.runState;
    const starts = state === 'running' && !line.has('S');
    const late = !starts && this.#host.settings.has('late-block-activate');
    const active = late || (await this.#host.takeImages());
    await this.#host.announce();
    if (status !== undefined) this.#host.set(status);
    machine.power.setState(state === 'running' ? 'paused' : state);
    if (starts && active) machine.start();
  }
}

/** The first bytes of a stream, which stay in it. */
async function begins(stream: Readable): Promise<Buffer> {
  const { length } = STREAM.machine;
  for (;;) {
    const bytes: Buffer | null = stream.read(length);
    if (bytes !== null) {
      stream.unshift(bytes);
      return bytes;
    }
    if (stream.readableEnded || stream.destroyed) throw new QmpError('a connection was closed before it began');
    await Promise.race([once(stream, 'readable'), once(stream, 'close')]);
  }
}
