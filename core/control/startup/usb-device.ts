import type { TypeRegistry } from '../../device/registry.ts';
import type { Machine } from '../../machine/machine.ts';
import { usbBuses } from '../commands/usb.ts';
import { OptionError } from '../options/opts.ts';
import { addDevice } from './devices.ts';

/** What `-usbdevice` calls the devices that it can make. */
const DRIVERS: ReadonlyMap<string, string> = new Map([
  ['keyboard', 'usb-kbd'],
  ['mouse', 'usb-mouse'],
  ['tablet', 'usb-tablet'],
  ['wacom-tablet', 'usb-wacom-tablet'],
]);

/**
 * `-usbdevice NAME`: the device of that name on the machine's first USB bus.
 * @throws OptionError with QEMU's words
 */
export async function addUsbDevice(machine: Machine, registry: TypeRegistry, name: string): Promise<void> {
  const failed = (why: string): OptionError => new OptionError(`could not add USB device '${name}'`, why);
  if (name.includes(':')) throw failed('usbdevice parameters are not supported anymore');
  const driver = DRIVERS.get(name);
  if (driver === undefined) throw failed(`there are ${[...DRIVERS.keys()].join(', ')}`);
  const [bus] = usbBuses(machine);
  if (bus === undefined) {
    throw failed(
      `no usb bus to attach usbdevice ${name}, please try -machine usb=on and check that the machine model supports USB`,
    );
  }
  await addDevice(machine, registry, { driver, bus: bus.busName, properties: {} }, false);
}
