import { type Cipher, createCipheriv, createDecipheriv, type Decipher } from 'node:crypto';

/** Algorithms by their numbers (virtio 1.2, section 5.9.7.2.1), with the bytes of a block and of a key. */
interface Algorithm {
  readonly mode: 'ecb' | 'cbc' | 'ctr' | 'xts';
  readonly block: number;
  /** OpenSSL's name, by bytes of the key; keys of other sizes are refused. */
  readonly names: Readonly<Record<number, string>>;
}

const aes = (mode: 'ecb' | 'cbc' | 'ctr'): Algorithm => ({
  mode,
  block: 16,
  names: { 16: `aes-128-${mode}`, 24: `aes-192-${mode}`, 32: `aes-256-${mode}` },
});

const ALGORITHMS: ReadonlyMap<number, Algorithm> = new Map([
  [2, aes('ecb')],
  [3, aes('cbc')],
  [4, aes('ctr')],
  [7, { mode: 'ecb', block: 8, names: { 24: 'des-ede3' } }],
  [8, { mode: 'cbc', block: 8, names: { 24: 'des-ede3-cbc' } }],
  // Two keys, one for the data and one for the tweak.
  [13, { mode: 'xts', block: 16, names: { 32: 'aes-128-xts', 64: 'aes-256-xts' } }],
]);

/** A cipher with its key; what it does next depends on what it has done, as the initial value goes on from request to request. */
export class CipherSession {
  readonly algorithm: number;
  readonly encrypts: boolean;
  readonly key: Uint8Array;
  /** For the next request that brings none. */
  readonly iv: Uint8Array;
  readonly #kind: Algorithm;
  readonly #name: string;

  private constructor(kind: Algorithm, name: string, algorithm: number, key: Uint8Array, encrypts: boolean) {
    this.#kind = kind;
    this.#name = name;
    this.algorithm = algorithm;
    this.key = key;
    this.encrypts = encrypts;
    this.iv = new Uint8Array(kind.block);
  }

  /** Undefined where there is no such algorithm, or it takes no such key. */
  static create(algorithm: number, key: Uint8Array, encrypts: boolean): CipherSession | undefined {
    const kind = ALGORITHMS.get(algorithm);
    const name = kind?.names[key.length];
    if (kind === undefined || name === undefined) return undefined;
    const session = new CipherSession(kind, name, algorithm, key, encrypts);
    // OpenSSL itself may refuse a key: XTS wants two that differ.
    return session.#make() === undefined ? undefined : session;
  }

  /** What becomes of `source`; undefined where its length or that of `iv` (of no bytes for none) does not fit. */
  run(iv: Uint8Array, source: Uint8Array): Uint8Array | undefined {
    const { mode, block } = this.#kind;
    if (iv.length > 0) {
      if (iv.length !== block) return undefined;
      this.iv.set(iv);
    }
    if (source.length % block !== 0) return undefined;
    if (source.length === 0) return new Uint8Array(0);
    const target = this.#make()?.update(source);
    if (target === undefined) return undefined;
    if (mode === 'cbc') this.iv.set((this.encrypts ? target : source).subarray(source.length - block));
    if (mode === 'ctr') this.#count(source.length / block);
    return target;
  }

  /** Undefined where OpenSSL has it not, or not with this key. */
  #make(): Cipher | Decipher | undefined {
    const iv = this.#kind.mode === 'ecb' ? null : this.iv;
    try {
      const make = this.encrypts ? createCipheriv : createDecipheriv;
      return make(this.#name, this.key, iv).setAutoPadding(false);
    } catch {
      return undefined;
    }
  }

  /** The counter is one number, its highest byte first. */
  #count(blocks: number): void {
    let carry = blocks;
    for (let at = this.iv.length - 1; at >= 0 && carry > 0; at--) {
      const sum = (this.iv[at] ?? 0) + carry;
      this.iv[at] = sum & 0xff;
      carry = Math.floor(sum / 0x100);
    }
  }
}
