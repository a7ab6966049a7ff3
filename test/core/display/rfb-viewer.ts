import type { Duplex } from 'node:stream';
import { constants, inflateRawSync } from 'node:zlib';

/** Reads a stream as it comes. */
class Reader {
  readonly #stream: Duplex;
  #bytes: Buffer = Buffer.alloc(0);
  #waiting: (() => void) | undefined;
  #ended = false;

  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#waiting?.();
    });
    stream.on('close', () => {
      this.#ended = true;
      this.#waiting?.();
    });
    stream.on('end', () => {
      this.#ended = true;
      this.#waiting?.();
    });
  }

  get ended(): boolean {
    return this.#ended;
  }

  async take(count: number): Promise<Buffer> {
    while (this.#bytes.length < count) {
      if (this.#ended) throw new Error(`the server hung up; ${this.#bytes.length} of ${count} bytes`);
      await new Promise<void>(resolve => {
        this.#waiting = resolve;
      });
    }
    const taken = this.#bytes.subarray(0, count);
    this.#bytes = this.#bytes.subarray(count);
    return taken;
  }

  async u8(): Promise<number> {
    return (await this.take(1))[0] ?? 0;
  }

  async u16(): Promise<number> {
    return (await this.take(2)).readUInt16BE();
  }

  async u32(): Promise<number> {
    return (await this.take(4)).readUInt32BE();
  }

  send(...parts: (number[] | Buffer)[]): void {
    this.#stream.write(Buffer.concat(parts.map(part => Buffer.from(part))));
  }
}

/** Inflates a zlib stream that goes on from piece to piece, from its beginning each time: slow, and independent of the server. */
class Inflater {
  #all = Buffer.alloc(0);
  #done = 0;

  next(piece: Buffer): Buffer {
    this.#all = Buffer.concat([this.#all, piece]);
    const plain = inflateRawSync(this.#all.subarray(2), { finishFlush: constants.Z_SYNC_FLUSH });
    const fresh = plain.subarray(this.#done);
    this.#done = plain.length;
    return fresh;
  }
}

export interface PseudoRectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly encoding: number;
  readonly contents: Buffer;
}

/** A viewer for tests, written from RFC 6143: 32 bits a pixel, red in bits 16 to 23, least significant byte first. */
export class RfbViewer {
  readonly reader: Reader;
  width = 0;
  height = 0;
  name = '';
  pixels = new Uint32Array(0);
  readonly pseudo: PseudoRectangle[] = [];
  readonly #inflaters = [
    new Inflater(),
    new Inflater(),
    new Inflater(),
    new Inflater(),
    new Inflater(),
    new Inflater(),
  ];

  constructor(stream: Duplex) {
    this.reader = new Reader(stream);
  }

  /** @returns the security result; undefined where version 3.3 has none */
  async handshake(minor: 3 | 7 | 8, answer?: (challenge: Buffer) => Buffer): Promise<number | undefined> {
    const { reader } = this;
    await reader.take(12);
    reader.send(Buffer.from(`RFB 003.00${minor}\n`));
    let type: number;
    if (minor === 3) type = await reader.u32();
    else {
      await reader.u8();
      type = await reader.u8();
      reader.send([type]);
    }
    if (type === 2) {
      reader.send(answer?.(await reader.take(16)) ?? Buffer.alloc(16));
      return reader.u32();
    }
    return minor === 8 ? reader.u32() : undefined;
  }

  async initialize(shared = true): Promise<void> {
    const { reader } = this;
    reader.send([shared ? 1 : 0]);
    this.width = await reader.u16();
    this.height = await reader.u16();
    await reader.take(16);
    this.name = (await reader.take(await reader.u32())).toString();
    this.pixels = new Uint32Array(this.width * this.height);
  }

  setEncodings(...encodings: number[]): void {
    const message = Buffer.alloc(4 + 4 * encodings.length);
    message[0] = 2;
    message.writeUInt16BE(encodings.length, 2);
    for (const [index, encoding] of encodings.entries()) message.writeInt32BE(encoding, 4 + 4 * index);
    this.reader.send(message);
  }

  requestUpdate(incremental: boolean): void {
    const message = Buffer.from([3, incremental ? 1 : 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.writeUInt16BE(this.width, 6);
    message.writeUInt16BE(this.height, 8);
    this.reader.send(message);
  }

  /** Reads one update. Returns how many rectangles of pixels it had. */
  async update(): Promise<number> {
    const { reader } = this;
    const type = await reader.u8();
    if (type !== 0) throw new Error(`message ${type} where an update was expected`);
    await reader.u8();
    const count = await reader.u16();
    let painted = 0;
    for (let index = 0; index < count; index++) {
      const x = await reader.u16();
      const y = await reader.u16();
      const width = await reader.u16();
      const height = await reader.u16();
      const encoding = (await reader.take(4)).readInt32BE();
      if (encoding >= 0) {
        await this.#rectangle(x, y, width, height, encoding);
        painted++;
      } else {
        const contents = await reader.take(pseudoLength(encoding, width, height));
        this.pseudo.push({ x, y, width, height, encoding, contents });
      }
    }
    return painted;
  }

  async #rectangle(x: number, y: number, width: number, height: number, encoding: number): Promise<void> {
    const { reader } = this;
    const size = width * height;
    if (encoding === 0) this.#paint(x, y, width, height, words(await reader.take(size * 4)));
    else if (encoding === 6) {
      const plain = this.#inflaters[4]?.next(await reader.take(await reader.u32()));
      this.#paint(x, y, width, height, words(plain ?? Buffer.alloc(0)));
    } else if (encoding === 5) await this.#hextile(x, y, width, height);
    else if (encoding === 7) this.#paint(x, y, width, height, await this.#tight(width, height));
    else if (encoding === 16) this.#zrle(x, y, width, height, await reader.take(await reader.u32()));
    else throw new Error(`encoding ${encoding}`);
  }

  #paint(x: number, y: number, width: number, height: number, pixels: ArrayLike<number>): void {
    for (let row = 0; row < height; row++)
      for (let column = 0; column < width; column++)
        this.pixels[(y + row) * this.width + x + column] = pixels[row * width + column] ?? 0;
  }

