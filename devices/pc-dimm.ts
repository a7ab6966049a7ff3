import { MemoryDevice } from '../core/bus/memory-bus.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import type { MemoryBackend } from '../core/memory/memory-backend.ts';

/** What every memory module is told. */
export const moduleProperties = {
  addr: prop.u64({ default: 0n }),
  memdev: prop.backend<MemoryBackend>('memory-backend', { help: 'id of the memory backend' }),
  node: prop.u32({ default: 0 }),
  slot: prop.i32({ default: -1 }),
};

/** A memory module, which can be plugged in and taken out while the guest runs. */
export class PcDimm extends MemoryDevice<typeof moduleProperties> {
  readonly backend = this.props.memdev;
  readonly node = this.props.node;
  readonly wanted = { address: Number(this.props.addr), slot: this.props.slot };
}

export const pcDimm = deviceType({
  type: 'pc-dimm',
  summary: 'DIMM memory module',
  bus: 'memory-device',
  category: 'misc',
  hotpluggable: true,
  parents: ['device'],
  properties: moduleProperties,
  create: PcDimm,
});
