/** Copies one row of packed pixels from video memory to a surface, as 0x00RRGGBB. All offsets are within the memory. */
export type RowReader = (
  memory: DataView<ArrayBufferLike>,
  from: number,
  to: Uint32Array,
  at: number,
  width: number,
) => void;

/** A component of `bits` bits as one of eight. */
const widen = (value: number, bits: number): number => (value << (8 - bits)) | (value >> (2 * bits - 8));

/** Colours of all pixels of 15 and of 16 bits; made when first needed. */
let table15: Uint32Array | undefined;
let table16: Uint32Array | undefined;

const colours15 = (): Uint32Array =>
  (table15 ??= Uint32Array.from(
    { length: 0x1_0000 },
    (_, pixel) =>
      (widen((pixel >> 10) & 0x1f, 5) << 16) | (widen((pixel >> 5) & 0x1f, 5) << 8) | widen(pixel & 0x1f, 5),
  ));
const colours16 = (): Uint32Array =>
  (table16 ??= Uint32Array.from(
    { length: 0x1_0000 },
    (_, pixel) => (widen(pixel >> 11, 5) << 16) | (widen((pixel >> 5) & 0x3f, 6) << 8) | widen(pixel & 0x1f, 5),
  ));

const words = (colours: Uint32Array): RowReader => {
  return (memory, from, to, at, width) => {
    for (let x = 0; x < width; x++) to[at + x] = colours[memory.getUint16(from + 2 * x, true)] ?? 0;
  };
};

const row24: RowReader = (memory, from, to, at, width) => {
  for (let x = 0; x < width; x++) {
    const pixel = from + 3 * x;
    to[at + x] = memory.getUint16(pixel, true) | (memory.getUint8(pixel + 2) << 16);
  }
};

const row32: RowReader = (memory, from, to, at, width) => {
  for (let x = 0; x < width; x++) to[at + x] = memory.getUint32(from + 4 * x, true) & 0xff_ffff;
};

/** The reader for pixels of `bpp` bits, least significant byte first; undefined where there is no such format. */
export function rowReader(bpp: number): RowReader | undefined {
  switch (bpp) {
    case 15:
      return words(colours15());
    case 16:
      return words(colours16());
    case 24:
      return row24;
    case 32:
      return row32;
    default:
      return undefined;
  }
}
