import { type PciPlace, RegisterScript } from '../register-script.ts';
import { fixedTime } from './isa.ts';

/** Every dword of a function's configuration space, then which bits take ones, zeros and bytes. */
function probe(s: RegisterScript, name: string, place: PciPlace, skip: readonly number[] = []): void {
  for (let register = 0; register < 256; register += 4)
    s.about(`${name} at reset, ${register.toString(16)}`).pciRead(place, register);
  for (let register = 0; register < 256; register += 4) {
    if (skip.includes(register)) continue;
    s.about(`${name} all ones, ${register.toString(16)}`)
      .pciWrite(place, register, 0xffff_ffff)
      .pciRead(place, register);
    s.about(`${name} all zeros, ${register.toString(16)}`)
      .pciWrite(place, register, 0)
      .pciRead(place, register);
    s.about(`${name} byte, ${register.toString(16)}`)
      .pciWrite8(place, register + 1, 0xa5)
      .pciRead(place, register);
    s.pciWrite(place, register, 0);
  }
}

const machine = (type: string, ...more: readonly string[]): string[] => [
  '-machine',
  type,
  '-m',
  '128M',
  '-nodefaults',
  ...more,
  ...fixedTime,
];

export function pcChipset(): RegisterScript {
  const s = new RegisterScript('i440FX, PIIX3, IDE and power management: configuration space', machine('pc'));
  // SMRAM: D_LCK locks here, as the 82441FX does; QEMU's does not.
  probe(s, 'i440FX', { device: 0 }, [0x70]);
  probe(s, 'PIIX3', { device: 1 }, [0x4c]);
  probe(s, 'PIIX3 IDE', { device: 1, fn: 1 });
  probe(s, 'PIIX4 PM', { device: 1, fn: 3 });
  for (const device of [2, 3, 31]) s.about('nobody there').pciRead({ device }, 0).pciRead({ bus: 1, device }, 0);
  s.about('the address register').out32(0xcf8, 0xffff_ffff).in32(0xcf8).out32(0xcf8, 0).in32(0xcf8).in32(0xcfc);
  // Narrower accesses go past it, to the bus (82441FX datasheet, section 3.1); QEMU's read the register.
  return s.out8(0xcf8, 0x55).in32(0xcf8);
}

export function q35Chipset(): RegisterScript {
  const s = new RegisterScript('Q35: MCH, LPC, AHCI, SMBus: configuration space', machine('q35'));
  probe(s, 'MCH', { device: 0 });
  // PMBASE, RCBA: which bits there are is ICH9's; QEMU's PMBASE takes ACPI_CNTL's bits, and its RCBA all.
  probe(s, 'LPC', { device: 31 }, [0x40, 0xf0]);
  probe(s, 'AHCI', { device: 31, fn: 2 });
  // SMB_BASE and HOSTC: ICH9 has 32 ports and four bits; QEMU 64 ports and eight bits.
  probe(s, 'SMBus', { device: 31, fn: 3 }, [0x20, 0x40]);
  return s;
}

export function pciCard(type: string, ...more: readonly string[]): RegisterScript {
  const s = new RegisterScript(`${type}: configuration space`, machine('pc', ...more, '-device', `${type},addr=4`));
  probe(s, type, { device: 4 });
  return s;
}

export function acpiPm(): RegisterScript {
  const s = new RegisterScript('PIIX4 PM: ACPI, SMBus and hot-plug ports', machine('pc'));
  const pm: PciPlace = { device: 1, fn: 3 };
  s.about('disabled').in16(0x600).in32(0x608, 0);
  s.about('PMBASE').pciWrite(pm, 0x40, 0x600).pciWrite8(pm, 0x80, 0x01);
  s.in16(0x600).in16(0x602).in16(0x604).out16(0x602, 0xffff).in16(0x602).out16(0x602, 0).in32(0x608);
  s.about('SCI enable through SMI')
    .out8(0xb2, 0xf1)
    .in16(0x604)
    .out8(0xb2, 0xf0)
    .in16(0x604)
    .in8(0xb2)
    .out8(0xb3, 0x77)
    .in8(0xb3);
  s.about('SMBus').pciWrite(pm, 0x90, 0x700).pciWrite8(pm, 0xd2, 0x09);
  for (let port = 0x700; port < 0x708; port++)
    s.in8(port)
      .out8(port === 0x702 ? 0x703 : port, 0x12)
      .in8(port);
  s.about('GPE').in32(0xafe0).out32(0xafe0, 0xffff_ffff).in32(0xafe0);
  s.about('PCI hot-plug').in32(0xae00).in32(0xae04).in32(0xae08).in32(0xae0c).out32(0xae10, 0).in32(0xae10);
  s.about('CPU hot-plug');
  for (let port = 0xaf00; port < 0xaf0c; port++) s.in8(port);
  return s;
}

