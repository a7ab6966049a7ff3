/** The how-to page on plugins does what it says. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { RunningProgram, runToEnd } from '../core/control/program.ts';
import { commandsOf, ROOT, writeSamples } from './samples.ts';

t.setTimeout(240_000);

const PAGE = 'how-to/plugins.md';
const run = promisify(execFile);
const folder = writeSamples(PAGE);
/** The options of the page's command that has `part`, with its files where they are. */
const options = (part: string): string[] => {
  const command = commandsOf(PAGE).find(line => line.includes(part)) ?? '';
  return command
    .replace(/^southbridge /, '')
    .split(' ')
    .map(word => word.replace(/^\.\/(?:v\d\/)?|\/tmp\//, `${folder}/`))
    .map(word => word.replaceAll("'", ''))
    .filter(word => word !== '-nographic');
};
const list = async (...args: string[]): Promise<string> =>
  (await run(process.execPath, [join(ROOT, 'dist/southbridge.js'), ...args])).stdout;

t.test('listings', async t => {
  t.match(await list(...options('blinker,help')), /blinker options:\n.*addr=<int32>/s);
  t.match(
    await list(...options('-plugin help')),
    /^blinker .*\(API 1\.0\) from .*blinker\.ts\n {2}-device blinker +A light/,
  );
  const all = await list('-plugin', join(folder, 'index.ts'), '-plugin', 'help');
  t.match(all, /^lights 2\.1\.0 \(API 1\.0\) from/);
  t.match(all, /-object thermometer-fixed .*\n.*-trace-sink csv /);
  t.match(await list('-plugin', join(folder, 'index.ts'), '-object', 'help'), /thermometer-fixed/);
});

t.test('a package in a machine: device, backend and trace sink', async t => {
  const program = await RunningProgram.start(...options('thermometer-fixed'), '-nodefaults');
  await program.execute('qmp_capabilities');
  t.match(await program.execute('x-query-plugins'), {
    return: [
      {
        name: 'lights',
        version: '2.1.0',
        devices: ['blinker'],
        backends: ['thermometer-fixed'],
        'trace-sinks': ['csv'],
      },
    ],
  });
  t.match(await program.execute('qom-get', { path: '/objects/room', property: 'celsius' }), { return: 23 });
  const more = { 'qom-type': 'thermometer-fixed', id: 'hall', celsius: 300 };
  t.match(await program.execute('object-add', more), { error: { desc: /Parameter 'celsius' expects uint8_t/ } });
  t.same((await program.execute('object-add', { ...more, celsius: 4 }))['return'], {});
  t.match(await program.execute('object-add', { ...more, celsius: 4 }), {
    error: { desc: /duplicate property 'hall'/ },
  });
  t.same((await program.execute('object-del', { id: 'hall' }))['return'], {});
  t.match(await program.execute('object-add', { 'qom-type': 'nonsense', id: 'x' }), { error: { desc: /nonsense/ } });
  const info = await program.execute('human-monitor-command', { 'command-line': 'info plugins' });
  t.match(info['return'], /lights 2\.1\.0/);
  // The bridge's address decoding is off without firmware; configuration space is there, and the BAR can be placed.
  for (const [port, value] of [
    [0xcf8, 0x8000_1010],
    [0xcfc, 0xe000_0000],
    [0xcf8, 0x8000_1004],
    [0xcfc, 7],
  ] as const)
    await program.command(`outl ${port} ${value}`);
  await program.command('writel 0xe0000000 1');
  await program.stop();
  t.match(readFileSync(join(folder, 'blinks.csv'), 'utf8'), /^\d+,blinker\.CONTROL,"blinker\.CONTROL\.RUN 0 -> 1"\n/);
});

t.test('two versions at once', async t => {
  const program = await RunningProgram.start(...options('old-blinker'), '-nodefaults');
  await program.execute('qmp_capabilities');
  t.match(await program.execute('x-query-plugins'), {
    return: [
      { prefix: 'old-', devices: ['old-blinker'] },
      { prefix: '', devices: ['blinker'] },
    ],
  });
  await program.stop();
});

t.test('errors name the option', async t => {
  const { code, errors } = await runToEnd('-plugin', `${folder}/absent.ts`);
  t.equal(code, 1);
  t.match(errors, /-plugin \S+absent\.ts: there is no file/);
  t.match(
    (await runToEnd('-plugin', `${folder}/index.ts`, '-trace-sink', 'cvs')).errors,
    /no trace sink 'cvs'\ndid you mean 'csv'/,
  );
});
