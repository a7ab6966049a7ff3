import { reason } from '../block/io-error.ts';

/** What the C library says of names that cannot be looked up (getaddrinfo(3)). */
const RESOLVER: Readonly<Record<string, string>> = {
  ENOTFOUND: 'Name or service not known',
  EAI_NONAME: 'Name or service not known',
  EAI_AGAIN: 'Temporary failure in name resolution',
  EAI_FAIL: 'Non-recoverable failure in name resolution',
  EAI_NODATA: 'No address associated with hostname',
};

/** Why a connection to `where` did not come about, in QEMU's words. */
export function connectFailure(where: string, cause: unknown): string {
  if (!(cause instanceof Error && 'syscall' in cause && cause.syscall === 'getaddrinfo'))
    return `Failed to connect to '${where}': ${reason(cause)}`;
  const code = 'code' in cause ? String(cause.code) : '';
  return `address resolution failed for ${where}: ${RESOLVER[code] ?? cause.message}`;
}