export function pam(): RegisterScript {
  const s = new RegisterScript('i440FX: PAM and SMRAM decide what memory shows', machine('pc'));
  const host: PciPlace = { device: 0 };
  s.about('ROM at reset').readBytes(0xffff0, 16).write32(0xf0000, 0x1234_5678).read32(0xf0000);
  // Not 0x11: QEMU's port and memory commands write through read-only windows.
  for (const value of [0x33, 0x22, 0x00]) {
    s.about(`PAM ${value.toString(16)}`);
    for (let register = 0x59; register <= 0x5f; register++) s.pciWrite8(host, register, value);
    for (const address of [0xc0000, 0xc8000, 0xdc000, 0xe0000, 0xec000, 0xf4000]) {
      s.write32(address, 0xcafe_0000 | value).read32(address);
    }
  }
  for (const value of [0x0a, 0x4a, 0x02]) {
    s.about(`SMRAM ${value.toString(16)}`)
      .pciWrite8(host, 0x72, value)
      .pciRead(host, 0x70)
      .write32(0xa0000, value)
      .read32(0xa0000);
  }
  return s;
}

/** What is behind two bridges, once software has numbered the buses and opened the windows. */
export function bridges(): RegisterScript {
  const s = new RegisterScript('bridges: bus numbers, windows, a function behind two of them', [
    ...machine('q35', '-device', 'pcie-root-port,addr=4,id=p1', '-device', 'pcie-pci-bridge,bus=p1,id=b1'),
    ...['-device', 'edu,bus=b1,addr=3'],
  ]);
  const port: PciPlace = { device: 4 };
  const bridge: PciPlace = { bus: 1, device: 0 };
  const card: PciPlace = { bus: 2, device: 3 };
  for (let register = 0; register < 0x40; register += 4)
    s.about(`root port ${register.toString(16)}`).pciRead(port, register);
  s.about('nobody numbered yet').pciRead(bridge, 0).pciWrite(port, 0x18, 0x0002_0100).pciRead(bridge, 0);
  s.about('the second bridge').pciRead(card, 0).pciWrite(bridge, 0x18, 0x0002_0201).pciRead(card, 0);
  for (const place of [port, bridge]) {
    s.about('windows')
      .pciWrite(place, 0x20, 0xc000_c000)
      .pciWrite16(place, 0x04, 0x0007)
      .pciRead(place, 0x20)
      .pciRead(place, 0x04);
  }
  s.about('the card')
    .pciWrite(card, 0x10, 0xc000_0000)
    .pciWrite16(card, 0x04, 0x0006)
    .read32(0xc000_0000)
    .read32(0xc000_0004);
  s.about('out of the window').pciWrite(card, 0x10, 0xd000_0000).read32(0xd000_0000);
  s.about('window closed').pciWrite(card, 0x10, 0xc000_0000).pciWrite(port, 0x20, 0x0000_fff0).read32(0xc000_0000);
  s.about('reset below')
    .pciWrite(port, 0x20, 0xc000_c000)
    .pciWrite16(bridge, 0x3e, 0x0040)
    .pciRead(card, 0x04)
    .pciRead(card, 0x10);
  return s;
}

/** Of the ports of a switch, with their status in the upper half. */
const DEVICE_CONTROL = 0x98;
const SLOT_CONTROL = 0xa8;
/** Of Intel's root port: in which order they are chained is each program's own. */
const CAPABILITIES: ReadonlySet<number> = new Set([0x40, 0x60, 0x90]);

