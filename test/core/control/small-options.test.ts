import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { seededRandom } from '../../../core/rng/xorshift.ts';

const PROGRAM = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));
const MACHINE = ['-M', 'pc', '-nodefaults', '-display', 'none', '-accel', 'qtest'];

t.setTimeout(120_000);

t.test('-debugcon: what is written to port e9 comes out; -global moves the port', async t => {
  const folder = t.testdir({});
  const run = (...args: string[]): string => {
    spawnSync(process.execPath, [PROGRAM, ...MACHINE, '-monitor', 'stdio', '-debugcon', 'file:out', ...args], {
      cwd: folder,
      input: 'o /b 0xe9 0x41\no /b 0x402 0x42\nquit\n',
      timeout: 60_000,
    });
    return readFileSync(join(folder, 'out'), 'latin1');
  };
  t.equal(run(), 'A');
  t.equal(run('-global', 'isa-debugcon.iobase=0x402'), 'B');
});

t.test('-echr: another key than Ctrl-A', async t => {
  const child = spawn(process.execPath, [PROGRAM, ...MACHINE, '-echr', '0x14', '-serial', 'mon:stdio']);
  let output = '';
  child.stdout.setEncoding('latin1').on('data', text => (output += text));
  const ended = once(child, 'exit');
  const until = async (text: string): Promise<void> => {
    while (!output.includes(text)) await once(child.stdout, 'data');
  };
  child.stdin.write('\x14h');
  await until('C-t C-t  sends C-t');
  child.stdin.write('\x14x');
  t.equal((await ended)[0], 0);
});

t.test('what is not supported says so', async t => {
  for (const option of ['-win2k-hack', '-iscsi=x', '-dump-vmstate=x']) {
    const [name = '', value] = option.split('=');
    const { status, stderr } = spawnSync(
      process.execPath,
      [PROGRAM, ...MACHINE, name, ...(value === undefined ? [] : [value])],
      {
        encoding: 'utf8',
        timeout: 60_000,
      },
    );
    t.equal(status, 1, option);
    t.match(stderr, name);
  }
});

t.test('-seed', async t => {
  const drawn = (seed: number): number[] => Array.from({ length: 4 }, seededRandom(seed));
  t.same(drawn(7), drawn(7));
  t.notSame(drawn(7), drawn(8));
  t.ok(drawn(0).every(value => value > 0 && value < 1));
  const { status, stderr } = spawnSync(process.execPath, [PROGRAM, ...MACHINE, '-seed', 'x'], { encoding: 'utf8' });
  t.equal(status, 1);
  t.match(stderr, '-seed x: Invalid seed number: x');
});
