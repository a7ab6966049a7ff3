import { command, event } from '../declare.ts';
import {
  array,
  bool,
  enumeration,
  int,
  opt,
  size,
  str,
  struct,
  uint8,
  uint16,
  uint32,
  uint64,
  union,
} from '../types.ts';
import { HostMemPolicy, HumanReadableText } from './common.ts';

export const KvmInfo = struct('KvmInfo', { enabled: bool, present: bool });
export const UuidInfo = struct('UuidInfo', { UUID: str });
export const SysEmuTarget = enumeration('SysEmuTarget', [
  'aarch64',
  'alpha',
  'arm',
  'avr',
  'cris',
  'hppa',
  'i386',
  'loongarch64',
  'm68k',
  'microblaze',
  'microblazeel',
  'mips',
  'mips64',
  'mips64el',
  'mipsel',
  'nios2',
  'or1k',
  'ppc',
  'ppc64',
  'riscv32',
  'riscv64',
  'rx',
  's390x',
  'sh4',
  'sh4eb',
  'sparc',
  'sparc64',
  'tricore',
  'x86_64',
  'xtensa',
  'xtensaeb',
]);
export const TargetInfo = struct('TargetInfo', { arch: SysEmuTarget });
export const MachineInfo = struct('MachineInfo', {
  name: str,
  alias: opt(str),
  'is-default': opt(bool),
  'cpu-max': int,
  'hotpluggable-cpus': bool,
  'numa-mem-supported': bool,
  deprecated: bool,
  'default-cpu-type': opt(str),
  'default-ram-id': opt(str),
});
export const CurrentMachineParams = struct('CurrentMachineParams', { 'wakeup-suspend-support': bool });
export const CpuInstanceProperties = struct('CpuInstanceProperties', {
  'node-id': opt(int),
  'socket-id': opt(int),
  'die-id': opt(int),
  'cluster-id': opt(int),
  'core-id': opt(int),
  'thread-id': opt(int),
});
export const CpuS390State = enumeration('CpuS390State', [
  'uninitialized',
  'stopped',
  'check-stop',
  'operating',
  'load',
]);
export const CpuInfoS390 = struct('CpuInfoS390', { 'cpu-state': CpuS390State });
export const CpuInfoFast = union(
  'CpuInfoFast',
  { 'cpu-index': int, 'qom-path': str, 'thread-id': int, props: opt(CpuInstanceProperties), target: SysEmuTarget },
  'target',
  { s390x: CpuInfoS390 },
);
export const Memdev = struct('Memdev', {
  id: opt(str),
  size: size,
  merge: bool,
  dump: bool,
  prealloc: bool,
  share: bool,
  reserve: opt(bool),
  'host-nodes': array(uint16),
  policy: HostMemPolicy,
});
export const HotpluggableCPU = struct('HotpluggableCPU', {
  type: str,
  'vcpus-count': int,
  props: CpuInstanceProperties,
  'qom-path': opt(str),
});
export const NumaOptionsType = enumeration('NumaOptionsType', ['node', 'dist', 'cpu', 'hmat-lb', 'hmat-cache']);
export const NumaNodeOptions = struct('NumaNodeOptions', {
  nodeid: opt(uint16),
  cpus: opt(array(uint16)),
  mem: opt(size),
  memdev: opt(str),
  initiator: opt(uint16),
});
export const NumaDistOptions = struct('NumaDistOptions', { src: uint16, dst: uint16, val: uint8 });
export const NumaCpuOptions = struct('NumaCpuOptions', {}, { base: CpuInstanceProperties });
export const HmatLBMemoryHierarchy = enumeration('HmatLBMemoryHierarchy', [
  'memory',
  'first-level',
  'second-level',
  'third-level',
]);
export const HmatLBDataType = enumeration('HmatLBDataType', [
  'access-latency',
  'read-latency',
  'write-latency',
  'access-bandwidth',
  'read-bandwidth',
  'write-bandwidth',
]);
export const NumaHmatLBOptions = struct('NumaHmatLBOptions', {
  initiator: uint16,
  target: uint16,
  hierarchy: HmatLBMemoryHierarchy,
  'data-type': HmatLBDataType,
  latency: opt(uint64),
  bandwidth: opt(size),
});
export const HmatCacheAssociativity = enumeration('HmatCacheAssociativity', ['none', 'direct', 'complex']);
export const HmatCacheWritePolicy = enumeration('HmatCacheWritePolicy', ['none', 'write-back', 'write-through']);
export const NumaHmatCacheOptions = struct('NumaHmatCacheOptions', {
  'node-id': uint32,
  size: size,
  level: uint8,
  associativity: HmatCacheAssociativity,
  policy: HmatCacheWritePolicy,
  line: uint16,
});
export const NumaOptions = union('NumaOptions', { type: NumaOptionsType }, 'type', {
  node: NumaNodeOptions,
  dist: NumaDistOptions,
  cpu: NumaCpuOptions,
  'hmat-lb': NumaHmatLBOptions,
  'hmat-cache': NumaHmatCacheOptions,
});
export const BalloonInfo = struct('BalloonInfo', { actual: int });
export const MemoryInfo = struct('MemoryInfo', { 'base-memory': size, 'plugged-memory': opt(size) });
export const MemoryDeviceInfoKind = enumeration('MemoryDeviceInfoKind', [
  'dimm',
  'nvdimm',
  'virtio-pmem',
  'virtio-mem',
  'sgx-epc',
]);
export const PCDIMMDeviceInfo = struct('PCDIMMDeviceInfo', {
  id: opt(str),
  addr: int,
  size: int,
  slot: int,
  node: int,
  memdev: str,
  hotplugged: bool,
  hotpluggable: bool,
});
export const PCDIMMDeviceInfoWrapper = struct('PCDIMMDeviceInfoWrapper', { data: PCDIMMDeviceInfo });
export const VirtioPMEMDeviceInfo = struct('VirtioPMEMDeviceInfo', {
  id: opt(str),
  memaddr: size,
  size: size,
  memdev: str,
});
export const VirtioPMEMDeviceInfoWrapper = struct('VirtioPMEMDeviceInfoWrapper', { data: VirtioPMEMDeviceInfo });
export const VirtioMEMDeviceInfo = struct('VirtioMEMDeviceInfo', {
  id: opt(str),
  memaddr: size,
  'requested-size': size,
  size: size,
  'max-size': size,
  'block-size': size,
  node: int,
  memdev: str,
});
export const VirtioMEMDeviceInfoWrapper = struct('VirtioMEMDeviceInfoWrapper', { data: VirtioMEMDeviceInfo });
export const SgxEPCDeviceInfo = struct('SgxEPCDeviceInfo', {
  id: opt(str),
  memaddr: size,
  size: size,
  node: int,
  memdev: str,
});
export const SgxEPCDeviceInfoWrapper = struct('SgxEPCDeviceInfoWrapper', { data: SgxEPCDeviceInfo });
export const MemoryDeviceInfo = union('MemoryDeviceInfo', { type: MemoryDeviceInfoKind }, 'type', {
  dimm: PCDIMMDeviceInfoWrapper,
  nvdimm: PCDIMMDeviceInfoWrapper,
  'virtio-pmem': VirtioPMEMDeviceInfoWrapper,
  'virtio-mem': VirtioMEMDeviceInfoWrapper,
  'sgx-epc': SgxEPCDeviceInfoWrapper,
});
export const GuidInfo = struct('GuidInfo', { guid: str });
export const ACPISlotType = enumeration('ACPISlotType', ['DIMM', 'CPU']);
export const ACPIOSTInfo = struct('ACPIOSTInfo', {
  device: opt(str),
  slot: str,
  'slot-type': ACPISlotType,
  source: int,
  status: int,
});

