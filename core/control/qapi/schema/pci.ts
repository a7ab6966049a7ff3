import { command } from '../declare.ts';
import { type AnyType, array, bool, int, lazy, opt, str, struct } from '../types.ts';

export const PciDeviceClass = struct('PciDeviceClass', { desc: opt(str), class: int });
export const PciDeviceId = struct('PciDeviceId', {
  device: int,
  vendor: int,
  subsystem: opt(int),
  'subsystem-vendor': opt(int),
});
export const PciMemoryRange = struct('PciMemoryRange', { base: int, limit: int });
export const PciBusInfo = struct('PciBusInfo', {
  number: int,
  secondary: int,
  subordinate: int,
  io_range: PciMemoryRange,
  memory_range: PciMemoryRange,
  prefetchable_range: PciMemoryRange,
});
export const PciBridgeInfo = struct('PciBridgeInfo', {
  bus: PciBusInfo,
  devices: opt(array(lazy('PciDeviceInfo', (): AnyType => PciDeviceInfo))),
});
export const PciMemoryRegion = struct('PciMemoryRegion', {
  bar: int,
  type: str,
  address: int,
  size: int,
  prefetch: opt(bool),
  mem_type_64: opt(bool),
});
export const PciDeviceInfo = struct('PciDeviceInfo', {
  bus: int,
  slot: int,
  function: int,
  class_info: PciDeviceClass,
  id: PciDeviceId,
  irq: opt(int),
  irq_pin: int,
  qdev_id: str,
  pci_bridge: opt(PciBridgeInfo),
  regions: array(PciMemoryRegion),
});
export const PciInfo = struct('PciInfo', { bus: int, devices: array(PciDeviceInfo) });

export const commands = {
  'query-pci': command('The PCI buses and devices', { returns: array(PciInfo) }),
};
