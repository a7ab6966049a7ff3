import { createCipheriv, createDecipheriv, createHash } from 'node:crypto';
import { BlockError } from '../io-error.ts';

export const SECTOR = 512;

export const cipherAlgorithms = ['aes-128', 'aes-192', 'aes-256'] as const;
export const cipherModes = ['ecb', 'cbc', 'xts', 'ctr'] as const;
export const ivGenerators = ['plain', 'plain64', 'essiv'] as const;
export const hashAlgorithms = ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160'] as const;

export type CipherAlgorithm = (typeof cipherAlgorithms)[number];
export type CipherMode = (typeof cipherModes)[number];
export type IvGenerator = (typeof ivGenerators)[number];
export type HashAlgorithm = (typeof hashAlgorithms)[number];

/** How sectors are enciphered; LUKS writes it as `aes` and `xts-plain64` or `cbc-essiv:sha256`. */
export interface CipherSpec {
  readonly algorithm: CipherAlgorithm;
  readonly mode: CipherMode;
  readonly iv: IvGenerator;
  /** What essiv hashes the key with. */
  readonly ivHash: HashAlgorithm | undefined;
}

/** Bytes of the key: XTS has two of them. */
export function keyBytes({ algorithm, mode }: CipherSpec): number {
  return (Number(algorithm.slice(4)) / 8) * (mode === 'xts' ? 2 : 1);
}

/** Enciphers and deciphers sectors of 512 bytes by their number. */
export interface SectorCipher {
  /** Enciphers whole sectors in place, the first of which has the number `sector`. */
  encrypt(data: Uint8Array, sector: number): void;
  decrypt(data: Uint8Array, sector: number): void;
}

/** @throws BlockError where OpenSSL has no such cipher */
export function sectorCipher(spec: CipherSpec, key: Uint8Array): SectorCipher {
  try {
    const { algorithm, mode, iv } = spec;
    return mode === 'xts' && iv !== 'essiv' ? new XtsCipher(algorithm, key, iv) : new ChainedCipher(spec, key);
  } catch (cause) {
    throw new BlockError(`Algorithm '${spec.algorithm}' with mode '${spec.mode}' not supported`, { cause });
  }
}

function putSector(iv: DataView, at: number, sector: number, generator: IvGenerator): void {
  iv.setUint32(at, sector >>> 0, true);
  iv.setUint32(at + 4, generator === 'plain' ? 0 : Math.floor(sector / 2 ** 32), true);
}

/**
 * IEEE 1619. A cipher object of Node's costs more than the sector it would encipher, and its initial value cannot be
 * changed; so AES alone is Node's, for all blocks of a request at once, and the tweaks are ours.
 */
class XtsCipher implements SectorCipher {
  readonly #encipher: (blocks: Uint8Array) => Uint8Array;
  readonly #decipher: (blocks: Uint8Array) => Uint8Array;
  readonly #tweak: (blocks: Uint8Array) => Uint8Array;
  readonly #iv: IvGenerator;

  constructor(algorithm: CipherAlgorithm, key: Uint8Array, iv: IvGenerator) {
    const name = `${algorithm}-ecb`;
    const half = key.length / 2;
    const dataCipher = createCipheriv(name, key.subarray(0, half), null).setAutoPadding(false);
    const dataDecipher = createDecipheriv(name, key.subarray(0, half), null).setAutoPadding(false);
    const tweakCipher = createCipheriv(name, key.subarray(half), null).setAutoPadding(false);
    this.#encipher = blocks => dataCipher.update(blocks);
    this.#decipher = blocks => dataDecipher.update(blocks);
    this.#tweak = blocks => tweakCipher.update(blocks);
    this.#iv = iv;
  }

  encrypt(data: Uint8Array, sector: number): void {
    this.#run(data, sector, this.#encipher);
  }

  decrypt(data: Uint8Array, sector: number): void {
    this.#run(data, sector, this.#decipher);
  }

