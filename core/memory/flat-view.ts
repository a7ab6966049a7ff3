import type { MemoryRegion } from './memory-region.ts';

/** One run of addresses that a single region serves. */
export interface FlatRange {
  readonly start: number;
  /** First address after the range. */
  readonly end: number;
  readonly region: MemoryRegion;
  /** Offset in the region of the range's first byte. */
  readonly offset: number;
  /** Writes are ignored although the region is RAM: a read-only alias is in the way (PAM). */
  readonly readonly: boolean;
}

/** An address space as the hardware decodes it: ranges in ascending order, none overlapping. */
export class FlatView {
  readonly ranges: readonly FlatRange[];
  /** Where each range starts, side by side: a search touches a few cache lines and not an object at each step. */
  readonly #starts: Float64Array;

  constructor(root: MemoryRegion) {
    const ranges: FlatRange[] = [];
    render(ranges, root, 0, 0, root.size, false);
    this.ranges = merge(ranges);
    this.#starts = Float64Array.from(this.ranges, range => range.start);
  }

  /** The index of the range that holds `address`, or -1. */
  indexOf(address: number): number {
    const starts = this.#starts;
    let low = 0;
    let high = starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((starts[middle] ?? Infinity) <= address) low = middle + 1;
      else high = middle;
    }
    const range = this.ranges[low - 1];
    return range !== undefined && address < range.end ? low - 1 : -1;
  }
}

/** Adds what `region`, whose first byte is at `base`, shows between `from` and `to`; what is already there covers it. */
function render(
  ranges: FlatRange[],
  region: MemoryRegion,
  base: number,
  from: number,
  to: number,
  readonly: boolean,
): void {
  if (!region.enabled) return;
  const start = Math.max(base, from);
  const end = Math.min(base + region.size, to);
  if (start >= end) return;
  const shielded = readonly || region.readonly;
  if (region.aliasOf !== undefined) {
    // An alias shows its target's bytes, whether or not that is enabled where it is mapped itself.
    renderTarget(ranges, region.aliasOf, base - region.aliasOffset, start, end, shielded);
    return;
  }
  renderTarget(ranges, region, base, start, end, shielded);
}

function renderTarget(
  ranges: FlatRange[],
  region: MemoryRegion,
  base: number,
  from: number,
  to: number,
  readonly: boolean,
): void {
  if (region.aliasOf !== undefined) return render(ranges, region, base, from, to, readonly);
  const start = Math.max(base, from);
  const end = Math.min(base + region.size, to);
  if (start >= end) return;
  for (const child of region.children) render(ranges, child, base + child.offset, start, end, readonly);
  if (region.kind !== 'container') fillGaps(ranges, region, base, start, end, readonly || region.readonly);
}

function fillGaps(
  ranges: FlatRange[],
  region: MemoryRegion,
  base: number,
  start: number,
  end: number,
  readonly: boolean,
): void {
  let index = firstEndingAfter(ranges, start);
  let at = start;
  while (at < end) {
    const next = ranges[index];
    const gapEnd = next === undefined ? end : Math.min(end, next.start);
    if (at < gapEnd) {
      ranges.splice(index, 0, { start: at, end: gapEnd, region, offset: at - base, readonly });
      index++;
    }
    if (next === undefined) return;
    at = next.end;
    index++;
  }
}

function firstEndingAfter(ranges: readonly FlatRange[], address: number): number {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const range = ranges[middle];
    if (range !== undefined && range.end <= address) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Joins neighbours that show consecutive bytes of one region, so that RAM makes few memory slots. */
function merge(ranges: readonly FlatRange[]): FlatRange[] {
  const merged: FlatRange[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (
      last !== undefined &&
      last.end === range.start &&
      last.region === range.region &&
      last.readonly === range.readonly &&
      last.offset + (last.end - last.start) === range.offset
    ) {
      merged[merged.length - 1] = { ...last, end: range.end };
    } else {
      merged.push(range);
    }
  }
  return merged;
}
