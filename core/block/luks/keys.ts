import { type BinaryLike, createHash, pbkdf2, randomBytes, randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { promisify } from 'node:util';
import { BlockError } from '../io-error.ts';
import type { BlockNode } from '../node.ts';
import { readBytes } from '../node-bytes.ts';
import { startFor } from '../pending.ts';
import { type CipherSpec, type HashAlgorithm, SECTOR, type SectorCipher, sectorCipher } from './cipher.ts';
import {
  DIGEST_BYTES,
  emptyHeader,
  type KeySlot,
  type LuksHeader,
  SALT_BYTES,
  STRIPES,
  serializeHeader,
} from './header.ts';

/** Not made ahead: `node:crypto` is loaded when a key is first asked for (docs/design/start.md). */
const derive = (
  secret: BinaryLike,
  salt: BinaryLike,
  iterations: number,
  bytes: number,
  hash: string,
): Promise<Buffer> => promisify(pbkdf2)(secret, salt, iterations, bytes, hash);
/** Reads from the header's area: an offset and a length in bytes. */
export type ReadArea = (offset: number, bytes: number) => Promise<Buffer>;

/** Of the volume at `start` in `file`. */
export function areaReader(file: BlockNode, start: number): ReadArea {
  return async (offset, bytes) => startFor(readBytes(file, start + offset, bytes));
}

const MIN_ITERATIONS = 1000;
/** The digest of the master key gets an eighth of the time that a passphrase gets: it has more entropy. */
const DIGEST_SHARE = 8;

// Section 2.4, the anti-forensic splitter: a key spread over stripes, all of which are needed to have it back.

function diffuse(block: Buffer, hash: HashAlgorithm, size: number): void {
  const number = Buffer.alloc(4);
  for (let at = 0, index = 0; at < block.length; at += size, index++) {
    number.writeUInt32BE(index);
    const part = block.subarray(at, at + size);
    createHash(hash).update(number).update(part).digest().copy(part, 0, 0, part.length);
  }
}

function xor(target: Buffer, other: Uint8Array): void {
  for (let index = 0; index < target.length; index++) target[index] = (target[index] ?? 0) ^ (other[index] ?? 0);
}

function mix(material: Buffer, bytes: number, hash: HashAlgorithm): Buffer {
  const mixed = Buffer.alloc(bytes);
  const size = createHash(hash).digest().length;
  for (let stripe = 0; stripe < STRIPES - 1; stripe++) {
    xor(mixed, material.subarray(stripe * bytes, (stripe + 1) * bytes));
    diffuse(mixed, hash, size);
  }
  return mixed;
}

function split(key: Buffer, hash: HashAlgorithm): Buffer {
  const material = randomBytes(key.length * STRIPES);
  const last = mix(material, key.length, hash);
  xor(last, key);
  last.copy(material, (STRIPES - 1) * key.length);
  return material;
}

function merge(material: Buffer, bytes: number, hash: HashAlgorithm): Buffer {
  const key = mix(material, bytes, hash);
  xor(key, material.subarray((STRIPES - 1) * bytes));
  return key;
}

/**
 * The master key that a slot keeps for the passphrase; undefined where it is not that slot's, or the slot is empty.
 *
 * @param read reads from the header's area
 */
export async function openSlot(
  header: LuksHeader,
  slot: KeySlot,
  passphrase: Uint8Array,
  read: ReadArea,
): Promise<Buffer | undefined> {
  if (!slot.active) return undefined;
  const { cipher, hash, keyBytes } = header;
  const slotKey = await derive(passphrase, slot.salt, slot.iterations, keyBytes, hash);
  const material = await read(slot.materialOffset, materialBytes(header));
  sectorCipher(cipher, slotKey).decrypt(material, 0);
  const key = merge(material.subarray(0, keyBytes * STRIPES), keyBytes, hash);
  const digest = await derive(key, header.digestSalt, header.digestIterations, DIGEST_BYTES, hash);
  return digest.equals(header.digest) ? key : undefined;
}

/**
 * Finds the master key (section 4.2).
 *
 * @param read reads from the header's area
 * @throws BlockError where the passphrase opens no slot
 */
export async function findKey(header: LuksHeader, passphrase: Uint8Array, read: ReadArea): Promise<Buffer> {
  for (const slot of header.slots) {
    const key = await openSlot(header, slot, passphrase, read);
    if (key !== undefined) return key;
  }
  throw new BlockError('Invalid password, cannot unlock any keyslot', { code: 'ERR_LUKS_PASSWORD' });
}

/** The cipher for the data. @throws BlockError where the passphrase opens no slot */
export async function unlock(header: LuksHeader, passphrase: Uint8Array, read: ReadArea): Promise<SectorCipher> {
  return sectorCipher(header.cipher, await findKey(header, passphrase, read));
}

/**
 * Has a slot keep the master key for a passphrase that takes `ms` milliseconds to try.
 *
 * @returns what goes to the slot's place in the header's area
 */
export async function fillSlot(
  header: LuksHeader,
  slot: KeySlot,
  key: Buffer,
  passphrase: Uint8Array,
  ms: number,
): Promise<Buffer> {
  const { cipher, hash, keyBytes } = header;
  const iterations = Math.max(MIN_ITERATIONS, await iterationsFor(ms, hash, keyBytes));
  const salt = randomBytes(SALT_BYTES);
  const slotKey = await derive(passphrase, salt, iterations, keyBytes, hash);
  const material = Buffer.alloc(materialBytes(header));
  split(key, hash).copy(material);
  sectorCipher(cipher, slotKey).encrypt(material, 0);
  Object.assign(slot, { active: true, iterations, salt });
  return material;
}

/** How long the material of a slot is, in bytes. */
export function materialBytes({ keyBytes }: LuksHeader): number {
  return Math.ceil((keyBytes * STRIPES) / SECTOR) * SECTOR;
}

/** How many iterations take `ms` milliseconds here. */
async function iterationsFor(ms: number, hash: HashAlgorithm, bytes: number): Promise<number> {
  for (let tried = 1 << 14; ; tried *= 2) {
    const before = performance.now();
    await derive('password', 'salt and pepper', tried, bytes, hash);
    const took = performance.now() - before;
    if (took > 50 || tried >= 1 << 22) return Math.min(0xffff_ffff, Math.floor((tried * ms) / Math.max(took, 0.1)));
  }
}

export interface NewVolume {
  readonly cipher: CipherSpec;
  readonly hash: HashAlgorithm;
  /** How long it is to take to try a passphrase, in milliseconds. */
  readonly iterationMs: number;
}

/** A new master key, and the header with a slot for the passphrase (section 4.1). The material is the slot's. */
export async function format(
  volume: NewVolume,
  passphrase: Uint8Array,
): Promise<{ readonly header: LuksHeader; readonly area: Buffer; readonly cipher: SectorCipher }> {
  const { cipher, hash } = volume;
  const header = emptyHeader(cipher, hash, randomUUID());
  const key = randomBytes(header.keyBytes);
  const iterations = await iterationsFor(volume.iterationMs, hash, header.keyBytes);
  header.digestSalt = randomBytes(SALT_BYTES);
  header.digestIterations = Math.max(MIN_ITERATIONS, Math.floor(iterations / DIGEST_SHARE));
  header.digest = await derive(key, header.digestSalt, header.digestIterations, DIGEST_BYTES, hash);
  const [slot] = header.slots;
  if (slot === undefined) throw new BlockError('There is no key slot');
  const material = await fillSlot(header, slot, key, passphrase, volume.iterationMs);
  const area = Buffer.alloc(header.payloadOffset);
  serializeHeader(header).copy(area);
  material.copy(area, slot.materialOffset);
  return { header, area, cipher: sectorCipher(cipher, key) };
}
