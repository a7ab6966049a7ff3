import t from 'tap';
import { blankSurface } from '../../core/display/screen.ts';
import { type Bench, bench } from '../../core/testing/bench.ts';
import { cirrusVga } from '../../devices/cirrus/cirrus-vga.ts';

const MIB = 2 ** 20;
/** Registers of the blitter behind offset 100h of the register BAR. */
const BLT = {
  BACKGROUND: 0x100,
  FOREGROUND: 0x104,
  WIDTH: 0x108,
  HEIGHT: 0x10a,
  DEST_PITCH: 0x10c,
  SOURCE_PITCH: 0x10e,
  DEST: 0x110,
  SOURCE: 0x114,
  MODE: 0x118,
  ROP: 0x11a,
  EXTENSIONS: 0x11b,
  TRANSPARENT: 0x11c,
  STATUS: 0x140,
} as const;
const ROP = { COPY: 0x0d, XOR: 0x59 } as const;
const MODE = { FROM_SYSTEM: 0x04, TRANSPARENT: 0x08, PATTERN: 0x40, EXPAND: 0x80 } as const;

/** The card as a driver has it: packed pixels of 8 bits, 640 by 480. */
function card(lab: Bench) {
  const probe = lab.pci(cirrusVga);
  const [frameBuffer, registers] = [0, 1].map(index => {
    const at = probe.device.bars[index]?.address ?? -1;
    return {
      read8: (offset: number) => lab.machine.memory.read(at + offset, 1),
      write: (offset: number, size: number, value: number) => lab.machine.memory.write(at + offset, size, value),
    };
  });
  if (frameBuffer === undefined || registers === undefined) throw new Error('no BARs');
  const port = (at: number, value: number): void => lab.machine.ports.write(at, 1, value);
  const indexed = (at: number, index: number, value: number): void => {
    port(at, index);
    port(at + 1, value);
  };
  port(0x3c2, 0x01); // ports at 3Dxh
  indexed(0x3c4, 0x06, 0x12);
  indexed(0x3c4, 0x07, 0x01);
  return {
    probe,
    frameBuffer,
    registers,
    port,
    indexed,
    /** A blit of `width` bytes by `height` rows, of rows of 640 bytes. */
    blit: (parts: Partial<Record<keyof typeof BLT, number>>): void => {
      const words = ['WIDTH', 'HEIGHT', 'DEST_PITCH', 'SOURCE_PITCH'];
      for (const [name, value] of Object.entries({ DEST_PITCH: 640, SOURCE_PITCH: 640, EXTENSIONS: 0, ...parts })) {
        const at = BLT[name as keyof typeof BLT];
        const count = words.includes(name) || name === 'TRANSPARENT' ? 2 : /DEST$|SOURCE$|GROUND$/.test(name) ? 3 : 1;
        for (let byte = 0; byte < count; byte++) registers.write(at + byte, 1, (value >>> (8 * byte)) & 0xff);
      }
      registers.write(BLT.STATUS, 1, 0x02);
    },
    row: (at: number, length: number): number[] => Array.from({ length }, (_, index) => frameBuffer.read8(at + index)),
  };
}

t.test('identity, and registers that are locked, shared and hidden', async t => {
  const lab = bench();
  const { probe, port, indexed } = card(lab);
  const read = (at: number, index: number): number => {
    port(at, index);
    return lab.machine.ports.read(at + 1, 1);
  };
  t.equal(probe.readConfig(0, 4), 0x00b8_1013);
  t.equal(read(0x3d4, 0x27), 0xb8, 'part');
  t.equal(read(0x3c4, 0x06), 0x12, 'unlocked');
  indexed(0x3c4, 0x06, 0);
  t.equal(read(0x3c4, 0x06), 0x0f, 'locked');
  t.equal(read(0x3c4, 0x15), 4, '4 MiB');
  indexed(0x3ce, 0x00, 0xab);
  t.equal(read(0x3ce, 0x00), 0xab, 'a colour of eight bits');
  lab.machine.ports.read(0x3c8, 1);
  for (let count = 0; count < 4; count++) t.equal(lab.machine.ports.read(0x3c6, 1), 0xff);
  port(0x3c6, 0x01);
  port(0x3c8, 0);
  lab.machine.ports.read(0x3c8, 1);
  for (let count = 0; count < 4; count++) lab.machine.ports.read(0x3c6, 1);
  t.equal(lab.machine.ports.read(0x3c6, 1), 0x01, 'the hidden DAC register');
});

