import type { Chardev } from '../char/chardev.ts';
import type { RngBackend } from './rng.ts';

/** EGD's command for as many bytes as follow its count, once there is enough entropy. */
const READ_BLOCKING = 0x02;
const BLOCK_MAX = 255;

interface Request {
  readonly target: Uint8Array;
  filled: number;
  readonly done: () => void;
}

/** An entropy gathering daemon behind a character device (`rng-egd`). */
export class EgdRng implements RngBackend {
  readonly id: string;
  readonly #chr: Chardev;
  readonly #requests: Request[] = [];

  constructor(id: string, chr: Chardev) {
    this.id = id;
    this.#chr = chr;
    chr.attach({
      canReceive: () => this.#requests.reduce((sum, { target, filled }) => sum + target.length - filled, 0),
      receive: bytes => this.#receive(bytes),
    });
  }

  request(target: Uint8Array, done: () => void): void {
    this.#requests.push({ target, filled: 0, done });
    for (let left = target.length; left > 0; left -= BLOCK_MAX)
      this.#chr.writeAll(Uint8Array.of(READ_BLOCKING, Math.min(left, BLOCK_MAX)));
  }

  dispose(): void {
    this.#requests.length = 0;
    this.#chr.detach();
  }

  #receive(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const request = this.#requests[0];
      if (request === undefined) return;
      const length = Math.min(bytes.length - at, request.target.length - request.filled);
      request.target.set(bytes.subarray(at, at + length), request.filled);
      request.filled += length;
      at += length;
      if (request.filled < request.target.length) continue;
      this.#requests.shift();
      request.done();
    }
  }
}
