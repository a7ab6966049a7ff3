import type { BlockDriver, OpenContext } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError, reason } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import type { BlockNode } from '../node.ts';
import type { BlockOptions } from '../options.ts';
import { type Pending, start, type Task } from '../pending.ts';
import { type Permissions, perm } from '../permissions.ts';
import type { NodeSettings, TruncateOptions } from '../requests.ts';
import { FilterNode } from './filter-node.ts';

const DEFAULT_ALIGN = 1 << 20;
const DEFAULT_SIZE = 128 << 20;
const SECTOR = 512;

interface Room {
  /** The file's length becomes a multiple of this, in bytes. */
  readonly align: number;
  /** How much is taken ahead, in bytes. */
  readonly size: number;
}

/** Takes room for a growing file ahead and in one piece, and gives back what was not needed. */
class PreallocateNode extends FilterNode {
  #room: Room;
  /** Where the data ends; undefined while others may change the file. */
  #dataEnd: number | undefined;

  constructor(graph: BlockGraph, settings: NodeSettings, room: Room) {
    super(graph, preallocateDriver, settings);
    this.#room = room;
  }

  get room(): Room {
    return this.#room;
  }

  set room(room: Room) {
    this.#room = room;
  }

  override get identity(): { readonly [option: string]: number } {
    const { align, size } = this.#room;
    return {
      ...(align !== DEFAULT_ALIGN && { 'prealloc-align': align }),
      ...(size !== DEFAULT_SIZE && { 'prealloc-size': size }),
    };
  }

  override get length(): number {
    return this.#dataEnd ?? super.length;
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    const end = offset + bytes;
    if (this.#dataEnd === undefined || end <= this.#dataEnd) return super.pwrite(offset, bytes, iov, at, flags);
    return start(this.#extend(end, () => super.pwrite(offset, bytes, iov, at, flags)));
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    const end = offset + bytes;
    if (this.#dataEnd === undefined || end <= this.#dataEnd) return super.pwriteZeroes(offset, bytes, flags);
    return start(this.#extend(end, () => super.pwriteZeroes(offset, bytes, flags)));
  }

  *#extend(end: number, request: () => Pending): Task {
    this.#dataEnd = end;
    yield* this.#takeRoom(end);
    const pending = request();
    if (pending) yield pending;
  }

  *#takeRoom(end: number): Task {
    const from = this.below.length;
    if (end <= from) return;
    const { align, size } = this.#room;
    const step = Math.max(align, this.below.requestAlignment, 1);
    const to = Math.ceil((Math.max(from, end) + size) / step) * step;
    try {
      const taking = this.below.truncate(to, { preallocation: 'falloc' });
      if (taking) yield taking;
    } catch {
      // There is no room to take ahead, or no way to do so: the file grows with its data.
    }
  }

  protected override ptruncate(size: number, options: TruncateOptions): Pending {
    if (this.#dataEnd === undefined) return super.ptruncate(size, options);
    return start(this.#truncate(size, options));
  }

  *#truncate(size: number, options: TruncateOptions): Task {
    yield* this.giveBack();
    const truncating = super.ptruncate(size, options);
    if (truncating) yield truncating;
    this.#dataEnd = size;
  }

  /** Gives back what was taken ahead. */
  *giveBack(): Task {
    if (this.#dataEnd === undefined || this.below.length <= this.#dataEnd) return;
    const truncating = this.below.readOnly ? undefined : this.below.truncate(this.#dataEnd);
    if (truncating) yield truncating;
  }

  override childPermissions(name: string, needed: number, shared: number): Permissions {
    const usual = super.childPermissions(name, needed, shared);
    return canGrow(needed) ? { ...usual, shared: usual.shared & ~(perm.WRITE | perm.RESIZE) } : usual;
  }

  /** With the file its own it knows where the data ends; nobody else can say. */
  override applyPermissions({ perm: needed }: Permissions): void {
    if (canGrow(needed)) {
      if (this.file !== undefined) this.#dataEnd ??= super.length;
      return;
    }
    const giving = this.closed ? undefined : start(this.giveBack());
    giving?.catch(error => this.graph.warn(`Failed to drop preallocation: ${reason(error)}`));
    this.#dataEnd = undefined;
  }

  protected override async pclose(): Promise<void> {
    if (!this.readOnly) await start(this.giveBack());
  }
}

const canGrow = (needed: number): boolean => (needed & perm.WRITE) !== 0 && (needed & perm.RESIZE) !== 0;

function takeRoom(options: BlockOptions, file: BlockNode | undefined): Room {
  const align = options.bytes('prealloc-align') ?? DEFAULT_ALIGN;
  const size = options.bytes('prealloc-size') ?? DEFAULT_SIZE;
  if (align % SECTOR !== 0)
    throw new BlockError(`prealloc-align parameter of preallocate filter is not aligned to ${SECTOR}`);
  const needed = file?.requestAlignment ?? 1;
  if (align % needed !== 0) {
    throw new BlockError(
      `prealloc-align parameter of preallocate filter is not aligned to underlying node request alignment (${needed})`,
    );
  }
  return { align, size };
}

export const preallocateDriver: BlockDriver = {
  name: 'preallocate',
  kind: 'filter',
  async open(context: OpenContext) {
    const file = await context.child('file');
    const room = takeRoom(context.options, file);
    context.followReadOnly(file);
    const node = new PreallocateNode(context.graph, context.settings, room);
    node.attach('file', file);
    return node;
  },
  reopening: {
    resettable: ['prealloc-align', 'prealloc-size'],
    steps(node, { options, settings }) {
      if (!(node instanceof PreallocateNode)) return {};
      const before = node.room;
      const after = options === undefined ? before : takeRoom(options, node.file);
      return {
        // Once it cannot write any more it is too late.
        prepare: async () => {
          if (settings.readOnly && !node.readOnly) await start(node.giveBack());
        },
        commit: () => {
          node.room = after;
        },
        revert: () => {
          node.room = before;
        },
      };
    },
  },
};
