import type { Duplex } from 'node:stream';
import type { CursorImage, Surface } from '../screen.ts';
import { ByteWriter } from './byte-writer.ts';
import type { AudioFormat, VncAudio } from './client-audio.ts';
import { ClientPointer } from './client-pointer.ts';
import { Damage } from './damage.ts';
import { isPixelEncoding, newEncoder, type RectangleEncoder } from './encodings/index.ts';
import { EndOfConversation, Handshake, SECURE, type VncEntry } from './handshake.ts';
import { PixelFormat } from './pixel-format.ts';
import { AUDIO_REQUEST, CLIENT, ENCODING, QEMU_MESSAGE, RESIZE, SERVER, XVP } from './protocol.ts';
import type { VncServer } from './server.ts';

const MAX_CUT_TEXT = 1 << 20;
const DEFAULT_LEVEL = 1;
/** More than so many unread pictures, and the client is given up. */
const MAX_UNREAD_PICTURES = 5;

/** Whether a client bears others beside itself. */
export type ShareMode = 'connecting' | 'shared' | 'exclusive' | 'gone';

/** What a client has said that it understands beyond the first version of the protocol. */
interface Features {
  desktopSize: boolean;
  extendedDesktopSize: boolean;
  pointerTypeChange: boolean;
  richCursor: boolean;
  alphaCursor: boolean;
  ledState: boolean;
  xvp: boolean;
}

const NO_FEATURES: Features = {
  desktopSize: false,
  extendedDesktopSize: false,
  pointerTypeChange: false,
  richCursor: false,
  alphaCursor: false,
  ledState: false,
  xvp: false,
};

/** Where a client is; QAPI VncClientInfo without what this server does not negotiate. */
export interface VncAddress {
  readonly host: string;
  readonly service: string;
  readonly family: 'ipv4' | 'ipv6' | 'unix' | 'unknown';
  readonly websocket: boolean;
}

/** One client of a VNC server: the protocol from its version to its last update (RFC 6143). */
export class VncClient {
  readonly address: VncAddress;
  readonly damage = new Damage();
  share: ShareMode = 'connecting';
  readonly #server: VncServer;
  #stream: Duplex;
  readonly #entry: VncEntry;
  #peer: string | undefined;
  readonly #conversation = this.#converse();
  readonly #pointer: ClientPointer;
  readonly #out = new ByteWriter(1 << 16);
  readonly #encoders = new Map<number, RectangleEncoder>();
  #input: Buffer = Buffer.alloc(0);
  #wanted = 0;
  #features: Features = { ...NO_FEATURES };
  #format = PixelFormat.default();
  #encoding: number = ENCODING.RAW;
  #level = DEFAULT_LEVEL;
  #width = 0;
  #height = 0;
  #initialized = false;
  /** The client has asked for an update and not got one yet. */
  #waiting = false;
  #absolute: boolean | undefined;
  #audio: VncAudio | undefined;

  constructor(server: VncServer, stream: Duplex, address: VncAddress, entry: VncEntry) {
    this.#server = server;
    this.#stream = stream;
    this.address = address;
    this.#entry = entry;
    this.#peer = entry.secured?.peer;
    this.#pointer = new ClientPointer(server.input);
    this.#listen(stream);
  }

