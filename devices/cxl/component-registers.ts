/** Component registers of CXL.cache and CXL.mem (CXL 2.0, section 8.2.5): the capabilities that ports, bridges and devices have. */
import { bit, bits, r32, r64, registerMap } from '../../core/register/register.ts';

/** 8.2.4, table 141: the whole block, and where in it CXL.cache and CXL.mem have theirs. CXL.io's, before them, are reserved. */
export const COMPONENT_BLOCK_SIZE = 0x1_0000;
export const CACHE_MEM_AT = 0x1000;
export const CACHE_MEM_SIZE = 0x1000;

/** 8.2.5.1, table 142: capability IDs and versions. */
const CAPABILITY = {
  CXL: { id: 1, version: 1 },
  RAS: { id: 2, version: 2 },
  LINK: { id: 4, version: 2 },
  HDM: { id: 5, version: 1 },
  EXTENDED_SECURITY: { id: 6, version: 1 },
  SNOOP_FILTER: { id: 8, version: 1 },
} as const;
const CACHE_MEM_VERSION = 1;

/** Where the structures are: each has the room of the largest that the specification allows. */
const RAS = 0x080;
const LINK = 0x0d8;
const HDM = 0x110;
const MAX_DECODERS = 10;
const EXTENDED_SECURITY = HDM + 0x10 + 0x20 * MAX_DECODERS;
const SECURITY_ENTRIES = 256;
const IDE_SIZE = 0x20;
const SNOOP_FILTER = EXTENDED_SECURITY + 4 + 8 * SECURITY_ENTRIES + IDE_SIZE;

function capabilityHeader(at: number, { id, version }: { readonly id: number; readonly version: number }, to: number) {
  return r32(
    at,
    { ID: bits(0, 16), VERSION: bits(16, 4), POINTER: bits(20, 12) },
    { access: 'ro', reset: (id | (version << 16) | (to << 20)) >>> 0 },
  );
}

/** 8.2.5.9.1: errors that cannot be corrected, by bit. */
const uncorrectable = {
  CACHE_DATA_PARITY: bit(0),
  CACHE_ADDRESS_PARITY: bit(1),
  CACHE_BE_PARITY: bit(2),
  CACHE_DATA_ECC: bit(3),
  MEM_DATA_PARITY: bit(4),
  MEM_ADDRESS_PARITY: bit(5),
  MEM_BE_PARITY: bit(6),
  MEM_DATA_ECC: bit(7),
  REINIT_THRESHOLD: bit(8),
  RSVD_ENCODING_VIOLATION: bit(9),
  POISON_RECEIVED: bit(10),
  RECEIVER_OVERFLOW: bit(11),
  INTERNAL_ERROR: bit(14),
  IDE_TX_ERROR: bit(15),
  IDE_RX_ERROR: bit(16),
} as const;
const ALL_UNCORRECTABLE = 0x1_cfff;

/** 8.2.5.9.4 */
const correctable = {
  CACHE_DATA_ECC: bit(0),
  MEM_DATA_ECC: bit(1),
  CRC_THRESHOLD: bit(2),
  RETRY_THRESHOLD: bit(3),
  CACHE_POISON_RECEIVED: bit(4),
  MEM_POISON_RECEIVED: bit(5),
  PHYSICAL_LAYER_ERROR: bit(6),
} as const;
const ALL_CORRECTABLE = 0x7f;

function capabilityArray(count: number) {
  const { id, version } = CAPABILITY.CXL;
  return r32(
    0x00,
    { ID: bits(0, 16), VERSION: bits(16, 4), CACHE_MEM_VERSION: bits(20, 4), ARRAY_SIZE: bits(24, 8) },
    { access: 'ro', reset: id | (version << 16) | (CACHE_MEM_VERSION << 20) | (count << 24), doc: '8.2.5.1' },
  );
}

/** 8.2.5.9 and 8.2.5.11: what every component has. Nothing fails here, and no link layer is modelled. */
const common = {
  RAS_HEADER: capabilityHeader(0x04, CAPABILITY.RAS, RAS),
  LINK_HEADER: capabilityHeader(0x08, CAPABILITY.LINK, LINK),
  UNC_ERR_STATUS: r32(RAS + 0x00, uncorrectable, { access: 'w1c', sticky: true, doc: '8.2.5.9.1' }),
  UNC_ERR_MASK: r32(RAS + 0x04, uncorrectable, { reset: ALL_UNCORRECTABLE, doc: '8.2.5.9.2' }),
  UNC_ERR_SEVERITY: r32(RAS + 0x08, uncorrectable, { reset: ALL_UNCORRECTABLE, doc: '8.2.5.9.3' }),
  COR_ERR_STATUS: r32(RAS + 0x0c, correctable, { access: 'w1c', sticky: true, doc: '8.2.5.9.4' }),
  COR_ERR_MASK: r32(RAS + 0x10, correctable, { reset: ALL_CORRECTABLE, doc: '8.2.5.9.5' }),
  ERR_CAP_CTRL: r32(
    RAS + 0x14,
    { FIRST_ERROR: bits(0, 6), MULTIPLE_HEADERS: bit(9), POISON_ENABLED: bit(13) },
    { access: 'ro', doc: '8.2.5.9.6' },
  ),
  HEADER_LOG: r32(RAS + 0x18, {}, { access: 'ro', count: 16, doc: '8.2.5.9.7' }),
  LINK_CAPABILITY: r64(LINK + 0x00, {}, { access: 'ro', doc: '8.2.5.11.1' }),
  LINK_CONTROL_STATUS: r64(LINK + 0x08, {}, { access: 'ro', doc: '8.2.5.11.2' }),
  LINK_RX_CREDIT_CONTROL: r64(LINK + 0x10, {}, { access: 'ro', doc: '8.2.5.11.3' }),
  LINK_RX_CREDIT_RETURN: r64(LINK + 0x18, {}, { access: 'ro', doc: '8.2.5.11.4' }),
  LINK_TX_CREDIT: r64(LINK + 0x20, {}, { access: 'ro', doc: '8.2.5.11.5' }),
  LINK_ACK_TIMER: r64(LINK + 0x28, {}, { access: 'ro', doc: '8.2.5.11.6' }),
  LINK_DEFEATURE: r64(LINK + 0x30, {}, { access: 'ro', doc: '8.2.5.11.7' }),
} as const;

