import { MemoryBus, MemoryDevice } from '../core/bus/memory-bus.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import type { MemoryBackend } from '../core/memory/memory-backend.ts';

const properties = {
  addr: prop.u64({ default: 0n }),
  memdev: prop.backend<MemoryBackend>('memory-backend', { help: 'id of the memory backend' }),
  node: prop.u32({ default: 0 }),
  slot: prop.i32({ default: -1 }),
};

/** A memory module, which can be plugged in and taken out while the guest runs. */
export class PcDimm extends MemoryDevice<typeof properties> {
  readonly backend = this.props.memdev;
  readonly node = this.props.node;
  readonly wanted = { address: Number(this.props.addr), slot: this.props.slot };

  protected override realize(): void {
    this.defineProperty({ name: 'addr', type: 'uint64', get: () => this.address });
    this.defineProperty({ name: 'slot', type: 'int32', get: () => this.slot });
    this.defineProperty({ name: 'size', type: 'uint64', get: () => this.size });
    this.defineProperty({ name: 'memdev', type: 'link<memory-backend>', get: () => this.backend?.path ?? '' });
    if (this.bus instanceof MemoryBus && this.backend !== undefined) {
      this.onUnrealize(this.bus.map(this, this.backend));
    }
  }
}

export const pcDimm = deviceType({
  type: 'pc-dimm',
  summary: 'DIMM memory module',
  bus: 'memory-device',
  category: 'misc',
  hotpluggable: true,
  parents: ['device'],
  properties,
  create: PcDimm,
});
