import { BlockBackend } from '../core/block/backend.ts';
import type { DeviceServices } from '../core/device/services.ts';

/** What a drive without `drive=` has: a place for a medium that the monitor may insert. Undefined where there is no monitor. */
export function emptyDrive(services: DeviceServices): BlockBackend | undefined {
  try {
    const found = services.backends.find('empty-drive', '');
    return found instanceof BlockBackend ? found : undefined;
  } catch {
    return undefined;
  }
}
