import type { AccessRegisters } from '../accelerator.ts';
import type { CpuState, DescriptorTable, SegmentState } from '../cpu-state.ts';
import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';

const GPRS = 8;
const GPR_SLOTS = 16;
const XMMS = 8;
const CR0_PE = 1;
const CR0_ET = 1 << 4;
const CR0_PG = 1 << 31;
const CR4_PAE = 1 << 5;
const PDPTES = 4;
const APIC_BASE = 0xfee0_0000;
const APIC_BASE_BSP = 1 << 8;
const APIC_BASE_EN = 1 << 11;
const FLAG_VM = 1 << 17;
/** The module emulates no trap flag. */
const FLAG_TF = 1 << 8;
const FLAGS_KNOWN = 0x3f_7fd5;
const FLAGS_FIXED = 2;

/** SegmentState.attributes: bits of a descriptor's high half, shifted down by 8 (Intel SDM volume 3, section 3.4.5). */
const ATTRIBUTE_P = 1 << 7;
const ATTRIBUTE_DB = 1 << 14;
const ATTRIBUTE_G = 1 << 15;
const LIMIT_WITHOUT_G = 0xf_ffff;
/** Present, code, readable: what the module makes of CS with each write of CR0. */
const CODE_ACCESS = 0x9a;
const DATA_16 = 0x93;
const CODE_16 = 0x9b;
const CR0_CACHE = 0x6000_0000;
const DR6_AT_RESET = 0xffff_0ff0n;
const DR7_AT_RESET = 0x400n;
const SYSTEM_TYPE_TSS = 0x8b;
const SYSTEM_TYPE_LDT = 0x82;

/** Byte offsets in an FXSAVE image (Intel SDM volume 1, section 10.5.1). */
const FX_FCW = 0;
const FX_FSW = 2;
const FX_FTW = 4;
const FX_FOP = 6;
const FX_FIP = 8;
const FX_FCS = 12;
const FX_FDP = 16;
const FX_FDS = 20;
const FX_MXCSR = 24;
const FX_MXCSR_MASK = 28;
const FX_ST = 32;
const FX_XMM = 160;
const FX_SIZE = 512;
const FX_ST_STRIDE = 16;
const F80_SIZE = 10;
const MXCSR_MASK = 0xffff;
const FSW_TOP_SHIFT = 11;
const FSW_TOP = 7 << FSW_TOP_SHIFT;

/** The architectural state of the CPU that the module executes. */
export class WasmCpu {
  /** Whether it is the first of the machine's CPUs. */
  bootstrap = true;
  #core: abi.Core;
  #memory: CoreMemory;
  #ramBase: () => number;

  constructor(core: abi.Core, memory: CoreMemory, ramBase: () => number) {
    this.#core = core;
    this.#memory = memory;
    this.#ramBase = ramBase;
  }

  get halted(): boolean {
    return this.#memory.byte(abi.HALTED) !== 0;
  }

