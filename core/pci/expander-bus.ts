import type { Device } from '../device/device.ts';
import { SouthbridgeError } from '../errors.ts';
import type { CxlHost } from './cxl-host.ts';
import { rotatedPin, unrotatedPin } from './intx.ts';
import { PciBus } from './pci-bus.ts';
import { PciDevice } from './pci-device.ts';

export type ExpanderLink = 'pci' | 'express' | 'cxl';

const SEATS = { pci: 'pxb', express: 'pxb-pcie', cxl: 'pxb-cxl' } as const;

export interface ExpanderParts {
  /** The root bus that this one is a second one beside. */
  readonly root: PciBus;
  /** The function on {@link root} that stands for it. */
  readonly function: PciDevice;
  /** What the bus belongs to in the device tree. */
  readonly host: Device;
  readonly number: number;
  readonly link: ExpanderLink;
  /** What its host bridge has beside, where it is one of CXL. */
  readonly cxlHost?: CxlHost | undefined;
  readonly numaNode: number | undefined;
  readonly bypassIommu: boolean;
}

/** A root bus of a fixed number beside the host bridge's own: the address spaces are the same, the functions are others. */
export class ExpanderBus extends PciBus {
  readonly numaNode: number | undefined;
  readonly link: ExpanderLink;
  readonly cxlHost: CxlHost | undefined;
  /** The function on the root bus that stands for it. */
  readonly seat: PciDevice;
  readonly #number: number;
  readonly #root: PciBus;

  constructor(busName: string, { root, function: seat, host, number, link, ...rest }: ExpanderParts) {
    super(busName, {
      ...{ services: root.services, home: root.home, owner: host, bypassIommu: rest.bypassIommu },
      ...{ express: link !== 'pci', cxl: link === 'cxl' },
      ...{ memory: root.memory, io: root.io, dmaSpace: root.dmaSpace },
      router: {
        // Interrupts go through the function that stands for the bus, but as if that had no device number: firmware sees no bridge.
        route: (devfn, pin) => unrotatedPin(seat.devfn, rotatedPin(devfn, pin)),
        setIrq: (pin, level) => root.setIntx(seat.devfn, pin, level),
      },
    });
    this.link = link;
    this.cxlHost = rest.cxlHost;
    this.seat = seat;
    this.#number = number;
    this.#root = root;
    this.numaNode = rest.numaNode;
  }

  override get typeChain(): readonly string[] {
    return [`${SEATS[this.link]}-bus`, ...super.typeChain];
  }

  override get number(): number {
    return this.#number;
  }

  protected override attached(device: Device): void {
    if (device instanceof PciDevice && device.secondaryBus === undefined)
      throw new SouthbridgeError(
        'ERR_BUS_KIND',
        `PCI: Only PCI/PCIe bridges can be plugged into ${SEATS[this.link]}`,
        'give it the bus behind a bridge',
      );
    super.attached(device);
  }

  /** Its place among its root bus's expanders, by number, from 1 on. */
  get position(): number {
    return this.#root.expanders.filter(({ number }) => number < this.#number).length + 1;
  }

  /**
   * Answers configuration cycles from now on, until what is returned is called.
   * @throws SouthbridgeError ERR_BUS_ADDRESS where there is a bus of that number
   */
  join(): () => void {
    if (this.#root.expanders.some(({ number }) => number === this.#number))
      throw new SouthbridgeError('ERR_BUS_ADDRESS', `Bus ${this.#number} is already in use`, 'give it another bus_nr=');
    return this.#root.addExpander(this);
  }
}
