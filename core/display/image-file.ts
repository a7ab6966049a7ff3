import { crc32, deflateSync } from 'node:zlib';
import type { Surface } from './screen.ts';

/** Red, green and blue, a byte each, with `lead` zero bytes before each row. */
function rows({ width, height, pixels }: Surface, lead: number): Uint8Array {
  const bytes = new Uint8Array(height * (lead + width * 3));
  let at = 0;
  let from = 0;
  for (let y = 0; y < height; y++) {
    at += lead;
    for (let x = 0; x < width; x++) {
      const pixel = pixels[from++] ?? 0;
      bytes[at++] = pixel >>> 16;
      bytes[at++] = pixel >>> 8;
      bytes[at++] = pixel;
    }
  }
  return bytes;
}

/** A picture as a portable pixmap (Netpbm, "P6"). */
export function portablePixmap(surface: Surface): Uint8Array {
  return Buffer.concat([Buffer.from(`P6\n${surface.width} ${surface.height}\n255\n`, 'latin1'), rows(surface, 0)]);
}

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const BITS = 8;
const TRUE_COLOUR = 2;

/** A chunk: length, type, contents and their checksum (PNG specification, section 5.3). */
function chunk(type: string, contents: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(12 + contents.length);
  bytes.writeUInt32BE(contents.length, 0);
  bytes.write(type, 4, 'latin1');
  bytes.set(contents, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(4, 8 + contents.length)), 8 + contents.length);
  return bytes;
}

/** A picture as a PNG (ISO/IEC 15948) of 8 bits a component, its rows not filtered. */
export function portableNetworkGraphic(surface: Surface): Uint8Array {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(surface.width, 0);
  header.writeUInt32BE(surface.height, 4);
  header.set([BITS, TRUE_COLOUR, 0, 0, 0], 8);
  return Buffer.concat([
    SIGNATURE,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(rows(surface, 1))),
    chunk('IEND', new Uint8Array(0)),
  ]);
}
