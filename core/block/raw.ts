import type { BlockDriver, OpenContext } from './driver.ts';
import type { BlockGraph } from './graph.ts';
import { BlockError, errno, IoError } from './io-error.ts';
import type { IoVector } from './io-vector.ts';
import { BlockNode } from './node.ts';
import type { BlockOptions } from './options.ts';
import { type Maybe, type Pending, settle, start, startFor, type Task } from './pending.ts';
import type { Permissions } from './permissions.ts';
import type { BlockStatus, NodeSettings, TruncateOptions } from './requests.ts';

const SECTOR = 512;

/** Which part of the file is shown, in bytes; `size` is undefined for all of it. */
interface RawPart {
  readonly offset: number;
  readonly size: number | undefined;
}

/** An image without a format, or a part of one (`offset`, `size`). */
export class RawNode extends BlockNode {
  #offset: number;
  #size: number | undefined;
  /**
   * Set where the format was guessed: a guest that wrote another format's header into its first sector would have it
   * believed at the next start, and that could name any file of the host as its backing file.
   */
  restrictFirstSector = false;

  constructor(graph: BlockGraph, settings: NodeSettings, offset: number, size: number | undefined) {
    super(graph, rawDriver, settings);
    this.#offset = offset;
    this.#size = size;
  }

  override get identity(): { readonly [option: string]: number } {
    return {
      ...(this.#offset !== 0 && { offset: this.#offset }),
      ...(this.#size !== undefined && { size: this.#size }),
    };
  }

  #below(): BlockNode {
    const { file } = this;
    if (file === undefined) throw new IoError(errno.ENOMEDIUM);
    return file;
  }

  override get length(): number {
    if (this.#size !== undefined) return this.#size;
    return Math.max(0, (this.file?.length ?? 0) - this.#offset);
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    if (this.graph.debugging)
      return start(this.#debugged('read_aio', () => this.#below().readv(offset + this.#offset, bytes, iov, at)));
    return this.#below().readv(offset + this.#offset, bytes, iov, at);
  }

  *#debugged(event: string, request: () => Pending): Task {
    const waiting = this.#below().debugEvent(event);
    if (waiting) yield waiting;
    const pending = request();
    if (pending) yield pending;
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    this.#checkEnd(offset, bytes);
    if (this.restrictFirstSector && offset < SECTOR) this.#checkFirstSector(offset, bytes, iov, at);
    if (!this.graph.debugging) return this.#below().writev(offset + this.#offset, bytes, iov, at, flags);
    return start(this.#debugged('write_aio', () => this.#below().writev(offset + this.#offset, bytes, iov, at, flags)));
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    this.#checkEnd(offset, bytes);
    return this.#below().writeZeroes(offset + this.#offset, bytes, flags);
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    this.#checkEnd(offset, bytes);
    return this.#below().discard(offset + this.#offset, bytes);
  }

  protected override ptruncate(size: number, options: TruncateOptions): Pending {
    if (this.#size !== undefined) throw new IoError(errno.EOPNOTSUPP, 'Cannot resize fixed-size raw disks');
    return this.#below().truncate(size + this.#offset, options);
  }

  protected override pstatus(offset: number, bytes: number): Maybe<BlockStatus> {
    return startFor(this.#status(offset, bytes));
  }

  *#status(offset: number, bytes: number): Task<BlockStatus> {
    const below = yield* settle(this.#below().status(offset + this.#offset, bytes));
    return { ...below, allocated: true };
  }

  override resized(): void {
    if (this.#size === undefined) this.notifyResize();
  }

  override childPermissions(_name: string, needed: number, shared: number): Permissions {
    return { perm: needed, shared: this.settings.forceShare ? 15 : shared };
  }

  #checkEnd(offset: number, bytes: number): void {
    if (this.#size !== undefined && offset + bytes > this.#size) throw new IoError(errno.ENOSPC);
  }

  #checkFirstSector(offset: number, bytes: number, iov: IoVector, at: number): void {
    const head = new Uint8Array(SECTOR);
    iov.gather(at, head, offset, Math.min(bytes, SECTOR - offset));
    for (const driver of this.graph.drivers()) {
      if (driver.name !== 'raw' && (driver.probe?.(head, '') ?? 0) > 0) throw new IoError(errno.EPERM);
    }
  }

  /** Shows another part of the file. */
  show({ offset, size }: RawPart): void {
    this.#offset = offset;
    this.#size = size;
    this.filename = offset === 0 && size === undefined ? (this.file?.filename ?? '') : '';
  }

  get info(): RawPart {
    return { offset: this.#offset, size: this.#size };
  }
}

async function open(context: OpenContext): Promise<BlockNode> {
  const { options, settings } = context;
  const offset = options.bytes('offset') ?? 0;
  const size = options.bytes('size');
  const file = await context.child('file');
  context.followReadOnly(file);
  checkPart(file, { offset, size });
  const node = new RawNode(context.graph, settings, offset, size);
  node.filename = offset === 0 && size === undefined ? file.filename : '';
  node.attach('file', file);
  return node;
}

/** @throws BlockError where the file does not have that part */
function checkPart(file: BlockNode, { offset, size }: RawPart): void {
  if (offset > file.length) {
    throw new BlockError(`Offset (${offset}) cannot be greater than size of the containing file (${file.length})`);
  }
  if (size !== undefined && file.length - offset < size) {
    throw new BlockError(
      `The sum of offset (${offset}) and size (${size}) has to be smaller or equal to the actual size of the containing file (${file.length})`,
    );
  }
  if (offset % SECTOR !== 0 || (size ?? 0) % SECTOR !== 0) {
    throw new BlockError(
      offset % SECTOR !== 0 ? 'Specified offset is not multiple of 512' : 'Specified size is not multiple of 512',
    );
  }
}

const reopening: NonNullable<BlockDriver['reopening']> = {
  resettable: ['offset', 'size'],
  steps(node, { options }) {
    if (options === undefined || !(node instanceof RawNode)) return {};
    const before = node.info;
    const after = { offset: options.bytes('offset') ?? 0, size: options.bytes('size') };
    if (node.file !== undefined) checkPart(node.file, after);
    return {
      commit: () => node.show(after),
      finish: () => node.notifyResize(),
      revert: () => node.show(before),
    };
  },
};

async function create(graph: BlockGraph, options: BlockOptions): Promise<void> {
  const file = graph.lookup(options.string('file') ?? '');
  await start(grow(file, options.bytes('size') ?? 0));
}

function* grow(file: BlockNode, size: number): Task {
  const request = file.truncate(size);
  if (request) yield request;
}

export const rawDriver: BlockDriver = {
  name: 'raw',
  kind: 'format',
  transparent: true,
  // Anything may be a raw image, but anything else is more likely to be what it looks like.
  probe: () => 1,
  open,
  create,
  reopening,
};
