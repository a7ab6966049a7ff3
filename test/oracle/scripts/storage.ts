import { type PciPlace, RegisterScript } from '../register-script.ts';
import { fixedTime } from './isa.ts';

const disk = ['-drive', 'if=none,id=disk,driver=null-co,read-zeroes=on,size=64M'];

export function ide(): RegisterScript {
  const s = new RegisterScript('ATA and ATAPI: signatures, IDENTIFY, errors', [
    ...['-machine', 'pc', '-m', '128M', '-nodefaults', ...disk],
    ...['-device', 'ide-hd,drive=disk,bus=ide.0,unit=0,serial=SN1,model=TESTDISK,ver=1.0,wwn=1'],
    ...['-device', 'ide-cd,bus=ide.1,unit=0,serial=SN2,model=TESTCD,ver=1.0', ...fixedTime],
  ]);
  for (const [name, base] of [
    ['primary', 0x1f0],
    ['secondary', 0x170],
  ] as const) {
    const registers = (): void => {
      for (let register = 1; register < 8; register++) s.in8(base + register);
      s.in8(base + 0x206);
    };
    for (const device of [0xa0, 0xb0]) {
      s.about(`${name} ${device.toString(16)} at reset`).out8(base + 6, device);
      registers();
    }
    s.out8(base + 6, 0xa0);
    for (const command of [0xec, 0xa1]) {
      s.about(`${name} command ${command.toString(16)}`).out8(base + 7, command);
      registers();
      for (let word = 0; word < 256; word++) s.in16(base);
      registers();
    }
    // Flushes (EF 82h, E7h, EAh) and a software reset end some time later in QEMU, which a script cannot wait for.
    for (const [command, feature, count] of [
      [0x91, 0, 63],
      [0xef, 0x03, 0x45],
      [0xef, 0x99, 0],
      [0xc6, 0, 16],
      [0x10, 0, 0],
      [0x70, 0, 0],
      [0xf8, 0, 0],
      [0x27, 0, 0],
      [0xe5, 0, 0],
      [0x90, 0, 0],
      [0x08, 0, 0],
      [0xff, 0, 0],
      [0x20, 0, 1],
    ] as const) {
      s.about(`${name} command ${command.toString(16)} ${feature.toString(16)}`);
      s.out8(base + 1, feature)
        .out8(base + 2, count)
        .out8(base + 3, 0xff, 1)
        .out8(base + 4, 0)
        .out8(base + 5, 0)
        .out8(base + 6, 0xe0);
      s.out8(base + 7, command).in8(base + 0x206, command === 0x20 ? 0 : 0xff);
    }
  }
  return s;
}

export function ahci(): RegisterScript {
  const s = new RegisterScript('AHCI: HBA and port registers', [
    ...[
      '-machine',
      'q35',
      '-m',
      '128M',
      '-nodefaults',
      ...disk,
      '-device',
      'ide-hd,drive=disk,bus=ide.0,serial=SN1',
      ...fixedTime,
    ],
  ]);
  const function2: PciPlace = { device: 31, fn: 2 };
  const base = 0xc000_0000;
  s.pciWrite(function2, 0x24, base).pciWrite16(function2, 0x04, 0x07);
  const dump = (name: string): void => {
    s.about(name);
    for (let register = 0; register < 0x100; register += 4) s.read32(base + register);
    for (let port = 0; port < 2; port++) {
      for (let register = 0; register < 0x80; register += 4) s.read32(base + 0x100 + port * 0x80 + register);
    }
  };
  dump('reset');
  s.write32(base + 4, 0x8000_0000);
  dump('GHC.AE');
  for (const register of [0x00, 0x04, 0x08, 0x0c, 0x10, 0x24, 0x28]) {
    s.about(`HBA ${register.toString(16)} ones`)
      .write32(base + register, 0xffff_fffe)
      .read32(base + register);
  }
  for (const register of [0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x24, 0x2c, 0x30, 0x34, 0x38, 0x3c]) {
    s.about(`port ${register.toString(16)}`)
      .write32(base + 0x100 + register, 0x1111_1110)
      .read32(base + 0x100 + register);
    s.write32(base + 0x100 + register, 0).read32(base + 0x100 + register);
  }
  s.about('HBA reset').write32(base + 4, 1);
  dump('after reset');
  return s;
}

