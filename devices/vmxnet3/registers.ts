import { r32, registerMap } from '../../core/register/register.ts';

const wo = { access: 'wo' } as const;
const ro = { access: 'ro' } as const;

/** Message vectors: one for each queue and one for events, and some more (VMXNET3_MAX_INTRS). */
export const VECTORS = 25;
export const QUEUES = 8;
export const WINDOW_SIZE = 4096;

/** The window of the queues, BAR 0. The names are those of VMware's driver (Linux, drivers/net/vmxnet3/vmxnet3_defs.h). */
export const queueRegisters = registerMap('vmxnet3-queues', {
  IMR: r32(0x000, {}, { count: VECTORS, stride: 8, reset: 1, doc: 'Interrupt masks' }),
  TXPROD: r32(0x600, {}, { ...wo, count: QUEUES, stride: 8, doc: 'Transmit producer indices' }),
  RXPROD: r32(0x800, {}, { ...wo, count: QUEUES, stride: 8, doc: 'Receive producer indices of the first rings' }),
  RXPROD2: r32(0xa00, {}, { ...wo, count: QUEUES, stride: 8, doc: 'Receive producer indices of the second rings' }),
});

/** The window of the device, BAR 1. */
export const deviceRegisters = registerMap('vmxnet3-device', {
  VRRS: r32(0x00, {}, { doc: 'Revisions of the device; the one that the driver chooses' }),
  UVRS: r32(0x08, {}, { doc: 'Versions of UPT; the one that the driver chooses' }),
  DSAL: r32(0x10, {}, { ...wo, doc: 'Address of the memory shared with the driver, low' }),
  DSAH: r32(0x18, {}, { ...wo, doc: 'The same, high' }),
  CMD: r32(0x20, {}, { doc: 'Command, and what came of it' }),
  MACL: r32(0x28, {}, { doc: 'MAC address, low' }),
  MACH: r32(0x30, {}, { doc: 'MAC address, high' }),
  ICR: r32(0x38, {}, { ...ro, doc: 'Interrupt cause: whether the pin is this function’s' }),
  ECR: r32(0x40, {}, { ...wo, doc: 'Event causes that the driver has seen' }),
});

export const COMMAND = {
  ACTIVATE_DEV: 0xcafe_0000,
  QUIESCE_DEV: 0xcafe_0001,
  RESET_DEV: 0xcafe_0002,
  UPDATE_RX_MODE: 0xcafe_0003,
  UPDATE_MAC_FILTERS: 0xcafe_0004,
  UPDATE_VLAN_FILTERS: 0xcafe_0005,
  UPDATE_RSSIDT: 0xcafe_0006,
  UPDATE_FEATURE: 0xcafe_0009,
  GET_QUEUE_STATUS: 0xf00d_0000,
  GET_STATS: 0xf00d_0001,
  GET_LINK: 0xf00d_0002,
  GET_PERM_MAC_LO: 0xf00d_0003,
  GET_PERM_MAC_HI: 0xf00d_0004,
  GET_DID_LO: 0xf00d_0005,
  GET_DID_HI: 0xf00d_0006,
  GET_CONF_INTR: 0xf00d_0008,
  GET_ADAPTIVE_RING_INFO: 0xf00d_0009,
} as const;
/** There are no rings that grow. */
export const DISABLE_ADAPTIVE_RING = 1;

/** The link's megabits a second are in the high half; QEMU's device has one of a gigabit. */
export const LINK = { UP: 1, SPEED: 1000 << 16 } as const;

/** Events, in the shared memory's `ecr` until the driver acknowledges them. */
export const EVENT = { LINK: 1 << 2 } as const;
