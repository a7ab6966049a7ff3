import { type MigratedBitmap, UnplacedBitmap } from '../../block/bitmap-migration.ts';
import type { SavedRecord } from '../../state/fields.ts';
import { QmpError } from '../qapi/error.ts';

/** Bits of a bitmap that go at once, in bytes. */
const PIECE = 1 << 20;
/** No bitmap has more bits than fit in here. */
const MAX_BYTES = 2 ** 30;

/** Bitmaps as they go with a machine: what each is, then its bits, piece by piece. */
export function* pieces(bitmaps: readonly MigratedBitmap[]): Generator<SavedRecord> {
  for (const { bits, ...bitmap } of bitmaps) {
    yield { kind: 'bitmap', ...bitmap, bytes: bits.length };
    for (let at = 0; at < bits.length; at += PIECE) yield { kind: 'bits', bits: bits.subarray(at, at + PIECE) };
  }
}

const damaged = (): QmpError => new QmpError('a dirty bitmap is damaged');

/** Puts together what {@link pieces} took apart. The stream is hostile input. */
export class IncomingBitmaps {
  readonly #take: (bitmap: MigratedBitmap) => () => void;
  readonly #unplaced: (error: UnplacedBitmap) => void;
  /** Takes away again what has come. */
  readonly #undo: (() => void)[] = [];
  #givenUp = false;
  #pending: MigratedBitmap | undefined;
  #filled = 0;

  /** @param take puts a bitmap where it belongs, and gives what takes it away again */
  constructor(take: (bitmap: MigratedBitmap) => () => void, unplaced: (error: UnplacedBitmap) => void) {
    this.#take = take;
    this.#unplaced = unplaced;
  }

  feed(record: SavedRecord): void {
    if (record['kind'] === 'bitmap') this.#begin(record);
    else if (record['kind'] === 'bits') this.#fill(record['bits']);
    else throw damaged();
    if (this.#pending === undefined || this.#filled < this.#pending.bits.length) return;
    const whole = this.#pending;
    this.#pending = undefined;
    this.#place(whole);
  }

  /** Where one bitmap has no place here the machine comes without any: it does not need them to run. */
  #place(bitmap: MigratedBitmap): void {
    if (this.#givenUp) return;
    try {
      this.#undo.push(this.#take(bitmap));
    } catch (error) {
      if (!(error instanceof UnplacedBitmap)) throw error;
      this.#givenUp = true;
      for (const back of this.#undo) back();
      this.#unplaced(error);
    }
  }

  #begin({ node, name, granularity, length, enabled, persistent, bytes }: SavedRecord): void {
    if (
      this.#pending !== undefined ||
      typeof node !== 'string' ||
      typeof name !== 'string' ||
      typeof granularity !== 'number' ||
      typeof length !== 'number' ||
      typeof enabled !== 'boolean' ||
      typeof persistent !== 'boolean' ||
      typeof bytes !== 'number' ||
      !(bytes >= 0 && bytes <= MAX_BYTES && bytes === Math.ceil(length / granularity / 8))
    ) {
      throw damaged();
    }
    this.#pending = { node, name, granularity, length, enabled, persistent, bits: new Uint8Array(bytes) };
    this.#filled = 0;
  }

  #fill(bits: unknown): void {
    if (this.#pending === undefined || !(bits instanceof Uint8Array)) throw damaged();
    if (this.#filled + bits.length > this.#pending.bits.length) throw damaged();
    this.#pending.bits.set(bits, this.#filled);
    this.#filled += bits.length;
  }
}
