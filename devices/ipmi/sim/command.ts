import type { Request, Response } from '../message.ts';

/** What a BMC does with one command: fills the response, and returns a completion code, 0 for all is well. */
export interface Command {
  /** Bytes of data that it needs, at least. */
  readonly needs?: number;
  run(request: Request, response: Response): number | undefined;
}

/** The commands of one network function, by number. */
export type CommandSet = ReadonlyMap<number, Command>;

export function commands(entries: readonly (readonly [number, Command['run'], number?])[]): CommandSet {
  return new Map(entries.map(([number, run, needs = 0]) => [number, { run, needs }]));
}

/** Seconds since 1970 by the BMC's clock, which software sets. */
export type TimeOfDay = () => number;
/** What stands for a time at which nothing has happened yet. */
export const NEVER = 0xffff_ffff;

/** Erasing a repository goes by an incantation (IPMI 2.0, sections 31.9 and 33.15). */
export const ERASE = { INITIATE: 0xaa, STATUS: 0x00, COMPLETED: 0x01 } as const;
const CLR = Buffer.from('CLR');

export const saysClear = (request: Request): boolean => CLR.every((byte, index) => request.u8(2 + index) === byte);

/** The number that a client reserves a repository by. It changes with each change of the contents. */
export const nextReservation = (reservation: number): number => (reservation === 0xffff ? 1 : reservation + 1);
