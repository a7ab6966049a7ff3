/** Blocks of a CD (ECMA-130). */

/** User data of a block, in bytes. */
export const BLOCK = 2048;
/** A raw block: synchronization, header, user data, error correction (section 14). */
export const RAW_BLOCK = 2352;
const FRAMES = 75;
const LEAD_IN = 150;

/** Minute, second and frame of a block. */
export function putMsf(bytes: Uint8Array, at: number, block: number): void {
  const frame = block + LEAD_IN;
  bytes[at] = Math.floor(frame / FRAMES / 60);
  bytes[at + 1] = Math.floor(frame / FRAMES) % 60;
  bytes[at + 2] = frame % FRAMES;
}

/** What fits on a CD, in bytes: 80 minutes. More is a DVD. */
export const CD_BYTES = 80 * 60 * FRAMES * BLOCK;
