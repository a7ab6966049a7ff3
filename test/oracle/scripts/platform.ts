import { RegisterScript } from '../register-script.ts';
import { fixedTime } from './isa.ts';

const swap32 = (value: number): number =>
  Buffer.from([value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff]).readUInt32LE();

export function fwCfg(): RegisterScript {
  const s = new RegisterScript('fw_cfg: legacy keys, directory, ports, DMA', [
    '-machine',
    'pc',
    '-m',
    '128M',
    '-nodefaults',
    '-smp',
    '2',
    ...fixedTime,
  ]);
  const uuidFromHost: readonly number[] = [];
  for (let key = 0; key < 0x19; key++) {
    if (uuidFromHost.includes(key)) continue;
    s.about(`key ${key.toString(16)}`).out16(0x510, key);
    for (let byte = 0; byte < 20; byte++) s.in8(0x511);
  }
  s.about('unknown key')
    .out16(0x510, 0x3fff)
    .in8(0x511)
    .out16(0x510, 0xc000)
    .in8(0x511)
    .out16(0x510, 0x8000)
    .in8(0x511);
  // QEMU has one file more: the option ROM that patches Windows XP (kvmvapic).
  s.about('how many files').out16(0x510, 0x19).in8(0x511).in8(0x511).in8(0x511).in8(0x511, 0);
  s.about('DMA signature').in32(0x514).in32(0x518);
  const dma = (name: string, control: number, length: number): void => {
    s.about(`DMA ${name}`)
      .write32(0x1000, swap32(control))
      .write32(0x1004, swap32(length))
      .write32(0x1008, 0)
      .write32(0x100c, swap32(0x2000));
    s.out32(0x514, 0).out32(0x518, swap32(0x1000)).read32(0x1000).readBytes(0x2000, 16);
  };
  dma('read signature', 0x0000_000a, 4);
  dma('skip', 0x0001_000c, 2);
  dma('read on', 0x02, 4);
  dma('read past the end', 0x02, 16);
  dma('write to a read-only item', 0x0000_0018, 4);
  dma('nothing asked', 0x0005_0000, 4);
  return s;
}

export function hpet(): RegisterScript {
  const s = new RegisterScript('HPET: capabilities and timers', [
    '-machine',
    'pc',
    '-m',
    '128M',
    '-nodefaults',
    ...fixedTime,
  ]);
  const base = 0xfed0_0000;
  const dump = (name: string): void => {
    s.about(name);
    for (let register = 0; register < 0x160; register += 4) s.read32(base + register);
  };
  dump('reset');
  for (let timer = 0; timer < 3; timer++) {
    const at = base + 0x100 + timer * 0x20;
    s.about(`timer ${timer}`)
      .write32(at, 0xffff_ffff)
      .read32(at)
      .read32(at + 4)
      .write32(at, 0)
      .read32(at);
    s.write32(at, 0x4c)
      .write32(at + 8, 0x1234)
      .write32(at + 12, 0x1)
      .write32(at + 8, 0x10)
      .write32(at + 16, 0xffff_ffff);
  }
  s.about('main counter')
    .write32(base + 0xf0, 0x1000)
    .write32(base + 0xf4, 0x1);
  dump('written');
  return s;
}

export function hpetCounts(): RegisterScript {
  const s = new RegisterScript('HPET: counting', ['-machine', 'pc', '-m', '128M', '-nodefaults', ...fixedTime]);
  const base = 0xfed0_0000;
  s.write32(base + 0x100, 0x4c)
    .write32(base + 0x108, 1000)
    .write32(base + 0x10, 1);
  for (const ns of [10, 1000, 10_000, 5_000_000]) {
    s.about(`after ${ns} ns`)
      .clockStep(ns)
      .read32(base + 0xf0)
      .read32(base + 0x20)
      .read32(base + 0x108);
  }
  s.about('halted')
    .write32(base + 0x10, 0)
    .read32(base + 0xf0)
    .clockStep(1000)
    .read32(base + 0xf0);
  return s;
}

export function ioapic(): RegisterScript {
  const s = new RegisterScript('I/O APIC: identification, redirection', [
    '-machine',
    'pc',
    '-m',
    '128M',
    '-nodefaults',
    ...fixedTime,
  ]);
  /** The bits of a redirection entry's low half that 82093AA defines; QEMU keeps the others as written. */
  const DEFINED = 0x0001_ffff;
  const [select, window] = [0xfec0_0000, 0xfec0_0010];
  for (let register = 0; register < 0x44; register++)
    s.about(`register ${register.toString(16)}`)
      .write32(select, register)
      .read32(select)
      .read32(window);
  for (const register of [0, 0x10, 0x11, 0x2e, 0x3f, 0x40]) {
    s.about(`register ${register.toString(16)} written`)
      .write32(select, register)
      .write32(window, 0xffff_ffff)
      .read32(window, (register & 1) === 0 ? DEFINED : 0xffff_ffff);
    s.write32(window, 0x0001_0000).read32(window);
  }
  return s;
}

export function ports(): RegisterScript {
  const s = new RegisterScript('what every I/O port below 400h reads', [
    '-machine',
    'pc',
    '-m',
    '128M',
    '-nodefaults',
    ...fixedTime,
  ]);
  for (let port = 0; port < 0x400; port++) s.about(`port ${port.toString(16)}`).in8(port);
  return s
    .about('fast A20')
    .in8(0x92)
    .out8(0x92, 0x02)
    .in8(0x92)
    .about('reset control')
    .in8(0xcf9)
    .out8(0xcf9, 0x02)
    .in8(0xcf9);
}
