import { VIRTIO_F, VIRTIO_ID } from './features.ts';

/** What QEMU calls each kind of device (virtio 1.2, section 5). */
const DEVICE_NAMES: Readonly<Record<number, string>> = {
  [VIRTIO_ID.NET]: 'virtio-net',
  [VIRTIO_ID.BLOCK]: 'virtio-blk',
  [VIRTIO_ID.CONSOLE]: 'virtio-serial',
  [VIRTIO_ID.RNG]: 'virtio-rng',
  [VIRTIO_ID.BALLOON]: 'virtio-balloon',
  [VIRTIO_ID.SCSI]: 'virtio-scsi',
  [VIRTIO_ID.NINE_P]: 'virtio-9p',
  [VIRTIO_ID.GPU]: 'virtio-gpu',
  [VIRTIO_ID.INPUT]: 'virtio-input',
  [VIRTIO_ID.CRYPTO]: 'virtio-crypto',
  [VIRTIO_ID.IOMMU]: 'virtio-iommu',
  [VIRTIO_ID.MEM]: 'virtio-mem',
  [VIRTIO_ID.PMEM]: 'virtio-pmem',
};

export const virtioName = (id: number): string => DEVICE_NAMES[id] ?? `virtio-${id}`;

type Names = Readonly<Record<number, string>>;

/** Features of the rings and transports (section 6), as Linux's headers spell them. */
const COMMON: Names = {
  [VIRTIO_F.NOTIFY_ON_EMPTY]: 'VIRTIO_F_NOTIFY_ON_EMPTY: interrupts when a queue runs empty',
  [VIRTIO_F.ANY_LAYOUT]: 'VIRTIO_F_ANY_LAYOUT: takes buffers however they are divided',
  [VIRTIO_F.INDIRECT_DESC]: 'VIRTIO_RING_F_INDIRECT_DESC: descriptors in tables of their own',
  [VIRTIO_F.EVENT_IDX]: 'VIRTIO_RING_F_EVENT_IDX: indices say when to notify and interrupt',
  [VIRTIO_F.VERSION_1]: 'VIRTIO_F_VERSION_1: follows version 1 of the specification',
  [VIRTIO_F.IOMMU_PLATFORM]: 'VIRTIO_F_IOMMU_PLATFORM: reaches memory through the IOMMU',
  [VIRTIO_F.RING_PACKED]: 'VIRTIO_F_RING_PACKED: packed rings',
  [VIRTIO_F.IN_ORDER]: 'VIRTIO_F_IN_ORDER: uses buffers in their order',
  [VIRTIO_F.ORDER_PLATFORM]: 'VIRTIO_F_ORDER_PLATFORM: memory accesses are ordered as the platform says',
  [VIRTIO_F.SR_IOV]: 'VIRTIO_F_SR_IOV: single root I/O virtualization',
  [VIRTIO_F.NOTIFICATION_DATA]: 'VIRTIO_F_NOTIFICATION_DATA: notifications say where the ring is',
  [VIRTIO_F.RING_RESET]: 'VIRTIO_F_RING_RESET: resets single queues',
};

/** The bit that transitional devices offer and drivers must not take; the vhost-user protocol has it for itself. */
const PROTOCOL_FEATURES = { [VIRTIO_F.BAD_FEATURE]: 'VHOST_USER_F_PROTOCOL_FEATURES: a bit that no driver takes' };

