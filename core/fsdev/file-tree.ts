import type { IoVector } from '../block/io-vector.ts';
import type { Outcome } from './errno.ts';
import type { FileStatus } from './file-status.ts';

/** Whose a new file is, and what it is. */
export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

/** How a file is opened, as open(2)'s flags on x86, which are those of 9P2000.L. */
export const OPEN = {
  ACCESS: 0o3,
  WRITE: 0o1,
  READ_WRITE: 0o2,
  EXCLUSIVE: 0o200,
  TRUNCATE: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DSYNC: 0o10000,
  FOLDER: 0o200000,
  NOATIME: 0o1000000,
  SYNC: 0o4010000,
} as const;

/** What statfs(2) says; `blockSize` in bytes, the rest in blocks and files. */
export interface FileSystemStatus {
  readonly type: number;
  readonly blockSize: number;
  readonly blocks: number;
  readonly free: number;
  readonly available: number;
  readonly files: number;
  readonly filesFree: number;
  readonly id: readonly [low: number, high: number];
  readonly nameMax: number;
}

/** Seconds and nanoseconds; the nanoseconds may say {@link TIME.NOW} or {@link TIME.OMIT}. */
export type FileTime = readonly [seconds: number, nanoseconds: number];
export const TIME = { NOW: 0x3fff_ffff, OMIT: 0x3fff_fffe } as const;

/** An entry of a folder. Positions are the host's, in two halves, and mean nothing else than where to go on behind it. */
export interface FolderEntry {
  readonly name: string;
  /** Its type as getdents(2) says it: mode bits 12 to 15, or 0 where it is not known. */
  readonly type: number;
  readonly inodeLow: number;
  readonly inodeHigh: number;
  readonly nextLow: number;
  readonly nextHigh: number;
}

/**
 * A tree of files that a guest is given (`-fsdev`). Paths are relative to its root, which is `''`, with one slash between
 * parts; a name is bytes, one character each, and never `.` or `..`. Nothing throws: see {@link Outcome}. Handles are small
 * numbers that {@link close} ends.
 */
export interface FileTree {
  readonly id: string;
  readonly readOnly: boolean;
  /** What becomes of files of other file systems below the root. */
  readonly multipleDevices: 'warn' | 'remap' | 'forbid';

  status(path: string, into: FileStatus): Outcome;
  openStatus(handle: number, into: FileStatus): Outcome;
  fileSystem(): FileSystemStatus | Outcome;
  /** The inode's generation, or an error where the file system has none. */
  generation(path: string): Outcome;

  /** Regular files and folders. The answer is a handle. */
  open(path: string, flags: number): Outcome;
  /** Makes a regular file and opens it. */
  create(path: string, flags: number, owner: FileOwner): Outcome;
  close(handle: number): void;
  /** Into `length` bytes of `vector` from `from`. */
  read(handle: number, vector: IoVector, from: number, length: number, offset: number): Outcome;
  /** -EINTR: it has to wait; try again later. */
  write(handle: number, vector: IoVector, from: number, length: number, offset: number): Outcome;
  sync(handle: number, dataOnly: boolean): Outcome;
  /** Entries from a position on, about `budget` bytes of them, until `visit` says false. 0 at the end. */
  readFolder(
    handle: number,
    position: readonly [low: number, high: number],
    budget: number,
    visit: (entry: FolderEntry) => boolean,
  ): Outcome;

  makeFolder(path: string, owner: FileOwner): Outcome;
  makeNode(path: string, owner: FileOwner, device: readonly [major: number, minor: number]): Outcome;
  makeSymlink(path: string, target: string, owner: FileOwner): Outcome;
  readLink(path: string): string | Outcome;
  link(from: string, to: string): Outcome;
  rename(from: string, to: string): Outcome;
  remove(path: string, folder: boolean): Outcome;

  changeMode(path: string, mode: number): Outcome;
  /** 0xffffffff leaves one as it is. */
  changeOwner(path: string, uid: number, gid: number): Outcome;
  changeTimes(path: string, accessed: FileTime, modified: FileTime): Outcome;
  truncate(path: string, size: number): Outcome;

  getAttribute(path: string, name: string): Uint8Array | Outcome;
  /** The names, each with a 0 behind it. */
  listAttributes(path: string): Uint8Array | Outcome;
  /** @param flags 1 only where there is none yet, 2 only where there is one */
  setAttribute(path: string, name: string, value: Uint8Array, flags: number): Outcome;
  removeAttribute(path: string, name: string): Outcome;

  /** A device serves it from now on. @throws SouthbridgeError where it cannot be served */
  start(): void;
  /** The device is gone. */
  stop(): void;
}

/** The path of `name` in the folder `path`. */
export const join = (path: string, name: string): string => (path === '' ? name : `${path}/${name}`);

/** The folder that the last part of a path is in. */
export const parentOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('/')));

export const nameOf = (path: string): string => path.slice(path.lastIndexOf('/') + 1);
