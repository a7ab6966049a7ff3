import type { ByteWriter } from '../byte-writer.ts';
import type { PixelBlock, PixelFormat } from '../pixel-format.ts';

/** Writes the contents of a rectangle for one client; what it keeps from one to the next is that client's. */
export interface RectangleEncoder {
  /** Its number in the rectangle's header. */
  readonly encoding: number;
  /** Rectangles are made no larger than this. */
  readonly maxWidth: number;
  readonly maxPixels: number;
  /** @param level of compression, 0 to 9 */
  encode(out: ByteWriter, block: PixelBlock, format: PixelFormat, level: number): void;
}
