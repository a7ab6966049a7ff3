import { SouthbridgeError } from '../errors.ts';

/** Linux's numbers of the errors that block requests end with. */
export const errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EPIPE: 32,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOTEMPTY: 39,
  ELOOP: 40,
  EPROTO: 71,
  EOVERFLOW: 75,
  EOPNOTSUPP: 95,
  ECONNRESET: 104,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  ECANCELED: 125,
  ENOMEDIUM: 123,
  EMEDIUMTYPE: 124,
  EDQUOT: 122,
} as const;

export type ErrnoName = keyof typeof errno;

// What glibc's strerror() says: management tools compare these texts.
const texts: { readonly [Name in ErrnoName]: string } = {
  EPERM: 'Operation not permitted',
  ENOENT: 'No such file or directory',
  EINTR: 'Interrupted system call',
  EIO: 'Input/output error',
  ENXIO: 'No such device or address',
  EBADF: 'Bad file descriptor',
  EAGAIN: 'Resource temporarily unavailable',
  ENOMEM: 'Cannot allocate memory',
  EACCES: 'Permission denied',
  EBUSY: 'Device or resource busy',
  EEXIST: 'File exists',
  ENODEV: 'No such device',
  ENOTDIR: 'Not a directory',
  EISDIR: 'Is a directory',
  EINVAL: 'Invalid argument',
  ENFILE: 'Too many open files in system',
  EMFILE: 'Too many open files',
  ETXTBSY: 'Text file busy',
  EFBIG: 'File too large',
  ENOSPC: 'No space left on device',
  ESPIPE: 'Illegal seek',
  EROFS: 'Read-only file system',
  EPIPE: 'Broken pipe',
  ERANGE: 'Numerical result out of range',
  ENAMETOOLONG: 'File name too long',
  ENOTEMPTY: 'Directory not empty',
  ELOOP: 'Too many levels of symbolic links',
  EPROTO: 'Protocol error',
  EOVERFLOW: 'Value too large for defined data type',
  EOPNOTSUPP: 'Operation not supported',
  ECONNRESET: 'Connection reset by peer',
  ESHUTDOWN: 'Cannot send after transport endpoint shutdown',
  ETIMEDOUT: 'Connection timed out',
  ECONNREFUSED: 'Connection refused',
  ECANCELED: 'Operation canceled',
  ENOMEDIUM: 'No medium found',
  EMEDIUMTYPE: 'Wrong medium type',
  EDQUOT: 'Disk quota exceeded',
};

const names = new Map<number, ErrnoName>();
for (const name of Object.keys(errno)) if (isErrnoName(name)) names.set(errno[name], name);

export function isErrnoName(name: string): name is ErrnoName {
  return Object.hasOwn(errno, name);
}

/** The name of an error number, or undefined where it is none of ours. */
export function errnoName(number: number): ErrnoName | undefined {
  return names.get(number);
}

/** What strerror() says. */
export function errnoText(number: number): string {
  const name = names.get(number);
  return name === undefined ? `Unknown error ${number}` : texts[name];
}

/** A block request or an operation on a node that failed as the host's would: with an error number. */
export class IoError extends SouthbridgeError {
  /** Positive, Linux's. */
  readonly errno: number;

  constructor(number: number, message = errnoText(number), options?: ErrorOptions & { hint?: string }) {
    super(`ERR_BLOCK_${names.get(number) ?? 'EIO'}`, message, options?.hint, options);
    this.errno = number;
  }
}

/** The error number that a failure stands for: EIO where it says nothing better. */
export function errnoOf(error: unknown): number {
  if (error instanceof IoError) return error.errno;
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
    if (isErrnoName(error.code)) return errno[error.code];
    if (error.code === 'ENOTSUP') return errno.EOPNOTSUPP;
  }
  if (error instanceof Error && 'errno' in error && typeof error.errno === 'number' && error.errno < 0)
    return -error.errno;
  return errno.EIO;
}

/** A failed host call as an {@link IoError}. */
export function hostError(error: unknown): IoError {
  return error instanceof IoError ? error : new IoError(errnoOf(error), errnoText(errnoOf(error)), { cause: error });
}

/** What went wrong, for the end of a sentence: an error's own message, or strerror's text of a host call's. */
export function reason(error: unknown): string {
  if (error instanceof SouthbridgeError) return error.message;
  if (error instanceof Error && 'syscall' in error) return errnoText(errnoOf(error));
  return error instanceof Error ? error.message : String(error);
}

/** An operation on the graph that cannot be done: wrong options, unknown node, in use. The text is QEMU's. */
export class BlockError extends SouthbridgeError {
  constructor(message: string, options?: ErrorOptions & { hint?: string; code?: `ERR_${string}` }) {
    super(options?.code ?? 'ERR_BLOCK', message, options?.hint, options);
  }
}