  #run(data: Uint8Array, sector: number, aes: (blocks: Uint8Array) => Uint8Array): void {
    const tweaks = this.#tweaks(data.length / SECTOR, sector);
    const words = new Uint32Array(data.length / 4);
    const bytes = new Uint8Array(words.buffer);
    bytes.set(data);
    xorWords(words, tweaks);
    bytes.set(aes(bytes));
    xorWords(words, tweaks);
    data.set(bytes);
  }

  /** A tweak for each block: the first of a sector is its number enciphered, the next ones are that times x, x^2... */
  #tweaks(sectors: number, first: number): Uint32Array {
    const numbers = new DataView(new ArrayBuffer(sectors * 16));
    for (let index = 0; index < sectors; index++) putSector(numbers, index * 16, first + index, this.#iv);
    const starts = this.#tweak(new Uint8Array(numbers.buffer));
    const view = new DataView(starts.buffer, starts.byteOffset, starts.length);
    const tweaks = new Uint32Array((sectors * SECTOR) / 4);
    for (let index = 0, at = 0; index < sectors; index++) {
      let a = view.getUint32(index * 16, true);
      let b = view.getUint32(index * 16 + 4, true);
      let c = view.getUint32(index * 16 + 8, true);
      let d = view.getUint32(index * 16 + 12, true);
      for (let block = 0; block < SECTOR / 16; block++, at += 4) {
        tweaks[at] = a;
        tweaks[at + 1] = b;
        tweaks[at + 2] = c;
        tweaks[at + 3] = d;
        const carry = d >>> 31;
        d = (d << 1) | (c >>> 31);
        c = (c << 1) | (b >>> 31);
        b = (b << 1) | (a >>> 31);
        a = (a << 1) ^ (carry * 0x87);
      }
    }
    return tweaks;
  }
}

function xorWords(words: Uint32Array, others: Uint32Array): void {
  for (let index = 0; index < words.length; index++) words[index] = (words[index] ?? 0) ^ (others[index] ?? 0);
}

/** The other modes, in which a block rests on the one before: a cipher object for each sector. */
class ChainedCipher implements SectorCipher {
  readonly #name: string;
  readonly #key: Uint8Array;
  readonly #spec: CipherSpec;
  readonly #iv = new DataView(new ArrayBuffer(16));
  /** essiv: enciphers the sector's number with the hash of the key. */
  readonly #salt: ((block: Uint8Array) => Uint8Array) | undefined;

  constructor(spec: CipherSpec, key: Uint8Array) {
    this.#spec = spec;
    this.#key = key;
    this.#name = `${spec.algorithm}-${spec.mode}`;
    if (spec.iv === 'essiv') {
      const saltKey = createHash(spec.ivHash ?? 'sha256')
        .update(key)
        .digest();
      const salt = createCipheriv(`aes-${saltKey.length * 8}-ecb`, saltKey, null).setAutoPadding(false);
      this.#salt = block => salt.update(block);
    }
    createCipheriv(this.#name, key, this.#ivFor(0));
  }

  #ivFor(sector: number): Uint8Array | null {
    if (this.#spec.mode === 'ecb') return null;
    putSector(this.#iv, 0, sector, this.#spec.iv);
    const number = new Uint8Array(this.#iv.buffer);
    return this.#salt?.(number) ?? number;
  }

  encrypt(data: Uint8Array, sector: number): void {
    for (let at = 0; at < data.length; at += SECTOR, sector++) {
      const cipher = createCipheriv(this.#name, this.#key, this.#ivFor(sector)).setAutoPadding(false);
      data.set(cipher.update(data.subarray(at, at + SECTOR)), at);
    }
  }

  decrypt(data: Uint8Array, sector: number): void {
    for (let at = 0; at < data.length; at += SECTOR, sector++) {
      const cipher = createDecipheriv(this.#name, this.#key, this.#ivFor(sector)).setAutoPadding(false);
      data.set(cipher.update(data.subarray(at, at + SECTOR)), at);
    }
  }
}
