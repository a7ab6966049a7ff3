import { SouthbridgeError } from '../errors.ts';
import { hostCalls } from './calls.ts';

/** zstd as libzstd does it. */
export interface Zstd {
  /**
   * Compresses `source` into one frame at the beginning of `target`.
   *
   * @param level 1 to 20, or 0 for the library's own
   * @returns its length in bytes, or 0 where it does not fit
   */
  compress(source: Uint8Array, target: Uint8Array, level: number): number;
  /**
   * Fills `target` from the frame that `source` begins with; what follows the frame is not looked at.
   *
   * @returns false where the frame is damaged or too short for that
   */
  decompress(source: Uint8Array, target: Uint8Array): boolean;
}

let loaded: Zstd | undefined;

/**
 * Opens the library when it is first asked for.
 *
 * @throws SouthbridgeError ERR_ZSTD_MISSING where this host has no libzstd
 */
export function zstd(): Zstd {
  loaded ??= load();
  return loaded;
}

function load(): Zstd {
  try {
    const { zstdCompress, zstdDecompress } = hostCalls();
    // Anything at all, to find out whether the library is there.
    zstdCompress(new Uint8Array(1), new Uint8Array(64), 0);
    return { compress: zstdCompress, decompress: zstdDecompress };
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new SouthbridgeError(
      'ERR_ZSTD_MISSING',
      `there is no zstd on this host: ${why}`,
      'install libzstd (Debian: libzstd1), or use another compression; an image: qemu-img convert -O qcow2 -o compression_type=zlib',
      { cause },
    );
  }
}