export const commands = {
  'query-kvm': command('Whether KVM is there and in use', { returns: KvmInfo }),
  'query-uuid': command("The machine's UUID", { returns: UuidInfo, preconfig: true }),
  'query-target': command("The guest's architecture", { returns: TargetInfo }),
  'query-machines': command('The machine types', { returns: array(MachineInfo) }),
  'query-current-machine': command('Capabilities of the running machine', { returns: CurrentMachineParams }),
  'query-cpus-fast': command('The virtual CPUs', { returns: array(CpuInfoFast) }),
  system_reset: command('Resets the machine', {}),
  system_powerdown: command('Presses the power button', {}),
  system_wakeup: command('Wakes the guest from suspend', {}),
  'inject-nmi': command('Sends a non-maskable interrupt', {}),
  memsave: command("Writes a stretch of a CPU's virtual memory to a file", {
    args: { val: int, size: int, filename: str, 'cpu-index': opt(int) },
  }),
  pmemsave: command('Writes a stretch of physical memory to a file', { args: { val: int, size: int, filename: str } }),
  'query-memdev': command('The memory backends', { returns: array(Memdev), preconfig: true }),
  'query-hotpluggable-cpus': command('CPU slots, with what to plug into them', {
    returns: array(HotpluggableCPU),
    preconfig: true,
  }),
  'set-numa-node': command('Configures NUMA before the machine is built', { args: NumaOptions, preconfig: true }),
  balloon: command('Asks the guest for memory', { args: { value: int } }),
  'query-balloon': command('How much memory the guest has', { returns: BalloonInfo }),
  'query-memory-size-summary': command('Base and plugged memory', { returns: MemoryInfo }),
  'query-memory-devices': command('The plugged memory devices', { returns: array(MemoryDeviceInfo) }),
  'query-vm-generation-id': command('The generation ID', { returns: GuidInfo }),
  'x-query-irq': command('Interrupt statistics', { returns: HumanReadableText, features: ['unstable'] }),
  'x-query-roms': command('ROM images', { returns: HumanReadableText, features: ['unstable'] }),
  'x-query-numa': command('NUMA layout', { returns: HumanReadableText, features: ['unstable'] }),
  'x-query-ramblock': command('Blocks of RAM', { returns: HumanReadableText, features: ['unstable'] }),
  'x-query-usb': command('USB devices', { returns: HumanReadableText, features: ['unstable'] }),
  'x-query-jit': command('Statistics of the translator', { returns: HumanReadableText, features: ['unstable'] }),
  'x-query-opcount': command('Translated opcodes', { returns: HumanReadableText, features: ['unstable'] }),
  'x-query-profile': command('Profile of the translator', { returns: HumanReadableText, features: ['unstable'] }),
  'x-query-rdma': command('RDMA state', { returns: HumanReadableText, features: ['unstable'] }),
  dumpdtb: command("Saves the machine's device tree", { args: { filename: str } }),
  'query-acpi-ospm-status': command('What the guest reported through ACPI', { returns: array(ACPIOSTInfo) }),
};

export const events = {
  BALLOON_CHANGE: event({ actual: int }),
  MEMORY_DEVICE_SIZE_CHANGE: event({ id: opt(str), size: size, 'qom-path': str }),
  MEM_UNPLUG_ERROR: event({ device: str, msg: str }, ['deprecated']),
  ACPI_DEVICE_OST: event({ info: ACPIOSTInfo }),
};
