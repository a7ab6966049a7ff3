/** A segment register with its hidden part (Intel SDM volume 3, section 3.4.3). */
export interface SegmentState {
  readonly selector: number;
  readonly base: bigint;
  /** In bytes, after granularity. */
  readonly limit: number;
  /** Access rights as in bits 8 to 23 of a descriptor's high half, shifted down by 8. */
  readonly attributes: number;
  readonly unusable: boolean;
}

export interface DescriptorTable {
  readonly base: bigint;
  readonly limit: number;
}

/** The order of {@link CpuState.gpr}: the encoding order of the Intel SDM. */
export const GPR_NAMES = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;

/** One CPU's architectural state: one layout for all accelerators. */
export interface CpuState {
  readonly gpr: BigUint64Array;
  rip: bigint;
  rflags: bigint;
  cs: SegmentState;
  ds: SegmentState;
  es: SegmentState;
  fs: SegmentState;
  gs: SegmentState;
  ss: SegmentState;
  tr: SegmentState;
  ldtr: SegmentState;
  gdtr: DescriptorTable;
  idtr: DescriptorTable;
  cr0: bigint;
  cr2: bigint;
  cr3: bigint;
  cr4: bigint;
  cr8: bigint;
  efer: bigint;
  apicBase: bigint;
  /** FXSAVE image, 512 bytes. */
  readonly fxsave: Uint8Array;
  /** Debug registers 0 to 3, 6 and 7. */
  readonly debug: BigUint64Array;
  halted: boolean;
}
