import type { CpuState, SegmentState } from '../../accel/cpu-state.ts';

/** One register as the debugger knows it. */
export interface GdbRegister {
  readonly name: string;
  readonly bits: number;
  readonly type: string;
  readonly feature: 'core' | 'sse' | 'segments' | 'system';
  read(cpu: CpuState, into: DataView, at: number): void;
  write(cpu: CpuState, from: DataView, at: number): void;
}

const FXSAVE = {
  FCW: 0,
  FSW: 2,
  FTW: 4,
  FOP: 6,
  FIP: 8,
  FCS: 12,
  FDP: 16,
  FDS: 20,
  MXCSR: 24,
  ST: 32,
  XMM: 160,
} as const;
const GPR_ORDER = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15] as const;
const GPR = [
  'rax',
  'rbx',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
  'rbp',
  'rsp',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;
const SEGMENTS = ['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const;
const X87_CONTROL = [
  ['fctrl', FXSAVE.FCW, 2],
  ['fstat', FXSAVE.FSW, 2],
  ['ftag', FXSAVE.FTW, 1],
  ['fiseg', FXSAVE.FCS, 2],
  ['fioff', FXSAVE.FIP, 4],
  ['foseg', FXSAVE.FDS, 2],
  ['fooff', FXSAVE.FDP, 4],
  ['fop', FXSAVE.FOP, 2],
] as const;

function wide(
  name: string,
  feature: GdbRegister['feature'],
  type: string,
  get: (cpu: CpuState) => bigint,
  set: (cpu: CpuState, value: bigint) => void,
): GdbRegister {
  return {
    name,
    bits: 64,
    type,
    feature,
    read: (cpu, into, at) => into.setBigUint64(at, BigInt.asUintN(64, get(cpu)), true),
    write: (cpu, from, at) => set(cpu, from.getBigUint64(at, true)),
  };
}

function narrow(
  name: string,
  feature: GdbRegister['feature'],
  type: string,
  get: (cpu: CpuState) => number,
  set: (cpu: CpuState, value: number) => void,
): GdbRegister {
  return {
    name,
    bits: 32,
    type,
    feature,
    read: (cpu, into, at) => into.setUint32(at, get(cpu) >>> 0, true),
    write: (cpu, from, at) => set(cpu, from.getUint32(at, true)),
  };
}

/** Bytes of the FXSAVE image (Intel SDM volume 1, table 10-2) as one register. */
function image(
  name: string,
  feature: GdbRegister['feature'],
  type: string,
  offset: number,
  size: number,
  bits = size * 8,
): GdbRegister {
  return {
    name,
    bits,
    type,
    feature,
    read(cpu, into, at) {
      for (let index = 0; index < bits / 8; index++)
        into.setUint8(at + index, index < size ? (cpu.fxsave[offset + index] ?? 0) : 0);
    },
    write(cpu, from, at) {
      for (let index = 0; index < size; index++) cpu.fxsave[offset + index] = from.getUint8(at + index);
    },
  };
}

const withSelector = (segment: SegmentState, selector: number): SegmentState => ({
  ...segment,
  selector: selector & 0xffff,
});
const withBase = (segment: SegmentState, base: bigint): SegmentState => ({ ...segment, base });

/** All registers in the order of the `g` packet. */
export const REGISTERS: readonly GdbRegister[] = [
  ...GPR.map((name, index) => {
    const slot = GPR_ORDER[index] ?? 0;
    const type = name === 'rbp' || name === 'rsp' ? 'data_ptr' : 'int64';
    return wide(
      name,
      'core',
      type,
      cpu => cpu.gpr[slot] ?? 0n,
      (cpu, value) => {
        cpu.gpr[slot] = value;
      },
    );
  }),
  wide(
    'rip',
    'core',
    'code_ptr',
    cpu => cpu.rip,
    (cpu, value) => {
      cpu.rip = value;
    },
  ),
  narrow(
    'eflags',
    'core',
    'int32',
    cpu => Number(cpu.rflags & 0xffff_ffffn),
    (cpu, value) => {
      cpu.rflags = (cpu.rflags & ~0xffff_ffffn) | BigInt(value);
    },
  ),
  ...SEGMENTS.map(name =>
    narrow(
      name,
      'core',
      'int32',
      cpu => cpu[name].selector,
      (cpu, value) => {
        cpu[name] = withSelector(cpu[name], value);
      },
    ),
  ),
  ...Array.from({ length: 8 }, (_, index) => image(`st${index}`, 'core', 'i387_ext', FXSAVE.ST + 16 * index, 10)),
  ...X87_CONTROL.map(([name, offset, size]) => image(name, 'core', 'int', offset, size, 32)),
  ...Array.from({ length: 16 }, (_, index) => image(`xmm${index}`, 'sse', 'vec128', FXSAVE.XMM + 16 * index, 16)),
  image('mxcsr', 'sse', 'int', FXSAVE.MXCSR, 4),
  wide(
    'fs_base',
    'segments',
    'int64',
    cpu => cpu.fs.base,
    (cpu, value) => {
      cpu.fs = withBase(cpu.fs, value);
    },
  ),
  wide(
    'gs_base',
    'segments',
    'int64',
    cpu => cpu.gs.base,
    (cpu, value) => {
      cpu.gs = withBase(cpu.gs, value);
    },
  ),
  ...(['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer'] as const).map(name =>
    wide(
      name,
      'system',
      'int64',
      cpu => cpu[name],
      (cpu, value) => {
        cpu[name] = value;
      },
    ),
  ),
];

const FEATURES = {
  core: 'org.gnu.gdb.i386.core',
  sse: 'org.gnu.gdb.i386.sse',
  segments: 'org.gnu.gdb.i386.segments',
  system: 'org.southbridge.i386.system',
} as const;

const VECTORS = `<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/><union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>`;

/** The target description (GDB manual, appendix G). */
export function targetXml(): string {
  const features = (Object.keys(FEATURES) as (keyof typeof FEATURES)[]).map(feature => {
    const registers = REGISTERS.flatMap((register, number) =>
      register.feature === feature
        ? [`<reg name="${register.name}" bitsize="${register.bits}" type="${register.type}" regnum="${number}"/>`]
        : [],
    );
    return `<feature name="${FEATURES[feature]}">${feature === 'sse' ? VECTORS : ''}${registers.join('')}</feature>`;
  });
  return `<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0"><architecture>i386:x86-64</architecture>${features.join('')}</target>`;
}

/** One register's bytes. */
export function readRegister(register: GdbRegister, cpu: CpuState): Buffer {
  const bytes = Buffer.alloc(register.bits / 8);
  register.read(cpu, new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0);
  return bytes;
}

/** Sets one register; false where there are not enough bytes. */
export function writeRegister(register: GdbRegister, cpu: CpuState, bytes: Buffer): boolean {
  if (bytes.length < register.bits / 8) return false;
  register.write(cpu, new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0);
  return true;
}
