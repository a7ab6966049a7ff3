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

/** The same addresses in ascending order, ranges that touch as one. */
export function joined(ranges: readonly AddressRange[]): AddressRange[] {
  const whole: AddressRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.min - b.min)) {
    const before = whole.at(-1);
    if (before !== undefined && range.min === before.max + 1) whole.splice(-1, 1, { min: before.min, max: range.max });
    else whole.push(range);
  }
  return whole;
}
