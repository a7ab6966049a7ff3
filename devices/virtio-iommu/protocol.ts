/** Feature bits (virtio 1.2, section 5.13.3). */
export const F = { INPUT_RANGE: 0, DOMAIN_RANGE: 1, MAP_UNMAP: 2, PROBE: 4, MMIO: 5, BYPASS_CONFIG: 6 } as const;

/** Offsets in the configuration space (section 5.13.4). */
export const CONFIG = {
  PAGE_SIZE_MASK: 0,
  INPUT_START: 8,
  INPUT_END: 16,
  DOMAIN_START: 24,
  DOMAIN_END: 28,
  PROBE_SIZE: 32,
  BYPASS: 36,
  SIZE: 40,
} as const;
export const PROBE_SIZE = 512;

/** Requests (section 5.13.6): type, and bytes before what the device writes. */
export const REQUEST = { ATTACH: 1, DETACH: 2, MAP: 3, UNMAP: 4, PROBE: 5 } as const;
export const REQUEST_SIZE: ReadonlyMap<number, number> = new Map([
  [REQUEST.ATTACH, 20],
  [REQUEST.DETACH, 20],
  [REQUEST.MAP, 36],
  [REQUEST.UNMAP, 28],
  [REQUEST.PROBE, 72],
]);
export const HEAD_SIZE = 4;
export const TAIL_SIZE = 4;

export const S = { OK: 0, UNSUPP: 2, INVAL: 4, RANGE: 5, NOENT: 6, NOMEM: 8 } as const;
export type Status = (typeof S)[keyof typeof S];

export const ATTACH_BYPASS = 1;
export const MAP = { READ: 1, WRITE: 2, MMIO: 4, ALL: 7 } as const;

/** What an endpoint may not map (section 5.13.6.6): the window of message-signalled interrupts, which nothing translates. */
export const PROPERTY = { RESERVED: 1, SIZE: 24, SUBTYPE_MSI: 1 } as const;
export const MSI_WINDOW = { start: 0xfee0_0000, end: 0xfeef_ffff } as const;

/** Faults (section 5.13.6.9). */
export const FAULT = { UNKNOWN: 0, DOMAIN: 1, MAPPING: 2, READ: 1, WRITE: 2, ADDRESS: 1 << 8, SIZE: 24 } as const;
