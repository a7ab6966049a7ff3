/** Feature bits (virtio 1.2, section 5.6.3). */
export const F = { INOUT: 0, HOTPLUG: 1, CHANGE: 2 } as const;

/** Offsets in the configuration space (section 5.6.4). */
export const CONFIG = {
  NUM_QUEUES: 0,
  SEG_MAX: 4,
  MAX_SECTORS: 8,
  CMD_PER_LUN: 12,
  EVENT_INFO_SIZE: 16,
  SENSE_SIZE: 20,
  CDB_SIZE: 24,
  MAX_CHANNEL: 28,
  MAX_TARGET: 30,
  MAX_LUN: 32,
  BYTES: 36,
} as const;

/** Queues besides those of requests (section 5.6.2). */
export const FIXED_QUEUES = 2;
export const MAX_TARGET = 255;
export const MAX_LUN = 16383;
/** What a driver may write to the sizes in the configuration space stays below these. */
export const SENSE_SIZE_LIMIT = 0x1_0000;
export const CDB_SIZE_LIMIT = 0x100;
export const DEFAULT_SENSE_SIZE = 96;
export const DEFAULT_CDB_SIZE = 32;

/** What the driver gives with a request (section 5.6.6.1); the CDB follows. */
export const COMMAND = { LUN: 0, TAG: 8, CDB: 19 } as const;
/** What it is told; sense data follows. */
export const RESULT = { SENSE_LENGTH: 0, RESIDUAL: 4, STATUS: 10, RESPONSE: 11, BYTES: 12 } as const;

export const RESPONSE = {
  OK: 0,
  OVERRUN: 1,
  ABORTED: 2,
  BAD_TARGET: 3,
  RESET: 4,
  FAILURE: 9,
  FUNCTION_SUCCEEDED: 10,
  FUNCTION_REJECTED: 11,
  INCORRECT_LUN: 12,
} as const;

/** Requests of the control queue (section 5.6.6.2). */
export const CONTROL = { TMF: 0, AN_QUERY: 1, AN_SUBSCRIBE: 2 } as const;
export const TMF = { SUBTYPE: 4, LUN: 8, TAG: 16, BYTES: 24, RESULT_BYTES: 1 } as const;
export const AN = { BYTES: 16, RESULT_BYTES: 5 } as const;
export const TMF_SUBTYPE = {
  ABORT_TASK: 0,
  ABORT_TASK_SET: 1,
  CLEAR_ACA: 2,
  CLEAR_TASK_SET: 3,
  I_T_NEXUS_RESET: 4,
  LOGICAL_UNIT_RESET: 5,
  QUERY_TASK: 6,
  QUERY_TASK_SET: 7,
} as const;

/** Events (section 5.6.6.3). */
export const EVENT = { EVENT: 0, LUN: 4, REASON: 12, BYTES: 16 } as const;
export const EVENT_TYPE = {
  NO_EVENT: 0,
  TRANSPORT_RESET: 1,
  PARAM_CHANGE: 3,
  EVENTS_MISSED: 0x8000_0000,
} as const;
export const RESET_REASON = { RESCAN: 1, REMOVED: 2 } as const;

const FLAT_SPACE = 0x40;

/** An address of a logical unit: a target, and a LUN in the form of REPORT LUNS (section 5.6.6.1). */
export interface Address {
  readonly target: number;
  readonly lun: number;
}

/** The address in the eight bytes at `at`; undefined where it is of no form that a driver may use. */
export function addressAt(bytes: DataView, at: number): Address | undefined {
  const form = bytes.getUint8(at + 2);
  if (bytes.getUint8(at) !== 1 || (form !== 0 && form >>> 6 !== FLAT_SPACE >>> 6)) return undefined;
  return { target: bytes.getUint8(at + 1), lun: lunAt(bytes, at) };
}

export function lunAt(bytes: DataView, at: number): number {
  return bytes.getUint16(at + 2) & 0x3fff;
}

export function putAddress(bytes: Uint8Array, at: number, { target, lun }: Address): void {
  bytes[at] = 1;
  bytes[at + 1] = target;
  if (lun >= 0x100) bytes[at + 2] = (lun >>> 8) | FLAT_SPACE;
  bytes[at + 3] = lun;
}
