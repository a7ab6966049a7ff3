import { Parser } from 'binary-parser';
import { SouthbridgeError } from '../errors.ts';

const SIZES = { u8: 1, u16: 2, u32: 4, u64: 8 } as const;

type FieldType = keyof typeof SIZES;

/** The fields of a packed little-endian structure, in order. */
export type Fields = Readonly<Record<string, FieldType>>;

/** A parsed structure. 64-bit fields are numbers, exact up to 2^53; anything larger is out of every bound that is checked. */
export type Parsed<F extends Fields> = { readonly [Name in keyof F]: number };

/** A packed little-endian structure of an image file, compiled once into a parser. */
export class Structure<const F extends Fields> {
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  readonly #parser: Parser;

  constructor(name: string, fields: F) {
    const parser = new Parser().endianness('little');
    let size = 0;
    for (const [field, type] of Object.entries(fields)) {
      size += SIZES[type];
      if (type === 'u8') parser.uint8(field);
      else if (type === 'u16') parser.uint16(field);
      else if (type === 'u32') parser.uint32(field);
      else parser.uint64(field, { formatter: Number });
    }
    this.name = name;
    this.size = size;
    this.#parser = parser;
  }

  /**
   * Reads the structure at `offset` of `image`.
   *
   * @throws SouthbridgeError ERR_IMAGE_TRUNCATED where the image ends before the structure does
   */
  parse(image: Uint8Array, offset: number): Parsed<F> {
    return this.#parser.parse(slice(image, offset, this.size, this.name));
  }
}

/**
 * A view of `length` bytes at `offset`.
 *
 * @throws SouthbridgeError ERR_IMAGE_TRUNCATED where they are not all there
 */
export function slice(image: Uint8Array, offset: number, length: number, what: string): Uint8Array {
  if (
    !Number.isSafeInteger(offset) ||
    !Number.isSafeInteger(length) ||
    offset < 0 ||
    length < 0 ||
    offset + length > image.length
  ) {
    throw new SouthbridgeError(
      'ERR_IMAGE_TRUNCATED',
      `${what} of ${length} bytes at offset ${offset} is not within the image of ${image.length} bytes`,
      'the file is damaged or was not downloaded to its end',
    );
  }
  return image.subarray(offset, offset + length);
}

/** An unsigned little-endian number of 4 bytes, or undefined where the image ends before it. */
export function peek32(image: Uint8Array, offset: number): number | undefined {
  if (offset < 0 || offset + 4 > image.length) return undefined;
  return new DataView(image.buffer, image.byteOffset + offset, 4).getUint32(0, true);
}
