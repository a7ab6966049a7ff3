import { RegisterScript } from '../register-script.ts';

/** One moment for every battery-backed clock, in virtual time. */
export const fixedTime = ['-rtc', 'base=2024-02-29T12:34:56,clock=vm'];
const pc = ['-machine', 'pc', '-m', '128M', '-nodefaults', ...fixedTime];
const script = (name: string, args: readonly string[] = pc): RegisterScript => new RegisterScript(name, args);

export function cmos(): RegisterScript {
  const s = script('mc146818: every byte, and what is writable');
  for (let index = 0; index < 128; index++) s.about(`CMOS ${index.toString(16)}`).indexed8(0x70, index, 0x71);
  for (const index of [1, 3, 5, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x32, 0x40, 0x7f]) {
    for (const value of [0x00, 0xff, 0x55]) {
      s.about(`CMOS ${index.toString(16)} = ${value.toString(16)}`);
      s.out8(0x70, index).out8(0x71, value).indexed8(0x70, index, 0x71);
    }
  }
  return s.about('the index port itself').in8(0x70);
}

export function cmosFormats(): RegisterScript {
  const s = script('mc146818: BCD, binary, 12 and 24 hours');
  for (const format of [0x00, 0x02, 0x04, 0x06]) {
    s.about(`register B = ${format.toString(16)}`)
      .out8(0x70, 0x0b)
      .out8(0x71, format);
    for (const index of [0, 2, 4, 6, 7, 8, 9, 0x32]) s.indexed8(0x70, index, 0x71);
  }
  return s;
}

export function cmosClock(): RegisterScript {
  const s = script('mc146818: a day goes by');
  for (let step = 0; step < 8; step++) {
    s.about(`after ${step} steps`);
    for (const index of [0, 2, 4, 6, 7, 8, 9, 0x0a, 0x0c]) s.indexed8(0x70, index, 0x71);
    s.clockStep([1_000_000_000, 499_000_000, 700_000_000, 3_600_000_000_000][step & 3] ?? 0);
  }
  return s;
}

export function pit(): RegisterScript {
  const s = script('i8254: modes, latches, read-back');
  for (const channel of [0, 1, 2]) {
    const port = 0x40 + channel;
    for (const mode of [0, 1, 2, 3, 4, 5]) {
      s.about(`channel ${channel} mode ${mode}`);
      s.out8(0x43, (channel << 6) | 0x30 | (mode << 1)).out8(port, 0x34, 0x12);
      s.out8(0x43, 0xe0 | (2 << channel)).in8(port);
      s.out8(0x43, channel << 6)
        .in8(port)
        .in8(port);
      s.out8(0x43, 0xc0 | (2 << channel))
        .in8(port)
        .in8(port)
        .in8(port);
    }
    for (const access of [1, 2]) {
      s.about(`channel ${channel} access ${access}`);
      s.out8(0x43, (channel << 6) | (access << 4) | 4)
        .out8(port, 0x80)
        .in8(port)
        .in8(port);
    }
    s.about(`channel ${channel} BCD`)
      .out8(0x43, (channel << 6) | 0x35)
      .out8(port, 0x00, 0x10)
      .in8(port)
      .in8(port);
  }
  return s
    .about('the control port')
    .in8(0x43)
    .about('port 61')
    .in8(0x61)
    .out8(0x61, 0x0f)
    .in8(0x61)
    .out8(0x61, 0)
    .in8(0x61);
}

export function pitCounts(): RegisterScript {
  const s = script('i8254: counting');
  for (const mode of [0, 2, 3, 4]) {
    s.about(`mode ${mode}`)
      .out8(0x43, 0x30 | (mode << 1))
      .out8(0x40, 0x00, 0x10);
    for (const ns of [1000, 100_000, 3_000_000, 5_000_000]) {
      s.clockStep(ns).out8(0x43, 0xc2).in8(0x40).in8(0x40).in8(0x40);
    }
  }
  return s;
}

