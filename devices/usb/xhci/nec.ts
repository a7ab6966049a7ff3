/** The NEC's answer to a challenge of its driver is made with this. */
const NEC_KEY = 0x4943_4878;

const rotate = (value: number, count: number): number =>
  ((value << (count & 31)) | (value >>> (32 - (count & 31)))) >>> 0;

/** What NEC's driver expects of a controller that is one of theirs. */
export function necAnswer(high: number, low: number): number {
  let value = rotate((low - NEC_KEY) >>> 0, 32 - ((high >>> 8) & 0x1f));
  value += rotate((low + NEC_KEY) >>> 0, high & 0x1f);
  value -= rotate((high ^ NEC_KEY) >>> 0, (low >>> 16) & 0x1f);
  return ~value >>> 0;
}
