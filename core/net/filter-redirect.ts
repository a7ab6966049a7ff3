import type { Chardev, CharUser } from '../char/chardev.ts';
import { SouthbridgeError } from '../errors.ts';
import { type FilterOptions, NetFilter } from './filter.ts';
import { encodeFrame, FrameDecoder } from './frame-stream.ts';
import type { FrameDirection, NetClient } from './net-client.ts';

/** What a character device that only takes output never asks for. */
const OUTPUT_ONLY: CharUser = { canReceive: () => 0, receive: () => {} };
const CHUNK = 64 * 1024;

/** Nobody connected: the frame is for nobody. */
function send(to: Chardev, frame: Uint8Array, length: number): void {
  if (to.isOpen) to.writeAll(encodeFrame(frame, length));
}

/** What the character devices are called. */
interface DeviceNames {
  readonly indev?: string | undefined;
  readonly outdev?: string | undefined;
}

/** `filter-mirror`: a copy of each frame goes to a character device. */
export class MirrorFilter extends NetFilter {
  readonly #out: Chardev;
  readonly #outdev: string;

  constructor(id: string, client: NetClient, options: FilterOptions & DeviceNames, out: Chardev) {
    super(id, client, options);
    this.#outdev = options.outdev ?? '';
    this.#out = out;
    out.attach(OUTPUT_ONLY);
  }

  override dispose(): void {
    this.#out.detach();
  }

  protected override details(): string {
    return `filter-mirror,vnet_hdr_support=false,outdev=${this.#outdev}`;
  }

  protected override filter(_direction: FrameDirection, frame: Uint8Array, length: number): boolean {
    send(this.#out, frame, length);
    return false;
  }
}

/** `filter-redirector`: frames leave for one character device instead of going on, and others come in from another. */
export class RedirectorFilter extends NetFilter {
  readonly #names: DeviceNames;
  readonly #in: Chardev | undefined;
  readonly #out: Chardev | undefined;

  /** @throws SouthbridgeError ERR_NETFILTER with QEMU's text */
  constructor(
    id: string,
    client: NetClient,
    options: FilterOptions & DeviceNames,
    devices: { readonly in: Chardev | undefined; readonly out: Chardev | undefined },
  ) {
    super(id, client, options);
    if (devices.in === undefined && devices.out === undefined) {
      throw new SouthbridgeError(
        'ERR_NETFILTER',
        "filter redirector needs 'indev' or 'outdev' at least one property set",
      );
    }
    this.#names = options;
    this.#in = devices.in;
    this.#out = devices.out;
    const decoder = new FrameDecoder((frame, length) => this.#inject(frame, length));
    let broken = false;
    this.#in?.attach({
      canReceive: () => (broken ? 0 : CHUNK),
      receive: bytes => {
        if (!decoder.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))) broken = true;
      },
      event: event => {
        if (event !== 'closed') return;
        decoder.reset();
        broken = false;
      },
    });
    this.#out?.attach(OUTPUT_ONLY);
  }

  override dispose(): void {
    this.#in?.detach();
    this.#out?.detach();
  }

  protected override details(): string {
    return `filter-redirector,vnet_hdr_support=false,indev=${this.#names.indev ?? ''},outdev=${this.#names.outdev ?? ''}`;
  }

  protected override filter(_direction: FrameDirection, frame: Uint8Array, length: number): boolean {
    if (this.#out === undefined) return false;
    send(this.#out, frame, length);
    return true;
  }

  #inject(frame: Uint8Array, length: number): boolean {
    if (this.queue !== 'rx') this.client.passOn(this, 'tx', frame, length);
    if (this.queue !== 'tx') this.client.passOn(this, 'rx', frame, length);
    return true;
  }
}
