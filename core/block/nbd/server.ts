import net from 'node:net';
import { BlockBackend } from '../backend.ts';
import type { DirtyBitmap } from '../dirty-bitmap.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError, errno, errnoOf, errnoText, reason } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import type { BlockNode } from '../node.ts';
import { PERM_ALL, perm } from '../permissions.ts';
import { writeFlag } from '../requests.ts';
import { allocationDepth, baseAllocation, describe, dirtyBitmap, type MetaContext } from './meta-context.ts';
import {
  CHUNK_DONE,
  chunk,
  command,
  commandFlag,
  handshakeFlag,
  INIT_MAGIC,
  info,
  MAX_NAME,
  MAX_PAYLOAD,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  option,
  REQUEST_MAGIC,
  reply,
  type Secure,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
  shortName,
  transmissionFlag,
  Wire,
  wireError,
} from './protocol.ts';

/** No client has more requests under way than this. */
const MAX_REQUESTS = 16;
/** The most extents in one answer. */
const MAX_EXTENTS = 4096;

/** A node that clients can attach. */
export interface NbdExport {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly backend: BlockBackend;
  readonly writable: boolean;
  /** What clients may ask about stretches of it. The index is the number that a context has on the wire. */
  readonly contexts: readonly MetaContext[];
  readonly bitmaps: readonly DirtyBitmap[];
}

export interface ExportOptions {
  readonly id: string;
  readonly name?: string | undefined;
  readonly description?: string | undefined;
  readonly writable?: boolean | undefined;
  /** Clients do not hear of a write before it is safe. */
  readonly writethrough?: boolean | undefined;
  /** Finds the dirty bitmaps that clients may read; none of them may be in use. */
  readonly bitmaps?: (writable: boolean) => readonly DirtyBitmap[];
  /** Clients may ask how deep in the chain of images a stretch lies. */
  readonly allocationDepth?: boolean | undefined;
}

export interface ServerOptions {
  /** Clients at a time; 0 for no limit. */
  readonly maxConnections?: number;
  /** Clients have to speak TLS. */
  readonly secure?: Secure | undefined;
}

/** Serves nodes to NBD clients: fixed newstyle negotiation, structured replies, metadata contexts. */
export class NbdServer {
  readonly #graph: BlockGraph;
  readonly #server: net.Server;
  readonly #exports = new Map<string, NbdExport>();
  readonly #clients = new Set<Connection>();
  /** Clients at a time; 0 for no limit. */
  readonly maxConnections: number;
  readonly #secure: Secure | undefined;

