/** How qemu-io shows amounts and times. Its users' scripts read these lines, so they are the same to the letter. */

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** `64 KiB`, `1.500 MiB`, `512 bytes`. */
export function amount(bytes: number): string {
  let value = bytes;
  let unit = 'bytes';
  for (const next of UNITS) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  const text = value.toFixed(unit === 'bytes' ? 6 : 3);
  return `${text.replace(/\.000.*/, '')} ${unit}`;
}

/** `00.25 sec`; `h:mm:ss.ss` from a second on, or always where `fixed`. */
function duration(ms: number, fixed: boolean): string {
  const seconds = ms / 1000;
  const rest = (seconds % 60).toFixed(2).padStart(5, '0');
  if (!fixed && seconds < 1) return `${rest} sec`;
  const minutes = Math.floor(seconds / 60) % 60;
  return `${Math.floor(seconds / 3600)}:${String(minutes).padStart(2, '0')}:${rest}`;
}

/** What was done, and how fast. */
export function transferReport(done: string, offset: number, bytes: number, ms: number, terse: boolean): string {
  const perSecond = 1000 / Math.max(ms, 1e-6);
  if (terse) {
    const rates = `${(bytes * perSecond).toFixed(3)},${perSecond.toFixed(3)}`;
    return `${bytes},1,${duration(ms, true)},${rates}\n`;
  }
  const rates = `${amount(bytes * perSecond)}/sec and ${perSecond.toFixed(4)} ops/sec`;
  return `${done} ${bytes}/${bytes} bytes at offset ${offset}\n${amount(bytes)}, 1 ops; ${duration(ms, false)} (${rates})\n`;
}

/** `-v`: sixteen bytes a line, in hexadecimal and as text. */
export function hexDump(bytes: Uint8Array, offset: number): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 16) {
    const line = bytes.subarray(at, at + 16);
    const hex = Array.from(line, byte => byte.toString(16).padStart(2, '0'));
    const plain = Array.from(line, byte => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.'));
    text += `${(offset + at).toString(16).padStart(8, '0')}:  ${hex.join(' ')}  ${plain.join('')}\n`;
  }
  return text;
}
