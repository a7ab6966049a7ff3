import type { CpuState } from '../../accel/cpu-state.ts';
import type { Program } from '../program.ts';
import type { CommandName } from '../qmp/catalog.ts';

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

/** One command of the human monitor. */
export interface HmpCommand {
  readonly names: readonly string[];
  readonly params: string;
  readonly help: string;
  /** `text` is what stands behind the name. Returns what is printed. */
  run(context: HmpContext, text: string): string | undefined | Promise<string | undefined>;
}

/** Declares a command; `'q|quit'` has two names. */
export const hmp = (names: string, params: string, help: string, run: HmpCommand['run']): HmpCommand => ({
  names: names.split('|'),
  params,
  help,
  run,
});

/** Words of a command's arguments; quotes keep spaces. */
export function words(text: string): string[] {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(
    match => match[1]?.replace(/\\(.)/g, '$1') ?? match[2] ?? '',
  );
}
