/** The CXL Early Discovery Table (CXL 2.0, section 9.14.1, and its ECN for fixed memory windows): host bridges, and where their memory may be. */
import type { TableContent } from './acpi-blob.ts';
import { concat, u8, u16, u32, u64 } from './aml.ts';

const STRUCTURE = { HOST_BRIDGE: 0, FIXED_WINDOW: 1 } as const;
const HOST_BRIDGE_SIZE = 32;
const FIXED_WINDOW_SIZE = 36;
const TARGET_SIZE = 4;
/** Of a host bridge: CXL 2.0, whose registers are a block of component registers. */
const VERSION_2_0 = 1;
const MODULO = 0;
/** Memory of type 2 and 3, volatile and persistent. */
const ANY_USE = 0x0f;
const FIRST_QOS_GROUP = 0;

/** Interleave ways, in their encoding (ECN "3, 6, 12 and 16-way memory interleaving"). */
const WAYS: ReadonlyMap<number, number> = new Map([
  [1, 0x0],
  [2, 0x1],
  [4, 0x2],
  [8, 0x3],
  [16, 0x4],
  [3, 0x8],
  [6, 0x9],
  [12, 0xa],
]);
/** Bytes that go to one target, 256 to 16 Ki, in their encoding. */
const GRANULARITIES: readonly number[] = [256, 512, 1024, 2048, 4096, 8192, 16_384];

/** The encoding of `ways`, or undefined where there is none. */
export function encodedWays(ways: number): number | undefined {
  return WAYS.get(ways);
}

/** The encoding of a granularity in bytes, or undefined where there is none. */
export function encodedGranularity(bytes: number): number | undefined {
  const index = GRANULARITIES.indexOf(bytes);
  return index < 0 ? undefined : index;
}

export interface CxlFacts {
  /** Each with the number of its bus, and where its registers are. Bytes. */
  readonly hosts: readonly { readonly uid: number; readonly base: number; readonly size: number }[];
  /** Each with the bus numbers of its host bridges, in turn. Bytes. */
  readonly windows: readonly {
    readonly base: number;
    readonly size: number;
    readonly granularity: number;
    readonly targets: readonly number[];
  }[];
}

/** 9.14.1.2: a host bridge. */
function hostBridge({ uid, base, size }: CxlFacts['hosts'][number]): Uint8Array {
  return concat(
    concat(u8(STRUCTURE.HOST_BRIDGE), u8(0), u16(HOST_BRIDGE_SIZE), u32(uid), u32(VERSION_2_0), u32(0)),
    concat(u64(base), u64(size)),
  );
}

/** 9.14.1.3: a fixed memory window. */
function fixedWindow({ base, size, granularity, targets }: CxlFacts['windows'][number]): Uint8Array {
  return concat(
    concat(u8(STRUCTURE.FIXED_WINDOW), u8(0), u16(FIXED_WINDOW_SIZE + TARGET_SIZE * targets.length), u32(0)),
    concat(u64(base), u64(size)),
    concat(u8(encodedWays(targets.length) ?? 0), u8(MODULO), u16(0), u32(encodedGranularity(granularity) ?? 0)),
    concat(u16(ANY_USE), u16(FIRST_QOS_GROUP)),
    ...targets.map(u32),
  );
}

export function cedt({ hosts, windows }: CxlFacts): TableContent {
  return { signature: 'CEDT', revision: 1, body: concat(...hosts.map(hostBridge), ...windows.map(fixedWindow)) };
}