  get interruptsEnabled(): boolean {
    return (this.#memory.word(abi.FLAGS) & 0x200) !== 0;
  }

  read(): CpuState {
    const memory = this.#memory;
    const gpr = new BigUint64Array(GPR_SLOTS);
    for (let index = 0; index < GPRS; index++) gpr[index] = this.#unsigned(abi.GPR + 4 * index);
    const debug = new BigUint64Array(6);
    for (const [slot, index] of [0, 1, 2, 3, 6, 7].entries()) debug[slot] = this.#unsigned(abi.DR + 4 * index);
    const apicEnabled = memory.byte(abi.APIC_ENABLED) !== 0;
    return {
      gpr,
      rip: BigInt(this.#core.get_real_eip() >>> 0),
      rflags: BigInt(this.#core.get_eflags() >>> 0),
      cs: this.#segment(abi.CS, memory.byte(abi.CODE_32) !== 0),
      ds: this.#segment(abi.DS, this.#flat),
      es: this.#segment(abi.ES, this.#flat),
      fs: this.#segment(abi.FS, this.#flat),
      gs: this.#segment(abi.GS, this.#flat),
      ss: this.#segment(abi.SS, memory.byte(abi.STACK_32) !== 0),
      tr: { ...this.#segment(abi.TR, false), attributes: SYSTEM_TYPE_TSS },
      ldtr: { ...this.#segment(abi.LDTR, false), attributes: SYSTEM_TYPE_LDT },
      gdtr: this.#table(abi.GDTR_BASE, abi.GDTR_LIMIT),
      idtr: this.#table(abi.IDTR_BASE, abi.IDTR_LIMIT),
      cr0: this.#unsigned(abi.CR),
      cr2: this.#unsigned(abi.CR + 8),
      cr3: this.#unsigned(abi.CR + 12),
      cr4: this.#unsigned(abi.CR + 16),
      cr8: 0n,
      efer: 0n,
      apicBase:
        BigInt(APIC_BASE | (this.bootstrap ? APIC_BASE_BSP : 0) | (apicEnabled ? APIC_BASE_EN : 0)) & 0xffff_ffffn,
      fxsave: this.#readFpu(),
      debug,
      halted: this.halted,
    };
  }

  /** The linear address of the instruction under way. */
  get programCounter(): number {
    return this.#memory.word(abi.PREVIOUS_IP) >>> 0;
  }

  /** While the module waits for the answer to an access, its registers are in its memory. */
  readonly accessRegisters: AccessRegisters = {
    read: into => {
      for (let index = 0; index < GPRS; index++) into[index] = this.#memory.word(abi.GPR + 4 * index);
    },
    write: from => {
      for (let index = 0; index < GPRS; index++) this.#memory.setWord(abi.GPR + 4 * index, from[index] ?? 0);
    },
  };

  /** What the module cannot hold (the upper halves, r8 to r15, EFER, TF) is dropped. */
  write(state: CpuState): void {
    const memory = this.#memory;
    for (let index = 0; index < GPRS; index++) memory.setWord(abi.GPR + 4 * index, low(state.gpr[index] ?? 0n));
    for (const [slot, index] of [0, 1, 2, 3, 6, 7].entries())
      memory.setWord(abi.DR + 4 * index, low(state.debug[slot] ?? 0n));
    const flags = (low(state.rflags) & FLAGS_KNOWN & ~FLAG_TF) | FLAGS_FIXED;
    memory.setWord(abi.FLAGS, flags);
    memory.setWord(abi.FLAGS_CHANGED, 0);

    const cr0 = low(state.cr0);
    memory.setWord(abi.CR, cr0);
    memory.setWord(abi.CR + 8, low(state.cr2));
    memory.setWord(abi.CR + 12, low(state.cr3));
    memory.setWord(abi.CR + 16, low(state.cr4));
    memory.setByte(abi.PROTECTED_MODE, cr0 & CR0_PE);
    memory.setByte(abi.APIC_ENABLED, (low(state.apicBase) & APIC_BASE_EN) !== 0 ? 1 : 0);
    if ((cr0 & CR0_PG) !== 0 && (low(state.cr4) & CR4_PAE) !== 0) this.#loadPdptes(low(state.cr3) >>> 0);

    this.#setSegment(abi.ES, state.es);
    this.#setSegment(abi.CS, state.cs);
    this.#setSegment(abi.SS, state.ss);
    this.#setSegment(abi.DS, state.ds);
    this.#setSegment(abi.FS, state.fs);
    this.#setSegment(abi.GS, state.gs);
    this.#setSegment(abi.TR, state.tr);
    this.#setSegment(abi.LDTR, state.ldtr);
    memory.setByte(abi.TSS_32, (state.tr.attributes & 8) !== 0 ? 1 : 0);
    this.#setTable(abi.GDTR_BASE, abi.GDTR_LIMIT, state.gdtr);
    this.#setTable(abi.IDTR_BASE, abi.IDTR_LIMIT, state.idtr);
    memory.setByte(abi.CODE_32, (state.cs.attributes & ATTRIBUTE_DB) !== 0 ? 1 : 0);
    memory.setByte(abi.STACK_32, (state.ss.attributes & ATTRIBUTE_DB) !== 0 ? 1 : 0);
    memory.setByte(abi.CPL, privilege(cr0, flags, state));

    memory.setWord(abi.INSTRUCTION_POINTER, low(state.cs.base + state.rip));
    memory.setWord(abi.PREVIOUS_IP, low(state.cs.base + state.rip));
    memory.setWord(abi.PREFIXES, 0);
    memory.setByte(abi.HALTED, state.halted ? 1 : 0);
    this.#writeFpu(state.fxsave);
    this.forgetTranslations();
  }

  /** As MOV CRn does, without its faults. */
  setControlRegister(number: number, value: number): void {
    const memory = this.#memory;
    if (number === 0) {
      value |= CR0_ET;
      memory.setByte(abi.PROTECTED_MODE, value & CR0_PE);
      memory.setByte(abi.SEGMENT_ACCESS + abi.CS, CODE_ACCESS);
    } else if (number === 3) {
      value &= (memory.word(abi.CR + 16) & CR4_PAE) !== 0 ? ~0x1f : ~0xfff;
    }
    memory.setWord(abi.CR + 4 * number, value);
    const paging = (memory.word(abi.CR) & CR0_PG) !== 0;
    if (paging && (memory.word(abi.CR + 16) & CR4_PAE) !== 0) this.#loadPdptes(memory.word(abi.CR + 12) >>> 0);
    this.forgetTranslations();
  }

  /** Page tables, segments or mode were changed from outside. */
  forgetTranslations(): void {
    this.#memory.setWord(abi.CODE_PAGE, -1);
    this.#core.update_state_flags();
    this.#core.full_clear_tlb();
  }

  /** Whether data segments use 32-bit addresses: the module keeps no such bit. */
  get #flat(): boolean {
    return (this.#memory.word(abi.CR) & CR0_PE) !== 0 && this.#memory.byte(abi.CODE_32) !== 0;
  }

  #unsigned(offset: number): bigint {
    return BigInt(this.#memory.word(offset) >>> 0);
  }

  #segment(index: number, big: boolean): SegmentState {
    const memory = this.#memory;
    const limit = memory.word(abi.SEGMENT_LIMIT + 4 * index) >>> 0;
    const wide = limit > LIMIT_WITHOUT_G ? ATTRIBUTE_G : 0;
    return {
      selector: memory.half(abi.SELECTORS + 2 * index),
      base: this.#unsigned(abi.SEGMENT_BASE + 4 * index),
      limit,
      attributes: memory.byte(abi.SEGMENT_ACCESS + index) | wide | (big ? ATTRIBUTE_DB : 0),
      unusable: memory.byte(abi.SEGMENT_IS_NULL + index) !== 0,
    };
  }

  #setSegment(index: number, segment: SegmentState): void {
    const memory = this.#memory;
    const unusable = segment.unusable || (segment.attributes & ATTRIBUTE_P) === 0;
    memory.setHalf(abi.SELECTORS + 2 * index, segment.selector);
    memory.setWord(abi.SEGMENT_BASE + 4 * index, low(segment.base));
    memory.setWord(abi.SEGMENT_LIMIT + 4 * index, segment.limit);
    memory.setByte(abi.SEGMENT_ACCESS + index, segment.attributes & 0xff);
    memory.setByte(abi.SEGMENT_IS_NULL + index, unusable ? 1 : 0);
  }

  #table(base: number, limit: number): DescriptorTable {
    return { base: this.#unsigned(base), limit: this.#memory.word(limit) & 0xffff };
  }

  #setTable(base: number, limit: number, table: DescriptorTable): void {
    this.#memory.setWord(base, low(table.base));
    this.#memory.setWord(limit, table.limit);
  }

  /** Intel SDM volume 3, section 4.4.1: a write of CR3 loads them. */
  #loadPdptes(cr3: number): void {
    const memory = this.#memory;
    const from = this.#ramBase() + (cr3 & ~31);
    memory.bytes.copyWithin(abi.PDPTE, from, from + 8 * PDPTES);
  }

  #readFpu(): Uint8Array {
    const memory = this.#memory;
    const image = new Uint8Array(FX_SIZE);
    const view = new DataView(image.buffer);
    const top = memory.byte(abi.FPU_TOP) & 7;
    view.setUint16(FX_FCW, memory.half(abi.FPU_CONTROL), true);
    view.setUint16(FX_FSW, (memory.half(abi.FPU_STATUS) & ~FSW_TOP) | (top << FSW_TOP_SHIFT), true);
    view.setUint8(FX_FTW, ~memory.byte(abi.FPU_EMPTY));
    view.setUint16(FX_FOP, memory.word(abi.FPU_OPCODE) & 0x7ff, true);
    view.setInt32(FX_FIP, memory.word(abi.FPU_IP), true);
    view.setUint16(FX_FCS, memory.word(abi.FPU_IP_SELECTOR), true);
    view.setInt32(FX_FDP, memory.word(abi.FPU_DP), true);
    view.setUint16(FX_FDS, memory.word(abi.FPU_DP_SELECTOR), true);
    view.setInt32(FX_MXCSR, memory.word(abi.MXCSR), true);
    view.setUint32(FX_MXCSR_MASK, MXCSR_MASK, true);
    const { bytes } = memory;
    for (let index = 0; index < 8; index++) {
      const from = abi.FPU_ST + abi.FPU_ST_STRIDE * ((top + index) & 7);
      image.set(bytes.subarray(from, from + F80_SIZE), FX_ST + FX_ST_STRIDE * index);
    }
    image.set(bytes.subarray(abi.XMM, abi.XMM + 16 * XMMS), FX_XMM);
    return image;
  }

