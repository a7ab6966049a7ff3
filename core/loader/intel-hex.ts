/** Intel's hexadecimal object file format (Intel, "Hexadecimal Object File Format Specification", revision A). */
import { type Segment, segment } from './image.ts';

const RECORD = {
  DATA: 0,
  END_OF_FILE: 1,
  EXTENDED_SEGMENT_ADDRESS: 2,
  START_SEGMENT_ADDRESS: 3,
  EXTENDED_LINEAR_ADDRESS: 4,
  START_LINEAR_ADDRESS: 5,
} as const;

/** Bytes of a record besides its data: length, address, type, checksum. */
const OVERHEAD = 5;

export interface HexImage {
  readonly segments: readonly Segment[];
  /** Where the program begins; 0 where the file does not say. */
  readonly entry: number;
}

/** Reads a file of such records; undefined where it is none. */
export function parseIntelHex(image: Uint8Array): HexImage | undefined {
  if (image.find(byte => byte > 0x20) !== ':'.charCodeAt(0)) return undefined;
  const chunks: { address: number; bytes: number[] }[] = [];
  let base = 0;
  let entry = 0;
  for (const line of Buffer.from(image)
    .toString('latin1')
    .split(/[\r\n]+/)) {
    if (line.trim() === '') continue;
    const record = parseRecord(line);
    if (record === undefined) return undefined;
    const { address, type, data } = record;
    switch (type) {
      case RECORD.DATA: {
        const at = base + address;
        const last = chunks.at(-1);
        if (last !== undefined && last.address + last.bytes.length === at) last.bytes.push(...data);
        else chunks.push({ address: at, bytes: [...data] });
        break;
      }
      case RECORD.END_OF_FILE:
        return { segments: chunks.map(chunk => segment(chunk.address, Uint8Array.from(chunk.bytes))), entry };
      case RECORD.EXTENDED_SEGMENT_ADDRESS:
        if (data.length !== 2) return undefined;
        base = data.readUInt16BE(0) * 16;
        break;
      case RECORD.EXTENDED_LINEAR_ADDRESS:
        if (data.length !== 2) return undefined;
        base = data.readUInt16BE(0) * 0x1_0000;
        break;
      case RECORD.START_SEGMENT_ADDRESS:
        if (data.length !== 4) return undefined;
        entry = data.readUInt16BE(0) * 16 + data.readUInt16BE(2);
        break;
      case RECORD.START_LINEAR_ADDRESS:
        if (data.length !== 4) return undefined;
        entry = data.readUInt32BE(0);
        break;
      default:
        return undefined;
    }
  }
  return { segments: chunks.map(chunk => segment(chunk.address, Uint8Array.from(chunk.bytes))), entry };
}

/** All bytes of a record, its checksum among them, sum up to 0. */
function parseRecord(line: string): { address: number; type: number; data: Buffer } | undefined {
  const digits = line.replaceAll(/\s/g, '');
  if (!/^:([0-9a-f]{2})+$/i.test(digits)) return undefined;
  const bytes = Buffer.from(digits.slice(1), 'hex');
  const length = bytes[0] ?? 0;
  if (bytes.length !== length + OVERHEAD || (bytes.reduce((sum, byte) => sum + byte, 0) & 0xff) !== 0) return undefined;
  return { address: bytes.readUInt16BE(1), type: bytes[3] ?? 0, data: bytes.subarray(4, 4 + length) };
}
