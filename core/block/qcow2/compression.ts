import zlib from 'node:zlib';
import { type Zstd, zstd } from '../../host/zstd.ts';
import { errno, IoError } from '../io-error.ts';

/** Clusters are compressed one by one, as raw deflate with a window of 4 KiB or as zstd frames. */
export interface Compression {
  /** The data compressed, or undefined where it does not become smaller. */
  compress(data: Uint8Array): Uint8Array | undefined;
  /** @throws IoError EIO where the data is damaged */
  decompress(data: Uint8Array, size: number): Uint8Array;
}

const deflate: Compression = {
  compress(data) {
    const packed = zlib.deflateRawSync(data, { windowBits: 12 });
    return packed.length < data.length ? packed : undefined;
  },
  decompress(data, size) {
    try {
      // What follows the stream in its last sector is not ours.
      const unpacked = zlib.inflateRawSync(data, {
        windowBits: 12,
        maxOutputLength: size,
        finishFlush: zlib.constants.Z_SYNC_FLUSH,
      });
      if (unpacked.length === size) return unpacked;
    } catch (cause) {
      throw damaged(cause);
    }
    throw damaged();
  },
};

function zstandard({ compress, decompress }: Zstd): Compression {
  return {
    compress(data) {
      const packed = new Uint8Array(data.length - 1);
      const length = compress(data, packed, 0);
      return length === 0 ? undefined : packed.subarray(0, length);
    },
    decompress(data, size) {
      const unpacked = new Uint8Array(size);
      if (!decompress(data, unpacked)) throw damaged();
      return unpacked;
    },
  };
}

function damaged(cause?: unknown): IoError {
  return new IoError(errno.EIO, 'A compressed cluster is damaged', { cause });
}

/** @throws SouthbridgeError ERR_ZSTD_MISSING where this host cannot do it */
export function compressionOf(type: 'zlib' | 'zstd'): Compression {
  return type === 'zlib' ? deflate : zstandard(zstd());
}
