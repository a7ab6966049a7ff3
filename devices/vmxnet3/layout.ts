/** Where things are in the memory shared with the driver (Linux, drivers/net/vmxnet3/vmxnet3_defs.h and upt1_defs.h). */

export const MAGIC = 0xbabe_fee1;

/** struct Vmxnet3_DriverShared, with the structures that it consists of. */
export const SHARED = {
  MAGIC: 0,
  GUEST: 12,
  FEATURES: 24,
  QUEUES: 40,
  MTU: 56,
  MAX_RX_FRAGMENTS: 60,
  TX_QUEUES: 62,
  RX_QUEUES: 63,
  AUTO_MASK: 80,
  EVENT_VECTOR: 82,
  RX_MODE: 120,
  GROUPS_LENGTH: 124,
  GROUPS: 128,
  VLANS: 136,
  RSS_LENGTH: 652,
  RSS: 656,
  EVENTS: 696,
} as const;

/** Which guest it is: bits 2 to 5 of what the driver says of itself. */
export const GUEST = { SHIFT: 2, MASK: 0xf, WINDOWS: 2 } as const;

/** What the driver wants (enum UPT1_F). */
export const FEATURE = { RXCSUM: 1, RSS: 2, RXVLAN: 4 } as const;

export const MTU = { LEAST: 60, MOST: 9000 } as const;

/** struct Vmxnet3_TxQueueDesc and Vmxnet3_RxQueueDesc: the transmit queues', then the receive queues'. */
export const QUEUE = {
  SIZE: 256,
  /** Of a transmit queue: frames after which the driver rings. Of a receive queue: whether it says that it has brought buffers. */
  CONTROL: 0,
  THRESHOLD: 4,
  RINGS: 16,
  COMPLETIONS: 32,
  RING_SIZES: 56,
  COMPLETIONS_SIZE: 64,
  VECTOR: 72,
  STATUS: 80,
  STATISTICS: 88,
} as const;

/** Descriptors of all kinds have 16 bytes. */
export const DESCRIPTOR = 16;
export const LONGEST_RING = 4096;
export const LONGEST_RECEIVE_COMPLETIONS = 8192;

/** The third and fourth word of a transmit descriptor. */
export const TXD = {
  LENGTH: 0x3fff,
  /** What a length of 0 means. */
  LONGEST: 0x4000,
  GENERATION_SHIFT: 14,
  /** The segments' data, or where the checksum goes. */
  OFFSET_SHIFT: 18,
  HEADER: 0x3ff,
  OFFLOAD_SHIFT: 10,
  OFFLOAD: 3,
  END: 1 << 12,
  TAG: 1 << 15,
  TAG_SHIFT: 16,
} as const;
export const OFFLOAD = { CHECKSUM: 2, SEGMENTS: 3 } as const;

/** The third word of a receive descriptor. */
export const RXD = { LENGTH: 0x3fff, BODY: 1 << 14 } as const;

/** A receive completion: its first, third and fourth word. Its second is the hash. */
export const RXC = {
  END: 1 << 14,
  START: 1 << 15,
  RING_SHIFT: 16,
  HASH_SHIFT: 26,
  NO_CHECKSUM: 1 << 30,
  ERROR: 1 << 14,
  TAG: 1 << 15,
  TAG_SHIFT: 16,
  TRANSPORT_GOOD: 1 << 16,
  UDP: 1 << 17,
  TCP: 1 << 18,
  NETWORK_GOOD: 1 << 19,
  IPV6: 1 << 20,
  IPV4: 1 << 21,
  FRAME_GOOD: 1 << 23,
  TYPE: 3 << 24,
  GENERATION_SHIFT: 31,
} as const;

/** struct UPT1_RSSConf, and what it says. */
export const RSS = {
  TYPES: 0,
  FUNCTION: 2,
  KEY_LENGTH: 4,
  TABLE_LENGTH: 6,
  KEY: 8,
  TABLE: 48,
  MAX_KEY: 40,
  MAX_TABLE: 128,
  BYTES: 176,
  TOEPLITZ: 1,
} as const;

/** What of packets may be hashed. */
export const HASH_TYPE = { IPV4: 1, TCP_IPV4: 2, IPV6: 4, TCP_IPV6: 8 } as const;
/** What of a packet has been, in a completion. */
export const HASHED = { NONE: 0, IPV4: 1, TCP_IPV4: 2, IPV6: 3, TCP_IPV6: 4 } as const;

/**
 * struct UPT1_TxStats and UPT1_RxStats: counters in this order. Of packets cut into several, or put together from several, which
 * this device does not do; then packets and bytes by whom they are for; then what went wrong.
 */
export const COUNTED = {
  LARGE: 0,
  LARGE_BYTES: 1,
  UNICAST: 2,
  GROUP: 4,
  EVERYONE: 6,
  SEND_ERRORS: 8,
  RECEIVE_ERRORS: 9,
} as const;
export const COUNTERS = 10;
