import { spawnSync } from 'node:child_process';
import { closeSync, readSync, writeSync } from 'node:fs';
import { SouthbridgeError } from '../errors.ts';
import { FdWatcher, READABLE } from '../host/event-fd.ts';
import { isSystemError } from '../host/native.ts';
import { hasVnetHeader, openTap } from '../host/tap.ts';
import { type NetBackend, NetClient, type NetReceiver } from './net-client.ts';

/** `-netdev tap`: what of QEMU's NetdevTapOptions (QAPI) is served. */
export interface TapNetOptions {
  readonly ifname?: string | undefined;
  /** A tap that someone else has opened, in place of `ifname`. */
  readonly fd?: number | undefined;
  /** Run with the interface's name once it is open; `no` runs none. */
  readonly script?: string | undefined;
  readonly downscript?: string | undefined;
}

const NO_SCRIPT = 'no';
const LARGEST_FRAME = 68 * 1024;
/** struct virtio_net_hdr, which a tap of someone else's may put before each frame. */
const VNET_HEADER = 10;
/** Frames taken from the host at most before the event loop goes on. */
const BURST = 64;

/** An Ethernet interface of the host (tun/tap), bridged or routed as the host has it. */
export class TapNet implements NetBackend, NetReceiver {
  readonly id: string;
  readonly client: NetClient;
  readonly #fd: number;
  readonly #name: string;
  readonly #header: number;
  readonly #watcher: FdWatcher;
  readonly #options: TapNetOptions;
  readonly #buffer = new Uint8Array(LARGEST_FRAME);
  readonly #frame: Uint8Array;
  readonly #outgoing: Uint8Array;
  #disposed = false;

  /** @throws SouthbridgeError ERR_TAP where the interface cannot be had, ERR_NETDEV where its script fails */
  constructor(id: string, options: TapNetOptions) {
    this.id = id;
    this.#options = options;
    this.client = new NetClient(id, 'tap', this);
    const tap =
      options.fd === undefined
        ? openTap(options.ifname ?? '', { vnetHeader: false, multiQueue: false })
        : { fd: options.fd, name: '' };
    this.#fd = tap.fd;
    this.#name = tap.name;
    this.#header = options.fd !== undefined && hasVnetHeader(tap.fd) ? VNET_HEADER : 0;
    this.#frame = this.#buffer.subarray(this.#header);
    this.#outgoing = new Uint8Array(this.#header + LARGEST_FRAME);
    this.client.description =
      options.fd === undefined
        ? `ifname=${tap.name},script=${options.script ?? NO_SCRIPT},downscript=${options.downscript ?? NO_SCRIPT}`
        : `fd=${options.fd}`;
    this.#watcher = new FdWatcher(tap.fd, () => this.#readable());
    try {
      this.#runScript(options.script);
    } catch (error) {
      this.#watcher.close();
      closeSync(tap.fd);
      throw error;
    }
    this.#watcher.setRef(false);
    this.#watcher.watch(READABLE);
  }

  canReceive(): boolean {
    return !this.#disposed;
  }

  receive(frame: Uint8Array, length: number): boolean {
    try {
      if (this.#header === 0) {
        writeSync(this.#fd, frame, 0, length);
      } else {
        this.#outgoing.set(frame.subarray(0, length), this.#header);
        writeSync(this.#fd, this.#outgoing, 0, this.#header + length);
      }
    } catch (error) {
      // A full queue and an interface that is down lose frames, as a wire does.
      if (!isSystemError(error)) throw error;
    }
    return true;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#watcher.close();
    this.client.disconnect();
    try {
      this.#runScript(this.#options.downscript);
    } finally {
      closeSync(this.#fd);
    }
  }

  #readable(): void {
    for (let count = 0; count < BURST && !this.#disposed; count++) {
      let length: number;
      try {
        length = readSync(this.#fd, this.#buffer) - this.#header;
      } catch (error) {
        if (isSystemError(error)) return;
        throw error;
      }
      if (length <= 0) return;
      if (this.client.send(this.#frame, length)) continue;
      this.#watcher.watch(0);
      this.client.onDrained(() => {
        if (!this.#disposed) this.#watcher.watch(READABLE);
      });
      return;
    }
  }

  #runScript(script: string | undefined): void {
    if (script === undefined || script === NO_SCRIPT || script === '') return;
    const { status, error } = spawnSync(script, [this.#name], { stdio: 'inherit' });
    if (error !== undefined)
      throw new SouthbridgeError('ERR_NETDEV', `could not launch network script ${script}: ${error.message}`);
    if (status !== 0)
      throw new SouthbridgeError('ERR_NETDEV', `network script ${script} failed with status ${status ?? 'unknown'}`);
  }
}
