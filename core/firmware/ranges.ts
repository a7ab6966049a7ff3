/** Ranges of addresses, both ends included. */

export interface AddressRange {
  readonly min: number;
  readonly max: number;
}

/** What is left of `whole` once every range of `taken` is cut out of it, in ascending order. */
export function freeRanges(whole: AddressRange, taken: readonly AddressRange[]): AddressRange[] {
  const free: AddressRange[] = [];
  let next = whole.min;
  for (const range of taken.toSorted((a, b) => a.min - b.min)) {
    if (range.max < next || range.min > whole.max) continue;
    if (range.min > next) free.push({ min: next, max: range.min - 1 });
    next = range.max + 1;
  }
  if (next <= whole.max) free.push({ min: next, max: whole.max });
  return free;
}
