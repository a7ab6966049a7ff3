/**
 * Modified UTF-8 as QMP takes it: U+0000 is C0 80; overlong forms, surrogates and noncharacters are invalid
 * (Unicode 15, section 3.9 D92 and 23.7).
 */

/** Whether `codePoint` is one that text may hold. */
export function isCharacter(codePoint: number): boolean {
  if (codePoint < 0 || codePoint > 0x10_ffff) return false;
  if (codePoint >= 0xd800 && codePoint <= 0xdfff) return false;
  if (codePoint >= 0xfdd0 && codePoint <= 0xfdef) return false;
  return (codePoint & 0xfffe) !== 0xfffe;
}

/** Smallest code point of a sequence of `length` bytes: anything below is an overlong form. */
const SHORTEST = [0, 0, 0x80, 0x800, 0x1_0000] as const;

/** Reads the code point at `at`; `length` is the number of bytes that it takes, and `codePoint` -1 where it is invalid. */
export function codePointAt(bytes: Uint8Array, at: number, end: number): { codePoint: number; length: number } {
  const lead = bytes[at] ?? 0;
  if (lead < 0x80) return { codePoint: lead, length: 1 };
  const length = lead >= 0xf0 && lead < 0xf8 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc0 || lead >= 0xf8 || at + length > end) return { codePoint: -1, length: 1 };
  let codePoint = lead & (0x7f >> length);
  for (let index = 1; index < length; index++) {
    const next = bytes[at + index] ?? 0;
    if ((next & 0xc0) !== 0x80) return { codePoint: -1, length: index };
    codePoint = (codePoint << 6) | (next & 0x3f);
  }
  const overlong = codePoint < (SHORTEST[length] ?? 0) && !(codePoint === 0 && length === 2);
  return { codePoint: overlong || !isCharacter(codePoint) ? -1 : codePoint, length };
}
