import { type PciPlace, RegisterScript } from '../register-script.ts';
import { fixedTime } from './isa.ts';

const BASE = 0xe000_0000;
const DSTAT = 0x0c;
const DSP = 0x2c;
const DSPS = 0x30;
const CCNTL0 = 0x56;
const PHASE_MISMATCH = [0xc0, 0xc4];
const ENABLE_PHASE_MISMATCH_JUMP = 0xc0;
const PROGRAM = 0x1_0000;
const CDB = 0x2_0000;
const IDENTIFY = CDB + 0x20;
const STATUS = CDB + 0x30;
const MESSAGE = CDB + 0x38;
const DATA = 0x3_0000;
const DONE = 0x600d;
const IN = 1;
const OUT = 0;

/** SCRIPTS for a command whose target stays on the bus: selection, command, data if there is any, status, end. */
function program(target: number, cdbLength: number, phase: number, length: number): number[] {
  const at = (words: number): number => PROGRAM + 4 * words;
  const jumpIf = (phase: number, to: number): number[] => [(0x800a_0000 | (phase << 24)) >>> 0, to];
  return [
    ...[0x4100_0000 | (target << 16), at(26)],
    ...[(6 << 24) | 1, IDENTIFY],
    ...[(2 << 24) | cdbLength, CDB],
    ...jumpIf(phase, at(14)),
    ...jumpIf(3, at(18)),
    ...jumpIf(7, at(22)),
    ...[0x9808_0000, 0xbad],
    ...[(phase << 24) | Math.max(1, length), DATA],
    ...[0x8008_0000, at(6)],
    ...[(3 << 24) | 1, STATUS],
    ...[0x8008_0000, at(22)],
    ...[(7 << 24) | 1, MESSAGE],
    ...[0x4800_0000, 0],
    ...[0x9808_0000, DONE],
  ];
}

interface Command {
  readonly cdb: readonly number[];
  readonly in?: number;
  readonly out?: readonly number[];
}

const modeSense = (page: number): Command[] => [
  { cdb: [0x1a, 0, page, 0, 255, 0], in: 255 },
  { cdb: [0x1a, 8, page, 0, 255, 0], in: 255 },
  { cdb: [0x5a, 0, page, 0, 0, 0, 0, 1, 0, 0], in: 256 },
];
const page = (code: number): Command => ({ cdb: [0x12, 1, code, 0, 252, 0], in: 252 });

