import type { Device } from '../device/device.ts';

/** A device through which the host asks the guest for memory: what management tools need of it. */
export interface Balloon {
  /** Bytes that the guest has left. */
  readonly balloonBytes: number;
  /** Asks the guest to make do with `bytes`. */
  balloonTo(bytes: number): void;
}

function isBalloon(device: object): device is Balloon {
  return 'balloonTo' in device && 'balloonBytes' in device;
}

/** The machine's balloon, if it has one. */
export function findBalloon(devices: Iterable<Device>): Balloon | undefined {
  for (const device of devices) if (isBalloon(device)) return device;
  return undefined;
}
