import { closeSync, openSync, readSync } from 'node:fs';
import { SouthbridgeError } from '../errors.ts';
import { hostPath } from '../host/fd-sets.ts';
import { writeFully } from '../host/files.ts';
import { Chardev } from './chardev.ts';

/** Takes everything, gives nothing. */
export class NullChardev extends Chardev {
  override get filename(): string {
    return 'null';
  }

  protected override transmit(bytes: Uint8Array): number {
    return bytes.length;
  }

  override dispose(): void {}
}

/** A virtual console: open, but without a screen to show it on. */
export class VcChardev extends NullChardev {
  override get filename(): string {
    return 'vc';
  }

  override open(): Promise<void> {
    this.opened();
    return Promise.resolve();
  }
}

/** Keeps the last bytes written, for `ringbuf-read`. */
export class RingbufChardev extends Chardev {
  readonly #buffer: Buffer;
  #produced = 0;
  #consumed = 0;

  /** @param size bytes, a power of two */
  constructor(label: string, size = 65536) {
    super(label);
    if (size <= 0 || (size & (size - 1)) !== 0) {
      throw new SouthbridgeError('ERR_CHARDEV', 'size of ringbuf chardev must be power of two');
    }
    this.#buffer = Buffer.alloc(size);
  }

  override get filename(): string {
    return 'ringbuf';
  }

  override open(): Promise<void> {
    this.opened();
    return Promise.resolve();
  }

  /** Bytes that can be read. */
  get count(): number {
    return this.#produced - this.#consumed;
  }

  protected override transmit(bytes: Uint8Array): number {
    for (const byte of bytes) {
      this.#buffer[this.#produced++ % this.#buffer.length] = byte;
      if (this.count > this.#buffer.length) this.#consumed = this.#produced - this.#buffer.length;
    }
    return bytes.length;
  }

  /** Takes out at most `size` bytes, the oldest first. */
  read(size: number): Buffer {
    const result = Buffer.alloc(Math.min(size, this.count));
    for (let index = 0; index < result.length; index++) {
      result[index] = this.#buffer[this.#consumed++ % this.#buffer.length] ?? 0;
    }
    return result;
  }

  /** Bytes from the host's side, for the user of the device. */
  inject(bytes: Buffer): void {
    this.push(Buffer.from(bytes));
  }

  override dispose(): void {}
}

/** Output into a file; input, where there is one, from another. */
export class FileChardev extends Chardev {
  readonly #path: string;
  readonly #append: boolean;
  readonly #inputPath: string | undefined;
  #fd: number | undefined;
  #input: number | undefined;
  #paused = false;

  constructor(label: string, path: string, options: { readonly append?: boolean; readonly input?: string } = {}) {
    super(label);
    this.#path = path;
    this.#append = options.append ?? false;
    this.#inputPath = options.input;
  }

  override get filename(): string {
    return 'file';
  }

  override open(): Promise<void> {
    try {
      this.#fd = openSync(hostPath(this.#path), this.#append ? 'a' : 'w', 0o666);
      if (this.#inputPath !== undefined) this.#input = openSync(hostPath(this.#inputPath), 'r');
    } catch (cause) {
      this.dispose();
      return Promise.reject(
        new SouthbridgeError('ERR_CHARDEV', `chardev ${this.label}: ${(cause as Error).message}`, undefined, { cause }),
      );
    }
    this.opened();
    setImmediate(() => this.#readOn());
    return Promise.resolve();
  }

  protected override transmit(bytes: Uint8Array): number {
    if (this.#fd === undefined) return bytes.length;
    try {
      writeFully(this.#fd, bytes);
    } catch {
      // A full disk loses the output, as it does for a process that writes its log there.
    }
    return bytes.length;
  }

  #readOn(): void {
    const chunk = Buffer.alloc(4096);
    while (this.#input !== undefined && !this.#paused) {
      const count = readSync(this.#input, chunk);
      if (count === 0) return;
      this.push(Buffer.from(chunk.subarray(0, count)));
    }
  }

  protected override pauseInput(): void {
    this.#paused = true;
  }

  protected override resumeInput(): void {
    if (!this.#paused) return;
    this.#paused = false;
    setImmediate(() => this.#readOn());
  }

  override dispose(): void {
    for (const fd of [this.#fd, this.#input]) if (fd !== undefined) closeSync(fd);
    this.#fd = undefined;
    this.#input = undefined;
  }
}
