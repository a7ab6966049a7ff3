/** Messages of 9P2000.L (Linux, include/net/9p/9p.h); the answer's number is the request's plus one. */
export const T = {
  LERROR: 6,
  STATFS: 8,
  LOPEN: 12,
  LCREATE: 14,
  SYMLINK: 16,
  MKNOD: 18,
  RENAME: 20,
  READLINK: 22,
  GETATTR: 24,
  SETATTR: 26,
  XATTRWALK: 30,
  XATTRCREATE: 32,
  READDIR: 40,
  FSYNC: 50,
  LOCK: 52,
  GETLOCK: 54,
  LINK: 70,
  MKDIR: 72,
  RENAMEAT: 74,
  UNLINKAT: 76,
  VERSION: 100,
  AUTH: 102,
  ATTACH: 104,
  FLUSH: 108,
  WALK: 110,
  READ: 116,
  WRITE: 118,
  CLUNK: 120,
  REMOVE: 122,
} as const;

/** Bytes: size, type and tag of each message; a qid; what an Rread has before its data. */
export const HEADER_SIZE = 7;
export const QID_SIZE = 13;
export const COUNT_SIZE = 4;
/** What a message that carries data has besides, at most (P9_IOHDRSZ). */
export const IO_HEADER_SIZE = 24;
export const MSIZE_MIN = 4096;
export const WALK_MAX = 16;
/** The answer to a version that is not known. */
export const UNKNOWN_VERSION = 'unknown';
export const VERSION = '9P2000.L';

export const QID = { FOLDER: 0x80, LINK: 0x02, FILE: 0x00 } as const;

/** Which attributes a Tsetattr changes. */
export const SETATTR = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  CTIME: 1 << 6,
  ATIME_SET: 1 << 7,
  MTIME_SET: 1 << 8,
  ALL: 0x7f,
} as const;

/** Which attributes an Rgetattr has. */
export const GETATTR = { BASIC: 0x7ff, GENERATION: 0x1000 } as const;

/** Rlock's status, and the types and flags of locks. */
export const LOCK = { SUCCESS: 0, UNLOCKED: 2, FLAG_BLOCK: 1 } as const;

/** Tunlinkat's flag for folders. */
export const REMOVE_FOLDER = 0x200;

/** What a tree that is given for reading only may still be asked for. */
export const READ_ONLY_MESSAGES: ReadonlySet<number> = new Set([
  T.READDIR,
  T.STATFS,
  T.GETATTR,
  T.XATTRWALK,
  T.LOCK,
  T.GETLOCK,
  T.READLINK,
  T.VERSION,
  T.LOPEN,
  T.ATTACH,
  T.WALK,
  T.CLUNK,
  T.FSYNC,
  T.READ,
  T.AUTH,
  T.FLUSH,
]);
