import net from 'node:net';
import { connectFailure } from '../../host/connect-failure.ts';
import type { BlockDriver, OpenContext } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError, errno, IoError, reason } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import { BlockNode } from '../node.ts';
import type { BlockOptions } from '../options.ts';
import type { Maybe, Pending } from '../pending.ts';
import { type BlockStatus, type NodeSettings, writeFlag } from '../requests.ts';
import {
  CHUNK_DONE,
  chunk,
  command,
  commandFlag,
  extent,
  handshakeFlag,
  INIT_MAGIC,
  info,
  MAX_PAYLOAD,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  option,
  REQUEST_MAGIC,
  reply,
  type Secure,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
  transmissionFlag,
  Wire,
} from './protocol.ts';

const DEFAULT_PORT = 10809;
/** More than this from a server is no answer to us, in bytes. */
const MAX_REPLY = 64 << 10;
const CONTEXT = 'base:allocation';

interface Negotiated {
  readonly size: number;
  readonly flags: number;
  readonly structured: boolean;
  /** The server's number for `base:allocation`, or for the bitmap that is looked at in its place. */
  readonly context: number | undefined;
}

interface Request {
  readonly type: number;
  readonly offset: number;
  readonly length: number;
  /** Where what is read goes. */
  readonly buffer: Uint8Array | undefined;
  readonly extents: { bytes: number; flags: number }[];
  error: number;
  finish(error?: unknown): void;
}

/** A disk that an NBD server serves. */
class NbdNode extends BlockNode {
  readonly #wire: Wire;
  readonly #export: Negotiated;
  readonly #requests = new Map<bigint, Request>();
  #cookie = 0n;

  constructor(graph: BlockGraph, settings: NodeSettings, wire: Wire, negotiated: Negotiated) {
    super(graph, nbdDriver, settings);
    this.#wire = wire;
    this.#export = negotiated;
    this.maxTransfer = MAX_PAYLOAD;
    void this.#receive();
  }

