import { type PciPlace, RegisterScript } from '../register-script.ts';
import { fixedTime } from './isa.ts';

const card: PciPlace = { device: 4 };
const BRIDGE = 0xe000_0000;
const PORTS = 0xc000;
const REGISTERS = 0xe000_1000;
const SPACES = 0xe000_2000;
const WORDS = 0xe200_0000;
const BYTES = 0xe400_0000;
const ENDIAN = [0x2b, 0x2f, 0x33] as const;

function script(name: string, ...modules: readonly string[]): RegisterScript {
  const machine = ['-machine', 'pc', '-m', '128M', '-nodefaults', '-device', 'tpci200,addr=4,id=ipack0'];
  const s = new RegisterScript(name, [...machine, ...modules, ...fixedTime]);
  [BRIDGE, PORTS, REGISTERS, SPACES, WORDS, BYTES].forEach((address, bar) => {
    s.pciWrite(card, 0x10 + 4 * bar, address);
  });
  return s.pciWrite16(card, 4, 3);
}

const octal = ['-device', 'ipoctal232,bus=ipack0.0,chardev0=s,slot=1', '-chardev', 'null,id=s'];

export function carrier(): RegisterScript {
  const s = script('tpci200: its bridge, its registers, empty slots');
  for (let offset = 0; offset < 0x80; offset += 4)
    s.about(`bridge ${offset.toString(16)}`)
      .read32(BRIDGE + offset)
      .in32(PORTS + offset)
      .write32(BRIDGE + offset, 0xffff_ffff)
      .read32(BRIDGE + offset)
      .read16(BRIDGE + offset + 1)
      .read8(BRIDGE + offset + 3)
      .out32(PORTS + offset, 0)
      .read32(BRIDGE + offset);
  for (const endian of [0, 1, 0xfe, 0xff]) {
    for (const at of ENDIAN)
      s.about(`endian ${endian}`)
        .write8(BRIDGE + at, endian)
        .read8(BRIDGE + at);
    for (let offset = 0; offset < 0x10; offset += 2)
      s.about(`register ${offset.toString(16)} as ${endian}`)
        .read16(REGISTERS + offset)
        .write16(REGISTERS + offset, 0xa55a)
        .read16(REGISTERS + offset)
        .read32(REGISTERS + offset)
        .read8(REGISTERS + offset)
        .read16(REGISTERS + offset + 1)
        .write8(REGISTERS + offset, 0)
        .read16(REGISTERS + offset);
    for (let slot = 0; slot < 4; slot++)
      s.about('nobody there')
        .read16(SPACES + 0x100 * slot + 0x80)
        .write16(SPACES + 0x100 * slot, 0x1234)
        .read8(SPACES + 0x100 * slot + 0xc0)
        .read16(WORDS + 0x80_0000 * slot)
        .write16(WORDS + 0x80_0000 * slot, 1)
        .read8(BYTES + 0x40_0000 * slot)
        .write8(BYTES + 0x40_0000 * slot, 1);
  }
  return s;
}

