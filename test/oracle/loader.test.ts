import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { runToEnd } from '../core/control/program.ts';
import { differences, findQemu, play, southbridge } from './qtest-player.ts';
import { RegisterScript } from './register-script.ts';

const MACHINE = ['-machine', 'pc', '-m', '64', '-nodefaults'];
const folder = mkdtempSync(join(tmpdir(), 'southbridge-loader-'));
t.teardown(() => rmSync(folder, { recursive: true }));

function file(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** An ELF file for a machine that is no PC: eight bytes at 20 0000h, and eight zeros behind them. */
function elf(): Buffer {
  const bytes = Buffer.alloc(0x100);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 1, 1, 1]);
  bytes.writeUInt16LE(2, 16);
  bytes.writeUInt16LE(40, 18);
  bytes.writeUInt32LE(0x20_0004, 24);
  bytes.writeUInt32LE(52, 28);
  bytes.writeUInt16LE(52, 40);
  bytes.writeUInt16LE(32, 42);
  bytes.writeUInt16LE(1, 44);
  [1, 0x80, 0x20_0000, 0x20_0000, 8, 16, 5, 1].forEach((word, index) => bytes.writeUInt32LE(word, 52 + 4 * index));
  bytes.write('contents', 0x80, 'latin1');
  return bytes;
}

function uImage(type: number, compression: number, bytes: Uint8Array): Buffer {
  const header = Buffer.alloc(64);
  header.writeUInt32BE(0x2705_1956, 0);
  header.writeUInt32BE(bytes.length, 12);
  header.writeUInt32BE(0x30_0000, 16);
  header.writeUInt32BE(0x30_0010, 20);
  header.set([5, 3, type, compression], 28);
  return Buffer.concat([header, bytes]);
}

function hexRecord(address: number, type: number, data: Uint8Array): string {
  const bytes = [data.length, address >> 8, address & 0xff, type, ...data];
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  return `:${Buffer.from([...bytes, -sum & 0xff])
    .toString('hex')
    .toUpperCase()}\r\n`;
}

const text = (value: string): Buffer => Buffer.from(value, 'latin1');
const records = [
  hexRecord(0, 4, Buffer.from([0, 0x40])),
  hexRecord(0x10, 0, text('first')),
  hexRecord(0x15, 0, text('second')),
  hexRecord(0x100, 0, text('apart')),
  hexRecord(0, 5, Buffer.from([0, 0x40, 0, 0x10])),
  hexRecord(0, 1, Buffer.alloc(0)),
].join('');
const broken = records.replace('666972', '666973');

const images: Readonly<Record<string, string>> = {
  elf: file('elf', elf()),
  uimage: file('uimage', uImage(2, 0, text('a kernel of U-Boot'))),
  packed: file('packed', uImage(2, 1, gzipSync(text('a packed kernel of U-Boot')))),
  disk: file('disk', uImage(3, 0, text('a disk of U-Boot'))),
  hex: file('hex', records),
  broken: file('broken', broken),
  plain: file('plain', 'plain bytes'),
};

function scripts(): RegisterScript[] {
  const values = new RegisterScript(
    'loader: values',
    [
      ...MACHINE,
      ...['loader,addr=0x1000,data=0x1122334455667788,data-len=8', 'loader,addr=0x1010,data=0x11223344,data-len=2'],
      ...['loader,addr=0x1021,data=0x1122334455667788,data-len=8,data-be=on', 'loader,addr=0xffffc,data=1,data-len=4'],
    ].flatMap(word => (word.startsWith('loader') ? ['-device', word] : [word])),
  );
  values.readBytes(0x1000, 64).readBytes(0xf_fff0, 16);
  const files = Object.entries(images).map(([name, path]) => {
    const device = `loader,file=${path},addr=0x100000`;
    const script = new RegisterScript(`loader: ${name}`, [...MACHINE, '-device', device]);
    for (const at of [0x10_0000, 0x20_0000, 0x30_0000, 0x40_0000, 0x40_0100]) script.readBytes(at, 96);
    return script;
  });
  const raw = new RegisterScript('loader: an ELF as it is', [
    ...MACHINE,
    '-device',
    `loader,file=${images['elf']},addr=0x100000,force-raw=on`,
  ]);
  return [values, ...files, raw.readBytes(0x10_0000, 128).readBytes(0x20_0000, 16)];
}

