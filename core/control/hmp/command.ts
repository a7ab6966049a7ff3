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
  /** The lines that were typed into this monitor, the oldest first. */
  history(): readonly string[];
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

/** The same, where QEMU prints the error alone. */
export const viaQmpBare =
  (name: CommandName, args?: (line: HmpArguments) => Readonly<Record<string, unknown>>): HmpCommand['run'] =>
  async (context, line) => {
    try {
      return await viaQmp(name, args)(context, line);
    } catch (error) {
      return `${error instanceof Error ? error.message : String(error)}\n`;
    }
  };

/** What a QMP command that reports for people says (QAPI's HumanReadableText). */
export const textOf = (reply: unknown): string => (reply as { 'human-readable-text': string })['human-readable-text'];
