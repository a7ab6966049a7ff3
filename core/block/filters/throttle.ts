import type { BlockDriver, OpenContext } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import type { BlockOptions } from '../options.ts';
import type { Pending } from '../pending.ts';
import type { NodeSettings } from '../requests.ts';
import type { ThrottleGroup } from '../throttle.ts';
import { FilterNode } from './filter-node.ts';

/** Holds requests back to the rate of a throttle group. */
class ThrottleNode extends FilterNode {
  #group: ThrottleGroup;

  constructor(graph: BlockGraph, settings: NodeSettings, group: ThrottleGroup) {
    super(graph, throttleDriver, settings);
    this.#group = group;
    group.join(this);
  }

  get group(): ThrottleGroup {
    return this.#group;
  }

  /** Goes over to another group. */
  moveTo(group: ThrottleGroup): void {
    this.#group.leave(this);
    this.#group = group;
    group.join(this);
  }

  override get identity(): { readonly 'throttle-group': string } {
    return { 'throttle-group': this.group.name };
  }

  #admitted(way: 'read' | 'write', bytes: number, pass: () => Pending): Pending {
    const waiting = this.group.admit(this, way, bytes, true);
    return waiting === undefined ? pass() : waiting.then(pass);
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    return this.#admitted('read', bytes, () => super.pread(offset, bytes, iov, at));
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    return this.#admitted('write', bytes, () => super.pwrite(offset, bytes, iov, at, flags));
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    return this.#admitted('write', bytes, () => super.pwriteZeroes(offset, bytes, flags));
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    return this.#admitted('write', bytes, () => super.pdiscard(offset, bytes));
  }

  protected override pclose(): Pending {
    this.group.leave(this);
    return undefined;
  }
}

function takeGroup(graph: BlockGraph, options: BlockOptions): ThrottleGroup {
  const name = options.string('throttle-group');
  if (name === undefined) throw new BlockError('Please specify a throttle group');
  const group = graph.throttleGroups.get(name);
  if (group === undefined) throw new BlockError(`Throttle group '${name}' does not exist`);
  return group;
}

export const throttleDriver: BlockDriver = {
  name: 'throttle',
  kind: 'filter',
  async open(context: OpenContext) {
    const group = takeGroup(context.graph, context.options);
    const file = await context.child('file');
    context.followReadOnly(file);
    const node = new ThrottleNode(context.graph, context.settings, group);
    node.attach('file', file);
    return node;
  },
  reopening: {
    resettable: [],
    steps(node, { options }) {
      if (options === undefined || !(node instanceof ThrottleNode)) return {};
      const before = node.group;
      const after = takeGroup(node.graph, options);
      if (after === before) return {};
      return { commit: () => node.moveTo(after), revert: () => node.moveTo(before) };
    },
  },
};
