/** U-Boot's legacy image format (U-Boot, include/image.h): a header, big-endian, and what it describes. */
import { gunzipSync } from 'node:zlib';
import { type Segment, segment } from './image.ts';

const HEADER_SIZE = 64;
const IH_MAGIC = 0x2705_1956;
const IH_TYPE_KERNEL = 2;
const IH_COMP_NONE = 0;
const IH_COMP_GZIP = 1;
/** What a compressed image may become, in bytes. */
const MAX_UNCOMPRESSED = 64 * 2 ** 20;

export interface UImage {
  readonly segments: readonly Segment[];
  readonly entry: number;
}

/** Reads a kernel that says itself where it wants to be; undefined where the file is none, or is packed in a way unknown here. */
export function parseUImage(image: Uint8Array): UImage | undefined {
  if (image.length < HEADER_SIZE) return undefined;
  const view = new DataView(image.buffer, image.byteOffset, image.length);
  if (view.getUint32(0) !== IH_MAGIC || view.getUint8(30) !== IH_TYPE_KERNEL) return undefined;
  const size = view.getUint32(12);
  if (HEADER_SIZE + size > image.length) return undefined;
  const bytes = unpacked(image.subarray(HEADER_SIZE, HEADER_SIZE + size), view.getUint8(31));
  if (bytes === undefined) return undefined;
  return { segments: [segment(view.getUint32(16), bytes)], entry: view.getUint32(20) };
}

function unpacked(bytes: Uint8Array, compression: number): Uint8Array | undefined {
  if (compression === IH_COMP_NONE) return bytes;
  if (compression !== IH_COMP_GZIP) return undefined;
  try {
    return gunzipSync(bytes, { maxOutputLength: MAX_UNCOMPRESSED });
  } catch {
    return undefined;
  }
}
