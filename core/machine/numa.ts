/** NUMA nodes: which CPUs and how much memory each has, how far they are apart, and their latency, bandwidth and caches. */
import { SouthbridgeError } from '../errors.ts';
import type { CpuSelector, CpuSlots } from './cpu-slots.ts';

const MAX_NODES = 128;
const CACHE_LEVELS = 3;
const MIB = 2 ** 20;
const LOCAL_DISTANCE = 10;
const UNREACHABLE = 255;
/** HMAT entries are 16 bits, and all ones means unreachable (ACPI 6.4, section 5.2.27.4). */
const ENTRY_LIMIT = 0xffff;

/** One `-numa` option, as QEMU's NumaOptions (QAPI). Sizes in bytes, latencies in nanoseconds, bandwidths in bytes a second. */
export type NumaOption =
  | {
      readonly type: 'node';
      readonly nodeid?: number | undefined;
      readonly cpus?: readonly number[] | undefined;
      readonly mem?: number | undefined;
      readonly memdev?: string | undefined;
      readonly initiator?: number | undefined;
    }
  | { readonly type: 'dist'; readonly src: number; readonly dst: number; readonly val: number }
  | ({ readonly type: 'cpu'; readonly nodeId?: number | undefined } & CpuSelector)
  | ({ readonly type: 'hmat-lb' } & NumaLatencyBandwidth)
  | ({ readonly type: 'hmat-cache' } & NumaCache);

export interface NumaLatencyBandwidth {
  readonly initiator: number;
  readonly target: number;
  readonly hierarchy: 'memory' | 'first-level' | 'second-level' | 'third-level';
  readonly dataType: string;
  readonly latency?: number | undefined;
  readonly bandwidth?: number | undefined;
}

export interface NumaCache {
  readonly nodeId: number;
  readonly size: number;
  readonly level: number;
  readonly associativity: 'none' | 'direct' | 'complex';
  readonly policy: 'none' | 'write-back' | 'write-through';
  readonly line: number;
}

export interface NumaNode {
  /** Bytes. */
  memory: number;
  memdev: string | undefined;
  /** The node whose CPUs reach this memory best. */
  initiator: number | undefined;
  hasCpu: boolean;
  /** Distances to the other nodes; 10 is local (ACPI 6.4, section 5.2.17). */
  readonly distances: Map<number, number>;
  readonly caches: Map<number, NumaCache>;
  hasLatency: boolean;
  hasBandwidth: boolean;
}

/** One table of HMAT: what one kind of access costs between nodes. */
export interface LatencyBandwidthTable {
  readonly hierarchy: NumaLatencyBandwidth['hierarchy'];
  readonly dataType: string;
  readonly entries: NumaLatencyBandwidth[];
  /** The unit of the 16-bit entries; 0 before the first that is not zero. */
  base: number;
  /** The largest entry so far (latency), or the union of all values' bits (bandwidth). */
  range: bigint;
}

export interface NumaParts {
  readonly cpus: CpuSlots;
  readonly hmat: boolean;
  /** Bytes of a memory backend; undefined where there is none of that id. */
  memdevSize(id: string): number | undefined;
}

function fail(message: string, hint?: string): never {
  throw new SouthbridgeError('ERR_NUMA', message, hint);
}

/** A machine's NUMA configuration: filled by {@link set}, checked and completed by {@link complete}. */
export class Numa {
  readonly #parts: NumaParts;
  readonly #nodes = new Map<number, NumaNode>();
  readonly #tables = new Map<string, LatencyBandwidthTable>();
  #usesMem = false;
  #usesMemdev = false;
  #hasDistances = false;

  constructor(parts: NumaParts) {
    this.#parts = parts;
  }