/** Interleaving on address bits 8 to 11, and 12 to 14. */
const INTERLEAVES = 0x300;
const DECODER = HDM + 0x10;

/** 8.2.5.12, with one decoder. Ranges are in units of 256 MiB. */
const decoderRegisters = {
  HDM_HEADER: capabilityHeader(0x0c, CAPABILITY.HDM, HDM),
  HDM_GLOBAL_CONTROL: r32(HDM + 0x04, { POISON_ON_ERROR: bit(0), ENABLE: bit(1) }, { doc: '8.2.5.12.2' }),
  DECODER_BASE_LOW: r32(DECODER + 0x00, { BASE: bits(28, 4) }, { doc: '8.2.5.12.3' }),
  DECODER_BASE_HIGH: r32(DECODER + 0x04, {}, { doc: '8.2.5.12.4' }),
  DECODER_SIZE_LOW: r32(DECODER + 0x08, { SIZE: bits(28, 4) }, { doc: '8.2.5.12.5' }),
  DECODER_SIZE_HIGH: r32(DECODER + 0x0c, {}, { doc: '8.2.5.12.6' }),
  DECODER_CONTROL: r32(
    DECODER + 0x10,
    {
      GRANULARITY: bits(0, 4),
      WAYS: bits(4, 4),
      LOCK_ON_COMMIT: bit(8),
      COMMIT: bit(9),
      COMMITTED: bit(10, 'ro'),
      ERROR_NOT_COMMITTED: bit(11, 'ro'),
      TYPE: bit(12, undefined, '1: the memory is of a type 3 device'),
    },
    { doc: '8.2.5.12.7' },
  ),
} as const;

/** 8.2.5.12.1 */
function decoderCapability(targets: number) {
  return r32(
    HDM + 0x00,
    {
      DECODER_COUNT: bits(0, 4),
      TARGET_COUNT: bits(4, 4),
      INTERLEAVE_11_8: bit(8),
      INTERLEAVE_14_12: bit(9),
      POISON_ON_ERROR: bit(10),
    },
    { access: 'ro', reset: (targets << 4) | INTERLEAVES },
  );
}

/** 8.2.5.12.8 and 8.2.5.12.9: of bridges and ports the port that each way goes to, a byte each. */
const targetLists = {
  TARGETS_LOW: r32(DECODER + 0x14, {}, { doc: '8.2.5.12.8' }),
  TARGETS_HIGH: r32(DECODER + 0x18, {}, { doc: '8.2.5.12.9' }),
} as const;
/** The same place in devices: how much of their memory comes before the decoder's. */
const skip = {
  TARGETS_LOW: r32(DECODER + 0x14, { SKIP: bits(28, 4) }, { doc: '8.2.5.12.8, of devices' }),
  TARGETS_HIGH: r32(DECODER + 0x18, {}, { doc: '8.2.5.12.9, of devices' }),
} as const;

/** 8.2.5.13 and 8.2.5.15: of a root complex. It trusts no link with other security, and has no snoop filter: the registers are 0. */
const rootHeaders = {
  SECURITY_HEADER: capabilityHeader(0x10, CAPABILITY.EXTENDED_SECURITY, EXTENDED_SECURITY),
  SNOOP_HEADER: capabilityHeader(0x14, CAPABILITY.SNOOP_FILTER, SNOOP_FILTER),
  SECURITY_COUNT: r32(EXTENDED_SECURITY, { ENTRIES: bits(0, 8) }, { access: 'ro', doc: '8.2.5.13' }),
  SNOOP_GROUP: r32(SNOOP_FILTER, {}, { access: 'ro', doc: '8.2.5.15.1' }),
  SNOOP_SIZE: r32(SNOOP_FILTER + 4, {}, { access: 'ro', doc: '8.2.5.15.2' }),
} as const;

const SWITCH_TARGETS = 8;

export const hostBridgeComponent = registerMap('cxl-host-bridge', {
  CAPABILITIES: capabilityArray(5),
  ...{ ...common, ...decoderRegisters, ...targetLists, ...rootHeaders },
  HDM_CAPABILITY: decoderCapability(SWITCH_TARGETS),
});

export const rootPortComponent = registerMap('cxl-root-port', {
  CAPABILITIES: capabilityArray(5),
  ...{ ...common, ...decoderRegisters, ...targetLists, ...rootHeaders },
  HDM_CAPABILITY: decoderCapability(1),
});

export const upstreamComponent = registerMap('cxl-upstream-port', {
  CAPABILITIES: capabilityArray(3),
  ...{ ...common, ...decoderRegisters, ...targetLists },
  HDM_CAPABILITY: decoderCapability(SWITCH_TARGETS),
});

export const downstreamComponent = registerMap('cxl-downstream-port', { CAPABILITIES: capabilityArray(2), ...common });

export const memoryComponent = registerMap('cxl-memory-device', {
  CAPABILITIES: capabilityArray(3),
  ...{ ...common, ...decoderRegisters, ...skip },
  HDM_CAPABILITY: decoderCapability(1),
});
