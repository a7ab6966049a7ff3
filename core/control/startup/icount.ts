import type { Accelerator, InstructionClock } from '../../accel/accelerator.ts';
import type { CommandLine } from '../options/command-line.ts';
import { LocatedError } from '../options/command-line.ts';
import { OptionError } from '../options/opts.ts';

const MAX_SHIFT = 10;

/**
 * `-icount`: virtual time that counts instructions.
 * @throws LocatedError where its parameters contradict each other, or this accelerator cannot count
 */
export function instructionClock(line: CommandLine, accelerator: Accelerator): InstructionClock | undefined {
  const [given] = line.opts('icount');
  if (given === undefined) return undefined;
  const { opts, location } = given;
  const refuse = (message: string): never => {
    throw new LocatedError(location, new OptionError(message));
  };
  const shift = opts.string('shift');
  const align = opts.bool('align') ?? false;
  const sleep = opts.bool('sleep') ?? true;
  if ((opts.string('rr') ?? 'none') !== 'none') refuse('icount: record and replay is not supported by this program');
  if (shift === undefined) {
    if (opts.string('align') !== undefined) refuse('Please specify shift option when using align');
    return undefined;
  }
  if (align && !sleep) refuse('align=on and sleep=off are incompatible');
  if (shift === 'auto') return refuse('icount: shift=auto is not supported by this program');
  if (!/^(?:\d+|0x[\da-f]+)$/i.test(shift) || Number(shift) > MAX_SHIFT) refuse('icount: Invalid shift value');
  if (align) refuse('icount: align=on is not supported by this program');
  if (accelerator.caps.icount !== true) {
    throw new OptionError('-icount is not allowed with hardware virtualization');
  }
  return { shift: Number(shift), sleep };
}
