import { SouthbridgeError } from '../../errors.ts';
import type { AccessRegisters, CpuIdentity, DebugOptions, Vcpu } from '../accelerator.ts';
import type { CpuState } from '../cpu-state.ts';
import * as lapic from '../lapic-registers.ts';
import * as abi from './abi.ts';
import type { Addon, NativeVcpu, NativeVm } from './addon.ts';
import { type CpuidEntry, cpuidOf, encodeCpuid, signatureOf } from './cpuid.ts';
import { encodeGuestDebug } from './guest-debug.ts';
import {
  decodeRegs,
  decodeSregs,
  encodeRegs,
  encodeSregs,
  lowHalves,
  REGS_SIZE,
  SREGS_SIZE,
  setLowHalves,
} from './registers.ts';

const XSAVE_LEGACY_SIZE = 512;
/** XSTATE_BV of the XSAVE header: which components are not in their initial state (Intel SDM volume 1, section 13.4.2). */
const XSTATE_BV = 512;
const XSTATE_X87_SSE = 3n;

/** What a vCPU needs of its VM, so that reading state never races with the guest. */
export interface VcpuHost {
  readonly native: NativeVm;
  readonly addon: Addon;
  readonly irqchip: boolean;
  /** What KVM can virtualize here. */
  readonly supportedCpuid: readonly CpuidEntry[];
  /** MSRs that this kernel lists as guest state. */
  readonly msrs: readonly number[];
  /** Brings this vCPU out of the guest with no instruction half done, for the length of `action`. */
  settled<T>(vcpu: KvmVcpu, action: () => T): T;
}

/** All that KVM keeps of one vCPU, each part in the kernel's own layout. */
export interface RawVcpuState {
  readonly regs: Uint8Array;
  readonly sregs: Uint8Array;
  readonly xsave: Uint8Array;
  readonly xcrs: Uint8Array;
  readonly debugregs: Uint8Array;
  readonly events: Uint8Array;
  readonly mpState: Uint8Array;
  /** Empty where the irqchip is ours. */
  readonly lapic: Uint8Array;
  /** Entries of struct kvm_msr_entry: index, reserved, data. */
  readonly msrs: Uint8Array;
}

/** Sizes of the parts; of MSRs there are as many as the kernel lists. */
export const RAW_SIZES = {
  regs: REGS_SIZE,
  sregs: SREGS_SIZE,
  xsave: 4096,
  xcrs: 392,
  debugregs: 128,
  events: 64,
  mpState: 4,
  lapic: lapic.REGISTERS_END,
  msrs: { unit: 16 },
} as const;

/** One KVM vCPU: its registers, its state as a whole, and what answers its exits. */
export class KvmVcpu implements Vcpu {
  readonly index: number;
  readonly native: NativeVcpu;
  /** Halted outside the kernel: only where the irqchip is ours. */
  waiting = false;
  readonly #host: VcpuHost;
  #powerOn: RawVcpuState | undefined;

  constructor(host: VcpuHost, index: number, apicId: number) {
    this.index = index;
    this.#host = host;
    // KVM takes a vCPU's id for its APIC ID.
    this.native = new host.addon.KvmVcpu(host.native, apicId);
  }

  setIdentity(identity: CpuIdentity): void {
    this.#host.settled(this, () => this.powerUp(identity));
  }