export function pic(): RegisterScript {
  const s = script('i8259: initialisation, masks, polls, ELCR');
  const init = (base: number, icw1: number, icw4: number, third: number): void => {
    s.out8(base, icw1).out8(base + 1, 0x20, third);
    if ((icw1 & 1) !== 0) s.out8(base + 1, icw4);
  };
  s.about('reset').in8(0x20).in8(0x21).in8(0xa0).in8(0xa1).in8(0x4d0).in8(0x4d1);
  init(0x20, 0x11, 0x01, 0x04);
  init(0xa0, 0x11, 0x01, 0x02);
  s.about('after ICW1-4').in8(0x20).in8(0x21).in8(0xa0).in8(0xa1);
  s.about('OCW1').out8(0x21, 0xa5).in8(0x21).out8(0xa1, 0x5a).in8(0xa1);
  for (const ocw3 of [0x0a, 0x0b, 0x08, 0x48, 0x68, 0x0c]) {
    s.about(`OCW3 ${ocw3.toString(16)}`)
      .out8(0x20, ocw3)
      .in8(0x20)
      .in8(0x21)
      .out8(0xa0, ocw3)
      .in8(0xa0);
  }
  for (const ocw2 of [0x20, 0x60, 0x80, 0xa0, 0xc3, 0xe5, 0x00]) {
    s.about(`OCW2 ${ocw2.toString(16)}`)
      .out8(0x20, ocw2)
      .in8(0x20)
      .in8(0x21);
  }
  s.about('ELCR masks').out8(0x4d0, 0xff).in8(0x4d0).out8(0x4d1, 0xff).in8(0x4d1).out8(0x4d0, 0).out8(0x4d1, 0);
  s.about('IRQ 0 through the PIT').out8(0x21, 0xff).out8(0x43, 0x30).out8(0x40, 1, 0).out8(0x20, 0x0a).in8(0x20);
  s.about('ICW1 without ICW4');
  init(0x20, 0x12, 0, 0);
  return s.in8(0x20).in8(0x21);
}

export function dma8237(): RegisterScript {
  const s = script('i8257: addresses, counts, flip-flop, mask, status, pages');
  for (const [base, shift] of [
    [0x00, 0],
    [0xc0, 1],
  ] as const) {
    const at = (register: number): number => base + (register << shift);
    s.about(`controller at ${base.toString(16)}`)
      .out8(at(0x0d), 0)
      .in8(at(8))
      .in8(at(0x0d))
      .in8(at(0x0f));
    for (let register = 0; register < 8; register++) {
      s.out8(at(0x0c), 0).out8(at(register), 0x34, 0x12);
      s.out8(at(0x0c), 0).in8(at(register)).in8(at(register)).in8(at(register));
    }
    s.out8(at(0x0b), 0x45).out8(at(0x0a), 0x05).in8(at(0x0f)).out8(at(0x0f), 0x0f).in8(at(0x0f)).out8(at(0x0e), 0);
    s.in8(at(0x0f))
      .out8(at(9), 0x04)
      .in8(at(8))
      .out8(at(9), 0x00)
      .in8(at(8))
      .out8(at(8), 0x04)
      .in8(at(8))
      .out8(at(0x0d), 0);
  }
  for (let port = 0x81; port <= 0x8f; port++) {
    s.about(`page ${port.toString(16)}`)
      .in8(port)
      .out8(port, port)
      .in8(port);
  }
  for (const port of [0x481, 0x482, 0x483, 0x487, 0x489, 0x48a, 0x48b])
    s.about('high page')
      .out8(port, port & 0xff)
      .in8(port);
  return s;
}

