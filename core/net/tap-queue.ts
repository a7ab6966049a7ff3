import { closeSync, readSync, writeSync } from 'node:fs';
import { FdWatcher, READABLE, WRITABLE } from '../host/event-fd.ts';
import { isSystemError } from '../host/native.ts';
import { attachQueue, hasVnetHeader, setOffload } from '../host/tap.ts';
import { LARGEST_FRAME } from './frame-stream.ts';
import { type GuestOffloads, NetClient, type NetReceiver, type VnetHeaders } from './net-client.ts';

/** The shortest struct virtio_net_hdr; a tap that has them never does without. */
const VNET_HEADER = 10;
/** Room for the longest. */
const HEADER_MAX = 20;
/** Frames taken from the host at most before the event loop goes on. */
const BURST = 64;
const NONE: GuestOffloads = { csum: false, tso4: false, tso6: false, ecn: false, ufo: false };

/** One queue of a tap: a descriptor of /dev/net/tun, which it owns. */
export class TapQueue implements NetReceiver, VnetHeaders {
  readonly client: NetClient;
  readonly fd: number;
  readonly ufo: boolean;
  readonly #watcher: FdWatcher;
  readonly #buffer = new Uint8Array(HEADER_MAX + LARGEST_FRAME);
  readonly #outgoing = new Uint8Array(HEADER_MAX + LARGEST_FRAME);
  /** Bytes of the host's header before each frame, and whether they go over the wire as they are. */
  #header: number;
  #passed = false;
  #frame: Uint8Array;
  #offloads = NONE;
  #attached = true;
  /** The card has frames waiting; reading goes on when it has none. */
  #held = false;
  #full = false;
  #closed = false;

  constructor(id: string, fd: number) {
    this.fd = fd;
    this.client = new NetClient(id, 'tap', this);
    this.#header = hasVnetHeader(fd) ? VNET_HEADER : 0;
    // Whoever had the tap before may have wanted something else.
    this.ufo = this.#header > 0 && setOffload(fd, VNET_HEADER, { csum: true, ufo: true });
    if (this.#header > 0) {
      setOffload(fd, VNET_HEADER, NONE);
      this.client.vnetHeaders = this;
    }
    this.#frame = this.#buffer.subarray(this.#header);
    this.#watcher = new FdWatcher(fd, events => this.#ready(events));
    this.#watcher.setRef(false);
    this.#watch();
  }

  // struct virtio_net_hdr

  use(length: number): void {
    this.#passed = length > 0;
    this.#header = length > 0 ? length : VNET_HEADER;
    this.#frame = this.#passed ? this.#buffer : this.#buffer.subarray(VNET_HEADER);
    if (length === 0) this.#offloads = NONE;
    this.offload(this.#offloads);
  }

  offload(accepted: GuestOffloads): void {
    this.#offloads = accepted;
    const { csum, tso4, tso6, ecn, ufo } = accepted;
    const flags = { csum, tso4, tso6, tsoEcn: ecn && (tso4 || tso6), ufo };
    // Kernels without UFO still take the rest.
    if (!setOffload(this.fd, this.#header, flags)) setOffload(this.fd, this.#header, { ...flags, ufo: false });
  }

  /** The host gives a detached queue no frames (IFF_DETACH_QUEUE). */
  attach(on: boolean): void {
    if (on === this.#attached) return;
    attachQueue(this.fd, on);
    this.#attached = on;
    this.#watch();
  }

  // To the host

  canReceive(): boolean {
    return !this.#closed && !this.#full;
  }

  receive(frame: Uint8Array, length: number): boolean {
    try {
      if (this.#header === 0 || this.#passed) {
        writeSync(this.fd, frame, 0, length);
      } else {
        this.#outgoing.set(length === frame.length ? frame : frame.subarray(0, length), VNET_HEADER);
        writeSync(this.fd, this.#outgoing, 0, VNET_HEADER + length);
      }
    } catch (error) {
      if (!isSystemError(error)) throw error;
      if (error.code === 'EAGAIN') {
        // `sndbuf` is used up: the frame waits, and its sender with it.
        this.#full = true;
        this.#watch();
        return false;
      }
      // An interface that is down loses frames, as a wire does.
    }
    return true;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watcher.close();
    this.client.disconnect();
    closeSync(this.fd);
  }

  // From the host

  #watch(): void {
    if (this.#closed) return;
    const readable = this.#held || !this.#attached ? 0 : READABLE;
    this.#watcher.watch(readable | (this.#full ? WRITABLE : 0));
  }

  #ready(events: number): void {
    if (this.#full && (events & WRITABLE) !== 0) {
      this.#full = false;
      this.#watch();
      this.client.receiverReady();
    }
    if ((events & READABLE) !== 0) this.#read();
  }

  #read(): void {
    const stripped = this.#passed ? 0 : this.#header;
    for (let count = 0; count < BURST && !this.#closed && this.#attached; count++) {
      let length: number;
      try {
        length = readSync(this.fd, this.#buffer) - stripped;
      } catch (error) {
        if (isSystemError(error)) return;
        throw error;
      }
      if (length <= 0) return;
      if (this.client.send(this.#frame, length)) continue;
      this.#held = true;
      this.#watch();
      this.client.onDrained(() => {
        this.#held = false;
        this.#watch();
      });
      return;
    }
  }
}
