import { Parser } from 'binary-parser';
import { BlockError } from '../io-error.ts';
import {
  type CipherSpec,
  cipherAlgorithms,
  cipherModes,
  type HashAlgorithm,
  hashAlgorithms,
  ivGenerators,
  keyBytes,
  SECTOR,
} from './cipher.ts';

/** LUKS On-Disk Format Specification, version 1.2.3. */
const MAGIC = Buffer.from('LUKS\xba\xbe', 'latin1');
const VERSION = 1;
export const HEADER_BYTES = 592;
/** Figure 2: where the key material begins at the earliest, and what its places are multiples of. */
const ALIGN_SECTORS = 4096 / SECTOR;
export const STRIPES = 4000;
export const DIGEST_BYTES = 20;
export const SALT_BYTES = 32;
const SLOTS = 8;
const FIRST_SLOT = 208;
const SLOT_BYTES = 48;
const SLOT_ENABLED = 0x00ac71f3;
const SLOT_DISABLED = 0x0000dead;

/** One of the eight places for the master key, each for a passphrase. */
export interface KeySlot {
  active: boolean;
  iterations: number;
  salt: Buffer;
  /** In bytes. */
  readonly materialOffset: number;
}

export interface LuksHeader {
  readonly cipher: CipherSpec;
  readonly hash: HashAlgorithm;
  /** Where enciphered data begins, in bytes. */
  readonly payloadOffset: number;
  readonly keyBytes: number;
  digest: Buffer;
  digestSalt: Buffer;
  digestIterations: number;
  readonly uuid: string;
  readonly slots: readonly KeySlot[];
}

interface Fields {
  readonly magic: Buffer;
  readonly version: number;
  readonly cipherName: Buffer;
  readonly cipherMode: Buffer;
  readonly hashSpec: Buffer;
  readonly payloadOffset: number;
  readonly keyBytes: number;
  readonly digest: Buffer;
  readonly digestSalt: Buffer;
  readonly digestIterations: number;
  readonly uuid: Buffer;
}

interface SlotFields {
  readonly active: number;
  readonly iterations: number;
  readonly salt: Buffer;
  readonly materialOffset: number;
  readonly stripes: number;
}

const slotParser = new Parser()
  .endianness('big')
  .uint32('active')
  .uint32('iterations')
  .buffer('salt', { length: SALT_BYTES })
  .uint32('materialOffset')
  .uint32('stripes');

const parser = new Parser()
  .endianness('big')
  .buffer('magic', { length: 6 })
  .uint16('version')
  .buffer('cipherName', { length: 32 })
  .buffer('cipherMode', { length: 32 })
  .buffer('hashSpec', { length: 32 })
  .uint32('payloadOffset')
  .uint32('keyBytes')
  .buffer('digest', { length: DIGEST_BYTES })
  .buffer('digestSalt', { length: SALT_BYTES })
  .uint32('digestIterations')
  .buffer('uuid', { length: 40 });

export function isLuks(head: Uint8Array): boolean {
  return head.length >= 8 && MAGIC.equals(head.subarray(0, 6)) && head[6] === 0 && head[7] === VERSION;
}

function text(what: string, bytes: Buffer): string {
  const end = bytes.indexOf(0);
  if (end < 0) throw new BlockError(`LUKS header ${what} is not NUL terminated`);
  return bytes.toString('latin1', 0, end);
}

function oneOf<const T extends string>(what: string, values: readonly T[], name: string): T {
  for (const value of values) if (value === name) return value;
  throw new BlockError(`${what} '${name}' not supported`);
}

function parseCipher(name: string, mode: string, bytes: number): CipherSpec {
  const match = /^([a-z0-9]+)-([a-z0-9]+)(?::([a-z0-9]+))?$/.exec(mode);
  if (match === null) throw new BlockError(`Unexpected cipher mode string format '${mode}'`);
  const [, modeName = '', ivName = '', hashName] = match;
  const cipherMode = oneOf('Cipher mode', cipherModes, modeName);
  const iv = oneOf('IV generator', ivGenerators, ivName);
  if (iv === 'essiv' && hashName === undefined) throw new BlockError('Missing IV generator hash specification');
  const wanted = `${name}-${(bytes * 8) / (cipherMode === 'xts' ? 2 : 1)}`;
  const algorithm = cipherAlgorithms.find(one => one === wanted);
  if (algorithm === undefined) throw new BlockError(`Algorithm '${name}' with key size ${bytes} bytes not supported`);
  const ivHash = hashName === undefined ? undefined : oneOf('Hash algorithm', hashAlgorithms, hashName);
  return { algorithm, mode: cipherMode, iv, ivHash };
}

/**
 * Reads the header.
 *
 * @param head at least {@link HEADER_BYTES} bytes
 * @throws BlockError where it is damaged, hostile, or asks for what we do not have
 */
