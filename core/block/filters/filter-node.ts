import { errno, IoError } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import { BlockNode } from '../node.ts';
import type { Pending } from '../pending.ts';
import type { TruncateOptions } from '../requests.ts';

/** A node that passes all requests on, and does something about some of them. */
export abstract class FilterNode extends BlockNode {
  protected get below(): BlockNode {
    const node = this.file ?? this.backing;
    if (node === undefined) throw new IoError(errno.ENOMEDIUM);
    return node;
  }

  override get length(): number {
    return (this.file ?? this.backing)?.length ?? 0;
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    return this.below.readv(offset, bytes, iov, at);
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    return this.below.writev(offset, bytes, iov, at, flags);
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    return this.below.writeZeroes(offset, bytes, flags);
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    return this.below.discard(offset, bytes);
  }

  protected override ptruncate(size: number, options: TruncateOptions): Pending {
    return this.below.truncate(size, options);
  }
}
