/**
 * What follows each opcode (Intel SDM volume 2, appendix A): `.` nothing, `m` ModRM, `b` `w` immediate of 1 or 2 bytes, `z` of
 * the operand's size, `M` `Z` ModRM and such an immediate, `a` an offset of the address's size, `f` a far pointer, `e` ENTER's
 * two, `t` `T` the immediate of TEST in its group, `p` prefix, `x` the two-byte map.
 */
const ONE_BYTE = [
  'mmmmbz..mmmmbz.x',
  'mmmmbz..mmmmbz..',
  'mmmmbzp.mmmmbzp.',
  'mmmmbzp.mmmmbzp.',
  '................',
  '................',
  '..mmppppzZbM....',
  'bbbbbbbbbbbbbbbb',
  'MZMMmmmmmmmmmmmm',
  '..........f.....',
  'aaaa....bz......',
  'bbbbbbbbzzzzzzzz',
  'MMw.mmMZe.w..b..',
  'mmmmbb..mmmmmmmm',
  'bbbbbbbbzzfb....',
  'p.pp..tT......mm',
].join('');
const TWO_BYTES = [
  'mmmmm.......m..M',
  'mmmmmmmmmmmmmmmm',
  'mmmmmmmmmmmmmmmm',
  '........3.5.....',
  'mmmmmmmmmmmmmmmm',
  'mmmmmmmmmmmmmmmm',
  'mmmmmmmmmmmmmmmm',
  'MMMMmmm.mmmmmmmm',
  'zzzzzzzzzzzzzzzz',
  'mmmmmmmmmmmmmmmm',
  '...mMm.....mMmmm',
  'mmmmmmmmmmMmmmmm',
  'mmMmMMMm........',
  'mmmmmmmmmmmmmmmm',
  'mmmmmmmmmmmmmmmm',
  'mmmmmmmmmmmmmmmm',
].join('');
/** No instruction is longer (Intel SDM volume 3, section 6.15, #GP). */
export const MAX_LENGTH = 15;

export interface Instruction {
  readonly length: number;
  /** Of the opcode's last byte, from the instruction's start. */
  readonly opcodeAt: number;
  /** 0x0fxx for the two-byte map. */
  readonly opcode: number;
  readonly repeated: boolean;
  readonly operand32: boolean;
}

/** Measures the instruction that starts `code`, which holds at least {@link MAX_LENGTH} bytes, in 16 or 32-bit code. */
export function measure(code: Uint8Array, bits32: boolean): Instruction {
  let operand32 = bits32;
  let address32 = bits32;
  let repeated = false;
  let at = 0;
  let opcode = code[at] ?? 0;
  while (ONE_BYTE[opcode] === 'p' && at < MAX_LENGTH - 1) {
    if (opcode === 0x66) operand32 = !bits32;
    else if (opcode === 0x67) address32 = !bits32;
    else if (opcode === 0xf2 || opcode === 0xf3) repeated = true;
    opcode = code[++at] ?? 0;
  }
  let kind = ONE_BYTE[opcode] ?? '.';
  if (kind === 'x') {
    const second = code[++at] ?? 0;
    kind = TWO_BYTES[second] ?? 'm';
    opcode = 0x0f00 | second;
    if (kind === '3' || kind === '5') {
      kind = kind === '3' ? 'm' : 'M';
      at++;
    }
  }
  const opcodeAt = at++;
  const operand = operand32 ? 4 : 2;
  const reg = ((code[at] ?? 0) >> 3) & 7;
  if ('mMZtT'.includes(kind)) at += modRmLength(code, at, address32);
  switch (kind) {
    case 'b':
    case 'M':
      at += 1;
      break;
    case 'w':
      at += 2;
      break;
    case 'z':
    case 'Z':
      at += operand;
      break;
    case 'a':
      at += address32 ? 4 : 2;
      break;
    case 'f':
      at += operand + 2;
      break;
    case 'e':
      at += 3;
      break;
    case 't':
      if (reg < 2) at += 1;
      break;
    case 'T':
      if (reg < 2) at += operand;
      break;
  }
  return { length: Math.min(at, MAX_LENGTH), opcodeAt, opcode, repeated, operand32 };
}

/** ModRM, SIB and displacement (Intel SDM volume 2, section 2.1.5). */
function modRmLength(code: Uint8Array, at: number, address32: boolean): number {
  const modRm = code[at] ?? 0;
  const mod = modRm >> 6;
  const rm = modRm & 7;
  if (mod === 3) return 1;
  if (!address32) return mod === 1 ? 2 : mod === 2 || rm === 6 ? 3 : 1;
  const sib = rm === 4 ? 1 : 0;
  if (mod === 1) return 2 + sib;
  if (mod === 2) return 5 + sib;
  const base = sib === 1 ? (code[at + 1] ?? 0) & 7 : rm;
  return base === 5 ? 5 + sib : 1 + sib;
}
