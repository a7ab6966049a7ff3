import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, createWriteStream, fstatSync, rmSync } from 'node:fs';
import { connect, createServer, Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { connectFailure } from '../../host/connect-failure.ts';
import { mayStartPrograms } from '../../host/sandbox.ts';
import { QmpError } from '../qapi/error.ts';

/** Where a migration goes to or comes from. */
export type MigrationUri =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'exec'; readonly command: string }
  | { readonly kind: 'fd'; readonly fd: number };

/** What `uri` says; undefined where it is of no protocol that there is. @throws QmpError with QEMU's wording */
export function parseUri(uri: string, named: (name: string) => number | undefined): MigrationUri | undefined {
  const [, kind = '', rest = ''] = /^([a-z]+):(.*)$/s.exec(uri) ?? [];
  switch (kind) {
    case 'tcp': {
      const match = /^(.*):(\d+)(?:,.*)?$/.exec(rest);
      if (match === null) throw new QmpError(`error parsing address '${rest}'`);
      return { kind, host: (match[1] ?? '').replace(/^\[|\]$/g, ''), port: Number(match[2]) };
    }
    case 'unix':
    case 'file':
      return { kind, path: rest };
    case 'exec':
      return { kind, command: rest };
    case 'fd': {
      const fd = /^\d+$/.test(rest) ? Number(rest) : named(rest);
      if (fd === undefined) throw new QmpError(`File descriptor named '${rest}' has not been found`);
      return { kind, fd };
    }
    default:
      return undefined;
  }
}

/** Whether several connections to one place can be had. */
export const hasChannels = ({ kind }: MigrationUri): boolean => kind === 'tcp' || kind === 'unix';

/** Where the input end listens, as management tools are told (QAPI SocketAddress). */
export type SocketAddress =
  | { readonly type: 'inet'; readonly host: string; readonly port: string }
  | { readonly type: 'unix'; readonly path: string };

/** Makes a connection one that nobody else can read or change. */
export type Secure = (socket: Socket) => Promise<Socket>;

/** The output end. */
export interface Sink {
  readonly stream: Writable;
  /** Resolves once all has arrived. @throws QmpError where the receiver does not say so: the sender keeps the machine */
  finished(): Promise<void>;
  /** The next line that the receiver sends; absent where nothing comes back this way. @throws QmpError where none comes */
  answer?(): Promise<string>;
}

/** What the receiver sends back over a socket once it has taken the machine over. */
const TAKEN_OVER = 'taken over';
/** Of an answer, in characters: the receiver is not trusted. */
const MAX_ANSWER = 4096;

class SocketSink implements Sink {
  readonly stream: Socket;
  #received = '';
  #closed = false;
  #wake: () => void = () => undefined;