  /** Tells the vCPU who it is; what its state is then is what a reset brings back. */
  powerUp(identity: CpuIdentity): void {
    this.native.ioctl(abi.KVM_SET_CPUID2, encodeCpuid(cpuidOf(identity, this.#host.supportedCpuid)));
    const state = this.#powerOn ?? this.readRaw();
    // RDX holds the processor's signature (Intel SDM volume 3, table 9-1).
    const regs = Uint8Array.from(state.regs);
    new DataView(regs.buffer).setBigUint64(8 * 3, BigInt(signatureOf(identity.cpu) >>> 0), true);
    this.#powerOn = { ...state, regs };
    this.writeRaw(this.#powerOn);
  }

  reset(): void {
    this.waiting = false;
    if (this.#powerOn !== undefined) this.writeRaw(this.#powerOn);
  }

  get threadId(): number | undefined {
    return this.native.threadId;
  }

  get halted(): boolean {
    if (!this.#host.irqchip) return this.waiting;
    const state = new Int32Array(1);
    this.native.ioctl(abi.KVM_GET_MP_STATE, state);
    return state[0] === abi.MP_STATE_HALTED;
  }

  readState(): CpuState {
    return this.#host.settled(this, () => {
      const gpr = new BigUint64Array(16);
      const regs = this.#get(abi.KVM_GET_REGS, REGS_SIZE);
      const sregs = this.#get(abi.KVM_GET_SREGS, SREGS_SIZE);
      const debugregs = this.#get(abi.KVM_GET_DEBUGREGS, 128);
      const xsave = this.#get(abi.KVM_GET_XSAVE, 4096);
      const debug = new BigUint64Array(6);
      for (let index = 0; index < 6; index++) debug[index] = view(debugregs).getBigUint64(8 * index, true);
      return {
        gpr,
        ...decodeRegs(view(regs), gpr),
        ...decodeSregs(view(sregs)),
        fxsave: xsave.slice(0, XSAVE_LEGACY_SIZE),
        debug,
        halted: this.halted,
      };
    });
  }

  writeState(state: CpuState): void {
    this.#host.settled(this, () => {
      const sregs = this.#get(abi.KVM_GET_SREGS, SREGS_SIZE);
      encodeSregs(view(sregs), state);
      this.native.ioctl(abi.KVM_SET_SREGS, sregs);
      const regs = new Uint8Array(REGS_SIZE);
      encodeRegs(view(regs), state);
      this.native.ioctl(abi.KVM_SET_REGS, regs);
      const xsave = this.#get(abi.KVM_GET_XSAVE, 4096);
      xsave.set(state.fxsave.subarray(0, XSAVE_LEGACY_SIZE));
      view(xsave).setBigUint64(XSTATE_BV, view(xsave).getBigUint64(XSTATE_BV, true) | XSTATE_X87_SSE, true);
      this.native.ioctl(abi.KVM_SET_XSAVE, xsave);
      const debugregs = this.#get(abi.KVM_GET_DEBUGREGS, 128);
      for (const [index, value] of state.debug.entries()) view(debugregs).setBigUint64(8 * index, value, true);
      this.native.ioctl(abi.KVM_SET_DEBUGREGS, debugregs);
      this.#setHalted(state.halted);
      this.#syncRunPage(sregs);
    });
  }

  /** KVM gives and takes them between an exit and its answer: as VMware's port needs it. */
  readonly accessRegisters: AccessRegisters = {
    read: into => lowHalves(view(this.#get(abi.KVM_GET_REGS, REGS_SIZE)), into),
    write: from => {
      const regs = this.#get(abi.KVM_GET_REGS, REGS_SIZE);
      setLowHalves(view(regs), from);
      this.native.ioctl(abi.KVM_SET_REGS, regs);
    },
  };

  #setHalted(halted: boolean): void {
    if (!this.#host.irqchip) {
      this.waiting = halted;
      return;
    }
    if (halted === this.halted) return;
    const state = halted ? abi.MP_STATE_HALTED : abi.MP_STATE_RUNNABLE;
    this.native.ioctl(abi.KVM_SET_MP_STATE, Int32Array.of(state));
  }

  readRaw(): RawVcpuState {
    const { irqchip } = this.#host;
    return {
      regs: this.#get(abi.KVM_GET_REGS, REGS_SIZE),
      sregs: this.#get(abi.KVM_GET_SREGS, SREGS_SIZE),
      xsave: this.#get(abi.KVM_GET_XSAVE, 4096),
      xcrs: this.#get(abi.KVM_GET_XCRS, 392),
      debugregs: this.#get(abi.KVM_GET_DEBUGREGS, 128),
      events: this.#get(abi.KVM_GET_VCPU_EVENTS, 64),
      mpState: irqchip
        ? this.#get(abi.KVM_GET_MP_STATE, 4)
        : Uint8Array.of(this.waiting ? abi.MP_STATE_HALTED : 0, 0, 0, 0),
      lapic: irqchip ? this.#get(abi.KVM_GET_LAPIC, RAW_SIZES.lapic) : new Uint8Array(0),
      msrs: this.#readMsrs(),
    };
  }

  /** The order matters: XCR0 before XSAVE, the APIC's mode (in sregs and MSRs) before its registers, events last. */
  writeRaw(state: RawVcpuState): void {
    const { native } = this;
    native.ioctl(abi.KVM_SET_REGS, state.regs);
    native.ioctl(abi.KVM_SET_XCRS, state.xcrs);
    native.ioctl(abi.KVM_SET_XSAVE, state.xsave);
    native.ioctl(abi.KVM_SET_SREGS, state.sregs);
    this.#writeMsrs(state.msrs);
    if (this.#host.irqchip) {
      native.ioctl(abi.KVM_SET_MP_STATE, state.mpState);
      native.ioctl(abi.KVM_SET_LAPIC, state.lapic);
    } else {
      this.waiting = state.mpState[0] === abi.MP_STATE_HALTED;
    }
    native.ioctl(abi.KVM_SET_VCPU_EVENTS, state.events);
    native.ioctl(abi.KVM_SET_DEBUGREGS, state.debugregs);
    this.#syncRunPage(state.sregs);
  }

  readLapic(): Uint32Array | undefined {
    if (!this.#host.irqchip) return undefined;
    const page = this.#host.settled(this, () => this.#get(abi.KVM_GET_LAPIC, RAW_SIZES.lapic));
    const registers = view(page);
    return lapic.registersOf(offset => registers.getUint32(offset, true));
  }

  setDebug(options: DebugOptions | undefined): void {
    this.#host.settled(this, () => this.native.ioctl(abi.KVM_SET_GUEST_DEBUG, encodeGuestDebug(options)));
  }

  /** The byte's guest-physical address, or undefined where nothing is mapped. */
  translate(linear: bigint): number | undefined {
    return this.#host.settled(this, () => this.#translate(linear));
  }

  #translate(linear: bigint): number | undefined {
    const translation = new DataView(new ArrayBuffer(24));
    translation.setBigUint64(0, linear, true);
    try {
      this.native.ioctl(abi.KVM_TRANSLATE, translation);
    } catch {
      return undefined;
    }
    return translation.getUint8(16) !== 0 ? Number(translation.getBigUint64(8, true)) : undefined;
  }

  /** Without the kernel's LAPIC, KVM_RUN takes CR8 and the APIC base from the page (KVM API, section 5). */
  #syncRunPage(sregs: Uint8Array): void {
    const page = new BigUint64Array(this.native.page, 0, 4);
    page[abi.RUN_CR8 / 2] = view(sregs).getBigUint64(256, true);
    page[abi.RUN_APIC_BASE / 2] = view(sregs).getBigUint64(272, true);
  }

  #readMsrs(): Uint8Array {
    const entries: Uint8Array[] = [];
    let rest: readonly number[] = this.#host.msrs;
    while (rest.length > 0) {
      const list = msrList(rest.map(index => ({ index, value: 0n })));
      const done = this.native.ioctl(abi.KVM_GET_MSRS, list);
      entries.push(new Uint8Array(list.buffer, 8, 16 * done));
      // The kernel stops at an MSR that it lists and yet refuses: go on behind it.
      rest = rest.slice(done + 1);
    }
    return Buffer.concat(entries);
  }

  #writeMsrs(entries: Uint8Array): void {
    for (let at = 0; at < entries.length; ) {
      const list = new Uint8Array(8 + entries.length - at);
      view(list).setUint32(0, (entries.length - at) / 16, true);
      list.set(entries.subarray(at), 8);
      at += 16 * (this.native.ioctl(abi.KVM_SET_MSRS, list) + 1);
    }
  }

  #get(request: number, size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    try {
      this.native.ioctl(request, bytes);
    } catch (cause) {
      throw new SouthbridgeError(
        'ERR_KVM_STATE',
        `KVM refuses state 0x${request.toString(16)} of CPU ${this.index}`,
        undefined,
        { cause },
      );
    }
    return bytes;
  }
}

function msrList(msrs: readonly { index: number; value: bigint }[]): DataView<ArrayBuffer> {
  const list = new DataView(new ArrayBuffer(8 + 16 * msrs.length));
  list.setUint32(0, msrs.length, true);
  for (const [number, msr] of msrs.entries()) {
    list.setUint32(8 + 16 * number, msr.index, true);
    list.setBigUint64(16 + 16 * number, msr.value, true);
  }
  return list;
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
