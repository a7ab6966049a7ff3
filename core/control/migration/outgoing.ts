import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import type { Machine } from '../../machine/machine.ts';
import type { RunState } from '../../machine/run-state.ts';
import type { SavedRecord } from '../../state/fields.ts';
import { encodeDelta } from '../../state/page-delta.ts';
import { PAGE, type PageToSend, PageTracker } from '../../state/page-tracker.ts';
import {
  type RamPlace,
  saveDelta,
  saveExtra,
  saveHeader,
  saveJoin,
  saveMemoryEnd,
  saveRam,
  saveRest,
  saveZeroPage,
} from '../../state/snapshot.ts';
import { QmpError } from '../qapi/error.ts';
import type { Sink } from './channel.ts';
import { MemoryChannels } from './memory-channels.ts';
import type { MigrationSettings } from './settings.ts';
import { CpuThrottle } from './throttle.ts';

/** The rate is kept over this long, in milliseconds. */
const WINDOW_MS = 100;
/** The bandwidth may be raised meanwhile. */
const LONGEST_PAUSE_MS = 1000;
/** What is compared between two turns of the event loop, in bytes. */
const SYNC_STEP = 4 * 2 ** 20;
/** How many rounds may bring more than they took away before the CPUs are slowed down. */
const PATIENCE = 2;
const ZERO_PAGE = Buffer.alloc(PAGE);
/** Memory goes with the machine. */
const NO_CHANNELS = new MemoryChannels([], pages => pages);

/** What the sender needs to be told, and tells. */
export interface OutgoingHost {
  readonly settings: MigrationSettings;
  /** A round over the changed pages begins. */
  pass(number: number): void;
  /** The memory has been looked through for the first time; resolves when it may go. */
  begun(): Promise<void>;
  /** The machine has stopped; resolves when the rest may go. */
  stopped(): Promise<void>;
  /** What goes with the machine: called once it has stopped. */
  extras(): Iterable<SavedRecord>;
  /** The machine has gone ahead of its memory: it is the other side's from now on. */
  wentAhead(): void;
}

/** The parameter that limits how much is sent. */
type Limit = 'max-bandwidth' | 'max-postcopy-bandwidth';

interface EncodedPage {
  readonly page: number;
  readonly piece: Buffer;
}

/** Sends a machine: its memory while it runs, then again what has changed, until what is left fits into the downtime that is allowed. */
export class Outgoing {
  readonly #machine: Machine;
  readonly #host: OutgoingHost;
  readonly #throttle: CpuThrottle;
  #stream: Writable | undefined;
  /** Rejects once the machine's own connection is gone, or any that is needed. */
  #lost: Promise<never> = new Promise(() => undefined);
  #failure: Promise<never> = this.#lost;
  #cancelled = false;
  #tracker: PageTracker | undefined;
  #windowEnds = 0;
  #windowBytes = 0;
  #windowMemory = 0;
  #sentAtSync = 0;
  #worse = 0;
  #runState: RunState = 'running';
  #channels = NO_CHANNELS;
  #goAheadWanted = false;
  #wentAhead = false;

  // For query-migrate
  transferred = 0;
  precopyBytes = 0;
  downtimeBytes = 0;
  zeroPages = 0;
  normalPages = 0;
  syncs = 0;
  /** Bytes a millisecond, over the last window: on the way, and of memory, whose pages may take less on the way. */
  bandwidth = 0;
  #memoryRate = 0;
  dirtyPagesPerSecond = 0;
  deltaPages = 0;
  deltaBytes = 0;
  deltaOverflows = 0;
  channelBytes = 0;
  postcopyBytes = 0;
  stoppedAt: number | undefined;

  constructor(machine: Machine, host: OutgoingHost) {
    this.#machine = machine;
    this.#host = host;
    this.#throttle = new CpuThrottle(machine);
  }

  get total(): number {
    return this.#machine.ram.reduce((sum, { size }) => sum + size, 0);
  }

  get remaining(): number {
    return this.#tracker?.remaining ?? this.total;
  }

  get throttlePercentage(): number {
    return this.#throttle.percentage;
  }