t.test('blits: fill, copy either way, patterns and expansion', async t => {
  const lab = bench();
  const { blit, row, frameBuffer, registers } = card(lab);
  blit({
    FOREGROUND: 0x5a,
    WIDTH: 7,
    HEIGHT: 1,
    DEST: 1000,
    MODE: MODE.PATTERN | MODE.EXPAND,
    ROP: ROP.COPY,
    EXTENSIONS: 4,
  });
  t.same(row(999, 10), [0, ...new Array(8).fill(0x5a), 0], 'solid');
  t.same(row(1640, 2), [0x5a, 0x5a], 'the second row');
  t.equal(registers.read8(BLT.STATUS) & 1, 0, 'no longer busy');

  for (let x = 0; x < 8; x++) frameBuffer.write(2000 + x, 1, x);
  blit({ WIDTH: 5, HEIGHT: 0, SOURCE: 2000, DEST: 3000, MODE: 0, ROP: ROP.COPY });
  t.same(row(3000, 7), [0, 1, 2, 3, 4, 5, 0]);
  blit({ WIDTH: 5, HEIGHT: 0, SOURCE: 2005, DEST: 2007, MODE: 1, ROP: ROP.COPY });
  t.same(row(2000, 8), [0, 1, 0, 1, 2, 3, 4, 5], 'backwards, over itself');
  blit({ WIDTH: 3, HEIGHT: 0, SOURCE: 3001, DEST: 3001, MODE: 0, ROP: ROP.XOR });
  t.same(row(3000, 6), [0, 0, 0, 0, 0, 5], 'exclusive or');

  frameBuffer.write(0x8000, 1, 0b1010_0000);
  blit({
    FOREGROUND: 9,
    BACKGROUND: 3,
    WIDTH: 3,
    HEIGHT: 0,
    SOURCE: 0x8000,
    DEST: 4000,
    MODE: MODE.EXPAND,
    ROP: ROP.COPY,
  });
  t.same(row(4000, 5), [9, 3, 9, 3, 0], 'bits to colours');
  const transparent = MODE.EXPAND | MODE.TRANSPARENT;
  blit({ FOREGROUND: 7, WIDTH: 3, HEIGHT: 0, SOURCE: 0x8000, DEST: 4000, MODE: transparent, ROP: ROP.COPY });
  t.same(row(4000, 4), [7, 3, 7, 3], 'zeros are seen through');
});

t.test('a blit whose source comes from the CPU, through any of the apertures', async t => {
  const lab = bench();
  const { blit, row, frameBuffer } = card(lab);
  const start = (dest: number): void =>
    blit({ WIDTH: 3, HEIGHT: 1, DEST: dest, MODE: MODE.FROM_SYSTEM, ROP: ROP.COPY });
  start(5000);
  for (const [at, byte] of [1, 2, 3, 4, 5, 6, 7, 8].entries()) frameBuffer.write(16 * MIB + at, 1, byte);
  t.same(
    [row(5000, 4), row(5640, 4)],
    [
      [1, 2, 3, 4],
      [5, 6, 7, 8],
    ],
  );
  start(6000);
  for (let at = 0; at < 8; at += 4) frameBuffer.write(at, 4, 0x0403_0201);
  t.same(row(6640, 4), [1, 2, 3, 4]);
  start(7000);
  for (let at = 0; at < 8; at++) lab.machine.memory.write(0xa_0000 + at, 1, 0x40 + at);
  t.same(row(7000, 4), [0x40, 0x41, 0x42, 0x43]);
  t.same(row(0, 4), [0, 0, 0, 0], 'none of it has gone to memory itself');
});

t.test('hostile blits touch nothing beyond video memory, and end', async t => {
  const lab = bench();
  const { blit, registers } = card(lab);
  for (const mode of [
    0,
    1,
    MODE.FROM_SYSTEM,
    MODE.PATTERN,
    MODE.EXPAND,
    MODE.PATTERN | MODE.EXPAND,
    0x06,
    0x30,
    0x38,
  ]) {
    for (const pitch of [0, 1, 0x1fff]) {
      blit({
        WIDTH: 0x1fff,
        HEIGHT: 0x7ff,
        DEST: 4 * MIB - 1,
        SOURCE: 4 * MIB - 1,
        DEST_PITCH: pitch,
        SOURCE_PITCH: pitch,
        MODE: mode,
        ROP: 0,
      });
      registers.write(BLT.STATUS, 1, 0x04);
      registers.write(BLT.STATUS, 1, 0x00);
      t.equal(registers.read8(BLT.STATUS) & 1, 0, `mode ${mode}, pitch ${pitch}`);
    }
  }
});

t.test('banks, and the cursor in the picture', async t => {
  const lab = bench();
  const { indexed, port, probe, frameBuffer } = card(lab);
  indexed(0x3ce, 0x0b, 0x20);
  indexed(0x3ce, 0x09, 3);
  lab.machine.memory.write(0xa_0010, 1, 0x77);
  t.equal(frameBuffer.read8(3 * 0x4000 + 0x10), 0x77, 'bank 3 of 16 KiB');
  // 64 by 48 pixels of 8 bits.
  for (const [index, value] of [
    [1, 7],
    [0x12, 47],
    [7, 0],
    [0x13, 8],
    [0x17, 3],
    [0x18, 0xff],
  ] as const)
    indexed(0x3d4, index, value);
  lab.machine.ports.read(0x3da, 1);
  port(0x3c0, 0x20);
  indexed(0x3ce, 0x06, 0x05);
  port(0x3c8, 1);
  for (const part of [63, 0, 0]) port(0x3c9, part);
  frameBuffer.write(2, 1, 1);
  const plain = probe.device.draw(blankSurface(1, 1));
  t.same([plain.width, plain.height, plain.pixels[2]], [64, 48, 0xff0000]);
  // The small cursor's first row: inverted, then the second colour of the hidden palette.
  indexed(0x3c4, 0x12, 0x02);
  port(0x3c8, 15);
  for (const part of [0, 63, 0]) port(0x3c9, part);
  const pattern = 4 * MIB - 0x4000;
  frameBuffer.write(pattern, 1, 0b1100_0000);
  frameBuffer.write(pattern + 128, 1, 0b0100_0000);
  indexed(0x3c4, 0x12, 0x01);
  indexed(0x3c4, 0x10, 0);
  indexed(0x3c4, 0x11, 0);
  const shown = probe.device.draw(blankSurface(1, 1));
  t.same([...shown.pixels.subarray(0, 3)], [0xffffff, 0x00ff00, 0xff0000]);
});
