import { Device } from '../../core/device/device.ts';
import { type PropSet, type PropValues, prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { COMPLETION } from './message.ts';

/** What a BMC tells the interface in front of it. */
export interface SystemInterface {
  /** The answer to request `id`; only valid during the call. */
  respond(id: number, response: Uint8Array): void;
  /** Whether something waits for software; `interrupt` says whether it may be told by one. */
  setAttention(on: boolean, interrupt: boolean): void;
  /** Whether interrupts may be asserted has changed. */
  interruptsChanged(): void;
  /** The BMC was reset, cold or warm (IPMI 2.0, sections 20.2 and 20.3). */
  bmcReset(cold: boolean): void;
}

/** What a BMC may do to the machine. */
export type ChassisOperation =
  | 'power-off'
  | 'reset'
  | 'nmi'
  | 'soft-off'
  | 'power-on'
  | 'power-cycle'
  | 'pulse-diagnostic';

export const bmcProperties = {
  slave_addr: prop.u8({ default: 0x20, help: 'address on the management bus' }),
} as const;

/** A baseboard management controller: answers requests, and watches over the machine. */
export abstract class Bmc<S extends PropSet = PropSet> extends Device<S> {
  #interface: SystemInterface | undefined;

  abstract readonly slaveAddress: number;

  /** Whether the interface may assert its interrupt. */
  abstract readonly interruptsEnabled: boolean;

  /**
   * Takes a request.
   * @param message only valid during the call
   * @param truncated whether there was more than the interface could take
   */
  abstract request(id: number, message: Uint8Array, truncated: boolean): void;

  /**
   * Puts an interface in front of the BMC; what is returned takes it away.
   * @throws SouthbridgeError ERR_IPMI_BMC where there is one already
   */
  join(systemInterface: SystemInterface): () => void {
    if (this.#interface !== undefined) throw new SouthbridgeError('ERR_IPMI_BMC', 'BMC object is already in use');
    this.#interface = systemInterface;
    return () => {
      this.#interface = undefined;
    };
  }

  protected get front(): SystemInterface | undefined {
    return this.#interface;
  }

  /** Whether {@link operate} can do it: a completion code. */
  protected possible(operation: ChassisOperation): number {
    return operation === 'power-on' || operation === 'power-cycle' || operation === 'pulse-diagnostic'
      ? COMPLETION.NOT_SUPPORTED
      : COMPLETION.OK;
  }

  /** Does it; a completion code. */
  protected operate(operation: ChassisOperation): number {
    const { system } = this.services;
    if (operation === 'power-off') system.requestShutdown('guest-shutdown');
    else if (operation === 'reset') system.requestReset('guest-reset');
    else if (operation === 'nmi') system.injectNmi();
    else if (operation === 'soft-off') system.pressPowerButton();
    return this.possible(operation);
  }
}

/** The property by which an interface names its BMC. */
export const bmcLink = {
  bmc: prop.backend<Device>('device', { typeName: 'link<ipmi-bmc>', help: 'id of the BMC behind the interface' }),
} as const;

/** @throws SouthbridgeError ERR_IPMI_BMC where no BMC is named */
export function namedBmc({ bmc }: Pick<PropValues<typeof bmcLink>, 'bmc'>): Bmc {
  if (bmc === undefined)
    throw new SouthbridgeError(
      'ERR_IPMI_BMC',
      'IPMI device requires a bmc attribute to be set',
      '-device ipmi-bmc-sim,id=bmc0',
    );
  if (!(bmc instanceof Bmc))
    throw new SouthbridgeError('ERR_IPMI_BMC', "Invalid parameter type for 'bmc', expected: ipmi-bmc");
  return bmc;
}

/** How firmware and operating systems find an interface: SMBIOS type 38, and a device in the DSDT. */
export interface IpmiDescription {
  readonly kind: 'kcs' | 'bt' | 'ssif';
  /** An I/O port, or an address on the SMBus. */
  readonly base: number;
  /** Ports; 0 on the SMBus. */
  readonly length: number;
  /** Of the BMC; 0 where the interface does not say. */
  readonly slaveAddress: number;
  /** 0 for none. */
  readonly irq: number;
}

/** An interface that is described. */
export interface DescribedInterface {
  readonly ipmi: IpmiDescription;
}

export const isDescribed = (device: Device): device is Device & DescribedInterface => 'ipmi' in device;
