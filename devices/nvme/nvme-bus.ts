import { Bus, type DeviceHome } from '../../core/device/bus.ts';
import type { Device } from '../../core/device/device.ts';
import type { DeviceServices } from '../../core/device/services.ts';
import type { Namespace } from './namespace.ts';

/** A controller as the namespaces on its bus see it. */
export interface NamespaceHost {
  /** @throws SouthbridgeError where another namespace has the id */
  addNamespace(namespace: Namespace): () => void;
  /** Whether there is a namespace of that id. */
  hasNamespace(nsid: number): boolean;
  /** The disk behind a namespace has another size now. */
  namespaceResized(nsid: number): void;
}

/** Where the namespaces of a controller are plugged in. */
export class NvmeBus extends Bus {
  readonly host: NamespaceHost;

  constructor(
    busName: string,
    host: NamespaceHost,
    parts: { services: DeviceServices; home: DeviceHome; owner: Device },
  ) {
    super('nvme-bus', busName, parts);
    this.host = host;
  }
}

/** By the controller's id, or counted among those of controllers without one. */
export function nvmeBusName(id: string | undefined, near: Bus): string {
  if (id !== undefined) return id;
  let root = near;
  while (root.owner !== undefined) root = root.owner.bus;
  return `nvme-bus.${countUnnamed(root)}`;
}

function countUnnamed(bus: Bus): number {
  let count = bus instanceof NvmeBus && /^nvme-bus\.\d+$/.test(bus.busName) ? 1 : 0;
  for (const device of bus.devices) for (const below of device.buses) count += countUnnamed(below);
  return count;
}
