import { SouthbridgeError } from '../../errors.ts';

/** 'SBKV', then the version, the number of sections, and each section's name and bytes with their lengths before them. */
const MAGIC = 0x564b_4253;
const VERSION = 1;
const HEADER_SIZE = 12;
const MAX_SECTIONS = 16_384;

/** Named byte strings as one. */
export function encodeSections(sections: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const header = Buffer.alloc(HEADER_SIZE);
  header.writeUInt32LE(MAGIC, 0);
  header.writeUInt32LE(VERSION, 4);
  header.writeUInt32LE(sections.size, 8);
  const parts: Uint8Array[] = [header];
  for (const [name, bytes] of sections) {
    const label = Buffer.from(name, 'latin1');
    const lengths = Buffer.alloc(8);
    lengths.writeUInt32LE(label.length, 0);
    lengths.writeUInt32LE(bytes.length, 4);
    parts.push(lengths, label, bytes);
  }
  return new Uint8Array(Buffer.concat(parts));
}

/**
 * The opposite. The bytes may come from anywhere: every length is checked, and nothing may be left over.
 * @throws SouthbridgeError ERR_STATE_FORMAT
 */
export function decodeSections(state: Uint8Array): Map<string, Uint8Array> {
  const bytes = Buffer.from(state.buffer, state.byteOffset, state.byteLength);
  if (bytes.length < HEADER_SIZE || bytes.readUInt32LE(0) !== MAGIC) throw malformed('it is not KVM state');
  if (bytes.readUInt32LE(4) !== VERSION) throw malformed(`its version is ${bytes.readUInt32LE(4)}, not ${VERSION}`);
  const count = bytes.readUInt32LE(8);
  if (count > MAX_SECTIONS) throw malformed(`it has ${count} sections`);
  const sections = new Map<string, Uint8Array>();
  let at = HEADER_SIZE;
  for (let index = 0; index < count; index++) {
    if (bytes.length - at < 8) throw malformed('it ends early');
    const nameLength = bytes.readUInt32LE(at);
    const length = bytes.readUInt32LE(at + 4);
    at += 8;
    if (nameLength + length > bytes.length - at) throw malformed('it ends early');
    const name = bytes.toString('latin1', at, at + nameLength);
    if (sections.has(name)) throw malformed(`section '${name}' is there twice`);
    at += nameLength;
    sections.set(name, Uint8Array.from(bytes.subarray(at, at + length)));
    at += length;
  }
  if (at !== bytes.length) throw malformed('something follows it');
  return sections;
}

/** Takes the section `name` out, of exactly `size` bytes, or of whole multiples of `unit`. */
export function takeSection(
  sections: Map<string, Uint8Array>,
  name: string,
  size: number | { unit: number },
): Uint8Array {
  const bytes = sections.get(name);
  if (bytes === undefined) throw malformed(`section '${name}' is missing`);
  const fits = typeof size === 'number' ? bytes.length === size : bytes.length % size.unit === 0;
  if (!fits) throw malformed(`section '${name}' has ${bytes.length} bytes`);
  sections.delete(name);
  return bytes;
}

export function malformed(what: string): SouthbridgeError {
  return new SouthbridgeError('ERR_STATE_FORMAT', `the accelerator's state cannot be restored: ${what}`);
}
