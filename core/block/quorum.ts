import { createHash } from 'node:crypto';
import type { BlockDriver, OpenContext } from './driver.ts';
import type { BlockGraph } from './graph.ts';
import { BlockError, errno, errnoOf, errnoText, IoError } from './io-error.ts';
import { IoVector } from './io-vector.ts';
import { BlockNode } from './node.ts';
import type { Maybe, Pending } from './pending.ts';
import { type Permissions, perm } from './permissions.ts';
import type { BlockStatus, NodeSettings } from './requests.ts';

type Operation = 'read' | 'write' | 'flush';

interface QuorumSettings {
  /** How many children must agree. */
  readonly threshold: number;
  /** Two children that must not differ: for testing. */
  readonly blkverify: boolean;
  /** Children that were outvoted are given what the others have. */
  readonly rewriteCorrupted: boolean;
  /** `fifo`: the first child that can be read is believed. */
  readonly readPattern: 'quorum' | 'fifo';
}

/** The choice that got most votes, and who gave them; of two with as many the one that came later. */
function winner<K>(votes: readonly { readonly choice: K; readonly child: BlockNode }[]): readonly BlockNode[] {
  const versions = new Map<K, BlockNode[]>();
  for (const { choice, child } of votes) versions.set(choice, [...(versions.get(choice) ?? []), child]);
  let best: readonly BlockNode[] = [];
  for (const backers of versions.values()) if (backers.length >= best.length) best = backers;
  return best;
}

/** Writes the same to several children, and has them vote about what is read. */
export class QuorumNode extends BlockNode {
  readonly #quorum: QuorumSettings;
  #nextChild = 0;

  constructor(graph: BlockGraph, settings: NodeSettings, quorum: QuorumSettings) {
    super(graph, quorumDriver, settings);
    this.#quorum = quorum;
  }

  override get identity(): { readonly [option: string]: string | number | boolean } {
    const { threshold, blkverify, rewriteCorrupted } = this.#quorum;
    return {
      'vote-threshold': threshold,
      ...(blkverify && { blkverify }),
      ...(rewriteCorrupted && { 'rewrite-corrupted': rewriteCorrupted }),
    };
  }

  get voters(): BlockNode[] {
    return [...this.children.values()].map(({ node }) => node);
  }

  override get length(): number {
    return this.voters[0]?.length ?? 0;
  }

  /** @throws BlockError where the other users of the node do not allow that */
  adopt(node: BlockNode): void {
    this.attach(`children.${this.#nextChild}`, node);
    this.#nextChild++;
  }

  override addChild(node: BlockNode): void {
    if (this.#quorum.blkverify) throw new BlockError('Cannot add a child to a quorum in blkverify mode');
    if (node.length !== this.length) throw new BlockError(`Node '${node.nodeName}' has another length than its quorum`);
    this.adopt(node);
  }

  override toleratesChange(child: BlockNode): boolean {
    return this.voters.includes(child);
  }

  override removeChild(name: string): BlockNode | undefined {
    const { threshold } = this.#quorum;
    if (this.children.size <= threshold)
      throw new BlockError(`The number of children cannot be lower than the vote threshold ${threshold}`);
    return this.detach(name);
  }

  // As in the events: sectors.
  #reportBad(operation: Operation, node: BlockNode, offset: number, bytes: number, failure?: unknown): void {
    const first = Math.floor(offset / 512);
    this.graph.emit({
      event: 'QUORUM_REPORT_BAD',
      type: operation,
      ...(failure !== undefined && { error: errnoText(errnoOf(failure)) }),
      nodeName: node.nodeName,
      sectorNum: first,
      sectorsCount: Math.ceil((offset + bytes) / 512) - first,
    });
  }

