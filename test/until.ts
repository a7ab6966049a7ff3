import { setTimeout as sleep } from 'node:timers/promises';

/** Longer than anything takes on a busy host, and shorter than a test may. */
const PATIENCE_MS = 60_000;

/**
 * Polls until `condition` holds: for what comes when it comes.
 * @throws Error where it never does
 */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = performance.now() + PATIENCE_MS; !(await condition()); await sleep(1))
    if (performance.now() > end) throw new Error(`what was waited for has not come: ${condition}`);
}
