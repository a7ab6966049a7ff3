import type { IsaBus } from '../core/bus/isa.ts';
import type { Machine } from '../core/machine/machine.ts';
import { floppy } from '../devices/floppy/drive.ts';
import { FloppyController, isaFdc } from '../devices/floppy/fdc.ts';

/** The floppy controller with the drives of `-drive if=floppy`. */
export function plugFloppies(machine: Machine, isa: IsaBus): FloppyController {
  const drives = machine.config.drives.filter(drive => drive.interface === 'floppy');
  const controller = isa.plug(isaFdc);
  const types = [controller.props.fdtypeA, controller.props.fdtypeB];
  for (const { id, unit } of drives)
    controller.cable.plug(floppy, { unit }, { drive: id, 'drive-type': types[unit] ?? 'auto' });
  return controller;
}

/** A controller that the user plugged in. */
export function findFloppies(machine: Machine): FloppyController | undefined {
  for (const device of machine.devices()) if (device instanceof FloppyController) return device;
  return undefined;
}
