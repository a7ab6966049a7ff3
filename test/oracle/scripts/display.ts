import { RegisterScript } from '../register-script.ts';
import { fixedTime } from './isa.ts';

const SLOT = { device: 2 } as const;
const FRAME_BUFFER = 0xe000_0000;
const REGISTERS = 0xe400_0000;
const SOURCE = FRAME_BUFFER + 0x100_0000;
const BLT = REGISTERS + 0x100;
const PITCH = 64;

function cirrusScript(name: string): RegisterScript {
  const s = new RegisterScript(name, [
    ...['-machine', 'pc', '-m', '128M', '-nodefaults', '-device', 'cirrus-vga,addr=2'],
    ...fixedTime,
  ]);
  s.pciWrite(SLOT, 0x10, FRAME_BUFFER).pciWrite(SLOT, 0x14, REGISTERS).pciWrite16(SLOT, 4, 3);
  return s.out8(0x3c2, 0x67).out8(0x3c4, 0x06).out8(0x3c5, 0x12).out8(0x3c4, 0x07).out8(0x3c5, 0x01);
}

/** All extended registers, with ones, zeros and a byte. The graphics controller's start bits stay alone. */
export function cirrusRegisters(): RegisterScript {
  const s = cirrusScript('cirrus-vga: registers');
  const bank = (name: string, port: number, count: number, skip: readonly number[]): void => {
    for (let index = 0; index < count; index++) {
      if (skip.includes(index)) continue;
      s.about(`${name} ${index.toString(16)}`).indexed8(port, index, port + 1);
      for (const value of [0xff, 0x00, 0xa5]) s.out8(port + 1, value).in8(port + 1);
    }
  };
  bank('sequencer', 0x3c4, 0x20, []);
  bank('graphics', 0x3ce, 0x40, [0x31]);
  bank('CRTC', 0x3d4, 0x30, []);
  s.about('hidden DAC').in8(0x3c8);
  for (let count = 0; count < 12; count++) s.in8(0x3c6);
  s.in8(0x3c8);
  for (let count = 0; count < 4; count++) s.in8(0x3c6);
  s.out8(0x3c6, 0xc5).in8(0x3c8);
  for (let count = 0; count < 6; count++) s.in8(0x3c6);
  s.about('mapped');
  for (let offset = 0; offset < 0x48; offset++) s.read8(BLT + offset);
  return s;
}

/** Blits of each kind, depth and operation, compared by what they leave in video memory. */
export function cirrusBlits(): RegisterScript {
  const s = cirrusScript('cirrus-vga: blits');
  const field = (at: number, bytes: number, value: number): void => {
    for (let byte = 0; byte < bytes; byte++) s.write8(BLT + at + byte, (value >>> (8 * byte)) & 0xff);
  };
  const kinds: readonly (readonly [string, number, number])[] = [
    ['copy', 0x00, 0],
    ['copy backwards', 0x01, 0],
    ['transparent copy', 0x08, 0],
    ['pattern', 0x40, 0],
    ['expand', 0x80, 0],
    ['transparent expand', 0x88, 0],
    ['inverted expand', 0x88, 2],
    ['expanded pattern', 0xc0, 0],
    ['transparent pattern', 0xc8, 0],
    ['fill', 0xc0, 4],
    ['expand from the CPU', 0x84, 0],
    ['copy from the CPU', 0x04, 0],
    ['pattern from the CPU', 0x44, 0],
  ];
  let seed = 1;
  const next = (): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return seed >>> 16;
  };
  for (const [index, [name, mode, extensions]] of kinds.entries()) {
    for (const depth of [0, 1, 2, 3]) {
      const bytes = depth + 1;
      const memory = Uint8Array.from({ length: 1024 }, next);
      const backwards = (mode & 1) !== 0;
      const width = 5 * bytes;
      s.about(`${name}, ${8 * bytes} bits`).writeBytes(FRAME_BUFFER, memory);
      field(0x00, 4, 0x1122_3344);
      field(0x04, 4, 0x5566_7788);
      field(0x08, 2, width - 1);
      field(0x0a, 2, 3);
      field(0x0c, 2, PITCH);
      field(0x0e, 2, PITCH);
      field(0x10, 3, backwards ? 512 + 3 * PITCH + width - 1 : 512);
      field(0x14, 3, backwards ? 3 * PITCH + width - 1 : 0);
      field(0x17, 1, (mode & 0x80) !== 0 && bytes !== 3 ? index & 3 : 0);
      field(0x18, 1, mode | (depth << 4));
      field(0x1a, 1, [0x0d, 0x59, 0x6d, 0xd0][depth] ?? 0x0d);
      field(0x1b, 1, extensions);
      field(0x1c, 2, (memory[1] ?? 0) * 0x101);
      s.write8(BLT + 0x40, 0x02).read8(BLT + 0x40);
      if ((mode & 0x04) !== 0) for (let at = 0; at < 256; at += 4) s.write32(SOURCE + at, next() * 0x1_0001);
      s.read8(BLT + 0x40)
        .write8(BLT + 0x40, 0x04)
        .write8(BLT + 0x40, 0)
        .readBytes(FRAME_BUFFER, 1024);
    }
  }
  return s;
}
