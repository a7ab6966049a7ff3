import { OptionError } from '../options/opts.ts';
import type { Program } from '../program.ts';

/** Starts the gdb server on a device such as `tcp::1234`. */
export function startGdb(_program: Program, device: string): Promise<void> {
  return Promise.reject(new OptionError(`gdb: could not create gdbserver on '${device}'`));
}
