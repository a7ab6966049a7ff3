import type { IoVector } from '../../core/block/io-vector.ts';
import { ERRNO, type Outcome } from '../../core/fsdev/errno.ts';
import { FileStatus, MODE } from '../../core/fsdev/file-status.ts';
import { type FileTree, OPEN } from '../../core/fsdev/file-tree.ts';
import { Fid, NO_HANDLE, type SavedFid } from './fid.ts';
import type { Reply, Request } from './message.ts';
import { IO_HEADER_SIZE, MSIZE_MIN, QID } from './protocol.ts';

/** Fids, and open files among them, that a client may have. */
export const FIDS_MAX = 0x4_0000;
const OPEN_MAX = 4096;

/** A request and where its answer goes. */
export interface Exchange {
  readonly request: Request;
  readonly reply: Reply;
  /** The whole messages, in the guest's memory. */
  readonly message: IoVector;
  readonly answer: IoVector;
}

/** What answers one type of message: 0, or a negative error number. -EINTR: it has to wait, ask again. */
export type Handler = (session: Session, exchange: Exchange) => Outcome;

/** A conversation with one client: from its Tversion to the next one. */
export class Session {
  readonly tree: FileTree;
  /** Of the file that was asked about last. */
  readonly status = new FileStatus();
  readonly fids = new Map<number, Fid>();
  /** The longest message. */
  msize = MSIZE_MIN;
  readonly #guestError: (message: string) => void;
  readonly #filesystems = new Map<number, number>();
  #home = 0;
  #warned = false;
  #opened = 0;

  constructor(tree: FileTree, guestError: (message: string) => void) {
    this.tree = tree;
    this.#guestError = guestError;
  }

  /** The tree is there: remembers which file system it is on. */
  start(): Outcome {
    const outcome = this.tree.status('', this.status);
    this.#home = this.status.filesystem;
    return outcome;
  }

  /** All that the client has is let go. */
  reset(): void {
    for (const number of [...this.fids.keys()]) this.drop(number);
    this.msize = MSIZE_MIN;
  }

  fid(number: number): Fid | undefined {
    return this.fids.get(number);
  }

  /** A new fid, or why it cannot be. */
  add(number: number, path: string, uid: number): Fid | Outcome {
    if (this.fids.has(number)) return -ERRNO.EINVAL;
    if (this.fids.size >= FIDS_MAX) return -ERRNO.ENFILE;
    const fid = new Fid(path, uid);
    this.fids.set(number, fid);
    return fid;
  }

  /** Forgets a fid and closes what it had open. */
  drop(number: number): void {
    const fid = this.fids.get(number);
    if (fid === undefined) return;
    this.fids.delete(number);
    if (fid.handle === undefined) return;
    this.#opened--;
    if (fid.handle !== NO_HANDLE) this.tree.close(fid.handle);
  }

  /** Whether another file may be opened. */
  get mayOpen(): boolean {
    return this.#opened < OPEN_MAX;
  }

  opened(fid: Fid, handle: number, flags: number, folder: boolean): void {
    fid.handle = handle;
    fid.flags = flags;
    fid.folder = folder;
    this.#opened++;
  }

  /** The status of a fid's file, in {@link status}. */
  look(fid: Fid): Outcome {
    return this.tree.status(fid.path, this.status);
  }

  /** A file or folder has another name: the fids of what is there follow it. */
  moved(from: string, to: string): void {
    for (const fid of this.fids.values()) {
      if (fid.path === from || fid.path.startsWith(`${from}/`)) fid.path = to + fid.path.slice(from.length);
    }
  }

  /** Puts the qid of the file in {@link status} into the answer: its type, version and number. */
  qid(reply: Reply): Outcome {
    const { status } = this;
    const high = this.#inodeHigh();
    if (high < 0) return -ERRNO.ENODEV;
    const type = status.type === MODE.FOLDER ? QID.FOLDER : status.type === MODE.LINK ? QID.LINK : QID.FILE;
    const version = (status.seconds('modified') ^ (status.size * 256)) >>> 0;
    reply.u8(type).u32(version).u32(status.inodeLow).u32(high);
    return 0;
  }

  /** The size of reads and writes that suits the file system (Rlopen's iounit). */
  ioUnit(blockSize: number): number {
    const most = this.msize - IO_HEADER_SIZE;
    return blockSize > 0 && blockSize <= most ? Math.floor(most / blockSize) * blockSize : most;
  }

  /**
   * Numbers are unique within a file system only. Where the tree has several, those of the others are told apart by their
   * upper sixteen bits, which file systems hardly use; or the others are not served.
   */
  #inodeHigh(): number {
    const { inodeHigh, filesystem } = this.status;
    if (filesystem === this.#home || filesystem === 0) return inodeHigh;
    if (this.tree.multipleDevices === 'forbid') {
      this.#warn(`fsdev '${this.tree.id}' has several file systems, and multidevs=forbid`);
      return -1;
    }
    if (this.tree.multipleDevices === 'warn') {
      this.#warn(
        `fsdev '${this.tree.id}' has several file systems, whose files may have the same numbers; use multidevs=remap`,
      );
      return inodeHigh;
    }
    const known = this.#filesystems.get(filesystem) ?? this.#filesystems.size + 1;
    this.#filesystems.set(filesystem, known);
    return (inodeHigh ^ (known << 16)) >>> 0;
  }

  #warn(message: string): void {
    if (!this.#warned) this.#guestError(message);
    this.#warned = true;
  }

  save(): readonly SavedFid[] {
    return [...this.fids].map(([fid, { path, uid, handle, folder, flags, attribute }]) => ({
      fid,
      path,
      uid,
      opened: handle !== undefined,
      folder,
      flags,
      attribute: attribute?.name ?? '',
      attributeValue: attribute?.value.slice() ?? new Uint8Array(0),
      attributeFlags: attribute?.flags ?? 0,
      attributeWritten: attribute === undefined ? -2 : (attribute.written ?? -1),
    }));
  }

  /** Takes saved fids up again. A file that is no longer there leaves a fid whose use fails. */
  restore(saved: readonly SavedFid[]): void {
    for (const number of [...this.fids.keys()]) this.drop(number);
    for (const one of saved) {
      const fid = new Fid(one.path, one.uid);
      this.fids.set(one.fid, fid);
      if (one.opened) {
        const handle = this.tree.open(one.path, one.flags & ~(OPEN.EXCLUSIVE | OPEN.TRUNCATE));
        this.opened(fid, handle < 0 ? NO_HANDLE : handle, one.flags, one.folder);
      }
      if (one.attributeWritten < -1) continue;
      fid.attribute = {
        name: one.attribute,
        value: one.attributeValue.slice(),
        flags: one.attributeFlags,
        ...(one.attributeWritten >= 0 && { written: Math.min(one.attributeWritten, one.attributeValue.length) }),
      };
    }
  }
}
