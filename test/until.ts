import { setTimeout as delay } from 'node:timers/promises';

/** Resolves once `condition` holds; a test that waits in vain fails by its own timeout. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(5);
}
