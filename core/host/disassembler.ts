import { SouthbridgeError } from '../errors.ts';
import { hostCalls } from './calls.ts';

/** One x86 instruction. */
export interface Instruction {
  readonly bytes: number;
  readonly mnemonic: string;
  /** In AT&T's syntax. */
  readonly operands: string;
}

/**
 * The first instruction in `code`; what is none is a `.byte`. Undefined where there is nothing.
 *
 * @throws SouthbridgeError ERR_DISASSEMBLER where this host has no libcapstone
 */
export function disassemble(code: Uint8Array, address: bigint, bits: 16 | 32 | 64): Instruction | undefined {
  const found = hostCalls().disassemble(code, address, bits);
  if (typeof found === 'string') {
    throw new SouthbridgeError(
      'ERR_DISASSEMBLER',
      `there is no disassembler: ${found}`,
      'install libcapstone 4 or 5 (Debian: libcapstone4)',
    );
  }
  if (found === undefined) return undefined;
  const [bytes, mnemonic, operands] = found;
  return { bytes, mnemonic, operands };
}
