/** Error numbers of Linux on every architecture that we know (asm-generic/errno.h): the 9P2000.L protocol carries them. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  E2BIG: 7,
  EBADF: 9,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  ENODATA: 61,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  ESTALE: 116,
} as const;

/** What an operation came to: a result that is 0 or more, or a negative error number, as a system call answers. */
export type Outcome = number;
