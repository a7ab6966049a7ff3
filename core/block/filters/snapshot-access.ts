import type { BlockDriver, OpenContext } from '../driver.ts';
import { errno, IoError } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import { BlockNode } from '../node.ts';
import type { Maybe, Pending } from '../pending.ts';
import { PERM_ALL, type Permissions } from '../permissions.ts';
import type { BlockStatus } from '../requests.ts';
import { CopyBeforeWriteNode } from './copy-before-write.ts';

/** Shows a node as it was when the `copy-before-write` filter under this one came. */
export class SnapshotAccessNode extends BlockNode {
  get #snapshot(): CopyBeforeWriteNode {
    const { file } = this;
    if (file instanceof CopyBeforeWriteNode) return file;
    throw new IoError(errno.EOPNOTSUPP);
  }

  override get length(): number {
    return this.file?.length ?? 0;
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    return this.#snapshot.readSnapshot(offset, bytes, iov, at);
  }

  protected override pwrite(): Pending {
    throw new IoError(errno.EOPNOTSUPP);
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    return this.#snapshot.discardSnapshot(offset, bytes);
  }

  protected override pstatus(offset: number, bytes: number): Maybe<BlockStatus> {
    return this.#snapshot.snapshotStatus(offset, bytes);
  }

  override childPermissions(): Permissions {
    return { perm: 0, shared: PERM_ALL };
  }
}

export const snapshotAccessDriver: BlockDriver = {
  name: 'snapshot-access',
  kind: 'format',
  async open(context: OpenContext) {
    const file = await context.child('file', {}, undefined, false);
    const node = new SnapshotAccessNode(context.graph, snapshotAccessDriver, context.settings);
    node.filename = file.filename;
    node.attach('file', file);
    return node;
  },
};
