import { deviceType } from '../core/device/device-type.ts';
import { VirtioMmio, virtioMmioProperties } from '../core/virtio/virtio-mmio.ts';

export const virtioMmio = deviceType({
  type: 'virtio-mmio',
  summary: 'Registers in memory with a virtio device behind them',
  bus: 'System',
  category: 'misc',
  parents: ['sys-bus-device', 'device'],
  userCreatable: false,
  properties: virtioMmioProperties,
  create: VirtioMmio,
});
