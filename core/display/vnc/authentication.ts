import { createCipheriv, randomBytes, timingSafeEqual } from 'node:crypto';

export const CHALLENGE_SIZE = 16;
const KEY_SIZE = 8;

export const newChallenge = (): Buffer => randomBytes(CHALLENGE_SIZE);

/** The eight bytes of a DES key that a password makes: each byte's bits in the reverse order (RFC 6143, section 7.2.2). */
function keyOf(password: string): Buffer {
  const key = Buffer.alloc(KEY_SIZE);
  key.write(password, 'utf8');
  return key.map(byte => {
    let turned = 0;
    for (let bit = 0; bit < 8; bit++) turned |= ((byte >> bit) & 1) << (7 - bit);
    return turned;
  }) as Buffer;
}

/** What a client that knows `password` answers. */
export function answerOf(challenge: Uint8Array, password: string): Buffer {
  const key = keyOf(password);
  // Three times the same key is plain DES, which OpenSSL no longer has by itself.
  const cipher = createCipheriv('des-ede3-ecb', Buffer.concat([key, key, key]), null);
  cipher.setAutoPadding(false);
  return Buffer.concat([cipher.update(challenge), cipher.final()]);
}

export const isAnswer = (challenge: Uint8Array, password: string, answer: Uint8Array): boolean =>
  timingSafeEqual(answerOf(challenge, password), answer);
