import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { SouthbridgeError } from '../errors.ts';
import { hostCalls } from './calls.ts';

const PAGE = 4096n;
/** An entry of /proc/self/pagemap (the kernel's admin-guide/mm/pagemap): bit 63 tells that the page is there, 54:0 its frame. */
const PRESENT = 1n << 63n;
const FRAME = (1n << 55n) - 1n;

/** Where the bytes are in this process. */
export const addressOf = (bytes: ArrayBufferView): bigint => hostCalls().addressOf(bytes);

/**
 * Whether the `size` bytes of address space from the start of `bytes` are set aside for them: behind those that there are now, nothing
 * but pages that are mapped and inaccessible. False where the addon is missing, and nobody can tell.
 */
export function ownsAddresses(bytes: Uint8Array, size: number): boolean {
  let start: number;
  try {
    start = Number(addressOf(bytes));
  } catch (error) {
    if (error instanceof SouthbridgeError) return false;
    throw error;
  }
  const end = start + bytes.length;
  let at = start;
  // Lines of /proc/self/maps (proc(5)) are in the order of addresses: "start-end perms ...".
  for (const line of readFileSync('/proc/self/maps', 'latin1').split('\n')) {
    const [, from = '', to = '', permissions] = /^([0-9a-f]+)-([0-9a-f]+) (....)/.exec(line) ?? [];
    const [first, last] = [Number.parseInt(from, 16), Number.parseInt(to, 16)];
    if (!(last > at)) continue;
    if (first > at || (last > end && permissions !== '---p')) return false;
    at = last;
    if (at >= start + size) return true;
  }
  return false;
}

/**
 * The host's physical address of one of this process's.
 *
 * @throws SouthbridgeError ERR_PAGEMAP where the page is not in memory, or the kernel does not tell
 */
export function hostPhysical(address: bigint): bigint {
  const entry = Buffer.alloc(8);
  try {
    const fd = openSync('/proc/self/pagemap', 'r');
    try {
      readSync(fd, entry, 0, 8, (address / PAGE) * 8n);
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    throw new SouthbridgeError('ERR_PAGEMAP', 'Cannot open /proc/self/pagemap', undefined, { cause });
  }
  const value = entry.readBigUInt64LE();
  if ((value & PRESENT) === 0n) throw new SouthbridgeError('ERR_PAGEMAP', 'Page not present');
  // Without the right to administer the host the kernel shows frame 0.
  return (value & FRAME) * PAGE + (address % PAGE);
}