  #writeFpu(image: Uint8Array): void {
    const memory = this.#memory;
    const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
    const status = view.getUint16(FX_FSW, true);
    const top = (status & FSW_TOP) >> FSW_TOP_SHIFT;
    memory.setByte(abi.FPU_TOP, top);
    memory.setHalf(abi.FPU_CONTROL, view.getUint16(FX_FCW, true));
    memory.setHalf(abi.FPU_STATUS, status & ~FSW_TOP);
    memory.setByte(abi.FPU_EMPTY, ~view.getUint8(FX_FTW));
    memory.setWord(abi.FPU_OPCODE, view.getUint16(FX_FOP, true));
    memory.setWord(abi.FPU_IP, view.getInt32(FX_FIP, true));
    memory.setWord(abi.FPU_IP_SELECTOR, view.getUint16(FX_FCS, true));
    memory.setWord(abi.FPU_DP, view.getInt32(FX_FDP, true));
    memory.setWord(abi.FPU_DP_SELECTOR, view.getUint16(FX_FDS, true));
    memory.setWord(abi.MXCSR, view.getUint32(FX_MXCSR, true) & MXCSR_MASK);
    const { bytes } = memory;
    for (let index = 0; index < 8; index++) {
      const from = FX_ST + FX_ST_STRIDE * index;
      bytes.set(image.subarray(from, from + F80_SIZE), abi.FPU_ST + abi.FPU_ST_STRIDE * ((top + index) & 7));
    }
    bytes.set(image.subarray(FX_XMM, FX_XMM + 16 * XMMS), abi.XMM);
  }
}

