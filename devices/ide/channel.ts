import type { Dma } from '../../core/memory/dma.ts';
import type { IoHandler } from '../../core/memory/memory-region.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { CONTROL, DEVICE, REG } from './task-file.ts';
import { type AtaTransport, RETRIES, type Retry } from './transport.ts';
import { AtaUnit, type UnitState } from './unit.ts';

export const channelState = {
  control: field.u8(),
  selected: field.u8(),
  /** What is to be tried again once the machine goes on. */
  retry: field.oneOf(RETRIES, 'none'),
  retryLba: field.number(),
  retryCount: field.u32(),
};

interface ChannelParts {
  readonly transport: AtaTransport;
  readonly dma: Dma;
  readonly state: StateValues<typeof channelState>;
  readonly units: readonly [UnitState, UnitState];
  /** The level of INTRQ. */
  readonly irq: (level: boolean) => void;
  readonly queueDepth?: number;
}

/** One cable with places for two drives: the registers that both see, and INTRQ. */
export class AtaChannel {
  readonly transport: AtaTransport;
  readonly s: StateValues<typeof channelState>;
  readonly units: readonly [AtaUnit, AtaUnit];
  readonly #irq: (level: boolean) => void;

  constructor({ transport, dma, state, units, irq, queueDepth = 0 }: ChannelParts) {
    this.transport = transport;
    this.s = state;
    this.#irq = irq;
    this.units = [new AtaUnit(this, 0, units[0], dma, queueDepth), new AtaUnit(this, 1, units[1], dma, queueDepth)];
  }

  get selected(): AtaUnit {
    return this.units[this.s.selected === 0 ? 0 : 1];
  }

  /** Without drives the bus reads as 0, which is how firmware finds out. */
  #empty(): boolean {
    return !this.units[0].present && !this.units[1].present;
  }

  reset(): void {
    this.s.selected = 0;
    this.s.control = 0;
    this.s.retry = 'none';
    for (const unit of this.units) unit.reset();
    this.transport.reset();
  }

  /** INTRQ, unless nIEN masks it (ATA/ATAPI-6, section 7.8). */
  raiseIrq(): void {
    if ((this.s.control & CONTROL.NIEN) === 0) this.#irq(true);
  }

  readonly commandBlock: IoHandler = {
    read: (offset, size) => {
      if (size === 1) return this.readRegister(offset);
      return offset === REG.DATA ? this.selected.readData(size) : size === 2 ? 0xffff : 0xffff_ffff;
    },
    write: (offset, size, value) => {
      if (size === 1) this.writeRegister(offset, value);
      else if (offset === REG.DATA) this.selected.writeData(size, value);
    },
  };

  /** Alternate Status and Device Control (sections 7.3 and 7.8). */
  readonly controlPort: IoHandler = {
    read: () => this.alternateStatus,
    write: (_offset, _size, value) => this.writeControl(value),
  };

  get alternateStatus(): number {
    const { selected } = this;
    return this.#empty() || (selected.index !== 0 && !selected.present) ? 0 : selected.s.status;
  }

  readRegister(register: number): number {
    const { selected } = this;
    switch (register) {
      case REG.DATA:
        // Some boot loaders read the buffer by bytes; each takes a word.
        return selected.readData(2) & 0xff;
      case REG.STATUS: {
        const status = this.alternateStatus;
        this.#irq(false);
        return status;
      }
      case REG.ERROR:
        if (selected.index !== 0 && !selected.present) return 0;
    }
    return this.#empty() ? 0 : selected.readRegister(register, (this.s.control & CONTROL.HOB) !== 0);
  }

  /** Both drives see every write; the Command register is the selected one's. */
  writeRegister(register: number, value: number): void {
    const { s } = this;
    if (register !== REG.STATUS && this.selected.busy) return;
    s.control &= ~CONTROL.HOB;
    if (register === REG.STATUS) {
      this.#irq(false);
      this.selected.issue(value);
      return;
    }
    for (const unit of this.units) unit.writeRegister(register, value);
    if (register === REG.DEVICE) s.selected = (value & DEVICE.DEV) === 0 ? 0 : 1;
  }

  writeControl(value: number): void {
    const { s } = this;
    const starts = (value & ~s.control & CONTROL.SRST) !== 0;
    s.control = value & 0xff;
    if (!starts) return;
    for (const unit of this.units) unit.softwareReset();
    // The reset takes no time.
    s.control &= ~CONTROL.SRST;
  }

  // Requests to be tried again

  rememberForRetry(unit: AtaUnit): void {
    this.s.retryLba = unit.lba;
    this.s.retryCount = unit.s.count;
  }

  recallForRetry(unit: AtaUnit): void {
    unit.lba = this.s.retryLba;
    unit.s.count = this.s.retryCount;
  }

  forgetRetry(): void {
    this.s.retryLba = 0;
    this.s.retryCount = 0;
  }

  retryLater(kind: Retry): void {
    this.s.retry = kind;
  }

  /** The machine goes on. */
  resumed(): void {
    const kind = this.s.retry;
    this.s.retry = 'none';
    this.selected.retry(kind);
    this.transport.settled?.();
  }
}
