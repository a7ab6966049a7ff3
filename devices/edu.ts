import { ms } from '../core/clock/units.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { PciDevice } from '../core/pci/pci-device.ts';
import { bit, choice, type Registers, r32, r64, registerMap } from '../core/register/register.ts';
import { field } from '../core/state/fields.ts';

/** What a register that cannot be read, or is not there, reads as. */
const NOTHING = 0xffff_ffff;

/** Section numbers are those of QEMU's "EDU device" specification (docs/specs/edu), which numbers its areas by address. */
export const eduRegisters = registerMap(
  'edu',
  {
    ID: r32(0x00, {}, { access: 'ro', reset: 0x0100_00ed }),
    LIVENESS: r32(0x04),
    FACTORIAL: r32(0x08),
    STATUS: r32(0x20, { COMPUTING: bit(0, 'ro'), IRQ_ON_FACTORIAL: bit(7) }),
    IRQ_STATUS: r32(0x24, { FACTORIAL: bit(0), DMA: bit(8) }, { access: 'ro' }),
    IRQ_RAISE: r32(0x60, {}, { access: 'wo' }),
    IRQ_ACK: r32(0x64, {}, { access: 'wo' }),
    DMA_SRC: r64(0x80),
    DMA_DST: r64(0x88),
    DMA_COUNT: r64(0x90),
    DMA_CMD: r64(0x98, { RUN: bit(0), DIR: choice(1, 1, { fromRam: 0, toRam: 1 }), IRQ: bit(2) }),
  },
  { hole: 0xff },
);

const IRQ_FACTORIAL = 1 << 0;
const IRQ_DMA = 1 << 8;

/** Where the card's own memory appears in the addresses of its DMA engine. */
const BUFFER_BASE = 0x4_0000;
const BUFFER_SIZE = 4096;

const BAR_SIZE = 2 ** 20;
const DMA_RUN = 1n;
const FACTORIAL_NS = ms(1);
const DMA_MS = 100;

const properties = {
  dma_mask: prop.u64({
    default: (1n << 28n) - 1n,
    listed: 'value',
    help: 'bits of a DMA address that the device drives',
  }),
} as const;

/** The card that courses on driver writing use: factorials, interrupts and DMA. */
class Edu extends PciDevice<typeof properties> {
  readonly #regs: Registers<typeof eduRegisters> = this.bind(eduRegisters, {
    LIVENESS: { write: value => ~value >>> 0 },
    FACTORIAL: { write: (value, previous) => this.#startFactorial(value, previous) },
    IRQ_RAISE: { read: () => NOTHING, wrote: mask => this.#raise(mask) },
    IRQ_ACK: { read: () => NOTHING, wrote: mask => this.#acknowledge(mask) },
    DMA_SRC: { write: (value, previous) => (this.#regs.DMA_CMD.RUN ? previous : value) },
    DMA_DST: { write: (value, previous) => (this.#regs.DMA_CMD.RUN ? previous : value) },
    DMA_COUNT: { write: (value, previous) => (this.#regs.DMA_CMD.RUN ? previous : value) },
    DMA_CMD: { write: (_value, previous, _index, written) => this.#startTransfer(written, previous) },
  });
  readonly #card = this.state(1, { buffer: field.bytes(BUFFER_SIZE) });
  readonly #factorial = this.clock.timer('factorial', () => this.#finishFactorial());
  readonly #transfer = this.clock.timer('dma', () => this.#finishTransfer());

  #startFactorial(value: number, previous: number): number {
    if (this.#regs.STATUS.COMPUTING) return previous;
    this.#regs.STATUS.COMPUTING = true;
    this.#factorial.arm(FACTORIAL_NS);
    return value;
  }

  #finishFactorial(): void {
    this.#regs.FACTORIAL.value = factorial(this.#regs.FACTORIAL.value);
    this.#regs.STATUS.COMPUTING = false;
    if (this.#regs.STATUS.IRQ_ON_FACTORIAL) this.#raise(IRQ_FACTORIAL);
  }

  /** Every request is a message of its own where software has enabled MSI; INTx is a level. */
  #raise(mask: number): void {
    const status = (this.#regs.IRQ_STATUS.value | mask) >>> 0;
    this.#regs.IRQ_STATUS.value = status;
    if (status === 0) return;
    if (this.messageSignalled) this.notify(0);
    else this.irq.raise();
  }

  #acknowledge(mask: number): void {
    const status = (this.#regs.IRQ_STATUS.value & ~mask) >>> 0;
    this.#regs.IRQ_STATUS.value = status;
    if (status === 0) this.irq.lower();
  }

  /** A command counts only if it says RUN and none is running; asking again while one runs makes it take longer. */
  #startTransfer(command: bigint, previous: bigint): bigint {
    if ((command & DMA_RUN) === 0n) return previous;
    this.#transfer.armAt((Math.floor(this.clock.now() / ms(1)) + DMA_MS) * ms(1));
    return this.#regs.DMA_CMD.RUN ? previous : command;
  }

  #finishTransfer(): void {
    const { DMA_CMD, DMA_SRC, DMA_DST } = this.#regs;
    if (!DMA_CMD.RUN) return;
    DMA_CMD.RUN = false;
    const toRam = DMA_CMD.DIR === 'toRam';
    const stretch = this.#buffered(toRam ? DMA_SRC.value : DMA_DST.value);
    if (stretch === undefined) return;
    const address = this.#driven(toRam ? DMA_DST.value : DMA_SRC.value);
    if (toRam) this.dma.write(address, this.#card.buffer, stretch.offset, stretch.length);
    else this.dma.read(address, this.#card.buffer, stretch.offset, stretch.length);
    if (DMA_CMD.IRQ) this.#raise(IRQ_DMA);
  }

  /**
   * The part of the card's memory that a transfer is about. Where it is not all there, QEMU gives up as a whole; here the
   * transfer ends without effect, and without an interrupt.
   */
  #buffered(address: bigint): { offset: number; length: number } | undefined {
    const offset = Number(address) - BUFFER_BASE;
    const length = Number(this.#regs.DMA_COUNT.value);
    if (offset >= 0 && length > 0 && offset + length <= BUFFER_SIZE) return { offset, length };
    this.log.guestError(`DMA of ${length} bytes at 0x${address.toString(16)} is outside of the card's buffer`);
    return undefined;
  }

  /** The card has fewer address lines than the bus. */
  #driven(address: bigint): number {
    const driven = address & this.props.dma_mask;
    if (driven !== address) this.log.guestError(`clamping DMA 0x${address.toString(16)} to 0x${driven.toString(16)}`);
    return Number(driven);
  }
}

/** Modulo 2^32, as a product in a 32-bit register comes out: from 34 on it is 0, whatever the number. */
function factorial(number: number): number {
  let product = 1;
  for (let factor = Math.min(number, 34); factor > 1; factor--) product = Math.imul(product, factor);
  return product >>> 0;
}

export const edu = deviceType({
  type: 'edu',
  summary: 'Educational PCI device: factorials, interrupts and DMA',
  properties,
  pci: { vendor: 0x1234, device: 0x11e8, revision: 0x10, class: 0x00_ff00, pin: 'A', msi: { vectors: 1 } },
  bars: { 0: { size: BAR_SIZE, map: eduRegisters, access: { valid: { min: 4 } } } },
  create: Edu,
});
