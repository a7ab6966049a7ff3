/** How refcounts of one width lie in a refcount block. */
export interface RefcountWidth {
  readonly bits: number;
  /** The highest count. */
  readonly max: number;
  get(view: DataView, index: number): number;
  set(view: DataView, index: number, value: number): void;
}

function packed(bits: 1 | 2 | 4): RefcountWidth {
  const perByte = 8 / bits;
  const mask = (1 << bits) - 1;
  return {
    bits,
    max: mask,
    get: (view, index) => (view.getUint8(Math.floor(index / perByte)) >>> ((index % perByte) * bits)) & mask,
    set(view, index, value) {
      const at = Math.floor(index / perByte);
      const shift = (index % perByte) * bits;
      view.setUint8(at, (view.getUint8(at) & ~(mask << shift)) | (value << shift));
    },
  };
}

/** By the order in the header: 1 to 64 bits. Counts of 64 bits are exact up to 2^53, which no image reaches. */
export const refcountWidths: readonly RefcountWidth[] = [
  packed(1),
  packed(2),
  packed(4),
  {
    bits: 8,
    max: 0xff,
    get: (view, index) => view.getUint8(index),
    set: (view, index, value) => view.setUint8(index, value),
  },
  {
    bits: 16,
    max: 0xffff,
    get: (view, index) => view.getUint16(index * 2),
    set: (view, index, value) => view.setUint16(index * 2, value),
  },
  {
    bits: 32,
    max: 0xffff_ffff,
    get: (view, index) => view.getUint32(index * 4),
    set: (view, index, value) => view.setUint32(index * 4, value),
  },
  {
    bits: 64,
    max: Number.MAX_SAFE_INTEGER,
    get: (view, index) => view.getUint32(index * 8) * 2 ** 32 + view.getUint32(index * 8 + 4),
    set(view, index, value) {
      view.setUint32(index * 8, Math.floor(value / 2 ** 32));
      view.setUint32(index * 8 + 4, value >>> 0);
    },
  },
];
