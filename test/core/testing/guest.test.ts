import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { Guest, type GuestOptions } from '../../../core/testing/guest/guest.ts';
import { junit, tapLine } from '../../../core/testing/guest/reports.ts';
import { guestSuite, runSuite } from '../../../core/testing/guest/suite.ts';
import { isaDebugExit } from '../../../devices/isa-debug-exit.ts';
import { pcTestdev } from '../../../devices/pc-testdev.ts';
import { pc } from '../../../machines/pc.ts';
import { ROOT } from '../../docs/samples.ts';
import { echoGuest } from './echo-guest.ts';

const LATCH = 0xe0;
const options: GuestOptions = {
  machine: pc,
  kernel: echoGuest,
  memory: 16 * 2 ** 20,
  devices: [
    { driver: pcTestdev, id: 'counter' },
    { driver: isaDebugExit, properties: { iobase: 0x501 } },
  ],
};
const typed = (guest: Guest): number => guest.machine.ports.read(LATCH, 4);
t.setTimeout(240_000);

t.test('a guest is booted, talked to, saved, and forked', async t => {
  using guest = await Guest.boot(options);
  await guest.expect('ready> ');
  const booted = guest.snapshot();
  guest.type('abc');
  t.equal((await guest.expect(/b(.)/))[1], 'c');
  t.equal(typed(guest), 3);
  t.equal(guest.device('counter').typeName, 'pc-testdev');
  t.throws(() => guest.device('nonsense'), { code: 'ERR_GUEST_DEVICE' });

  guest.restore(booted);
  guest.resume();
  guest.type('xy');
  await guest.expect('xy');
  t.equal(typed(guest), 2, 'the fork knows nothing of abc');
  t.equal(guest.console.output, 'ready> xy');

  using other = await Guest.make(options);
  other.restore(booted);
  other.resume();
  other.type('q');
  t.equal(await other.exited, 11);
  await t.rejects(guest.expect('never', 50), {
    code: 'ERR_GUEST_SILENT',
    message: /did not say \/never\/ within 50 ms; it said nothing/,
  });
});

t.test('what cannot be made', async t => {
  const reject = (change: Partial<GuestOptions>, code: string): Promise<unknown> =>
    t.rejects(Guest.make({ ...options, ...change }), { code });
  await reject({ machine: 'pc' }, 'ERR_GUEST_MACHINE');
  await reject({ accelerator: 'wasn' }, 'ERR_ACCELERATOR');
  await reject({ devices: [{ driver: 'edu' }] }, 'ERR_GUEST_DEVICE');
  await reject({ devices: [{ driver: pcTestdev, bus: 'pci.0' }] }, 'ERR_GUEST_DEVICE');
  await reject({ boot: 'firmware' }, 'ERR_GUEST_KERNEL');
});

const suite = guestSuite({
  ...options,
  name: 'echo',
  ready: 'ready> ',
  tests: {
    'says it again': async guest => {
      guest.type('hello');
      await guest.expect('hello');
    },
    'fails <for> a reason': async guest => {
      guest.type('z');
      await guest.expect('z');
      throw new Error(`the counter is ${typed(guest)}`);
    },
    'takes too long': () => new Promise(() => undefined),
  },
  testTimeoutMs: 5000,
});

t.test('a suite boots once; each test begins from there', async t => {
  const results = await runSuite(suite);
  t.same(
    results.map(({ name, failure }) => [name, failure?.message]),
    [
      ['boots', undefined],
      ['says it again', undefined],
      ['fails <for> a reason', 'the counter is 1'],
      ['takes too long', 'the test takes longer than 5000 ms'],
    ],
  );
  const [, again, failed] = results;
  if (again === undefined || failed === undefined) return;
  t.match(tapLine(again, 2), /^ok 2 - echo: says it again # time=\d+ms\n$/);
  t.match(
    tapLine(failed, 3),
    /^not ok 3 - echo: fails <for> a reason.*\n {2}---\n {2}message: \|\n {4}the counter is 1\n {2}console: \|\n {4}z\n/,
  );
  const xml = junit(results);
  t.match(xml, /<testsuite name="echo" tests="4" failures="2" time="[\d.]+">/);
  t.match(
    xml,
    /<testcase classname="echo" name="fails &lt;for&gt; a reason" time="[\d.]+">\n +<failure message="the counter is 1">/,
  );
  t.match(xml, /<system-out>hello<\/system-out>/);
  const dead = await runSuite({ ...suite, ready: 'never', timeoutMs: 50 });
  t.match(dead, [{ name: 'boots', failure: { code: 'ERR_GUEST_SILENT' } }]);
});

t.test('southbridge test', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-guest-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'echo.elf'), echoGuest);
  const file = join(folder, 'echo.ts');
  writeFileSync(
    file,
    `import assert from 'node:assert/strict';
    import { guestSuite } from 'southbridge/testing';
    export default guestSuite({
      name: 'echo', machine: 'pc', memory: 16 * 2 ** 20, ready: 'ready> ',
      kernel: new URL('echo.elf', import.meta.url).pathname,
      devices: [{ driver: 'pc-testdev', id: 'counter' }],
      tests: {
        good: async guest => { guest.type('hi'); await guest.expect('hi'); },
        bad: async guest => assert.equal(guest.machine.ports.read(0xe0, 4), 7),
      },
    });`,
  );
  const run = promisify(execFile)(process.execPath, [
    join(ROOT, 'dist/southbridge.js'),
    'test',
    '--junit',
    join(folder, 'r.xml'),
    file,
  ]);
  await t.rejects(run, {
    code: 1,
    stdout:
      /^TAP version 14\nok 1 - echo: boots.*\nok 2 - echo: good.*\nnot ok 3 - echo: bad[\s\S]*1\.\.3\n# 2 passed, 1 failed\n$/,
  });
  t.match(readFileSync(join(folder, 'r.xml'), 'utf8'), /tests="3" failures="1"/);
});
