import type { Readable, Writable } from 'node:stream';
import { Chardev } from './chardev.ts';

/** Output beyond this many queued bytes makes the device refuse more until the queue has drained. */
const HIGH_WATER = 64 * 1024;

/** A character device on a pair of Node streams. */
export abstract class StreamChardev extends Chardev {
  #input: Readable | undefined;
  #output: Writable | undefined;
  readonly #onData = (chunk: Buffer): void => this.input(chunk);
  readonly #onEnd = (): void => this.hungUp();
  readonly #onError = (): void => this.hungUp();
  readonly #onDrain = (): void => this.drained();

  protected connect(input: Readable | undefined, output: Writable | undefined): void {
    this.#input = input;
    this.#output = output;
    output?.on('drain', this.#onDrain).on('error', this.#onError).on('close', this.#onEnd);
    input?.on('error', this.#onError).on('data', this.#onData).on('end', this.#onEnd);
    this.opened();
  }

  protected disconnect(): { input: Readable | undefined; output: Writable | undefined } {
    const streams = { input: this.#input, output: this.#output };
    this.#output?.off('drain', this.#onDrain).off('close', this.#onEnd);
    this.#input?.off('data', this.#onData).off('end', this.#onEnd);
    this.#input = undefined;
    this.#output = undefined;
    return streams;
  }

  /** Bytes from the peer, before they reach the user. */
  protected input(chunk: Buffer): void {
    this.push(chunk);
  }

  /** The peer has gone. */
  protected hungUp(): void {
    this.disconnect();
    this.closed();
  }

  override get congested(): boolean {
    return (this.#output?.writableLength ?? 0) >= HIGH_WATER;
  }

  protected override transmit(bytes: Uint8Array): number {
    const output = this.#output;
    if (output === undefined || output.destroyed) return bytes.length;
    if (this.congested) return 0;
    output.write(Buffer.from(bytes));
    return bytes.length;
  }

  protected override transmitAll(text: string | Uint8Array): void {
    const output = this.#output;
    if (output === undefined || output.destroyed) return;
    output.write(typeof text === 'string' ? text : Buffer.from(text));
  }

  override flush(timeoutMs: number): Promise<void> {
    const output = this.#output;
    if (output === undefined || output.destroyed || output.writableLength === 0) return Promise.resolve();
    return new Promise(resolve => {
      const timer = setTimeout(resolve, timeoutMs);
      output.write('', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  protected override pauseInput(): void {
    this.#input?.pause();
  }

  protected override resumeInput(): void {
    if (this.#input?.isPaused()) this.#input.resume();
  }
}
