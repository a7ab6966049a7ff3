import type { IdeDrive } from './drive.ts';

/** Moves a drive's DMA data to and from memory: the bus master of a PCI IDE function, or an AHCI port. */
export interface IdeDma {
  /** A DMA command is ready; `run` is to be called once software has started the engine, at once if it has. */
  ready(drive: IdeDrive, run: () => void): void;
  /**
   * Takes the next part of the scatter list, up to `limit` bytes.
   * @returns how many bytes the list describes, which may be more, or fewer
   */
  prepare(limit: number): number;
  /** Copies `length` bytes to memory, or from it, at the part that was prepared. False where memory is out of reach. */
  toMemory(source: Uint8Array, length: number): boolean;
  fromMemory(target: Uint8Array, length: number): boolean;
  /** The command is over. `more`: the list describes more than was asked for, so the engine stays active. */
  done(more: boolean): void;
}

/** What a drive is connected to. */
export interface IdeHost {
  readonly dma: IdeDma | undefined;
  /** Level of INTRQ, before nIEN. */
  setIrq(drive: IdeDrive, level: boolean): void;
  /**
   * A PIO data phase of `length` bytes begins, to the host or from it. A host that moves the data itself does so through
   * {@link IdeDrive.dataIn} and {@link IdeDrive.dataOut}, and answers true.
   */
  pioPhase(drive: IdeDrive, length: number, toHost: boolean): boolean;
  /** A command has ended, well or badly. */
  commandDone(drive: IdeDrive): void;
}
