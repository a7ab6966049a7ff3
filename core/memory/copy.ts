/*
 * V8 copies to and from shared memory word by word, and byte by byte where the two sides lie differently to a word: 0.7 ns a byte
 * against 0.05 (docs/design/network-speed.md). So what lies differently takes a detour over memory that is not shared.
 */

/** Up to here a loop is faster than the view that a copy needs. */
const LOOP_LIMIT = 16;
/** From here on the detour pays. */
const DETOUR_LIMIT = 192;
const WORD = 8;
const STAGE = 0x4000;
const stage = new Uint8Array(STAGE + WORD);

/** Copies `length` bytes of guest RAM from `from` to `target` from `to`. */
export function copyFromRam(ram: Uint8Array, from: number, target: Uint8Array, to: number, length: number): void {
  if (length <= LOOP_LIMIT) {
    for (let index = 0; index < length; index++) target[to + index] = ram[from + index] ?? 0;
    return;
  }
  const lies = (ram.byteOffset + from) & (WORD - 1);
  if (length < DETOUR_LIMIT || lies === ((target.byteOffset + to) & (WORD - 1))) {
    target.set(ram.subarray(from, from + length), to);
    return;
  }
  for (let done = 0; done < length; done += STAGE) {
    const step = Math.min(STAGE, length - done);
    stage.set(ram.subarray(from + done, from + done + step), lies);
    target.set(stage.subarray(lies, lies + step), to + done);
  }
}

/** Copies `length` bytes of `source` from `from` to guest RAM from `to`. */
export function copyToRam(source: Uint8Array, from: number, ram: Uint8Array, to: number, length: number): void {
  if (length <= LOOP_LIMIT) {
    for (let index = 0; index < length; index++) ram[to + index] = source[from + index] ?? 0;
    return;
  }
  const lies = (ram.byteOffset + to) & (WORD - 1);
  if (length < DETOUR_LIMIT || lies === ((source.byteOffset + from) & (WORD - 1))) {
    ram.set(source.subarray(from, from + length), to);
    return;
  }
  for (let done = 0; done < length; done += STAGE) {
    const step = Math.min(STAGE, length - done);
    stage.set(source.subarray(from + done, from + done + step), lies);
    ram.set(stage.subarray(lies, lies + step), to + done);
  }
}
