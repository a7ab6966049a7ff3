import { randomBytes } from 'node:crypto';
import type { BlockGraph } from '../graph.ts';
import { BlockError } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import type { BlockNode } from '../node.ts';
import type { BlockOptions } from '../options.ts';
import { type KeySlot, type LuksHeader, SALT_BYTES, serializeHeader } from './header.ts';
import { areaReader, fillSlot, findKey, materialBytes, openSlot, type ReadArea } from './keys.ts';

/** Section 4.4: how often the material of a slot is written over. */
const ERASURES = 40;
const DEFAULT_ITERATION_MS = 2000;

/** The header of an open volume, and where it lies. */
export interface VolumePlace {
  readonly graph: BlockGraph;
  readonly file: BlockNode;
  /** In bytes, in `file`. */
  readonly offset: number;
  readonly header: LuksHeader;
  /** What opened the volume. */
  readonly secret: string;
}

/**
 * Adds passphrases to a volume, or takes them away: QCryptoBlockAmendOptionsLUKS.
 *
 * @param force even where that takes away the last key
 * @throws BlockError where it cannot be
 */
export async function amendVolume(place: VolumePlace, options: BlockOptions, force: boolean): Promise<void> {
  const { graph, file, offset, header } = place;
  const read = areaReader(file, offset);
  const write = async (at: number, bytes: Uint8Array): Promise<void> => {
    await file.writev(offset + at, bytes.length, IoVector.of(bytes));
    await file.flush();
  };
  const wanted = {
    newSecret: options.string('new-secret'),
    oldSecret: options.string('old-secret'),
    keyslot: options.number('keyslot'),
    iterationMs: options.number('iter-time'),
    secret: options.string('secret'),
  };
  if (options.choice('state', ['active', 'inactive']) === 'active') {
    await activate(place, wanted, force, read, write);
    return;
  }
  const password = wanted.oldSecret === undefined ? undefined : await graph.secret(checkErasure(wanted));
  for (const slot of await slotsToErase(header, wanted, password, force, read)) {
    slot.active = false;
    slot.iterations = 0;
    slot.salt = Buffer.alloc(SALT_BYTES);
    // First nobody knows of it, then it is gone.
    await write(0, serializeHeader(header));
    for (let round = 0; round < ERASURES; round++) await write(slot.materialOffset, randomBytes(materialBytes(header)));
  }
}

interface Wanted {
  readonly newSecret: string | undefined;
  readonly oldSecret: string | undefined;
  readonly keyslot: number | undefined;
  readonly iterationMs: number | undefined;
  readonly secret: string | undefined;
}
type WriteArea = (at: number, bytes: Uint8Array) => Promise<void>;

async function activate(
  { graph, header, secret }: VolumePlace,
  wanted: Wanted,
  force: boolean,
  read: ReadArea,
  write: WriteArea,
): Promise<void> {
  if (wanted.newSecret === undefined) throw new BlockError("'new-secret' is required to activate a keyslot");
  if (wanted.oldSecret !== undefined) throw new BlockError("'old-secret' must not be given when activating keyslots");
  const number = wanted.keyslot ?? header.slots.findIndex(({ active }) => !active);
  if (wanted.keyslot === undefined && number < 0) throw new BlockError("Can't add a keyslot - all keyslots are in use");
  const slot = slotOf(header, number);
  if (!force && slot.active)
    throw new BlockError(`Refusing to overwrite active keyslot ${number} - please erase it first`);
  const key = await findKey(header, await graph.secret(wanted.secret ?? secret), read);
  const passphrase = await graph.secret(wanted.newSecret);
  const material = await fillSlot(header, slot, key, passphrase, wanted.iterationMs ?? DEFAULT_ITERATION_MS);
  await write(slot.materialOffset, material);
  await write(0, serializeHeader(header));
}

function slotOf({ slots }: LuksHeader, number: number): KeySlot {
  const slot = slots[number];
  if (slot === undefined) {
    throw new BlockError(`Invalid keyslot ${number} specified, must be between 0 and ${slots.length - 1}`);
  }
  return slot;
}

/** @returns the old secret's name */
function checkErasure({ newSecret, iterationMs, secret, oldSecret = '' }: Wanted): string {
  if (newSecret !== undefined) throw new BlockError("'new-secret' must not be given when erasing keyslots");
  if (iterationMs !== undefined) throw new BlockError("'iter-time' must not be given when erasing keyslots");
  if (secret !== undefined) throw new BlockError("'secret' must not be given when erasing keyslots");
  return oldSecret;
}

async function slotsToErase(
  header: LuksHeader,
  wanted: Wanted,
  password: Uint8Array | undefined,
  force: boolean,
  read: ReadArea,
): Promise<readonly KeySlot[]> {
  checkErasure(wanted);
  const active = header.slots.filter(slot => slot.active);
  const { keyslot: number } = wanted;
  if (number !== undefined) {
    const slot = slotOf(header, number);
    if (password !== undefined && (await openSlot(header, slot, password, read)) === undefined)
      throw new BlockError(`Given keyslot ${number} doesn't contain the given old password for erase operation`);
    if (!force && !slot.active) throw new BlockError(`Given keyslot ${number} is already erased (inactive) `);
    if (!force && active.length === 1) {
      throw new BlockError(
        `Attempt to erase the only active keyslot ${number} which will erase all the data in the image irreversibly - refusing operation`,
      );
    }
    return [slot];
  }
  if (password === undefined) {
    throw new BlockError(
      'To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given',
    );
  }
  const found: KeySlot[] = [];
  for (const slot of active) if ((await openSlot(header, slot, password, read)) !== undefined) found.push(slot);
  if (found.length === 0) throw new BlockError('No keyslots match given (old) password for erase operation');
  if (!force && found.length === active.length) {
    throw new BlockError(
      'All the active keyslots match the (old) password that was given and erasing them will erase all the data in the image irreversibly - refusing operation',
    );
  }
  return found;
}
