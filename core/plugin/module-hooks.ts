/** How Node.js finds and reads the modules of plugins (Node.js documentation, "Customization hooks"). Runs on a thread of its own. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { LoadHook, ResolveHook } from 'node:module';
import * as modules from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export interface HookData {
  /** URL of this program's package.json. */
  readonly package: string;
  /** The TypeScript compiler's file, where there is one. */
  readonly compiler: string | undefined;
}

const GENERATION = 'southbridge';

let data: HookData = { package: '', compiler: undefined };

export function initialize(given: HookData): void {
  data = given;
}

export const resolve: ResolveHook = async (specifier, context, nextResolve) => {
  if (specifier === 'southbridge' || specifier.startsWith('southbridge/'))
    return nextResolve(specifier, { ...context, parentURL: data.package });
  const generation = context.parentURL && new URL(context.parentURL).searchParams.get(GENERATION);
  if (!generation || !specifier.startsWith('.')) return nextResolve(specifier, context);
  const found = await resolveSource(specifier, context, nextResolve);
  const url = new URL(found.url);
  url.searchParams.set(GENERATION, generation);
  return { ...found, url: url.href };
};

/** A relative import; `./part.js` is `./part.ts` where only that is there, as TypeScript has it. */
const resolveSource: ResolveHook = async (specifier, context, nextResolve) => {
  try {
    return await nextResolve(specifier, context);
  } catch (error) {
    if (!/\.[cm]?js$/.test(specifier)) throw error;
    return nextResolve(specifier.replace(/js$/, 'ts'), context);
  }
};

export const load: LoadHook = async (url, context, nextLoad) => {
  const { pathname, protocol, searchParams } = new URL(url);
  if (protocol !== 'file:' || !searchParams.has(GENERATION) || !/\.m?ts$/.test(pathname)) return nextLoad(url, context);
  return { format: 'module', source: withoutTypes(fileURLToPath(new URL(pathname, 'file://'))), shortCircuit: true };
};

type StripTypes = (source: string, options: { readonly mode: 'strip'; readonly sourceUrl: string }) => string;

/** What sources came to, by their text: a plugin that is loaded again has mostly not changed. */
const compiled = new Map<string, string>();

function withoutTypes(file: string): string {
  const source = readFileSync(file, 'utf8');
  const known = compiled.get(source) ?? stripTypes(file, source);
  compiled.set(source, known);
  return known;
}

function stripTypes(file: string, source: string): string {
  if ('stripTypeScriptTypes' in modules) {
    const strip = modules.stripTypeScriptTypes as StripTypes;
    return strip(source, { mode: 'strip', sourceUrl: pathToFileURL(file).href });
  }
  if (data.compiler === undefined)
    throw new Error(`${file} is TypeScript, and there is no compiler: npm install typescript`);
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-ts-'));
  try {
    // One file, as it is: what it imports is loaded when Node.js asks for it.
    const flags = '--ignoreConfig --noCheck --noResolve --isolatedModules --verbatimModuleSyntax --inlineSourceMap';
    const target = ['--target', 'es2023', '--module', 'esnext', '--rootDir', join(file, '..'), '--outDir', folder];
    // Loaders and other options of this process are not the compiler's.
    const compiler = ['-u', 'NODE_OPTIONS', process.execPath, data.compiler];
    const { status, stdout } = spawnSync('env', [...compiler, ...flags.split(' '), ...target, file], {
      encoding: 'utf8',
    });
    const syntax = stdout.split('\n').filter(line => /error TS1\d\d\d:/.test(line));
    if (syntax.length > 0) throw new SyntaxError(syntax.join('; '));
    try {
      return readFileSync(join(folder, basename(file).replace(/ts$/, 'js')), 'utf8');
    } catch {
      throw new Error(`the TypeScript compiler gave up on ${file} with status ${status}: ${stdout}`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
