import type { MachineType } from '../../machine/machine-type.ts';
import type { CommandLine } from '../options/command-line.ts';

/** The parts that a machine gets without being asked, unless the user brought one of the kind. */
export interface Defaults {
  readonly serial: boolean;
  readonly parallel: boolean;
  readonly monitor: boolean;
  readonly floppy: boolean;
  readonly cdrom: boolean;
  readonly vga: boolean;
  readonly net: boolean;
}

/** Devices that stand for a default part. */
const REPLACES: ReadonlyMap<string, keyof Defaults> = new Map([
  ['isa-serial', 'serial'],
  ['isa-parallel', 'parallel'],
  ['isa-fdc', 'floppy'],
  ['floppy', 'floppy'],
  ['ide-cd', 'cdrom'],
  ['ide-hd', 'cdrom'],
  ['scsi-cd', 'cdrom'],
  ['scsi-hd', 'cdrom'],
  ['VGA', 'vga'],
  ['isa-vga', 'vga'],
  ['cirrus-vga', 'vga'],
  ['isa-cirrus-vga', 'vga'],
  ['virtio-vga', 'vga'],
  ['ati-vga', 'vga'],
]);

function givenDrivers(line: CommandLine): Set<unknown> {
  return new Set<unknown>([
    ...line.opts('device').map(({ opts }) => opts.string('driver')),
    ...line.opts('global').map(({ opts }) => opts.string('driver')),
    ...line.object('device').map(({ value }) => value['driver']),
  ]);
}

export function defaultsFor(line: CommandLine, type: MachineType): Defaults {
  const drivers = givenDrivers(line);
  const replaced = new Set([...REPLACES].filter(([driver]) => drivers.has(driver)).map(([, part]) => part));
  const wanted = (part: keyof Defaults, given: boolean): boolean =>
    !line.has('nodefaults') && !given && !replaced.has(part);
  const monitorGiven = line.has('monitor') || line.has('qmp') || line.has('qmp-pretty') || line.opts('mon').length > 0;
  const netGiven = line.has('netdev') || line.has('nic') || line.has('net');
  return {
    serial: type.defaults.serial && wanted('serial', line.has('serial')),
    parallel: type.defaults.parallel && wanted('parallel', line.has('parallel')),
    monitor: wanted('monitor', monitorGiven),
    floppy: type.defaults.floppy && wanted('floppy', false),
    cdrom: type.defaults.cdrom && wanted('cdrom', false),
    vga: type.defaults.vga !== 'none' && wanted('vga', line.has('vga')),
    net: type.defaults.nic !== undefined && wanted('net', netGiven),
  };
}
