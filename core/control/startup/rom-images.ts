import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SouthbridgeError } from '../../errors.ts';
import { cacheDirectory } from '../../firmware/guest-cache/guest-cache.ts';
import { bootRom, isBootRom } from '../../loader/kernel.ts';

/** Where distributions keep firmware and option ROMs. */
export const ROM_FOLDERS: readonly string[] = [
  // First, since Debian's QEMU has a link to qboot in the place of SeaBIOS's bios-microvm.bin, which boots no disk.
  '/usr/share/seabios',
  '/usr/share/qemu',
  '/usr/lib/ipxe/qemu',
  '/usr/share/qemu-firmware',
  '/usr/share/ipxe/qemu',
  '/usr/share/vgabios',
  // What `npm run guests` has fetched.
  join(cacheDirectory(), 'seabios/usr/share/seabios'),
  join(cacheDirectory(), 'ipxe/usr/lib/ipxe/qemu'),
];

/** Finds ROM images as QEMU does: the name as a path, the folders of `-L`, the distribution's, and last our own. */
export function romImages(folders: readonly string[]): (name: string) => Uint8Array {
  return name => {
    for (const path of [name, ...[...folders, ...ROM_FOLDERS].map(folder => join(folder, name))]) {
      const image = tryRead(path);
      if (image !== undefined) return image;
    }
    if (isBootRom(name)) return bootRom(name);
    throw new SouthbridgeError(
      'ERR_ROM_MISSING',
      `could not find ROM image '${name}'`,
      "install Debian's seabios and ipxe-qemu, or fetch them with 'npm run guests -- seabios ipxe', or name its folder with -L",
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