  /** The nodes in the order of their numbers. */
  get nodes(): readonly NumaNode[] {
    return [...this.#nodes].sort(([a], [b]) => a - b).map(([, node]) => node);
  }

  get hasDistances(): boolean {
    return this.#hasDistances;
  }

  get tables(): readonly LatencyBandwidthTable[] {
    return [...this.#tables.values()];
  }

  /** @throws SouthbridgeError ERR_NUMA, with QEMU's text; nothing is changed in that case */
  set(option: NumaOption): void {
    if (option.type === 'node') return this.#addNode(option);
    if (option.type === 'dist') return this.#setDistance(option);
    if (option.type === 'cpu') return this.#assignCpus(option);
    if (!this.#parts.hmat) this.#hmatIsOff();
    if (option.type === 'hmat-lb') this.#addLatencyBandwidth(option);
    else this.#addCache(option);
  }

  /**
   * Checks the whole and fills in what follows: CPUs that no option named, distances of the other direction.
   * @returns warnings, in QEMU's words
   */
  complete(ramSize: number): readonly string[] {
    if (this.#nodes.size === 0) return [];
    for (let number = Math.max(...this.#nodes.keys()); number >= 0; number--) {
      if (!this.#nodes.has(number)) fail(`numa: Node ID missing: ${number}`);
    }
    this.#checkMemory(ramSize);
    if (this.#hasDistances) this.#completeDistances();
    return this.#assignRemainingCpus();
  }

  #hmatIsOff(): never {
    return fail(
      'ACPI Heterogeneous Memory Attribute Table (HMAT) is disabled, enable it with -machine hmat=on before using any of hmat specific options',
    );
  }

  #addNode(option: Extract<NumaOption, { type: 'node' }>): void {
    const number = option.nodeid ?? this.#nodes.size;
    if (number >= MAX_NODES) fail(`Max number of NUMA nodes reached: ${number}`);
    if (this.#nodes.has(number)) fail(`Duplicate NUMA nodeid: ${number}`);
    if (option.initiator !== undefined && !this.#parts.hmat) this.#hmatIsOff();
    const { slots } = this.#parts.cpus;
    for (const cpu of option.cpus ?? []) {
      if (cpu >= slots.length) fail(`CPU index (${cpu}) should be smaller than maxcpus (${slots.length})`);
    }
    const usesMem = this.#usesMem || option.mem !== undefined;
    const usesMemdev = this.#usesMemdev || option.memdev !== undefined;
    if (usesMem && usesMemdev) fail('numa configuration should use either mem= or memdev=,mixing both is not allowed');
    if (option.mem !== undefined) {
      fail('Parameter -numa node,mem is not supported by this machine type', 'Use -numa node,memdev instead');
    }
    const node: NumaNode = {
      ...{ memory: this.#memdevSize(option.memdev), memdev: option.memdev, initiator: option.initiator, hasCpu: false },
      ...{ distances: new Map(), caches: new Map(), hasLatency: false, hasBandwidth: false },
    };
    this.#nodes.set(number, node);
    try {
      for (const cpu of option.cpus ?? [])
        this.#assign(
          number,
          slots.filter(slot => slot.index === cpu),
        );
    } catch (error) {
      this.#nodes.delete(number);
      throw error;
    }
    this.#usesMem = usesMem;
    this.#usesMemdev = usesMemdev;
  }

  #memdevSize(memdev: string | undefined): number {
    if (memdev === undefined) return 0;
    return this.#parts.memdevSize(memdev) ?? fail(`memdev=${memdev} is ambiguous`);
  }

  #assignCpus(option: Extract<NumaOption, { type: 'cpu' }>): void {
    const { nodeId } = option;
    if (nodeId === undefined) return fail('Missing mandatory node-id property');
    if (!this.#nodes.has(nodeId)) {
      fail(
        `Invalid node-id=${nodeId}, NUMA node must be defined with -numa node,nodeid=ID before it's used with -numa cpu,node-id=ID`,
      );
    }
    this.#assign(nodeId, this.#parts.cpus.matching(option));
  }

  #assign(number: number, slots: readonly CpuSlots['slots'][number][]): void {
    if (slots.length === 0) fail('no match found');
    const node = this.#nodes.get(number);
    for (const slot of slots) {
      if (slot.nodeId !== undefined && slot.nodeId !== number)
        fail(`CPU is already assigned to node-id: ${slot.nodeId}`);
    }
    if (this.#parts.hmat && node?.initiator !== undefined && node.initiator !== number) {
      fail(`The initiator of CPU NUMA node ${number} should be itself (got ${node.initiator})`);
    }
    for (const slot of slots) slot.nodeId = number;
    if (node === undefined) return;
    node.hasCpu = true;
    if (this.#parts.hmat) node.initiator = number;
  }

  #setDistance({ src, dst, val }: Extract<NumaOption, { type: 'dist' }>): void {
    if (src >= MAX_NODES || dst >= MAX_NODES) {
      fail(`Parameter '${src >= MAX_NODES ? 'src' : 'dst'}' expects an integer between 0 and ${MAX_NODES - 1}`);
    }
    const from = this.#nodes.get(src);
    if (from === undefined || !this.#nodes.has(dst)) {
      return fail("Source/Destination NUMA node is missing. Please use '-numa node' option to declare it first.");
    }
    if (val < LOCAL_DISTANCE) fail(`NUMA distance (${val}) is invalid, it shouldn't be less than ${LOCAL_DISTANCE}.`);
    if (val > UNREACHABLE) fail(`NUMA distance (${val}) is invalid, it shouldn't be larger than ${UNREACHABLE}.`);
    if (src === dst && val !== LOCAL_DISTANCE) fail(`Local distance of node ${src} should be ${LOCAL_DISTANCE}.`);
    from.distances.set(dst, val);
    this.#hasDistances = true;
  }

  #addLatencyBandwidth(option: NumaLatencyBandwidth): void {
    const { initiator, target, dataType } = option;
    const count = this.#nodes.size;
    if (initiator > count) fail(`Invalid initiator=${initiator}, it should be less than ${count}`);
    if (target > count) fail(`Invalid target=${target}, it should be less than ${count}`);
    if (!this.#nodes.get(initiator)?.hasCpu) {
      fail(`Invalid initiator=${initiator}, it isn't an initiator proximity domain`);
    }
    const node = this.#nodes.get(target) ?? fail(`The target=${target} should point to an existing node`);
    const kind = dataType.endsWith('latency') ? 'latency' : 'bandwidth';
    const other = kind === 'latency' ? 'bandwidth' : 'latency';
    const value = option[kind] ?? fail(`Missing '${kind}' option`);
    if (option[other] !== undefined) fail(`Invalid option '${other}' since the data type is ${kind}`);
    if (kind === 'bandwidth' && value % MIB !== 0) {
      fail(`Bandwidth ${value} between initiator=${initiator} and target=${target} should be 1MB aligned`);
    }
    const key = `${option.hierarchy} ${dataType}`;
    const table = this.#tables.get(key) ?? { hierarchy: option.hierarchy, dataType, entries: [], base: 0, range: 0n };
    if (table.entries.some(entry => entry.initiator === initiator && entry.target === target)) {
      fail(`Duplicate configuration of the ${kind} for initiator=${initiator} and target=${target}`);
    }
    if (value > 0) {
      if (kind === 'latency') widenLatency(table, option, value);
      else widenBandwidth(table, option, value);
      if (kind === 'latency') node.hasLatency = true;
      else node.hasBandwidth = true;
    }
    table.entries.push(option);
    this.#tables.set(key, table);
  }

  #addCache(cache: NumaCache): void {
    const { nodeId, level, size } = cache;
    const node = this.#nodes.get(nodeId);
    if (node === undefined) return fail(`Invalid node-id=${nodeId}, it should be less than ${this.#nodes.size}`);
    if (!node.hasLatency || !node.hasBandwidth) {
      fail(
        `The latency and bandwidth information of node-id=${nodeId} should be provided before memory side cache attributes`,
      );
    }
    if (level < 1 || level > CACHE_LEVELS) {
      fail(`Invalid level=${level}, it should be larger than 0 and less than or equal to ${CACHE_LEVELS}`);
    }
    if (node.caches.has(level))
      fail(`Duplicate configuration of the side cache for node-id=${nodeId} and level=${level}`);
    const inner = node.caches.get(level - 1);
    const outer = node.caches.get(level + 1);
    if (level > 1 && inner === undefined) fail(`Cache level=${level - 1} shall be defined first`);
    if (inner !== undefined && size <= inner.size) {
      fail(
        `Invalid size=${size}, the size of level=${level} should be larger than the size(${inner.size}) of level=${level - 1}`,
      );
    }
    if (outer !== undefined && size >= outer.size) {
      fail(
        `Invalid size=${size}, the size of level=${level} should be less than the size(${outer.size}) of level=${level + 1}`,
      );
    }
    node.caches.set(level, cache);
  }

  #checkMemory(ramSize: number): void {
    const total = this.nodes.reduce((sum, node) => sum + node.memory, 0);
    if (total !== ramSize) {
      fail(`total memory for NUMA nodes (0x${total.toString(16)}) should equal RAM size (0x${ramSize.toString(16)})`);
    }
  }

  #completeDistances(): void {
    const { nodes } = this;
    const between = (a: number, b: number): number | undefined => nodes[a]?.distances.get(b);
    let asymmetric = false;
    for (let a = 0; a < nodes.length; a++) {
      for (let b = a + 1; b < nodes.length; b++) {
        const [there, back] = [between(a, b), between(b, a)];
        if (there === undefined && back === undefined) {
          fail(
            `The distance between node ${a} and ${b} is missing, at least one distance value between each nodes should be provided.`,
          );
        }
        if (there !== undefined && back !== undefined && there !== back) asymmetric = true;
      }
    }
    for (const [a, node] of nodes.entries()) {
      for (const b of nodes.keys()) {
        if (node.distances.has(b)) continue;
        if (asymmetric && a !== b) {
          fail(
            'At least one asymmetrical pair of distances is given, please provide distances for both directions of all node pairs.',
          );
        }
        node.distances.set(b, a === b ? LOCAL_DISTANCE : (between(b, a) ?? LOCAL_DISTANCE));
      }
    }
  }

