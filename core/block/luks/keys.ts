import { type BinaryLike, createHash, pbkdf2, randomBytes, randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { promisify } from 'node:util';
import { BlockError } from '../io-error.ts';
import { type CipherSpec, type HashAlgorithm, type SectorCipher, sectorCipher } from './cipher.ts';
import { DIGEST_BYTES, emptyHeader, type LuksHeader, SALT_BYTES, STRIPES, serializeHeader } from './header.ts';

/** Not made ahead: `node:crypto` is loaded when a key is first asked for (docs/design/start.md). */
const derive = (
  secret: BinaryLike,
  salt: BinaryLike,
  iterations: number,
  bytes: number,
  hash: string,
): Promise<Buffer> => promisify(pbkdf2)(secret, salt, iterations, bytes, hash);
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
 * Finds the master key (section 4.2).
 *
 * @param read reads from the header's area
 * @throws BlockError where the passphrase opens no slot
 */
export async function unlock(
  header: LuksHeader,
  passphrase: Uint8Array,
  read: (offset: number, bytes: number) => Promise<Buffer>,
): Promise<SectorCipher> {
  const { cipher, hash, keyBytes } = header;
  for (const slot of header.slots) {
    if (!slot.active) continue;
    const slotKey = await derive(passphrase, slot.salt, slot.iterations, keyBytes, hash);
    const sectors = Math.ceil((keyBytes * STRIPES) / 512);
    const material = await read(slot.materialOffset, sectors * 512);
    sectorCipher(cipher, slotKey).decrypt(material, 0);
    const key = merge(material.subarray(0, keyBytes * STRIPES), keyBytes, hash);
    const digest = await derive(key, header.digestSalt, header.digestIterations, DIGEST_BYTES, hash);
    if (digest.equals(header.digest)) return sectorCipher(cipher, key);
  }
  throw new BlockError('Invalid password, cannot unlock any keyslot', { code: 'ERR_LUKS_PASSWORD' });
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
  slot.active = true;
  slot.iterations = Math.max(MIN_ITERATIONS, iterations);
  slot.salt = randomBytes(SALT_BYTES);
  const slotKey = await derive(passphrase, slot.salt, slot.iterations, header.keyBytes, hash);
  const material = Buffer.alloc(Math.ceil((header.keyBytes * STRIPES) / 512) * 512);
  split(key, hash).copy(material);
  sectorCipher(cipher, slotKey).encrypt(material, 0);
  const area = Buffer.alloc(header.payloadOffset);
  serializeHeader(header).copy(area);
  material.copy(area, slot.materialOffset);
  return { header, area, cipher: sectorCipher(cipher, key) };
}
