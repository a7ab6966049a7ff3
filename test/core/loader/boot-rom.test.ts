import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { initramfs } from '../../../core/firmware/guest-cache/initramfs.ts';
import { BOOT_ROMS } from '../../../core/loader/boot-roms.ts';
import { type BootRomName, bootRom } from '../../../core/loader/kernel.ts';
import { assembleRom } from '../../../core/loader/rom/assemble.ts';
import { buildGuest } from '../../guests/build.ts';
import { guestOrSkip } from '../../guests/guest-or-skip.ts';
import { noQemu } from './qemu-fw-cfg.ts';

t.setTimeout(180_000);

const NAMES = Object.keys(BOOT_ROMS) as BootRomName[];
const noCompiler = spawnSync('gcc', ['--version']).status === 0 ? false : 'gcc is not installed';

t.test('each is an option ROM that firmware accepts', async t => {
  for (const name of NAMES) {
    const rom = bootRom(name);
    t.same([...rom.subarray(0, 3)], [0x55, 0xaa, rom.length / 512], name);
    t.equal(
      rom.reduce((sum, byte) => (sum + byte) & 0xff, 0),
      0,
      'its bytes add up to 0',
    );
  }
});

t.test('the bytes are those of the source', { skip: noCompiler }, async t => {
  for (const name of NAMES) t.same(bootRom(name), Buffer.from(await assembleRom(name)), name);
});

/** Runs our boot ROMs in QEMU, in place of its own: SeaBIOS finds them in fw_cfg and runs them. */
t.test('QEMU boots through them', { skip: noQemu || noCompiler, timeout: 120_000 }, async t => {
  const directory = mkdtempSync(join(tmpdir(), 'southbridge-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  for (const name of NAMES) writeFileSync(join(directory, name), bootRom(name));
  const boot = (args: readonly string[]): Promise<string> =>
    new Promise(resolve => {
      const machine = ['-L', directory, '-accel', 'tcg', '-m', '256', '-nodefaults', '-display', 'none', '-no-reboot'];
      const qemu = spawn('qemu-system-x86_64', [...machine, '-serial', 'stdio', ...args], {
        timeout: 60_000,
        killSignal: 'SIGKILL',
      });
      let output = '';
      qemu.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
      qemu.on('close', () => resolve(output));
    });
  t.match(
    await boot(['-kernel', await buildGuest('demo32'), '-append', 'one two']),
    /command line +\S+ one two[\s\S]*All is well/,
    'multiboot',
  );
  t.match(
    await boot(['-kernel', await buildGuest('demo64'), '-append', 'one two']),
    /command line +one two[\s\S]*All is well/,
    'PVH',
  );
  const linux = await guestOrSkip(t, 'linux-i386');
  if (linux === undefined) return;
  const initrd = join(directory, 'initrd');
  writeFileSync(initrd, await initramfs({ init: 'echo "guest: $(cat /proc/cmdline)"' }));
  const output = await boot([
    '-kernel',
    linux.vmlinuz,
    '-initrd',
    initrd,
    '-append',
    'console=ttyS0 quiet panic=-1 three',
  ]);
  t.match(output, /guest: console=ttyS0 quiet panic=-1 three/, 'Linux');
});
