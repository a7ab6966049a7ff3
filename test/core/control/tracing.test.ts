import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const PROGRAM = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));
const MONITOR = 'o /b 0x3ff 0x5a\no /b 0x3f9 1\nquit\n';

function run(folder: string, ...args: string[]) {
  const machine = [
    '-M',
    'pc',
    '-nodefaults',
    '-display',
    'none',
    '-accel',
    'qtest',
    '-serial',
    'null',
    '-monitor',
    'stdio',
  ];
  return spawnSync(process.execPath, [PROGRAM, ...machine, ...args], {
    cwd: folder,
    input: MONITOR,
    encoding: 'utf8',
    timeout: 120_000,
  });
}

t.test('-trace help lists the events of the machine, and ends', async t => {
  const { status, stdout } = run(t.testdir({}), '-trace', 'help');
  t.equal(status, 0);
  // The monitor says hello before the machine is complete.
  const names = stdout.split('\n').filter(line => /^[a-z][\w.+-]+$/i.test(line));
  t.ok(names.length > 30);
  t.ok(names.includes('isa-serial.SCR'));
  t.same(names, [...names].sort());
});

t.test('events come from a file, a minus takes some out, lines go to a file', async t => {
  const folder = t.testdir({ events: '# the serial port\nisa-serial.*\n\n-isa-serial.IER\n' });
  writeFileSync(join(folder, 'log'), 'what was there before');
  run(folder, '-trace', 'events=events,file=log');
  const log = readFileSync(join(folder, 'log'), 'utf8');
  t.match(log, /^isa-serial\.SCR .*0x5a/m);
  t.notMatch(log, /isa-serial\.IER /);
  t.notMatch(log, 'before');
});

t.test('a file of events that is not there', async t => {
  const { status, stderr } = run(t.testdir({}), '-trace', 'events=nowhere');
  t.equal(status, 1);
  t.match(stderr, "-trace events=nowhere: cannot read the trace events in 'nowhere'");
});