/** Features of each kind of device (sections 5.1 to 5.13). */
const BY_DEVICE: Readonly<Record<number, Names>> = {
  [VIRTIO_ID.NET]: {
    0: 'VIRTIO_NET_F_CSUM: takes packets with partial checksums',
    1: 'VIRTIO_NET_F_GUEST_CSUM: the driver takes packets with partial checksums',
    2: 'VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: offloads can be changed later',
    3: 'VIRTIO_NET_F_MTU: tells the largest unit',
    5: 'VIRTIO_NET_F_MAC: has a MAC address',
    6: 'VIRTIO_NET_F_GSO: takes packets to be segmented',
    7: 'VIRTIO_NET_F_GUEST_TSO4: the driver takes large packets of TCP over IPv4',
    8: 'VIRTIO_NET_F_GUEST_TSO6: the driver takes large packets of TCP over IPv6',
    9: 'VIRTIO_NET_F_GUEST_ECN: the driver takes large packets with ECN',
    10: 'VIRTIO_NET_F_GUEST_UFO: the driver takes large UDP packets',
    11: 'VIRTIO_NET_F_HOST_TSO4: takes large packets of TCP over IPv4',
    12: 'VIRTIO_NET_F_HOST_TSO6: takes large packets of TCP over IPv6',
    13: 'VIRTIO_NET_F_HOST_ECN: takes large packets with ECN',
    14: 'VIRTIO_NET_F_HOST_UFO: takes large UDP packets',
    15: 'VIRTIO_NET_F_MRG_RXBUF: the driver joins receive buffers',
    16: 'VIRTIO_NET_F_STATUS: tells the link status',
    17: 'VIRTIO_NET_F_CTRL_VQ: has a control queue',
    18: 'VIRTIO_NET_F_CTRL_RX: receive modes',
    19: 'VIRTIO_NET_F_CTRL_VLAN: filters VLANs',
    20: 'VIRTIO_NET_F_CTRL_RX_EXTRA: more receive modes',
    21: 'VIRTIO_NET_F_GUEST_ANNOUNCE: the driver announces itself where asked',
    22: 'VIRTIO_NET_F_MQ: several pairs of queues',
    23: 'VIRTIO_NET_F_CTRL_MAC_ADDR: the driver sets the MAC address',
    57: 'VIRTIO_NET_F_HASH_REPORT: tells the hash of each packet',
    60: 'VIRTIO_NET_F_RSS: spreads packets over queues by their hash',
    61: 'VIRTIO_NET_F_RSC_EXT: tells about joined segments',
    62: 'VIRTIO_NET_F_STANDBY: stands by for another card',
    63: 'VIRTIO_NET_F_SPEED_DUPLEX: tells speed and duplex',
  },
  [VIRTIO_ID.BLOCK]: {
    0: 'VIRTIO_BLK_F_BARRIER: request barriers',
    1: 'VIRTIO_BLK_F_SIZE_MAX: the largest segment is known',
    2: 'VIRTIO_BLK_F_SEG_MAX: the most segments are known',
    4: 'VIRTIO_BLK_F_GEOMETRY: has a geometry',
    5: 'VIRTIO_BLK_F_RO: read-only',
    6: 'VIRTIO_BLK_F_BLK_SIZE: tells its block size',
    7: 'VIRTIO_BLK_F_SCSI: SCSI commands',
    9: 'VIRTIO_BLK_F_FLUSH: flush requests',
    10: 'VIRTIO_BLK_F_TOPOLOGY: tells how it is best accessed',
    11: 'VIRTIO_BLK_F_CONFIG_WCE: the cache mode can be changed',
    12: 'VIRTIO_BLK_F_MQ: several queues',
    13: 'VIRTIO_BLK_F_DISCARD: discard requests',
    14: 'VIRTIO_BLK_F_WRITE_ZEROES: requests that write zeroes',
  },
  [VIRTIO_ID.CONSOLE]: {
    0: 'VIRTIO_CONSOLE_F_SIZE: tells rows and columns',
    1: 'VIRTIO_CONSOLE_F_MULTIPORT: several ports',
    2: 'VIRTIO_CONSOLE_F_EMERG_WRITE: writes without a queue',
  },
  [VIRTIO_ID.BALLOON]: {
    0: 'VIRTIO_BALLOON_F_MUST_TELL_HOST: told before pages are used again',
    1: 'VIRTIO_BALLOON_F_STATS_VQ: has a queue for statistics',
    2: 'VIRTIO_BALLOON_F_DEFLATE_ON_OOM: the driver takes pages back where it has none left',
    3: 'VIRTIO_BALLOON_F_FREE_PAGE_HINT: told of free pages during a migration',
    4: 'VIRTIO_BALLOON_F_PAGE_POISON: told what freed pages hold',
    5: 'VIRTIO_BALLOON_F_REPORTING: told of free pages at any time',
  },
  [VIRTIO_ID.SCSI]: {
    0: 'VIRTIO_SCSI_F_INOUT: requests with data both ways',
    1: 'VIRTIO_SCSI_F_HOTPLUG: tells what is plugged and unplugged',
    2: 'VIRTIO_SCSI_F_CHANGE: tells of changed parameters',
    3: 'VIRTIO_SCSI_F_T10_PI: protection information',
  },
  [VIRTIO_ID.NINE_P]: { 0: 'VIRTIO_9P_MOUNT_TAG: has a name to mount by' },
  [VIRTIO_ID.GPU]: {
    0: 'VIRTIO_GPU_F_VIRGL: 3D commands of virgl',
    1: 'VIRTIO_GPU_F_EDID: describes its screens',
    2: 'VIRTIO_GPU_F_RESOURCE_UUID: resources have UUIDs',
    3: 'VIRTIO_GPU_F_RESOURCE_BLOB: resources without a format',
    4: 'VIRTIO_GPU_F_CONTEXT_INIT: contexts of several kinds',
  },
  [VIRTIO_ID.IOMMU]: {
    0: 'VIRTIO_IOMMU_F_INPUT_RANGE: tells which addresses it translates',
    1: 'VIRTIO_IOMMU_F_DOMAIN_RANGE: tells which domains there are',
    2: 'VIRTIO_IOMMU_F_MAP_UNMAP: mappings',
    3: 'VIRTIO_IOMMU_F_BYPASS: passes what is in no domain',
    4: 'VIRTIO_IOMMU_F_PROBE: tells about each endpoint',
    5: 'VIRTIO_IOMMU_F_MMIO: mappings of devices',
    6: 'VIRTIO_IOMMU_F_BYPASS_CONFIG: what passes can be changed',
  },
  [VIRTIO_ID.MEM]: {
    0: 'VIRTIO_MEM_F_ACPI_PXM: tells the proximity domain',
    1: 'VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE: unplugged memory must not be touched',
  },
};

