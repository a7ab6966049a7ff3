import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { promisify } from 'node:util';
import { deflate } from 'node:zlib';
import { zstd } from '../../host/zstd.ts';
import { saveJoin, saveMemoryHeader, savePacket, saveZstdPacket } from '../../state/snapshot.ts';
import type { MigrationSettings } from './settings.ts';

/** Pages go together in packets of about this size, in bytes. */
const PACKET = 256 * 1024;
const deflated = promisify<Buffer, { level: number }, Buffer>(deflate);

/** What makes one packet of chunks with pages. */
export type PagePacker = (pages: Buffer) => Buffer | Promise<Buffer>;

/** What QMP's `multifd-compression` asks for. @throws SouthbridgeError ERR_ZSTD_MISSING */
export function pagePacker(settings: MigrationSettings): PagePacker {
  switch (settings.parameters['multifd-compression']) {
    case 'zlib': {
      const level = settings.number('multifd-zlib-level');
      return async pages => savePacket(await deflated(pages, { level }));
    }
    case 'zstd': {
      const level = settings.number('multifd-zstd-level');
      const { compress } = zstd();
      return pages => {
        const frame = Buffer.allocUnsafe(pages.length);
        const length = compress(pages, frame, level);
        return length === 0 ? pages : saveZstdPacket(pages.length, frame.subarray(0, length));
      };
    }
    default:
      return pages => pages;
  }
}

/** Connections that a machine's memory is spread over (QEMU's multifd). */
export class MemoryChannels {
  readonly #channels: readonly Channel[];

  constructor(streams: readonly Writable[], pack: PagePacker) {
    this.#channels = streams.map(stream => new Channel(stream, pack));
  }

  get any(): boolean {
    return this.#channels.length > 0;
  }

  /** Rejects once a connection fails. */
  readonly failed = (): Promise<never> => Promise.race(this.#channels.map(({ failure }) => failure));

  destroy(): void {
    for (const { stream } of this.#channels) stream.destroy();
  }

  /**
   * Sends `piece`, of the page with that number. A page always goes the same way, so that no older copy of it comes later.
   *
   * @returns bytes that went on their way
   */
  async write(page: number, piece: Buffer): Promise<number> {
    return (await this.#channels[page % this.#channels.length]?.write(piece)) ?? 0;
  }

  /** Sends all that was kept back. @returns bytes that went on their way */
  async flush(): Promise<number> {
    const sent = await Promise.all(this.#channels.map(channel => channel.flush()));
    return sent.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** No more memory goes this way. */
  async end(): Promise<number> {
    const bytes = await this.flush();
    for (const { stream } of this.#channels) stream.end(saveJoin());
    return bytes;
  }
}

class Channel {
  readonly stream: Writable;
  readonly failure: Promise<never>;
  readonly #pack: PagePacker;
  #kept: Buffer[] = [];
  #bytes = 0;

  constructor(stream: Writable, pack: PagePacker) {
    this.stream = stream;
    this.#pack = pack;
    this.failure = new Promise((_, reject) => stream.once('error', reject));
    this.failure.catch(() => undefined);
    stream.write(saveMemoryHeader());
  }

  async write(piece: Buffer): Promise<number> {
    this.#kept.push(piece);
    this.#bytes += piece.length;
    return this.#bytes < PACKET ? 0 : this.flush();
  }

  async flush(): Promise<number> {
    if (this.#bytes === 0) return 0;
    const pages = Buffer.concat(this.#kept);
    this.#kept = [];
    this.#bytes = 0;
    const packet = await this.#pack(pages);
    if (!this.stream.write(packet)) await Promise.race([once(this.stream, 'drain'), this.failure]);
    return packet.length;
  }
}
