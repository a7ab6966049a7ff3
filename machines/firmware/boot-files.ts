import { readFileSync } from 'node:fs';
import { reason } from '../../core/block/io-error.ts';
import { SouthbridgeError } from '../../core/errors.ts';

/** What `-kernel` names. @throws SouthbridgeError ERR_BOOT_FILE, in QEMU's words */
export function kernelFile(path: string): Uint8Array {
  return contents(path, why => `could not open kernel file '${path}': ${why}`);
}

/** What `-initrd` names. @throws SouthbridgeError ERR_BOOT_FILE, in QEMU's words */
export function initrdFile(path: string): Uint8Array {
  return contents(path, why => `error reading initrd ${path}: Failed to open file “${path}”: open() failed: ${why}`);
}

function contents(path: string, complaint: (why: string) => string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new SouthbridgeError('ERR_BOOT_FILE', complaint(reason(cause)), undefined, { cause });
  }
}
