import { S, type Status } from './protocol.ts';

/** A stretch of a domain's addresses, both ends included, and where it is in memory. */
export interface Mapping {
  readonly start: number;
  readonly end: number;
  readonly memory: number;
  readonly flags: number;
}

/** Enough for every page of a large guest; beyond it the driver is told that there is no memory. */
export const MAPPINGS_MAX = 2 ** 20;

/** What the endpoints that are attached to it see (virtio 1.2, section 5.13.2). */
export class Domain {
  readonly bypass: boolean;
  /** In order, without overlaps. */
  readonly mappings: Mapping[] = [];
  /** How many endpoints are attached. */
  endpoints = 0;

  constructor(bypass: boolean) {
    this.bypass = bypass;
  }

  /** The mapping of an address. */
  find(address: number): Mapping | undefined {
    const mapping = this.mappings[this.#firstFrom(address)];
    return mapping !== undefined && mapping.start <= address ? mapping : undefined;
  }

  map(mapping: Mapping): Status {
    const { mappings } = this;
    const at = this.#firstFrom(mapping.start);
    const next = mappings[at];
    if (next !== undefined && next.start <= mapping.end) return S.INVAL;
    if (mappings.length >= MAPPINGS_MAX) return S.NOMEM;
    mappings.splice(at, 0, mapping);
    return S.OK;
  }

  /** Takes out the mappings within a stretch; none where one is only partly within it. */
  unmap(start: number, end: number): Status {
    const { mappings } = this;
    const from = this.#firstFrom(start);
    let to = from;
    for (let mapping = mappings[to]; mapping !== undefined && mapping.start <= end; mapping = mappings[++to])
      if (mapping.start < start || mapping.end > end) return S.RANGE;
    mappings.splice(from, to - from);
    return S.OK;
  }

  /** The first mapping that ends at `address` or behind it. */
  #firstFrom(address: number): number {
    const { mappings } = this;
    let low = 0;
    for (let high = mappings.length; low < high; ) {
      const middle = (low + high) >> 1;
      if ((mappings[middle]?.end ?? 0) < address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