export function keyboardController(): RegisterScript {
  const s = script('i8042: controller commands and both devices');
  const controller = (command: number, ...bytes: readonly number[]): void => {
    s.about(`i8042 command ${command.toString(16)}`).out8(0x64, command);
    for (const byte of bytes) s.out8(0x60, byte);
    s.in8(0x64).in8(0x60).in8(0x64).in8(0x60).in8(0x64);
  };
  s.about('reset').in8(0x64).in8(0x60);
  controller(0x20);
  controller(0xaa);
  controller(0xab);
  controller(0xa9);
  controller(0xc0);
  controller(0xd0);
  controller(0x60, 0x47);
  controller(0x20);
  controller(0xa7);
  controller(0x20);
  controller(0xa8);
  controller(0xad);
  controller(0xae);
  controller(0xd2, 0x1c);
  controller(0xd3, 0x55);
  controller(0xd1, 0xdf);
  controller(0xe0);
  // F0h would reset the machine, some time later.
  controller(0xf1);
  controller(0x99);
  const device = (name: string, prefix: number | undefined, commands: readonly (readonly number[])[]): void => {
    for (const bytes of commands) {
      s.about(`${name} ${bytes.map(byte => byte.toString(16)).join(' ')}`);
      for (const byte of bytes) {
        if (prefix !== undefined) s.out8(0x64, prefix);
        s.out8(0x60, byte);
      }
      for (let reads = 0; reads < 6; reads++) s.in8(0x64).in8(0x60);
    }
  };
  // Left out where QEMU does less than a device: FEh (send again) to a keyboard, unknown commands (answered FEh) to a mouse.
  device('keyboard', undefined, [
    [0xff],
    [0xf2],
    [0xf5],
    [0xf4],
    [0xed, 0x07],
    [0xee],
    [0xf0, 0x00],
    [0xf3, 0x20],
    [0xf6],
  ]);
  device('mouse', 0xd4, [
    [0xff],
    [0xf2],
    [0xf5],
    [0xf4],
    [0xe8, 3],
    [0xf3, 0x20],
    [0xe9],
    [0xeb],
    [0xf0],
    [0xea],
    [0xf6],
  ]);
  return s;
}

export function uart(): RegisterScript {
  const s = script('16550A: banks, FIFO, loopback', [
    ...pc,
    '-device',
    'isa-serial,chardev=s',
    '-chardev',
    'null,id=s',
  ]);
  const base = 0x3f8;
  const all = (): void => {
    for (let register = 0; register < 8; register++) s.in8(base + register);
  };
  s.about('reset');
  all();
  s.about('scratch')
    .out8(base + 7, 0xa5)
    .in8(base + 7);
  s.about('divisor')
    .out8(base + 3, 0x83)
    .out8(base, 0x01)
    .out8(base + 1, 0x00);
  all();
  s.out8(base + 3, 0x03);
  for (const fcr of [0x00, 0x01, 0x07, 0xc1, 0x81, 0x00])
    s.about(`FCR ${fcr.toString(16)}`)
      .out8(base + 2, fcr)
      .in8(base + 2);
  for (const ier of [0x00, 0x01, 0x02, 0x0f, 0xff]) {
    s.about(`IER ${ier.toString(16)}`)
      .out8(base + 1, ier)
      .in8(base + 1)
      .in8(base + 2)
      .in8(base + 2);
  }
  for (const mcr of [0x10, 0x11, 0x12, 0x14, 0x18, 0x1f, 0x00, 0xff]) {
    s.about(`MCR ${mcr.toString(16)}`)
      .out8(base + 4, mcr)
      .in8(base + 4)
      .in8(base + 6)
      .in8(base + 6);
  }
  s.about('loopback data')
    .out8(base + 4, 0x10)
    .out8(base, 0x42)
    .in8(base + 5)
    .in8(base)
    .in8(base + 5)
    .in8(base + 2);
  return s.about('no such port').in8(0x2f8).in8(0x3e8);
}

