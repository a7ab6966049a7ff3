import { Bus, type DeviceHome } from '../device/bus.ts';
import { Device } from '../device/device.ts';
import type { DeviceContext } from '../device/device-type.ts';
import type { PropSet } from '../device/property.ts';
import type { DeviceServices } from '../device/services.ts';
import { SouthbridgeError } from '../errors.ts';

/** A smart card reader, as the card in it sees it. */
export interface CardReader {
  cardInserted(): void;
  cardRemoved(): void;
  /** The card's answer to the command that it was given last. */
  answer(apdu: Uint8Array): void;
  /** Why there will be none. */
  failed(): void;
}

/** The slot of a smart card reader. */
export class CcidBus extends Bus {
  readonly reader: CardReader;

  constructor(
    busName: string,
    reader: CardReader,
    parts: { readonly services: DeviceServices; readonly home: DeviceHome; readonly owner: Device },
  ) {
    super('ccid-bus', busName, parts);
    this.reader = reader;
  }

  get card(): CcidCard | undefined {
    return this.devices.find(device => device instanceof CcidCard);
  }
}

/** A smart card, or whatever stands for one. */
export abstract class CcidCard<S extends PropSet = PropSet> extends Device<S> {
  protected readonly reader: CardReader;

  constructor(context: DeviceContext<S>) {
    super(context);
    if (!(context.bus instanceof CcidBus))
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' needs a smart card reader`);
    if (context.bus.card !== undefined) {
      throw new SouthbridgeError(
        'ERR_BUS_FULL',
        'Warning: usb-ccid card already full, not adding',
        'a reader has one slot',
      );
    }
    this.reader = context.bus.reader;
  }

  /** There is a card: a reader may be there without. */
  abstract readonly inserted: boolean;
  /** Its answer to reset (ISO 7816-3, section 8.2). */
  abstract readonly atr: Uint8Array;
  /** A command for it; {@link CardReader.answer} follows. */
  abstract command(apdu: Uint8Array): void;
}