/** Device status (section 2.1). */
const STATUSES: Names = {
  0: 'VIRTIO_CONFIG_S_ACKNOWLEDGE: the guest has found it',
  1: 'VIRTIO_CONFIG_S_DRIVER: the guest has a driver for it',
  2: 'VIRTIO_CONFIG_S_DRIVER_OK: the driver is ready',
  3: 'VIRTIO_CONFIG_S_FEATURES_OK: the features are agreed on',
  6: 'VIRTIO_CONFIG_S_NEEDS_RESET: the device has to be reset',
  7: 'VIRTIO_CONFIG_S_FAILED: the driver has given up',
};

function take(bits: bigint, names: Names): { found: string[]; rest: bigint } {
  const found: string[] = [];
  let rest = bits;
  for (const [position, name] of Object.entries(names)) {
    const bit = 1n << BigInt(position);
    if ((bits & bit) === 0n) continue;
    found.push(name);
    rest &= ~bit;
  }
  return { found, rest };
}

/** Names of feature bits: those that all devices share, those of the kind, and the bits without a name. */
export function featureNames(id: number, features: bigint): { common: string[]; own: string[]; unknown: bigint } {
  const common = take(features, COMMON);
  const own = take(common.rest, { ...BY_DEVICE[id], ...PROTOCOL_FEATURES });
  return { common: common.found, own: own.found, unknown: own.rest };
}

/** Names of the device status' bits, and the bits without one. */
export function statusNames(status: number): { names: string[]; unknown: number } {
  const { found, rest } = take(BigInt(status), STATUSES);
  return { names: found, unknown: Number(rest) };
}
