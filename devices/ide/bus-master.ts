import type { Dma } from '../../core/memory/dma.ts';
import type { IoHandler } from '../../core/memory/memory-region.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import type { AtaChannel } from './channel.ts';
import type { AtaTransport } from './transport.ts';
import type { AtaUnit } from './unit.ts';

/** Registers of a channel (Programming Interface for Bus Master IDE Controller 1.0, section 2). */
const REG = { COMMAND: 0, STATUS: 2, DESCRIPTORS: 4 } as const;
const COMMAND = { START: 0x01, TO_MEMORY: 0x08 } as const;
const STATUS = { ACTIVE: 0x01, ERROR: 0x02, INTERRUPT: 0x04, DRIVES_CAPABLE: 0x60 } as const;

const PRD_SIZE = 8;
const PRD_END = 0x8000_0000;
const PRD_LENGTH = 0xfffe;
const PRD_FULL = 0x1_0000;
/** A table must not cross 64 KiB; this one ends after a page in any case. */
const MAX_TABLE = 4096;

export const busMasterState = {
  command: field.u8(),
  status: field.u8(),
  /** Physical address of the descriptor table. */
  table: field.u32(),
  /** A command waits for the engine, or uses it. */
  waiting: field.bool(),
  // Where in the table, and in the current region, the transfer is
  next: field.number(),
  last: field.bool(),
  address: field.u32(),
  left: field.u32(),
};

/** One channel's DMA engine: walks a table of physical region descriptors. */
export class BusMaster implements AtaTransport {
  readonly s: StateValues<typeof busMasterState>;
  readonly #dma: Dma;
  readonly #descriptor = new Uint8Array(PRD_SIZE);
  readonly #view = new DataView(this.#descriptor.buffer);
  #channel: AtaChannel | undefined;

  constructor(dma: Dma, state: StateValues<typeof busMasterState>) {
    this.#dma = dma;
    this.s = state;
  }

  serve(channel: AtaChannel): void {
    this.#channel = channel;
  }

  readonly registers: IoHandler = {
    read: (offset, size) => {
      const { s } = this;
      if (offset >= REG.DESCRIPTORS) return readPart(s.table, offset - REG.DESCRIPTORS, size);
      if (size !== 1) return size === 2 ? 0xffff : 0xffff_ffff;
      return offset === REG.COMMAND ? s.command : offset === REG.STATUS ? s.status : 0xff;
    },
    write: (offset, size, value) => {
      const { s } = this;
      if (offset >= REG.DESCRIPTORS) {
        s.table = (writePart(s.table, offset - REG.DESCRIPTORS, size, value) & ~3) >>> 0;
      } else if (size === 1 && offset === REG.COMMAND) {
        this.#writeCommand(value);
      } else if (size === 1 && offset === REG.STATUS) {
        const kept = s.status & ~value & (STATUS.ERROR | STATUS.INTERRUPT);
        s.status = (value & STATUS.DRIVES_CAPABLE) | (s.status & STATUS.ACTIVE) | kept;
      }
    },
  };

  #writeCommand(value: number): void {
    const { s } = this;
    const start = (value & COMMAND.START) !== 0;
    const started = (s.command & COMMAND.START) !== 0;
    s.command = value & (COMMAND.START | COMMAND.TO_MEMORY);
    if (start === started) return;
    const unit = this.#channel?.selected;
    if (!start) {
      unit?.dmaStopped();
      s.status &= ~STATUS.ACTIVE;
      return;
    }
    s.next = s.table;
    if ((s.status & STATUS.ACTIVE) !== 0) return;
    s.status |= STATUS.ACTIVE;
    if (s.waiting) unit?.dmaStarted();
  }

  /** INTRQ, which the status register keeps. */
  interrupt(): void {
    this.s.status |= STATUS.INTERRUPT;
  }

  // The drive's side

  startDma(unit: AtaUnit): void {
    const { s } = this;
    s.waiting = true;
    s.last = false;
    s.address = 0;
    s.left = 0;
    if ((s.status & STATUS.ACTIVE) !== 0) unit.dmaStarted();
  }

  /** Takes the next region where the current one is used up. False at the end of the table. */
  #fetch(): boolean {
    const { s } = this;
    if (s.left > 0) return true;
    if (s.last || s.next - s.table >= MAX_TABLE) return false;
    if (!this.#dma.read(s.next, this.#descriptor)) this.#descriptor.fill(0);
    const control = this.#view.getUint32(4, true);
    s.next += PRD_SIZE;
    s.address = this.#view.getUint32(0, true);
    s.left = control & PRD_LENGTH || PRD_FULL;
    s.last = (control & PRD_END) !== 0;
    return true;
  }

  prepare(unit: AtaUnit, limit: number): number {
    const { s } = this;
    unit.list.clear();
    let described = 0;
    while (this.#fetch()) {
      unit.list.add(s.address, Math.min(limit - unit.list.length, s.left));
      described += s.left;
      s.left = 0;
    }
    return described;
  }

  commit(): void {}

  copyOut(unit: AtaUnit, at: number, length: number): boolean {
    const { s } = this;
    while (length > 0) {
      if (!this.#fetch()) return false;
      const size = Math.min(length, s.left);
      this.#dma.write(s.address, unit.s.buffer, at, size);
      s.address = (s.address + size) >>> 0;
      s.left -= size;
      at += size;
      length -= size;
    }
    return true;
  }

  setInactive(more: boolean): void {
    const { s } = this;
    s.waiting = false;
    if (more) s.status |= STATUS.ACTIVE;
    else s.status &= ~STATUS.ACTIVE;
  }

  commandDone(): void {}

  restartDma(): void {
    this.s.next = this.s.table;
  }

  restart(): void {}

  reset(): void {
    const { s } = this;
    s.command = 0;
    s.status = 0;
    s.table = 0;
    s.waiting = false;
    s.next = 0;
    s.last = false;
    s.address = 0;
    s.left = 0;
  }
}

function readPart(value: number, offset: number, size: number): number {
  const part = value >>> (8 * offset);
  return size === 4 ? part : part & (size === 2 ? 0xffff : 0xff);
}

function writePart(before: number, offset: number, size: number, value: number): number {
  if (size === 4) return value >>> 0;
  const mask = (size === 2 ? 0xffff : 0xff) << (8 * offset);
  return ((before & ~mask) | ((value << (8 * offset)) & mask)) >>> 0;
}
