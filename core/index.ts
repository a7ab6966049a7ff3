/** What authors of devices, machines and plugins build on. */

export type { Accelerator, AcceleratorCaps, GuestBus, Vcpu, Vm, VmOptions } from './accel/accelerator.ts';
export { I2cBus, I2cDevice, i2cProperties } from './bus/i2c.ts';
export { IsaBus, IsaDevice } from './bus/isa.ts';
export { Chardev, type CharUser } from './char/chardev.ts';
export type { Clock } from './clock/clock.ts';
export type { Timer } from './clock/timer-queue.ts';
export { ms, ns, seconds, us } from './clock/units.ts';
export { Bus, type DeviceHome } from './device/bus.ts';
export { Device, type DeviceClock } from './device/device.ts';
export {
  type DeviceContext,
  type DeviceInput,
  type DeviceType,
  type DeviceTypeInfo,
  deviceType,
} from './device/device-type.ts';
export { type Prop, type PropInput, type PropSet, type PropValues, parseProperties, prop } from './device/property.ts';
export { TypeRegistry } from './device/registry.ts';
export type { DeviceServices } from './device/services.ts';
export { SystemBus } from './device/system-bus.ts';
export { SouthbridgeError } from './errors.ts';
export { IrqLine, WiredOr } from './irq/line.ts';
export type { MachineData } from './machine/data/format.ts';
export { machineFromData, machineFromJson } from './machine/data/machine-data.ts';
export { Machine, type MachineParts } from './machine/machine.ts';
export { DEFAULT_CONFIG, type MachineConfig } from './machine/machine-config.ts';
export { extendMachine, type MachineType, machineType } from './machine/machine-type.ts';
export { AddressSpace } from './memory/address-space.ts';
export { Dma } from './memory/dma.ts';
export { type GuestRam, SharedRam } from './memory/guest-ram.ts';
export { type IoHandler, type IoOptions, MemoryRegion } from './memory/memory-region.ts';
export type { BarDeclaration, PciIdentity } from './pci/identity.ts';
export { type IntxRouter, PciBus } from './pci/pci-bus.ts';
export { PciDevice } from './pci/pci-device.ts';
export { PluginHost } from './plugin/host.ts';
export {
  type Backend,
  type BackendType,
  backendType,
  type OpenTraceSink,
  PLUGIN_API,
  type Plugin,
  type PluginDefinition,
  plugin,
  type TraceContext,
  type TraceSinkType,
  traceSink,
} from './plugin/plugin.ts';
export * from './register/register.ts';
export { field, type SavedRecord, type SavedValue, type StateFields, type StateValues } from './state/fields.ts';
export { programCounter } from './trace/sinks/program-counter.ts';
export type { TraceEvent, TraceHub } from './trace/trace.ts';
export { VcdRecorder } from './trace/vcd.ts';
export { STATUS as VIRTIO_STATUS, VIRTIO_F } from './virtio/features.ts';
export { VirtioDevice, type VirtioKind, type VirtioProps, virtioProperties } from './virtio/virtio-device.ts';
export { virtioPciType, virtioPciTypes } from './virtio/virtio-pci-types.ts';
export { Virtqueue } from './virtio/virtqueue.ts';
