import { type PciPlace, RegisterScript } from '../register-script.ts';
import { fixedTime } from './isa.ts';

const card: PciPlace = { device: 4 };
const PORTS = 0xc000;

function script(name: string, device: string, ...more: readonly string[]): RegisterScript {
  const machine = ['-machine', 'pc', '-m', '128M', '-nodefaults', ...more, '-device', `${device},addr=4`, ...fixedTime];
  const s = new RegisterScript(name, machine);
  for (let register = 0; register < 0x40; register += 4) s.about(`configuration ${register}`).pciRead(card, register);
  return s
    .about('the BAR')
    .pciWrite(card, 0x10, 0xffff_ffff)
    .pciRead(card, 0x10)
    .pciWrite(card, 0x10, PORTS)
    .pciWrite16(card, 4, 1);
}

/** All that one 16550A does without anybody at the other end; its interrupt is seen in the function's status. */
function exercise(s: RegisterScript, base: number, name: string): void {
  const all = (): void => {
    for (let register = 0; register < 8; register++) s.in8(base + register);
    s.pciRead(card, 4);
  };
  s.about(`${name} at reset`);
  all();
  s.about(`${name} divisor`)
    .out8(base + 3, 0x83)
    .out8(base, 0x03)
    .out8(base + 1, 0x01);
  all();
  s.out8(base + 3, 0x03);
  for (const ier of [0x02, 0x00, 0x02, 0x0f, 0x00]) {
    s.about(`${name} IER ${ier}`)
      .out8(base + 1, ier)
      .pciRead(card, 4)
      .in8(base + 2)
      .pciRead(card, 4);
  }
  s.about(`${name} transmits`)
    .out8(base + 1, 0x02)
    .out8(base, 0x55)
    .pciRead(card, 4)
    .in8(base + 5)
    .in8(base + 2)
    .pciRead(card, 4);
  s.about(`${name} loops`).out8(base + 1, 0x01);
  s.out8(base + 4, 0x1a).out8(base + 2, 0x07);
  for (const byte of [0x11, 0x22, 0x33]) s.out8(base, byte);
  all();
  all();
  s.about(`${name} overruns`).out8(base + 2, 0x00);
  s.out8(base + 1, 0x04)
    .out8(base, 0x44)
    .out8(base, 0x55)
    .pciRead(card, 4);
  all();
  s.about(`${name} wide accesses`).out32(base + 4, 0x5a00_0000);
  s.in32(base + 4)
    .in16(base + 6)
    .in16(base + 2);
}

export function onePort(): RegisterScript {
  const s = script('pci-serial: registers and interrupt', 'pci-serial,chardev=s', '-chardev', 'null,id=s');
  exercise(s, PORTS, 'UART');
  return s.about('beyond it').in8(PORTS + 8);
}

export function programmingInterface(): RegisterScript {
  const s = script('pci-serial: prog_if and nobody at the other end', 'pci-serial,prog_if=6');
  exercise(s, PORTS, 'UART');
  return s;
}

function several(count: number): RegisterScript {
  const ids = Array.from({ length: count }, (_, index) => `s${index + 1}`);
  const s = script(
    `pci-serial-${count}x: UARTs and what they share`,
    `pci-serial-${count}x${ids.map((id, index) => `,chardev${index + 1}=${id}`).join('')}`,
    ...ids.flatMap(id => ['-chardev', `null,id=${id}`]),
  );
  ids.forEach((id, index) => {
    exercise(s, PORTS + 8 * index, id);
  });
  s.about('one interrupt for all');
  for (let index = 0; index < count; index++) s.out8(PORTS + 8 * index + 4, 0).out8(PORTS + 8 * index + 1, 0);
  s.pciRead(card, 4);
  for (let index = 0; index < count; index++) s.out8(PORTS + 8 * index + 1, 2).pciRead(card, 4);
  for (let index = 0; index < count; index++) s.in8(PORTS + 8 * index + 2).pciRead(card, 4);
  return s
    .about('across two')
    .in32(PORTS + 6)
    .about('beyond them')
    .in8(PORTS + 8 * count);
}

export const twoPorts = (): RegisterScript => several(2);
export const fourPorts = (): RegisterScript => several(4);
