/** Information units of USB Attached SCSI (UAS revision 4, section 6.2). Numbers are big-endian. */

/** Pipes, which are also the numbers of their endpoints (section 5.3.3.6). */
export const PIPE = { COMMAND: 1, STATUS: 2, DATA_IN: 3, DATA_OUT: 4 } as const;
/** log2 of the streams that a pipe has at SuperSpeed. */
export const STREAM_EXPONENT = 4;
export const MAX_STREAM = 2 ** STREAM_EXPONENT;

export const IU = {
  COMMAND: 0x01,
  SENSE: 0x03,
  RESPONSE: 0x04,
  TASK: 0x05,
  READ_READY: 0x06,
  WRITE_READY: 0x07,
} as const;
export const HEADER = { ID: 0, TAG: 2, BYTES: 4 } as const;
/** Command: attributes, length of what the CDB has beyond 16 bytes, logical unit, CDB. */
export const COMMAND = { MORE_CDB: 6, LUN: 8, CDB: 16, CDB_BYTES: 16, BYTES: 32 } as const;
export const TASK = { FUNCTION: 4, TAG: 6, LUN: 8, BYTES: 16 } as const;
export const SENSE = { STATUS: 6, LENGTH: 14, DATA: 16 } as const;
export const RESPONSE = { CODE: 7, BYTES: 8 } as const;

/** Task management functions (table 20) and response codes (table 18). */
export const FUNCTION = { ABORT_TASK: 0x01, LOGICAL_UNIT_RESET: 0x08 } as const;
export const CODE = {
  COMPLETE: 0x00,
  INVALID_UNIT: 0x02,
  NOT_SUPPORTED: 0x04,
  INCORRECT_LUN: 0x09,
  OVERLAPPED_TAG: 0x0a,
} as const;

/** The logical unit in a unit's eight bytes at `at`: peripheral addressing with bus 0 only; -1 for others (SAM-4, 4.7.7). */
export function lunAt(bytes: Uint8Array, at: number): number {
  return bytes[at] === 0 ? (bytes[at + 1] ?? 0) : -1;
}
