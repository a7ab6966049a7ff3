import { once } from 'node:events';
import { handOver, takeOver } from '../../block/handover.ts';
import type { RunState } from '../../machine/run-state.ts';
import { MachineLoader, saveMachine } from '../../state/snapshot.ts';
import type { Program } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { MigrationInfo } from '../qapi/schema/migration.ts';
import { acknowledge, type MigrationUri, openSink, openSource, parseUri } from './channel.ts';

type Info = Value<typeof MigrationInfo>;
type Status = NonNullable<Info['status']>;

/** Sending the machine's state away, and taking it in. */
export class Migration {
  readonly #program: Program;
  /** `events`: whether MIGRATION events are sent. */
  events = false;
  /** `validate-uuid`: the other side must have the same UUID. */
  validateUuid = false;
  #status: Status = 'none';
  #error: string | undefined;
  #startedAt = 0;
  #total = 0;
  #downtime = 0;
  #transferred = 0;
  #cancelled = false;

  constructor(program: Program) {
    this.#program = program;
  }

  /** `query-migrate`. */
  get info(): Info {
    if (this.#status === 'none') return {};
    const { ramSize } = this.#program.machine.config;
    const done = this.#status === 'completed';
    return {
      status: this.#status,
      'total-time': done ? this.#total : Math.round(performance.now() - this.#startedAt),
      ...(done && { downtime: this.#downtime }),
      'setup-time': 0,
      ...(this.#error !== undefined && { 'error-desc': this.#error }),
      ram: {
        transferred: this.#transferred,
        remaining: done ? 0 : Math.max(0, ramSize - this.#transferred),
        total: ramSize,
        duplicate: 0,
        skipped: 0,
        normal: Math.ceil(this.#transferred / 4096),
        'normal-bytes': this.#transferred,
        'dirty-pages-rate': 0,
        mbps: 0,
        'dirty-sync-count': 1,
        'postcopy-requests': 0,
        'page-size': 4096,
        'multifd-bytes': 0,
        'pages-per-second': 0,
        'precopy-bytes': 0,
        'downtime-bytes': this.#transferred,
        'postcopy-bytes': 0,
        'dirty-sync-missed-zero-copy': 0,
      },
    };
  }

  /** `migrate`: returns once the way is open; the rest goes on by itself. */
  start(uri: string): void {
    if (this.#status === 'active' || this.#status === 'setup')
      throw new QmpError("There's a migration process in progress");
    if (this.#program.runState === 'inmigrate') throw new QmpError('Guest is waiting for an incoming migration');
    if (this.#program.runState === 'postmigrate')
      throw new QmpError("Can't migrate the vm that was paused due to previous migration");
    const target = parseUri(uri, name => this.#program.takeNamedFd(name));
    this.#error = undefined;
    this.#cancelled = false;
    this.#transferred = 0;
    this.#startedAt = performance.now();
    this.#set('setup');
    this.#send(target).catch(error => this.#program.report.error(error));
  }

  cancel(): void {
    if (this.#status === 'active' || this.#status === 'setup') this.#cancelled = true;
  }

  /** `-incoming`, `migrate-incoming`. The machine starts once the state is there, unless `-S` was given. */
  async receive(uri: string): Promise<void> {
    const { machine, report } = this.#program;
    const source = parseUri(uri, name => this.#program.takeNamedFd(name));
    this.#set('setup');
    const stream = await openSource(source, where => {
      if (source.kind === 'tcp') report.info(`waiting for a migration on ${where}`);
    });
    this.#set('active');
    const loader = new MachineLoader(machine);
    try {
      for await (const chunk of stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        loader.feed(chunk);
        if (loader.complete) break;
      }
      loader.end();
    } catch (error) {
      this.#error = error instanceof Error ? error.message : String(error);
      this.#set('failed');
      stream.destroy();
      report.error(error);
      this.#program.exit(1);
      return;
    }
    acknowledge(stream);
    const active = await this.#takeImages();
    this.#transferred = loader.transferred;
    this.#total = Math.round(performance.now() - this.#startedAt);
    this.#set('completed');
    const state = loader.runState ?? 'running';
    machine.power.setState(state === 'running' ? 'paused' : state);
    if (state === 'running' && active && !this.#program.line.has('S')) machine.start();
  }

  /** The other side has let go of the images. @returns false where they cannot be had; the user was told */
  async #takeImages(): Promise<boolean> {
    try {
      await takeOver((await this.#program.blocks()).graph);
      return true;
    } catch (error) {
      this.#program.report.error(error);
      return false;
    }
  }

  /** Stops the machine and sends it; if that fails, it goes on as before. */
  async #send(target: MigrationUri): Promise<void> {
    const { machine } = this.#program;
    const before: RunState = machine.runState;
    const { graph } = await this.#program.blocks();
    try {
      const sink = await openSink(target);
      const failure = new Promise<never>((_, reject) => sink.stream.once('error', reject));
      failure.catch(() => undefined);
      this.#set('active');
      const stoppedAt = performance.now();
      machine.stop('finish-migrate');
      await handOver(graph);
      for (const piece of saveMachine(machine, { uuid: this.validateUuid, runState: before })) {
        if (this.#cancelled) throw new QmpError('cancelled');
        this.#transferred += piece.length;
        if (!sink.stream.write(piece)) await Promise.race([once(sink.stream, 'drain'), failure]);
      }
      await Promise.race([sink.finished(), failure]);
      this.#downtime = Math.round(performance.now() - stoppedAt);
      this.#total = Math.round(performance.now() - this.#startedAt);
      machine.power.setState('postmigrate');
      this.#set('completed');
    } catch (error) {
      this.#error = error instanceof Error ? error.message : String(error);
      await takeOver(graph).catch(failure => this.#program.report.error(failure));
      if (before === 'running') machine.start();
      else machine.power.setState(before);
      this.#set(this.#cancelled ? 'cancelled' : 'failed');
    }
  }

  #set(status: Status): void {
    this.#status = status;
    if (this.events) this.#program.emit('MIGRATION', { status });
  }
}
