import { endianness } from 'node:os';
import { hostCalls } from './calls.ts';

/** Frames of one system call at most. */
export const MOST_FRAMES = 64;

const FAMILY = { UNIX: 1, INET: 2 } as const;

/** A UDP socket at an address in dotted text, which never waits and shares the address with others. @throws the host's error */
export const bindUdp = (address: string, port: number): number => hostCalls().bindUdp(address, port);

/** Where datagrams go: struct sockaddr_in (ip(7)) of an address in dotted text. */
export function inetAddress(address: string, port: number): Uint8Array {
  const bytes = socketAddress(FAMILY.INET, 16);
  bytes.set([port >> 8, port, ...address.split('.').map(Number)], 2);
  return bytes;
}

/** Where datagrams go: struct sockaddr_un (unix(7)). */
export function unixAddress(path: string): Uint8Array {
  const name = Buffer.from(`${path}\0`);
  const bytes = socketAddress(FAMILY.UNIX, 2 + name.length);
  bytes.set(name, 2);
  return bytes;
}

function socketAddress(family: number, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  bytes[endianness() === 'LE' ? 0 : 1] = family;
  return bytes;
}

/**
 * Sends `count` frames, one behind the other in `bytes`, as datagrams in one system call: to `to`, or where the socket is
 * connected. Returns how many are gone; the rest found no room. What finds nobody is lost, as on a wire.
 */
export const sendFrames = (
  socket: number,
  bytes: Uint8Array,
  lengths: Int32Array,
  count: number,
  to: Uint8Array,
): number => hostCalls().sendFrames(socket, bytes, lengths, count, to);

/**
 * Receives datagrams in one system call, each into `room` bytes of `bytes`, and as many as `lengths` has places. Returns how
 * many there were. @throws the host's error
 */
export const receiveFrames = (socket: number, bytes: Uint8Array, room: number, lengths: Int32Array): number =>
  hostCalls().receiveFrames(socket, bytes, room, lengths);