  async #hextile(x0: number, y0: number, width: number, height: number): Promise<void> {
    const { reader } = this;
    let background = 0;
    let foreground = 0;
    const pixel = async (): Promise<number> => (await reader.take(4)).readUInt32LE();
    for (let y = y0; y < y0 + height; y += 16) {
      for (let x = x0; x < x0 + width; x += 16) {
        const w = Math.min(16, x0 + width - x);
        const h = Math.min(16, y0 + height - y);
        const flags = await reader.u8();
        if (flags & 1) {
          this.#paint(x, y, w, h, words(await reader.take(w * h * 4)));
          continue;
        }
        if (flags & 2) background = await pixel();
        if (flags & 4) foreground = await pixel();
        this.#paint(x, y, w, h, new Array(w * h).fill(background));
        const count = flags & 8 ? await reader.u8() : 0;
        for (let index = 0; index < count; index++) {
          const colour = flags & 16 ? await pixel() : foreground;
          const xy = await reader.u8();
          const wh = await reader.u8();
          const [rw, rh] = [(wh >> 4) + 1, (wh & 15) + 1];
          this.#paint(x + (xy >> 4), y + (xy & 15), rw, rh, new Array(rw * rh).fill(colour));
        }
      }
    }
  }

  async #tight(width: number, height: number): Promise<ArrayLike<number>> {
    const { reader } = this;
    const control = await reader.u8();
    const rgb = (bytes: Buffer, at: number): number =>
      ((bytes[at] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    if (control >> 4 === 8) return new Array(width * height).fill(rgb(await reader.take(3), 0));
    const stream = (control >> 4) & 3;
    const data = async (length: number): Promise<Buffer> => {
      if (length < 12) return reader.take(length);
      let size = 0;
      for (let shift = 0; ; shift += 7) {
        const byte = await reader.u8();
        size |= (shift === 14 ? byte : byte & 0x7f) << shift;
        if (shift === 14 || (byte & 0x80) === 0) break;
      }
      return this.#inflaters[stream]?.next(await reader.take(size)) ?? Buffer.alloc(0);
    };
    const filter = control & 0x40 ? await reader.u8() : 0;
    if (filter === 0) {
      const bytes = await data(width * height * 3);
      return Array.from({ length: width * height }, (_, index) => rgb(bytes, index * 3));
    }
    const colours = (await reader.u8()) + 1;
    const table = await reader.take(colours * 3);
    if (colours > 2) {
      const indices = await data(width * height);
      return Array.from(indices, index => rgb(table, index * 3));
    }
    const rowBytes = (width + 7) >> 3;
    const bits = await data(rowBytes * height);
    return Array.from({ length: width * height }, (_, index) => {
      const [row, column] = [Math.floor(index / width), index % width];
      return rgb(table, (((bits[row * rowBytes + (column >> 3)] ?? 0) >> (7 - (column & 7))) & 1) * 3);
    });
  }

  #zrle(x0: number, y0: number, width: number, height: number, compressed: Buffer): void {
    const plain = this.#inflaters[5]?.next(compressed) ?? Buffer.alloc(0);
    let at = 0;
    const pixel = (): number => {
      const value = plain.readUIntLE(at, 3);
      at += 3;
      return value;
    };
    const run = (): number => {
      let length = 1;
      for (;;) {
        const byte = plain[at++] ?? 0;
        length += byte;
        if (byte !== 255) return length;
      }
    };
    for (let y = y0; y < y0 + height; y += 64) {
      for (let x = x0; x < x0 + width; x += 64) {
        const w = Math.min(64, x0 + width - x);
        const h = Math.min(64, y0 + height - y);
        const kind = plain[at++] ?? 0;
        const palette = Array.from({ length: kind === 0 || kind === 128 ? 0 : kind & 127 }, pixel);
        const tile: number[] = [];
        if (kind === 0) while (tile.length < w * h) tile.push(pixel());
        else if (kind === 1) tile.push(...new Array<number>(w * h).fill(palette[0] ?? 0));
        else if (kind <= 16) {
          const bits = kind === 2 ? 1 : kind <= 4 ? 2 : 4;
          for (let row = 0; row < h; row++) {
            for (let column = 0; column < w; column++) {
              const bit = column * bits;
              const byte = plain[at + (bit >> 3)] ?? 0;
              tile.push(palette[(byte >> (8 - bits - (bit & 7))) & ((1 << bits) - 1)] ?? 0);
            }
            at += Math.ceil((w * bits) / 8);
          }
        } else {
          while (tile.length < w * h) {
            const index = kind === 128 ? 0 : (plain[at++] ?? 0);
            const colour = kind === 128 ? pixel() : (palette[index & 127] ?? 0);
            const length = kind === 128 || index >= 128 ? run() : 1;
            for (let count = 0; count < length; count++) tile.push(colour);
          }
        }
        this.#paint(x, y, w, h, tile);
      }
    }
  }
}

const words = (bytes: Buffer): number[] =>
  Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readUInt32LE(index * 4) & 0xff_ffff);

function pseudoLength(encoding: number, width: number, height: number): number {
  if (encoding === -308) return 20;
  if (encoding === -261) return 1;
  if (encoding === -239) return width * height * 4 + ((width + 7) >> 3) * height;
  if (encoding === -314) return 4 + width * height * 4;
  return 0;
}
