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
  const places = placesOf(map);
  const decoder: Decoder = { reads: table(places, 'read'), writes: table(places, 'write') };
  decoders.set(map, decoder);
  return decoder;
}

/** By byte: the cell there, the first declared where several share it; and all of those that share. */
interface Places {
  readonly first: readonly (Cell | undefined)[];
  readonly shared: ReadonlyMap<number, readonly Cell[]>;
}

function placesOf(map: RegisterMap): Places {
  const first: (Cell | undefined)[] = new Array(map.size).fill(undefined);
  const shared = new Map<number, Cell[]>();
  for (const entry of map.layout) {
    for (let element = 0; element < entry.count; element++) {
      for (let word = 0; word < entry.words; word++) {
        const cell = new Cell(entry, element, word, undefined);
        for (let at = cell.offset; at < cell.offset + cell.bytes; at++) {
          const before = first[at];
          const here = shared.get(at);
          if (before === undefined) first[at] = cell;
          else if (here === undefined) shared.set(at, [before, cell]);
          else here.push(cell);
        }
      }
    }
  }
  return { first, shared };
}

function table({ first, shared }: Places, direction: 'read' | 'write'): readonly (Cell | undefined)[] {
  if (shared.size === 0) return first;
  const cells = first.slice();
  for (const [at, here] of shared) {
    const order = inOrder(
      here.map(cell => cell.entry),
      direction,
    );
    cells[at] = order.reduceRight<Cell | undefined>((next, entry) => {
      const cell = here.find(each => each.entry === entry);
      return cell === undefined ? next : new Cell(entry, cell.element, cell.word, next);
    }, undefined);
  }
  return cells;
}
