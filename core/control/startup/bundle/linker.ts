import { closeSync, fstatSync, openSync, readSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Script } from 'node:vm';

/** Set by the build, for a run whose compiled code is kept. */
export const KEEP_CODE = 'SOUTHBRIDGE_KEEP_CODE';

/** Room for the largest file. */
const BUFFER_BYTES = 0x18_0000;

/** What a file of the bundle evaluates to: a function that takes what the file may use. */
export type ChunkBody = (
  module: { exports: unknown },
  require: (id: string) => unknown,
  load: (id: string) => Promise<unknown>,
  moduleUrl: (path: string) => string,
) => void;
/** Those that hold many modules export them by name. */
interface Chunk {
  readonly modules: Readonly<Record<string, () => unknown>>;
}

/**
 * Loads the files of the bundle when something in them is first asked for. `2#core/errors.js` is that module in the file
 * `2.cjs`; an identifier without `#` is a file with a module of its own.
 */
export class Linker {
  readonly #folder: string;
  readonly #require: NodeJS.Require;
  readonly #files = new Map<string, { exports: unknown }>();
  readonly #modules = new Map<string, unknown>();
  #buffer = Buffer.alloc(0);

  constructor(folder: string, require: NodeJS.Require) {
    this.#folder = folder;
    this.#require = require;
  }

  /** The exports of a module. */
  link(id: string): unknown {
    const hash = id.indexOf('#');
    if (hash < 0) return this.#file(id).exports;
    const linked = this.#modules.get(id);
    if (linked !== undefined) return linked;
    const { exports } = this.#file(id.slice(0, hash));
    const module = isChunk(exports) ? exports.modules[id.slice(hash + 1)]?.() : undefined;
    if (module === undefined) throw new Error(`there is no ${id} in the bundle: npm run build:bundle`);
    this.#modules.set(id, module);
    return module;
  }

  #file(name: string): { exports: unknown } {
    let module = this.#files.get(name);
    if (module !== undefined) return module;
    module = { exports: {} };
    this.#files.set(name, module);
    const body = this.#evaluate(join(this.#folder, name));
    body(
      module,
      id => {
        if (id.startsWith('.')) return this.link(join(dirname(name), id).replace(/\.js$/, ''));
        return id.includes('#') ? this.link(id) : this.#require(id);
      },
      async id => this.link(id),
      path => pathToFileURL(join(this.#folder, path)).href,
    );
    return module;
  }

  #evaluate(path: string): ChunkBody {
    const source = this.#read(`${path}.cjs`).toString('latin1');
    const cachedData = this.#code(`${path}.code`);
    const script = new Script(source, { filename: `${path}.cjs`, ...(cachedData && { cachedData }) });
    if (process.env[KEEP_CODE] !== undefined && cachedData === undefined)
      process.once('exit', () => writeFileSync(`${path}.code`, script.createCachedData()));
    return script.runInThisContext() as ChunkBody;
  }

  /** The code that V8 had compiled by the end of a start, where the build kept it. */
  #code(path: string): Buffer | undefined {
    try {
      return this.#read(path);
    } catch {
      return undefined;
    }
  }

  /** The bytes of a file, until the next one is read: to touch fresh memory for each would take longer than to read it. */
  #read(path: string): Buffer {
    const file = openSync(path, 'r');
    try {
      const { size } = fstatSync(file);
      if (this.#buffer.length < size) this.#buffer = Buffer.allocUnsafeSlow(Math.max(size, BUFFER_BYTES));
      return this.#buffer.subarray(0, readSync(file, this.#buffer, 0, size, 0));
    } finally {
      closeSync(file);
    }
  }
}

const isChunk = (value: unknown): value is Chunk => typeof value === 'object' && value !== null && 'modules' in value;
