import type { Test } from 'tap';
import { SouthbridgeError } from '../../core/errors.ts';
import { GuestCache } from '../../core/firmware/guest-cache/guest-cache.ts';
import type { ItemFiles, ItemName } from '../../core/firmware/guest-cache/items.ts';

/** The guest's files, fetched where needed; or undefined, with a comment that says why, where this host cannot get them. */
export async function guestOrSkip<Name extends ItemName>(t: Test, name: Name): Promise<ItemFiles<Name> | undefined> {
  const cache = new GuestCache({ progress: line => t.comment(line) });
  try {
    return await cache.get(name);
  } catch (error) {
    if (!(error instanceof SouthbridgeError)) throw error;
    t.pass(`${name} cannot be had here`, { skip: `${error.code}: ${error.message}` });
    return undefined;
  }
}
