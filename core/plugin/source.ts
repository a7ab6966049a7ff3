import { existsSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { SouthbridgeError } from '../errors.ts';

/** Where a plugin's module is, and what its package says. */
export interface PluginSource {
  /** The module's file. */
  readonly file: string;
  readonly name: string;
  readonly version: string;
  /** `southbridge.api` of its package.json, for modules that declare no plugin. */
  readonly api: string | undefined;
}

interface Manifest {
  readonly name?: unknown;
  readonly version?: unknown;
  readonly main?: unknown;
  readonly exports?: unknown;
  readonly southbridge?: unknown;
}

const CONDITIONS = ['southbridge', 'node', 'import', 'default'];

/**
 * Finds a plugin by the path of a file or folder, or by the name of a package that is installed in `from` or above it.
 * @throws SouthbridgeError ERR_PLUGIN_NOT_FOUND
 */
export function findPlugin(given: string, from = process.cwd()): PluginSource {
  const path = resolve(from, given);
  if (existsSync(path)) return statSync(path).isDirectory() ? fromFolder(path) : fromFile(path);
  if (/^[./]/.test(given) || /\.[a-z]+$/.test(given)) throw notFound(`there is no file '${path}'`);
  for (let folder = from; ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', given);
    if (existsSync(join(candidate, 'package.json'))) return fromFolder(candidate);
    if (folder === dirname(folder)) break;
  }
  throw notFound(`there is no package '${given}' in ${from} or above it`, `npm install ${given}`);
}

function notFound(message: string, hint?: string): SouthbridgeError {
  return new SouthbridgeError('ERR_PLUGIN_NOT_FOUND', message, hint);
}

function fromFile(file: string): PluginSource {
  const manifest = nearestManifest(dirname(file));
  return {
    file,
    name: basename(file).replace(/\.[cm]?[jt]s$|\.json$/, ''),
    version: text(manifest?.version) ?? '',
    api: apiOf(manifest),
  };
}

function fromFolder(folder: string): PluginSource {
  const manifest = readManifest(folder);
  if (manifest === undefined)
    throw notFound(`'${folder}' has no package.json`, 'give the path of a file, or of a package');
  const entry = exported(manifest.exports) ?? text(manifest.main) ?? 'index.js';
  const file = join(folder, entry);
  if (!existsSync(file)) {
    throw notFound(
      `the plugin '${text(manifest.name) ?? folder}' lacks its entry ${file}`,
      'build it first: npm run build',
    );
  }
  return {
    file,
    name: text(manifest.name) ?? basename(folder),
    version: text(manifest.version) ?? '',
    api: apiOf(manifest),
  };
}

/** The file of the package's main entry (Node.js documentation, "Packages: conditional exports"). */
function exported(exports: unknown): string | undefined {
  if (typeof exports === 'string') return exports;
  if (typeof exports !== 'object' || exports === null) return undefined;
  const record = exports as Readonly<Record<string, unknown>>;
  if ('.' in record) return exported(record['.']);
  for (const condition of CONDITIONS) {
    const found = exported(record[condition]);
    if (found !== undefined) return found;
  }
  return undefined;
}

function nearestManifest(from: string): Manifest | undefined {
  for (let folder = from; ; folder = dirname(folder)) {
    const manifest = readManifest(folder);
    if (manifest !== undefined) return manifest;
    if (folder === dirname(folder)) return undefined;
  }
}

function readManifest(folder: string): Manifest | undefined {
  const path = join(folder, 'package.json');
  if (!existsSync(path)) return undefined;
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Manifest;
  } catch (error) {
    throw new SouthbridgeError('ERR_PLUGIN_PACKAGE', `${path} is not JSON: ${String(error)}`);
  }
}

function apiOf(manifest: Manifest | undefined): string | undefined {
  const own = manifest?.southbridge;
  return typeof own === 'object' && own !== null && 'api' in own ? text(own.api) : undefined;
}

const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
