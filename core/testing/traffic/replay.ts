import { fieldMask, type LaidOut, type RegisterMap } from '../../register/map.ts';
import { valueText } from '../../register/symbolic.ts';
import type { Access, Traffic } from './traffic.ts';

/** Where traffic can be replayed: registers here, or elsewhere behind a connection. */
export interface ReplayPort {
  read(offset: number, size: number): number | Promise<number>;
  write(offset: number, size: number, value: number): void | Promise<void>;
  /** Lets virtual time pass; absent where time is not ours to move. */
  advance?(deltaNs: number): void | Promise<void>;
}

export interface ReplayOptions {
  /** Names registers and fields in differences. */
  readonly map?: RegisterMap;
  /** What may differ: registers (`COUNT`) and fields (`STATUS.BUSY`) of the map. */
  readonly ignore?: readonly string[];
  /** Whether time passes between accesses as it did; default true. */
  readonly timing?: boolean;
}

/** A read that gave something else than was recorded. */
export interface Difference {
  /** Number of the access, from 0. */
  readonly index: number;
  readonly access: Access;
  readonly actual: number;
  /** `edu.STATUS: 0x80 (IRQ_ON_FACTORIAL) was recorded, 0x0 is read`. */
  readonly text: string;
}

/** Does to `port` what was recorded, and tells which reads give something else. */
export async function replay(traffic: Traffic, port: ReplayPort, options: ReplayOptions = {}): Promise<Difference[]> {
  const { map, ignore = [], timing = true } = options;
  const differences: Difference[] = [];
  let timeNs = 0;
  for (const [index, access] of traffic.accesses.entries()) {
    if (timing && access.timeNs > timeNs) await port.advance?.(access.timeNs - timeNs);
    timeNs = access.timeNs;
    if (access.kind === 'write') {
      await port.write(access.offset, access.size, access.value);
      continue;
    }
    const actual = (await port.read(access.offset, access.size)) >>> 0;
    const entry = map && registerAt(map, access);
    const allowed = entry === undefined ? 0 : ignoredBits(entry, access, ignore);
    if (((actual ^ access.value) & ~allowed) === 0) continue;
    differences.push({ index, access, actual, text: describe(map, entry, access, actual) });
  }
  return differences;
}

/** The register that an access reads whole, or in part. */
function registerAt(map: RegisterMap, { offset, size }: Access): LaidOut | undefined {
  return map.layout.find(({ register, bytes, count, stride }) => {
    const within = offset - register.offset;
    return within >= 0 && within < (count - 1) * stride + bytes && (within % stride) + size <= bytes;
  });
}

/** Where within an element of the register the access is, in bytes. */
const withinOf = ({ register, stride }: LaidOut, { offset }: Access): number => (offset - register.offset) % stride;

function ignoredBits(entry: LaidOut, access: Access, ignore: readonly string[]): number {
  const within = withinOf(entry, access);
  let mask = 0;
  for (const name of ignore) {
    const [register, fieldName] = name.split('.');
    if (register !== entry.name) continue;
    const field = fieldName === undefined ? undefined : entry.register.fields[fieldName];
    if (fieldName === undefined) return -1;
    if (field !== undefined && field.low >> 5 === within >> 2) mask |= fieldMask(field) >>> (8 * (within & 3));
  }
  return mask;
}

function describe(map: RegisterMap | undefined, entry: LaidOut | undefined, access: Access, actual: number): string {
  const hex = (value: number): string => `0x${value.toString(16)}`;
  if (map === undefined || entry === undefined)
    return `${access.size} bytes at ${hex(access.offset)}: ${hex(access.value)} was recorded, ${hex(actual)} is read`;
  const within = withinOf(entry, access);
  const element = Math.floor((access.offset - entry.register.offset) / entry.stride);
  const index = entry.register.options.count === undefined ? '' : `[${element}]`;
  const value = (word: number): string => valueText(entry, within >> 2, (word << (8 * (within & 3))) >>> 0);
  return `${map.name}.${entry.name}${index}: ${value(access.value)} was recorded, ${value(actual)} is read`;
}
