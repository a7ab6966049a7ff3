/** A device's end of an ivshmem server's socket: who the peers are, and the descriptors by which they are reached. */
import { closeSync, fstatSync } from 'node:fs';
import type { Chardev } from '../../core/char/chardev.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { EventFd } from '../../core/host/event-fd.ts';
import { closeAll } from '../../core/host/files.ts';
import { isSystemError } from '../../core/host/native.ts';
import type { GuestRam } from '../../core/memory/guest-ram.ts';
import { MappedRam } from '../../core/memory/mapped-ram.ts';

/** Messages are signed numbers of 64 bits; the first is the version of the protocol. */
const MESSAGE_SIZE = 8;
const PROTOCOL_VERSION = 0n;
/** Comes with the descriptor of the shared memory. */
const SHARED_MEMORY = -1n;
const MAX_PEER = 0xffffn;

interface Message {
  readonly value: bigint;
  readonly fd: number | undefined;
}

export interface ServerLinkUser {
  /** Descriptors that a peer is reached by, at most. */
  readonly vectors: number;
  /** A peer has rung this device's `vector`. */
  rung(vector: number): void;
  /** The server has said what makes no sense. */
  complain(what: string): void;
}

/**
 * The client of QEMU's ivshmem protocol (docs/specs/ivshmem-spec). The server speaks, the client listens; each message may bring
 * one descriptor.
 */
export class ServerLink {
  /** This device's number among its peers. */
  readonly id: number;
  readonly ram: GuestRam;
  readonly #chardev: Chardev;
  readonly #user: ServerLinkUser;
  readonly #peers = new Map<number, EventFd[]>();
  readonly #message = Buffer.alloc(MESSAGE_SIZE);
  #filled = 0;

  /**
   * Hears the server out until the shared memory is there.
   * @throws SouthbridgeError ERR_IVSHMEM where the server says something else, ERR_CHARDEV where it says nothing
   */
  constructor(chardev: Chardev, user: ServerLinkUser) {
    this.#chardev = chardev;
    this.#user = user;
    const version = this.#await();
    if (version.value !== PROTOCOL_VERSION)
      this.#refuse(version, `server sent version ${version.value}, expecting ${PROTOCOL_VERSION}`);
    if (version.fd !== undefined) this.#refuse(version, 'server sent invalid version message');
    const id = this.#await();
    if (id.fd !== undefined || id.value < 0n || id.value > MAX_PEER) this.#refuse(id, 'server sent invalid ID message');
    this.id = Number(id.value);
    let message = this.#await();
    for (; message.value !== SHARED_MEMORY; message = this.#await()) this.#peerMessage(message);
    this.ram = this.#map(message);
    chardev.attach({
      canReceive: () => MESSAGE_SIZE - this.#filled,
      receive: bytes => this.#receive(bytes),
    });
  }

  /** Rings `vector` of `peer`; one that is not there hears nothing. */
  ring(peer: number, vector: number): void {
    this.#peers.get(peer)?.[vector]?.signal();
  }

  close(): void {
    this.#chardev.detach();
    for (const peer of [...this.#peers.keys()]) this.#forget(peer);
  }

  #await(): Message {
    this.#chardev.receiveNow(this.#message);
    return this.#take();
  }

  #receive(bytes: Uint8Array): void {
    this.#message.set(bytes, this.#filled);
    this.#filled += bytes.length;
    if (this.#filled < MESSAGE_SIZE) return;
    this.#filled = 0;
    try {
      this.#peerMessage(this.#take());
    } catch (error) {
      if (!(error instanceof SouthbridgeError)) throw error;
      this.#user.complain(error.message);
    }
  }

  #take(): Message {
    const [fd, ...more] = this.#chardev.takeFds();
    closeAll(more);
    return { value: this.#message.readBigInt64LE(), fd };
  }

  /** A peer that comes, one vector a message, or goes. */
  #peerMessage(message: Message): void {
    const { value, fd } = message;
    if (value === SHARED_MEMORY) this.#refuse(message, 'server sent unexpected shared memory message');
    if (value < 0n || value > MAX_PEER) this.#refuse(message, `server sent invalid message ${value}`);
    const peer = Number(value);
    if (fd === undefined) {
      if (peer === this.id || !this.#peers.has(peer)) this.#refuse(message, `invalid peer ${peer}`);
      this.#forget(peer);
      return;
    }
    const bells = this.#peers.get(peer) ?? [];
    if (bells.length >= this.#user.vectors)
      this.#refuse(message, `Too many eventfd received, device has ${this.#user.vectors} vectors`);
    const bell = new EventFd(fd);
    const vector = bells.push(bell) - 1;
    this.#peers.set(peer, bells);
    if (peer === this.id) bell.onSignal(() => this.#user.rung(vector));
  }

  #map(message: Message): GuestRam {
    const { fd } = message;
    if (fd === undefined) throw refusal('server sent no shared memory');
    try {
      const { size } = fstatSync(fd);
      return new MappedRam('ivshmem.bar2', fd, { offset: 0, size }, { shared: true });
    } catch (error) {
      if (!isSystemError(error)) throw error;
      throw refusal(`can't map the shared memory that the server sent: ${error.message}`);
    } finally {
      closeSync(fd);
    }
  }

  #forget(peer: number): void {
    for (const bell of this.#peers.get(peer) ?? []) bell.close();
    this.#peers.delete(peer);
  }

  #refuse({ fd }: Message, what: string): never {
    if (fd !== undefined) closeSync(fd);
    throw refusal(what);
  }
}

const refusal = (what: string): SouthbridgeError => new SouthbridgeError('ERR_IVSHMEM', what);
