import type { CpuState } from '../../accel/cpu-state.ts';
import type { Program } from '../program.ts';
import type { CommandName } from '../qmp/catalog.ts';
import type { HmpArguments } from './arguments.ts';

/** What a command of the human monitor works with. */
export interface HmpContext {
  readonly program: Program;
  /** The CPU that `cpu` chose; 0 at first. */
  cpu: number;
  /** Its state, where there is a CPU. */
  cpuState(): CpuState | undefined;
  /** Calls a QMP command, whose error becomes `Error: ...`. */
  qmp(name: CommandName, args?: Readonly<Record<string, unknown>>): Promise<unknown>;
}

type Output = string | undefined;

/** One command of the human monitor. */
export interface HmpCommand {
  readonly names: readonly string[];
  /** Its arguments in QEMU's notation: see `parseArguments`. */
  readonly spec: string;
  readonly params: string;
  readonly help: string;
  /** Returns what is printed. */
  run(context: HmpContext, args: HmpArguments): Output | Promise<Output>;
}

/** Declares a command; `'quit|q'` has two names. */
export const hmp = (names: string, spec: string, params: string, help: string, run: HmpCommand['run']): HmpCommand => ({
  names: names.split('|'),
  spec,
  params,
  help,
  run,
});

/** A command that is a QMP command, with what `args` makes of the line; it prints nothing. */
export const viaQmp =
  (
    name: CommandName,
    args: (line: HmpArguments) => Readonly<Record<string, unknown>> = () => ({}),
  ): HmpCommand['run'] =>
  async (context, line) => {
    const given = Object.entries(args(line)).filter(([, value]) => value !== undefined);
    await context.qmp(name, Object.fromEntries(given));
    return undefined;
  };
