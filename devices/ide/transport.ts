import type { AtaUnit } from './unit.ts';

/** What a request that failed is to be tried again as, once the machine goes on after `rerror=stop` or `werror=stop`. */
export const RETRIES = [
  'none',
  'pio-read',
  'pio-write',
  'dma-read',
  'dma-write',
  'trim',
  'flush',
  'packet',
  'queued',
] as const;
export type Retry = (typeof RETRIES)[number];

/** What is between a drive and the computer: a parallel cable with its bus master, or an AHCI port. */
export interface AtaTransport {
  /** Moves the data of a PIO phase by itself. Absent where software does that through the Data register. */
  pioTransfer?(unit: AtaUnit): void;
  /** A DMA command is ready: {@link AtaUnit.dmaStarted} is to be called once software has started the engine. */
  startDma(unit: AtaUnit): void;
  /** Puts the next part of the descriptors into the unit's list, at most `limit` bytes. Returns how many they describe. */
  prepare(unit: AtaUnit, limit: number): number;
  /** `bytes` of what was prepared are transferred. */
  commit(unit: AtaUnit, bytes: number): void;
  /** Copies bytes of the unit's buffer to memory; false where the descriptors end before. */
  copyOut(unit: AtaUnit, at: number, length: number): boolean;
  /** The command no longer uses DMA. `more`: the descriptors describe more than the drive had. */
  setInactive(more: boolean): void;
  /** The command is over. */
  commandDone(): void;
  /** The same command is about to start again from its first descriptor. */
  restartDma(): void;
  /** Tries its own failed requests again (NCQ). */
  restart(): void;
  reset(): void;
  /** A request has ended, and what came of it is done: the next command may begin. */
  settled?(): void;
}
