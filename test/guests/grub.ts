import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cpio } from '../../core/firmware/guest-cache/cpio.ts';
import { GuestCache } from '../../core/firmware/guest-cache/guest-cache.ts';
import { run } from '../../core/firmware/guest-cache/process.ts';
import { iso9660 } from './iso9660.ts';

const SECTOR = 512;
/** The first partition begins here, as everywhere since 2010: GRUB's core fits before it. */
const PARTITION_LBA = 2048;
const PARTITION_TYPE = 0x83;

// GRUB 2.06: include/grub/i386/pc/boot.h
const KERNEL_SECTOR = 0x5c;
const MBR_CODE_END = 0x1b8;
const MBR_PARTITIONS = 0x1be;
const BLOCK_LIST = SECTOR - 12;
const KERNEL_SEGMENT = 0x820;

const COMMON = [
  'biosdisk',
  'normal',
  'linux',
  'serial',
  'terminal',
  'echo',
  'halt',
  'reboot',
  'ls',
  'cat',
  'test',
  'sleep',
];

/** What a bootable image holds, by path; GRUB reads its menu from `grub.cfg`. */
export type GrubFiles = Readonly<Record<string, Uint8Array | string>>;

/** A `grub.cfg` that talks on COM1 and boots `/vmlinuz` with `/initrd` at once. */
export function linuxMenu(commandLine: string): string {
  return [
    'serial --unit=0 --speed=115200',
    'terminal_input serial',
    'terminal_output serial',
    'set timeout=0',
    'echo GRUB is up on $root',
    `linux /vmlinuz ${commandLine}`,
    'initrd /initrd',
    'boot',
    '',
  ].join('\n');
}

/**
 * A raw disk image: MBR, GRUB, and one partition with `files`. The partition is a bare cpio archive, which GRUB reads as a
 * file system.
 */
export async function grubDisk(files: GrubFiles): Promise<Uint8Array> {
  const { modules } = await new GuestCache().get('grub');
  const core = await mkimage('i386-pc', '(hd0,msdos1)/', [...COMMON, 'part_msdos', 'newc']);
  const boot = await readFile(join(modules, 'boot.img'));
  const archive = cpio(
    Object.entries(files).map(([path, contents]) => ({ path, type: 'file', bytes: bytesOf(contents) })),
  );
  const partitionSectors = Math.ceil(archive.length / SECTOR / 2048) * 2048;
  const disk = new Uint8Array((PARTITION_LBA + partitionSectors) * SECTOR);
  const view = new DataView(disk.buffer);

  disk.set(boot.subarray(0, MBR_CODE_END));
  view.setBigUint64(KERNEL_SECTOR, 1n, true);
  view.setUint8(MBR_PARTITIONS, 0x80);
  view.setUint8(MBR_PARTITIONS + 4, PARTITION_TYPE);
  view.setUint32(MBR_PARTITIONS + 8, PARTITION_LBA, true);
  view.setUint32(MBR_PARTITIONS + 12, partitionSectors, true);
  view.setUint16(SECTOR - 2, 0xaa55, true);

  // The core's first sector loads the rest of it, by a list of blocks at its end.
  disk.set(core, SECTOR);
  view.setBigUint64(SECTOR + BLOCK_LIST, 2n, true);
  view.setUint16(SECTOR + BLOCK_LIST + 8, Math.ceil(core.length / SECTOR) - 1, true);
  view.setUint16(SECTOR + BLOCK_LIST + 10, KERNEL_SEGMENT, true);
  disk.set(archive, PARTITION_LBA * SECTOR);
  return disk;
}

/** An El Torito CD image with GRUB and `files` in its root folder. */
export async function grubCd(files: GrubFiles): Promise<Uint8Array> {
  const core = await mkimage('i386-pc-eltorito', '/', [...COMMON, 'iso9660']);
  const contents = Object.entries(files).map(([name, file]) => ({ name, bytes: bytesOf(file) }));
  return iso9660(contents, core);
}

async function mkimage(format: string, prefix: string, modules: readonly string[]): Promise<Uint8Array> {
  const grub = await new GuestCache().get('grub');
  const scratch = await mkdtemp(join(tmpdir(), 'southbridge-grub-'));
  try {
    const output = join(scratch, 'core.img');
    const libraries = ['usr/lib', 'lib'].map(folder => join(grub.libraries, folder, 'x86_64-linux-gnu')).join(':');
    const args = ['-O', format, '-d', grub.modules, '-p', prefix, '-o', output, ...modules];
    await run(grub.mkimage, args, { environment: { LD_LIBRARY_PATH: libraries } });
    return await readFile(output);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

function bytesOf(contents: Uint8Array | string): Uint8Array {
  return typeof contents === 'string' ? new TextEncoder().encode(contents) : contents;
}

if (process.argv[2] !== undefined) {
  const [, , kind, output = 'grub.img', vmlinuz = '', initrd = '', ...commandLine] = process.argv;
  const files = {
    'grub.cfg': linuxMenu(commandLine.join(' ')),
    vmlinuz: await readFile(vmlinuz),
    initrd: await readFile(initrd),
  };
  await writeFile(output, kind === 'cd' ? await grubCd(files) : await grubDisk(files));
}
