/** Types of the vendor-specific capabilities (virtio 1.2, section 4.1.4). */
export const CAP_TYPE = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4, PCI: 5 } as const;

/** Offsets in a capability (section 4.1.4). */
export const CAP = {
  LENGTH: 2,
  TYPE: 3,
  BAR: 4,
  OFFSET: 8,
  SIZE: 12,
  NOTIFY_MULTIPLIER: 16,
  PCI_DATA: 16,
  BYTES: 16,
} as const;

/** Common configuration structure (section 4.1.4.3). */
export const COMMON = {
  DEVICE_FEATURE_SELECT: 0,
  DEVICE_FEATURE: 4,
  DRIVER_FEATURE_SELECT: 8,
  DRIVER_FEATURE: 12,
  CONFIG_MSIX_VECTOR: 16,
  NUM_QUEUES: 18,
  DEVICE_STATUS: 20,
  CONFIG_GENERATION: 21,
  QUEUE_SELECT: 22,
  QUEUE_SIZE: 24,
  QUEUE_MSIX_VECTOR: 26,
  QUEUE_ENABLE: 28,
  QUEUE_NOTIFY_OFF: 30,
  QUEUE_DESC_LOW: 32,
  QUEUE_DESC_HIGH: 36,
  QUEUE_DRIVER_LOW: 40,
  QUEUE_DRIVER_HIGH: 44,
  QUEUE_DEVICE_LOW: 48,
  QUEUE_DEVICE_HIGH: 52,
  QUEUE_NOTIFY_DATA: 56,
  QUEUE_RESET: 58,
} as const;

/** Legacy registers (section 4.1.4.10); the device's configuration follows, after the vectors where MSI-X is enabled. */
export const LEGACY = {
  HOST_FEATURES: 0,
  GUEST_FEATURES: 4,
  QUEUE_PFN: 8,
  QUEUE_NUM: 12,
  QUEUE_SEL: 14,
  QUEUE_NOTIFY: 16,
  STATUS: 18,
  ISR: 19,
  CONFIG: 20,
  CONFIG_VECTOR: 20,
  QUEUE_VECTOR: 22,
  CONFIG_WITH_MSIX: 24,
} as const;

/** A legacy queue's address is a page number, and its used ring begins on a page (section 2.7.2). */
export const LEGACY_PAGE = 4096;

/** Where things are in the modern BAR, as in QEMU. */
export const LAYOUT = { COMMON: 0x0000, ISR: 0x1000, DEVICE: 0x2000, NOTIFY: 0x3000, AREA: 0x1000 } as const;

/** Base address registers, as QEMU has them. */
export const BAR = { LEGACY: 0, MSIX: 1, MODERN_IO: 2, MODERN: 4 } as const;
