const BLOCK = 128;

/** An EDID 1.4 block (VESA E-EDID) for a monitor that prefers `width` x `height` at 75 Hz. */
export function edidBlock(width: number, height: number): Uint8Array {
  const edid = new Uint8Array(BLOCK);
  edid.set([0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00]);
  edid.set([0x49, 0x14], 8); // "RHT"
  edid.set([0x34, 0x12], 10);
  edid.set([42, 2014 - 1990, 1, 4], 16); // week, year, version
  edid.set([0xa5, Math.round((width / 100) * 2.54), Math.round((height / 100) * 2.54), 0x78, 0x06], 20);
  edid.set([0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54], 25); // sRGB chromaticity
  edid.set([0x21, 0x08, 0x00], 35); // 640x480, 800x600, 1024x768 at 60 Hz
  edid.fill(0x01, 38, 54);
  detailedTiming(edid, 54, width, height);
  descriptor(edid, 72, 0xfd, [50, 125, 30, 160, 250, 0, 0x0a, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20]);
  descriptor(edid, 90, 0xfc, text('Southbridge'));
  descriptor(edid, 108, 0x10, []);
  edid[127] = -edid.subarray(0, 127).reduce((sum, byte) => sum + byte, 0) & 0xff;
  return edid;
}

function descriptor(edid: Uint8Array, at: number, tag: number, contents: readonly number[]): void {
  edid.set([0, 0, 0, tag, 0, ...contents.slice(0, 13)], at);
}

function text(value: string): number[] {
  return [...Buffer.from(value.slice(0, 12), 'latin1'), 0x0a, ...new Array(12).fill(0x20)].slice(0, 13);
}

/** VESA E-EDID, section 3.10.2: blanking of a quarter of the width and 3.5 % of the height. */
function detailedTiming(edid: Uint8Array, at: number, width: number, height: number): void {
  const hBlank = Math.floor((width * 35) / 100);
  const vBlank = Math.floor((height * 35) / 1000);
  const hFront = Math.floor((width * 25) / 100);
  const hSync = Math.floor((width * 3) / 100);
  const vFront = Math.max(1, Math.floor((height * 5) / 1000));
  const vSync = Math.max(1, Math.floor((height * 5) / 1000));
  const clock = Math.floor((75 * (width + hBlank) * (height + vBlank)) / 10_000);
  edid.set(
    [
      clock & 0xff,
      clock >> 8,
      width & 0xff,
      hBlank & 0xff,
      ((width >> 8) << 4) | (hBlank >> 8),
      height & 0xff,
      vBlank & 0xff,
      ((height >> 8) << 4) | (vBlank >> 8),
      hFront & 0xff,
      hSync & 0xff,
      ((vFront & 15) << 4) | (vSync & 15),
      ((hFront >> 8) << 6) | ((hSync >> 8) << 4) | ((vFront >> 4) << 2) | (vSync >> 4),
      0,
      0,
      0,
      0,
      0,
      0x18,
    ],
    at,
  );
}