const qemu = findQemu();
for (const script of scripts())
  t.test(script.name, { skip: qemu === undefined && 'there is no QEMU to compare with' }, async t => {
    if (qemu === undefined) return;
    const [ours, theirs] = await Promise.all([play(southbridge, script), play(qemu, script)]);
    t.same(differences(script, ours, theirs), []);
    t.ok(
      ours.some(line => /^OK 0x0*[1-9a-f]/.test(line)),
      'there is something to compare',
    );
  });

t.test("what cannot be is refused in QEMU's words", async t => {
  const refusals: Readonly<Record<string, string>> = {
    '': 'please include valid arguments',
    ',data=1': 'Both data and data-len must be specified',
    ',data-be=on': 'Both data and data-len must be specified',
    ',data=1,data-len=9': 'data-len cannot be greater then 8 bytes',
    ',data-len=4,file=/x': 'Specifying a file is not supported when loading memory values',
    ',data-len=4,force-raw=on': 'Specifying force-raw is not supported when loading memory values',
    ',addr=4': 'cpu_num must be specified when setting a program counter',
    ',addr=4,cpu-num=3': 'Specified boot CPU#3 is nonexistent',
    ',file=/nonexistent': 'Cannot load specified image /nonexistent',
  };
  for (const [options, message] of Object.entries(refusals)) {
    const ours = await runToEnd(...MACHINE, '-device', `loader${options}`);
    t.match(ours.errors, `southbridge: -device loader${options}: ${message}`);
    if (qemu === undefined) continue;
    const [program = '', ...rest] = qemu.command;
    const theirs = spawnSync(program, [...rest, ...MACHINE, '-device', `loader${options}`], { encoding: 'utf8' });
    t.match(theirs.stderr, `-device loader${options}: ${message}`);
  }
  const plain = `loader,file=${images['plain']},addr=0x100`;
  const { errors } = await runToEnd(...MACHINE, '-device', `${plain}0`, '-device', `${plain}4`);
  t.match(errors, /Some ROM regions are overlapping: .*plain \(0x1000 - 0x100b\) and .*plain \(0x1004 - 0x100f\)/);
});

t.test('a CPU begins where the loader says, again after a reset', async t => {
  const program = [process.execPath, southbridge.command[1] ?? ''];
  const ask = (command: readonly string[], device: string): string =>
    execFileSync(
      command[0] ?? '',
      [...command.slice(1), ...MACHINE, '-S', '-display', 'none', '-device', device, '-monitor', 'stdio'],
      {
        input: 'info registers\nsystem_reset\ninfo registers\nquit\n',
        encoding: 'utf8',
      },
    );
  const counters = (output: string): string[] => [...output.matchAll(/EIP=(\w+)/g)].map(match => match[1] ?? '');
  const wasm = [...program, '-accel', 'wasm'];
  for (const [device, counter] of [
    ['loader,addr=0x1234,cpu-num=0', '00001234'],
    [`loader,file=${images['elf']},cpu-num=0`, '00200004'],
    [`loader,file=${images['hex']},cpu-num=0`, '00400010'],
    [`loader,file=${images['packed']},cpu-num=0`, '00300010'],
    [`loader,file=${images['plain']},addr=0x5000,cpu-num=0`, '00005000'],
  ] as const) {
    t.same(counters(ask(wasm, device)), [counter, counter]);
    if (qemu !== undefined) t.same(counters(ask(['qemu-system-x86_64'], device)), [counter, counter]);
  }
});
