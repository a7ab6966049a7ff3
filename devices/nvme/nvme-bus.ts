import { Bus, countedBusName, type DeviceHome, type Placement } from '../../core/device/bus.ts';
import type { Device } from '../../core/device/device.ts';
import type { DeviceInput, DeviceType, DeviceTypeInfo } from '../../core/device/device-type.ts';
import type { DeviceServices } from '../../core/device/services.ts';
import type { Namespace } from './namespace.ts';

/** A controller as the namespaces on its bus see it, and its subsystem. */
export interface NamespaceHost {
  readonly serial: string;
  /** The namespace of that id that is attached to it. */
  namespace(nsid: number): Namespace | undefined;
  attachNamespace(namespace: Namespace): void;
  detachNamespace(nsid: number): void;
  /** The namespace has come, has gone or has another size: software is told. */
  namespaceChanged(nsid: number): void;
}

interface Parts {
  readonly services: DeviceServices;
  readonly home: DeviceHome;
  readonly owner: Device;
}

/** Where the namespaces of a subsystem are, which come by its controllers' buses only. */
export class SubsystemBus extends Bus {
  #by: NamespaceHost | undefined;

  constructor(busName: string, parts: Parts) {
    super('nvme-bus', busName, parts);
  }

  /** The controller by which the namespace comes that is being plugged in. */
  get by(): NamespaceHost | undefined {
    return this.#by;
  }

  override accepts(type: DeviceTypeInfo): boolean {
    return this.#by !== undefined && super.accepts(type);
  }

  /** As {@link plug}, by a controller of the subsystem. */
  plugBy<S extends DeviceType>(by: NamespaceHost, ...plugged: PlugArguments<S>): ReturnType<S['make']> {
    this.#by = by;
    try {
      return this.plug(...plugged);
    } finally {
      this.#by = undefined;
    }
  }
}

type PlugArguments<S extends DeviceType> = [
  type: S,
  placement?: DeviceInput<S> & Placement,
  props?: DeviceInput<S>,
  id?: string,
  byUser?: boolean,
];

/** Where the namespaces of a controller are plugged in. */
export class NvmeBus extends Bus {
  readonly host: NamespaceHost;
  readonly #subsystem: SubsystemBus | undefined;

  /** @param subsystem where they go, where the controller is part of a subsystem */
  constructor(busName: string, host: NamespaceHost, subsystem: SubsystemBus | undefined, parts: Parts) {
    super('nvme-bus', busName, parts);
    this.host = host;
    this.#subsystem = subsystem;
  }

  override plug<S extends DeviceType>(...plugged: PlugArguments<S>): ReturnType<S['make']> {
    return this.#subsystem?.plugBy(this.host, ...plugged) ?? super.plug(...plugged);
  }
}

/** By its owner's id where it has one. */
export const nvmeBusName = (id: string | undefined, near: Bus): string => id ?? countedBusName('nvme-bus', near);
