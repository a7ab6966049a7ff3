/** Feature bits that belong to no kind of device (virtio 1.2, section 6), and those of legacy devices (section 6.3). */
export const VIRTIO_F = {
  NOTIFY_ON_EMPTY: 24,
  ANY_LAYOUT: 27,
  INDIRECT_DESC: 28,
  EVENT_IDX: 29,
  /** Offered by legacy devices only to see whether a driver accepts whatever it is offered. */
  BAD_FEATURE: 30,
  VERSION_1: 32,
  IOMMU_PLATFORM: 33,
  RING_PACKED: 34,
  IN_ORDER: 35,
  ORDER_PLATFORM: 36,
  SR_IOV: 37,
  NOTIFICATION_DATA: 38,
  RING_RESET: 40,
} as const;

/** Device status field (section 2.1). */
export const STATUS = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  DEVICE_NEEDS_RESET: 64,
  FAILED: 128,
} as const;

/** Device ids (section 5). */
export const VIRTIO_ID = {
  NET: 1,
  BLOCK: 2,
  CONSOLE: 3,
  RNG: 4,
  BALLOON: 5,
  SCSI: 8,
  NINE_P: 9,
  GPU: 16,
  INPUT: 18,
  CRYPTO: 20,
  IOMMU: 23,
  MEM: 24,
  PMEM: 27,
} as const;

/** ISR status bits (section 4.1.4.5). */
export const ISR = { QUEUE: 1, CONFIG: 2 } as const;

/** No MSI-X vector (section 4.1.5.1.2). */
export const NO_VECTOR = 0xffff;

/** Queues that a device may have, and descriptors that a queue may have. */
export const QUEUES_MAX = 1024;
export const QUEUE_SIZE_MAX = 1024;

export const bit = (feature: number): bigint => 1n << BigInt(feature);

export const has = (features: bigint, feature: number): boolean => (features & bit(feature)) !== 0n;

/** Bits that mean nothing to a driver that has accepted VERSION_1. */
export const LEGACY_FEATURES = bit(VIRTIO_F.BAD_FEATURE) | bit(VIRTIO_F.NOTIFY_ON_EMPTY) | bit(VIRTIO_F.ANY_LAYOUT);