  #failed(offset: number, bytes: number): void {
    const first = Math.floor(offset / 512);
    this.graph.emit({
      event: 'QUORUM_FAILURE',
      reference: this.deviceName || this.nodeName,
      sectorNum: first,
      sectorsCount: Math.ceil((offset + bytes) / 512) - first,
    });
  }

  /** Has all children do something. @returns how many could; reports the others */
  async #askAll(
    operation: Operation,
    offset: number,
    bytes: number,
    request: (child: BlockNode, index: number) => Pending,
  ): Promise<{ readonly succeeded: readonly BlockNode[]; readonly error: IoError | undefined }> {
    const succeeded: BlockNode[] = [];
    const failures: { readonly choice: number; readonly child: BlockNode; readonly error: unknown }[] = [];
    const ask = async (child: BlockNode, index: number): Promise<void> => {
      try {
        await request(child, index);
        succeeded.push(child);
      } catch (error) {
        failures.push({ choice: errnoOf(error), child, error });
        this.#reportBad(operation, child, offset, bytes, error);
      }
    };
    await Promise.all(this.voters.map(ask));
    if (succeeded.length >= this.#quorum.threshold) return { succeeded, error: undefined };
    const [most] = winner(failures);
    const number = failures.find(({ child }) => child === most)?.choice ?? errno.EIO;
    return { succeeded, error: new IoError(number) };
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    return this.#quorum.readPattern === 'fifo'
      ? this.#readFirst(offset, bytes, iov, at)
      : this.#readVoted(offset, bytes, iov, at);
  }

  async #readFirst(offset: number, bytes: number, iov: IoVector, at: number): Promise<void> {
    let failure: unknown = new IoError(errno.ENOMEDIUM);
    for (const child of this.voters) {
      try {
        return await child.readv(offset, bytes, iov, at);
      } catch (error) {
        failure = error;
        this.#reportBad('read', child, offset, bytes, error);
      }
    }
    throw failure;
  }

  async #readVoted(offset: number, bytes: number, iov: IoVector, at: number): Promise<void> {
    const buffers = new Map<BlockNode, Uint8Array>();
    const { succeeded, error } = await this.#askAll('read', offset, bytes, child => {
      const buffer = new Uint8Array(bytes);
      buffers.set(child, buffer);
      return child.readv(offset, bytes, IoVector.of(buffer));
    });
    if (error !== undefined) {
      this.#failed(offset, bytes);
      throw error;
    }
    const votes = succeeded.map(child => {
      const buffer = buffers.get(child) ?? new Uint8Array();
      return { choice: createHash('sha256').update(buffer).digest('hex'), child };
    });
    const backers = winner(votes);
    const [first] = backers;
    const data = first === undefined ? undefined : buffers.get(first);
    if (data === undefined || backers.length < this.#quorum.threshold) {
      if (this.#quorum.blkverify) this.graph.warn(`quorum: offset=${offset} bytes=${bytes} contents mismatch`);
      this.#failed(offset, bytes);
      throw new IoError(errno.EIO);
    }
    iov.scatter(at, data, 0, bytes);
    const outvoted = succeeded.filter(child => !backers.includes(child));
    for (const child of outvoted) this.#reportBad('read', child, offset, bytes);
    if (this.#quorum.rewriteCorrupted)
      await Promise.allSettled(outvoted.map(async child => child.writev(offset, bytes, IoVector.of(data))));
  }

  async #everywhere(
    operation: Operation,
    offset: number,
    bytes: number,
    request: (child: BlockNode) => Pending,
  ): Promise<void> {
    const { error } = await this.#askAll(operation, offset, bytes, request);
    if (error === undefined) return;
    if (operation !== 'flush') this.#failed(offset, bytes);
    throw error;
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    return this.#everywhere('write', offset, bytes, child => child.writev(offset, bytes, iov, at, flags));
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    return this.#everywhere('write', offset, bytes, child => child.writeZeroes(offset, bytes, flags));
  }

  override flush(): Pending {
    return this.#everywhere('flush', 0, 0, child => child.flush());
  }

  /** Zeroes where all children that can be asked agree about that; else data. */
  protected override async pstatus(offset: number, bytes: number): Promise<BlockStatus> {
    let zero = true;
    for (const child of this.voters) {
      const status: Maybe<BlockStatus> = child.status(offset, bytes);
      const found = await status;
      bytes = Math.min(bytes, found.bytes);
      zero &&= found.zero;
    }
    return { bytes, allocated: true, data: !zero, zero };
  }

  override childPermissions(_name: string, needed: number, shared: number): Permissions {
    const kept = perm.CONSISTENT_READ | perm.WRITE_UNCHANGED;
    return {
      perm: needed | (this.#quorum.rewriteCorrupted ? perm.WRITE : 0),
      // What one child shows must not change beside the others.
      shared: (shared & kept) | perm.WRITE_UNCHANGED,
    };
  }
}

async function open(context: OpenContext): Promise<BlockNode> {
  const { options, graph, settings } = context;
  let count = 0;
  while (options.hasChild(`children.${count}`)) count++;
  if (count === 0) throw new BlockError('Number of provided children must be 1 or more');
  const threshold = options.number('vote-threshold') ?? 0;
  if (threshold < 1) throw new BlockError("Parameter 'vote-threshold' expects a value >= 1");
  if (threshold > count) throw new BlockError('threshold may not exceed children count');
  const readPattern = options.string('read-pattern') ?? 'quorum';
  if (readPattern !== 'quorum' && readPattern !== 'fifo')
    throw new BlockError('Please set read-pattern as fifo or quorum');
  const blkverify = options.bool('blkverify') ?? false;
  const rewriteCorrupted = options.bool('rewrite-corrupted') ?? false;
  if (blkverify && (count !== 2 || threshold !== 2)) {
    throw new BlockError('blkverify=on can only be set if there are exactly two files and vote-threshold is 2');
  }
  if (blkverify && rewriteCorrupted) throw new BlockError('rewrite-corrupted=on cannot be used with blkverify=on');
  const children: BlockNode[] = [];
  // To rewrite children the node need not be writable itself.
  const inherited = rewriteCorrupted ? { readOnly: false } : {};
  for (let index = 0; index < count; index++) children.push(await context.child(`children.${index}`, inherited));
  if (children.some(child => child.length !== children[0]?.length))
    throw new BlockError('Could not refresh total sector count: Input/output error');
  const node = new QuorumNode(graph, settings, { threshold, blkverify, rewriteCorrupted, readPattern });
  for (const child of children) node.adopt(child);
  return node;
}

export const quorumDriver: BlockDriver = {
  name: 'quorum',
  kind: 'format',
  open,
};
