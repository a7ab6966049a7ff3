import { inOrder, type LaidOut, type RegisterMap, type WordMasks } from './map.ts';

const NO_MASKS: WordMasks = {
  all: 0,
  rw: 0,
  w1c: 0,
  w1s: 0,
  w0c: 0,
  rc: 0,
  pulse: 0,
  writeOnly: 0,
  reserved: 0,
  tags: 0,
  reset: 0,
};

/** One word of one register element, as accesses find it. */
export class Cell {
  readonly entry: LaidOut;
  readonly element: number;
  readonly word: number;
  readonly slot: number;
  readonly offset: number;
  readonly bytes: number;
  readonly masks: WordMasks;
  /** Who is asked where this one's condition does not hold. */
  readonly next: Cell | undefined;

  constructor(entry: LaidOut, element: number, word: number, next: Cell | undefined) {
    this.entry = entry;
    this.element = element;
    this.word = word;
    this.slot = entry.slot + element * entry.words + word;
    this.offset = entry.register.offset + element * entry.stride + word * 4;
    this.bytes = Math.min(entry.bytes, 4);
    this.masks = entry.masks[word] ?? NO_MASKS;
    this.next = next;
  }
}

/** What answers at each byte of a map, by the direction of the access. */
export interface Decoder {
  readonly reads: readonly (Cell | undefined)[];
  readonly writes: readonly (Cell | undefined)[];
}

const decoders = new WeakMap<RegisterMap, Decoder>();

/** Made once per map. */
export function decoderOf(map: RegisterMap): Decoder {
  const known = decoders.get(map);
  if (known !== undefined) return known;
  const sharers = sharersOfBytes(map);
  const decoder: Decoder = { reads: table(sharers, 'read'), writes: table(sharers, 'write') };
  decoders.set(map, decoder);
  return decoder;
}

function sharersOfBytes(map: RegisterMap): (Cell[] | undefined)[] {
  const sharers: (Cell[] | undefined)[] = new Array(map.size).fill(undefined);
  for (const entry of map.layout) {
    for (let element = 0; element < entry.count; element++) {
      for (let word = 0; word < entry.words; word++) {
        const cell = new Cell(entry, element, word, undefined);
        for (let at = cell.offset; at < cell.offset + cell.bytes; at++) {
          const here = sharers[at];
          if (here === undefined) sharers[at] = [cell];
          else here.push(cell);
        }
      }
    }
  }
  return sharers;
}

function table(sharers: readonly (readonly Cell[] | undefined)[], direction: 'read' | 'write'): (Cell | undefined)[] {
  return sharers.map(here => {
    if (here === undefined || here.length === 1) return here?.[0];
    const order = inOrder(
      here.map(cell => cell.entry),
      direction,
    );
    return order.reduceRight<Cell | undefined>((next, entry) => {
      const cell = here.find(each => each.entry === entry);
      return cell === undefined ? next : new Cell(entry, cell.element, cell.word, next);
    }, undefined);
  });
}
