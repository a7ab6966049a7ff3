/** Offsets in the configuration space (virtio 1.2, section 5.9.4). */
export const CONFIG = {
  STATUS: 0,
  MAX_DATAQUEUES: 4,
  CRYPTO_SERVICES: 8,
  CIPHER_ALGO_L: 12,
  HASH_ALGO: 20,
  MAX_CIPHER_KEY_LEN: 36,
  MAX_AUTH_KEY_LEN: 40,
  MAX_SIZE: 48,
  BYTES: 56,
} as const;

export const HW_READY = 1;

/** Services (section 5.9.4). */
const SERVICE = { CIPHER: 0, HASH: 1, MAC: 2, AEAD: 3, AKCIPHER: 4 } as const;

/** Bits of `crypto_services`. As QEMU's builtin backend it promises hashes and refuses their sessions. */
export const SERVICES = (1 << SERVICE.CIPHER) | (1 << SERVICE.HASH) | (1 << SERVICE.MAC);
/** Bits of `hash_algo`: SHA-1. */
export const HASHES = 1 << 2;
/** Bits of `cipher_algo_l`, as QEMU sets them, which takes the others too. */
export const CIPHERS = 1 << 3;

const opcode = (service: number, operation: number): number => (service << 8) | operation;

/** Requests on the control queue (section 5.9.7.2). */
export const CONTROL = {
  CIPHER_CREATE: opcode(SERVICE.CIPHER, 2),
  DESTROY: [
    ...[SERVICE.CIPHER, SERVICE.HASH, SERVICE.MAC, SERVICE.AEAD].map(service => opcode(service, 3)),
    opcode(SERVICE.AKCIPHER, 5),
  ],
  /** Bytes: a header of 16, and what the operation wants. */
  SIZE: 72,
  SESSION_ID: 16,
  ALGORITHM: 16,
  KEY_LENGTH: 20,
  DIRECTION: 24,
  /** Of a cipher in a chain with a hash, which begins after the order and the mode. */
  CHAIN: 8,
  HASH_MODE: 20,
  AUTH_KEY_LENGTH: 48,
  OP_TYPE: 64,
} as const;

/** What becomes of a new session: its id, and a status. */
export const SESSION_INPUT = { ID: 0, STATUS: 8, SIZE: 16 } as const;

/** Requests on a data queue (section 5.9.7.4). */
export const DATA = {
  CIPHER_ENCRYPT: opcode(SERVICE.CIPHER, 0),
  CIPHER_DECRYPT: opcode(SERVICE.CIPHER, 1),
  SIZE: 72,
  SESSION_ID: 8,
  IV_LENGTH: 24,
  SOURCE_LENGTH: 28,
  TARGET_LENGTH: 32,
  OP_TYPE: 64,
} as const;

export const SYM_OP = { NONE: 0, CIPHER: 1, CHAIN: 2 } as const;
export const HASH_MODE = { PLAIN: 1, AUTH: 2, NESTED: 3 } as const;
export const OP_ENCRYPT = 1;

export const STATUS = { OK: 0, ERR: 1, BADMSG: 2, NOTSUPP: 3, INVSESS: 4 } as const;
export type Status = (typeof STATUS)[keyof typeof STATUS];

export const MAX_SESSIONS = 256;
export const MAX_CIPHER_KEY = 64;
export const MAX_AUTH_KEY = 512;
