import { createRequire, register } from 'node:module';
import { pathToFileURL } from 'node:url';
import { SouthbridgeError } from '../errors.ts';
import type { HookData } from './module-hooks.ts';

/** This program's own package: what a plugin's `import 'southbridge'` leads to, wherever the plugin is. */
const PACKAGE = new URL('../../../package.json', import.meta.url).href;

let registered = false;
let generation = 0;

/**
 * Imports a plugin's module. TypeScript is taken as it is; `southbridge` is this very program, so that there is one of each
 * class. Each call imports the module, and what it imports by path, afresh.
 * @throws SouthbridgeError ERR_PLUGIN_LOAD with the reason
 */
export async function importPlugin(file: string): Promise<Readonly<Record<string, unknown>>> {
  if (!registered) {
    const data: HookData = { package: PACKAGE, compiler: compilerFor(file) };
    register<HookData>(new URL('module-hooks.js', import.meta.url), { data });
    registered = true;
  }
  const url = pathToFileURL(file);
  url.searchParams.set('southbridge', String(++generation));
  try {
    return (await import(url.href)) as Readonly<Record<string, unknown>>;
  } catch (error) {
    if (error instanceof SouthbridgeError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new SouthbridgeError('ERR_PLUGIN_LOAD', `cannot load ${file}: ${message}`, undefined, { cause: error });
  }
}

/** The TypeScript compiler of the plugin's folder, or else this program's; undefined where there is none. */
function compilerFor(file: string): string | undefined {
  for (const from of [pathToFileURL(file), PACKAGE]) {
    try {
      return createRequire(from)
        .resolve('typescript/package.json')
        .replace(/package\.json$/, 'bin/tsc');
    } catch {
      // The next place.
    }
  }
  return undefined;
}
