import type { Accelerator } from '../../core/accel/accelerator.ts';
import { SouthbridgeError } from '../../core/errors.ts';

/** Whether this host can run the accelerator. */
export function works(accelerator: Accelerator): boolean {
  try {
    accelerator.probe();
    return true;
  } catch (error) {
    if (!(error instanceof SouthbridgeError)) throw error;
    return false;
  }
}
