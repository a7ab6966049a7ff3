import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { buildGuest } from './build.ts';
import { writeDiskImage } from './disk-image.ts';

t.setTimeout(600_000);

const PROGRAM = fileURLToPath(new URL('../../southbridge.js', import.meta.url));
const SIZE = 32 << 20;
/** What the guest leaves in a block that it wrote. */
const WRITTEN = 0x7469_7277;
const QEMU = 'qemu-system-x86_64';
const has = (program: string): boolean => spawnSync(program, ['--version']).status === 0;
const noCompiler = has('gcc') ? false : 'gcc not installed';

const DISKS = {
  virtio: ['-device', 'virtio-blk-pci,drive=disk'],
  ahci: ['-device', 'ahci,id=hba', '-device', 'ide-hd,bus=hba.0,drive=disk'],
} as const;
const LOADS = ['read', 'write'].flatMap(op =>
  ['4096', '131072'].flatMap(bytes => ['1', '32'].map(depth => `${op} bytes ${bytes} depth ${depth}`)),
);

async function boot(
  command: readonly string[],
  disk: keyof typeof DISKS,
  drive: string,
): Promise<SpawnSyncReturns<string>> {
  const guest = await buildGuest('disks32');
  const [program = '', ...before] = command;
  const machine = ['-M', 'q35', '-m', '64', '-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'];
  return spawnSync(
    program,
    [
      ...[...before, ...machine, '-device', 'isa-debug-exit,iobase=0xf4'],
      ...['-kernel', guest, '-append', `disk=${disk} ms=20 warm=20`],
      ...['-drive', `if=none,id=disk,format=raw,${drive}`, ...DISKS[disk]],
    ],
    { encoding: 'latin1', timeout: 300_000 },
  );
}

for (const [name, command, skip] of [
  ['our machine', [process.execPath, PROGRAM, '-accel', 'wasm'], noCompiler],
  ['QEMU', [QEMU, '-accel', 'tcg'], noCompiler || (has(QEMU) ? false : `${QEMU} not installed`)],
] as const) {
  t.test(`a guest keeps disks of ${name} busy, and finds what it wrote`, { skip }, async t => {
    for (const [disk, options] of [
      ['virtio', 'cache=writeback'],
      ['virtio', 'cache=none'],
      ['ahci', 'cache=writeback'],
      ['ahci', 'cache=none,aio=threads'],
    ] as const) {
      const image = join(t.testdir(), 'disk.raw');
      writeDiskImage(image, SIZE);
      const { stdout, status } = await boot(command, disk, `file=${image},${options}`);
      for (const load of LOADS) t.match(stdout, new RegExp(`${load} requests [1-9]\\d* ticks`), `${disk}, ${options}`);
      t.equal(status, 0, 'it has found no mistake');
      const blocks = readFileSync(image);
      let wrong = 0;
      let written = 0;
      for (let at = 0; at < SIZE; at += 4096) {
        if (blocks.readUInt32LE(at) !== at / 4096) wrong++;
        if (blocks.readUInt32LE(at + 4) === WRITTEN) written++;
      }
      t.equal(wrong, 0, 'every block has kept its number');
      t.ok(written >= 32, `${written} were written`);
    }
  });
}