const both: readonly Command[] = [
  { cdb: [0, 0, 0, 0, 0, 0] },
  { cdb: [0, 0, 0, 0, 0, 0] },
  ...[5, 36, 44, 96, 255].map(length => ({ cdb: [0x12, 0, 0, 0, length, 0], in: length })),
  { cdb: [0x12, 0, 1, 0, 36, 0], in: 36 },
  ...[0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2, 0x81].map(page),
  ...[0x00, 0x01, 0x04, 0x05, 0x08, 0x0e, 0x2a, 0x30, 0x3f, 0x48, 0x7f, 0x81, 0xbf, 0xc8, 0x0a].flatMap(modeSense),
  { cdb: [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], in: 8 },
  { cdb: [0x25, 0, 0, 0, 0, 1, 0, 0, 0, 0], in: 8 },
  { cdb: [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], in: 32 },
  { cdb: [0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], in: 32 },
  { cdb: [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], in: 64 },
  { cdb: [0xa0, 0, 3, 0, 0, 0, 0, 0, 0, 64, 0, 0], in: 64 },
  { cdb: [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], in: 8 },
  { cdb: [0x16, 0, 0, 0, 0, 0] },
  { cdb: [0x17, 1, 0, 0, 0, 0] },
  { cdb: [0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0] },
  { cdb: [0x57, 2, 0, 0, 0, 0, 0, 0, 0, 0] },
  { cdb: [0x2b, 0, 0, 0, 0, 0, 0, 0, 0, 0] },
  { cdb: [0x2b, 0, 255, 0, 0, 0, 0, 0, 0, 0] },
  { cdb: [0x28, 0, 0, 255, 255, 255, 0, 0, 1, 0], in: 2048 },
  { cdb: [0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0] },
  { cdb: [0x28, 0xe0, 0, 0, 0, 0, 0, 0, 1, 0], in: 2048 },
  { cdb: [0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0] },
  { cdb: [0x2f, 4, 0, 0, 0, 0, 0, 0, 1, 0] },
  { cdb: [0x04, 0, 0, 0, 0, 0] },
  { cdb: [0x01, 0, 0, 0, 0, 0] },
  { cdb: [0x43, 0, 0, 0, 0, 0, 0, 0, 32, 0], in: 32 },
  { cdb: [0x43, 2, 0, 0, 0, 0, 0xaa, 0, 32, 0], in: 32 },
  { cdb: [0x43, 0, 1, 0, 0, 0, 0, 0, 32, 0], in: 32 },
  { cdb: [0x43, 2, 2, 0, 0, 0, 0, 0, 64, 0], in: 64 },
  { cdb: [0x43, 0, 3, 0, 0, 0, 0, 0, 64, 0], in: 64 },
  { cdb: [0x43, 0, 0, 0, 0, 0, 9, 0, 64, 0], in: 64 },
  { cdb: [0x46, 0, 0, 0, 0, 0, 0, 0, 64, 0], in: 64 },
  { cdb: [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0], in: 8 },
  { cdb: [0x4a, 1, 0, 0, 0x02, 0, 0, 0, 8, 0], in: 8 },
  { cdb: [0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8, 0], in: 8 },
  { cdb: [0x51, 0, 0, 0, 0, 0, 0, 0, 34, 0], in: 34 },
  { cdb: [0x51, 1, 0, 0, 0, 0, 0, 0, 34, 0], in: 34 },
  { cdb: [0xad, 0, 0, 0, 0, 0, 0, 0xff, 0, 64, 0, 0], in: 64 },
  { cdb: [0xad, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], in: 64 },
  { cdb: [0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], in: 8 },
  { cdb: [0x1e, 0, 0, 0, 1, 0] },
  { cdb: [0x1b, 0, 0, 0, 2, 0] },
  { cdb: [0x1e, 0, 0, 0, 0, 0] },
  { cdb: [0x1b, 0, 0, 0, 2, 0] },
  { cdb: [0, 0, 0, 0, 0, 0] },
  { cdb: [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0], in: 8 },
  { cdb: [0x1b, 0, 0, 0, 3, 0] },
  { cdb: [0, 0, 0, 0, 0, 0] },
  { cdb: [0x15, 0x10, 0, 0, 0, 0] },
  { cdb: [0x15, 0x11, 0, 0, 4, 0], out: [0, 0, 0, 0] },
  { cdb: [0x15, 0x10, 0, 0, 3, 0], out: [0, 0, 0] },
  { cdb: [0x15, 0x10, 0, 0, 4, 0], out: [0, 0, 0, 4] },
  { cdb: [0x15, 0x10, 0, 0, 12, 0], out: [0, 0, 0, 0, 8, 6, 4, 0, 0, 0, 0, 0] },
  { cdb: [0x15, 0x10, 0, 0, 24, 0], out: [0, 0, 0, 0, 8, 0x12, 4, ...new Array<number>(17).fill(0)] },
  { cdb: [0x15, 0x10, 0, 0, 24, 0], out: [0, 0, 0, 0, 8, 0x12, 4, 1, ...new Array<number>(16).fill(0)] },
  { cdb: [0x55, 0x10, 0, 0, 0, 0, 0, 0, 8, 0], out: [0, 0, 0, 0, 0, 0, 0, 0] },
  { cdb: [0x42, 0, 0, 0, 0, 0, 0, 0, 7, 0], out: [0, 5, 0, 0, 0, 0, 0] },
  { cdb: [0x42, 1, 0, 0, 0, 0, 0, 0, 8, 0], out: [0, 6, 0, 0, 0, 0, 0, 0] },
  { cdb: [0x42, 0, 0, 0, 0, 0, 0, 0, 8, 0], out: [0, 6, 0, 16, 0, 0, 0, 0] },
];

