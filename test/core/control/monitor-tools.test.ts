import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { disassemble } from '../../../core/host/disassembler.ts';
import { noAddon } from '../host/addon.ts';
import { RunningProgram } from './program.ts';

t.setTimeout(120_000);
const PROGRAM = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));

function problem(probe: () => unknown): string | false {
  try {
    probe();
    return false;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
const noDisassembler = problem(() => disassemble(Uint8Array.of(0x90), 0n, 32));

t.test('x86 instructions of all three widths', { skip: noDisassembler }, async t => {
  const code = Uint8Array.of(0x48, 0x89, 0xd8, 0xc3);
  t.same(disassemble(code, 0n, 64), { bytes: 3, mnemonic: 'movq', operands: '%rbx, %rax' });
  t.same(disassemble(code, 0n, 32), { bytes: 1, mnemonic: 'decl', operands: '%eax' });
  t.same(disassemble(code, 0n, 16), { bytes: 1, mnemonic: 'decw', operands: '%ax' });
  t.match(disassemble(Uint8Array.of(0xeb, 0x10), 0xffff_ffff_0000_0000n, 64)?.operands, '0xffffffff00000012');
  t.match(disassemble(Uint8Array.of(0xff, 0xff), 0n, 64), { bytes: 1, mnemonic: '.byte', operands: '0xff' });
  t.equal(disassemble(new Uint8Array(0), 0n, 64), undefined);
});

/** What the monitor of a stopped machine on the software CPU prints for each line. */
function monitor(lines: readonly string[]): string[] {
  const { stdout } = spawnSync(
    process.execPath,
    [PROGRAM, '-M', 'pc', '-nodefaults', '-display', 'none', '-accel', 'wasm', '-S', '-monitor', 'stdio'],
    { encoding: 'latin1', input: [...lines, 'quit', ''].join('\n'), timeout: 100_000 },
  );
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the line editor's
  const plain = stdout.replace(/\x1b\[\d*[KD]|\r/g, '');
  return plain
    .split('(qemu) ')
    .slice(1)
    .map(text => text.slice(text.indexOf('\n') + 1));
}

t.test('on the software CPU', { skip: noAddon }, async t => {
  const asked = ['x/1i $pc', 'xp/2i 0xffff0', 'info lapic', 'info lapic 7', 'gpa2hva 0x1234', 'gpa2hva 0xfee00000'];
  const [code = '', physical = '', lapic = '', none, host = '', device, history] = monitor([...asked, 'info history']);
  if (noDisassembler === false) {
    t.match(code, /^0xfffffff0: {2}ea 5b e0 00 f0 {11}ljmpw {4}\$0xf000:\$0xe05b\n$/);
    t.match(physical, /^0x000ffff0: {2}ea 5b .*\n0x000ffff5: .*\n$/);
  } else t.match(code, /there is no disassembler/);
  t.match(lapic, 'dumping local APIC state for CPU 0');
  t.match(lapic, 'LVT0\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n');
  t.match(lapic, 'Timer\t DCR=0x0 (divide by 2) initial_count = 0 current_count = 0\n');
  t.match(lapic, 'ISR\t (none)\nIRR\t (none)\n\nAPR 0x00 TPR 0x00 DFR 0x0f LDR 0x00 PPR 0x00\n');
  t.equal(none, 'No CPU available\n');
  t.match(host, /^Host virtual address for 0x1234 \(pc\.ram\) is 0x[0-9a-f]{4,}234\n$/);
  t.equal(device, 'Memory at address 0xfee00000 is not RAM\n');
  t.equal(history, [...asked, 'info history'].map((line, index) => `${index}: '${line}'\n`).join(''));
});

const BACKEND = '/machine/peripheral/r/virtio-backend';

t.test('virtio devices, sound and logs over QMP', async t => {
  const folder = t.testdir({});
  const program = await RunningProgram.start(
    ...['-machine', 'pc,pcspk-audiodev=a', '-audiodev', 'none,id=a'],
    ...['-device', 'virtio-rng-pci,id=r,addr=4,disable-modern=on'],
  );
  t.teardown(() => void program.process.kill('SIGKILL'));
  await program.execute('qmp_capabilities');
  const hmp = async (line: string) =>
    String((await program.execute('human-monitor-command', { 'command-line': line }))['return']).replaceAll('\r', '');
  const ask = async (name: string, args?: object) => (await program.execute(name, args)) as Record<string, unknown>;
  const place = { path: BACKEND, queue: 0 };

  t.same(await ask('x-query-virtio'), { return: [{ path: BACKEND, name: 'virtio-rng' }] });
  t.match(await ask('x-query-virtio-status', { path: BACKEND }), {
    return: { 'device-id': 4, started: false, 'num-vqs': 1, status: { statuses: [] }, broken: false },
  });
  t.match(await ask('x-query-virtio-status', { path: '/machine' }), {
    error: { class: 'GenericError', desc: 'Path /machine is not a VirtIODevice' },
  });
  t.match(await ask('x-query-virtio-queue-status', { path: BACKEND, queue: 9 }), {
    error: { desc: 'Invalid virtqueue number 9' },
  });
  t.match(await ask('x-query-virtio-queue-element', place), { error: { desc: 'Region caches not initialized' } });
  t.match(await ask('x-query-virtio-vhost-queue-status', place), { error: { desc: /vhost device has not started/ } });

  // A legacy driver's queue at 0x10000 (virtio 1.2, section 2.7.2), with a chain of two descriptors in it.
  for (const line of [
    ...['outl 0xcf8 0x80002010', 'outl 0xcfc 0xc001', 'outl 0xcf8 0x80002004', 'outl 0xcfc 0x7'],
    ...['outb 0xc012 3', 'outl 0xc008 0x10', 'outb 0xc012 7'],
    ...['writeq 0x10000 0x20000', 'writel 0x10008 16', 'writew 0x1000c 3', 'writew 0x1000e 1'],
    ...['writeq 0x10010 0x30000', 'writel 0x10018 8', 'writew 0x1001c 2', 'writew 0x10082 1'],
  ])
    t.equal(await program.command(line), 'OK', line);
  t.match(await ask('x-query-virtio-queue-status', place), {
    return: {
      'vring-desc': 0x10000,
      'vring-avail': 0x10080,
      'vring-used': 0x11000,
      'vring-num': 8,
      'last-avail-idx': 0,
    },
  });
  t.same(await ask('x-query-virtio-queue-element', place), {
    return: {
      name: 'virtio-rng',
      index: 0,
      descs: [
        { addr: 0x20000, len: 16, flags: ['next', 'write'] },
        { addr: 0x30000, len: 8, flags: ['write'] },
      ],
      avail: { flags: 0, idx: 1, ring: 0 },
      used: { flags: 0, idx: 0 },
    },
  });
  t.match(await hmp(`info virtio-queue-element ${BACKEND} 0`), 'addr 0x20000 len 16 (next, write),\n');
  t.match(await hmp(`info virtio-queue-status ${BACKEND} 0`), '    desc:         0x0000000000010000\n');
  const status = await hmp(`info virtio-status ${BACKEND}`);
  t.match(status, '  started:                 true\n');
  t.match(status, /VIRTIO_CONFIG_S_DRIVER_OK: .*\n/);
  // An indirect table of one, then a chain that goes round.
  for (const line of ['writew 0x1000c 4', 'writeq 0x20000 0x40000', 'writel 0x20008 4', 'writew 0x2000c 0'])
    await program.command(line);
  t.match(await ask('x-query-virtio-queue-element', { ...place, index: 0 }), {
    return: { descs: [{ addr: 0x40000, len: 4, flags: [] }] },
  });
  for (const line of ['writew 0x1000c 1', 'writew 0x1000e 0']) await program.command(line);
  const round = (await ask('x-query-virtio-queue-element', place)) as { return: { descs: unknown[] } };
  t.equal(round.return.descs.length, 8);

  const log = join(folder, 'log');
  t.equal(await hmp(`logfile ${log}`), '');
  t.equal(await hmp('log guest_errors'), '');
  await program.command('writew 0x10084 999');
  await program.command('outw 0xc010 0');
  t.match(readFileSync(log, 'latin1'), /^guest_errors\.virtio-rng.*999/m);
  t.match(await ask('x-query-virtio-status', { path: BACKEND }), { return: { broken: true } });
  t.match(await hmp('logfile /nowhere/log'), /^Error: Error opening logfile/);
  t.match(await hmp('log help'), 'guest_errors ');

  const wave = join(folder, 'a.wav');
  t.equal(await hmp('wavcapture x nothing'), "Audiodev 'nothing' not found\n");
  t.equal(
    await hmp(`wavcapture ${wave} a 8000 12`),
    'incorrect bit count 12, must be 8 or 16\nFailed to add wave capture\n',
  );
  t.equal(await hmp(`wavcapture ${wave} a 8000 8 1`), '');
  // The speaker plays 1 kHz for half a second.
  for (const line of [
    'outb 0x43 0xb6',
    'outb 0x42 0xa9',
    'outb 0x42 4',
    'outb 0x61 3',
    'clock_step 500000000',
    'outb 0x61 0',
  ])
    await program.command(line);
  t.match(await hmp('info capture'), /^\[0\]: Capturing audio\(8000,8,1\) to .*a\.wav: \d{4} bytes\n$/);
  t.equal(await hmp('stopcapture 0'), '');
  t.equal(await hmp('info capture'), '');
  const bytes = readFileSync(wave);
  t.equal(bytes.readUInt32LE(40), bytes.length - 44);
  t.ok(bytes.length > 2000, `${bytes.length} bytes`);
  t.not(Math.max(...bytes.subarray(44)), Math.min(...bytes.subarray(44)), 'sound');

  t.match(await ask('x-query-irq'), { return: { 'human-readable-text': /^IRQ statistics for ioapic:/ } });
  t.match(await ask('x-query-ramblock'), { return: { 'human-readable-text': / pc\.ram {4}4 KiB {2}0x0{16} / } });
  t.match(await ask('replay-seek', { icount: 1 }), { error: { desc: 'replay must be enabled to seek' } });
  t.equal(await hmp('replay_seek 1'), 'replay must be enabled to seek\n');
  t.match(await ask('set-vcpu-dirty-limit', { 'dirty-rate': 1 }), { error: { desc: /requires KVM/ } });
  t.equal(await hmp('info vcpu_dirty_limit'), 'Dirty page limit not enabled!\n');
  t.equal(await hmp('announce_self'), '');
  t.equal(await program.stop(), 0);
});
