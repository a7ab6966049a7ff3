import zlib from 'node:zlib';
import { BlockError, errno, IoError } from '../io-error.ts';

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
      throw new IoError(errno.EIO, 'A compressed cluster is damaged', { cause });
    }
    throw new IoError(errno.EIO, 'A compressed cluster is too short');
  },
};

interface ZstdFunctions {
  zstdCompressSync(data: Uint8Array): Uint8Array;
  zstdDecompressSync(data: Uint8Array, options: { maxOutputLength: number }): Uint8Array;
}

function hasZstd(module: object): module is ZstdFunctions {
  return 'zstdDecompressSync' in module && 'zstdCompressSync' in module;
}

/** @throws BlockError where this Node has no such compression */
export function compressionOf(type: 'zlib' | 'zstd'): Compression {
  if (type === 'zlib') return deflate;
  const module: object = zlib;
  if (!hasZstd(module)) {
    throw new BlockError('qcow2: compression type zstd is not supported by this version of Node', {
      hint: `Node ${process.versions.node} has no zstd; 22.15 and 23.8 have it. Or convert: qemu-img convert -O qcow2 -o compression_type=zlib`,
      code: 'ERR_QCOW2_ZSTD',
    });
  }
  return {
    compress(data) {
      const packed = module.zstdCompressSync(data);
      return packed.length < data.length ? packed : undefined;
    },
    decompress(data, size) {
      try {
        const unpacked = module.zstdDecompressSync(data, { maxOutputLength: size });
        if (unpacked.length === size) return unpacked;
      } catch (cause) {
        throw new IoError(errno.EIO, 'A compressed cluster is damaged', { cause });
      }
      throw new IoError(errno.EIO, 'A compressed cluster is too short');
    },
  };
}