  override get length(): number {
    return Math.ceil(this.#export.size / 512) * 512;
  }

  #has(flag: number): boolean {
    return (this.#export.flags & flag) !== 0;
  }

  async #receive(): Promise<void> {
    let failure: unknown;
    try {
      for (;;) await this.#receiveReply();
    } catch (error) {
      failure = error;
    }
    this.#wire.destroy();
    for (const request of this.#requests.values())
      request.finish(failure instanceof IoError ? failure : new IoError(errno.EIO));
    this.#requests.clear();
  }

  async #receiveReply(): Promise<void> {
    const magic = (await this.#wire.read(4)).readUInt32BE(0);
    if (magic === SIMPLE_REPLY_MAGIC) {
      const rest = await this.#wire.read(12);
      const error = rest.readUInt32BE(0);
      const request = this.#find(rest.readBigUInt64BE(4));
      if (error === 0 && request.buffer !== undefined) request.buffer.set(await this.#wire.read(request.length));
      request.finish(error === 0 ? undefined : new IoError(error));
      return;
    }
    if (magic !== STRUCTURED_REPLY_MAGIC || !this.#export.structured) throw new IoError(errno.EPROTO);
    const rest = await this.#wire.read(16);
    const flags = rest.readUInt16BE(0);
    const type = rest.readUInt16BE(2);
    const request = this.#find(rest.readBigUInt64BE(4), false);
    await this.#receiveChunk(request, type, rest.readUInt32BE(12));
    if ((flags & CHUNK_DONE) === 0) return;
    this.#requests.delete(rest.readBigUInt64BE(4));
    request.finish(request.error === 0 ? undefined : new IoError(request.error));
  }

  #find(cookie: bigint, last = true): Request {
    const request = this.#requests.get(cookie);
    if (request === undefined) throw new IoError(errno.EPROTO);
    if (last) this.#requests.delete(cookie);
    return request;
  }

  async #receiveChunk(request: Request, type: number, length: number): Promise<void> {
    if (length > MAX_PAYLOAD + 8) throw new IoError(errno.EPROTO);
    const inside = (offset: number, bytes: number): number => {
      const at = offset - request.offset;
      if (request.buffer === undefined || at < 0 || at + bytes > request.length) throw new IoError(errno.EPROTO);
      return at;
    };
    switch (type) {
      case chunk.NONE:
        await this.#wire.skip(length);
        return;
      case chunk.OFFSET_DATA: {
        if (length < 8) throw new IoError(errno.EPROTO);
        const offset = Number((await this.#wire.read(8)).readBigUInt64BE(0));
        const at = inside(offset, length - 8);
        request.buffer?.set(await this.#wire.read(length - 8), at);
        return;
      }
      case chunk.OFFSET_HOLE: {
        if (length !== 12) throw new IoError(errno.EPROTO);
        const hole = await this.#wire.read(12);
        const bytes = hole.readUInt32BE(8);
        const at = inside(Number(hole.readBigUInt64BE(0)), bytes);
        request.buffer?.fill(0, at, at + bytes);
        return;
      }
      case chunk.BLOCK_STATUS: {
        if (length < 12 || length > 4 + 8 * 65536) throw new IoError(errno.EPROTO);
        const data = await this.#wire.read(length);
        if (data.readUInt32BE(0) !== this.#export.context) return;
        for (let at = 4; at + 8 <= length; at += 8)
          request.extents.push({ bytes: data.readUInt32BE(at), flags: data.readUInt32BE(at + 4) });
        return;
      }
      default: {
        const data = length > MAX_REPLY ? undefined : await this.#wire.read(length);
        if (data === undefined) throw new IoError(errno.EPROTO);
        if ((type & 0x8000) === 0 || length < 6) throw new IoError(errno.EPROTO);
        request.error = data.readUInt32BE(0) || errno.EIO;
      }
    }
  }

  #send(
    type: number,
    flags: number,
    offset: number,
    length: number,
    payload: readonly Uint8Array[],
    buffer?: Uint8Array,
    extents: { bytes: number; flags: number }[] = [],
  ): Promise<void> {
    if (this.#wire.closed) throw new IoError(errno.EIO);
    const cookie = ++this.#cookie;
    const header = Buffer.alloc(28);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(cookie, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    return new Promise((resolve, reject) => {
      this.#requests.set(cookie, {
        type,
        offset,
        length,
        buffer,
        extents,
        error: 0,
        finish: error => (error === undefined ? resolve() : reject(error)),
      });
      this.#wire.send(header, ...payload);
    });
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    const size = Math.min(bytes, this.#export.size - offset);
    const buffer = new Uint8Array(bytes);
    return this.#send(command.READ, 0, offset, size, [], buffer).then(() => iov.scatter(at, buffer, 0, bytes));
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    if (offset + bytes > this.#export.size) throw new IoError(errno.ENOSPC);
    // The socket may send later: the guest's memory must not be what it sends from.
    const copy = new Uint8Array(bytes);
    iov.gather(at, copy, 0, bytes);
    return this.#send(command.WRITE, 0, offset, bytes, [copy]);
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    if (!this.#has(transmissionFlag.SEND_WRITE_ZEROES)) throw new IoError(errno.EOPNOTSUPP);
    const hole = (flags & writeFlag.MAY_UNMAP) !== 0 ? 0 : commandFlag.NO_HOLE;
    return this.#ranges(bytes, (from, size) => this.#send(command.WRITE_ZEROES, hole, offset + from, size, []));
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    if (!this.#has(transmissionFlag.SEND_TRIM)) return undefined;
    return this.#ranges(bytes, (from, size) => this.#send(command.TRIM, 0, offset + from, size, []));
  }

  async #ranges(bytes: number, request: (from: number, size: number) => Promise<void>): Promise<void> {
    for (let from = 0; from < bytes; from += 1 << 30) await request(from, Math.min(1 << 30, bytes - from));
  }

  protected override flushToDisk(): Pending {
    if (!this.#has(transmissionFlag.SEND_FLUSH)) return undefined;
    return this.#send(command.FLUSH, 0, 0, 0, []);
  }

  protected override pstatus(offset: number, bytes: number): Maybe<BlockStatus> {
    const plain = { bytes, allocated: true, data: true, zero: false, offset, file: this };
    if (this.#export.context === undefined) return plain;
    const size = Math.min(bytes, this.#export.size - offset, 2 ** 31);
    const extents: { bytes: number; flags: number }[] = [];
    return this.#send(command.BLOCK_STATUS, commandFlag.REQ_ONE, offset, size, [], undefined, extents).then(() => {
      const [first] = extents;
      if (first === undefined || first.bytes === 0) return plain;
      const zero = (first.flags & extent.ZERO) !== 0;
      return { ...plain, bytes: Math.min(bytes, first.bytes), data: (first.flags & extent.HOLE) === 0, zero };
    });
  }

  protected override async pclose(): Promise<void> {
    if (this.#wire.closed) return;
    const header = Buffer.alloc(28);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(command.DISC, 6);
    this.#wire.send(header);
    await this.#wire.drained();
    this.#wire.end();
  }
}

/** Agrees with the server on what is exported, and how. */
async function negotiate(
  wire: Wire,
  name: string,
  contextName: string,
  secure: Secure | undefined,
): Promise<Negotiated> {
  const greeting = await wire.read(18);
  if (greeting.readBigUInt64BE(0) !== INIT_MAGIC) throw new BlockError('Bad initial magic received');
  if (greeting.readBigUInt64BE(8) !== OPTION_MAGIC) throw new BlockError('Bad server magic received');
  const flags = greeting.readUInt16BE(16);
  if ((flags & handshakeFlag.FIXED_NEWSTYLE) === 0)
    throw new BlockError('The server does not support fixed newstyle negotiation');
  const ours = Buffer.alloc(4);
  ours.writeUInt32BE(flags & (handshakeFlag.FIXED_NEWSTYLE | handshakeFlag.NO_ZEROES), 0);
  wire.send(ours);
  if (secure !== undefined) await startTls(wire, secure);
  const structured = (await ask(wire, option.STRUCTURED_REPLY, Buffer.alloc(0))).type === reply.ACK;
  const bytes = Buffer.from(name);
  let context: number | undefined;
  if (structured) {
    const wanted = Buffer.from(contextName);
    const data = Buffer.alloc(12 + bytes.length + wanted.length);
    data.writeUInt32BE(bytes.length, 0);
    bytes.copy(data, 4);
    data.writeUInt32BE(1, 4 + bytes.length);
    data.writeUInt32BE(wanted.length, 8 + bytes.length);
    wanted.copy(data, 12 + bytes.length);
    const answer = await ask(wire, option.SET_META_CONTEXT, data);
    for (const part of answer.parts) {
      if (part.type === reply.META_CONTEXT && part.data.toString('utf8', 4) === contextName)
        context = part.data.readUInt32BE(0);
    }
  }
  const data = Buffer.alloc(8 + bytes.length);
  data.writeUInt32BE(bytes.length, 0);
  bytes.copy(data, 4);
  data.writeUInt16BE(1, 4 + bytes.length);
  data.writeUInt16BE(info.BLOCK_SIZE, 6 + bytes.length);
  const answer = await ask(wire, option.GO, data);
  if (answer.type !== reply.ACK) throw refusal(answer, 'go', option.GO);
  for (const part of answer.parts) {
    if (part.type !== reply.INFO || part.data.length < 12 || part.data.readUInt16BE(0) !== info.EXPORT) continue;
    const size = Number(part.data.readBigUInt64BE(2));
    if (!Number.isSafeInteger(size)) throw new BlockError('The export is too large');
    return { size, flags: part.data.readUInt16BE(10), structured, context };
  }
  throw new BlockError('The server did not say how large the export is');
}

/** Nothing is said in the clear that TLS is there for. */
async function startTls(wire: Wire, secure: Secure): Promise<void> {
  const answer = await ask(wire, option.STARTTLS, Buffer.alloc(0));
  if (answer.type === reply.ERR_UNSUP) throw new BlockError("Server don't support STARTTLS option");
  if (answer.type !== reply.ACK) throw refusal(answer, 'starttls', option.STARTTLS);
  await wire.secure(secure);
}

function refusal({ type, text }: Answer, name: string, code: number): BlockError {
  switch (type) {
    case reply.ERR_UNKNOWN:
      return new BlockError('Requested export not available');
    case reply.ERR_POLICY:
      return new BlockError(`Denied by server for option ${code} (${name})`);
    case reply.ERR_TLS_REQD:
      return new BlockError(`TLS negotiation required before option ${code} (${name})`, {
        hint: 'Did you forget a valid tls-creds?',
      });
    default:
      return new BlockError(`NBD server refused the export: ${text === '' ? `error ${type.toString(16)}` : text}`);
  }
}

interface Answer {
  readonly type: number;
  readonly text: string;
  readonly parts: readonly { readonly type: number; readonly data: Buffer }[];
}

async function ask(wire: Wire, code: number, data: Buffer): Promise<Answer> {
  const header = Buffer.alloc(16);
  header.writeBigUInt64BE(OPTION_MAGIC, 0);
  header.writeUInt32BE(code, 8);
  header.writeUInt32BE(data.length, 12);
  wire.send(header, data);
  const parts: { readonly type: number; readonly data: Buffer }[] = [];
  for (;;) {
    const answer = await wire.read(20);
    const length = answer.readUInt32BE(16);
    if (
      answer.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC ||
      answer.readUInt32BE(8) !== code ||
      length > MAX_REPLY ||
      parts.length > 1000
    ) {
      throw new BlockError('Unexpected option reply');
    }
    const type = answer.readUInt32BE(12);
    const body = Buffer.from(await wire.read(length));
    if (type === reply.ACK || type >= 0x8000_0000) return { type, text: body.toString('utf8'), parts };
    parts.push({ type, data: body });
  }
}

interface Place {
  readonly path: string | undefined;
  readonly host: string | undefined;
  readonly port: number;
}

function takePlace(options: BlockOptions): Place {
  const type = options.choice('server.type', ['inet', 'unix', 'fd', 'vsock']);
  const path = options.string('server.path') ?? options.string('path');
  const host = options.string('server.host') ?? options.string('host');
  const port = options.string('server.port') ?? options.string('port');
  for (const key of ['server.numeric', 'server.to', 'server.ipv4', 'server.ipv6', 'server.keep-alive'])
    options.delete(key);
  if (type === 'fd' || type === 'vsock') throw new BlockError(`NBD over ${type} sockets is not supported`);
  if (path !== undefined && host !== undefined) throw new BlockError('path and host may not be used at the same time');
  if (path === undefined && host === undefined) throw new BlockError('one of path and host must be specified');
  return { path, host, port: port === undefined ? DEFAULT_PORT : Number(port) };
}

async function connect(place: Place): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = place.path !== undefined ? net.connect(place.path) : net.connect(place.port, place.host);
    const failed = (error: Error): void => {
      const where = place.path ?? `${place.host}:${place.port}`;
      reject(new BlockError(connectFailure(where, error), { cause: error }));
    };
    socket.once('error', failed);
    socket.once('connect', () => {
      socket.off('error', failed);
      resolve(socket);
    });
  });
}

async function open(context: OpenContext): Promise<BlockNode> {
  const { options, settings, graph } = context;
  const place = takePlace(options);
  const name = options.string('export') ?? '';
  options.number('reconnect-delay');
  options.number('open-timeout');
  const dirtyBitmap = options.string('x-dirty-bitmap');
  // Without credentials there is nobody to compare the name with; libvirt gives it in any case.
  const hostname = options.string('tls-hostname') ?? place.host;
  const creds = options.string('tls-creds');
  const secure = creds === undefined ? undefined : await graph.tlsClient(creds, hostname);
  const wire = new Wire(await connect(place));
  try {
    const negotiated = await negotiate(wire, name, dirtyBitmap ?? CONTEXT, secure);
    if (dirtyBitmap !== undefined && negotiated.context === undefined)
      throw new BlockError(`requested x-dirty-bitmap ${dirtyBitmap} not found`);
    if ((negotiated.flags & transmissionFlag.READ_ONLY) !== 0 && !settings.readOnly) {
      if (!settings.autoReadOnly) throw new BlockError('request on denied for write access: the export is read-only');
      settings.readOnly = true;
    }
    const node = new NbdNode(graph, settings, wire, negotiated);
    node.filename =
      place.path !== undefined
        ? `nbd+unix:///${name}?socket=${place.path}`
        : `nbd://${place.host}:${place.port}${name === '' ? '' : `/${name}`}`;
    return node;
  } catch (error) {
    wire.destroy();
    throw error instanceof IoError
      ? new BlockError(`NBD negotiation failed: ${reason(error)}`, { cause: error })
      : error;
  }
}

/** `nbd:unix:PATH:exportname=NAME`, `nbd:HOST:PORT`, `nbd://HOST:PORT/NAME`, `nbd+unix:///NAME?socket=PATH`. */
function parseFilename(filename: string, options: BlockOptions): void {
  if (/^nbd(\+tcp|\+unix)?:\/\//.test(filename)) {
    const unix = filename.startsWith('nbd+unix:');
    const url = new URL(filename.replace(/^nbd(\+tcp|\+unix)?:/, 'http:').replace('http:///', 'http://local/'));
    const name = decodeURIComponent(url.pathname.slice(1));
    if (name !== '') options.set('export', name);
    if (unix) {
      const path = url.searchParams.get('socket');
      if (path === null) throw new BlockError('No valid URL specified');
      options.set('server.type', 'unix').set('server.path', path);
    } else {
      options
        .set('server.type', 'inet')
        .set('server.host', url.hostname)
        .set('server.port', url.port === '' ? `${DEFAULT_PORT}` : url.port);
    }
    return;
  }
  const [address = '', name] = filename.replace(/^nbd:/, '').split(':exportname=');
  if (name !== undefined && name !== '') options.set('export', name);
  if (address.startsWith('unix:')) {
    options.set('server.type', 'unix').set('server.path', address.slice(5));
    return;
  }
  const colon = address.lastIndexOf(':');
  if (colon < 0) throw new BlockError('No valid URL specified');
  options
    .set('server.type', 'inet')
    .set('server.host', address.slice(0, colon))
    .set('server.port', address.slice(colon + 1));
}

export const nbdDriver: BlockDriver = {
  name: 'nbd',
  kind: 'protocol',
  schemes: ['nbd', 'nbd+tcp', 'nbd+unix'],
  parseFilename,
  open,
};