const RESET_CS_BASE = 0xffff_0000n;
const RESET_IP = 0xfff0n;
const RESET_SELECTOR = 0xf000;

/** `state` as a reset leaves it (Intel SDM volume 3, table 9-1): the first instruction is 16 bytes below 4 GiB. */
export function afterReset(state: CpuState): CpuState {
  const data = { ...state.ds, selector: 0, base: 0n, limit: 0xffff, unusable: false };
  return {
    ...state,
    gpr: new BigUint64Array(GPR_SLOTS),
    rip: RESET_IP,
    cs: { ...state.cs, selector: RESET_SELECTOR, base: RESET_CS_BASE, limit: 0xffff },
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    gdtr: { base: 0n, limit: 0xffff },
    idtr: { base: 0n, limit: 0xffff },
    halted: false,
  };
}

/** `state` as an INIT leaves it: as a reset does but for the x87 FPU, SSE, and what only power-on changes. */
export function afterInit(state: CpuState): CpuState {
  const segment = { selector: 0, base: 0n, limit: 0xffff, attributes: DATA_16, unusable: false };
  const debug = new BigUint64Array([0n, 0n, 0n, 0n, DR6_AT_RESET, DR7_AT_RESET]);
  return afterReset({
    ...state,
    rflags: BigInt(FLAGS_FIXED),
    cs: { ...segment, attributes: CODE_16 },
    ds: segment,
    tr: { ...segment, attributes: SYSTEM_TYPE_TSS },
    ldtr: { ...segment, attributes: SYSTEM_TYPE_LDT },
    // CD and NW stay as they are.
    cr0: BigInt((low(state.cr0) & CR0_CACHE) | CR0_ET) & 0xffff_ffffn,
    cr2: 0n,
    cr3: 0n,
    cr4: 0n,
    debug,
  });
}

/** `state` as a start-up message to that page leaves a CPU after an INIT (Intel SDM volume 3, section 9.4.4). */
export function afterStartUp(state: CpuState, page: number): CpuState {
  return { ...state, rip: 0n, cs: { ...state.cs, selector: page << 8, base: BigInt(page) << 12n } };
}

function low(value: bigint): number {
  return Number(BigInt.asIntN(32, value));
}

function privilege(cr0: number, flags: number, state: CpuState): number {
  if ((cr0 & CR0_PE) === 0) return 0;
  return (flags & FLAG_VM) !== 0 ? 3 : state.cs.selector & 3;
}
