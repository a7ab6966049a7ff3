import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { GuestCache } from '../../core/firmware/guest-cache/guest-cache.ts';
import { initramfs } from '../../core/firmware/guest-cache/initramfs.ts';
import { buildGuest } from './build.ts';
import { grubCd, grubDisk, linuxMenu } from './grub.ts';
import { guestOrSkip } from './guest-or-skip.ts';

t.setTimeout(600_000);

// The whole way: SeaBIOS finds the disk, GRUB loads Linux from it, Linux finds it again with its own driver and powers off.
const PROGRAM = fileURLToPath(new URL('../../southbridge.js', import.meta.url));

interface Run {
  readonly output: string;
  readonly errors: string;
  readonly status: number | null;
}

function southbridge(args: readonly string[]): Promise<Run> {
  const common = ['-accel', 'wasm', '-m', '192', '-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'];
  const child = spawn(process.execPath, [PROGRAM, ...common, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 150_000,
    killSignal: 'SIGKILL',
  });
  let output = '';
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString('latin1');
  });
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  return new Promise(resolve => child.on('close', status => resolve({ output, errors, status })));
}

const sha1 = (bytes: Uint8Array): string => createHash('sha1').update(bytes).digest('hex');

interface Medium {
  readonly name: string;
  readonly modules: readonly string[];
  /** The device file in Linux. */
  readonly device: string;
  readonly cd?: true;
  args(image: string): string[];
}

const MEDIA: readonly Medium[] = [
  {
    name: 'an IDE disk',
    modules: ['ata_piix', 'sd_mod'],
    device: 'sda',
    args: image => ['-drive', `format=raw,file=${image},if=ide`],
  },
  { name: 'a CD', modules: ['ata_piix', 'sr_mod'], device: 'sr0', cd: true, args: image => ['-cdrom', image] },
  {
    name: 'a virtio disk',
    modules: ['virtio_pci', 'virtio_blk'],
    device: 'vda',
    args: image => ['-drive', `format=raw,file=${image},if=virtio`],
  },
  {
    name: 'an AHCI disk',
    modules: ['ahci', 'sd_mod'],
    device: 'sda',
    args: image => [
      '-device',
      'ahci,id=a',
      '-drive',
      `format=raw,file=${image},if=none,id=d`,
      '-device',
      'ide-hd,bus=a.0,drive=d,bootindex=0',
    ],
  },
  {
    name: 'a SCSI disk behind virtio-scsi',
    modules: ['virtio_pci', 'virtio_scsi', 'sd_mod'],
    device: 'sda',
    args: image => [
      ...['-device', 'virtio-scsi-pci,id=s', '-drive', `format=raw,file=${image},if=none,id=d`],
      ...['-device', 'scsi-hd,bus=s.0,scsi-id=3,lun=1,drive=d,bootindex=0'],
    ],
  },
  {
    name: 'a SCSI disk behind an LSI controller',
    modules: ['sym53c8xx', 'sd_mod'],
    device: 'sda',
    args: image => [
      ...['-device', 'lsi53c895a,id=s', '-drive', `format=raw,file=${image},if=none,id=d`],
      ...['-device', 'scsi-hd,bus=s.0,scsi-id=3,drive=d,bootindex=0'],
    ],
  },
];

for (const medium of MEDIA) {
  t.test(`Linux boots from ${medium.name}`, { timeout: 180_000 }, async t => {
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
    if (/is not a valid device model name/.test(errors)) {
      t.pass(medium.name, { skip: errors.trim() });
      return;
    }
    t.match(output, /GRUB is up on (hd0,msdos1|hd96|cd)/, 'GRUB');
    t.match(output, new RegExp(`sha1 ${sha1(image.subarray(0, 64 * 65536))}`), 'Linux reads what was written');
    t.match(output, /Power down/);
    t.equal(status, 0, errors);
  });
}

t.test('a boot sector of ours, by SeaBIOS', { timeout: 60_000 }, async t => {
  if ((await guestOrSkip(t, 'seabios')) === undefined) return;
  const guest = await buildGuest('real16');
  const { output, status } = await southbridge([
    '-drive',
    `format=raw,file=${guest},if=ide`,
    '-device',
    'isa-debug-exit,iobase=0xf4',
  ]);
  t.match(output, /real mode: 10 timer interrupts/);
  t.equal(status, 33);
});
