import { SouthbridgeError } from '../../errors.ts';
import * as abi from './abi.ts';
import { CONTEXT_SIZE, type CpuContext } from './cpu-set.ts';
import { SHADOW_SIZE } from './guest-memory.ts';

const MAGIC = 0x5357_4233;
const HEADER = 28;
/** What waits for a CPU stands before its registers. */
const WAITING_SIZE = 4;
const CPU_SIZE = WAITING_SIZE + CONTEXT_SIZE;
const NMI = 1;
const INIT = 2;
const WAITING = 4;
const START = 8;
const PAGE_SHIFT = 8;

/** Everything that a run depends on besides RAM as it is shown. */
export interface WasmState {
  /** Milliseconds of the VM's clock when it was saved. */
  readonly nowMs: number;
  readonly levels: number;
  readonly random: number;
  /** The CPU whose turn it was. */
  readonly current: number;
  readonly cpus: readonly SavedCpu[];
  readonly irqchip: Uint8Array;
  /** RAM from C0000 to FFFFF: what is shown there may be something else. */
  readonly shadowed: Uint8Array;
}

export type SavedCpu = Pick<CpuContext, 'bytes' | 'nmiWanted' | 'initWanted' | 'waiting' | 'startPage'>;

export function encodeState(state: WasmState): Uint8Array {
  const { cpus, irqchip, shadowed } = state;
  const bytes = new Uint8Array(HEADER + cpus.length * CPU_SIZE + irqchip.length + SHADOW_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setInt32(4, state.levels, true);
  view.setFloat64(8, state.nowMs, true);
  view.setInt32(16, state.random, true);
  view.setUint32(20, cpus.length, true);
  view.setUint32(24, state.current, true);
  let at = HEADER;
  for (const cpu of cpus) {
    view.setUint32(at, encodeWaiting(cpu), true);
    bytes.set(cpu.bytes, at + WAITING_SIZE);
    at += CPU_SIZE;
  }
  bytes.set(irqchip, at);
  bytes.set(shadowed, at + irqchip.length);
  return bytes;
}

/**
 * Checks what the module would trust blindly: sizes, RAM, and that the CPUs' privilege and x87 stack pointer are possible.
 * @throws SouthbridgeError ERR_STATE_FORMAT
 */
export function decodeState(bytes: Uint8Array, ramSize: number, cpuCount: number, irqchipSize: number): WasmState {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const irqchipAt = HEADER + cpuCount * CPU_SIZE;
  if (bytes.length < HEADER || view.getUint32(0, true) !== MAGIC) {
    throw new SouthbridgeError('ERR_STATE_FORMAT', 'this is not the state of a wasm CPU, or not of this version');
  }
  const saved = view.getUint32(20, true);
  if (saved !== cpuCount) {
    throw new SouthbridgeError('ERR_STATE_FORMAT', `the state is of ${saved} CPUs, and this machine has ${cpuCount}`);
  }
  const current = view.getUint32(24, true);
  const nowMs = view.getFloat64(8, true);
  if (bytes.length !== irqchipAt + irqchipSize + SHADOW_SIZE || !Number.isFinite(nowMs) || current >= cpuCount) {
    throw new SouthbridgeError('ERR_STATE_FORMAT', 'the state of the wasm CPU is damaged');
  }
  const cpus = Array.from({ length: cpuCount }, (_, index) => {
    const at = HEADER + index * CPU_SIZE;
    const registers = new Uint8Array(bytes.subarray(at + WAITING_SIZE, at + CPU_SIZE));
    checkCpu(registers, ramSize);
    return { bytes: registers, ...decodeWaiting(view.getUint32(at, true)) };
  });
  return {
    nowMs,
    levels: view.getInt32(4, true),
    random: view.getInt32(16, true),
    current,
    cpus,
    irqchip: bytes.slice(irqchipAt, irqchipAt + irqchipSize),
    shadowed: bytes.slice(irqchipAt + irqchipSize),
  };
}

function checkCpu(registers: Uint8Array, ramSize: number): void {
  const view = new DataView(registers.buffer);
  const at = (offset: number): number => offset - abi.STATE_START;
  const saved = view.getUint32(at(abi.RAM_SIZE), true);
  if (saved !== ramSize) {
    throw new SouthbridgeError('ERR_STATE_FORMAT', `the saved CPU has ${saved} bytes of RAM and this one ${ramSize}`);
  }
  if (view.getUint8(at(abi.CPL)) > 3 || view.getUint8(at(abi.FPU_TOP)) > 7) {
    throw new SouthbridgeError('ERR_STATE_FORMAT', 'the saved CPU is in a state that no CPU can be in');
  }
}

function encodeWaiting({ nmiWanted, initWanted, waiting, startPage }: SavedCpu): number {
  const flags = (nmiWanted ? NMI : 0) | (initWanted ? INIT : 0) | (waiting ? WAITING : 0);
  return startPage < 0 ? flags : flags | START | (startPage << PAGE_SHIFT);
}

function decodeWaiting(word: number): Omit<SavedCpu, 'bytes'> {
  return {
    nmiWanted: (word & NMI) !== 0,
    initWanted: (word & INIT) !== 0,
    waiting: (word & WAITING) !== 0,
    startPage: (word & START) !== 0 ? (word >> PAGE_SHIFT) & 0xff : -1,
  };
}
