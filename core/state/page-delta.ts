import { SouthbridgeError } from '../errors.ts';

/** Runs of equal bytes shorter than this are sent along: a run's header takes four bytes. */
const WORTH_SKIPPING = 4;

/**
 * How `after` differs from `before`: for each run of changed bytes how many unchanged ones stand before it and how many it has,
 * as u16, and then its bytes. Undefined where that takes `limit` bytes or more.
 */
export function encodeDelta(before: Uint8Array, after: Uint8Array, limit: number): Buffer | undefined {
  const out = Buffer.allocUnsafe(limit);
  let used = 0;
  let copied = 0;
  for (let at = 0; at < after.length; ) {
    if (before[at] === after[at]) {
      at++;
      continue;
    }
    const start = at;
    let end = at + 1;
    for (let equal = 0; at < after.length && equal < WORTH_SKIPPING; at++) {
      if (before[at] === after[at]) equal++;
      else {
        equal = 0;
        end = at + 1;
      }
    }
    const length = end - start;
    if (used + 4 + length >= limit) return undefined;
    out.writeUInt16LE(start - copied, used);
    out.writeUInt16LE(length, used + 2);
    out.set(after.subarray(start, end), used + 4);
    used += 4 + length;
    copied = end;
    at = end;
  }
  return out.subarray(0, used);
}

/** Puts a delta into `page`. @throws SouthbridgeError ERR_STATE_FORMAT where it does not fit */
export function applyDelta(page: Uint8Array, delta: Buffer): void {
  let at = 0;
  for (let read = 0; read < delta.length; ) {
    const fits = read + 4 <= delta.length;
    const start = fits ? at + delta.readUInt16LE(read) : page.length;
    const length = fits ? delta.readUInt16LE(read + 2) : 0;
    if (length === 0 || start + length > page.length || read + 4 + length > delta.length)
      throw new SouthbridgeError('ERR_STATE_FORMAT', "the machine's state is damaged: a changed page", 'make it again');
    page.set(delta.subarray(read + 4, read + 4 + length), start);
    at = start + length;
    read += 4 + length;
  }
}
