import { SouthbridgeError } from '../../errors.ts';
import type { DebugOptions, DebugTrap } from '../accelerator.ts';
import * as abi from './abi.ts';

const GUEST_DEBUG_SIZE = 72;
/** struct kvm_guest_debug's copy of the debug registers. */
const DEBUG_REGISTERS = 8;
const DR7_WORD = 7;
const BREAKPOINTS = 4;

/** DR7 (Intel SDM volume 3, section 17.2.4): the global enables, GE, and R/W and LEN of each breakpoint. */
const DR7_GE = 1n << 9n;
const DR7_ALWAYS_SET = 1n << 10n;
const RW = { execute: 0n, write: 1n, access: 3n } as const;
const LEN = new Map([
  [1, 0n],
  [2, 1n],
  [4, 3n],
  [8, 2n],
]);

/** DR6: which breakpoint, and whether it was a step. */
const DR6_BS = 1 << 14;
const EXCEPTION_BP = 3;

/** struct kvm_debug_exit_arch, in words of kvm_run. */
const DEBUG_EXCEPTION = abi.RUN_UNION;
const DEBUG_PC = abi.RUN_UNION + 2;
const DEBUG_DR6 = abi.RUN_UNION + 4;

/** struct kvm_guest_debug (KVM API, section 4.85); with undefined, the one that ends debugging. */
export function encodeGuestDebug(options: DebugOptions | undefined): DataView<ArrayBuffer> {
  const request = new DataView(new ArrayBuffer(GUEST_DEBUG_SIZE));
  if (options === undefined) return request;
  if (options.hardware.length > BREAKPOINTS) {
    throw new SouthbridgeError(
      'ERR_BREAKPOINTS',
      `a CPU has ${BREAKPOINTS} hardware breakpoints, not ${options.hardware.length}`,
    );
  }
  let control = abi.GUESTDBG_ENABLE;
  if (options.singleStep) control |= abi.GUESTDBG_SINGLESTEP;
  if (options.softwareBreakpoints) control |= abi.GUESTDBG_USE_SW_BP;
  if (options.reflect === 'software-breakpoint') control |= abi.GUESTDBG_INJECT_BP;
  if (options.reflect === 'hardware') control |= abi.GUESTDBG_INJECT_DB;
  let dr7 = DR7_GE | DR7_ALWAYS_SET;
  for (const [index, { kind, address, length }] of options.hardware.entries()) {
    const len = LEN.get(length);
    if (len === undefined) throw new SouthbridgeError('ERR_BREAKPOINTS', `a watchpoint cannot watch ${length} bytes`);
    control |= abi.GUESTDBG_USE_HW_BP;
    dr7 |= (2n << BigInt(2 * index)) | (RW[kind] << BigInt(16 + 4 * index)) | (len << BigInt(18 + 4 * index));
    request.setBigUint64(DEBUG_REGISTERS + 8 * index, address, true);
  }
  if (options.hardware.length > 0) request.setBigUint64(DEBUG_REGISTERS + 8 * DR7_WORD, dr7, true);
  request.setUint32(0, control, true);
  return request;
}

/** What KVM_EXIT_DEBUG says. The address is exact to 2^53, and further where it is canonical and high. */
export function decodeDebugExit(words: Int32Array): { address: number; trap: DebugTrap } {
  const address = (words[DEBUG_PC + 1] ?? 0) * 2 ** 32 + ((words[DEBUG_PC] ?? 0) >>> 0);
  if (words[DEBUG_EXCEPTION] === EXCEPTION_BP) return { address, trap: { kind: 'software-breakpoint' } };
  const dr6 = words[DEBUG_DR6] ?? 0;
  if ((dr6 & DR6_BS) === 0) {
    for (let index = 0; index < BREAKPOINTS; index++) {
      if ((dr6 & (1 << index)) !== 0) return { address, trap: { kind: 'hardware', index } };
    }
  }
  return { address, trap: { kind: 'step' } };
}