/** A switch of PCI Express: one port up, two down, and what is in a slot. */
export function switchPorts(): RegisterScript {
  const s = new RegisterScript('a switch of PCI Express: the registers of its ports, and what is below them', [
    ...machine('q35', '-device', 'ioh3420,addr=4,id=p1,chassis=1', '-device', 'x3130-upstream,bus=p1,id=u1,port=3'),
    ...['-device', 'xio3130-downstream,bus=u1,id=d1,chassis=2,slot=1'],
    ...['-device', 'xio3130-downstream,bus=u1,id=d2,addr=1,port=2,chassis=3,slot=5', '-device', 'edu,bus=d2'],
  ]);
  const root: PciPlace = { device: 4 };
  const up: PciPlace = { bus: 1, device: 0 };
  const ports: readonly PciPlace[] = [0, 1].map(device => ({ bus: 2, device }));
  const card: PciPlace = { bus: 4, device: 0 };
  s.pciWrite(root, 0x18, 0x0004_0100).pciWrite(up, 0x18, 0x0004_0201);
  ports.forEach((port, index) => {
    s.pciWrite(port, 0x18, 0x0000_0002 + (index + 3) * 0x0001_0100);
  });
  for (let register = 0x40; register < 0x100; register += 4)
    s.about(`root ${register.toString(16)}`).pciRead(
      root,
      register,
      CAPABILITIES.has(register) ? 0xffff_00ff : undefined,
    );
  for (const port of [up, ...ports])
    for (let register = 0; register < 0x100; register += 4) {
      s.about(`${port.bus}:${port.device} ${register.toString(16)}`).pciRead(port, register);
      // The numbers of buses and the windows are for later; what is below would be reset, or lose its power.
      if (register < 0x40 || register === DEVICE_CONTROL || register === SLOT_CONTROL) continue;
      s.pciWrite(port, register, 0xffff_ffff).pciRead(port, register).pciWrite(port, register, 0);
    }
  for (const place of [root, up, ...ports]) s.pciWrite(place, 0x20, 0xc000_c000).pciWrite16(place, 0x04, 0x0007);
  s.about('the card')
    .pciRead(card, 0)
    .pciWrite(card, 0x10, 0xc000_0000)
    .pciWrite16(card, 0x04, 0x0006)
    .read32(0xc000_0000);
  s.about('a port that is reset alone')
    .pciWrite16(ports[1] ?? up, DEVICE_CONTROL, 0x8000)
    .pciRead(ports[1] ?? up, 0x18)
    .pciRead(ports[1] ?? up, DEVICE_CONTROL)
    .pciRead(ports[0] ?? up, 0x18);
  return s;
}

/** Root buses beside the host bridge's own, and what is behind bridges on them. */
export function expanders(): RegisterScript {
  const s = new RegisterScript('expander bridges: buses of their own, numbered from the start', [
    ...machine(
      'q35',
      '-device',
      'pxb-pcie,bus_nr=0x40,id=p1,addr=5',
      '-device',
      'pcie-root-port,bus=p1,id=r1,chassis=1',
    ),
    ...['-device', 'pcie-pci-bridge,bus=r1,id=b1', '-device', 'edu,bus=b1,addr=3'],
  ]);
  const seat: PciPlace = { device: 5 };
  const port: PciPlace = { bus: 0x40, device: 0 };
  const bridge: PciPlace = { bus: 0x41, device: 0 };
  const card: PciPlace = { bus: 0x42, device: 3 };
  for (let register = 0; register < 0x40; register += 4)
    s.about(`the bridge itself ${register.toString(16)}`)
      .pciRead(seat, register)
      .pciWrite(seat, register, 0xffff_ffff)
      .pciRead(seat, register);
  for (let register = 0; register < 0x40; register += 4)
    s.about(`root port ${register.toString(16)}`).pciRead(port, register);
  s.about('an empty place').pciRead({ bus: 0x40, device: 1 }, 0);
  s.about('not numbered yet').pciRead(bridge, 0);
  s.pciWrite(port, 0x18, 0x0042_4140).pciRead(bridge, 0).pciWrite(bridge, 0x18, 0x0042_4241).pciRead(card, 0);
  for (const place of [port, bridge]) s.pciWrite(place, 0x20, 0xc000_c000).pciWrite16(place, 0x04, 0x0007);
  s.about('the card')
    .pciWrite(card, 0x10, 0xc000_0000)
    .pciWrite16(card, 0x04, 0x0006)
    .read32(0xc000_0000)
    .read32(0xc000_0004);
  return s;
}
