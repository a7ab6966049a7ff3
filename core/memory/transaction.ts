import type { RegionObserver } from './memory-region.ts';

let depth = 0;
const pending = new Set<RegionObserver>();

/** Makes several changes to the memory layout at once: the address spaces are flattened a single time, when `change` is done. */
export function transaction<T>(change: () => T): T {
  depth++;
  try {
    return change();
  } finally {
    depth--;
    if (depth === 0) flush();
  }
}

/** Tells `observer` of a change: now, or at the end of the transaction that is under way. */
export function changed(observer: RegionObserver): void {
  if (depth > 0) pending.add(observer);
  else observer.topologyChanged();
}

function flush(): void {
  if (pending.size === 0) return;
  const observers = [...pending];
  pending.clear();
  for (const observer of observers) observer.topologyChanged();
}
