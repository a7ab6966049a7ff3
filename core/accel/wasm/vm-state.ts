import { SouthbridgeError } from '../../errors.ts';
import * as abi from './abi.ts';
import { SHADOW_SIZE } from './guest-memory.ts';

const MAGIC = 0x5357_4232;
const HEADER = 24;
const CPU_SIZE = abi.STATE_END - abi.STATE_START;

/** Everything that a run depends on besides RAM as it is shown. */
export interface WasmState {
  /** Milliseconds of the VM's clock when it was saved. */
  readonly nowMs: number;
  readonly levels: number;
  readonly random: number;
  readonly cpu: Uint8Array;
  readonly irqchip: Uint8Array;
  /** RAM from C0000 to FFFFF: what is shown there may be something else. */
  readonly shadowed: Uint8Array;
}

export function encodeState(state: WasmState): Uint8Array {
  const bytes = new Uint8Array(HEADER + state.cpu.length + state.irqchip.length + SHADOW_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setInt32(4, state.levels, true);
  view.setFloat64(8, state.nowMs, true);
  view.setInt32(16, state.random, true);
  bytes.set(state.cpu, HEADER);
  bytes.set(state.irqchip, HEADER + state.cpu.length);
  bytes.set(state.shadowed, HEADER + state.cpu.length + state.irqchip.length);
  return bytes;
}

/**
 * Checks what the module would trust blindly: sizes, RAM, and that the CPU's privilege and x87 stack pointer are possible.
 * @throws SouthbridgeError ERR_STATE_FORMAT
 */
export function decodeState(bytes: Uint8Array, ramSize: number, irqchipSize: number): WasmState {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length !== HEADER + CPU_SIZE + irqchipSize + SHADOW_SIZE || view.getUint32(0, true) !== MAGIC) {
    throw new SouthbridgeError('ERR_STATE_FORMAT', 'this is not the state of a wasm CPU, or not of this version');
  }
  const nowMs = view.getFloat64(8, true);
  const at = (offset: number): number => HEADER + offset - abi.STATE_START;
  const saved = view.getUint32(at(abi.RAM_SIZE), true);
  if (saved !== ramSize) {
    throw new SouthbridgeError('ERR_STATE_FORMAT', `the saved CPU has ${saved} bytes of RAM and this one ${ramSize}`);
  }
  if (!Number.isFinite(nowMs) || view.getUint8(at(abi.CPL)) > 3 || view.getUint8(at(abi.FPU_TOP)) > 7) {
    throw new SouthbridgeError('ERR_STATE_FORMAT', 'the saved CPU is in a state that no CPU can be in');
  }
  return {
    nowMs,
    levels: view.getInt32(4, true),
    random: view.getInt32(16, true),
    cpu: bytes.slice(HEADER, HEADER + CPU_SIZE),
    irqchip: bytes.slice(HEADER + CPU_SIZE, HEADER + CPU_SIZE + irqchipSize),
    shadowed: bytes.slice(HEADER + CPU_SIZE + irqchipSize),
  };
}
