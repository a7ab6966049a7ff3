import { Device } from '../../core/device/device.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { Namespace, namespaceProperties } from './namespace.ts';
import { NvmeBus } from './nvme-bus.ts';
import { MAX_NAMESPACES } from './registers.ts';

/** Of the namespaces that ask for an identifier without giving one: QEMU's. */
const EUI64_DEFAULT = 0x5254_0000_0000_0000n;
const UUID_BYTES = 16;

const properties = {
  ...namespaceProperties,
  bootindex: prop.bootIndex({ default: -1 }),
  nsid: prop.u32({ default: 0 }),
  uuid: prop.uuid(),
  eui64: prop.u64({ default: 0n }),
  'eui64-default': prop.bool({ default: false }),
  detached: prop.bool({ default: false }),
  shared: prop.bool({ default: true }),
} as const;

/** A namespace of an NVMe controller. */
class NvmeNs extends Device<typeof properties> {
  protected override realize(): void {
    const { bus, props } = this;
    if (!(bus instanceof NvmeBus)) throw new SouthbridgeError('ERR_DEVICE_TYPE', `'nvme-ns' goes onto an NVMe bus`);
    if (props.detached) refuse('detached requires that the nvme device is linked to an nvme-subsys device');
    if (props.nsid > MAX_NAMESPACES) refuse(`invalid namespace id (must be between 0 and ${MAX_NAMESPACES})`);
    const nsid = props.nsid === 0 ? firstFree(bus) : props.nsid;
    if (bus.host.hasNamespace(nsid)) refuse(`namespace id '${nsid}' already allocated`);
    const eui64 = props.eui64 === 0n && props['eui64-default'] ? EUI64_DEFAULT + BigInt(nsid) : props.eui64;
    const namespace = new Namespace({
      ...{ nsid, props, eui64, uuid: this.#uuid() },
      path: () => this.path,
      resized: () => bus.host.namespaceResized(nsid),
    });
    this.onUnrealize(() => namespace.close());
    this.onUnrealize(bus.host.addNamespace(namespace));
  }

  #uuid(): Uint8Array | undefined {
    const { uuid } = this.props;
    if (uuid === undefined) return undefined;
    if (uuid !== 'auto') return Buffer.from(uuid.replaceAll('-', ''), 'hex');
    const bytes = Uint8Array.from({ length: UUID_BYTES }, () => Math.floor(this.services.random() * 256));
    bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
    bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
    return bytes;
  }
}

function firstFree({ host }: NvmeBus): number {
  for (let nsid = 1; nsid <= MAX_NAMESPACES; nsid++) if (!host.hasNamespace(nsid)) return nsid;
  return refuse('no free namespace id');
}

function refuse(message: string): never {
  throw new SouthbridgeError('ERR_PROPERTY_VALUE', message);
}

export const nvmeNs = deviceType({
  type: 'nvme-ns',
  summary: 'Namespace of an NVMe controller',
  bus: 'nvme-bus',
  category: 'storage',
  hotpluggable: false,
  properties,
  create: NvmeNs,
});