export function octalUart(): RegisterScript {
  const s = script('ipoctal232: identification, registers, interrupts', ...octal);
  const module = SPACES + 0x100;
  const io = (register: number): number => module + 2 * register;
  const state = (): void => {
    s.read16(REGISTERS + 0x0c).pciRead(card, 4);
  };
  for (const endian of [0, 1]) {
    for (const at of ENDIAN) s.write8(BRIDGE + at, endian);
    for (let offset = 0; offset < 0x100; offset += 2)
      s.about(`${offset.toString(16)} as ${endian}`)
        .read16(module + offset)
        .read8(module + offset)
        .read8(module + offset + 1)
        .read32(module + offset)
        .read16(module + offset + 1);
  }
  for (const at of ENDIAN) s.write8(BRIDGE + at, 0);
  s.about('the vector')
    .write16(module + 0x80, 0x12)
    .read16(module + 0xc0)
    .write8(module + 0x81, 0x34)
    .read16(module + 0xc0)
    .read8(module + 0xc2)
    .read8(module + 0xc1)
    .write8(BYTES + 0x40_0001, 0x56)
    .read16(module + 0xc2)
    .write16(WORDS + 0x80_0000, 0x77)
    .write8(WORDS + 0x80_0001, 0x77)
    .read16(WORDS + 0x80_0000)
    .read16(module + 0xc2);
  for (let channel = 0; channel < 8; channel++) {
    const at = (register: number): number => io(8 * channel + register);
    s.about(`channel ${channel} modes`).write16(at(2), 0x10).write16(at(0), 0x13).write16(at(0), 0x07).read16(at(0));
    s.write16(at(2), 0x10).read16(at(0)).read16(at(0)).read16(at(0));
    for (const command of [0x04, 0x08, 0x0c, 0x05, 0x30, 0x24, 0x34, 0x40, 0x50, 0x60, 0x70, 0x80, 0xc0, 0xf4, 0x0a])
      s.about(`channel ${channel} command ${command.toString(16)}`)
        .write16(at(2), command)
        .read16(at(1))
        .read16(at(2))
        .read16(at(3))
        .read16(io(16 * (channel >> 1) + 5));
    s.about(`channel ${channel} sends`)
      .write16(at(3), 0x41)
      .write16(at(2), 0x04)
      .write16(at(3), 0x42)
      .read16(at(1))
      .write16(at(1), 0xbb)
      .read16(at(1))
      .write16(at(2), 0x08);
  }
  for (const control of [0x00, 0xc0, 0x40, 0xf0, 0x50, 0xe0]) {
    s.about(`slot control ${control.toString(16)}`).write16(REGISTERS + 4, control);
    for (const block of [0, 1, 2, 3]) {
      const mask = io(16 * block + 5);
      s.about(`slot control ${control.toString(16)} block ${block}`).write16(mask, 0x11);
      state();
      s.write16(io(16 * block + 2), 0x04);
      state();
      s.write16(io(16 * block + 10), 0x04);
      state();
      s.about('acknowledged while it is pending').read16(module + 0xc0);
      state();
      s.read16(module + 0xc2);
      state();
      s.about('acknowledged in the status register').write16(REGISTERS + 0x0c, 0xffff);
      state();
      s.about('asked for again')
        .write16(io(16 * block + 2), 0x50)
        .write16(mask, 0x10);
      state();
      s.write16(io(16 * block + 2), 0x08);
      state();
      s.write16(io(16 * block + 10), 0x08);
      state();
    }
    s.about('all at once');
    for (let channel = 0; channel < 8; channel++) s.write16(io(8 * channel + 2), 0x04);
    state();
    s.about('the slot falls silent').write16(REGISTERS + 4, 0);
    state();
    for (let channel = 0; channel < 8; channel++) s.write16(io(8 * channel + 2), 0x08);
    s.write16(REGISTERS + 4, 0xc0);
    state();
    for (let block = 0; block < 4; block++) s.write16(io(16 * block + 5), 0).write16(io(16 * block + 5), 1);
    state();
    for (let block = 0; block < 4; block++) s.write16(io(16 * block + 5), 0);
  }
  return s;
}

/** Two modules share the carrier's one interrupt, one by level and one by edge. */
export function twoModules(): RegisterScript {
  const s = script('ipoctal232: two in a carrier', ...octal, '-device', 'ipoctal232,bus=ipack0.0');
  const state = (): void => {
    s.read16(REGISTERS + 0x0c).pciRead(card, 4);
  };
  s.write16(REGISTERS + 4, 0xc0).write16(REGISTERS + 6, 0xf0);
  for (let slot = 0; slot < 4; slot++)
    s.about(`slot ${slot}`)
      .read16(SPACES + 0x100 * slot + 0x80)
      .read16(SPACES + 0x100 * slot + 0x8a);
  for (const slots of [
    [1, 2],
    [2, 1],
  ]) {
    for (const slot of slots) {
      s.about(`slot ${slot} asks`).write16(SPACES + 0x100 * slot + 10, 1);
      s.write16(SPACES + 0x100 * slot + 4, 4);
      state();
    }
    for (const slot of slots) {
      s.about(`slot ${slot} is acknowledged`).read16(SPACES + 0x100 * slot + 0xc0);
      state();
      s.write16(REGISTERS + 0x0c, 3 << (2 * slot));
      state();
      s.write16(SPACES + 0x100 * slot + 4, 8);
      state();
    }
  }
  return s;
}
