import { readdirSync } from 'node:fs';
import { constants, setPriority } from 'node:os';

/** Node starts the threads of its engine first: one for tasks put off, and a pool of four (`--v8-pool-size`). */
const ENGINE_THREADS = 5;

/**
 * What compiles in the background gives way to what runs, guests and host, where there is not a CPU for each: to optimize the
 * software CPU's largest functions takes seconds, and they are the guest's first (docs/design/network-speed.md).
 */
export function engineThreadsGiveWay(): void {
  try {
    const threads = readdirSync('/proc/self/task').map(Number);
    threads.sort((a, b) => a - b);
    for (const thread of threads.slice(1, 1 + ENGINE_THREADS)) {
      setPriority(thread, constants.priority.PRIORITY_LOW);
    }
  } catch {
    // Without /proc they stay as they are.
  }
}
