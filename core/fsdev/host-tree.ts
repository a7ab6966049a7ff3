import { closeSync, constants } from 'node:fs';
import { type HostCalls, hostCalls } from '../host/calls.ts';
import { ERRNO, type Outcome } from './errno.ts';
import type { FileStatus } from './file-status.ts';
import { type FileSystemStatus, type FileTime, type FolderEntry, OPEN } from './file-tree.ts';

const ATTRIBUTE_MAX = 0x1_0000;
const PATH_MAX = 4096;
/** struct linux_dirent64: inode, position behind it, record length, type, name with a 0 behind it. */
const DIRENT = { INODE: 0, NEXT: 8, LENGTH: 16, TYPE: 18, NAME: 19 } as const;
const FOLDER_BUFFER_MAX = 0x1_0000;
const FOLDER_BUFFER_MIN = 512;

/** Flags of open(2) that a guest may set, with this host's numbers, which differ from x86's on some. */
const HOST_FLAGS: readonly (readonly [ours: number, host: number])[] = [
  [OPEN.EXCLUSIVE, constants.O_EXCL],
  [OPEN.TRUNCATE, constants.O_TRUNC],
  [OPEN.APPEND, constants.O_APPEND],
  [OPEN.NONBLOCK, constants.O_NONBLOCK],
  [OPEN.DSYNC, constants.O_DSYNC],
  [OPEN.FOLDER, constants.O_DIRECTORY],
  [OPEN.NOATIME, constants.O_NOATIME],
];

/** The files below a folder of the host, through calls that never leave it: see native/host_tree.cc. */
export class HostTree {
  readonly #calls: HostCalls;
  readonly #root: number;
  readonly #buffer = Buffer.alloc(ATTRIBUTE_MAX);
  readonly #numbers = new Float64Array(10);

  /** @param root an open folder, which stays the caller's */
  constructor(root: number) {
    this.#calls = hostCalls();
    this.#root = root;
  }

  status(path: string, into: FileStatus): Outcome {
    return this.#calls.treeStatus(this.#root, path, into.values);
  }

  openStatus(fd: number, into: FileStatus): Outcome {
    return this.#calls.fileStatus(fd, into.values);
  }

  fileSystem(): FileSystemStatus | Outcome {
    const outcome = this.#calls.treeFileSystem(this.#root, this.#numbers);
    if (outcome < 0) return outcome;
    const [type = 0, blockSize = 0, blocks = 0, free = 0, available = 0, files = 0, filesFree = 0, low = 0, high = 0] =
      this.#numbers;
    const nameMax = this.#numbers[9] ?? 0;
    return { type, blockSize, blocks, free, available, files, filesFree, id: [low, high], nameMax };
  }

  generation(path: string): Outcome {
    const fd = this.open(path, 0, 0);
    if (fd < 0) return fd;
    const generation = this.#calls.fileGeneration(fd);
    closeSync(fd);
    return generation;
  }

  /** Opens what is there, or with `mode` makes it. */
  open(path: string, flags: number, mode: number, create = false): Outcome {
    let host = (flags & OPEN.ACCESS) | (create ? constants.O_CREAT : 0);
    for (const [ours, theirs] of HOST_FLAGS) if ((flags & ours) === ours) host |= theirs;
    if ((flags & OPEN.SYNC) === OPEN.SYNC) host |= constants.O_SYNC;
    const fd = this.#calls.treeOpen(this.#root, path, host, mode);
    // Only its owner may have a file's time of access left alone; for others it is a wish.
    if (fd === -ERRNO.EPERM && (flags & OPEN.NOATIME) !== 0)
      return this.#calls.treeOpen(this.#root, path, host & ~constants.O_NOATIME, mode);
    return fd;
  }

  readFolder(
    fd: number,
    [low, high]: readonly [number, number],
    budget: number,
    visit: (entry: FolderEntry) => boolean,
  ): Outcome {
    const room = Math.max(FOLDER_BUFFER_MIN, Math.min(budget, FOLDER_BUFFER_MAX));
    const buffer = this.#buffer;
    const length = this.#calls.readFolder(fd, low, high, buffer.subarray(0, room));
    for (let at = 0; at + DIRENT.NAME < length; ) {
      const next = at + buffer.readUInt16LE(at + DIRENT.LENGTH);
      if (next <= at) return -ERRNO.EIO;
      const end = buffer.indexOf(0, at + DIRENT.NAME);
      const entry: FolderEntry = {
        name: buffer.toString('latin1', at + DIRENT.NAME, end < 0 || end > next ? next : end),
        type: buffer[at + DIRENT.TYPE] ?? 0,
        inodeLow: buffer.readUInt32LE(at + DIRENT.INODE),
        inodeHigh: buffer.readUInt32LE(at + DIRENT.INODE + 4),
        nextLow: buffer.readUInt32LE(at + DIRENT.NEXT),
        nextHigh: buffer.readUInt32LE(at + DIRENT.NEXT + 4),
      };
      if (!visit(entry)) break;
      at = next;
    }
    return length;
  }

  makeFolder(path: string, mode: number): Outcome {
    return this.#calls.treeMakeFolder(this.#root, path, mode);
  }

  makeNode(path: string, mode: number, major = 0, minor = 0): Outcome {
    return this.#calls.treeMakeNode(this.#root, path, mode, major, minor);
  }

  makeSymlink(path: string, target: string): Outcome {
    return this.#calls.treeSymlink(this.#root, path, target);
  }

  readLink(path: string): string | Outcome {
    const length = this.#calls.treeReadLink(this.#root, path, this.#buffer.subarray(0, PATH_MAX));
    return length < 0 ? length : this.#buffer.toString('latin1', 0, length);
  }

  link(from: string, to: string): Outcome {
    return this.#calls.treeLink(this.#root, from, to);
  }

  rename(from: string, to: string): Outcome {
    return this.#calls.treeRename(this.#root, from, to);
  }

  remove(path: string, folder: boolean): Outcome {
    return this.#calls.treeRemove(this.#root, path, folder);
  }

  changeMode(path: string, mode: number): Outcome {
    return this.#calls.treeChangeMode(this.#root, path, mode);
  }

  changeOwner(path: string, uid: number, gid: number): Outcome {
    return this.#calls.treeChangeOwner(this.#root, path, uid, gid);
  }

  changeTimes(path: string, accessed: FileTime, modified: FileTime): Outcome {
    return this.#calls.treeChangeTimes(this.#root, path, ...accessed, ...modified);
  }

  getAttribute(path: string, name: string): Uint8Array | Outcome {
    const length = this.#calls.treeGetAttribute(this.#root, path, name, this.#buffer);
    return length < 0 ? length : Uint8Array.prototype.slice.call(this.#buffer, 0, length);
  }

  listAttributes(path: string): Uint8Array | Outcome {
    const length = this.#calls.treeListAttributes(this.#root, path, this.#buffer);
    return length < 0 ? length : Uint8Array.prototype.slice.call(this.#buffer, 0, length);
  }

  setAttribute(path: string, name: string, value: Uint8Array, flags = 0): Outcome {
    return this.#calls.treeSetAttribute(this.#root, path, name, value, flags);
  }

  removeAttribute(path: string, name: string): Outcome {
    return this.#calls.treeRemoveAttribute(this.#root, path, name);
  }
}