/** What disks and CD-ROM drives say of themselves and of bad commands, through the LSI chip. */
export function commands(): RegisterScript {
  const s = new RegisterScript('SCSI disk and CD-ROM commands behind lsi53c895a', [
    ...['-machine', 'pc', '-m', '128M', '-nodefaults', ...fixedTime],
    ...['-device', 'lsi53c895a,addr=4,id=s'],
    ...['-drive', 'if=none,id=d,driver=null-co,read-zeroes=on,size=64M'],
    ...['-device', 'scsi-hd,bus=s.0,scsi-id=1,drive=d,serial=SN1,wwn=0x5000c50015ea71ac,rotation_rate=7200'],
    ...['-drive', 'if=none,id=c,driver=null-co,read-zeroes=on,size=4M,read-only=on,media=cdrom'],
    ...['-device', 'scsi-cd,bus=s.0,scsi-id=2,drive=c,serial=SN2'],
  ]);
  const place: PciPlace = { device: 4 };
  s.pciWrite(place, 0x14, BASE).pciWrite16(place, 0x04, 0x07).write8(IDENTIFY, 0x80);
  // A target that has less data than was asked for goes on with the dispatch by phase.
  for (const register of PHASE_MISMATCH) s.write32(BASE + register, PROGRAM + 24);
  s.write8(BASE + CCNTL0, ENABLE_PHASE_MISMATCH_JUMP);
  const run = (target: number, { cdb, in: length = 0, out }: Command): void => {
    s.about(`target ${target}: ${cdb.map(byte => byte.toString(16)).join(' ')}`);
    s.writeBytes(CDB, Uint8Array.from(cdb)).write32(STATUS, 0xffff_ffff).write32(MESSAGE, 0xffff_ffff);
    s.writeBytes(DATA, Uint8Array.from(out ?? new Uint8Array(Math.max(1, length))));
    const words = program(target, cdb.length, out === undefined ? IN : OUT, out?.length ?? length);
    s.writeBytes(PROGRAM, new Uint8Array(Uint32Array.from(words).buffer));
    s.write32(BASE + DSP, PROGRAM)
      .read32(BASE + DSPS)
      .read8(BASE + DSTAT);
    s.read32(STATUS).read32(MESSAGE);
    if (length > 0) s.readBytes(DATA, length);
  };
  for (const target of [1, 2]) {
    for (const command of both) {
      run(target, command);
      run(target, { cdb: [3, 0, 0, 0, 18, 0], in: 18 });
    }
  }
  return s;
}

/** Registers as software may read and write them. */
export function lsiRegisters(): RegisterScript {
  const s = new RegisterScript('LSI53C895A registers', [
    ...['-machine', 'pc', '-m', '128M', '-nodefaults', '-device', 'lsi53c895a,addr=4', ...fixedTime],
  ]);
  const place: PciPlace = { device: 4 };
  s.pciWrite(place, 0x14, BASE)
    .pciWrite(place, 0x18, BASE + 0x1_0000)
    .pciWrite16(place, 0x04, 0x07);
  /** Not SFBR, which QEMU does not show, nor what it does not have at all: SLPAR, STIME1, STEST0, SODL. */
  const skipped = new Set([0x08, 0x44, 0x45, 0x49, 0x4c, 0x51, 0x53, 0x54, 0x55, 0x5a, 0x5b]);
  const dump = (about: string): void => {
    s.about(about);
    for (let register = 0; register < 0xe0; register++) if (!skipped.has(register)) s.read8(BASE + register);
  };
  dump('reset');
  const plain = [0, 2, 3, 4, 5, 6, 0x10, 0x13, 0x16, 0x17, 0x1a, 0x1b, 0x1c, 0x21, 0x22, 0x24, 0x28, 0x30, 0x34, 0x38];
  for (const register of [
    ...plain,
    0x39,
    0x3a,
    0x40,
    0x41,
    0x48,
    0x4a,
    0x4b,
    0x4d,
    0x4e,
    0x4f,
    0x56,
    0x57,
    0x5c,
    0x9f,
    0xa0,
    0xb8,
    0xdc,
  ]) {
    s.about(`register ${register.toString(16)}`)
      .write8(BASE + register, 0xa5)
      .read8(BASE + register);
  }
  dump('after writes');
  s.about('memory')
    .write32(BASE + 0x1_1ffc, 0x1234_5678)
    .read32(BASE + 0x1_1ffc);
  s.about('software reset').write8(BASE + 0x14, 0x40);
  dump('after a software reset');
  return s;
}
