/** What driver and device say to each other (virtio 1.2, section 5.1). */

/** Feature bits (section 5.1.3). */
export const F = {
  CSUM: 0,
  GUEST_CSUM: 1,
  CTRL_GUEST_OFFLOADS: 2,
  MTU: 3,
  MAC: 5,
  /** Of legacy devices (section 5.1.3.2). */
  GSO: 6,
  GUEST_TSO4: 7,
  GUEST_TSO6: 8,
  GUEST_ECN: 9,
  GUEST_UFO: 10,
  HOST_TSO4: 11,
  HOST_TSO6: 12,
  HOST_ECN: 13,
  HOST_UFO: 14,
  MRG_RXBUF: 15,
  STATUS: 16,
  CTRL_VQ: 17,
  CTRL_RX: 18,
  CTRL_VLAN: 19,
  CTRL_RX_EXTRA: 20,
  GUEST_ANNOUNCE: 21,
  MQ: 22,
  CTRL_MAC_ADDR: 23,
  HASH_REPORT: 57,
  RSS: 60,
  RSC_EXT: 61,
  STANDBY: 62,
  SPEED_DUPLEX: 63,
} as const;

/** Offsets in the configuration space (section 5.1.4). */
export const CONFIG = {
  MAC: 0,
  STATUS: 6,
  MAX_PAIRS: 8,
  MTU: 10,
  SPEED: 12,
  DUPLEX: 16,
  RSS_MAX_KEY_SIZE: 17,
  RSS_MAX_TABLE_LENGTH: 18,
  HASH_TYPES: 20,
  BYTES: 24,
} as const;
export const STATUS = { LINK_UP: 1, ANNOUNCE: 2 } as const;
export const DUPLEX = { half: 0, full: 1, unknown: 0xff } as const;

/** struct virtio_net_hdr (section 5.1.6), and its bytes: without and with the count of buffers, and with the hash. */
export const HEADER = {
  FLAGS: 0,
  NUM_BUFFERS: 10,
  HASH_VALUE: 12,
  HASH_REPORT: 16,
  SHORT: 10,
  USUAL: 12,
  HASHED: 20,
} as const;
export const NEEDS_CSUM = 1;

/** Classes and commands of the control queue (section 5.1.6.5). */
export const CLASS = { RX: 0, MAC: 1, VLAN: 2, ANNOUNCE: 3, MQ: 4, GUEST_OFFLOADS: 5 } as const;
export const RX = { PROMISC: 0, ALLMULTI: 1, ALLUNI: 2, NOMULTI: 3, NOUNI: 4, NOBCAST: 5 } as const;
export const MAC = { TABLE_SET: 0, ADDR_SET: 1, BYTES: 6 } as const;
export const VLAN = { ADD: 0, DEL: 1 } as const;
export const ANNOUNCE = { ACK: 0 } as const;
export const MQ = { VQ_PAIRS_SET: 0, RSS_CONFIG: 1, HASH_CONFIG: 2 } as const;
export const GUEST_OFFLOADS = { SET: 0 } as const;
export const ACK = { OK: 0, ERR: 1 } as const;
export const COMMAND_HEADER = 2;

/** struct virtio_net_rss_config (section 5.1.6.5.7.1): before the indirection table, and what follows it before the key. */
export const RSS_CONFIG = {
  HASH_TYPES: 0,
  TABLE_MASK: 4,
  UNCLASSIFIED: 6,
  TABLE: 8,
  TAIL: 3,
  MAX_KEY: 40,
  MAX_TABLE: 128,
} as const;