export function parallelAndFloppy(): RegisterScript {
  const s = script('parallel port and floppy controller', [
    '-machine',
    'pc',
    '-m',
    '128M',
    '-net',
    'none',
    '-parallel',
    'null',
    '-vga',
    'none',
    ...fixedTime,
  ]);
  for (let port = 0x378; port < 0x380; port++) s.about('parallel').in8(port).out8(port, 0x5a).in8(port);
  for (let port = 0x3f0; port < 0x3f8; port++) if (port !== 0x3f6) s.about('floppy at reset').in8(port);
  const command = (name: string, bytes: readonly number[], results: number): void => {
    s.about(`FDC ${name}`);
    for (const byte of bytes) s.in8(0x3f4).out8(0x3f5, byte);
    for (let result = 0; result < results; result++) s.in8(0x3f4).in8(0x3f5);
    s.in8(0x3f4);
  };
  s.about('DOR').out8(0x3f2, 0x00).in8(0x3f2).out8(0x3f2, 0x0c).in8(0x3f2).in8(0x3f4);
  for (let drive = 0; drive < 4; drive++) command('sense interrupt', [0x08], 2);
  command('sense interrupt again', [0x08], 1);
  command('version', [0x10], 1);
  command('part id', [0x18], 1);
  command('specify', [0x03, 0xaf, 0x02], 0);
  command('dumpreg', [0x0e], 10);
  command('configure', [0x13, 0x00, 0x57, 0x00], 0);
  command('lock', [0x94], 1);
  command('perpendicular', [0x12, 0x03], 0);
  command('save', [0x2e], 15);
  command('drive status', [0x04, 0x00], 1);
  command('recalibrate', [0x07, 0x00], 0);
  command('invalid', [0x1f], 1);
  return s;
}

export function vga(): RegisterScript {
  const s = script('VGA: sequencer, CRTC, graphics, attributes, palette, Bochs VBE', [
    '-machine',
    'pc',
    '-m',
    '128M',
    '-net',
    'none',
    '-vga',
    'std',
    ...fixedTime,
  ]);
  s.about('miscellaneous').in8(0x3cc).in8(0x3c2).out8(0x3c2, 0x67).in8(0x3cc).in8(0x3ca);
  const bank = (name: string, index: number, count: number): void => {
    for (let register = 0; register < count; register++) {
      s.about(`${name} ${register.toString(16)}`).indexed8(index, register, index + 1);
      s.out8(index + 1, 0xff)
        .in8(index + 1)
        .out8(index + 1, 0x00)
        .in8(index + 1);
    }
    s.in8(index);
  };
  bank('sequencer', 0x3c4, 8);
  bank('graphics', 0x3ce, 9);
  bank('CRTC', 0x3d4, 0x19);
  for (let register = 0; register < 0x15; register++) {
    s.about(`attribute ${register.toString(16)}`)
      .in8(0x3da, 0)
      .out8(0x3c0, register)
      .in8(0x3c1)
      .out8(0x3c0, 0xff)
      .out8(0x3c0, register);
    s.in8(0x3c1).in8(0x3c0);
  }
  s.about('palette')
    .out8(0x3c8, 1, ...[])
    .out8(0x3c9, 0x3f, 0x15, 0xff)
    .in8(0x3c8)
    .in8(0x3c7)
    .out8(0x3c7, 1);
  s.in8(0x3c9).in8(0x3c9).in8(0x3c9).in8(0x3c7).out8(0x3c6, 0x5a).in8(0x3c6);
  for (let register = 0; register <= 0x0c; register++) {
    s.about(`VBE ${register}`).out16(0x1ce, register).in16(0x1ce).in16(0x1cf).in16(0x1d0);
  }
  s.about('VBE mode')
    .out16(0x1ce, 1)
    .out16(0x1d0, 1024)
    .out16(0x1ce, 2)
    .out16(0x1d0, 768)
    .out16(0x1ce, 3)
    .out16(0x1d0, 32);
  s.out16(0x1ce, 4).out16(0x1d0, 0x41);
  for (let register = 0; register <= 0x0a; register++) s.out16(0x1ce, register).in16(0x1d0);
  s.about('VBE capabilities').out16(0x1ce, 4).out16(0x1d0, 0x02);
  for (let register = 1; register <= 3; register++) s.out16(0x1ce, register).in16(0x1d0);
  return s;
}

