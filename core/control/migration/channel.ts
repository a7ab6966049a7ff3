import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, createWriteStream, fstatSync, rmSync } from 'node:fs';
import { connect, createServer, Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
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

/** Where the input end listens, as management tools are told (QAPI SocketAddress). */
export type SocketAddress =
  | { readonly type: 'inet'; readonly host: string; readonly port: string }
  | { readonly type: 'unix'; readonly path: string };

/** The output end, and a promise of its proper end. */
export interface Sink {
  readonly stream: Writable;
  finished(): Promise<void>;
}

export async function openSink(uri: MigrationUri): Promise<Sink> {
  switch (uri.kind) {
    case 'tcp':
    case 'unix': {
      const socket =
        uri.kind === 'unix'
          ? connect({ path: uri.path, allowHalfOpen: true })
          : connect({ port: uri.port, host: uri.host || 'localhost', allowHalfOpen: true });
      await once(socket, 'connect');
      return { stream: socket, finished: () => acknowledged(socket) };
    }
    case 'file': {
      const file = createWriteStream(uri.path);
      await once(file, 'open');
      return { stream: file, finished: () => ended(file) };
    }
    case 'fd': {
      if (fstatSync(uri.fd).isSocket()) {
        const socket = new Socket({ fd: uri.fd, allowHalfOpen: true, readable: true, writable: true });
        return { stream: socket, finished: () => acknowledged(socket) };
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

/** What the receiver sends back over a socket once it has taken the machine over. */
const TAKEN_OVER = Buffer.from('taken over\n');

/** The receiver's last word; only sockets can carry it. */
export function acknowledge(stream: Readable): void {
  if (stream instanceof Socket && stream.writable) stream.end(TAKEN_OVER);
}

/** Waits until the receiver says that it has the machine; without that the sender keeps it. */
async function acknowledged(socket: Socket): Promise<void> {
  let answer = Buffer.alloc(0);
  const closed = once(socket, 'close');
  socket.on('data', (chunk: Buffer) => {
    answer = Buffer.concat([answer, chunk]);
  });
  socket.end();
  await closed;
  if (!answer.equals(TAKEN_OVER)) throw new QmpError('the destination did not take the machine over');
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

/** The input end: for a server, the first client. */
export async function openSource(uri: MigrationUri, listening: (address: SocketAddress) => void): Promise<Readable> {
  switch (uri.kind) {
    case 'tcp':
    case 'unix': {
      const server = createServer({ allowHalfOpen: true });
      // A socket of an earlier run may still have the name.
      if (uri.kind === 'unix') rmSync(uri.path, { force: true });
      server.listen(uri.kind === 'unix' ? { path: uri.path } : { host: uri.host || '0.0.0.0', port: uri.port });
      await once(server, 'listening');
      const address = server.address();
      if (uri.kind === 'unix') listening({ type: 'unix', path: uri.path });
      else if (typeof address === 'object' && address !== null)
        listening({ type: 'inet', host: address.address, port: String(address.port) });
      const [socket] = (await once(server, 'connection')) as [Socket];
      server.close();
      return socket;
    }
    case 'file': {
      const file = createReadStream(uri.path);
      await once(file, 'open');
      return file;
    }
    case 'fd':
      // A saved machine that a management tool has opened, and read its own header off; node:net takes pipes and sockets only.
      return fstatSync(uri.fd).isFile()
        ? createReadStream('', { fd: uri.fd })
        : new Socket({ fd: uri.fd, readable: true, writable: fstatSync(uri.fd).isSocket(), allowHalfOpen: true });
    default:
      mayStartPrograms('migration through exec:');
      return spawn('/bin/sh', ['-c', uri.command], { stdio: ['ignore', 'pipe', 'inherit'] }).stdout;
  }
}
