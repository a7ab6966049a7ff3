/** `npm run bench`: all benchmarks, one after the other, so that none disturbs another. `npm run bench -- exits` runs one. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NOT_BENCHMARKS = new Set([
  'all.js',
  'accelerators.js',
  'bench-bus.js',
  'guest-disks.js',
  'median.js',
  'net-cards.js',
]);
const here = dirname(fileURLToPath(import.meta.url));
const wanted = process.argv.slice(2);
const benches = readdirSync(here)
  .filter(file => file.endsWith('.js') && !NOT_BENCHMARKS.has(file))
  .filter(file => wanted.length === 0 || wanted.includes(file.replace(/\.js$/, '')));

let failed = false;
for (const file of benches) {
  console.log(`\n== ${file.replace(/\.js$/, '')}`);
  failed = spawnSync(process.execPath, [join(here, file)], { stdio: 'inherit' }).status !== 0 || failed;
}
process.exitCode = failed || benches.length === 0 ? 1 : 0;
