import { type PciPlace, RegisterScript } from '../register-script.ts';
import { fixedTime } from './isa.ts';

const PLACE: PciPlace = { device: 4 };
const IO_BASE = 0xc000;
const MEMORY_BASE = 0xe000_0000;
const COMMAND = 0x04;
const ENABLE = 0x07;

const machine = (...devices: readonly string[]): string[] => [
  '-machine',
  'pc',
  '-m',
  '128M',
  '-nodefaults',
  ...devices.flatMap(device => ['-device', device]),
  ...fixedTime,
];

/** UHCI: registers at reset, what they take, and a port with a tablet through its reset. */
export function uhci(): RegisterScript {
  const s = new RegisterScript('UHCI: registers', machine('piix3-usb-uhci,id=u,addr=4', 'usb-tablet,bus=u.0,port=1'));
  s.pciWrite(PLACE, 0x20, IO_BASE).pciWrite(PLACE, COMMAND, ENABLE);
  for (let at = 0; at < 0x20; at += 2) s.about(`at reset, ${at.toString(16)}`).in16(IO_BASE + at);
  s.about('frame number')
    .out16(IO_BASE + 6, 0x1234)
    .in16(IO_BASE + 6);
  s.about('frame list')
    .out32(IO_BASE + 8, 0x1234_5678)
    .in32(IO_BASE + 8)
    .out16(IO_BASE + 8, 0xffff)
    .in32(IO_BASE + 8);
  s.about('start of frame')
    .out8(IO_BASE + 0xc, 0x55)
    .in8(IO_BASE + 0xc);
  s.about('interrupts')
    .out16(IO_BASE + 4, 0xf)
    .in16(IO_BASE + 4);
  for (const [index, port] of [0x10, 0x12].entries()) {
    s.about(`port ${index}`)
      .out16(IO_BASE + port, 0x000a)
      .in16(IO_BASE + port);
    s.out16(IO_BASE + port, 0x0200)
      .in16(IO_BASE + port)
      .out16(IO_BASE + port, 0)
      .in16(IO_BASE + port);
    s.out16(IO_BASE + port, 0x0004)
      .in16(IO_BASE + port)
      .out16(IO_BASE + port, 0x1004)
      .in16(IO_BASE + port);
  }
  s.about('controller reset').out16(IO_BASE, 2);
  for (let at = 0; at < 0x14; at += 2) s.in16(IO_BASE + at);
  return s;
}

/** EHCI with a companion: capability and operational registers, and the ports from one owner to the other. */
export function ehci(): RegisterScript {
  const s = new RegisterScript(
    'EHCI: registers',
    machine(
      'ich9-usb-ehci1,id=e,addr=4.0,multifunction=on',
      'ich9-usb-uhci1,masterbus=e.0,firstport=0,addr=4.1',
      'usb-tablet,bus=e.0,port=1',
      'usb-tablet,bus=e.0,port=3',
    ),
  );
  s.pciWrite(PLACE, 0x10, MEMORY_BASE).pciWrite(PLACE, COMMAND, ENABLE);
  s.pciWrite({ device: 4, fn: 1 }, 0x20, IO_BASE).pciWrite({ device: 4, fn: 1 }, COMMAND, ENABLE);
  for (let at = 0; at < 0x0c; at += 4) s.about(`capability ${at.toString(16)}`).read32(MEMORY_BASE + at);
  for (let at = 0x20; at < 0x7c; at += 4) s.about(`at reset, ${at.toString(16)}`).read32(MEMORY_BASE + at);
  const ports = (what: string): void => {
    for (let port = 0; port < 6; port++) s.about(`${what}, port ${port}`).read32(MEMORY_BASE + 0x64 + 4 * port);
    s.about(`${what}, companion`)
      .in16(IO_BASE + 0x10)
      .in16(IO_BASE + 0x12);
  };
  s.about('lists')
    .write32(MEMORY_BASE + 0x34, 0x1234_5000)
    .read32(MEMORY_BASE + 0x34);
  s.write32(MEMORY_BASE + 0x38, 0x1234_5020).read32(MEMORY_BASE + 0x38);
  s.about('interrupts')
    .write32(MEMORY_BASE + 0x28, 0xffff_ffff)
    .read32(MEMORY_BASE + 0x28);
  s.about('configured')
    .write32(MEMORY_BASE + 0x60, 1)
    .read32(MEMORY_BASE + 0x60);
  ports('configured');
  for (const port of [0x64, 0x68, 0x6c]) {
    s.about(`reset of ${port.toString(16)}`)
      .write32(MEMORY_BASE + port, 0x1102)
      .read32(MEMORY_BASE + port);
    s.write32(MEMORY_BASE + port, 0x1000).read32(MEMORY_BASE + port);
  }
  s.about('to the companion').write32(MEMORY_BASE + 0x64, 0x3000);
  ports('handed over');
  s.about('controller reset')
    .write32(MEMORY_BASE + 0x20, 2)
    .read32(MEMORY_BASE + 0x20)
    .read32(MEMORY_BASE + 0x24);
  ports('reset');
  return s;
}

