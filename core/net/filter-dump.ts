import { closeSync, openSync, writeSync } from 'node:fs';
import { SouthbridgeError } from '../errors.ts';
import { isSystemError } from '../host/native.ts';
import { type FilterOptions, NetFilter } from './filter.ts';
import type { FrameDirection, NetClient } from './net-client.ts';

/** The pcap format (draft-ietf-opsawg-pcap): magic of microsecond stamps, version, link type of Ethernet. */
const PCAP = { MAGIC: 0xa1b2_c3d4, MAJOR: 2, MINOR: 4, ETHERNET: 1, FILE_HEADER: 24, RECORD_HEADER: 16 } as const;
const DEFAULT_LENGTH = 65_536;
const US_PER_MS = 1000;
const MS_PER_S = 1000;

/** `filter-dump`: each frame goes to a pcap file, cut at `maxlen` bytes; stamps are the host's time. */
export class DumpFilter extends NetFilter {
  readonly #file: string;
  readonly #limit: number;
  readonly #record: Buffer;
  #fd: number | undefined;

  /** @throws SouthbridgeError ERR_NETFILTER with QEMU's text */
  constructor(
    id: string,
    client: NetClient,
    options: FilterOptions & { readonly file: string; readonly maxlen?: number | undefined },
  ) {
    super(id, client, options);
    this.#file = options.file;
    this.#limit = options.maxlen ?? DEFAULT_LENGTH;
    if (this.#limit === 0) {
      throw new SouthbridgeError('ERR_NETFILTER', "Property 'filter-dump.maxlen' doesn't take value '0'");
    }
    this.#record = Buffer.alloc(PCAP.RECORD_HEADER + Math.min(this.#limit, DEFAULT_LENGTH));
    try {
      this.#fd = openSync(options.file, 'w', 0o644);
      const header = Buffer.alloc(PCAP.FILE_HEADER);
      header.writeUInt32LE(PCAP.MAGIC, 0);
      header.writeUInt16LE(PCAP.MAJOR, 4);
      header.writeUInt16LE(PCAP.MINOR, 6);
      header.writeUInt32LE(this.#limit, 16);
      header.writeUInt32LE(PCAP.ETHERNET, 20);
      writeSync(this.#fd, header);
    } catch (cause) {
      this.dispose();
      throw new SouthbridgeError('ERR_NETFILTER', `net dump: can't open ${options.file}`, undefined, { cause });
    }
  }

  override dispose(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  protected override details(): string {
    return `filter-dump,file=${this.#file},maxlen=${this.#limit}`;
  }

  protected override filter(_direction: FrameDirection, frame: Uint8Array, length: number): boolean {
    if (this.#fd === undefined) return false;
    // The format knows no virtio headers.
    const start = this.client.headerLength;
    const whole = length - start;
    const kept = Math.min(whole, this.#record.length - PCAP.RECORD_HEADER);
    const now = performance.timeOrigin + performance.now();
    this.#record.writeUInt32LE(Math.floor(now / MS_PER_S), 0);
    this.#record.writeUInt32LE(Math.floor((now % MS_PER_S) * US_PER_MS), 4);
    this.#record.writeUInt32LE(kept, 8);
    this.#record.writeUInt32LE(whole, 12);
    this.#record.set(kept === frame.length ? frame : frame.subarray(start, start + kept), PCAP.RECORD_HEADER);
    try {
      writeSync(this.#fd, this.#record, 0, PCAP.RECORD_HEADER + kept);
    } catch (error) {
      if (!isSystemError(error)) throw error;
      // A full disk ends the dump, not the network.
      this.dispose();
    }
    return false;
  }
}
