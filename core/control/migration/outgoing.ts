import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import type { Machine } from '../../machine/machine.ts';
import type { RunState } from '../../machine/run-state.ts';
import type { SavedRecord } from '../../state/fields.ts';
import { encodeDelta } from '../../state/page-delta.ts';
import { PAGE, type PageToSend, PageTracker } from '../../state/page-tracker.ts';
import { saveDelta, saveExtra, saveHeader, saveRam, saveRest, saveZeroPage } from '../../state/snapshot.ts';
import { QmpError } from '../qapi/error.ts';
import type { Sink } from './channel.ts';
import type { MigrationSettings } from './settings.ts';
import { CpuThrottle } from './throttle.ts';

/** The rate is kept over this long, in milliseconds. */
const WINDOW_MS = 100;
/** What is compared between two turns of the event loop, in bytes. */
const SYNC_STEP = 4 * 2 ** 20;
/** How many rounds may bring more than they took away before the CPUs are slowed down. */
const PATIENCE = 2;
const ZERO_PAGE = Buffer.alloc(PAGE);

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
}

/** Sends a machine: its memory while it runs, then again what has changed, until what is left fits into the downtime that is allowed. */
export class Outgoing {
  readonly #machine: Machine;
  readonly #host: OutgoingHost;
  readonly #throttle: CpuThrottle;
  #stream: Writable | undefined;
  #failure: Promise<never> = new Promise(() => undefined);
  #cancelled = false;
  #tracker: PageTracker | undefined;
  #windowEnds = 0;
  #windowBytes = 0;
  #windowMemory = 0;
  #sentAtSync = 0;
  #worse = 0;
  #runState: RunState = 'running';

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

  cancel(): void {
    this.#cancelled = true;
    this.#stream?.destroy();
  }

  /** @throws whatever kept the machine from arriving; it is stopped then, or not yet */
  async run(sink: Sink): Promise<void> {
    const { stream } = sink;
    this.#stream = stream;
    this.#failure = new Promise((_, reject) => {
      stream.once('error', reject);
      stream.once('close', () => reject(new QmpError('the connection was closed')));
    });
    this.#failure.catch(() => undefined);
    if (this.#cancelled) stream.destroy();
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
      this.#tracker = undefined;
    }
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
    while (this.#machine.power.running && this.#tracker.remaining > this.#affordable()) {
      await this.#sendPages(true);
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
    if (this.syncs > 0) this.dirtyPagesPerSecond = Math.round((this.remaining / PAGE / elapsed) * 1000);
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

  async #sendPages(limited: boolean): Promise<void> {
    for (const piece of this.#tracker?.take(page => this.#encode(page)) ?? []) await this.#write(piece, limited);
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
    await this.#sendPages(false);
    for (const extra of this.#host.extras()) await this.#write(saveExtra(extra), false);
    for (const piece of saveRest(this.#machine, this.#runState)) await this.#write(piece, false);
    this.precopyBytes = before;
    this.downtimeBytes = this.transferred - before;
    await Promise.race([sink.finished(), this.#failed()]);
  }

  /** A socket that ends in order closes too, so only errors count while the end is awaited. */
  #failed(): Promise<never> {
    return new Promise((_, reject) => this.#stream?.once('error', reject));
  }

  async #write(piece: Buffer, limited = true): Promise<void> {
    this.#checkCancelled();
    this.transferred += piece.length;
    this.#windowBytes += piece.length;
    if (this.#stream !== undefined && !this.#stream.write(piece))
      await Promise.race([once(this.#stream, 'drain'), this.#failure]);
    const limit = this.#host.settings.number('max-bandwidth') * (WINDOW_MS / 1000);
    const now = performance.now();
    if (limited && limit > 0 && this.#windowBytes >= limit && now < this.#windowEnds) {
      await Promise.race([sleep(this.#windowEnds - now), this.#failure]);
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
