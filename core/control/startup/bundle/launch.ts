import { readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { TypeRegistry } from '../../../device/registry.ts';
import type { Entry } from '../run.ts';
import { Linker } from './linker.ts';

/** Where the compiled modules are, and the bundle beside them. */
export const DIST = join(import.meta.dirname, '../../../..');
export const BUNDLE = join(DIST, 'bundle');
export const STAMP = join(BUNDLE, 'stamp');

/** Options that may bring plugins, which share this program's modules one by one; and tools beside the emulator. */
const WITH_MODULES = /^--?(?:plugin|watch-plugin|trace-sink|readconfig)\b|^(?:create|generate|test)$|\.json\b/;

/**
 * Starts the program from its bundle, which `npm run build:bundle` makes; false where there is none of just this build, or
 * where the modules are to be used.
 */
export function launch(require: NodeJS.Require): boolean {
  const called = invocation();
  if (called.args.some(arg => WITH_MODULES.test(arg)) || process.env['NODE_V8_COVERAGE'] !== undefined) return false;
  try {
    if (readFileSync(STAMP, 'utf8') !== buildStamp()) return false;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw error;
  }
  const linker = new Linker(BUNDLE, require);
  const { run } = linker.link(ROOTS.run) as { run(entry: Entry): Promise<void> };
  const { builtInTypes } = linker.link(ROOTS.types) as { builtInTypes(): TypeRegistry };
  void run({ ...called, registry: builtInTypes });
  return true;
}

/** What the program starts from: both are in the first chunk. */
export const ROOTS = { run: '0#core/control/startup/run.js', types: '0#machines/built-in.js' } as const;

/** The name that the program was called by, from which clients derive the architecture, and its arguments. */
export function invocation(): Pick<Entry, 'program' | 'args'> {
  const called = basename(process.argv[1] ?? '').replace(/\.js$/, '');
  const program = called.startsWith('southbridge') || called.startsWith('qemu') ? called : 'southbridge';
  return { program, args: process.argv.slice(2) };
}

/** What a build of the modules is known by: the compiler rewrites its notes whenever it has changed something. */
export function buildStamp(): string {
  const { mtimeMs, size } = statSync(join(DIST, '.tsbuildinfo'));
  return `${mtimeMs} ${size}`;
}
