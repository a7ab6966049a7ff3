import { Device } from '../../core/device/device.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { Namespace, namespaceProperties } from './namespace.ts';
import { type NamespaceHost, NvmeBus, SubsystemBus } from './nvme-bus.ts';
import { MAX_NAMESPACES } from './registers.ts';
import { NvmeSubsystem } from './subsystem.ts';

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
    const { props } = this;
    const { host, subsystem } = this.#place();
    if (props.detached && subsystem === undefined)
      refuse('detached requires that the nvme device is linked to an nvme-subsys device');
    if (props.nsid > MAX_NAMESPACES) refuse(`invalid namespace id (must be between 0 and ${MAX_NAMESPACES})`);
    const taken = (nsid: number): boolean =>
      host.namespace(nsid) !== undefined || subsystem?.namespace(nsid) !== undefined;
    const nsid = props.nsid === 0 ? firstFree(taken) : props.nsid;
    if (taken(nsid)) refuse(`namespace id '${nsid}' already allocated`);
    const eui64 = props.eui64 === 0n && props['eui64-default'] ? EUI64_DEFAULT + BigInt(nsid) : props.eui64;
    const namespace = new Namespace({
      ...{ nsid, props, eui64, uuid: this.#uuid() },
      // Without a subsystem there is nobody to share it with.
      shared: props.shared && subsystem !== undefined,
      startsDetached: props.detached,
      path: () => this.path,
      resized: () => (subsystem === undefined ? host.namespaceChanged(nsid) : subsystem.resized(nsid)),
    });
    this.defineProperty({ name: 'nsid', type: 'uint32', get: () => nsid });
    this.onUnrealize(() => namespace.close());
    if (subsystem !== undefined) {
      this.onUnrealize(subsystem.allocate(namespace, host));
    } else {
      host.attachNamespace(namespace);
      this.onUnrealize(() => host.detachNamespace(nsid));
    }
  }

  /** The controller by which it comes, and the subsystem of that. */
  #place(): { readonly host: NamespaceHost; readonly subsystem?: NvmeSubsystem } {
    const { bus } = this;
    if (bus instanceof NvmeBus) return { host: bus.host };
    if (bus instanceof SubsystemBus && bus.by !== undefined && bus.owner instanceof NvmeSubsystem)
      return { host: bus.by, subsystem: bus.owner };
    throw new SouthbridgeError('ERR_DEVICE_TYPE', `'nvme-ns' goes onto an NVMe bus`);
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

function firstFree(taken: (nsid: number) => boolean): number {
  for (let nsid = 1; nsid <= MAX_NAMESPACES; nsid++) if (!taken(nsid)) return nsid;
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