export function vgaMemory(): RegisterScript {
  const s = script('VGA: planar memory, write modes, chain 4', [
    '-machine',
    'pc',
    '-m',
    '128M',
    '-net',
    'none',
    '-vga',
    'std',
    ...fixedTime,
  ]);
  const set = (index: number, register: number, value: number): RegisterScript =>
    s.out8(index, register).out8(index + 1, value);
  set(0x3c4, 4, 0x06);
  set(0x3ce, 6, 0x05);
  for (let plane = 0; plane < 4; plane++) {
    s.about(`plane ${plane}`);
    set(0x3c4, 2, 1 << plane);
    s.write8(0xa0000, 0x11 << plane).write8(0xa0001, 0x80 | plane);
  }
  for (let plane = 0; plane < 4; plane++) {
    set(0x3ce, 4, plane);
    s.about(`read plane ${plane}`).read8(0xa0000).read8(0xa0001);
  }
  set(0x3c4, 2, 0x0f);
  for (const mode of [0, 1, 2, 3]) {
    for (const rotate of [0x00, 0x03, 0x08, 0x10, 0x18]) {
      s.about(`write mode ${mode}, function ${rotate.toString(16)}`);
      set(0x3ce, 5, mode);
      set(0x3ce, 3, rotate);
      set(0x3ce, 0, 0x05);
      set(0x3ce, 1, 0x03);
      set(0x3ce, 8, 0xf0);
      s.read8(0xa0001).write8(0xa0002, 0x6c);
      for (let plane = 0; plane < 4; plane++) {
        set(0x3ce, 4, plane);
        s.read8(0xa0002);
      }
    }
  }
  set(0x3ce, 5, 0x08);
  set(0x3ce, 2, 0x05);
  set(0x3ce, 7, 0x0f);
  s.about('read mode 1').read8(0xa0000).read8(0xa0002);
  for (const map of [0x01, 0x05, 0x09, 0x0d]) {
    set(0x3ce, 6, map);
    s.about(`memory map ${map.toString(16)}`);
    for (const address of [0xa0000, 0xa8000, 0xb0000, 0xb8000, 0xbfff0]) s.read8(address);
  }
  set(0x3ce, 6, 0x05);
  set(0x3ce, 5, 0x00);
  set(0x3c4, 4, 0x0e);
  return s.about('chain 4').write32(0xa0010, 0x44332211).read32(0xa0010).read16(0xa0012).read8(0xa0013);
}

export function appleSmc(): RegisterScript {
  const osk = 'any64characterfakeoskisenoughtopreventinvalidkeywarningsonstderr';
  const s = script('isa-applesmc: keys that there are and are not, and commands out of turn', [
    ...pc,
    '-device',
    `isa-applesmc,osk=${osk}`,
  ]);
  const [data, command, error] = [0x300, 0x304, 0x31e];
  const state = (): RegisterScript => s.in8(command).in8(error);
  s.about('before any command').in8(data);
  state();
  s.about('data without a command').out8(data, 0x52);
  state();
  s.about('a command that there is not').out8(command, 0x11);
  state();
  for (const key of ['REV ', 'OSK0', 'OSK1', 'NATJ', 'MSSP', 'MSSD', '#KEY', 'rev ']) {
    s.about(`read ${key}`).out8(command, 0x10);
    state();
    for (const character of Buffer.from(key)) {
      s.out8(data, character);
      state();
    }
    s.in8(data).out8(data, 32);
    state();
    for (let byte = 0; byte < 34; byte++) s.in8(data).in8(command);
    s.out8(data, 1).in8(data);
    state();
  }
  s.about('a command within another').out8(command, 0x10).out8(data, 0x52).out8(command, 0x10);
  state();
  s.about('ports that are not the controller’s').out8(error, 0).in8(error);
  for (let port = 1; port < 0x20; port++) if (port !== 4 && port !== 0x1e) s.in8(data + port);
  return s.about('a wide read').in16(data).in16(command);
}
