import { Bus } from '../device/bus.ts';
import { Device } from '../device/device.ts';
import type { DeviceContext } from '../device/device-type.ts';
import type { PropSet } from '../device/property.ts';
import { prop } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';

/** The property that places a device on the bus: its 7-bit address. */
export const i2cProperties = { address: prop.u8({ default: 0, help: '7-bit address' }) } as const;

/** An I2C or SMBus segment: devices at 7-bit addresses (I2C specification UM10204, section 3.1.10). */
export class I2cBus extends Bus {
  constructor(busName: string, parts: ConstructorParameters<typeof Bus>[2]) {
    super('i2c-bus', busName, parts);
  }

  /** The device that answers to `address`, if any. */
  at(address: number): I2cDevice | undefined {
    for (const device of this.devices) if (device instanceof I2cDevice && device.address === address) return device;
    return undefined;
  }

  protected override attached(device: Device): void {
    if (!(device instanceof I2cDevice)) return;
    const other = this.at(device.address);
    if (other === undefined) return;
    throw new SouthbridgeError(
      'ERR_BUS_ADDRESS',
      `${device.typeName} and ${other.typeName} both want I2C address 0x${device.address.toString(16)} on ${this.busName}`,
      'give one of them another address=',
    );
  }
}

/** A device on an I2C bus. The controller calls in the order of the transfer: start, bytes, stop. */
export abstract class I2cDevice<S extends PropSet = PropSet> extends Device<S> {
  readonly address: number;

  constructor(context: DeviceContext<S>) {
    super(context);
    const { address } = context.props as { readonly address?: number };
    this.address = address ?? 0;
  }

  /** START and the address were seen. Returns false to not acknowledge. */
  start(_read: boolean): boolean {
    return true;
  }

  /** A byte from the controller. Returns false to not acknowledge. */
  abstract receive(byte: number): boolean;

  /** A byte for the controller. */
  abstract transmit(): number;

  /** STOP. */
  stop(): void {}
}
