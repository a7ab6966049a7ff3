/** `southbridge create` makes packages that install, compile and pass their own tests. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { ROOT } from '../../docs/samples.ts';

const run = promisify(execFile);
const program = join(ROOT, 'dist/southbridge.js');
t.setTimeout(240_000);

/** Makes a package, and installs it against this source tree, without the network. */
async function created(t: Test, kind: string, name: string): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-create-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const { stdout } = await run(process.execPath, [program, 'create', kind, name], { cwd: folder });
  t.match(stdout, /npm install\n {2}npm test\n/);
  const target = join(folder, name);
  const path = join(target, 'package.json');
  const manifest = JSON.parse(readFileSync(path, 'utf8'));
  t.match(manifest.devDependencies.southbridge, /^\^\d+\.\d+\.\d+$/);
  const local = (dependency: string): string => `file:${join(ROOT, 'node_modules', dependency)}`;
  manifest.devDependencies = {
    southbridge: `file:${ROOT}`,
    typescript: local('typescript'),
    '@types/node': local('@types/node'),
  };
  writeFileSync(path, JSON.stringify(manifest));
  await run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--install-links=false'], { cwd: target });
  return target;
}

for (const [kind, name, contents] of [
  [
    'device',
    'heat-pump',
    /ok \d+ - heat-pump: any offset, width and value never throws[\s\S]*ok \d+ - a job takes its time/,
  ],
  ['machine', 'heat-lab', /ok \d+ - the machine has its card[\s\S]*ok \d+ - the file says the same/],
] as const) {
  t.test(`create ${kind}`, async t => {
    const folder = await created(t, kind, name);
    // In the place of the loaders that this test's own runner wants in every process.
    const { stdout } = await run('env', ['NODE_OPTIONS=--test-reporter=tap', 'npm', 'test'], { cwd: folder });
    t.match(stdout, contents);
    t.match(stdout, /# fail 0/);
    const listing = await run(process.execPath, [program, '-plugin', folder, '-plugin', 'help']);
    t.match(listing.stdout, new RegExp(`^${name} 0\\.1\\.0 \\(API 1\\.0\\) from .*\\n +-${kind} ${name} `));
  });
}

t.test('errors and help', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-create-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const attempt = (...args: string[]) => run(process.execPath, [program, 'create', ...args], { cwd: folder });
  t.match((await attempt()).stdout, /Usage: southbridge create device\|machine NAME/);
  await t.rejects(attempt('device', 'My Device'), {
    code: 1,
    stderr: /'My Device' is no name for a package\nuse small letters/,
  });
  writeFileSync(join(folder, 'there'), '');
  await t.rejects(attempt('device', 'x', '.'), { code: 1, stderr: /is not empty/ });
});
