const BLOCK = 128;
const DESCRIPTOR = 18;
/** Dots to an inch of a monitor that does not say how large it is. */
const DPI = 100;

/** What a monitor says of itself. Sizes in pixels. */
export interface Monitor {
  readonly width: number;
  readonly height: number;
  /** The largest modes that it lists; 0 for all. */
  readonly maxWidth?: number;
  readonly maxHeight?: number;
  /** Thousandths of a hertz; 0 for 75 Hz. */
  readonly refreshRate?: number;
  readonly name?: string;
}

/** A mode that a monitor may list, and where: bit of an established timing, of standard timings 3, code of CTA-861. */
interface ListedMode {
  readonly width: number;
  readonly height: number;
  readonly established?: readonly [byte: number, bit: number];
  readonly additional?: readonly [byte: number, bit: number];
  readonly cta?: number;
}

const MODES: readonly ListedMode[] = [
  { width: 5120, height: 2160, cta: 125 },
  { width: 4096, height: 2160, cta: 101 },
  { width: 3840, height: 2160, cta: 96 },
  { width: 2560, height: 1080, cta: 89 },
  { width: 2048, height: 1152 },
  { width: 1920, height: 1080, cta: 31 },
  { width: 3840, height: 2160, cta: 97 },
  { width: 1920, height: 1200, additional: [10, 0] },
  { width: 1600, height: 1200, additional: [9, 2] },
  { width: 1680, height: 1050, additional: [9, 5] },
  { width: 1440, height: 900, additional: [8, 5] },
  { width: 1280, height: 1024, additional: [7, 1] },
  { width: 1280, height: 960, additional: [7, 3] },
  { width: 1280, height: 768, additional: [7, 6] },
  { width: 1920, height: 1440, additional: [11, 5] },
  { width: 1856, height: 1392, additional: [10, 3] },
  { width: 1792, height: 1344, additional: [10, 5] },
  { width: 1440, height: 1050, additional: [8, 1] },
  { width: 1360, height: 768, additional: [8, 7] },
  { width: 1024, height: 768, established: [36, 3] },
  { width: 800, height: 600, established: [35, 0] },
  { width: 640, height: 480, established: [35, 5] },
];

/** Aspect ratios of standard timings by their codes (VESA E-EDID 1.4, section 3.9). */
const ASPECTS: readonly (readonly [number, number])[] = [
  [16, 10],
  [4, 3],
  [5, 4],
  [16, 9],
];

/**
 * An EDID 1.4 (VESA E-EDID) of two blocks, the second one the video data of CTA-861; with a third, DisplayID, where the mode
 * that the monitor prefers is too large for the first.
 */
export function edid(monitor: Monitor): Uint8Array {
  const timing = timingOf(monitor);
  const large = monitor.width >= 4096 || monitor.height >= 4096 || timing.clock >= 0x1_0000;
  const bytes = new Uint8Array(BLOCK * (large ? 3 : 2));
  const base = bytes.subarray(0, BLOCK);
  const cta = bytes.subarray(BLOCK, 2 * BLOCK);
  base.set([0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00]);
  base.set([0x49, 0x14, 0x34, 0x12], 8); // "RHT", product 1234h
  base.set([42, 2014 - 1990, 1, 4], 16); // week, year, version
  base.set([0xa5, Math.floor(timing.widthMm / 10), Math.floor(timing.heightMm / 10), 120, 0x06], 20);
  base.set([0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54], 25); // sRGB chromaticity
  base[126] = large ? 2 : 1;

  const additional = new Uint8Array(DESCRIPTOR);
  additional.set([0, 0, 0, 0xf7, 0, 10]);
  cta.set([0x02, 0x03, 0x05, 0x00, 0x40]);
  listModes(monitor, base, additional, cta);

  const descriptors = [
    ...(large ? [] : [detailedTiming(monitor, timing)]),
    additional,
    descriptor(0xfd, [50, 125, 30, 160, 255, 1, 0x0a, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20]),
    descriptor(0xfc, text(monitor.name ?? 'QEMU Monitor')),
  ];
  placeDescriptors(descriptors, base, cta);
  checksum(base);
  checksum(cta);
  if (large) displayId(monitor, timing, bytes.subarray(2 * BLOCK));
  return bytes;
}

interface Timing {
  readonly widthMm: number;
  readonly heightMm: number;
  readonly hFront: number;
  readonly hSync: number;
  readonly hBlank: number;
  readonly vFront: number;
  readonly vSync: number;
  readonly vBlank: number;
  /** In units of 10 kHz. */
  readonly clock: number;
}

