import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SouthbridgeError } from '../errors.ts';

const ADDON = join('native', 'build', 'Release', 'southbridge.node');
let loaded: unknown;

/** A failed system call, with Node's own fields. */
export interface SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
}

export function isSystemError(error: unknown): error is SystemError {
  return error instanceof Error && 'errno' in error && 'syscall' in error && 'code' in error;
}

/**
 * The exports of the native addon, loaded once; the typed wrappers are `core/accel/kvm/addon.ts` and the files here.
 * @throws SouthbridgeError ERR_ADDON_MISSING where it has not been built, ERR_ADDON_LOAD where this Node cannot load it
 */
export function loadNative(): unknown {
  if (loaded !== undefined) return loaded;
  const path = join(packageRoot(), ADDON);
  if (!existsSync(path)) {
    throw new SouthbridgeError(
      'ERR_ADDON_MISSING',
      `the native addon ${path} has not been built`,
      "run 'npm run build' in the package's folder; it needs a C++17 compiler, make and python3 (Debian: build-essential, python3)",
    );
  }
  try {
    loaded = createRequire(import.meta.url)(path);
  } catch (cause) {
    throw new SouthbridgeError(
      'ERR_ADDON_LOAD',
      `the native addon ${path} cannot be loaded: ${cause instanceof Error ? cause.message : String(cause)}`,
      "rebuild it for this host and this Node with 'npm run build'",
      { cause },
    );
  }
  return loaded;
}

function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) && folder !== dirname(folder)) folder = dirname(folder);
  return folder;
}
