/** AML of the ISA devices: each says where it answers and what it interrupts. */
import {
  type Aml,
  arg,
  block,
  buffer,
  concat,
  device,
  eisaId,
  field,
  local,
  method,
  name,
  pkg,
  region,
  ret,
  store,
  text,
  u32,
} from './aml.ts';
import { dma8, i2cSerialBus, io, irqNoFlags, resourceTemplate } from './aml-resources.ts';

/** `_STA`: present, enabled, shown and working. */
const WORKING = 0xf;
/** The same, not shown to users. */
const HIDDEN = 0xb;

/** PS/2 keyboard and mouse of an 8042. */
export function keyboardAndMouse(facts: { readonly kbdIrq: number; readonly mouseIrq: number }): Aml {
  return block([
    device('KBD', [
      name('_HID', eisaId('PNP0303')),
      name('_STA', WORKING),
      name('_CRS', resourceTemplate([io(0x60, 1), io(0x64, 1), irqNoFlags(facts.kbdIrq)])),
    ]),
    device('MOU', [
      name('_HID', eisaId('PNP0F13')),
      name('_STA', WORKING),
      name('_CRS', resourceTemplate([irqNoFlags(facts.mouseIrq)])),
    ]),
  ]);
}

export interface IsaPortFacts {
  /** COM1 and LPT1 have index 0. */
  readonly index: number;
  readonly iobase: number;
  readonly irq: number;
}

export function serialPort(facts: IsaPortFacts): Aml {
  return device(`COM${facts.index + 1}`, [
    name('_HID', eisaId('PNP0501')),
    name('_UID', facts.index + 1),
    name('_STA', WORKING),
    name('_CRS', resourceTemplate([io(facts.iobase, 8, 0), irqNoFlags(facts.irq)])),
  ]);
}

export function parallelPort(facts: IsaPortFacts): Aml {
  return device(`LPT${facts.index + 1}`, [
    name('_HID', eisaId('PNP0400')),
    name('_UID', facts.index + 1),
    name('_STA', WORKING),
    name('_CRS', resourceTemplate([io(facts.iobase, 8, 8), irqNoFlags(facts.irq)])),
  ]);
}

export function realTimeClock(facts: { readonly iobase: number; readonly irq: number }): Aml {
  return device('RTC', [
    name('_HID', eisaId('PNP0B00')),
    name('_CRS', resourceTemplate([io(facts.iobase, 8), irqNoFlags(facts.irq)])),
  ]);
}

/** Floppy drives by capacity: `_FDI` wants the CMOS type and the largest geometry that fits, whatever medium is in it. */
const FLOPPY_DRIVES = {
  '120': { type: 2, maxCylinder: 82, maxHead: 1, maxSector: 20 },
  '144': { type: 4, maxCylinder: 82, maxHead: 1, maxSector: 24 },
  '288': { type: 5, maxCylinder: 79, maxHead: 1, maxSector: 48 },
} as const;

export type FloppyDriveKind = keyof typeof FLOPPY_DRIVES;

export interface FloppyControllerFacts {
  readonly iobase: number;
  readonly irq: number;
  readonly dma: number;
  /** Drives A and B; undefined where there is none. */
  readonly drives: readonly (FloppyDriveKind | undefined)[];
}

/** The diskette parameter table that BIOSes return from INT 13h/08h, the same for every drive. */
const DISKETTE_PARAMETERS = [0xaf, 0x02, 0x25, 0x02, 0x12, 0x1b, 0xff, 0x6c, 0xf6, 0x0f, 0x08];
/** `_FDE`: no tape drive (9.9.1). */
const TAPE_ABSENT = 2;

function floppyDrive(drive: (typeof FLOPPY_DRIVES)[FloppyDriveKind], index: number): Aml {
  const geometry = [drive.maxCylinder, drive.maxSector, drive.maxHead];
  return device(`FLP${'AB'.charAt(index)}`, [
    name('_ADR', index),
    name('_FDI', pkg([index, drive.type, ...geometry, ...DISKETTE_PARAMETERS])),
  ]);
}

export function floppyController(facts: FloppyControllerFacts): Aml {
  const present = [0, 1, 2, 3].map(drive => u32(facts.drives[drive] === undefined ? 0 : 1));
  return device('FDC0', [
    name('_HID', eisaId('PNP0700')),
    name(
      '_CRS',
      resourceTemplate([
        io(facts.iobase + 2, 4, 0),
        io(facts.iobase + 7, 1, 0),
        irqNoFlags(facts.irq),
        dma8(facts.dma),
      ]),
    ),
    facts.drives.map((kind, index) => kind !== undefined && floppyDrive(FLOPPY_DRIVES[kind], index)),
    name('_FDE', buffer(concat(...present, u32(TAPE_ABSENT)))),
  ]);
}

/** The port through which a guest reports that it panicked. */
export function pvpanic(iobase: number): Aml {
  return device('PEVT', [
    name('_HID', text('QEMU0001')),
    name('_CRS', resourceTemplate([io(iobase, 1)])),
    region('PEOR', 'systemIO', iobase, 1),
    field('PEOR', { access: 'byte', update: 'preserve' }, [['PEPT', 8]]),
    name('_STA', WORKING),
    method('RDPT', 0, [store('PEPT', local(0)), ret(local(0))]),
    method('WRPT', 1, [store(arg(0), 'PEPT')]),
  ]);
}

/** Apple's system management controller. */
export function appleSmc(iobase: number): Aml {
  return device('SMC', [
    name('_HID', eisaId('APP0001')),
    name('_STA', HIDDEN),
    name('_CRS', resourceTemplate([io(iobase, 32), irqNoFlags(6)])),
  ]);
}

/** How to reach a BMC (IPMI 2.0, appendix C3); SMBIOS knows the kinds by the same numbers. */
export const IPMI_INTERFACE_TYPES = { kcs: 1, bt: 3, ssif: 4 } as const;
const IPMI_VERSION_2_0 = 0x0200;

export interface IpmiFacts {
  /** Counts the machine's interfaces from 1. */
  readonly uid: number;
  readonly kind: keyof typeof IPMI_INTERFACE_TYPES;
  /** A port, or an address on the SMBus. */
  readonly base: number;
  readonly length: number;
  readonly irq: number;
}

/** An interface to a BMC, at ports or on the SMBus whose controller it is part of. */
export function ipmiInterface({ uid, kind, base, length, irq }: IpmiFacts): Aml {
  const place = kind === 'ssif' ? i2cSerialBus(base, '^') : io(base, length, 1, base + length - 1);
  return device(`MI${uid}`, [
    name('_HID', eisaId('IPI0001')),
    name('_STR', text(`ipmi_${kind === 'ssif' ? 'smbus' : kind}`)),
    name('_UID', uid),
    name('_CRS', resourceTemplate(irq === 0 ? [place] : [place, irqNoFlags(irq)])),
    name('_IFT', IPMI_INTERFACE_TYPES[kind]),
    name('_SRV', IPMI_VERSION_2_0),
  ]);
}

/** The firmware configuration device: ports, and the DMA register where there is one. */
export function fwCfg(facts: { readonly iobase: number; readonly dma: boolean }): Aml {
  return device('FWCF', [
    name('_HID', text('QEMU0002')),
    name('_STA', HIDDEN),
    name('_CRS', resourceTemplate([io(facts.iobase, facts.dma ? 12 : 2)])),
  ]);
}
