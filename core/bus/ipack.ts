import { Bus } from '../device/bus.ts';
import { Device } from '../device/device.ts';
import type { DeviceContext } from '../device/device-type.ts';
import { type PropSet, prop } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';

/** The property that places a module in a slot of its carrier. */
export const ipackProperties = { slot: prop.i32({ default: -1, help: 'slot, from 0; -1 for the next one' }) } as const;

/**
 * The spaces of a module (ANSI/VITA 4, section 3): I/O, identification, interrupt acknowledge, and memory, which a carrier may show by
 * words and by bytes.
 */
export type IpackSpace = 'io' | 'id' | 'interrupt' | 'memory' | 'byte-memory';

/** A carrier, as its modules reach it. */
export interface IpackCarrier {
  /** A module drives its interrupt request 0 or 1; it may say the same again. */
  interrupt(slot: number, request: number, level: boolean): void;
}

/** The slots of a carrier board for IndustryPack modules (ANSI/VITA 4). */
export class IpackBus extends Bus {
  readonly carrier: IpackCarrier;
  readonly #slots: (IpackModule | undefined)[];
  #next = 0;

  constructor(busName: string, slots: number, carrier: IpackCarrier, parts: ConstructorParameters<typeof Bus>[2]) {
    super('IndustryPack', busName, parts);
    this.carrier = carrier;
    this.#slots = Array.from({ length: slots }, () => undefined);
  }

  /** The module in a slot, if there is one. */
  at(slot: number): IpackModule | undefined {
    return this.#slots[slot];
  }

  override addressOf(device: Device): string | undefined {
    return device instanceof IpackModule ? String(device.slot) : undefined;
  }

  protected override attached(device: Device): void {
    if (!(device instanceof IpackModule)) return;
    const slot = device.requestedSlot < 0 ? this.#next : device.requestedSlot;
    if (slot >= this.#slots.length)
      throw new SouthbridgeError('ERR_BUS_ADDRESS', `Only ${this.#slots.length} slots available.`);
    const other = this.#slots[slot];
    if (other !== undefined) {
      throw new SouthbridgeError(
        'ERR_BUS_ADDRESS',
        `${device.typeName} and ${other.typeName} both want slot ${slot} of ${this.busName}`,
        'give one of them another slot=',
      );
    }
    this.#slots[slot] = device;
    device.slot = slot;
    this.#next = slot + 1;
  }

  protected override detached(device: Device): void {
    if (!(device instanceof IpackModule) || this.#slots[device.slot] !== device) return;
    this.#slots[device.slot] = undefined;
    this.#next = Math.min(this.#next, device.slot);
  }
}

/** A module in a slot. Its address lines select bytes; what it puts on its 16 data lines is in the low byte where it has but eight. */
export abstract class IpackModule<S extends PropSet = PropSet> extends Device<S> {
  slot = -1;
  protected readonly carrier: IpackCarrier;

  constructor(context: DeviceContext<S>) {
    super(context);
    if (!(context.bus instanceof IpackBus)) {
      throw new SouthbridgeError(
        'ERR_DEVICE_TYPE',
        `'${context.type.type}' is an IndustryPack module; its type must say bus: 'IndustryPack'`,
      );
    }
    this.carrier = context.bus.carrier;
    this.defineProperty({ name: 'slot', type: 'int32', get: () => this.slot });
  }

  get requestedSlot(): number {
    const { slot } = this.props as { readonly slot?: number };
    return slot ?? -1;
  }

  abstract read(space: IpackSpace, address: number): number;
  abstract write(space: IpackSpace, address: number, value: number): void;
}
