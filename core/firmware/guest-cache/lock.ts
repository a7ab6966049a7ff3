import { open, readFile, rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 100;

/**
 * Runs `work` while this process holds the lock file `path`. A lock whose holder no longer exists is taken over, so an
 * interrupted download never blocks the next one.
 */
export async function withLock<T>(path: string, waiting: (holder: number) => void, work: () => Promise<T>): Promise<T> {
  let announced = false;
  for (;;) {
    const handle = await open(path, 'wx').catch((error: unknown) => {
      if (isCode(error, 'EEXIST')) return undefined;
      throw error;
    });
    if (handle !== undefined) {
      await handle.writeFile(String(process.pid));
      await handle.close();
      break;
    }
    const holder = Number(await readFile(path, 'utf8').catch(() => ''));
    if (holder > 0 && !isAlive(holder)) {
      await rm(path, { force: true });
      continue;
    }
    if (!announced && holder > 0) {
      waiting(holder);
      announced = true;
    }
    await sleep(POLL_MS);
  }
  try {
    return await work();
  } finally {
    await rm(path, { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !isCode(error, 'ESRCH');
  }
}

export function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