  private constructor(graph: BlockGraph, server: net.Server, { maxConnections = 0, secure }: ServerOptions) {
    this.#graph = graph;
    this.#server = server;
    this.maxConnections = maxConnections;
    this.#secure = secure;
    server.on('connection', socket => this.#accept(socket));
  }

  /** Listens at `{path}` or `{host, port}`. */
  static async listen(graph: BlockGraph, address: net.ListenOptions, options: ServerOptions = {}): Promise<NbdServer> {
    const server = net.createServer();
    const nbd = new NbdServer(graph, server, options);
    await new Promise<void>((resolve, reject) => {
      server.once('error', error => {
        const where = address.path ?? `${address.host ?? ''}:${address.port ?? 0}`;
        reject(new BlockError(`Failed to bind socket to ${where}: ${reason(error)}`, { cause: error }));
      });
      server.listen(address, resolve);
    });
    return nbd;
  }

  /** Where the server listens. */
  get address(): ReturnType<net.Server['address']> {
    return this.#server.address();
  }

  get exports(): readonly NbdExport[] {
    return [...this.#exports.values()];
  }

  /** @throws BlockError where the name is taken, the node does not allow this use, or a bitmap is not to be had */
  add(node: BlockNode, options: ExportOptions): NbdExport {
    const name = options.name ?? node.nodeName;
    const { description = '', writable = false } = options;
    // Nobody resizes what clients have.
    const backend = new BlockBackend(this.#graph, {
      perm: perm.CONSISTENT_READ | (writable ? perm.WRITE : 0),
      shared: PERM_ALL & ~perm.RESIZE,
    });
    backend.writeCache = options.writethrough !== true;
    let bitmaps: readonly DirtyBitmap[];
    try {
      backend.insert(node);
      if (Buffer.byteLength(name) > MAX_NAME) throw new BlockError(`export name '${name}' too long`);
      if (Buffer.byteLength(description) > MAX_NAME) throw new BlockError(`description '${description}' too long`);
      if (this.#exports.has(name)) throw new BlockError(`NBD server already has export named '${name}'`);
      bitmaps = options.bitmaps?.(writable) ?? [];
    } catch (error) {
      void backend.close();
      throw error;
    }
    for (const bitmap of bitmaps) bitmap.busy = true;
    const contexts = [
      baseAllocation(backend),
      ...(options.allocationDepth === true ? [allocationDepth(backend)] : []),
      ...bitmaps.map(bitmap => dirtyBitmap(bitmap)),
    ];
    const added = {
      id: options.id,
      name,
      description,
      backend,
      writable,
      contexts,
      bitmaps,
    };
    this.#exports.set(name, added);
    return added;
  }

  find(name: string): NbdExport | undefined {
    return this.#exports.get(name);
  }

  /** Ends an export. `hard`: also where a client has it. */
  async remove(wanted: NbdExport, hard: boolean): Promise<void> {
    const users = [...this.#clients].filter(client => client.export === wanted);
    if (users.length > 0 && !hard) {
      throw new BlockError(`export '${wanted.id}' still in use`, {
        hint: "Use mode='hard' to force client disconnect",
      });
    }
    for (const client of users) client.close();
    this.#exports.delete(wanted.name);
    for (const bitmap of wanted.bitmaps) bitmap.busy = false;
    await wanted.backend.close();
    this.#graph.emit({ event: 'BLOCK_EXPORT_DELETED', id: wanted.id });
  }

  async stop(): Promise<void> {
    this.#server.close();
    for (const client of this.#clients) client.close();
    for (const one of this.exports) await this.remove(one, true);
  }

  #accept(socket: net.Socket): void {
    const connection = new Connection(this, socket, this.#secure);
    this.#clients.add(connection);
    if (this.maxConnections > 0 && this.#clients.size > this.maxConnections) connection.close();
    void connection
      .serve()
      .catch(() => {})
      .finally(() => {
        connection.close();
        this.#clients.delete(connection);
      });
  }
}

class Connection {
  readonly #server: NbdServer;
  readonly #wire: Wire;
  export: NbdExport | undefined;
  #structured = false;
  /** The numbers of the contexts that the client wants to hear of. */
  #contexts: readonly number[] = [];
  #noZeroes = false;
  #requests = 0;
  #wake: () => void = () => {};
  readonly #secure: Secure | undefined;
  #secured = false;

  constructor(server: NbdServer, socket: net.Socket, secure: Secure | undefined) {
    this.#server = server;
    this.#secure = secure;
    this.#wire = new Wire(socket);
  }

  close(): void {
    this.#wire.destroy();
  }

  async serve(): Promise<void> {
    const greeting = Buffer.alloc(18);
    greeting.writeBigUInt64BE(INIT_MAGIC, 0);
    greeting.writeBigUInt64BE(OPTION_MAGIC, 8);
    greeting.writeUInt16BE(handshakeFlag.FIXED_NEWSTYLE | handshakeFlag.NO_ZEROES, 16);
    this.#wire.send(greeting);
    const flags = (await this.#wire.read(4)).readUInt32BE(0);
    if ((flags & ~(handshakeFlag.FIXED_NEWSTYLE | handshakeFlag.NO_ZEROES)) !== 0) return;
    this.#noZeroes = (flags & handshakeFlag.NO_ZEROES) !== 0;
    while (!(await this.#negotiate()));
    if (this.export !== undefined) await this.#transmit(this.export);
  }

  // Negotiation

  #reply(to: number, type: number, data: Uint8Array = Buffer.alloc(0)): void {
    const header = Buffer.alloc(20);
    header.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
    header.writeUInt32BE(to, 8);
    header.writeUInt32BE(type, 12);
    header.writeUInt32BE(data.length, 16);
    this.#wire.send(header, data);
  }

  #refuse(to: number, type: number, text: string): void {
    this.#reply(to, type, Buffer.from(text));
  }

  /** @returns whether negotiation is over */
  async #negotiate(): Promise<boolean> {
    const header = await this.#wire.read(16);
    if (header.readBigUInt64BE(0) !== OPTION_MAGIC) throw new BlockError('Bad magic received');
    const code = header.readUInt32BE(8);
    const length = header.readUInt32BE(12);
    if (length > MAX_PAYLOAD) throw new BlockError('len too big');
    if (length > 65536) {
      await this.#wire.skip(length);
      this.#refuse(code, reply.ERR_TOO_BIG, 'the option is too long');
      return false;
    }
    const data = Buffer.from(await this.#wire.read(length));
    if (this.#secure !== undefined && !this.#secured) return this.#beforeTls(code, length, this.#secure);
    switch (code) {
      case option.EXPORT_NAME:
        return this.#exportName(data);
      case option.ABORT:
        this.#reply(code, reply.ACK);
        return true;
      case option.LIST:
        for (const { name, description } of this.#server.exports) {
          const bytes = Buffer.from(name);
          const entry = Buffer.alloc(4 + bytes.length);
          entry.writeUInt32BE(bytes.length, 0);
          bytes.copy(entry, 4);
          this.#reply(code, reply.SERVER, Buffer.concat([entry, Buffer.from(description)]));
        }
        this.#reply(code, reply.ACK);
        return false;
      case option.INFO:
      case option.GO:
        return this.#go(code, data);
      case option.STRUCTURED_REPLY:
        if (length > 0) this.#refuse(code, reply.ERR_INVALID, 'no data was expected');
        else {
          this.#structured = true;
          this.#reply(code, reply.ACK);
        }
        return false;
      case option.LIST_META_CONTEXT:
      case option.SET_META_CONTEXT:
        this.#metaContext(code, data);
        return false;
      case option.STARTTLS:
        if (length > 0) this.#refuse(code, reply.ERR_INVALID, "option 'starttls' has unexpected length");
        else if (this.#secured) this.#refuse(code, reply.ERR_INVALID, 'TLS already enabled');
        else this.#refuse(code, reply.ERR_POLICY, 'TLS not configured');
        return false;
      default:
        this.#refuse(code, reply.ERR_UNSUP, `Unsupported option ${code}`);
        return false;
    }
  }

  /** In FORCEDTLS mode (NBD specification, "TLS modes") only one thing can be asked for. @returns whether negotiation is over */
  async #beforeTls(code: number, length: number, secure: Secure): Promise<boolean> {
    if (code === option.STARTTLS) {
      if (length > 0) throw new BlockError("option 'starttls' has unexpected length");
      this.#reply(code, reply.ACK);
      await this.#wire.secure(secure);
      this.#secured = true;
      return false;
    }
    // There is no way to refuse this one.
    if (code === option.EXPORT_NAME) throw new BlockError(`Option 0x${code.toString(16)} not permitted before TLS`);
    this.#refuse(code, reply.ERR_TLS_REQD, `Option 0x${code.toString(16)} not permitted before TLS`);
    return code === option.ABORT;
  }

  #flags({ writable }: NbdExport): number {
    return (
      transmissionFlag.HAS_FLAGS |
      transmissionFlag.SEND_FLUSH |
      transmissionFlag.SEND_FUA |
      transmissionFlag.SEND_CACHE |
      (this.#structured ? transmissionFlag.SEND_DF : 0) |
      // All clients share one backend, so that a flush by one covers the writes of all.
      (this.#server.maxConnections !== 1 ? transmissionFlag.CAN_MULTI_CONN : 0) |
      (writable
        ? transmissionFlag.SEND_TRIM | transmissionFlag.SEND_WRITE_ZEROES | transmissionFlag.SEND_FAST_ZERO
        : transmissionFlag.READ_ONLY)
    );
  }

  #exportName(data: Buffer): boolean {
    const found = this.#server.find(data.toString('utf8'));
    if (found === undefined) throw new BlockError('export not found');
    const answer = Buffer.alloc(this.#noZeroes ? 10 : 134);
    answer.writeBigUInt64BE(BigInt(found.backend.length), 0);
    answer.writeUInt16BE(this.#flags(found), 8);
    this.#wire.send(answer);
    this.export = found;
    return true;
  }

  #go(code: number, data: Buffer): boolean {
    const nameLength = data.length >= 6 ? data.readUInt32BE(0) : MAX_NAME + 1;
    if (nameLength > MAX_NAME || data.length < 6 + nameLength) {
      this.#refuse(code, reply.ERR_INVALID, 'the name is too long');
      return false;
    }
    const name = data.toString('utf8', 4, 4 + nameLength);
    const found = this.#server.find(name);
    if (found === undefined) {
      this.#refuse(code, reply.ERR_UNKNOWN, `export '${shortName(name)}' not present`);
      return false;
    }
    const size = Buffer.alloc(12);
    size.writeUInt16BE(info.EXPORT, 0);
    size.writeBigUInt64BE(BigInt(found.backend.length), 2);
    size.writeUInt16BE(this.#flags(found), 10);
    const blocks = Buffer.alloc(14);
    blocks.writeUInt16BE(info.BLOCK_SIZE, 0);
    blocks.writeUInt32BE(1, 2);
    blocks.writeUInt32BE(4096, 6);
    blocks.writeUInt32BE(MAX_PAYLOAD, 10);
    this.#reply(code, reply.INFO, Buffer.concat([Buffer.from([0, info.NAME]), Buffer.from(found.name)]));
    if (found.description !== '') {
      this.#reply(
        code,
        reply.INFO,
        Buffer.concat([Buffer.from([0, info.DESCRIPTION]), Buffer.from(found.description)]),
      );
    }
    this.#reply(code, reply.INFO, blocks);
    this.#reply(code, reply.INFO, size);
    this.#reply(code, reply.ACK);
    if (code === option.INFO) return false;
    this.export = found;
    return true;
  }

  #metaContext(code: number, data: Buffer): void {
    const set = code === option.SET_META_CONTEXT;
    if (set && !this.#structured) {
      this.#refuse(code, reply.ERR_INVALID, 'request option when structured reply is not negotiated');
      return;
    }
    let at = 0;
    const text = (): string | undefined => {
      if (at + 4 > data.length) return undefined;
      const length = data.readUInt32BE(at);
      at += 4;
      if (length > MAX_NAME || at + length > data.length) return undefined;
      at += length;
      return data.toString('utf8', at - length, at);
    };
    const name = text();
    if (name === undefined || at + 4 > data.length) {
      this.#refuse(code, reply.ERR_INVALID, 'the option is damaged');
      return;
    }
    const exported = this.#server.find(name);
    if (exported === undefined) {
      this.#refuse(code, reply.ERR_UNKNOWN, `export '${shortName(name)}' not present`);
      return;
    }
    const queries = data.readUInt32BE(at);
    at += 4;
    const wanted = new Set<number>(!set && queries === 0 ? exported.contexts.keys() : []);
    for (let left = queries; left > 0; left--) {
      const query = text();
      if (query === undefined) {
        this.#refuse(code, reply.ERR_INVALID, 'the option is damaged');
        return;
      }
      for (const [number, context] of exported.contexts.entries()) {
        // A list may be asked for by a namespace, or by the first part of a name that has two.
        const listed = !set && /^(base:|qemu:(dirty-bitmap:)?)$/.test(query) && context.name.startsWith(query);
        if (query === context.name || listed) wanted.add(number);
      }
    }
    if (set) this.#contexts = [...wanted].sort((a, b) => a - b);
    for (const number of [...wanted].sort((a, b) => a - b)) {
      const id = Buffer.alloc(4);
      id.writeUInt32BE(number, 0);
      this.#reply(code, reply.META_CONTEXT, Buffer.concat([id, Buffer.from(exported.contexts[number]?.name ?? '')]));
    }
    this.#reply(code, reply.ACK);
  }

  // Transmission

  async #transmit(exported: NbdExport): Promise<void> {
    for (;;) {
      while (this.#requests >= MAX_REQUESTS) {
        await new Promise<void>(resolve => {
          this.#wake = resolve;
        });
      }
      await this.#wire.drained();
      const header = await this.#wire.read(28);
      if (header.readUInt32BE(0) !== REQUEST_MAGIC) throw new BlockError('invalid magic');
      const flags = header.readUInt16BE(4);
      const type = header.readUInt16BE(6);
      const cookie = header.readBigUInt64BE(8);
      const offset = Number(header.readBigUInt64BE(16));
      const length = header.readUInt32BE(24);
      if (type === command.DISC) return;
      if (type === command.WRITE && length > MAX_PAYLOAD) throw new BlockError('len is larger than max len');
      // The data has to be copied: what the socket has handed out is its own to reuse only after we are done with it.
      const data = type === command.WRITE ? Buffer.from(await this.#wire.read(length)) : undefined;
      this.#requests++;
      void this.#execute(exported, type, flags, cookie, offset, length, data)
        .catch(() => this.close())
        .finally(() => {
          this.#requests--;
          this.#wake();
        });
    }
  }

  async #execute(
    exported: NbdExport,
    type: number,
    flags: number,
    cookie: bigint,
    offset: number,
    length: number,
    data: Buffer | undefined,
  ): Promise<void> {
    const { backend, writable } = exported;
    const changes = type === command.WRITE || type === command.TRIM || type === command.WRITE_ZEROES;
    if (changes && !writable) return this.#fail(cookie, type, errno.EPERM, 'Export is read-only');
    if (type !== command.FLUSH && !(offset + length <= backend.length)) {
      return this.#fail(
        cookie,
        type,
        type === command.WRITE || type === command.WRITE_ZEROES ? errno.ENOSPC : errno.EINVAL,
        `operation past EOF; From: ${offset}, Len: ${length}, Size: ${backend.length}`,
      );
    }
    const fua = (flags & commandFlag.FUA) !== 0;
    let status = 0;
    switch (type) {
      case command.READ: {
        if (length > MAX_PAYLOAD) return this.#fail(cookie, type, errno.EINVAL, 'len is larger than max len');
        if (fua) status = await backend.flush();
        const buffer = Buffer.allocUnsafe(length);
        if (status === 0) status = await backend.readv(offset, IoVector.of(buffer));
        if (status === 0) return this.#sendData(cookie, offset, buffer);
        return this.#fail(cookie, type, status, 'reading from file failed');
      }
      case command.WRITE:
        status = data === undefined ? errno.EINVAL : await backend.writev(offset, IoVector.of(data));
        break;
      case command.WRITE_ZEROES:
        status = await backend.writeZeroes(
          offset,
          length,
          ((flags & commandFlag.NO_HOLE) !== 0 ? 0 : writeFlag.MAY_UNMAP) |
            ((flags & commandFlag.FAST_ZERO) !== 0 ? writeFlag.NO_FALLBACK : 0),
        );
        break;
      case command.TRIM:
        status = await backend.discard(offset, length);
        break;
      case command.FLUSH:
        status = await backend.flush();
        break;
      case command.CACHE:
        break;
      case command.BLOCK_STATUS:
        return this.#blockStatus(exported, cookie, flags, offset, length);
      default:
        return this.#fail(cookie, type, errno.EINVAL, `invalid request type (${type}) received`);
    }
    if (status === 0 && fua && changes) status = await backend.flush();
    if (status !== 0) return this.#fail(cookie, type, status, errnoText(status));
    this.#succeed(cookie);
  }

  /** Answers with a chunk for each context that was negotiated. */
  async #blockStatus(
    { contexts }: NbdExport,
    cookie: bigint,
    flags: number,
    offset: number,
    length: number,
  ): Promise<void> {
    const last = this.#contexts.at(-1);
    if (length === 0 || last === undefined)
      return this.#fail(cookie, command.BLOCK_STATUS, errno.EINVAL, 'CMD_BLOCK_STATUS not negotiated');
    const most = (flags & commandFlag.REQ_ONE) !== 0 ? 1 : MAX_EXTENTS;
    const payloads: { readonly number: number; readonly payload: Buffer }[] = [];
    try {
      for (const number of this.#contexts) {
        const context = contexts[number];
        if (context === undefined) continue;
        const extents = await describe(context, offset, length, most);
        const payload = Buffer.alloc(4 + extents.length * 4);
        payload.writeUInt32BE(number, 0);
        for (const [index, value] of extents.entries()) payload.writeUInt32BE(value, 4 + index * 4);
        payloads.push({ number, payload });
      }
    } catch (error) {
      return this.#fail(cookie, command.BLOCK_STATUS, errnoOf(error), "can't get block status");
    }
    for (const { number, payload } of payloads)
      this.#wire.send(this.#chunkHeader(cookie, chunk.BLOCK_STATUS, payload.length, number === last), payload);
  }

  #chunkHeader(cookie: bigint, type: number, length: number, done = true): Buffer {
    const header = Buffer.alloc(20);
    header.writeUInt32BE(STRUCTURED_REPLY_MAGIC, 0);
    header.writeUInt16BE(done ? CHUNK_DONE : 0, 4);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(cookie, 8);
    header.writeUInt32BE(length, 16);
    return header;
  }

  #simpleReply(cookie: bigint, error: number): Buffer {
    const header = Buffer.alloc(16);
    header.writeUInt32BE(SIMPLE_REPLY_MAGIC, 0);
    header.writeUInt32BE(error, 4);
    header.writeBigUInt64BE(cookie, 8);
    return header;
  }

  #succeed(cookie: bigint): void {
    this.#wire.send(this.#simpleReply(cookie, 0));
  }

  #sendData(cookie: bigint, offset: number, data: Buffer): void {
    if (!this.#structured) {
      this.#wire.send(this.#simpleReply(cookie, 0), data);
      return;
    }
    if (data.length === 0) {
      this.#wire.send(this.#chunkHeader(cookie, chunk.NONE, 0));
      return;
    }
    const place = Buffer.alloc(8);
    place.writeBigUInt64BE(BigInt(offset), 0);
    this.#wire.send(this.#chunkHeader(cookie, chunk.OFFSET_DATA, 8 + data.length), place, data);
  }

  #fail(cookie: bigint, type: number, error: number, text: string): void {
    if (!this.#structured || (type !== command.READ && type !== command.BLOCK_STATUS)) {
      this.#wire.send(this.#simpleReply(cookie, wireError(error)));
      return;
    }
    const message = Buffer.from(text);
    const payload = Buffer.alloc(6 + message.length);
    payload.writeUInt32BE(wireError(error), 0);
    payload.writeUInt16BE(message.length, 4);
    message.copy(payload, 6);
    this.#wire.send(this.#chunkHeader(cookie, chunk.ERROR, payload.length), payload);
  }
}
