import type { GuestRam } from '../../memory/guest-ram.ts';
import type { Accelerator, Vcpu, Vm, VmOptions } from '../accelerator.ts';
import type { CpuState, SegmentState } from '../cpu-state.ts';

/** Reset values of Intel SDM volume 3, table 9-1. */
const CR0_AT_RESET = 0x6000_0010n;
const RFLAGS_AT_RESET = 2n;
const EDX_AT_RESET = 0x663n;
const APIC_BASE_AT_RESET = 0xfee0_0900n;
const DR6_AT_RESET = 0xffff_0ff0n;
const DR7_AT_RESET = 0x400n;
const FCW_AT_RESET = 0x40;
const MXCSR_AT_RESET = 0x1f80;
const CODE_ATTRIBUTES = 0x9b;
const DATA_ATTRIBUTES = 0x93;
const LDT_ATTRIBUTES = 0x82;
const TSS_ATTRIBUTES = 0x8b;

/**
 * No CPU at all: a test, or a client of the qtest protocol, drives the buses and the clock. Time stands still until
 * someone advances the machine's virtual clock, so nothing here ever runs.
 */
export const qtest: Accelerator = {
  name: 'qtest',
  summary: 'no CPU: a hardware test or a qtest client drives the buses and the clock',
  caps: {
    irqchip: 'never',
    pit: false,
    maxCpus: 288,
    maxRam: 2 ** 52,
    longMode: true,
    readonlyMemory: true,
    ioeventfd: false,
    irqfd: false,
    coalescedIo: false,
    dirtyLog: false,
    smm: true,
  },
  probe(): void {},
  createVm: (options: VmOptions): Vm => new QtestVm(options.cpus),
};

class QtestVm implements Vm {
  readonly vcpus: readonly Vcpu[];
  readonly #cpus: readonly IdleVcpu[];

  constructor(cpus: number) {
    this.#cpus = Array.from({ length: cpus }, (_, index) => new IdleVcpu(index));
    this.vcpus = this.#cpus;
  }

  mapRam(_gpa: number, _ram: GuestRam, _offset: number, _size: number, _readonly: boolean): void {}
  unmapRam(_gpa: number, _size: number): void {}
  setIrq(_gsi: number, _level: boolean): void {}
  injectMsi(_address: number, _data: number): void {}
  injectNmi(): void {}
  dmaWritten(_gpa: number, _length: number): void {}
  start(): void {}
  pause(): void {}
  kick(): void {}
  dispose(): void {}

  reset(): void {
    for (const cpu of this.#cpus) cpu.reset();
  }
}

/** Registers that hold what is written to them. */
class IdleVcpu implements Vcpu {
  readonly index: number;
  #state: CpuState;

  constructor(index: number) {
    this.index = index;
    this.#state = powerOnState(index);
  }

  get halted(): boolean {
    return this.#state.halted;
  }

  readState(): CpuState {
    return structuredClone(this.#state);
  }

  writeState(state: CpuState): void {
    this.#state = structuredClone(state);
  }

  reset(): void {
    this.#state = powerOnState(this.index);
  }
}

/** CPU 0 is the bootstrap processor; the others wait for its start-up message. */
function powerOnState(index: number): CpuState {
  const segment = (selector: number, base: bigint, attributes: number): SegmentState => ({
    selector,
    base,
    limit: 0xffff,
    attributes,
    unusable: false,
  });
  const data = segment(0, 0n, DATA_ATTRIBUTES);
  const gpr = new BigUint64Array(16);
  gpr[2] = EDX_AT_RESET;
  const fxsave = new Uint8Array(512);
  new DataView(fxsave.buffer).setUint16(0, FCW_AT_RESET, true);
  new DataView(fxsave.buffer).setUint32(24, MXCSR_AT_RESET, true);
  return {
    gpr,
    rip: 0xfff0n,
    rflags: RFLAGS_AT_RESET,
    cs: segment(0xf000, 0xffff_0000n, CODE_ATTRIBUTES),
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    tr: segment(0, 0n, TSS_ATTRIBUTES),
    ldtr: segment(0, 0n, LDT_ATTRIBUTES),
    gdtr: { base: 0n, limit: 0xffff },
    idtr: { base: 0n, limit: 0xffff },
    cr0: CR0_AT_RESET,
    cr2: 0n,
    cr3: 0n,
    cr4: 0n,
    cr8: 0n,
    efer: 0n,
    apicBase: index === 0 ? APIC_BASE_AT_RESET : APIC_BASE_AT_RESET & ~0x100n,
    fxsave,
    debug: BigUint64Array.of(0n, 0n, 0n, 0n, DR6_AT_RESET, DR7_AT_RESET),
    halted: index !== 0,
  };
}