export function parseHeader(head: Uint8Array): LuksHeader {
  if (head.length < HEADER_BYTES) throw new BlockError('Volume is not in LUKS format');
  const fields = parser.parse<Fields>(head);
  if (!MAGIC.equals(fields.magic)) throw new BlockError('Volume is not in LUKS format');
  if (fields.version !== VERSION) throw new BlockError(`LUKS version ${fields.version} is not supported`);
  const slots = Array.from({ length: SLOTS }, (_, index) =>
    slotParser.parse<SlotFields>(head.subarray(FIRST_SLOT + index * SLOT_BYTES)),
  );
  const cipher = parseCipher(
    text('cipher name', fields.cipherName),
    text('cipher mode', fields.cipherMode),
    fields.keyBytes,
  );
  const header: LuksHeader = {
    cipher,
    hash: oneOf('Hash algorithm', hashAlgorithms, text('hash spec', fields.hashSpec)),
    payloadOffset: fields.payloadOffset * SECTOR,
    keyBytes: fields.keyBytes,
    digest: fields.digest,
    digestSalt: fields.digestSalt,
    digestIterations: fields.digestIterations,
    uuid: text('uuid', fields.uuid),
    slots: slots.map(({ active, iterations, salt, materialOffset }) => ({
      active: active === SLOT_ENABLED,
      iterations,
      salt,
      materialOffset: materialOffset * SECTOR,
    })),
  };
  if (header.payloadOffset < HEADER_BYTES) throw new BlockError('LUKS payload is overlapping with the header');
  if (header.digestIterations === 0) throw new BlockError('LUKS key iteration count is zero');
  for (const [index, { active, stripes }] of slots.entries()) {
    if (stripes !== STRIPES) throw new BlockError(`Keyslot ${index} is corrupted (stripes ${stripes} != ${STRIPES})`);
    if (active !== SLOT_ENABLED && active !== SLOT_DISABLED)
      throw new BlockError(`Keyslot ${index} state (active/disable) is corrupted`);
  }
  checkSlots(header);
  return header;
}

function checkSlots({ slots, keyBytes: bytes, payloadOffset }: LuksHeader): void {
  const material = bytes * STRIPES;
  for (const [index, { active, iterations, materialOffset }] of slots.entries()) {
    if (active && iterations === 0) throw new BlockError(`Keyslot ${index} iteration count is zero`);
    if (materialOffset < HEADER_BYTES) throw new BlockError(`Keyslot ${index} is overlapping with the LUKS header`);
    if (materialOffset + material > payloadOffset)
      throw new BlockError(`Keyslot ${index} is overlapping with the encrypted payload`);
    for (const [other, { materialOffset: second }] of slots.entries()) {
      if (other > index && Math.abs(second - materialOffset) < material)
        throw new BlockError(`Keyslots ${index} and ${other} are overlapping in the header`);
    }
  }
}

/** A header with eight empty slots; salts and the digest are to be filled in. */
export function emptyHeader(cipher: CipherSpec, hash: HashAlgorithm, uuid: string): LuksHeader {
  const bytes = keyBytes(cipher);
  const material = Math.ceil((bytes * STRIPES) / SECTOR / ALIGN_SECTORS) * ALIGN_SECTORS * SECTOR;
  const first = ALIGN_SECTORS * SECTOR;
  return {
    cipher,
    hash,
    payloadOffset: first + SLOTS * material,
    keyBytes: bytes,
    digest: Buffer.alloc(DIGEST_BYTES),
    digestSalt: Buffer.alloc(SALT_BYTES),
    digestIterations: 0,
    uuid,
    slots: Array.from({ length: SLOTS }, (_, index) => ({
      active: false,
      iterations: 0,
      salt: Buffer.alloc(SALT_BYTES),
      materialOffset: first + index * material,
    })),
  };
}

export function serializeHeader(header: LuksHeader): Buffer {
  const { cipher, slots } = header;
  const bytes = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(bytes, 0);
  bytes.writeUInt16BE(VERSION, 6);
  bytes.write('aes', 8);
  bytes.write(`${cipher.mode}-${cipher.iv}${cipher.ivHash === undefined ? '' : `:${cipher.ivHash}`}`, 40);
  bytes.write(header.hash, 72);
  bytes.writeUInt32BE(header.payloadOffset / SECTOR, 104);
  bytes.writeUInt32BE(header.keyBytes, 108);
  header.digest.copy(bytes, 112);
  header.digestSalt.copy(bytes, 132);
  bytes.writeUInt32BE(header.digestIterations, 164);
  bytes.write(header.uuid, 168);
  for (const [index, slot] of slots.entries()) {
    const at = FIRST_SLOT + index * SLOT_BYTES;
    bytes.writeUInt32BE(slot.active ? SLOT_ENABLED : SLOT_DISABLED, at);
    bytes.writeUInt32BE(slot.iterations, at + 4);
    slot.salt.copy(bytes, at + 8);
    bytes.writeUInt32BE(slot.materialOffset / SECTOR, at + 40);
    bytes.writeUInt32BE(STRIPES, at + 44);
  }
  return bytes;
}
