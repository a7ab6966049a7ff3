/** What the qtest server drives: a machine's buses, pins and clock. Implementations never throw for what a guest may do. */
export interface QtestTarget {
  /** One access of 1, 2 or 4 bytes; little-endian, unsigned. */
  portRead(port: number, size: number): number;
  portWrite(port: number, size: number, value: number): void;
  /** One access of 1, 2 or 4 bytes to physical memory. */
  memoryRead(address: number, size: number): number;
  memoryWrite(address: number, size: number, value: number): void;
  /** Any number of bytes of physical memory. */
  readBytes(address: number, into: Uint8Array): void;
  writeBytes(address: number, bytes: Uint8Array): void;
  /** The virtual clock in nanoseconds, and its next deadline; Infinity where there is none. */
  now(): number;
  nextDeadline(): number;
  /** Moves the clock, firing timers on the way; never backwards. Undefined where the clock is not the client's to move. */
  readonly advanceTo: ((targetNs: number) => void) | undefined;
  /** Lets devices finish what they put off, where nothing else would. */
  settle(): void;
  /** Lets `observer` see the edges of a device's unnamed inputs or outputs. False where there is no such device. */
  intercept(path: string, side: 'in' | 'out', observer: (pin: number, level: boolean) => void): boolean;
  /** Sets an input of a device; false where there is no such device. `name` is undefined for unnamed inputs. */
  setInput(path: string, name: string | undefined, pin: number, level: number): boolean;
}
