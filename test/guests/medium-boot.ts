import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { GuestCache } from '../../core/firmware/guest-cache/guest-cache.ts';
import { initramfs } from '../../core/firmware/guest-cache/initramfs.ts';
import { grubCd, grubDisk, linuxMenu } from './grub.ts';
import { guestOrSkip } from './guest-or-skip.ts';
import { type Run, runToEnd } from './run-to-end.ts';

/** A PC on the software CPU with these options, until it ends by itself. */
export const southbridge = (args: readonly string[]): Promise<Run> =>
  runToEnd(['-m', '192', '-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio', ...args]);

const sha1 = (bytes: Uint8Array): string => createHash('sha1').update(bytes).digest('hex');

/** What a PC is to boot from. */
export interface Medium {
  readonly name: string;
  readonly modules: readonly string[];
  /** The device file in Linux. */
  readonly device: string;
  readonly cd?: true;
  args(image: string): string[];
}

/** The whole way: SeaBIOS finds the disk, GRUB loads Linux from it, Linux finds it again with its own driver and powers off. */
export async function bootsFrom(t: Test, medium: Medium): Promise<void> {
  for (const item of ['linux-i386', 'busybox-i386', 'grub', 'seabios'] as const) {
    if ((await guestOrSkip(t, item)) === undefined) return;
  }
  const directory = mkdtempSync(join(tmpdir(), 'southbridge-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const kernel = await new GuestCache().get('linux-i386');
  // What Linux reads of the medium must be what is on it: an area that no file system caches.
  const script = `for i in 1 2 3 4 5 6 7 8 9; do [ -b /dev/${medium.device} ] && break; sleep 1; done
    echo "sha1 $(dd if=/dev/${medium.device} bs=64k count=64 2>/dev/null | sha1sum)"`;
  const initrd = await initramfs({ modules: medium.modules, init: script });
  const files = {
    'grub.cfg': linuxMenu('console=ttyS0 quiet panic=-1 nokaslr'),
    vmlinuz: readFileSync(kernel.vmlinuz),
    initrd,
  };
  const image = medium.cd ? await grubCd(files) : await grubDisk(files);
  const path = join(directory, 'image');
  writeFileSync(path, image);
  const { output, errors, status } = await southbridge(medium.args(path));
  t.match(output, /GRUB is up on (hd0,msdos1|hd96|cd)/, 'GRUB');
  t.match(output, new RegExp(`sha1 ${sha1(image.subarray(0, 64 * 65536))}`), 'Linux reads what was written');
  t.match(output, /Power down/);
  t.equal(status, 0, errors);
}
