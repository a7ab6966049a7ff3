import type { BackendLookup } from '../../device/property.ts';
import { SouthbridgeError } from '../../errors.ts';
import type { Program, Resource } from '../program.ts';

/** Finds the backend of one kind by id, and gives it to the device that asks. Throws where there is none. */
export type BackendProvider = (id: string) => unknown;

/** The host's side of devices, by kind (`chardev`, `drive`, `netdev`, ...); each kind is provided by its layer. */
export class Backends implements BackendLookup, Resource {
  readonly #providers = new Map<string, BackendProvider>();
  readonly #finders: ((kind: string, id: string) => unknown)[] = [];
  readonly #resources: Resource[] = [];
  readonly #program: Pick<Program, 'chars' | 'blocks'>;

  constructor(program: Pick<Program, 'chars' | 'blocks'>) {
    this.#program = program;
    this.provide('chardev', id => program.chars.claim(id));
  }

  /** A drive that is empty is known to the block layer as well: that is where media are put into it. */
  async prepare(kind: string): Promise<void> {
    if (kind === 'drive') await this.#program.blocks();
  }

  /** Registers what finds backends of `kind`; `owner` is let go with the program. */
  provide(kind: string, provider: BackendProvider, owner?: Resource): void {
    this.#providers.set(kind, provider);
    if (owner !== undefined) this.#resources.push(owner);
  }

  /** Registers what is asked before the provider of a kind; it answers undefined for what it has not. */
  extend(finder: (kind: string, id: string) => unknown): void {
    this.#finders.push(finder);
  }

  find(kind: string, id: string): unknown {
    for (const finder of this.#finders) {
      const found = finder(kind, id);
      if (found !== undefined) return found;
    }
    const provider = this.#providers.get(kind);
    if (provider === undefined) {
      const message = kind === 'cryptodev' ? `Device '${id}' not found` : `can't find value '${id}'`;
      throw new SouthbridgeError('ERR_BACKEND', message);
    }
    return provider(id);
  }

  dispose(): void {
    for (const resource of this.#resources.splice(0).reverse()) resource.dispose();
  }
}