  #listen(stream: Duplex): void {
    stream.on('data', this.#onData);
    stream.on('error', () => this.close());
    stream.on('close', () => this.close());
    stream.on('drain', () => this.#server.wake());
  }
  readonly #onData = (chunk: Buffer): void => this.#received(chunk);

  /** Where it is and who: QAPI VncClientInfo. */
  get information(): VncAddress & { readonly x509_dname?: string } {
    return this.#peer === undefined ? this.address : { ...this.address, x509_dname: this.#peer };
  }

  /** Begins the conversation. */
  start(): void {
    this.#advance(undefined);
  }

  get initialized(): boolean {
    return this.#initialized;
  }

  close(): void {
    if (this.share === 'gone') return;
    this.share = 'gone';
    this.#audio?.dispose();
    this.#stream.destroy();
    this.#server.left(this);
  }

  /** Whether the client could be sent an update now. */
  get wantsUpdate(): boolean {
    return this.#waiting && this.#stream.writableLength <= this.#width * this.#height * 4;
  }

  // What the server tells

  /** The picture has another size. */
  resized(width: number, height: number): void {
    this.damage.resize(width, height);
    if (!this.#initialized) return;
    const { desktopSize, extendedDesktopSize } = this.#features;
    if (!desktopSize && !extendedDesktopSize) return;
    if (this.#width === width && this.#height === height) return;
    this.#width = width;
    this.#height = height;
    if (extendedDesktopSize) this.#sendDesktopSize(RESIZE.OK);
    else this.#pseudoRectangle(0, 0, width, height, ENCODING.DESKTOP_SIZE);
    this.#flush();
  }

  /** Sends what the client has not seen, if it waits for that. Returns how many rectangles went. */
  update(surface: Surface): number {
    if (!this.wantsUpdate || this.damage.empty) return 0;
    this.#waiting = false;
    const width = Math.min(this.#width, surface.width);
    const height = Math.min(this.#height, surface.height);
    const encoder = this.#encoder();
    const out = this.#out.u8(SERVER.UPDATE).u8(0);
    const countAt = out.length;
    out.u16(0);
    let count = 0;
    for (const { x, y, width: w, height: h } of this.damage.take(width, height)) {
      const wide = Math.min(w, encoder.maxWidth);
      const high = Math.max(1, Math.min(h, Math.floor(encoder.maxPixels / wide)));
      for (let top = y; top < y + h; top += high) {
        for (let left = x; left < x + w; left += wide) {
          const columns = Math.min(wide, x + w - left);
          const rows = Math.min(high, y + h - top);
          this.#rectangle(left, top, columns, rows, encoder.encoding);
          encoder.encode(out, this.#format.block(surface, left, top, columns, rows), this.#format, this.#level);
          count++;
        }
      }
    }
    out.patch16(countAt, count);
    this.#flush();
    return count;
  }

  cursorChanged(cursor: CursorImage | undefined): void {
    if (!this.#initialized || cursor === undefined) return;
    const { width, height, hotX, hotY, pixels } = cursor;
    if (this.#features.alphaCursor) {
      this.#pseudoRectangle(hotX, hotY, width, height, ENCODING.ALPHA_CURSOR);
      this.#out.u32(ENCODING.RAW);
      for (const pixel of pixels) writePremultiplied(this.#out, pixel);
    } else if (this.#features.richCursor) {
      this.#pseudoRectangle(hotX, hotY, width, height, ENCODING.RICH_CURSOR);
      for (const pixel of pixels) this.#format.write(this.#out, this.#format.convert(pixel & 0xff_ffff));
      writeMask(this.#out, cursor);
    }
    this.#flush();
  }

  ledsChanged(leds: number): void {
    if (!this.#initialized || !this.#features.ledState) return;
    this.#pseudoRectangle(0, 0, 1, 1, ENCODING.LED_STATE);
    this.#out.u8(leds);
    this.#flush();
  }

  pointerModeChanged(absolute: boolean): void {
    if (this.#features.pointerTypeChange && this.#absolute !== absolute) {
      this.#pseudoRectangle(absolute ? 1 : 0, 0, this.#width, this.#height, ENCODING.POINTER_TYPE_CHANGE);
      this.#flush();
    }
    this.#absolute = absolute;
  }

  /** Audio messages: an operation, and samples where it is data. */
  sendAudio(operation: number, samples?: Uint8Array): void {
    // A client that does not read misses sound rather than getting it late.
    if (samples !== undefined && this.#stream.writableLength > this.#width * this.#height * 4) return;
    this.#out.u8(SERVER.QEMU).u8(QEMU_MESSAGE.AUDIO).u16(operation);
    if (samples !== undefined) this.#out.u32(samples.length).bytes(samples);
    this.#flush();
  }

  // The conversation: each `yield` says how many bytes come next

  #received(chunk: Buffer): void {
    this.#input = this.#input.length === 0 ? chunk : Buffer.concat([this.#input, chunk]);
    while (this.share !== 'gone' && this.#input.length >= this.#wanted) {
      const bytes = this.#input.subarray(0, this.#wanted);
      this.#input = this.#input.subarray(this.#wanted);
      this.#advance(bytes);
    }
  }

  #advance(bytes: Buffer | undefined): void {
    try {
      const { value, done } =
        bytes === undefined ? this.#conversation.next(Buffer.alloc(0)) : this.#conversation.next(bytes);
      if (done) this.#hangUp();
      else this.#wanted = value;
      if (value === SECURE) void this.#secure();
    } catch (error) {
      if (!(error instanceof EndOfConversation)) throw error;
      this.#hangUp();
    }
  }

  /** Goes on in a TLS session; what came in the clear behind the last answer is nobody's. */
  async #secure(): Promise<void> {
    const { tls } = this.#server.options;
    const plain = this.#stream.off('data', this.#onData).pause();
    if (tls === undefined || this.#input.length > 0) {
      this.#hangUp();
      return;
    }
    try {
      const { session, peer } = await tls.secure(plain);
      this.#stream = session;
      this.#peer = peer;
    } catch {
      // As by QEMU, the connection just ends.
      this.close();
      return;
    }
    if (this.share === 'gone') {
      this.#stream.destroy();
      return;
    }
    this.#listen(this.#stream);
    this.#advance(undefined);
  }

  /** Ends the connection once what was written has gone. */
  #hangUp(): void {
    this.#stream.end();
    this.close();
  }

  *#converse(): Generator<number, void, Buffer> {
    yield* new Handshake(this.#server, this.#entry, this.#out, () => this.#flush()).run();
    const [shared] = yield 1;
    if (!this.#server.admit(this, shared !== 0)) return;
    this.#welcome();
    for (;;) yield* this.#message();
  }

  #welcome(): void {
    const { width, height } = this.#server.reference;
    this.#width = width;
    this.#height = height;
    this.damage.resize(width, height);
    this.#out.u16(width).u16(height);
    this.#format.describe(this.#out);
    const name = Buffer.from(this.#server.name, 'utf8');
    this.#out.u32(name.length).bytes(name);
    this.#flush();
    this.#initialized = true;
    this.#server.initialized(this);
  }

  *#message(): Generator<number, void, Buffer> {
    const [type = 0] = yield 1;
    if (type > CLIENT.UPDATE_REQUEST) this.#server.active();
    switch (type) {
      case CLIENT.SET_PIXEL_FORMAT:
        this.#setPixelFormat(yield 19);
        break;
      case CLIENT.SET_ENCODINGS: {
        const count = (yield 3).readUInt16BE(1);
        if (count > 0) this.#setEncodings(yield count * 4);
        break;
      }
      case CLIENT.UPDATE_REQUEST:
        this.#requestUpdate(yield 9);
        break;
      case CLIENT.KEY: {
        const event = yield 7;
        this.#server.keyboard.keysym(event.readUInt32BE(3), event[0] !== 0, this.#features.ledState);
        break;
      }
      case CLIENT.POINTER: {
        const event = yield 5;
        this.#movePointer(event[0] ?? 0, event.readUInt16BE(1), event.readUInt16BE(3));
        break;
      }
      case CLIENT.CUT_TEXT:
        yield* this.#cutText();
        break;
      case CLIENT.XVP:
        this.#power(yield 3);
        break;
      case CLIENT.SET_DESKTOP_SIZE:
        yield* this.#setDesktopSize();
        break;
      case CLIENT.QEMU:
        yield* this.#qemuMessage();
        break;
      default:
        throw new EndOfConversation();
    }
  }

  #setPixelFormat(message: Buffer): void {
    const bits = message[3] ?? 0;
    const isTrueColour = message[6] !== 0;
    if (!isTrueColour) {
      this.#format = PixelFormat.palette();
      this.#out.u8(SERVER.SET_COLOUR_MAP).u8(0).u16(0).u16(256);
      this.#format.writeColourMap(this.#out);
      this.#flush();
    } else {
      if (bits !== 8 && bits !== 16 && bits !== 32) throw new EndOfConversation();
      const component = (maxAt: number, shiftAt: number): { max: number; shift: number } => ({
        max: message.readUInt16BE(maxAt) || 255,
        shift: message[shiftAt] ?? 0,
      });
      const parts = [component(7, 13), component(9, 14), component(11, 15)] as const;
      if (parts.some(({ max, shift }) => shift > 31 || max > 255)) throw new EndOfConversation();
      this.#format = new PixelFormat(bits / 8, message[5] !== 0, ...parts);
    }
    const { width, height } = this.#server.reference;
    this.damage.resize(width, height);
    this.#server.wake();
  }

  /** The client's favourite comes first; pseudo-encodings are answered where the protocol wants that. */
  #setEncodings(list: Buffer): void {
    const features = { ...NO_FEATURES };
    this.#encoding = ENCODING.RAW;
    this.#level = DEFAULT_LEVEL;
    this.#absolute = undefined;
    const wanted = Array.from({ length: list.length / 4 }, (_, index) => list.readInt32BE(index * 4));
    for (const encoding of [...wanted].reverse()) {
      const level = encoding - ENCODING.COMPRESS_LEVEL_0;
      if (level >= 0 && level <= 9) this.#level = level;
      // ZRLE compresses better than zlib, whichever the client named first.
      else if (encoding === ENCODING.ZLIB && wanted.includes(ENCODING.ZRLE)) continue;
      else if (isPixelEncoding(encoding)) this.#encoding = encoding;
      else this.#negotiate(encoding, features);
    }
    this.#features = features;
    this.resized(this.#server.reference.width, this.#server.reference.height);
    this.pointerModeChanged(this.#server.input.absolute);
    this.ledsChanged(this.#server.input.leds);
    this.cursorChanged(this.#server.cursor);
  }

  #negotiate(encoding: number, features: Features): void {
    switch (encoding) {
      case ENCODING.DESKTOP_SIZE:
        features.desktopSize = true;
        break;
      case ENCODING.EXTENDED_DESKTOP_SIZE:
        features.extendedDesktopSize = true;
        break;
      case ENCODING.POINTER_TYPE_CHANGE:
        features.pointerTypeChange = true;
        break;
      case ENCODING.RICH_CURSOR:
        features.richCursor = true;
        break;
      case ENCODING.ALPHA_CURSOR:
        features.alphaCursor = true;
        break;
      case ENCODING.LED_STATE:
        features.ledState = true;
        break;
      case ENCODING.EXTENDED_KEY:
        this.#acknowledge(ENCODING.EXTENDED_KEY);
        break;
      case ENCODING.AUDIO:
        if (this.#server.hasAudio) this.#acknowledge(ENCODING.AUDIO);
        break;
      case ENCODING.XVP:
        if (!this.#server.powerControl) break;
        features.xvp = true;
        this.#sendXvp(XVP.INIT);
        break;
      default:
        break;
    }
  }

  #requestUpdate(message: Buffer): void {
    this.#waiting = true;
    if (message[0] === 0) {
      const [x, y, width, height] = [1, 3, 5, 7].map(at => message.readUInt16BE(at));
      this.damage.markArea({ x: x ?? 0, y: y ?? 0, width: width ?? 0, height: height ?? 0 });
      if (this.#features.extendedDesktopSize) {
        this.#sendDesktopSize(RESIZE.OK);
        this.#flush();
      }
    }
    this.#server.wake();
  }

  #movePointer(buttons: number, x: number, y: number): void {
    const { width, height } = this.#server.reference;
    const mode = this.#absolute ? 'absolute' : this.#features.pointerTypeChange ? 'movement' : 'position';
    this.#pointer.event(buttons, x, y, mode, width, height);
  }

  /** Text for the guest's clipboard, which no device of ours takes. A negative length has the extended form. */
  *#cutText(): Generator<number, void, Buffer> {
    const length = Math.abs((yield 7).readInt32BE(3));
    if (length > MAX_CUT_TEXT) throw new EndOfConversation();
    if (length > 0) yield length;
  }

  #power(message: Buffer): void {
    const [, version, action] = message;
    if (!this.#features.xvp || version !== 1) throw new EndOfConversation();
    if (action === XVP.SHUTDOWN) this.#server.power.powerdown();
    else if (action === XVP.RESET) this.#server.power.reset();
    else this.#sendXvp(XVP.FAIL);
  }

  *#setDesktopSize(): Generator<number, void, Buffer> {
    const message = yield 7;
    const screens = message[5] ?? 0;
    const [width, height] = [message.readUInt16BE(1), message.readUInt16BE(3)];
    if (screens > 0) yield screens * 16;
    this.#sendDesktopSize(this.#server.suggestSize(width, height) ? RESIZE.FORWARDED : RESIZE.INVALID_LAYOUT);
    this.#flush();
  }

  *#qemuMessage(): Generator<number, void, Buffer> {
    const [type] = yield 1;
    if (type === QEMU_MESSAGE.EXTENDED_KEY) {
      const event = yield 10;
      const [down, keysym, number] = [event.readUInt16BE(0) !== 0, event.readUInt32BE(2), event.readUInt32BE(6)];
      this.#server.keyboard.number(number, keysym, down, this.#features.ledState);
      return;
    }
    if (type !== QEMU_MESSAGE.AUDIO) throw new EndOfConversation();
    this.#audio ??= this.#server.openAudio(this);
    const operation = (yield 2).readUInt16BE(0);
    if (operation === AUDIO_REQUEST.ENABLE) this.#audio?.enable();
    else if (operation === AUDIO_REQUEST.DISABLE) this.#audio?.disable();
    else if (operation === AUDIO_REQUEST.SET_FORMAT) this.#setAudioFormat(yield 6);
    else throw new EndOfConversation();
  }

  #setAudioFormat(message: Buffer): void {
    const formats: readonly AudioFormat['format'][] = ['u8', 's8', 'u16', 's16', 'u32', 's32'];
    const format = formats[message[0] ?? formats.length];
    const channels = message[1] ?? 0;
    const frequency = message.readUInt32BE(2);
    if (format === undefined || channels < 1 || channels > 2 || frequency === 0 || frequency > 48_000)
      throw new EndOfConversation();
    this.#audio?.setFormat({ format, channels, frequency });
  }

  // Messages

  #encoder(): RectangleEncoder {
    const known = this.#encoders.get(this.#encoding) ?? newEncoder(this.#encoding);
    if (known === undefined) throw new Error(`no encoder ${this.#encoding}`);
    this.#encoders.set(this.#encoding, known);
    return known;
  }

  #rectangle(x: number, y: number, width: number, height: number, encoding: number): void {
    this.#out.u16(x).u16(y).u16(width).u16(height).u32(encoding);
  }

  /** An update of one rectangle that means something else than pixels. */
  #pseudoRectangle(x: number, y: number, width: number, height: number, encoding: number): void {
    this.#out.u8(SERVER.UPDATE).u8(0).u16(1);
    this.#rectangle(x, y, width, height, encoding);
  }

  #acknowledge(encoding: number): void {
    this.#pseudoRectangle(0, 0, this.#width, this.#height, encoding);
    this.#flush();
  }

