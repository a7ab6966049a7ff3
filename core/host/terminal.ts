import { hostCalls } from './calls.ts';

/** TIOCM bits of {@link modemLines} (termios.h). */
export const MODEM_LINES = { dtr: 0x002, rts: 0x004, cts: 0x020, dcd: 0x040, ri: 0x080, dsr: 0x100 } as const;

export interface Pty {
  readonly master: number;
  /** Kept open so that the master does not hang up while nobody else has it open. */
  readonly slave: number;
  /** Such as `/dev/pts/4`. */
  readonly path: string;
}

/** A pair of pseudo-terminals, raw. */
export function openPty(): Pty {
  const [master, slave, path] = hostCalls().openPty();
  hostCalls().rawTerminal(slave, false);
  return { master, slave, path };
}

/** Makes a terminal raw and returns what puts it back. With `signals`, Ctrl-C and Ctrl-Z still act on this process. */
export function makeRaw(fd: number, options: { signals: boolean }): () => void {
  const before = hostCalls().getTerminal(fd);
  hostCalls().rawTerminal(fd, options.signals);
  return () => hostCalls().setTerminal(fd, before);
}

export interface SerialParameters {
  readonly baud: number;
  readonly dataBits: 5 | 6 | 7 | 8;
  readonly parity: 'N' | 'E' | 'O';
  readonly stopBits: 1 | 2;
}

/** Sets up a real serial port. @throws RangeError where the host has no such speed */
export function setSerial(fd: number, { baud, dataBits, parity, stopBits }: SerialParameters): void {
  hostCalls().setSerial(fd, baud, dataBits, parity, stopBits);
}

export const readModemLines = (fd: number): number => hostCalls().modemLines(fd);

export function writeModemLines(fd: number, lines: number): void {
  hostCalls().modemLines(fd, lines);
}

export function setBreak(fd: number, on: boolean): void {
  hostCalls().sendBreak(fd, on);
}
