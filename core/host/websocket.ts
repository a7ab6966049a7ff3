import { createHash } from 'node:crypto';
import { Duplex } from 'node:stream';
import { SouthbridgeError } from '../errors.ts';

/** What makes a key an answer (RFC 6455, section 1.3). */
const ACCEPT_SUFFIX = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const MAX_REQUEST = 4096;
const MAX_FRAME = 1 << 24;
const OPCODE = { CONTINUATION: 0, TEXT: 1, BINARY: 2, CLOSE: 8, PING: 9, PONG: 10 } as const;
const FIN = 0x80;
const MASKED = 0x80;

/** The server's side of a WebSocket over a stream. Rejects with ERR_WEBSOCKET where the client's handshake is none. */
export async function acceptWebSocket(socket: Duplex): Promise<WebSocketStream> {
  const stream = new WebSocketStream(socket);
  await new Promise<void>((resolve, reject) => {
    const failed = (): void =>
      reject(new SouthbridgeError('ERR_WEBSOCKET', 'the client has not asked for a WebSocket'));
    stream.once('open', resolve).once('close', failed);
  });
  return stream;
}

/**
 * A stream in the messages of a WebSocket (RFC 6455): the server's side, after the handshake that it makes by itself, which
 * the event `open` tells of.
 */
export class WebSocketStream extends Duplex {
  readonly #socket: Duplex;
  #pending: Buffer = Buffer.alloc(0);
  #open = false;
  readonly #queued: (() => void)[] = [];

  constructor(socket: Duplex) {
    super({ allowHalfOpen: false });
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#received(chunk));
    socket.on('end', () => this.push(null));
    socket.on('error', error => this.destroy(error));
    socket.on('close', () => this.destroy());
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const send = (): void => void this.#socket.write(frame(OPCODE.BINARY, chunk), done);
    if (this.#open) send();
    else this.#queued.push(send);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end(this.#open ? frame(OPCODE.CLOSE, Buffer.alloc(0)) : undefined, () => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  #received(chunk: Buffer): void {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    if (!this.#open && !this.#shakeHands()) return;
    while (this.#takeFrame());
  }

  /** RFC 6455, section 4.2: an upgrade request with a key; a client that names subprotocols must know `binary`. */
  #shakeHands(): boolean {
    const end = this.#pending.indexOf('\r\n\r\n');
    if (end < 0) {
      if (this.#pending.length > MAX_REQUEST) this.#refuse('413 Request Entity Too Large');
      return false;
    }
    const [request = '', ...lines] = this.#pending.subarray(0, end).toString('latin1').split('\r\n');
    this.#pending = this.#pending.subarray(end + 4);
    const headers = new Map<string, string>();
    for (const line of lines) {
      const colon = line.indexOf(':');
      if (colon > 0) headers.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
    }
    const key = headers.get('sec-websocket-key');
    const protocols = headers.get('sec-websocket-protocol')?.split(/\s*,\s*/);
    const upgrades = headers.get('upgrade')?.toLowerCase() === 'websocket';
    if (!request.startsWith('GET ') || key === undefined || !upgrades || (protocols && !protocols.includes('binary'))) {
      this.#refuse('400 Bad Request');
      return false;
    }
    const accept = createHash('sha1').update(`${key}${ACCEPT_SUFFIX}`).digest('base64');
    this.#socket.write(
      [
        'HTTP/1.1 101 Switching Protocols',
        'Upgrade: websocket',
        'Connection: Upgrade',
        `Sec-WebSocket-Accept: ${accept}`,
        ...(protocols ? ['Sec-WebSocket-Protocol: binary'] : []),
        '\r\n',
      ].join('\r\n'),
    );
    this.#open = true;
    for (const send of this.#queued.splice(0)) send();
    this.emit('open');
    return true;
  }

  #refuse(status: string): void {
    this.#socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
    this.push(null);
  }

  /** Takes one whole frame, if it is there (section 5.2). A client's frames are masked. */
  #takeFrame(): boolean {
    const bytes = this.#pending;
    if (bytes.length < 2) return false;
    const opcode = (bytes[0] ?? 0) & 0x0f;
    const short = (bytes[1] ?? 0) & 0x7f;
    const header = short === 126 ? 4 : short === 127 ? 10 : 2;
    if (bytes.length < header + 4) return false;
    const length = short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short;
    if (((bytes[1] ?? 0) & MASKED) === 0 || length > MAX_FRAME) {
      this.destroy();
      return false;
    }
    if (bytes.length < header + 4 + length) return false;
    const payload = Buffer.from(bytes.subarray(header + 4, header + 4 + length));
    for (let index = 0; index < length; index++)
      payload[index] = (payload[index] ?? 0) ^ (bytes[header + (index & 3)] ?? 0);
    this.#pending = bytes.subarray(header + 4 + length);
    this.#message(opcode, payload);
    return !this.destroyed;
  }

  #message(opcode: number, payload: Buffer): void {
    if (opcode === OPCODE.BINARY || opcode === OPCODE.CONTINUATION || opcode === OPCODE.TEXT) {
      if (payload.length > 0) this.push(payload);
    } else if (opcode === OPCODE.PING) {
      this.#socket.write(frame(OPCODE.PONG, payload));
    } else if (opcode === OPCODE.CLOSE) {
      this.push(null);
      this.end();
    }
  }
}

function frame(opcode: number, payload: Buffer): Buffer {
  const { length } = payload;
  const header = Buffer.alloc(length < 126 ? 2 : length < 0x1_0000 ? 4 : 10);
  header[0] = FIN | opcode;
  header[1] = length < 126 ? length : length < 0x1_0000 ? 126 : 127;
  if (header.length === 4) header.writeUInt16BE(length, 2);
  else if (header.length === 10) header.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([header, payload]);
}
