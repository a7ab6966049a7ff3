import { lookup } from 'node:dns/promises';
import { closeSync } from 'node:fs';
import { inetAddress, MOST_FRAMES, receiveFrames, sendFrames } from '../host/datagrams.ts';
import { FdWatcher, READABLE, WRITABLE } from '../host/event-fd.ts';
import { isSystemError } from '../host/native.ts';
import { copyFrame } from './ethernet.ts';
import { LARGEST_FRAME } from './frame-stream.ts';
import type { NetClient } from './net-client.ts';

/** Bytes that are sent at once. */
const BATCH = 0x4_0000;
/** Datagrams that are received at once. */
const SLOTS = 32;
const ROOM = (LARGEST_FRAME + 7) & ~7;
const NOWHERE = new Uint8Array(0);

/** Where a carrier's datagrams go, and whether it pays to wait until there is room: a full unix socket does not say when. */
export interface DatagramTarget {
  /** struct sockaddr; absent where the socket is connected. */
  readonly to?: Uint8Array | undefined;
  readonly waits: boolean;
}

/** A host's address in dotted text; `otherwise` where it has no name. @throws the host's error */
export const ipv4Of = async (host: string, otherwise: string): Promise<string> =>
  host === '' ? otherwise : (await lookup(host, { family: 4 })).address;

/** Where datagrams to a UDP port go. @throws the host's error */
export const udpTarget = async (host: string, port: number): Promise<Uint8Array> =>
  inetAddress(await ipv4Of(host, '127.0.0.1'), port);

/** Frames of a client as datagrams of a socket, which it owns; many in one system call where they come in bursts. */
export class Datagrams {
  readonly #client: NetClient;
  readonly #fd: number;
  readonly #to: Uint8Array;
  readonly #waits: boolean;
  readonly #watcher: FdWatcher;
  readonly #received = new Uint8Array(SLOTS * ROOM);
  readonly #slots = Array.from({ length: SLOTS }, (_, slot) =>
    this.#received.subarray(slot * ROOM, slot * ROOM + LARGEST_FRAME),
  );
  readonly #receivedLengths = new Int32Array(SLOTS);
  readonly #batch = new Uint8Array(BATCH);
  readonly #lengths = new Int32Array(MOST_FRAMES);
  #count = 0;
  #bytes = 0;
  #burst = false;
  #full = false;
  #held = false;
  #broken = false;
  #closed = false;

  constructor(client: NetClient, fd: number, { to, waits }: DatagramTarget) {
    this.#client = client;
    this.#fd = fd;
    this.#to = to ?? NOWHERE;
    this.#waits = waits;
    this.#watcher = new FdWatcher(fd, events => this.#ready(events));
    this.#watcher.setRef(false);
    this.#watch();
  }

  /** Whether a frame would go now. */
  get ready(): boolean {
    return !this.#full;
  }

  send(frame: Uint8Array, length: number): void {
    if (length > LARGEST_FRAME) return;
    if (this.#count === MOST_FRAMES || this.#bytes + length > BATCH) this.#flush();
    // Full, and its sender did not ask: lost, as on a wire.
    if (this.#full) return;
    copyFrame(frame, 0, this.#batch, this.#bytes, length);
    this.#lengths[this.#count++] = length;
    this.#bytes += length;
    if (!this.#burst) this.#flush();
  }

  /** While a burst lasts frames may wait for each other. */
  burst(lasts: boolean): void {
    this.#burst = lasts;
    if (!lasts) this.#flush();
  }

  /** The client's other end has room: see {@link NetReceiver.peerReady}. */
  pull(): void {
    if (!this.#held && !this.#broken && !this.#closed) this.#read();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watcher.close();
    closeSync(this.#fd);
  }

  #flush(): void {
    if (this.#count === 0 || this.#full || this.#closed) return;
    const gone = sendFrames(this.#fd, this.#batch, this.#lengths, this.#count, this.#to);
    if (gone < this.#count && this.#waits) {
      this.#keep(gone);
      this.#full = true;
      this.#watch();
      return;
    }
    this.#count = 0;
    this.#bytes = 0;
  }

  /** Moves what has not gone to the front. */
  #keep(gone: number): void {
    let sent = 0;
    for (let index = 0; index < gone; index++) sent += this.#lengths[index] ?? 0;
    this.#batch.copyWithin(0, sent, this.#bytes);
    this.#lengths.copyWithin(0, gone, this.#count);
    this.#count -= gone;
    this.#bytes -= sent;
  }

  #watch(): void {
    if (!this.#closed) this.#watcher.watch((this.#held || this.#broken ? 0 : READABLE) | (this.#full ? WRITABLE : 0));
  }

  #ready(events: number): void {
    if (this.#full && (events & WRITABLE) !== 0) {
      this.#full = false;
      this.#flush();
      this.#watch();
      if (!this.#full) this.#client.receiverReady();
    }
    if ((events & READABLE) !== 0 && !this.#held) this.#read();
  }

  #read(): void {
    let count: number;
    try {
      count = receiveFrames(this.#fd, this.#received, ROOM, this.#receivedLengths);
    } catch (error) {
      if (!isSystemError(error)) throw error;
      this.#broken = true;
      this.#watch();
      return;
    }
    let taken = true;
    for (let index = 0; index < count && !this.#closed; index++) {
      const length = Math.min(this.#receivedLengths[index] ?? 0, LARGEST_FRAME);
      const slot = this.#slots[index];
      if (length > 0 && slot !== undefined && !this.#client.send(slot, length)) taken = false;
    }
    if (taken || this.#closed) return;
    this.#held = true;
    this.#watch();
    this.#client.onDrained(() => {
      this.#held = false;
      this.#watch();
    });
  }
}
