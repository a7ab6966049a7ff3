/** Numbers, sizes and switches as QEMU's command line writes them. All return undefined where the text is not one. */

const NUMBER = /^[ \t\n\r\f\v]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)$/;

/** C's `strtoull(text, 0)` with nothing behind it: decimal, `0x` or octal, the sign kept apart. */
function magnitude(text: string): { readonly negative: boolean; readonly value: bigint } | undefined {
  const match = NUMBER.exec(text);
  const digits = match?.[2];
  if (digits === undefined) return undefined;
  const octal = digits.length > 1 && digits[0] === '0' && !/^0x/i.test(digits);
  return { negative: match?.[1] === '-', value: BigInt(octal ? `0o${digits.slice(1)}` : digits) };
}

/** An int64. */
export function parseSigned(text: string): bigint | undefined {
  const parsed = magnitude(text);
  if (parsed === undefined) return undefined;
  const value = parsed.negative ? -parsed.value : parsed.value;
  return BigInt.asIntN(64, value) === value ? value : undefined;
}

/** A uint64; a minus sign wraps around, as in C. `'range'` where it is a number but too large. */
export function parseUnsignedOrRange(text: string): bigint | 'range' | undefined {
  const parsed = magnitude(text);
  if (parsed === undefined) return undefined;
  if (parsed.value >= 2n ** 64n) return 'range';
  return BigInt.asUintN(64, parsed.negative ? -parsed.value : parsed.value);
}

export function parseUnsigned(text: string): bigint | undefined {
  const parsed = parseUnsignedOrRange(text);
  return parsed === 'range' ? undefined : parsed;
}

const SIZE = /^\s*\+?(?:(0[xX][0-9a-fA-F]+)|([0-9]+)(?:\.([0-9]*))?)([bBkKmMgGtTpPeE]?)$/;
const SCALE = 'BKMGTPE';

/**
 * Bytes: decimal with a fraction and a suffix from k to E (powers of 1024), or hexadecimal; `'range'` where it exceeds
 * 64 bits. `unit` is the suffix that a bare number has: `M` for `-m`.
 */
export function parseSizeOrRange(text: string, unit: 'B' | 'M' = 'B'): bigint | 'range' | undefined {
  const match = SIZE.exec(text);
  if (match === null) return undefined;
  const [, hex, whole, fraction = '', suffix = ''] = match;
  const power = SCALE.indexOf((suffix || unit).toUpperCase());
  const scale = 1024n ** BigInt(power);
  let bytes = BigInt(hex ?? whole ?? '0') * scale;
  if (/[1-9]/.test(fraction)) {
    if (power === 0) return undefined;
    const denominator = 10n ** BigInt(fraction.length);
    bytes += (BigInt(fraction) * scale * 2n + denominator) / (2n * denominator);
  }
  return bytes < 2n ** 64n ? bytes : 'range';
}

export function parseSize(text: string, unit: 'B' | 'M' = 'B'): bigint | undefined {
  const parsed = parseSizeOrRange(text, unit);
  return parsed === 'range' ? undefined : parsed;
}

export function parseBool(text: string): boolean | undefined {
  if (text === 'on' || text === 'yes' || text === 'true' || text === 'y') return true;
  if (text === 'off' || text === 'no' || text === 'false' || text === 'n') return false;
  return undefined;
}

/** Whether an option argument asks for help. */
export const isHelp = (value: unknown): boolean => value === 'help' || value === '?';
