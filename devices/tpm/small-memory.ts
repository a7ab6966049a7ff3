import { MemoryRegion } from '../../core/memory/memory-region.ts';

/** Memory that does not fill its page, so that it can be no RAM of an accelerator's. `bytes` says where it is kept. */
export const smallMemory = (name: string, size: number, bytes: () => Uint8Array): MemoryRegion =>
  MemoryRegion.io(name, size, {
    read(offset, width) {
      const contents = bytes();
      let value = 0;
      for (let at = width - 1; at >= 0; at--) value = (value << 8) | (contents[offset + at] ?? 0);
      return value >>> 0;
    },
    write(offset, width, value) {
      const contents = bytes();
      for (let at = 0; at < width; at++) contents[offset + at] = value >>> (8 * at);
    },
  });
