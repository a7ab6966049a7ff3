import type { Dma } from '../../core/memory/dma.ts';
import { bit, type RegisterHooks, type Registers, r8, r32, registerMap } from '../../core/register/register.ts';
import type { IdeDrive } from './drive.ts';
import type { IdeDma } from './host.ts';

/** The registers of one channel (82371SB datasheet, section 2.7; "Programming Interface for Bus Master IDE Controller", 1.0). */
export const busMasterRegisters = registerMap('bmide', {
  BMICX: r8(0, { SSBM: bit(0), RWCON: bit(3) }),
  BMISX: r8(2, { BMIDEA: bit(0, 'ro'), ERROR: bit(1, 'w1c'), INT: bit(2, 'w1c'), DMA0CAP: bit(5), DMA1CAP: bit(6) }),
  BMIDTPX: r32(4),
});

const PRD_SIZE = 8;
const PRD_END = 0x8000_0000;
/** A descriptor table does not cross a page of 4 KiB by more than this: runaway tables end here. */
const MAX_PRDS = 4096 / PRD_SIZE;
const FULL = 0x1_0000;

/** One channel's DMA engine: walks a table of physical region descriptors. */
export class BusMaster implements IdeDma {
  #regs: Registers<typeof busMasterRegisters> | undefined;
  readonly #dma: Dma;
  #waiting: (() => void) | undefined;
  #drive: IdeDrive | undefined;
  /** Where in the table the next part begins: an entry, and how much of it is used. */
  #entry = 0;
  #used = 0;
  /** The stretches of the part that was prepared. */
  readonly #addresses: number[] = [];
  readonly #lengths: number[] = [];

  constructor(dma: Dma) {
    this.#dma = dma;
  }

  /** What the register bank of this engine does. */
  readonly hooks: RegisterHooks<typeof busMasterRegisters> = {
    BMICX: { write: (value, previous) => this.#control(value, previous) },
    BMIDTPX: { write: value => (value & ~3) >>> 0 },
  };

  bind(regs: Registers<typeof busMasterRegisters>): void {
    this.#regs = regs;
  }

  get #r(): Registers<typeof busMasterRegisters> {
    if (this.#regs === undefined) throw new TypeError('the bus master has no registers yet');
    return this.#regs;
  }

  reset(): void {
    this.#waiting = undefined;
    this.#drive = undefined;
  }

  /** The drive raised INTRQ. */
  interrupt(): void {
    this.#r.BMISX.INT = true;
  }

  ready(drive: IdeDrive, run: () => void): void {
    this.#drive = drive;
    this.#waiting = run;
    if (this.#r.BMISX.BMIDEA) run();
  }

  #control(value: number, previous: number): number {
    const start = (value & 1) !== 0;
    if (start !== ((previous & 1) !== 0)) {
      if (start) {
        [this.#entry, this.#used] = [0, 0];
        if (!this.#r.BMISX.BMIDEA) {
          this.#r.BMISX.BMIDEA = true;
          this.#waiting?.();
        }
      } else {
        // What is under way is dropped; the drive stays busy until software resets it (section 2.1.2).
        this.#drive?.cancelRequests();
        this.#r.BMISX.BMIDEA = false;
      }
    }
    return value & 0x09;
  }

  prepare(limit: number): number {
    this.#addresses.length = 0;
    this.#lengths.length = 0;
    let described = 0;
    let taken = 0;
    for (let index = this.#entry; index < MAX_PRDS; index++) {
      const at = this.#r.BMIDTPX.value + index * PRD_SIZE;
      // An engine that may not master the bus finds descriptors of zeros.
      const address = this.#dma.enabled ? (this.#dma.read32(at) & ~1) >>> 0 : 0;
      const control = this.#dma.enabled ? this.#dma.read32(at + 4) : 0;
      const skip = index === this.#entry ? this.#used : 0;
      const length = ((control & 0xfffe) === 0 ? FULL : control & 0xfffe) - skip;
      const use = Math.min(length, limit - taken);
      if (use > 0) {
        this.#addresses.push(address + skip);
        this.#lengths.push(use);
        taken += use;
        if (taken === limit) [this.#entry, this.#used] = [index, skip + use];
      }
      described += length;
      if ((control & PRD_END) !== 0) break;
    }
    return described;
  }

  toMemory(source: Uint8Array, length: number): boolean {
    return this.#each(length, (address, at, size) => this.#dma.write(address, source, at, size));
  }

  fromMemory(target: Uint8Array, length: number): boolean {
    return this.#each(length, (address, at, size) => this.#dma.read(address, target, at, size));
  }

  #each(length: number, move: (address: number, at: number, size: number) => boolean): boolean {
    let done = 0;
    let whole = true;
    for (let index = 0; index < this.#addresses.length && done < length; index++) {
      const size = Math.min(this.#lengths[index] ?? 0, length - done);
      whole = move(this.#addresses[index] ?? 0, done, size) && whole;
      done += size;
    }
    return whole;
  }

  done(more: boolean): void {
    this.#waiting = undefined;
    this.#r.BMISX.BMIDEA = more;
  }
}
