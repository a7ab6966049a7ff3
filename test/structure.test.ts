/** The shape of the source tree: which folder may import which, and how large a file may be (docs/explanation/architecture.md). */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
/** From the outside in: a folder imports itself and what comes after it. */
const LAYERS = ['machines', 'devices', 'core', 'native'] as const;
const LONGEST = 600;
/** Longer with a reason. */
const LONG: Readonly<Record<string, string>> = {
  'core/accel/wasm/vm.ts': 'one run loop: slices, turns, checks and sleep depend on each other',
  'core/cpu/model-data.ts': 'a table: the CPU models',
  'devices/floppy/fdc.ts': 'one state machine: the 82077AA commands and their phases',
  'devices/ide/unit.ts': 'one state machine: the ATA command set',
};

function sources(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.ts') && !name.includes('node_modules'))
    .map(name => join(folder, name));
}

function imports(text: string): string[] {
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map(match => match[1] ?? '');
}

t.test('imports run from machines to devices to core to native', async t => {
  const wrong: string[] = [];
  LAYERS.forEach((layer, depth) => {
    for (const file of sources(layer)) {
      for (const specifier of imports(readFileSync(join(ROOT, file), 'utf8'))) {
        const target = relative(ROOT, resolve(ROOT, dirname(file), specifier)).split('/')[0] ?? '';
        if (!LAYERS.slice(depth).some(allowed => allowed === target)) wrong.push(`${file} imports ${specifier}`);
      }
    }
  });
  t.same(wrong, []);
});

t.test('devices take time and chance from their services only', async t => {
  const wrong = sources('devices').filter(file =>
    /\b(?:Date\.now|new Date\(\)|(?<![#.])setTimeout|(?<![#.])setInterval|(?<![#.])setImmediate|Math\.random|performance\.now)\b/.test(
      readFileSync(join(ROOT, file), 'utf8'),
    ),
  );
  t.same(wrong, []);
});

t.test('no file grows beyond what one reads at a sitting', async t => {
  const long = LAYERS.flatMap(sources).filter(
    file => readFileSync(join(ROOT, file), 'utf8').split('\n').length > LONGEST && LONG[file] === undefined,
  );
  t.same(long, []);
});
