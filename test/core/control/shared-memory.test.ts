import { mkdtempSync, openSync, readSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { RunningProgram } from './program.ts';

t.setTimeout(120_000);
const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** Eight bytes of a file, as qtest shows them. */
function word(fd: number, offset: number): string {
  const bytes = Buffer.alloc(8);
  readSync(fd, bytes, 0, 8, offset);
  return `OK 0x${bytes.readBigUInt64LE().toString(16).padStart(16, '0')}`;
}

t.test('guest RAM is a file that others see, the part above 4 GiB too', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-memory-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'ram');
  const options = `memory-backend-file,id=ram,size=4G,mem-path=${path},share=on`;
  const program = await RunningProgram.start('-machine', 'pc,memory-backend=ram', '-m', '4G', '-object', options);
  const fd = openSync(path, 'r+');
  t.equal(statSync(path).size, 4 * GIB);
  await program.command('writeq 0x123458 0x1122334455667788');
  t.equal(word(fd, 0x123458), 'OK 0x1122334455667788');
  // A PC has 3 GiB of it below the hole, and the rest from 4 GiB on.
  await program.command(`writeq ${4 * GIB + 16} 0x99aabbccddeeff00`);
  t.equal(word(fd, 3 * GIB + 16), 'OK 0x99aabbccddeeff00');
  writeSync(fd, Buffer.from('seen by the guest'), 0, 17, 0x7000);
  t.equal(await program.command('read 0x7000 4'), 'OK 0x7365656e');
  await program.stop();
});

t.test('nodes of several backends, one of them private: what is written to that one stays here', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-memory-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const [one, other] = [join(folder, 'one'), join(folder, 'other')];
  writeFileSync(other, Buffer.alloc(32 * MIB, 0x5a));
  const program = await RunningProgram.start(
    ...['-machine', 'pc', '-m', '64'],
    ...['-object', `memory-backend-file,id=a,size=32M,mem-path=${one},share=on`],
    ...['-object', `memory-backend-file,id=b,size=32M,mem-path=${other}`],
    ...['-numa', 'node,memdev=a', '-numa', 'node,memdev=b'],
  );
  const fds = [openSync(one, 'r'), openSync(other, 'r')] as const;
  await program.command(`writeq ${32 * MIB - 8} 0x1`);
  await program.command(`writeq ${32 * MIB} 0x2`);
  t.equal(word(fds[0], 32 * MIB - 8), 'OK 0x0000000000000001');
  t.equal(word(fds[1], 0), 'OK 0x5a5a5a5a5a5a5a5a');
  t.equal(await program.command(`readq ${32 * MIB}`), 'OK 0x0000000000000002');
  t.equal(await program.command(`readq ${32 * MIB + 8}`), 'OK 0x5a5a5a5a5a5a5a5a', 'it began as the file');
  await program.stop();
});
