import { constants } from 'node:fs';
import type { Socket } from 'node:net';
import { hostCalls } from './calls.ts';

/** Sends bytes and descriptors on a unix socket (unix(7), SCM_RIGHTS). Returns how many bytes went, or -1 while it is full. */
export const sendFds = (socket: number, bytes: Uint8Array, fds: readonly number[]): number =>
  hostCalls().sendFds(socket, bytes, fds);

export interface Received {
  /** 0 at the end of the stream, -1 while nothing has come. */
  readonly length: number;
  /** Now the receiver's to close. */
  readonly fds: readonly number[];
}

/** Receives bytes into `bytes`, and the descriptors that came with them. Never waits. */
export function recvFds(socket: number, bytes: Uint8Array): Received {
  const [length, fds] = hostCalls().recvFds(socket, bytes);
  return { length, fds };
}

/** Takes the descriptor out of a Node socket, which reads no more. Undefined where Node does not show it. */
export function takeDescriptor(socket: Socket): number | undefined {
  const handle: unknown = Reflect.get(socket, '_handle');
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  if (typeof fd !== 'number' || fd < 0) return undefined;
  socket.pause();
  const own = hostCalls().duplicate(fd);
  socket.destroy();
  return own;
}

/** Two connected unix sockets that never wait: of bytes, or with `packets` of messages. */
export const socketPair = (options: { packets?: boolean } = {}): [number, number] =>
  hostCalls().socketPair(options.packets ?? false);

/** A unix socket of datagrams at `path`, which never waits. @throws the host's error */
export const bindDatagrams = (path: string): number => hostCalls().bindDatagrams(path);

/** Makes a socket wait, for a process that is to get it and expects that. */
export function makeBlocking(socket: number): void {
  const calls = hostCalls();
  calls.statusFlags(socket, calls.statusFlags(socket) & ~constants.O_NONBLOCK);
}
