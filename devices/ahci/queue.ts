import { whenDone } from '../../core/block/backend.ts';
import { settleTransfers } from '../../core/block/host-transfer.ts';
import type { IoVector } from '../../core/block/io-vector.ts';
import { writeFlag } from '../../core/block/requests.ts';
import type { Dma } from '../../core/memory/dma.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { ScatterList } from '../ide/scatter-list.ts';
import { ERROR, SECTOR, STATUS } from '../ide/task-file.ts';
import type { AtaUnit } from '../ide/unit.ts';
import { RegionTable } from './regions.ts';
import { INTERRUPT, QUEUED, SLOTS } from './registers.ts';

const FORCE_UNIT_ACCESS = 0x80;

/** One queued command that is under way, by its tag. */
const entryState = {
  used: field.bool(),
  /** Waits for the machine to go on after an error. */
  halted: field.bool(),
  command: field.u8(),
  lba: field.number(),
  sectors: field.u32(),
  forced: field.bool(),
  table: field.number(),
  regions: field.u16(),
};
type Entry = StateValues<typeof entryState>;

export const queueState = {
  entries: field.list(field.record(entryState), SLOTS),
  /** Tags whose end the host has not yet been told of. */
  finished: field.u32(),
};

/** What the queue needs of its port. */
export interface QueueOwner {
  interrupt(bits: number): void;
  /** Sends a Set Device Bits FIS with the tags that are finished. */
  sendSetDeviceBits(finished: number): void;
}

/** Native command queuing (Serial ATA 3.2, section 13.6.4): commands that end in any order. */
export class CommandQueue {
  readonly #s: StateValues<typeof queueState>;
  readonly #unit: AtaUnit;
  readonly #owner: QueueOwner;
  readonly #dma: Dma;
  readonly #regions: RegionTable;
  readonly #lists: ScatterList[] = [];
  #epoch = 0;

  constructor(owner: QueueOwner, unit: AtaUnit, dma: Dma, state: StateValues<typeof queueState>) {
    this.#owner = owner;
    this.#unit = unit;
    this.#dma = dma;
    this.#regions = new RegionTable(dma);
    this.#s = state;
  }

  reset(): void {
    this.#epoch++;
    if (this.#lists.length > 0) settleTransfers();
    // Requests that are forgotten still have their lists.
    this.#lists.length = 0;
    this.#s.entries = [];
    this.#s.finished = 0;
  }

  #entry(tag: number): Entry {
    const { entries } = this.#s;
    const unused = (): Entry => ({
      used: false,
      halted: false,
      command: 0,
      lba: 0,
      sectors: 0,
      forced: false,
      table: 0,
      regions: 0,
    });
    while (entries.length <= tag) entries.push(unused());
    return entries[tag] ?? unused();
  }

  uses(tag: number): boolean {
    return this.#entry(tag).used;
  }

  /** Takes the command of a register FIS; its fields are those of section 13.6.4.1. */
  accept(fis: Uint8Array, table: number, regions: number): void {
    const tag = (fis[12] ?? 0) >> 3;
    const entry = this.#entry(tag);
    const at = (index: number): number => fis[index] ?? 0;
    entry.used = true;
    entry.halted = false;
    entry.command = at(2);
    entry.lba = (at(10) * 0x1_0000 + at(9) * 0x100 + at(8)) * 2 ** 24 + at(6) * 0x1_0000 + at(5) * 0x100 + at(4);
    entry.sectors = at(11) * 0x100 + at(3) || 0x1_0000;
    entry.forced = (at(7) & FORCE_UNIT_ACCESS) !== 0;
    entry.table = table;
    entry.regions = regions;
    this.#start(tag);
  }

  #start(tag: number): void {
    const entry = this.#entry(tag);
    const backend = this.#unit.medium?.backend;
    const bytes = entry.sectors * SECTOR;
    this.#lists[tag] ??= new ScatterList(this.#dma);
    const list = this.#lists[tag];
    entry.halted = false;
    this.#regions.start(entry.table, entry.regions);
    this.#regions.take(list, 0, bytes);
    if (list.length < bytes) {
      this.#error(entry);
      this.#owner.interrupt(INTERRUPT.OFS);
      return;
    }
    const read = entry.command === QUEUED.READ;
    const known = read || (entry.command === QUEUED.WRITE && !this.#unit.isCd);
    if (!known || backend === undefined) {
      this.#error(entry);
      return;
    }
    const vector: IoVector = list.begin(read);
    const at = entry.lba * SECTOR;
    const epoch = this.#epoch;
    const result = read
      ? backend.readv(at, vector)
      : backend.writev(at, vector, bytes, 0, entry.forced ? writeFlag.FUA : 0);
    whenDone(result, error => {
      list.finish(read);
      if (epoch === this.#epoch) this.#done(tag, error);
    });
  }

  #done(tag: number, error: number): void {
    const entry = this.#entry(tag);
    const { s, medium, channel } = this.#unit;
    if (error === 0) {
      s.status = STATUS.DRDY | STATUS.DSC;
    } else {
      const action = medium?.backend.requestFailed(entry.command === QUEUED.READ, error);
      if (action === 'stop') {
        entry.halted = true;
        channel.retryLater('queued');
        return;
      }
      if (action === 'report') this.#error(entry);
    }
    // A command that failed keeps its bit in PxSACT.
    if (entry.used) this.#s.finished = (this.#s.finished | (1 << tag)) >>> 0;
    entry.used = false;
    const { finished } = this.#s;
    this.#s.finished = 0;
    this.#owner.sendSetDeviceBits(finished);
  }

  #error(entry: Entry): void {
    const { s } = this.#unit;
    s.error = ERROR.ABRT;
    s.status = STATUS.DRDY | STATUS.ERR;
    entry.used = false;
  }

  /** The machine goes on: starts again what an error had stopped. */
  restart(): void {
    this.#s.entries.forEach((entry, tag) => {
      if (entry.halted) this.#start(tag);
    });
  }
}
