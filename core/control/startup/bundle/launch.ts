import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Script } from 'node:vm';
import type { TypeRegistry } from '../../../device/registry.ts';
import type { Entry } from '../run.ts';

/**
 * The program in one file with V8's compiled code beside it, made by `npm run build:bundle`: starting takes a third of the time
 * that some 400 modules take (docs/design/start.md).
 */
export interface BundledProgram {
  run(entry: Entry): Promise<void>;
  builtInTypes(): TypeRegistry;
}

/** Where the compiled modules are. */
export const DIST = fileURLToPath(new URL('../../../../', import.meta.url));
export const BUNDLE = {
  program: join(DIST, 'bundle', 'southbridge.cjs'),
  code: join(DIST, 'bundle', 'southbridge.code'),
  stamp: join(DIST, 'bundle', 'stamp'),
} as const;
/** Set by the build, for the run whose compiled code is kept. */
export const KEEP_CODE = 'SOUTHBRIDGE_KEEP_CODE';

/** Options that may bring plugins, which share this program's modules one by one; and tools beside the emulator. */
const WITH_MODULES = /^--?(?:plugin|watch-plugin|trace-sink|readconfig)\b|^(?:create|generate|test)$|\.json\b/;

/** The bundle, where there is one of just this build; undefined where the modules are to be used. */
export function bundledProgram(args: readonly string[]): BundledProgram | undefined {
  if (args.some(arg => WITH_MODULES.test(arg)) || process.env['NODE_V8_COVERAGE'] !== undefined) return undefined;
  try {
    if (readFileSync(BUNDLE.stamp, 'utf8') !== buildStamp()) return undefined;
    return evaluate(readFileSync(BUNDLE.program, 'latin1'), compiledCode());
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** What a build of the modules is known by: the compiler rewrites its notes whenever it has changed something. */
export function buildStamp(): string {
  const { mtimeMs, size } = statSync(join(DIST, '.tsbuildinfo'));
  return `${mtimeMs} ${size}`;
}

function compiledCode(): Buffer | undefined {
  try {
    return readFileSync(BUNDLE.code);
  } catch {
    return undefined;
  }
}

function evaluate(source: string, cachedData: Buffer | undefined): BundledProgram {
  const script = new Script(`(function (exports, require, module, __filename) {${source}\n})`, {
    filename: BUNDLE.program,
    ...(cachedData && { cachedData }),
  });
  const bundle: { exports: unknown } = { exports: {} };
  const wrapper: unknown = script.runInThisContext();
  if (typeof wrapper === 'function') wrapper(bundle.exports, createRequire(BUNDLE.program), bundle, BUNDLE.program);
  if (!isProgram(bundle.exports)) throw new Error(`${BUNDLE.program} is not what npm run build:bundle makes`);
  if (process.env[KEEP_CODE] !== undefined)
    process.once('exit', () => writeFileSync(BUNDLE.code, script.createCachedData()));
  return bundle.exports;
}

const isProgram = (value: unknown): value is BundledProgram =>
  typeof value === 'object' && value !== null && 'run' in value && 'builtInTypes' in value;
