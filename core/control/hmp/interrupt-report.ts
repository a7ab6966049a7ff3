import type { Device } from '../../device/device.ts';
import type { Machine } from '../../machine/machine.ts';

/** A chip that says in what state it is. */
interface Reporting {
  readonly report: string;
}

const reports = <T extends object>(device: T): device is T & Reporting =>
  'report' in device && typeof device.report === 'string';

/** The I/O APIC first, then the second 8259A. */
const rank = (report: string): number => ['ioapic', 'pic1', 'pic0'].findIndex(name => report.startsWith(name));

/** `info pic`. */
export function interruptControllers(machine: Machine): string {
  return [...machine.devices()]
    .reverse()
    .flatMap(device => (reports(device) ? [`${device.report}\n`] : []))
    .sort((a, b) => rank(a) - rank(b))
    .join('');
}

/** The chips whose requests are counted. */
const COUNTED: readonly ((device: Device) => boolean)[] = [
  ({ typeName }) => typeName === 'ioapic',
  device => device.typeName === 'isa-i8259' && device.property('master')?.get() === true,
];

/** `info irq`: how often each input of the interrupt controllers has gone high. */
export function interruptCounts(machine: Machine): string {
  const devices = [...machine.devices()];
  return COUNTED.flatMap(counted => devices.filter(counted))
    .map(device => {
      const pins = device.inputPins.get('') ?? [];
      const lines = pins.flatMap(({ rises }, pin) => (rises === 0 ? [] : [` ${pin}: ${rises}\n`]));
      return `IRQ statistics for ${device.typeName}:\n${lines.join('')}`;
    })
    .join('');
}
