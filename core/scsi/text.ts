/** ASCII of a field of fixed length, padded with blanks (SPC-3, section 4.4.1). */
export function putText(out: Uint8Array, at: number, length: number, text: string): void {
  for (let index = 0; index < length; index++) out[at + index] = index < text.length ? text.charCodeAt(index) : 0x20;
}