/** xHCI: capability, operational and runtime registers, and ports with a tablet. */
export function xhci(): RegisterScript {
  const s = new RegisterScript(
    'xHCI: registers',
    machine('nec-usb-xhci,id=x,addr=4,p2=3,p3=2', 'usb-tablet,bus=x.0,port=1'),
  );
  s.pciWrite(PLACE, 0x10, MEMORY_BASE).pciWrite(PLACE, COMMAND, ENABLE);
  for (let at = 0; at < 0x40; at += 4) s.about(`capability ${at.toString(16)}`).read32(MEMORY_BASE + at);
  for (let at = 0x40; at < 0x80; at += 4) s.about(`operational ${at.toString(16)}`).read32(MEMORY_BASE + at);
  const ports = (what: string): void => {
    for (let port = 0; port < 6; port++) s.about(`${what}, port ${port}`).read32(MEMORY_BASE + 0x440 + 0x10 * port);
  };
  ports('at reset');
  for (const port of [0x440, 0x460, 0x470]) {
    s.about(`changes of ${port.toString(16)}`)
      .write32(MEMORY_BASE + port, 0x0002_0200)
      .read32(MEMORY_BASE + port);
    s.about(`reset of ${port.toString(16)}`)
      .write32(MEMORY_BASE + port, 0x210)
      .read32(MEMORY_BASE + port);
  }
  for (let at = 0x1020; at < 0x1060; at += 4) s.about(`runtime ${at.toString(16)}`).read32(MEMORY_BASE + at);
  s.about('interrupter')
    .write32(MEMORY_BASE + 0x1020, 3)
    .read32(MEMORY_BASE + 0x1020);
  s.write32(MEMORY_BASE + 0x1024, 0x1234_5678).read32(MEMORY_BASE + 0x1024);
  s.about('contexts')
    .write32(MEMORY_BASE + 0x70, 0x1234_56ff)
    .read32(MEMORY_BASE + 0x70);
  s.about('slots')
    .write32(MEMORY_BASE + 0x78, 0x1ff)
    .read32(MEMORY_BASE + 0x78);
  s.about('notifications')
    .write32(MEMORY_BASE + 0x54, 0xffff_ffff)
    .read32(MEMORY_BASE + 0x54);
  // Port change detect follows the ports (section 5.4.2); QEMU's never does.
  s.about('run')
    .write32(MEMORY_BASE + 0x40, 5)
    .read32(MEMORY_BASE + 0x40)
    .read32(MEMORY_BASE + 0x44, ~0x10 >>> 0);
  s.about('controller reset')
    .write32(MEMORY_BASE + 0x40, 2)
    .read32(MEMORY_BASE + 0x40)
    .read32(MEMORY_BASE + 0x44);
  ports('after it');
  return s;
}

/** OHCI: registers at reset, what they take, and ports. */
export function ohci(): RegisterScript {
  const s = new RegisterScript('OHCI: registers', machine('pci-ohci,id=o,addr=4', 'usb-tablet,bus=o.0,port=2'));
  s.pciWrite(PLACE, 0x10, MEMORY_BASE).pciWrite(PLACE, COMMAND, ENABLE);
  for (let at = 0; at < 0x60; at += 4) s.about(`at reset, ${at.toString(16)}`).read32(MEMORY_BASE + at);
  for (const at of [0x18, 0x20, 0x24, 0x28, 0x2c, 0x40, 0x44])
    s.about(`takes ${at.toString(16)}`)
      .write32(MEMORY_BASE + at, 0x1234_5678)
      .read32(MEMORY_BASE + at);
  s.about('interrupts')
    .write32(MEMORY_BASE + 0x10, 0x4000_0041)
    .read32(MEMORY_BASE + 0x10)
    .read32(MEMORY_BASE + 0x14);
  s.write32(MEMORY_BASE + 0x14, 0x40).read32(MEMORY_BASE + 0x10);
  for (const port of [0x54, 0x58]) {
    s.about(`port ${port.toString(16)}`)
      .write32(MEMORY_BASE + port, 0x001f_0000)
      .read32(MEMORY_BASE + port);
    s.write32(MEMORY_BASE + port, 0x10)
      .read32(MEMORY_BASE + port)
      .write32(MEMORY_BASE + port, 1)
      .read32(MEMORY_BASE + port);
  }
  return s;
}
