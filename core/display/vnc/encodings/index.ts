import { ENCODING } from '../protocol.ts';
import type { RectangleEncoder } from './encoder.ts';
import { HextileEncoder } from './hextile.ts';
import { RawEncoder, ZlibEncoder } from './raw.ts';
import { TightEncoder } from './tight.ts';
import { ZrleEncoder } from './zrle.ts';

export type { RectangleEncoder } from './encoder.ts';

const ENCODERS: ReadonlyMap<number, new () => RectangleEncoder> = new Map<number, new () => RectangleEncoder>([
  [ENCODING.RAW, RawEncoder],
  [ENCODING.HEXTILE, HextileEncoder],
  [ENCODING.ZLIB, ZlibEncoder],
  [ENCODING.TIGHT, TightEncoder],
  [ENCODING.ZRLE, ZrleEncoder],
]);

export const isPixelEncoding = (encoding: number): boolean => ENCODERS.has(encoding);

/** An encoder for one client; undefined where the number is none of an encoding of pixels that this server has. */
export function newEncoder(encoding: number): RectangleEncoder | undefined {
  const type = ENCODERS.get(encoding);
  return type === undefined ? undefined : new type();
}