/** Blanking of 35 % of the width and 3.5 % of the height. */
function timingOf({ width, height, refreshRate }: Monitor): Timing {
  const hBlank = Math.floor((width * 35) / 100);
  const vBlank = Math.floor((height * 35) / 1000);
  return {
    widthMm: Math.floor(Math.floor((width * 254) / 10) / DPI),
    heightMm: Math.floor(Math.floor((height * 254) / 10) / DPI),
    hFront: Math.floor((width * 25) / 100),
    hSync: Math.floor((width * 3) / 100),
    hBlank,
    vFront: Math.floor((height * 5) / 1000),
    vSync: Math.floor((height * 5) / 1000),
    vBlank,
    clock: Math.floor(((refreshRate || 75_000) * (width + hBlank) * (height + vBlank)) / 10_000_000),
  };
}

function listModes(monitor: Monitor, base: Uint8Array, additional: Uint8Array, cta: Uint8Array): void {
  let standard = 38;
  for (const { width, height, established, additional: third, cta: code } of MODES) {
    if ((monitor.maxWidth && width > monitor.maxWidth) || (monitor.maxHeight && height > monitor.maxHeight)) continue;
    if (established !== undefined) {
      base[established[0]] = (base[established[0]] ?? 0) | (1 << established[1]);
    } else if (standard < 54) {
      const aspect = ASPECTS.findIndex(([x, y]) => width * y === height * x);
      if (aspect >= 0 && width / 8 - 31 <= 255) {
        base.set([width / 8 - 31, aspect << 6], standard);
        standard += 2;
      }
    } else if (third !== undefined) {
      additional[third[0]] = (additional[third[0]] ?? 0) | (1 << third[1]);
    }
    if (code !== undefined) {
      const end = cta[2] ?? 0;
      cta[end] = code;
      cta[2] = end + 1;
      cta[4] = (cta[4] ?? 0) + 1;
    }
  }
  base.fill(0x01, standard, 54);
}

/** Four descriptors fit into the first block, the rest goes behind the video data; what stays free holds dummies. */
function placeDescriptors(descriptors: Uint8Array[], base: Uint8Array, cta: Uint8Array): void {
  const dummy = descriptor(0x10, []);
  const queue = [...descriptors];
  for (let at = 54; at + DESCRIPTOR < BLOCK; at += DESCRIPTOR) base.set(queue.shift() ?? dummy, at);
  for (let at = cta[2] ?? 0; at + DESCRIPTOR < BLOCK - 1; at += DESCRIPTOR) cta.set(queue.shift() ?? dummy, at);
}

function descriptor(tag: number, contents: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(DESCRIPTOR);
  bytes.set([0, 0, 0, tag, 0, ...contents.slice(0, 13)]);
  return bytes;
}

function text(value: string): number[] {
  return [...Buffer.from(value.slice(0, 12), 'latin1'), 0x0a, ...new Array<number>(12).fill(0x20)].slice(0, 13);
}

/** VESA E-EDID 1.4, section 3.10.2. */
function detailedTiming({ width, height }: Monitor, t: Timing): Uint8Array {
  const bytes = new Uint8Array(DESCRIPTOR);
  bytes.set([
    t.clock & 0xff,
    t.clock >> 8,
    width & 0xff,
    t.hBlank & 0xff,
    ((width & 0xf00) >> 4) | ((t.hBlank & 0xf00) >> 8),
    height & 0xff,
    t.vBlank & 0xff,
    ((height & 0xf00) >> 4) | ((t.vBlank & 0xf00) >> 8),
    t.hFront & 0xff,
    t.hSync & 0xff,
    ((t.vFront & 0x0f) << 4) | (t.vSync & 0x0f),
    ((t.hFront & 0x300) >> 2) | ((t.hSync & 0x300) >> 4) | ((t.vFront & 0x30) >> 2) | ((t.vSync & 0x30) >> 4),
    t.widthMm & 0xff,
    t.heightMm & 0xff,
    ((t.widthMm & 0xf00) >> 4) | ((t.heightMm & 0xf00) >> 8),
    0,
    0,
    0x18,
  ]);
  return bytes;
}

/** VESA DisplayID 1.3: one detailed timing of type I. */
function displayId({ width, height }: Monitor, t: Timing, block: Uint8Array): void {
  const view = new DataView(block.buffer, block.byteOffset, BLOCK);
  block.set([0x70, 0x13, 23, 0x03, 0, 0x03, 0x00, 0x14, t.clock & 0xff, (t.clock >> 8) & 0xff, t.clock >> 16, 0x88]);
  const values = [width, t.hBlank, t.hFront, t.hSync, height, t.vBlank, t.vFront, t.vSync];
  for (const [index, value] of values.entries()) view.setUint16(12 + 2 * index, value - 1, true);
  block[28] = -block.subarray(1, 28).reduce((sum, byte) => sum + byte, 0) & 0xff;
  checksum(block);
}

function checksum(block: Uint8Array): void {
  block[BLOCK - 1] = -block.subarray(0, BLOCK - 1).reduce((sum, byte) => sum + byte, 0) & 0xff;
}
