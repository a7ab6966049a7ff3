/** Heterogeneous Memory Attribute Table (ACPI 6.4 section 5.2.27): what it costs CPUs of each node to reach memory. */
import type { TableContent } from './acpi-blob.ts';
import { concat, u16, u32, u64 } from './aml.ts';

const HIERARCHIES = ['memory', 'first-level', 'second-level', 'third-level'] as const;
const DATA_TYPES = [
  'access-latency',
  'read-latency',
  'write-latency',
  'access-bandwidth',
  'read-bandwidth',
  'write-bandwidth',
] as const;
const ASSOCIATIVITIES = ['none', 'direct', 'complex'] as const;
const POLICIES = ['none', 'write-back', 'write-through'] as const;

/** A memory-side cache. */
export interface HmatCache {
  /** Bytes. */
  readonly size: number;
  readonly level: number;
  readonly associativity: (typeof ASSOCIATIVITIES)[number];
  readonly policy: (typeof POLICIES)[number];
  /** Bytes of a line. */
  readonly line: number;
}

export interface HmatNode {
  readonly hasCpu: boolean;
  /** The node whose CPUs reach this memory best. */
  readonly initiator?: number;
  readonly caches: readonly HmatCache[];
}

/** One kind of cost between nodes: nanoseconds, or bytes a second. */
export interface HmatCosts {
  readonly hierarchy: (typeof HIERARCHIES)[number];
  readonly dataType: string;
  /** What one unit of an entry stands for, in nanoseconds or bytes a second. */
  readonly base: number;
  readonly entries: readonly { readonly initiator: number; readonly target: number; readonly value: number }[];
}

export interface HmatFacts {
  readonly nodes: readonly HmatNode[];
  readonly costs: readonly HmatCosts[];
}

const INITIATOR_VALID = 1 << 0;
/** What stands for no initiator. */
const NO_INITIATOR = 128;
const PS_PER_NS = 1000;
const MIB = 2 ** 20;

/** 5.2.27.3 Memory Proximity Domain Attributes. */
function proximity(node: HmatNode, number: number): Uint8Array {
  const flags = node.initiator === undefined ? 0 : INITIATOR_VALID;
  return concat(u32(0), u32(40), u32(flags), u32(node.initiator ?? NO_INITIATOR), u32(number), new Uint8Array(20));
}

/** 5.2.27.4 System Locality Latency and Bandwidth Information. */
function locality(costs: HmatCosts, initiators: readonly number[], targetCount: number): Uint8Array {
  const type = DATA_TYPES.findIndex(name => name === costs.dataType);
  const isLatency = costs.dataType.endsWith('latency');
  const base = isLatency ? costs.base * PS_PER_NS : Math.floor(costs.base / MIB);
  const entries = new Uint16Array(initiators.length * targetCount);
  for (const { initiator, target, value } of costs.entries) {
    entries[initiators.indexOf(initiator) * targetCount + target] = Math.floor(value / costs.base);
  }
  const targets = Array.from({ length: targetCount }, (_, target) => u32(target));
  return concat(
    u32(1),
    u32(32 + 4 * initiators.length + 4 * targetCount + 2 * entries.length),
    [HIERARCHIES.indexOf(costs.hierarchy), Math.max(0, type), 0, 0],
    u32(initiators.length),
    u32(targetCount),
    u32(0),
    u64(base),
    ...initiators.map(u32),
    ...targets,
    ...[...entries].map(u16),
  );
}

/** 5.2.27.5 Memory Side Cache Information. */
function cacheInformation(cache: HmatCache, node: number, levels: number): Uint8Array {
  const attributes =
    levels |
    (cache.level << 4) |
    (ASSOCIATIVITIES.indexOf(cache.associativity) << 8) |
    (POLICIES.indexOf(cache.policy) << 12);
  return concat(u32(2), u32(32), u32(node), u32(0), u64(cache.size), u16(attributes), u16(cache.line), u32(0));
}

export function hmat(facts: HmatFacts): TableContent {
  const { nodes, costs } = facts;
  const initiators = nodes.flatMap((node, number) => (node.hasCpu ? [number] : []));
  const order = (each: HmatCosts): number =>
    HIERARCHIES.indexOf(each.hierarchy) * DATA_TYPES.length + DATA_TYPES.findIndex(name => name === each.dataType);
  const body = concat(
    u32(0),
    ...nodes.map(proximity),
    ...costs
      .filter(each => each.entries.length > 0)
      .toSorted((a, b) => order(a) - order(b))
      .map(each => locality(each, initiators, nodes.length)),
    ...nodes.flatMap((node, number) =>
      node.caches
        .toSorted((a, b) => a.level - b.level)
        .map(cache => cacheInformation(cache, number, node.caches.length)),
    ),
  );
  return { signature: 'HMAT', revision: 2, body };
}
