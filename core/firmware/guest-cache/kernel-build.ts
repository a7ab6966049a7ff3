import { cp, mkdtemp, readdir, readFile, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { GuestCache } from './guest-cache.ts';
import { run } from './process.ts';

const HINT = 'install a C compiler and make (Debian: build-essential)';

/**
 * Builds the out-of-tree kernel modules of a folder (with a `Kbuild` in it) for the cache's Linux; the folder stays as it is.
 *
 * @returns the modules by file name, such as `edu.ko`
 * @throws SouthbridgeError ERR_PROGRAM_MISSING, ERR_PROGRAM_FAILED with the compiler's words, and those of {@link GuestCache.get}
 */
export async function buildKernelModules(folder: string, cache = new GuestCache()): Promise<Map<string, Uint8Array>> {
  const headers = await cache.get('linux-headers-i386');
  const flavour = await realpath(headers.flavour);
  const release = basename(flavour).slice('linux-headers-'.length);
  const scratch = await mkdtemp(join(tmpdir(), 'southbridge-modules-'));
  try {
    await cp(folder, scratch, { recursive: true });
    const settings = [`O=${flavour}`, `M=${scratch}`, 'ARCH=x86', `KERNELRELEASE=${release}`, 'CC=gcc'];
    await run('make', ['-s', '-C', await realpath(headers.common), ...settings, 'modules'], { hint: HINT });
    const modules = (await readdir(scratch)).filter(name => name.endsWith('.ko'));
    for (const name of modules) await run('strip', ['--strip-debug', join(scratch, name)], { hint: HINT });
    return new Map(await Promise.all(modules.map(async name => [name, await readFile(join(scratch, name))] as const)));
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
