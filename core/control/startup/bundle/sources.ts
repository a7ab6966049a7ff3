import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const STATIC = /^(?:import|export)\b[^'";]*?(?:from )?'(\.[^']+)'/gm;
const DYNAMIC = /\bimport\('(\.[^']+)'\)/g;

/** The compiled modules by their paths below `dist`, and what they import. */
export class Sources {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  text(path: string): string {
    return readFileSync(join(this.#root, path), 'utf8');
  }

  imports(path: string): string[] {
    return this.#targets(path, STATIC);
  }

  lazyImports(path: string): string[] {
    return this.#targets(path, DYNAMIC);
  }

  /** All that can be reached from `roots`: the set, and those of it that are imported when they are first needed. */
  reach(roots: readonly string[]): { all: Set<string>; lazy: Set<string> } {
    const all = new Set<string>();
    const lazy = new Set<string>();
    const left = [...roots];
    for (let path = left.pop(); path !== undefined; path = left.pop()) {
      if (all.has(path)) continue;
      all.add(path);
      for (const target of this.lazyImports(path)) lazy.add(target);
      left.push(...this.imports(path), ...this.lazyImports(path));
    }
    return { all, lazy };
  }

  /** The text with each import that waits put through `rewrite`. */
  rewriteLazy(path: string, rewrite: (target: string) => string): string {
    return this.text(path).replace(DYNAMIC, (_, specifier: string) => rewrite(join(dirname(path), specifier)));
  }

  #targets(path: string, pattern: RegExp): string[] {
    return [...this.text(path).matchAll(pattern)].map(([, specifier = '']) => join(dirname(path), specifier));
  }
}
