/**
 * Machine code as bytes: hexadecimal digits, comments from `;` to the end of the line, and in `${}` a byte or several.
 *
 *     code`b0 01 e6 ${PORT}   ; mov al, 1; out PORT, al`
 */
export function code(text: TemplateStringsArray, ...values: readonly (number | readonly number[])[]): number[] {
  const bytes: number[] = [];
  let inComment = false;
  for (const [index, part] of text.entries()) {
    for (const [number, line] of part.split('\n').entries()) {
      if (number > 0) inComment = false;
      const [digits = '', comment] = inComment ? ['', ''] : line.split(';', 2);
      if (comment !== undefined) inComment = true;
      bytes.push(...(digits.match(/[0-9a-f]{2}/g) ?? []).map(pair => Number.parseInt(pair, 16)));
    }
    const value = values[index];
    if (value === undefined || inComment) continue;
    if (typeof value === 'number') bytes.push(value & 0xff);
    else bytes.push(...value);
  }
  return bytes;
}

/** A 32-bit value as its four bytes, the lowest first. */
export const dword = (value: number): number[] => [
  value & 255,
  (value >>> 8) & 255,
  (value >>> 16) & 255,
  value >>> 24,
];
