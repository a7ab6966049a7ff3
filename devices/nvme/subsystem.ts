import { Device } from '../../core/device/device.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import type { Namespace } from './namespace.ts';
import { type NamespaceHost, nvmeBusName, SubsystemBus } from './nvme-bus.ts';
import { NQN_PREFIX } from './registers.ts';

const MAX_CONTROLLERS = 256;

const properties = { nqn: prop.string({ help: 'end of the qualified name; the id where it is not given' }) } as const;

/** An NVM subsystem (NVMe 1.4, section 1.6.23): controllers, and the namespaces that they may be attached to. */
export class NvmeSubsystem extends Device<typeof properties> {
  /** NVM Subsystem NVMe Qualified Name (section 7.9). */
  readonly qualifiedName: string;
  /** Where `nvme-ns` goes that is plugged in at one of the controllers: it stays when that controller goes. */
  readonly namespaceBus: SubsystemBus;
  readonly #controllers: (NamespaceHost | undefined)[] = Array.from({ length: MAX_CONTROLLERS }, () => undefined);
  readonly #namespaces = new Map<number, Namespace>();
  /** That of the first controller, which all have in common. */
  #serial: string | undefined;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    this.qualifiedName = `${NQN_PREFIX}${this.props.nqn ?? this.id ?? ''}`;
    const { services, bus } = this;
    const parts = { services, home: bus.home, owner: this };
    this.namespaceBus = this.addBus(new SubsystemBus(nvmeBusName(this.id, bus), parts));
  }

  // Controllers

  controller(id: number): NamespaceHost | undefined {
    return this.#controllers[id];
  }

  /** Ids of the controllers from `first` on, of all or of those that a namespace is attached to. */
  *controllerIds(first: number, nsid?: number): Generator<number> {
    for (let id = first; id < MAX_CONTROLLERS; id++) {
      const controller = this.#controllers[id];
      if (controller !== undefined && (nsid === undefined || controller.namespace(nsid) !== undefined)) yield id;
    }
  }

  /**
   * Gives a controller its id, and the shared namespaces that are there.
   * @throws SouthbridgeError ERR_NVME_SUBSYSTEM where it does not fit in
   */
  join(controller: NamespaceHost): number {
    const id = this.#controllers.indexOf(undefined);
    if (id < 0) throw new SouthbridgeError('ERR_NVME_SUBSYSTEM', 'no more free controller id');
    if (controller.serial !== (this.#serial ?? controller.serial))
      throw new SouthbridgeError(
        'ERR_NVME_SUBSYSTEM',
        'invalid controller serial',
        `the controllers of a subsystem have one serial number, here '${this.#serial}'`,
      );
    this.#serial = controller.serial;
    this.#controllers[id] = controller;
    for (const namespace of this.#namespaces.values())
      if (namespace.shared && !namespace.startsDetached) controller.attachNamespace(namespace);
    return id;
  }

  leave(id: number): void {
    this.#controllers[id] = undefined;
  }

  // Namespaces

  namespace(nsid: number): Namespace | undefined {
    return this.#namespaces.get(nsid);
  }

  /** Whether it is attached to any controller. */
  isAttached(nsid: number): boolean {
    return !(this.controllerIds(0, nsid).next().done ?? true);
  }

  /**
   * Takes a namespace in, and attaches it to all controllers, or a private one to that by which it came.
   * @returns how to take it out
   */
  allocate(namespace: Namespace, by: NamespaceHost): () => void {
    const { nsid } = namespace;
    this.#namespaces.set(nsid, namespace);
    if (!namespace.startsDetached) {
      for (const controller of namespace.shared ? this.#controllers : [by]) controller?.attachNamespace(namespace);
    }
    return () => {
      this.#namespaces.delete(nsid);
      for (const controller of this.#controllers) controller?.detachNamespace(nsid);
    };
  }

  resized(nsid: number): void {
    for (const id of this.controllerIds(0, nsid)) this.controller(id)?.namespaceChanged(nsid);
  }
}

export const nvmeSubsys = deviceType({
  type: 'nvme-subsys',
  summary: 'Virtual NVMe subsystem',
  category: 'storage',
  hotpluggable: false,
  properties,
  create: NvmeSubsystem,
});
