/** The program in a few files (docs/design/start.md): how modules are divided, linked and found, and that nothing is lost. */
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { chunksOf } from '../../../../core/control/startup/bundle/chunks.ts';
import { BUNDLE, buildStamp, DIST, STAMP } from '../../../../core/control/startup/bundle/launch.ts';
import { Linker } from '../../../../core/control/startup/bundle/linker.ts';
import { Sources } from '../../../../core/control/startup/bundle/sources.ts';

t.test('modules that the same starts load in the same phase are a chunk', async t => {
  const pc = [['run', 'errors'], ['machine', 'pci', 'pc'], ['commands']];
  const q35 = [
    ['run', 'errors'],
    ['machine', 'pci', 'q35', 'commands'],
  ];
  t.same(
    chunksOf([pc, q35]).map(({ modules }) => modules),
    [['run', 'errors'], ['machine', 'pci'], ['pc'], ['commands'], ['q35']],
  );
});

t.test('what can be reached, and what of it is imported when it is first needed', async t => {
  const root = t.testdir({
    'run.js': "import {\n  a,\n} from './lib/a.js';\nimport { b } from 'node:fs';\nawait import('./later.js');\n",
    'later.js': "export * from './lib/b.js';\n",
    lib: { 'a.js': "import '../lib/b.js';\n", 'b.js': '', 'unused.js': '' },
  });
  const sources = new Sources(root);
  const { all, lazy } = sources.reach(['run.js']);
  t.same([...all].sort(), ['later.js', 'lib/a.js', 'lib/b.js', 'run.js']);
  t.same([...lazy], ['later.js']);
  t.match(
    sources.rewriteLazy('run.js', target => `load('${target}')`),
    "await load('later.js')",
  );
});

t.test('the linker evaluates a file once, when something in it is asked for', async t => {
  const folder = t.testdir({
    '0.cjs': `(function (module, require, load, moduleUrl) {
      const { count } = require('1#count.js');
      module.exports = { modules: { 'run.js': () => ({ count, load, url: moduleUrl('../x.js'), join: require('node:path').join }) } };
    })`,
    '1.cjs': `(function (module) { globalThis.evaluations = (globalThis.evaluations ?? 0) + 1; module.exports = { modules: { 'count.js': () => ({ count: {} }) } }; })`,
    rest: {
      'edu.cjs': `(function (module, require) { module.exports = { edu: require('../part.js').part }; })`,
    },
    'part.cjs': `(function (module) { module.exports = { part: 5 }; })`,
  });
  writeFileSync(join(folder, '0.code'), 'not what V8 has made');
  const linker = new Linker(folder, createRequire(join(folder, 'x.js')));
  const first = linker.link('0#run.js') as {
    count: object;
    load(id: string): Promise<object>;
    url: string;
    join: unknown;
  };
  t.equal(linker.link('0#run.js'), first, 'one namespace');
  t.equal((linker.link('1#count.js') as { count: object }).count, first.count, 'one of each class');
  t.equal((globalThis as { evaluations?: number }).evaluations, 1);
  t.same(await first.load('rest/edu'), { edu: 5 });
  t.match(first.url, /^file:.*\/x\.js$/);
  t.equal(first.join, join);
  t.throws(() => linker.link('1#nothing.js'), /there is no 1#nothing\.js in the bundle/);
});

const fits = ((): boolean => {
  try {
    return readFileSync(STAMP, 'utf8') === buildStamp();
  } catch {
    return false;
  }
})();

t.test('the bundle', { skip: !fits && 'npm run build:bundle has not been run on this build' }, async t => {
  const said = async (...args: string[]): Promise<string> =>
    (await promisify(execFile)(process.execPath, [join(DIST, 'southbridge.js'), ...args])).stdout;

  t.test('loads all that the modules have', async t => {
    t.equal(await said('-device', 'help'), await said('-readconfig', '/dev/null', '-device', 'help'));
  });

  t.test('has the code of each chunk', async t => {
    const files = readdirSync(BUNDLE).filter(name => /^\d+\.cjs$/.test(name));
    t.ok(files.length >= 4);
    for (const name of files) t.ok(readdirSync(BUNDLE).includes(name.replace(/cjs$/, 'code')), name);
  });
});
