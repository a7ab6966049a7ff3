/** The how-to page on hot reload: the model changes under a running machine, and its state stays. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { RunningProgram } from '../core/control/program.ts';
import { commandsOf, writeSamples } from './samples.ts';

const PAGE = 'how-to/hot-reload.md';
const folder = writeSamples(PAGE);
const file = join(folder, 'lamp.ts');
const original = readFileSync(file, 'utf8');
t.setTimeout(120_000);

interface Info {
  readonly reloads: number;
  readonly problem?: string;
}

t.test('edit, save, and the guest goes on', async t => {
  const [command = ''] = commandsOf(PAGE);
  const options = command
    .split(' ')
    .slice(1)
    .map(word => word.replace('./', `${folder}/`))
    .filter(word => word !== '-nographic');
  const program = await RunningProgram.start(...options, '-nodefaults');
  await program.execute('qmp_capabilities');
  const info = async (): Promise<Info> =>
    ((await program.execute('x-query-plugins'))['return'] as Info[])[0] ?? { reloads: -1 };
  /** Saves the source, and waits for what comes of it. */
  const save = async (text: string): Promise<Info> => {
    const before = await info();
    writeFileSync(file, text);
    for (;;) {
      const now = await info();
      if (now.reloads !== before.reloads || now.problem !== before.problem) return now;
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  };
  for (const [port, value] of [
    [0xcf8, 0x8000_1010],
    [0xcfc, 0xe000_0000],
    [0xcf8, 0x8000_1004],
    [0xcfc, 7],
  ] as const)
    await program.command(`outl ${port} ${value}`);
  const read = async (offset: number): Promise<number> =>
    Number((await program.command(`readl ${0xe000_0000 + offset}`)).slice(3));
  await program.command('writel 0xe0000000 21');
  t.same([await read(0), await read(4)], [21, 42]);

  t.match(await save(original.replace('2 * value', '3 * value')), { reloads: 1 });
  t.same([await read(0), await read(4)], [21, 42], 'the state is as it was');
  await program.command('writel 0xe0000000 21');
  t.equal(await read(4), 63, 'the behaviour is new');

  const more = original.replace('SEEN: r32(0x04', 'SPEED: r32(0x08, {}, { reset: 7 }),\n  SEEN: r32(0x04');
  t.match(await save(more), { reloads: 2 });
  t.same([await read(0), await read(4), await read(8)], [21, 63, 7], 'registers by name; a new one as after a reset');

  t.match(await save(original.replace('2 * value', '2 * ')), { reloads: 2, problem: /lamp\.ts/ });
  t.match(await save(original.replace("type: 'lamp'", "type: 'lamb'")), { problem: /no longer brings 'lamp'/ });
  const broken = original.replace(
    '  #light(',
    "  protected override restored(): void {\n    throw new Error('no thanks');\n  }\n\n  #light(",
  );
  t.match(await save(broken), { reloads: 2, problem: 'no thanks' });
  t.same([await read(0), await read(4), await read(8)], [21, 63, 7], 'the old model goes on');
  t.match(await save(original), { reloads: 3 });
  t.match((await program.execute('qom-list', { path: '/machine/peripheral/lamp0' }))['return'], [{}]);
  await program.command('writel 0xe0000000 1');
  t.equal(await read(4), 2);
  await program.stop();
});
