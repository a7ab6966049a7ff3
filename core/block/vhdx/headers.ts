import { randomBytes } from 'node:crypto';
import { BlockError } from '../io-error.ts';
import type { BlockNode } from '../node.ts';
import { readBytes, writeBytes } from '../node-bytes.ts';
import type { Task } from '../pending.ts';
import { GUID_BYTES, HEADER_BYTES, HEADER_OFFSETS, type Header, parseHeader, serializeHeader } from './layout.ts';

/** The two headers of a file: one of them is right at any moment. */
export class Headers {
  #current: Header;
  /** Which of the two that is. */
  #index: number;
  /** 2.2.2: who writes to the file at all says so by a number of its own. */
  readonly #session = randomBytes(GUID_BYTES);

  constructor(current: Header, index: number) {
    this.#current = current;
    this.#index = index;
  }

  /** @throws BlockError where neither header is valid, or both claim to be the newest */
  static *load(file: BlockNode): Task<Headers> {
    const raw = [
      yield* readBytes(file, HEADER_OFFSETS[0], HEADER_BYTES),
      yield* readBytes(file, HEADER_OFFSETS[1], HEADER_BYTES),
    ];
    const [first, second] = raw.map(parseHeader);
    if (first !== undefined && second !== undefined) {
      // Disk2VHD makes both the same.
      const same = raw[0] !== undefined && raw[1]?.equals(raw[0]) === true;
      if (first.sequenceNumber !== second.sequenceNumber || same)
        return second.sequenceNumber > first.sequenceNumber ? new Headers(second, 1) : new Headers(first, 0);
    } else if (first !== undefined) {
      return new Headers(first, 0);
    } else if (second !== undefined) {
      return new Headers(second, 1);
    }
    throw new BlockError('No valid VHDX header found');
  }

  get current(): Header {
    return this.#current;
  }

  /** 2.2.2.1: writes the header that is not in use, which puts it in use, and then the other one. */
  *update(file: BlockNode, changes: Partial<Pick<Header, 'dataWriteGuid' | 'logGuid'>>): Task {
    for (let twice = 0; twice < 2; twice++) {
      const index = 1 - this.#index;
      const offset = HEADER_OFFSETS[index === 0 ? 0 : 1];
      const header = {
        ...this.#current,
        ...changes,
        fileWriteGuid: this.#session,
        sequenceNumber: this.#current.sequenceNumber + 1n,
      };
      const bytes = yield* readBytes(file, offset, HEADER_BYTES);
      yield* writeBytes(file, offset, serializeHeader(header, bytes));
      const flushing = file.flush();
      if (flushing) yield flushing;
      this.#current = header;
      this.#index = index;
    }
  }
}
