import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SouthbridgeError } from '../../errors.ts';

/** Where distributions keep firmware and option ROMs. */
const PLACES = [
  '/usr/share/qemu',
  '/usr/share/seabios',
  '/usr/lib/ipxe/qemu',
  '/usr/share/qemu-firmware',
  '/usr/share/ipxe/qemu',
  '/usr/share/vgabios',
];

/** Finds ROM images as QEMU does: the name as a path, then the folders of `-L`, then the distribution's. */
export function romImages(folders: readonly string[]): (name: string) => Uint8Array {
  return name => {
    for (const path of [name, ...[...folders, ...PLACES].map(folder => join(folder, name))]) {
      const image = tryRead(path);
      if (image !== undefined) return image;
    }
    throw new SouthbridgeError(
      'ERR_ROM_MISSING',
      `could not find ROM image '${name}'`,
      "install Debian's seabios and ipxe-qemu, or name its folder with -L",
    );
  };
}

function tryRead(path: string): Uint8Array | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}
