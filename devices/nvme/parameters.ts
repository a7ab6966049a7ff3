import type { Device } from '../../core/device/device.ts';
import { type PropValues, prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import type { MemoryBackend } from '../../core/memory/memory-backend.ts';
import { namespaceProperties } from './namespace.ts';
import { NvmeSubsystem } from './subsystem.ts';

const MAX_IO_QUEUES = 0xffff;
const MAX_VECTORS = 0x800;

export const nvmeProperties = {
  ...namespaceProperties,
  bootindex: prop.bootIndex({ default: -1 }),
  pmrdev: prop.backend<MemoryBackend>('memory-backend', { typeName: 'link<memory-backend>' }),
  subsys: prop.backend<Device>('device', { typeName: 'link<nvme-subsys>' }),
  serial: prop.string(),
  cmb_size_mb: prop.u32({ default: 0 }),
  num_queues: prop.u32({ default: 0 }),
  max_ioqpairs: prop.u32({ default: 64 }),
  msix_qsize: prop.u16({ default: 65 }),
  aerl: prop.u8({ default: 3 }),
  aer_max_queued: prop.u32({ default: 64 }),
  mdts: prop.u8({ default: 7 }),
  vsl: prop.u8({ default: 7 }),
  'use-intel-id': prop.bool({ default: false }),
  'legacy-cmb': prop.bool({ default: false, listed: 'no' }),
  ioeventfd: prop.bool({ default: false }),
  'msix-exclusive-bar': prop.bool({ default: false }),
  'zoned.zasl': prop.u8({ default: 0 }),
  'zoned.auto_transition': prop.bool({ default: true }),
  sriov_max_vfs: prop.u8({ default: 0 }),
  sriov_vq_flexible: prop.u16({ default: 0 }),
  sriov_vi_flexible: prop.u16({ default: 0 }),
  sriov_max_vi_per_vf: prop.u8({ default: 0 }),
  sriov_max_vq_per_vf: prop.u8({ default: 0 }),
} as const;

type Parameters = PropValues<typeof nvmeProperties>;

/** Pairs of I/O queues. */
export const queuePairs = ({ num_queues, max_ioqpairs }: Parameters): number =>
  num_queues === 0 ? max_ioqpairs : num_queues - 1;

/** @throws SouthbridgeError ERR_PROPERTY_VALUE where what is named is none */
export function subsystemOf({ subsys }: Parameters): NvmeSubsystem | undefined {
  if (subsys === undefined || subsys instanceof NvmeSubsystem) return subsys;
  return refuse("Invalid parameter type for 'subsys', expected: nvme-subsys");
}

/** @throws SouthbridgeError ERR_PROPERTY_VALUE in QEMU's words */
export function checkParameters(props: Parameters): void {
  const pairs = queuePairs(props);
  if (props.num_queues !== 0) {
    props.drive?.graph.warn('num_queues is deprecated; please use max_ioqpairs instead');
  }
  if (props.drive !== undefined && props.subsys !== undefined)
    refuse("subsystem support is unavailable with legacy namespace ('drive' property)");
  if (pairs < 1 || pairs > MAX_IO_QUEUES) refuse(`max_ioqpairs must be between 1 and ${MAX_IO_QUEUES}`);
  if (props.msix_qsize < 1 || props.msix_qsize > MAX_VECTORS) refuse(`msix_qsize must be between 1 and ${MAX_VECTORS}`);
  if (props.serial === undefined) refuse('serial property not set');
  if (props['zoned.zasl'] > props.mdts) {
    refuse('zoned.zasl (Zone Append Size Limit) must be less than or equal to mdts (Maximum Data Transfer Size)');
  }
  if (props.vsl === 0) refuse('vsl must be non-zero');
  if (props.sriov_max_vfs === 0) return;
  refuse(props.subsys === undefined ? 'subsystem is required for the use of SR-IOV' : 'SR-IOV is not implemented');
}

function refuse(message: string): never {
  throw new SouthbridgeError('ERR_PROPERTY_VALUE', message);
}
