/** Numbers of the GPU device (virtio 1.2, section 5.7). */

export const FEATURE_EDID = 1;
export const MAX_SCANOUTS = 16;
export const EVENT_DISPLAY = 1;

/** Configuration space (section 5.7.4). */
export const CONFIG = { EVENTS_READ: 0, EVENTS_CLEAR: 4, NUM_SCANOUTS: 8, NUM_CAPSETS: 12, SIZE: 16 } as const;

/** Commands (section 5.7.6.7). */
export const COMMAND = {
  GET_DISPLAY_INFO: 0x0100,
  RESOURCE_CREATE_2D: 0x0101,
  RESOURCE_UNREF: 0x0102,
  SET_SCANOUT: 0x0103,
  RESOURCE_FLUSH: 0x0104,
  TRANSFER_TO_HOST_2D: 0x0105,
  RESOURCE_ATTACH_BACKING: 0x0106,
  RESOURCE_DETACH_BACKING: 0x0107,
  GET_EDID: 0x010a,
  RESOURCE_CREATE_BLOB: 0x010c,
  SET_SCANOUT_BLOB: 0x010d,
  UPDATE_CURSOR: 0x0300,
  MOVE_CURSOR: 0x0301,
} as const;

export const RESPONSE = {
  OK_NODATA: 0x1100,
  OK_DISPLAY_INFO: 0x1101,
  OK_EDID: 0x1104,
  ERR_UNSPEC: 0x1200,
  ERR_OUT_OF_MEMORY: 0x1201,
  ERR_INVALID_SCANOUT_ID: 0x1202,
  ERR_INVALID_RESOURCE_ID: 0x1203,
  ERR_INVALID_PARAMETER: 0x1205,
} as const;

/** The header of commands and responses (section 5.7.6.7). */
export const HEADER = { TYPE: 0, FLAGS: 4, FENCE_ID: 8, CTX_ID: 16, RING_INDEX: 20, SIZE: 24 } as const;
export const FLAG_FENCE = 1;

/** Bytes of a command as a whole, and where its members are. */
export const SIZE = {
  RESOURCE_CREATE_2D: 40,
  RESOURCE_UNREF: 32,
  SET_SCANOUT: 48,
  RESOURCE_FLUSH: 48,
  TRANSFER_TO_HOST_2D: 56,
  RESOURCE_ATTACH_BACKING: 32,
  RESOURCE_DETACH_BACKING: 32,
  GET_EDID: 32,
  UPDATE_CURSOR: 56,
  /** The largest that is taken in whole. */
  MAX: 56,
  MEM_ENTRY: 16,
  DISPLAY_INFO: HEADER.SIZE + MAX_SCANOUTS * 24,
  EDID: 1024,
} as const;

export const MAX_BACKING_ENTRIES = 16_384;

/** Formats of pixels by the order of their bytes in memory: where red, green and blue are (section 5.7.6.8). */
export const FORMATS: ReadonlyMap<number, { readonly red: number; readonly green: number; readonly blue: number }> =
  new Map([
    [1, { red: 2, green: 1, blue: 0 }], // B8G8R8A8
    [2, { red: 2, green: 1, blue: 0 }], // B8G8R8X8
    [3, { red: 1, green: 2, blue: 3 }], // A8R8G8B8
    [4, { red: 1, green: 2, blue: 3 }], // X8R8G8B8
    [67, { red: 0, green: 1, blue: 2 }], // R8G8B8A8
    [68, { red: 3, green: 2, blue: 1 }], // X8B8G8R8
    [121, { red: 3, green: 2, blue: 1 }], // A8B8G8R8
    [134, { red: 0, green: 1, blue: 2 }], // R8G8B8X8
  ]);
