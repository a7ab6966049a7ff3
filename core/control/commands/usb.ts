import type { Machine } from '../../machine/machine.ts';
import { UsbBus } from '../../usb/bus.ts';
import { MEGABITS } from '../../usb/speed.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

/** All USB buses in the order in which the machine got them. */
export function usbBuses(machine: Machine): UsbBus[] {
  return [...machine.buses()].filter(bus => bus instanceof UsbBus).sort((a, b) => a.sequence - b.sequence);
}

/** What is plugged in, with QEMU's words. */
function report(machine: Machine): string {
  const buses = usbBuses(machine);
  if (buses.length === 0) throw new QmpError('USB support not enabled');
  return buses
    .flatMap((bus, number) =>
      bus.usedPorts.map(({ device, path }) =>
        device === undefined
          ? ''
          : `  Device ${number}.${device.address}, Port ${path}, Speed ${MEGABITS[device.speed]} Mb/s, ` +
            `Product ${device.productName}${device.id === undefined ? '' : `, ID: ${device.id}`}\n`,
      ),
    )
    .join('');
}

export function usbCommands(program: Program): Handlers<QmpSession> {
  return { 'x-query-usb': () => ({ 'human-readable-text': report(program.machine) }) };
}