  /** How long the machine would stand still if it stopped now, in milliseconds. */
  get expectedDowntime(): number {
    if (this.#memoryRate === 0) return this.#host.settings.number('downtime-limit');
    return Math.round(this.remaining / this.#memoryRate);
  }

  /** Whether the machine has gone ahead of its memory, so that it can only go on over there. */
  get wentAhead(): boolean {
    return this.#wentAhead;
  }

  cancel(): void {
    this.#cancelled = true;
    this.interrupt();
  }

  /** `migrate-pause`: as if the connection had been lost. */
  interrupt(): void {
    this.#stream?.destroy();
    this.#channels.destroy();
  }

  /** `migrate-start-postcopy`: the machine goes ahead, and its memory follows. */
  goAhead(): void {
    this.#goAheadWanted = true;
  }

  /** @throws whatever kept the machine from arriving; it is stopped then, or not yet. See {@link wentAhead} */
  async run(sink: Sink, channels: MemoryChannels): Promise<void> {
    this.#channels = channels;
    this.#attach(sink);
    if (this.#cancelled) this.interrupt();
    try {
      await this.#precopy();
      this.#throttle.stop();
      this.#runState = this.#machine.runState;
      this.#machine.stop('finish-migrate');
      this.stoppedAt = performance.now();
      await this.#host.stopped();
      this.#checkCancelled();
      await this.#finish(sink);
    } finally {
      this.#throttle.stop();
      if (!this.#wentAhead) this.#tracker = undefined;
    }
  }

  /** Goes on with the memory of a machine that went ahead, over another connection. @throws as {@link run} */
  async resume(sink: Sink): Promise<void> {
    this.#attach(sink);
    this.#tracker?.rewind(placeFrom(await sink.answer?.()));
    await this.#follow(sink);
  }

  #attach({ stream }: Sink): void {
    this.#stream = stream;
    this.#lost = new Promise<never>((_, reject) => {
      stream.once('error', reject);
      stream.once('close', () => reject(new QmpError('the connection was closed')));
    });
    this.#lost.catch(() => undefined);
    this.#failure = this.#channels.any ? Promise.race([this.#lost, this.#channels.failed()]) : this.#lost;
    this.#failure.catch(() => undefined);
  }

  /** Rounds while the machine runs. One that does not run, or has no CPU to write memory, needs none. */
  async #precopy(): Promise<void> {
    this.#tracker = new PageTracker(this.#machine);
    this.#nextWindow();
    await this.#sync();
    await this.#host.begun();
    // Names the devices that go along: those that stay have gone by now.
    for (const piece of saveHeader(this.#machine, { uuid: this.#host.settings.has('validate-uuid') }))
      await this.#write(piece);
    while (this.#machine.power.running && !this.#goAheadWanted && this.#tracker.remaining > this.#affordable()) {
      await this.#sendPages('max-bandwidth');
      await this.#sync();
      if (this.#host.settings.has('auto-converge')) this.#slowDown();
    }
  }

  /** Bytes that fit into the downtime that is allowed. */
  #affordable(): number {
    const { settings } = this.#host;
    const rate = this.#memoryRate > 0 ? this.#memoryRate : settings.number('max-bandwidth') / 1000;
    return rate * settings.number('downtime-limit');
  }

  async #sync(): Promise<void> {
    const started = performance.now();
    let step = 0;
    for (const bytes of this.#tracker?.sync() ?? []) {
      step += bytes;
      if (step < SYNC_STEP) continue;
      step = 0;
      if (this.#machine.power.running) await turn();
      this.#checkCancelled();
    }
    const elapsed = Math.max(1, performance.now() - Math.min(started, this.#lastSync));
    // What is zero from the start need not be sent, and counts as if it had been.
    if (this.syncs === 0) this.zeroPages = Math.floor((this.total - this.remaining) / PAGE);
    else this.dirtyPagesPerSecond = Math.round((this.remaining / PAGE / elapsed) * 1000);
    this.#lastSync = performance.now();
    this.syncs++;
    this.#host.pass(this.syncs);
  }
  #lastSync = Number.POSITIVE_INFINITY;

  /** QEMU's auto-converge: where more is written than sent, twice, the CPUs get less time. */
  #slowDown(): void {
    const { settings } = this.#host;
    const sent = this.transferred - this.#sentAtSync;
    this.#sentAtSync = this.transferred;
    const threshold = (sent * settings.number('throttle-trigger-threshold')) / 100;
    if (this.remaining <= threshold || ++this.#worse < PATIENCE) return;
    this.#worse = 0;
    const { percentage } = this.#throttle;
    const next =
      percentage === 0
        ? settings.number('cpu-throttle-initial')
        : Math.min(percentage + settings.number('cpu-throttle-increment'), settings.number('max-cpu-throttle'));
    this.#throttle.set(next);
  }

  async #sendPages(limit?: Limit): Promise<void> {
    const pages = this.#tracker?.take(page => ({ page: page.offset / PAGE, piece: this.#encode(page) })) ?? [];
    for (const page of pages) {
      await this.#writePage(page, limit);
      if (this.#goAheadWanted && this.#machine.power.running) break;
    }
    if (this.#channels.any) this.#sent(await this.#channels.flush());
  }

  async #writePage({ page, piece }: EncodedPage, limit: Limit | undefined): Promise<void> {
    if (!this.#channels.any) {
      await this.#write(piece, limit);
      return;
    }
    this.#checkCancelled();
    const bytes = await this.#channels.write(page, piece);
    this.#sent(bytes);
    if (bytes > 0) await this.#pace(limit);
  }

  #encode({ block, offset, bytes, before }: PageToSend): Buffer {
    this.#windowMemory += bytes.length;
    if (bytes.length === PAGE && bytes.equals(ZERO_PAGE)) {
      this.zeroPages++;
      return saveZeroPage(block, offset, PAGE);
    }
    if (this.#host.settings.has('xbzrle') && this.syncs > 1 && bytes.length === PAGE) {
      const delta = encodeDelta(before, bytes, PAGE);
      if (delta === undefined) this.deltaOverflows++;
      else {
        this.deltaPages++;
        this.deltaBytes += delta.length;
        return saveDelta(block, offset, delta);
      }
    }
    this.normalPages++;
    return saveRam(block, offset, bytes);
  }

  /** The last round, the devices, and the other side's word that it has them. */
  async #finish(sink: Sink): Promise<void> {
    const before = this.transferred;
    await this.#sync();
    const ahead = this.#goAheadWanted && this.#runState === 'running';
    if (!ahead) await this.#sendPages();
    if (this.#channels.any) {
      this.#sent(await this.#channels.end());
      // Whether all of that has arrived, the receiver says with its last word.
      this.#channels = NO_CHANNELS;
      this.#failure = this.#lost;
      await this.#write(saveJoin());
    }
    for (const extra of this.#host.extras()) await this.#write(saveExtra(extra));
    if (ahead) this.#tracker?.settle();
    for (const piece of saveRest(this.#machine, { runState: this.#runState, memoryFollows: ahead }))
      await this.#write(piece);
    this.precopyBytes = before;
    this.downtimeBytes = this.transferred - before;
    if (!ahead) {
      await Promise.race([sink.finished(), this.#failed()]);
      return;
    }
    this.#wentAhead = true;
    this.#host.wentAhead();
    await this.#follow(sink);
  }

  /** The memory of a machine that went ahead. */
  async #follow(sink: Sink): Promise<void> {
    const before = this.transferred;
    try {
      await this.#sendPages('max-postcopy-bandwidth');
      await this.#write(saveMemoryEnd());
      await Promise.race([sink.finished(), this.#failed()]);
      this.#tracker = undefined;
    } finally {
      this.postcopyBytes += this.transferred - before;
    }
  }

  /** A socket that ends in order closes too, so only errors count while the end is awaited. */
  #failed(): Promise<never> {
    return new Promise((_, reject) => this.#stream?.once('error', reject));
  }

  async #write(piece: Buffer, limit?: Limit): Promise<void> {
    this.#checkCancelled();
    this.transferred += piece.length;
    this.#windowBytes += piece.length;
    if (this.#stream !== undefined && !this.#stream.write(piece))
      await Promise.race([once(this.#stream, 'drain'), this.#failure]);
    await this.#pace(limit);
  }

  #sent(bytes: number): void {
    this.transferred += bytes;
    this.channelBytes += bytes;
    this.#windowBytes += bytes;
  }

  /** Keeps to the bandwidth, and lets the machine run now and then. */
  async #pace(limit: Limit | undefined): Promise<void> {
    const rate = limit === undefined ? 0 : this.#host.settings.number(limit) / 1000;
    const now = performance.now();
    const due = this.#windowEnds - WINDOW_MS + (rate > 0 ? this.#windowBytes / rate : 0);
    if (rate > 0 && this.#windowBytes >= rate * WINDOW_MS && now < due) {
      await Promise.race([sleep(Math.min(LONGEST_PAUSE_MS, due - now)), this.#failure]);
      this.#nextWindow();
    } else if (now >= this.#windowEnds) {
      if (this.#machine.power.running) await turn();
      this.#nextWindow();
    }
  }

  #nextWindow(): void {
    const now = performance.now();
    const elapsed = now - (this.#windowEnds - WINDOW_MS);
    if (this.#windowMemory > 0) {
      this.bandwidth = this.#windowBytes / Math.max(1, elapsed);
      this.#memoryRate = this.#windowMemory / Math.max(1, elapsed);
    }
    this.#windowBytes = 0;
    this.#windowMemory = 0;
    this.#windowEnds = now + WINDOW_MS;
  }

  #checkCancelled(): void {
    if (this.#cancelled) throw new QmpError('cancelled');
  }
}

/** What the receiver says that it has: its last page, or null for none. It is not trusted. */
function placeFrom(line: string | undefined): RamPlace | undefined {
  const said: unknown = line === undefined ? null : JSON.parse(line);
  if (said === null) return undefined;
  const { block, offset } = said as Partial<RamPlace>;
  if (Number.isSafeInteger(block) && Number.isSafeInteger(offset)) return { block: block ?? 0, offset: offset ?? 0 };
  throw new QmpError('the destination does not say what memory it has');
}
