import { field, type StateValues } from '../../core/state/fields.ts';
import type { Namespace } from './namespace.ts';
import { MAX_NAMESPACES } from './registers.ts';

/** A bit for each namespace from 0 to 256. Attachment outlasts resets of any kind (NVMe 1.4, section 6.1.4). */
export const attachedFields = { attached: field.words(Math.ceil((MAX_NAMESPACES + 1) / 32)) } as const;

/** The namespaces that are attached to a controller. */
export class AttachedNamespaces {
  readonly #s: StateValues<typeof attachedFields>;
  readonly #byId = new Map<number, Namespace>();

  constructor(state: StateValues<typeof attachedFields>) {
    this.#s = state;
  }

  get(nsid: number): Namespace | undefined {
    return this.#byId.get(nsid);
  }

  /** In the order of their ids. */
  *[Symbol.iterator](): Generator<Namespace> {
    for (let nsid = 1; nsid <= MAX_NAMESPACES; nsid++) {
      const namespace = this.#byId.get(nsid);
      if (namespace !== undefined) yield namespace;
    }
  }

  attach(namespace: Namespace): void {
    const { nsid } = namespace;
    this.#byId.set(nsid, namespace);
    this.#s.attached[nsid >>> 5] = (this.#s.attached[nsid >>> 5] ?? 0) | (1 << (nsid & 31));
  }

  detach(nsid: number): void {
    this.#byId.delete(nsid);
    this.#s.attached[nsid >>> 5] = (this.#s.attached[nsid >>> 5] ?? 0) & ~(1 << (nsid & 31));
  }

  /** Those that the restored state names, of the ones that there are. */
  restored(find: (nsid: number) => Namespace | undefined): void {
    const { attached } = this.#s;
    const wanted = attached.slice();
    this.#byId.clear();
    attached.fill(0);
    for (let nsid = 1; nsid <= MAX_NAMESPACES; nsid++) {
      const namespace = ((wanted[nsid >>> 5] ?? 0) >>> (nsid & 31)) & 1 ? find(nsid) : undefined;
      if (namespace !== undefined) this.attach(namespace);
    }
  }
}