  #assignRemainingCpus(): readonly string[] {
    const { slots } = this.#parts.cpus;
    const byDefault = slots.every(slot => slot.nodeId === undefined);
    const left = slots.filter(slot => slot.nodeId === undefined);
    for (const slot of left) this.#assign(byDefault ? slot.place.socket % this.#nodes.size : 0, [slot]);
    if (byDefault || left.length === 0) return [];
    const list = left.map(
      ({ index, place }) =>
        `CPU ${index} [socket-id: ${place.socket}, core-id: ${place.core}, thread-id: ${place.thread}]`,
    );
    return [
      `CPU(s) not present in any NUMA nodes: ${list.join(', ')}`,
      'All CPU(s) up to maxcpus should be described in NUMA config, ability to start up with partial NUMA mappings is obsoleted and will be removed in future',
    ];
  }
}

/** Latencies share a power of ten as their unit. */
function widenLatency(
  table: LatencyBandwidthTable,
  { initiator, target }: NumaLatencyBandwidth,
  latency: number,
): void {
  const base = table.base === 0 ? Number.MAX_SAFE_INTEGER : table.base;
  let unit = 1;
  while (latency % (unit * 10) === 0) unit *= 10;
  const largest = Math.max(Number(table.range), Math.floor(latency / base));
  if (largest >= ENTRY_LIMIT || latency / Math.min(base, unit) >= ENTRY_LIMIT) {
    fail(
      `Latency ${latency} between initiator=${initiator} and target=${target} should not differ from previously entered min or max values on more than ${ENTRY_LIMIT - 1}`,
    );
  }
  table.base = Math.min(base, unit);
  table.range = BigInt(largest);
}

/** Bandwidths share a power of two as their unit. */
function widenBandwidth(
  table: LatencyBandwidthTable,
  { initiator, target }: NumaLatencyBandwidth,
  bandwidth: number,
): void {
  const bits = table.range | BigInt(bandwidth);
  const unit = bits & -bits;
  const width = bits.toString(2).length - (unit.toString(2).length - 1);
  if (width > 16 || BigInt(bandwidth) / unit >= BigInt(ENTRY_LIMIT)) {
    fail(
      `Bandwidth ${bandwidth} between initiator=${initiator} and target=${target} should not differ from previously entered values on more than ${ENTRY_LIMIT - 1}`,
    );
  }
  table.base = Number(unit);
  table.range = bits;
}