  constructor(socket: Socket) {
    this.stream = socket;
    socket.on('data', (chunk: Buffer) => {
      if (this.#received.length < MAX_ANSWER) this.#received += chunk.toString('latin1');
      this.#wake();
    });
    for (const event of ['end', 'close', 'error']) {
      socket.on(event, () => {
        this.#closed = true;
        this.#wake();
      });
    }
  }

  async answer(): Promise<string> {
    for (;;) {
      const end = this.#received.indexOf('\n');
      if (end >= 0) {
        const line = this.#received.slice(0, end);
        this.#received = this.#received.slice(end + 1);
        return line;
      }
      if (this.#closed || this.#received.length >= MAX_ANSWER)
        throw new QmpError('the destination did not take the machine over');
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
  }

  async finished(): Promise<void> {
    if ((await this.answer()) !== TAKEN_OVER) throw new QmpError('the destination did not take the machine over');
    this.stream.end();
  }
}

/** A further connection to where a {@link Sink} goes. */
export async function openSocket(uri: MigrationUri, secure?: Secure): Promise<Socket> {
  if (uri.kind !== 'tcp' && uri.kind !== 'unix') throw new QmpError('multifd is not supported by current protocol');
  const socket =
    uri.kind === 'unix'
      ? connect({ path: uri.path, allowHalfOpen: true })
      : connect({ port: uri.port, host: uri.host || 'localhost', allowHalfOpen: true });
  try {
    await once(socket, 'connect');
  } catch (error) {
    throw new QmpError(connectFailure(uri.kind === 'unix' ? uri.path : `${uri.host}:${uri.port}`, error));
  }
  return secure === undefined ? socket : secure(socket);
}

export async function openSink(uri: MigrationUri, secure?: Secure): Promise<Sink> {
  switch (uri.kind) {
    case 'tcp':
    case 'unix':
      return new SocketSink(await openSocket(uri, secure));
    case 'file': {
      const file = createWriteStream(uri.path);
      await once(file, 'open');
      return { stream: file, finished: () => ended(file) };
    }
    case 'fd': {
      if (fstatSync(uri.fd).isSocket()) {
        const socket = new Socket({ fd: uri.fd, allowHalfOpen: true, readable: true, writable: true });
        return new SocketSink(secure === undefined ? socket : await secure(socket));
      }
      const file = createWriteStream('', { fd: uri.fd });
      return { stream: file, finished: () => ended(file) };
    }
    default: {
      mayStartPrograms('migration through exec:');
      const child = spawn('/bin/sh', ['-c', uri.command], { stdio: ['pipe', 'inherit', 'inherit'] });
      return { stream: child.stdin, finished: () => childEnded(child) };
    }
  }
}

async function ended(stream: Writable): Promise<void> {
  const closed = once(stream, 'finish');
  stream.end();
  await closed;
}

async function childEnded(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit');
  child.stdin?.end();
  const [code] = (await exited) as [number | null];
  if (code !== 0) throw new QmpError(`the command of exec: ended with status ${code}`);
}

/** Sends a line back to where the machine comes from, where that is a socket. */
export function answer(stream: Readable, line: string): void {
  if (stream instanceof Socket && stream.writable) stream.write(`${line}\n`);
}

/** The receiver's last word: it has the machine. */
export function acknowledge(stream: Readable): void {
  answer(stream, TAKEN_OVER);
  if (stream instanceof Socket) stream.end();
  // Until the other side has ended too.
  stream.resume();
}

/** The input end. */
export interface Source {
  /** Nobody else may come. */
  close(): void;
}

export interface SourceOptions {
  readonly listening: (address: SocketAddress) => void;
  readonly connected: (stream: Readable) => void;
  /** A connection that came to nothing: others may follow. */
  readonly refused: (error: unknown) => void;
  readonly secure: Secure;
}

export async function openSource(uri: MigrationUri, options: SourceOptions): Promise<Source> {
  const none: Source = { close: () => undefined };
  switch (uri.kind) {
    case 'tcp':
    case 'unix':
      return listen(uri, options);
    case 'file': {
      const file = createReadStream(uri.path);
      await once(file, 'open');
      options.connected(file);
      return none;
    }
    case 'fd': {
      // A saved machine that a management tool has opened, and read its own header off; node:net takes pipes and sockets only.
      if (fstatSync(uri.fd).isFile()) {
        options.connected(createReadStream('', { fd: uri.fd }));
        return none;
      }
      const writable = fstatSync(uri.fd).isSocket();
      take(new Socket({ fd: uri.fd, readable: true, writable, allowHalfOpen: true }), options);
      return none;
    }
    default:
      mayStartPrograms('migration through exec:');
      options.connected(spawn('/bin/sh', ['-c', uri.command], { stdio: ['ignore', 'pipe', 'inherit'] }).stdout);
      return none;
  }
}

async function listen(uri: Extract<MigrationUri, { kind: 'tcp' | 'unix' }>, options: SourceOptions): Promise<Source> {
  const server = createServer({ allowHalfOpen: true });
  // A socket of an earlier run may still have the name.
  if (uri.kind === 'unix') rmSync(uri.path, { force: true });
  server.listen(uri.kind === 'unix' ? { path: uri.path } : { host: uri.host || '0.0.0.0', port: uri.port });
  await once(server, 'listening');
  const address = server.address();
  if (uri.kind === 'unix') options.listening({ type: 'unix', path: uri.path });
  else if (typeof address === 'object' && address !== null)
    options.listening({ type: 'inet', host: address.address, port: String(address.port) });
  server.on('connection', socket => take(socket, options));
  return { close: () => server.close() };
}

function take(socket: Socket, { secure, connected, refused }: SourceOptions): void {
  socket.on('error', () => undefined);
  secure(socket).then(connected, error => {
    socket.destroy();
    refused(error);
  });
}
