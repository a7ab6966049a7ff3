import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { RunningProgram, runToEnd } from '../core/control/program.ts';

const folder = mkdtempSync(join(tmpdir(), 'southbridge-flash-'));
t.teardown(() => rmSync(folder, { recursive: true }));

const CODE_SIZE = 256 * 1024;
const VARS_SIZE = 64 * 1024;
const CODE = 2 ** 32 - CODE_SIZE;
const VARS = CODE - VARS_SIZE;

/** An image whose sectors begin with their numbers. */
function image(name: string, size: number): string {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at += 512) bytes.writeUInt32LE(at / 512, at);
  const file = join(folder, name);
  writeFileSync(file, bytes);
  return file;
}

const code = image('code.fd', CODE_SIZE);
const vars = image('vars.fd', VARS_SIZE);
const machine = ['-machine', 'pc', '-m', '16', '-nodefaults'];

t.test('firmware and variables are flash at the end of the address space, and what is programmed is kept', async t => {
  const program = await RunningProgram.start(
    ...['-blockdev', `driver=file,filename=${code},node-name=code,read-only=on`],
    ...['-blockdev', `driver=file,filename=${vars},node-name=vars`],
    ...['-machine', 'pc,pflash0=code,pflash1=vars', '-m', '16', '-nodefaults'],
  );
  const read = (address: number): Promise<string> => program.command(`readl 0x${address.toString(16)}`);
  const write = async (address: number, ...values: number[]): Promise<void> => {
    for (const value of values) await program.command(`writeb 0x${address.toString(16)} 0x${value.toString(16)}`);
  };
  const word = (value: number): string => `OK 0x${value.toString(16).padStart(16, '0')}`;
  t.equal(await read(CODE), word(0));
  t.equal(await read(2 ** 32 - 512), word(511));
  t.equal(await read(0xf_fe00), word(511), 'the last 128 KiB lie below 1 MiB as well');
  t.equal(await read(0xe_0000), word(256));
  t.equal(await read(VARS + 512), word(1));

  await write(VARS + 0x1200, 0x40, 0x5a);
  await write(VARS + 0x3000, 0x20, 0xd0);
  t.equal(await read(VARS), word(0x80_0080), 'the status of two 16-bit chips, as which QEMU shows it');
  await write(VARS, 0xff);
  t.equal(await read(VARS + 0x1200), word(0x5a));
  t.equal(await read(VARS + 0x3ffc), word(0xffff_ffff));
  t.equal(await read(VARS + 0x4000), word(0x20));
  await write(CODE, 0x40, 1);
  t.equal(await read(CODE), word(0x90_0090), 'a read-only chip says that it was not programmed');
  await write(CODE, 0xff);
  t.equal(await read(CODE), word(0));

  await program.execute('qmp_capabilities');
  t.match(await program.execute('qom-get', { path: '/machine/system.flash1', property: 'num-blocks' }), { return: 16 });
  await write(VARS, 0x90);
  await program.execute('system_reset');
  t.equal(await read(VARS), word(0), 'a reset ends a command');
  await program.stop();
  const kept = readFileSync(vars);
  t.equal(kept[0x1200], 0x5a);
  t.ok(kept.subarray(0x3000, 0x4000).every(byte => byte === 0xff));
  t.equal(kept.readUInt32LE(0x4000), 0x20);
  t.equal(readFileSync(code)[0], 0);
});

t.test('what cannot be flash is said in QEMU’s words', async t => {
  const odd = image('odd.fd', 5120);
  const flash = (unit: number, file: string): string[] => [
    '-drive',
    `if=pflash,format=raw,unit=${unit},file=${file},readonly=on`,
  ];
  for (const [args, message] of [
    [flash(1, vars), /pflash1 requires pflash0/],
    [flash(0, odd), /system firmware block device pflash0 has invalid size 5120[\s\S]*multiple of 0x1000/],
    [[...flash(0, code), '-machine', 'pc,max-fw-size=128k'], /combined size of system firmware exceeds 131072 bytes/],
    [['-machine', 'pc,pflash0=nobody'], /can't find value 'nobody'/],
  ] as const) {
    const { code: status, errors } = await runToEnd(...machine, ...args);
    t.equal(status, 1);
    t.match(errors, message);
  }
});
