/** Debian's gdb debugs a guest of ours on the software CPU, from the reset vector on. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { buildGuest } from '../../guests/build.ts';

t.setTimeout(300_000);
const missing = ['gdb', 'gcc'].filter(program => spawnSync(program, ['--version']).status !== 0);
const skip = missing.length === 0 ? false : `${missing.join(' and ')} not installed`;
const PROGRAM = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));

/** What gdb is told in the beginning; the program has an x86-64 CPU's registers whatever the guest makes of them. */
const connected = (socket: string, guest: string): string[] => [
  'set pagination off',
  'set confirm off',
  'set width 0',
  'set architecture i386:x86-64',
  `target remote ${socket}`,
  `symbol-file ${guest}`,
];

/** Each of these prints `NAME=value`. */
const value = (name: string, expression: string, format = '%#x'): string =>
  `printf "${name}=${format}\\n", ${expression}`;

/** Runs gdb over a script; returns what it printed by name, and all of it. */
async function gdb(folder: string, script: readonly string[]): Promise<{ said: string; values: Map<string, string> }> {
  const path = join(folder, 'script');
  writeFileSync(path, `${script.join('\n')}\n`);
  const child = spawn('gdb', ['-q', '-nx', '-batch', '-x', path], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 120_000,
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (said += String(chunk)));
  await once(child, 'close');
  const values = new Map([...said.matchAll(/^(\w+)=(.*)$/gm)].map(([, name = '', text = '']) => [name, text]));
  return { said, values };
}

t.test('breakpoints, steps, watchpoints, registers and memory, from reset to the end', { skip }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-gdb-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const guest = await buildGuest('demo32');
  const [socket, serial] = [join(folder, 'gdb'), join(folder, 'serial')];
  const machine = ['-machine', 'pc', '-accel', 'wasm', '-m', '64', '-nodefaults', '-display', 'none', '-no-reboot'];
  const devices = ['-device', 'edu', '-device', 'isa-debug-exit,iobase=0xf4', '-serial', `file:${serial}`];
  const program = spawn(
    process.execPath,
    [PROGRAM, ...machine, ...devices, '-kernel', guest, '-S', '-gdb', `unix:${socket},server=on,wait=off`],
    { stdio: 'ignore' },
  );
  const ended = once(program, 'exit');
  t.teardown(() => program.kill('SIGKILL'));
  while (!existsSync(socket)) await new Promise(resolve => setTimeout(resolve, 20));

  const { said, values } = await gdb(folder, [
    ...connected(socket, guest),
    value('reset_ip', '$rip'),
    value('reset_cs', '$cs'),
    'monitor info status',
    'stepi',
    value('first_cs', '$cs'),
    // Where there is no code yet: the boot ROM puts it there, long after SeaBIOS has begun.
    'hbreak *main',
    'continue',
    value('main', '$rip == (unsigned long)&main'),
    value('cr0', '$cr0'),
    value('cs', '$cs'),
    'delete',
    // By source line and by instruction, many of them.
    'step',
    'stepi 500',
    value('stepped', '$rip != (unsigned long)&main'),
    'break *pci_read',
    'continue',
    value('pci_read', '$rip == (unsigned long)&pci_read'),
    value('address', '$eax', '%u'),
    'continue',
    value('next_pci_read', '$rip == (unsigned long)&pci_read'),
    'delete',
    'watch *(unsigned*)&ticks',
    'continue',
    value('tick', '*(unsigned*)&ticks', '%u'),
    'continue',
    value('next_tick', '*(unsigned*)&ticks', '%u'),
    'delete',
    'rwatch *(unsigned*)&edu_status',
    'continue',
    value('in_rwatch', '$rip >= (unsigned long)&edu_interrupt && $rip < (unsigned long)&edu_interrupt + 0x400'),
    'delete',
    'awatch *(unsigned*)&edu_interrupts',
    'continue',
    value('in_awatch', '$rip >= (unsigned long)&edu_interrupt && $rip < (unsigned long)&edu_interrupt + 0x400'),
    'delete',
    // Registers and memory, written.
    'set {unsigned}0x200000 = 0x12345678',
    value('written', '*(unsigned short*)0x200001'),
    'set var $kept = $edi',
    'set var $edi = 0x55aa55aa',
    value('edi', '$edi'),
    'set var $edi = $kept',
    'info threads',
    'monitor info registers',
    'monitor no such command',
    'detach',
  ]);
  t.match(Object.fromEntries(values), {
    reset_ip: '0xfff0',
    reset_cs: '0xf000',
    first_cs: '0xf000',
    main: '0x1',
    cr0: /^0x.*1$/,
    cs: '0x8',
    stepped: '0x1',
    pci_read: '0x1',
    next_pci_read: '0x1',
    in_rwatch: '0x1',
    in_awatch: '0x1',
    written: '0x3456',
    edi: '0x55aa55aa',
  });
  t.equal(Number(values.get('next_tick')), Number(values.get('tick')) + 1);
  t.match(said, /VM status: paused \(prelaunch\)/);
  t.match(said, /Thread 1 \(CPU#0 \[running\]\)/);
  t.match(said, /EAX=[0-9a-f]{8} EBX=/);
  t.match(said, /unknown command: 'no'/);

  await ended;
  t.match(readFileSync(serial, 'latin1'), /All is well/, 'the guest has not noticed');
});

t.test('gdb comes back to a running guest', { skip }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-gdb-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const socket = join(folder, 'gdb');
  const image = await buildGuest('real16');
  const machine = ['-machine', 'pc', '-accel', 'wasm', '-nodefaults', '-display', 'none', '-drive'];
  const program = spawn(
    process.execPath,
    [PROGRAM, ...machine, `format=raw,file=${image}`, '-S', '-gdb', `unix:${socket},server=on,wait=off`],
    { stdio: 'ignore' },
  );
  t.teardown(() => program.kill('SIGKILL'));
  while (!existsSync(socket)) await new Promise(resolve => setTimeout(resolve, 20));
  const head = connected(socket, image).slice(0, -1);
  const first = await gdb(folder, [
    ...head,
    'break *0x7c00',
    'continue',
    value('ip', '$rip'),
    value('cr0', '$cr0 & 1'),
    'detach',
  ]);
  t.match(
    Object.fromEntries(first.values),
    { ip: '0x7c00', cr0: '0' },
    "at the boot sector, which SeaBIOS's disk driver has read",
  );
  const second = await gdb(folder, [...head, value('stopped', '$rip != 0'), 'monitor info status', 'stepi', 'detach']);
  t.equal(second.values.get('stopped'), '0x1');
  t.match(second.said, /VM status: paused/);
});
