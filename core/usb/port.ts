import type { UsbDevice } from './device.ts';
import type { UsbEndpoint } from './endpoint.ts';

/** What a port belongs to, a root hub or a hub, is told by the device on it. */
export interface PortHandler {
  /** A device is there; its speed is settled. */
  portAttached(port: UsbPort): void;
  /** The device is about to go; it is still at `port.device`. */
  portDetached(port: UsbPort): void;
  /** A device somewhere below the one on this port is about to go: let go of packets for it. */
  childDetached(port: UsbPort, child: UsbDevice): void;
  /** Remote wakeup (USB 2.0, section 7.1.7.7). */
  wakeup(port: UsbPort): void;
  /** An endpoint that answered NAK has something now. `port` is where the way to it begins. */
  ready(port: UsbPort, endpoint: UsbEndpoint, stream: number): void;
}

/** A socket that a device can be plugged into. */
export class UsbPort {
  readonly handler: PortHandler;
  /** Counted from 0 within its hub. */
  readonly index: number;
  /** Port numbers from the root, counted from 1, as in `1.2`. */
  readonly path: string;
  /** Hubs on the way. */
  readonly depth: number;
  /** The speeds that it takes now: see SPEED_MASK. */
  speeds: number;
  /** Those that it can take, for another controller may own it at another time. */
  capable: number;
  device: UsbDevice | undefined;

  constructor(handler: PortHandler, index: number, speeds: number, upstream?: UsbPort) {
    this.handler = handler;
    this.index = index;
    this.speeds = speeds;
    this.capable = speeds;
    this.path = upstream === undefined ? `${index + 1}` : `${upstream.path}.${index + 1}`;
    this.depth = upstream === undefined ? 0 : upstream.depth + 1;
  }

  /** The device there, attached and reset, or one below it, that has this bus address. */
  find(address: number): UsbDevice | undefined {
    const { device } = this;
    if (device === undefined || !device.addressable) return undefined;
    return device.address === address ? device : device.findBelow(address);
  }
}
