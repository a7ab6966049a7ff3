import type { DriveConfig } from '../core/machine/machine-config.ts';
import type { IdeBus } from '../devices/ide/ide-bus.ts';
import { ideCd, ideHd } from '../devices/ide/ide-drive.ts';

/** Plugs in the drives of `-drive if=ide`, `-hda`, `-cdrom` and the default CD-ROM. */
export function plugIdeDrives(drives: readonly DriveConfig[], buses: readonly IdeBus[]): void {
  for (const { id, interface: kind, bus, unit, media } of drives) {
    const cable = kind === 'ide' ? buses[bus] : undefined;
    if (cable === undefined) continue;
    const place = { unit };
    if (media === 'cdrom') cable.plug(ideCd, place, { drive: id });
    else cable.plug(ideHd, place, { drive: id });
  }
}