export function pflash(): RegisterScript {
  const nothing = 'driver=null-co,read-zeroes=on';
  const s = new RegisterScript('CFI flash: identification, programming, erasing, errors', [
    ...['-machine', 'pc', '-m', '128M', '-nodefaults', ...fixedTime],
    ...['-drive', `if=pflash,unit=0,${nothing},size=256k`],
    ...['-drive', `if=pflash,unit=1,readonly=on,${nothing},size=128k`],
  ]);
  const writable = 0xfffc_0000;
  const readOnly = 0xfffa_0000;
  for (const base of [writable, readOnly]) {
    const name = base === writable ? 'writable' : 'read-only';
    const look = (at: number): void => {
      s.read8(at)
        .read16(at - (at % 2))
        .read32(at - (at % 4));
    };
    s.about(`${name}: CFI query`).write8(base + 0x55, 0x98);
    for (let at = 0; at < 0x60; at++) s.read8(base + at);
    look(base + 0x10);
    s.read32(base + 0x110).write8(base, 0x12);
    look(base);
    s.write8(base, 0xff);
    look(base);
    s.about(`${name}: identifier`).write8(base, 0x90);
    for (const at of [0, 1, 2, 4, 0x100]) look(base + at);
    s.write8(base, 0x70);
    look(base);
    s.write8(base, 0xff);
    for (const command of [0x10, 0x40]) {
      s.about(`${name}: program ${command.toString(16)}`)
        .write8(base + 0x1234, command)
        .read8(base)
        .write8(base + 0x1234, 0xa5);
      look(base + 0x1234);
      s.write8(base, 0xff).readBytes(base + 0x1230, 16);
      s.write8(base + 0x1240, command).write32(base + 0x1240, 0x1234_5678);
      look(base);
      s.write8(base, 0x50).readBytes(base + 0x1230, 32);
    }
    s.about(`${name}: write to buffer`)
      .write8(base + 0x2000, 0xe8)
      .read8(base)
      .write8(base + 0x2000, 3);
    for (let at = 0; at < 4; at++) s.write8(base + 0x2000 + at, 0x30 + at);
    s.read8(base)
      .write8(base, 0xd0)
      .read8(base)
      .write8(base, 0xff)
      .readBytes(base + 0x1ff8, 16);
    s.about(`${name}: write to buffer, not confirmed`)
      .write8(base + 0x2100, 0xe8)
      .write8(base + 0x2100, 0);
    s.write8(base + 0x2100, 0x77).write8(base, 0x12);
    look(base + 0x2100);
    s.about(`${name}: write to buffer, out of its block`)
      .write8(base + 0x2200, 0xe8)
      .write8(base + 0x2200, 1);
    s.write8(base + 0x2200, 0x55)
      .write8(base + 0x2400, 0x66)
      .read8(base)
      .write8(base, 0xd0);
    look(base + 0x2200);
    s.write8(base, 0x50)
      .readBytes(base + 0x21f8, 16)
      .readBytes(base + 0x2400, 4);
    s.about(`${name}: erase`)
      .write8(base + 0x1200, 0x20)
      .read8(base)
      .write8(base + 0x1200, 0xd0);
    look(base + 0x1234);
    s.write8(base, 0x70)
      .read8(base)
      .write8(base, 0x50)
      .readBytes(base + 0xff8, 16)
      .readBytes(base + 0x1ff8, 16);
    s.about(`${name}: erase, not confirmed`)
      .write8(base + 0x3000, 0x20)
      .write8(base, 0xff)
      .readBytes(base + 0x3000, 4);
    s.write8(base + 0x3000, 0x20)
      .write8(base, 0x33)
      .readBytes(base + 0x3000, 4);
    for (const second of [0x01, 0xd0, 0xff, 0x2f]) {
      s.about(`${name}: lock ${second.toString(16)}`)
        .write8(base, 0x60)
        .read8(base)
        .write8(base, second);
      look(base + 0x3000);
      s.write8(base, 0xff);
    }
    for (const command of [0x00, 0xf0, 0x11, 0x28, 0xb0, 0xd0]) {
      s.about(`${name}: command ${command.toString(16)}`).write8(base, command);
      look(base + 0x3000);
      s.write8(base, 0xff);
    }
  }
  // What lies below 1 MiB is a copy of the first chip as it was.
  return s.about('ISA').readBytes(0xe0000, 64).readBytes(0xffff0, 16).write8(0xfffff, 0x90).readBytes(0xffff0, 16);
}
