import { Bus, type DeviceHome } from '../../core/device/bus.ts';
import type { Device } from '../../core/device/device.ts';
import type { DeviceServices } from '../../core/device/services.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { SdCard } from './sd-card.ts';

/** What a slot hears of its card. */
export interface SdSlot {
  /** A card came or went, or one with another position of its write protect switch. */
  cardChanged(): void;
}

/** The wires between a host controller and its one card. */
export class SdBus extends Bus {
  readonly slot: SdSlot;
  #card: SdCard | undefined;

  constructor(
    busName: string,
    slot: SdSlot,
    parts: { readonly services: DeviceServices; readonly home: DeviceHome; readonly owner: Device },
  ) {
    super('sd-bus', busName, parts);
    this.slot = slot;
  }

  /** The card, if there is one that answers. */
  get card(): SdCard | undefined {
    return this.#card?.inserted ? this.#card : undefined;
  }

  protected override attached(device: Device): void {
    if (!(device instanceof SdCard)) return;
    if (this.#card !== undefined) throw new SouthbridgeError('ERR_BUS_ADDRESS', 'the slot has a card already');
    this.#card = device;
    device.changed = () => this.slot.cardChanged();
  }

  protected override detached(device: Device): void {
    if (this.#card !== device) return;
    this.#card = undefined;
    this.slot.cardChanged();
  }
}