  /** The size with its one screen; `reason` is 0, or why the client's wish came to this. */
  #sendDesktopSize(reason: number): void {
    this.#pseudoRectangle(reason === 0 ? 0 : 1, reason, this.#width, this.#height, ENCODING.EXTENDED_DESKTOP_SIZE);
    this.#out.u8(1).zeros(3).u32(0).u16(0).u16(0).u16(this.#width).u16(this.#height).u32(0);
  }

  #sendXvp(code: number): void {
    this.#out.u8(SERVER.XVP).u8(0).u8(1).u8(code);
    this.#flush();
  }

  #flush(): void {
    if (this.#out.length === 0 || this.share === 'gone') return;
    this.#stream.write(this.#out.take());
    const limit = Math.max(1 << 20, this.#width * this.#height * 4) * MAX_UNREAD_PICTURES;
    if (this.#stream.writableLength > limit) this.close();
  }
}

/** Red, green, blue and alpha, the first three multiplied by the last. */
function writePremultiplied(out: ByteWriter, pixel: number): void {
  const alpha = pixel >>> 24;
  for (const shift of [16, 8, 0]) out.u8(Math.round((((pixel >>> shift) & 255) * alpha) / 255));
  out.u8(alpha);
}

/** A bit a pixel that is to be seen, each row from a new byte. */
function writeMask(out: ByteWriter, { width, height, pixels }: CursorImage): void {
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x += 8) {
      let byte = 0;
      for (let bit = 0; bit < 8 && x + bit < width; bit++)
        if ((pixels[y * width + x + bit] ?? 0) >>> 24 >= 0x80) byte |= 0x80 >> bit;
      out.u8(byte);
    }
  }
}
