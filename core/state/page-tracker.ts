import type { Machine } from '../machine/machine.ts';
import type { GuestRam } from '../memory/guest-ram.ts';

export const PAGE = 4096;
/** Memory is compared in pieces of this size first: most of it has not changed. */
const PIECE = 16 * PAGE;
const ZEROS = Buffer.alloc(PIECE);

/** What the other side has of one block of RAM, and which pages are to be sent again. */
class Block {
  readonly ram: GuestRam;
  readonly dirty: Uint8Array;
  /** As it was sent last, in pieces: absent where nothing was, and the other side has zeros. Most of a guest's RAM is never used. */
  readonly #sent: (Buffer | undefined)[];
  count = 0;
  /** What was due when the machine went ahead of its memory. */
  due: Uint8Array | undefined;

  constructor(ram: GuestRam) {
    this.ram = ram;
    this.dirty = new Uint8Array(Math.ceil(ram.size / PAGE));
    this.#sent = new Array<Buffer | undefined>(Math.ceil(ram.size / PIECE)).fill(undefined);
  }

  /** What the other side has; within one piece. */
  sentAt(offset: number, length: number): Buffer {
    const piece = this.#sent[Math.floor(offset / PIECE)] ?? ZEROS;
    return piece.subarray(offset % PIECE, (offset % PIECE) + length);
  }

  /** The other side has that of a page from now on. */
  keep(offset: number, bytes: Buffer): void {
    const index = Math.floor(offset / PIECE);
    const piece = this.#sent[index] ?? Buffer.alloc(PIECE);
    this.#sent[index] = piece;
    bytes.copy(piece, offset % PIECE);
  }

  /** Whatever was due, and lies behind `page`, is due again. */
  rewind(page: number): void {
    const { due } = this;
    if (due === undefined) return;
    for (let next = due.indexOf(1, page + 1); next >= 0; next = due.indexOf(1, next + 1)) this.mark(next);
  }

  mark(page: number): void {
    if (this.dirty[page] !== 0) return;
    this.dirty[page] = 1;
    this.count++;
  }
}

/** One page that is to be sent. */
export interface PageToSend {
  /** The block's place in {@link Machine.ram}. */
  readonly block: number;
  readonly offset: number;
  /** As it is now; only valid during the call. */
  readonly bytes: Buffer;
  /** As the other side has it. */
  readonly before: Buffer;
}

/**
 * Which pages of RAM differ from what was sent of them. It compares the contents, so it needs no help of the accelerator and
 * no device can be forgotten; the price is a second copy of the RAM in use while a migration is under way.
 */
export class PageTracker {
  readonly #blocks: readonly Block[];

  constructor(machine: Machine) {
    this.#blocks = machine.ram.map(ram => new Block(ram));
  }

  /** Bytes of all RAM. */
  get total(): number {
    return this.#blocks.reduce((sum, { ram }) => sum + ram.size, 0);
  }

  /** Bytes that are known to be due. */
  get remaining(): number {
    return this.#blocks.reduce((sum, { count }) => sum + count * PAGE, 0);
  }

  /** Compares all RAM, a step at a time: between steps the guest may run. Yields the bytes that were looked at. */
  *sync(): Generator<number> {
    for (const block of this.#blocks) {
      for (let at = 0; at < block.ram.size; at += PIECE) {
        comparePiece(block, at, Math.min(block.ram.size, at + PIECE));
        yield PIECE;
      }
    }
  }

  /** The machine stands still from now on: what is due now is all that there is to send. */
  settle(): void {
    for (const block of this.#blocks) block.due = block.dirty.slice();
  }

  /** What was taken since {@link settle}, and comes after the page at `last`, has not arrived: it is due again. */
  rewind(last: { readonly block: number; readonly offset: number } | undefined): void {
    for (const [index, block] of this.#blocks.entries()) {
      if (last === undefined || index > last.block) block.rewind(-1);
      else if (index === last.block) block.rewind(Math.floor(last.offset / PAGE));
    }
  }

  /**
   * What `encode` makes of each page that is due. The guest may run between two of them: what has been encoded counts as sent,
   * and the next {@link sync} finds what has changed since.
   */
  *take<T>(encode: (page: PageToSend) => T): Generator<T> {
    for (const [index, block] of this.#blocks.entries()) {
      for (let page = block.dirty.indexOf(1); page >= 0; page = block.dirty.indexOf(1, page + 1)) {
        const offset = page * PAGE;
        const length = Math.min(PAGE, block.ram.size - offset);
        const bytes = view(block.ram, offset, length);
        const encoded = encode({ block: index, offset, bytes, before: block.sentAt(offset, length) });
        block.keep(offset, bytes);
        block.dirty[page] = 0;
        block.count--;
        yield encoded;
      }
    }
  }
}

function view({ bytes }: GuestRam, offset: number, length: number): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset + offset, length);
}

function comparePiece(block: Block, from: number, to: number): void {
  if (view(block.ram, from, to - from).equals(block.sentAt(from, to - from))) return;
  for (let at = from; at < to; at += PAGE) {
    const length = Math.min(PAGE, to - at);
    if (!view(block.ram, at, length).equals(block.sentAt(at, length))) block.mark(at / PAGE);
  }
}
