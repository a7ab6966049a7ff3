import type { Socket } from 'node:net';
import {
  bitmapsToSend,
  checkBitmapsCanLeave,
  type MigratedBitmap,
  type NodeAlias,
} from '../../block/bitmap-migration.ts';
import { handOver } from '../../block/handover.ts';
import { reason } from '../../block/io-error.ts';
import type { Program } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { MigrationInfo } from '../qapi/schema/migration.ts';
import { pieces } from './bitmaps.ts';
import {
  hasChannels,
  type MigrationUri,
  openSink,
  openSocket,
  parseUri,
  type Secure,
  type Sink,
  type SocketAddress,
} from './channel.ts';
import { Incoming } from './incoming.ts';
import { MemoryChannels, pagePacker } from './memory-channels.ts';
import { Outgoing } from './outgoing.ts';
import { secureClient, secureServer } from './secure.ts';
import { MigrationSettings } from './settings.ts';

type Info = Value<typeof MigrationInfo>;
type Status = NonNullable<Info['status']>;

const UNDER_WAY: ReadonlySet<Status> = new Set([
  'setup',
  'wait-unplug',
  'active',
  'pre-switchover',
  'device',
  'postcopy-active',
  'postcopy-paused',
  'postcopy-recover',
  'cancelling',
]);
/** How long a guest has, once all is cancelled, to let go the cards that it was asked for. */
const UNPLUG_PATIENCE_MS = 30_000;

/** Sending the machine's state away, and taking it in. */
export class Migration {
  readonly settings = new MigrationSettings();
  readonly #program: Program;
  readonly #changes: (() => void)[] = [];
  #bitmaps: MigratedBitmap[] = [];
  #status: Status = 'none';
  #error: string | undefined;
  #startedAt = 0;
  #setup = 0;
  #total = 0;
  #downtime = 0;
  #outgoing: Outgoing | undefined;
  #incoming: Incoming | undefined;
  #listening: SocketAddress | undefined;
  #continue: (() => void) | undefined;
  #unplugDeadline: (() => void) | undefined;
  #settled: Promise<void> = Promise.resolve();

  constructor(program: Program) {
    this.#program = program;
  }

  /** `query-migrate`. */
  get info(): Info {
    const address = this.#listening === undefined ? {} : { 'socket-address': [this.#listening] };
    if (this.#status === 'none') return address;
    const done = this.#status === 'completed';
    const outgoing = this.#outgoing;
    return {
      status: this.#status,
      ...address,
      ...(this.#error !== undefined && { 'error-desc': this.#error }),
      ...(outgoing !== undefined && {
        'total-time': UNDER_WAY.has(this.#status) ? Math.round(performance.now() - this.#startedAt) : this.#total,
        'setup-time': this.#setup,
        ...(done ? { downtime: this.#downtime } : { 'expected-downtime': outgoing.expectedDowntime }),
        ...(this.#status === 'setup' || this.#status === 'wait-unplug' ? {} : { ram: this.#ramStats(outgoing, done) }),
        ...(this.settings.has('xbzrle') && { 'xbzrle-cache': this.#deltaStats(outgoing) }),
        ...(outgoing.throttlePercentage > 0 && { 'cpu-throttle-percentage': outgoing.throttlePercentage }),
      }),
      ...this.#blocktime,
    };
  }

  /** How long the CPUs waited for memory: all of them as long as the first. */
  get #blocktime(): Pick<Info, 'postcopy-blocktime' | 'postcopy-vcpu-blocktime'> {
    const ms = this.#incoming?.blockedMs;
    if (ms === undefined || !this.settings.has('postcopy-blocktime')) return {};
    return {
      'postcopy-blocktime': ms,
      'postcopy-vcpu-blocktime': this.#program.machine.cpus.plugged.map(() => ms),
    };
  }

  #ramStats(outgoing: Outgoing, done: boolean): NonNullable<Info['ram']> {
    const mbps = (outgoing.bandwidth * 8) / 1000;
    return {
      transferred: outgoing.transferred,
      remaining: done ? 0 : outgoing.remaining,
      total: outgoing.total,
      duplicate: outgoing.zeroPages,
      skipped: 0,
      normal: outgoing.normalPages,
      'normal-bytes': outgoing.normalPages * 4096,
      'dirty-pages-rate': outgoing.dirtyPagesPerSecond,
      mbps,
      'dirty-sync-count': outgoing.syncs,
      'postcopy-requests': 0,
      'page-size': 4096,
      'multifd-bytes': outgoing.channelBytes,
      'pages-per-second': Math.round((outgoing.bandwidth * 1000) / 4096),
      'precopy-bytes': outgoing.precopyBytes || outgoing.transferred,
      'downtime-bytes': outgoing.downtimeBytes,
      'postcopy-bytes': outgoing.postcopyBytes,
      'dirty-sync-missed-zero-copy': 0,
    };
  }

  #deltaStats(outgoing: Outgoing): NonNullable<Info['xbzrle-cache']> {
    const { deltaPages, deltaBytes, deltaOverflows } = outgoing;
    return {
      'cache-size': this.settings.number('xbzrle-cache-size'),
      bytes: deltaBytes,
      pages: deltaPages,
      'cache-miss': 0,
      'cache-miss-rate': 0,
      'encoding-rate': deltaBytes === 0 ? 0 : (deltaPages * 4096) / deltaBytes,
      overflow: deltaOverflows,
    };
  }

  /** Resolves when the migration under way is over, one way or the other. */
  settled(): Promise<void> {
    return this.#settled;
  }

  get #mapping(): readonly NodeAlias[] | undefined {
    return this.settings.parameters['block-bitmap-mapping'];
  }

  /** @throws QmpError while one is under way: its settings must stay as they are */
  refuseWhileUnderWay(): void {
    if (this.#outgoing !== undefined && UNDER_WAY.has(this.#status))
      throw new QmpError("There's a migration process in progress");
  }

  /** @throws QmpError with QEMU's wording, and `unknown` for a protocol that there is not */
  #parse(uri: string, unknown: string): MigrationUri {
    const parsed = parseUri(uri, name => this.#program.takeNamedFd(name));
    if (parsed === undefined) throw new QmpError(unknown);
    return parsed;
  }

  #target(uri: string): MigrationUri {
    return this.#parse(uri, "Parameter 'uri' expects a valid migration protocol");
  }

  #origin(uri: string): MigrationUri {
    return this.#parse(uri, `unknown migration protocol: ${uri}`);
  }

  /** `migrate`: the rest goes on by itself. */
  start(uri: string): void {
    this.refuseWhileUnderWay();
    if (this.#program.runState === 'inmigrate') throw new QmpError('Guest is waiting for an incoming migration');
    if (this.#program.runState === 'postmigrate')
      throw new QmpError("Can't migrate the vm that was paused due to previous migration");
    const target = this.#target(uri);
    if (this.settings.has('multifd') && !hasChannels(target))
      throw new QmpError('multifd is not supported by current protocol');
    this.#error = undefined;
    this.#startedAt = performance.now();
    this.#outgoing = new Outgoing(this.#program.machine, {
      settings: this.settings,
      pass: number => {
        if (this.settings.has('events')) this.#program.emit('MIGRATION_PASS', { pass: number });
      },
      begun: () => this.#begin(),
      stopped: () => this.#beforeSwitchover(),
      extras: () => pieces(this.#bitmaps),
      wentAhead: () => {
        this.#countDowntime();
        this.#set('postcopy-active');
      },
    });
    this.#set('setup');
    this.#settled = this.#send(target, this.#outgoing);
  }

  /** `migrate_cancel`: the machine stays here. */
  cancel(): void {
    // What has gone ahead cannot come back.
    if (!UNDER_WAY.has(this.#status) || this.#outgoing === undefined || this.#outgoing.wentAhead) return;
    this.#set('cancelling');
    this.#outgoing.cancel();
    this.#continue?.();
    this.#unplugDeadline?.();
  }

  /** `migrate-continue`: the machine has been stopped, and what is left may go. */
  proceed(state: Status): void {
    if (this.#status !== state) throw new QmpError(`Migration not in expected state: ${this.#status}`);
    this.#continue?.();
  }

  /** `migrate-start-postcopy`: what is under way goes ahead of its memory. */
  goAhead(): void {
    if (!this.settings.has('postcopy-ram'))
      throw new QmpError('Enable postcopy with migrate_set_capability before the start of migration');
    if (this.#outgoing === undefined) throw new QmpError('Postcopy must be started after migration has been started');
    this.#outgoing.goAhead();
  }

  /** `migrate-pause`: the connection is cut. */
  interrupt(): void {
    if (this.#status !== 'postcopy-active')
      throw new QmpError('migrate-pause is currently only supported during postcopy-active state');
    this.#outgoing?.interrupt();
    this.#incoming?.interrupt();
  }

  /** `migrate` with `resume`: the rest of the memory goes another way. */
  resume(uri: string): void {
    if (this.#status !== 'postcopy-paused' || this.#outgoing === undefined)
      throw new QmpError('Cannot resume if there is no paused migration');
    if (this.settings.has('release-ram'))
      throw new QmpError('Postcopy recovery cannot work when release-ram capability is set');
    const target = this.#target(uri);
    this.#set('postcopy-recover');
    this.#settled = this.#sendRest(target, this.#outgoing);
  }

  /** `migrate-recover`: the rest of the memory comes another way. */
  async recover(uri: string): Promise<void> {
    if (this.#status !== 'postcopy-paused' || this.#incoming === undefined)
      throw new QmpError('Migrate recover can only be run when postcopy is paused.');
    await this.#incoming.recover(this.#origin(uri));
  }

  /** `-incoming`, `migrate-incoming`. The machine starts once the state is there, unless `-S` was given. */
  async receive(uri: string): Promise<void> {
    const source = this.#origin(uri);
    this.#status = 'setup';
    // QEMU says so whether or not the capability is on.
    this.#program.emit('MIGRATION', { status: 'setup' });
    this.#incoming = new Incoming(this.#program, {
      settings: this.settings,
      secure: secureServer(this.#program, this.settings),
      mapping: () => this.#mapping,
      set: status => this.#set(status),
      failed: error => {
        this.#error = reason(error);
        this.#set('failed');
        this.#program.report.error(error);
        this.#program.exit(1);
      },
      listening: address => {
        this.#listening = address;
      },
      announce: () => this.#announce(),
      takeImages: () => this.#takeImages(),
    });
    await this.#incoming.receive(source);
  }

  /** Switches still send the cards' frames to where the machine was. */
  async #announce(): Promise<void> {
    if (this.#program.machine.services.netCards.all.size === 0) return;
    const nets = await this.#program.nets();
    const { settings } = this;
    nets.announce(undefined, {
      initial: settings.number('announce-initial'),
      max: settings.number('announce-max'),
      rounds: settings.number('announce-rounds'),
      step: settings.number('announce-step'),
    });
  }

  /** The other side has let go of the images, or never had them. @returns false where they cannot be had; the user was told */
  async #takeImages(): Promise<boolean> {
    try {
      await this.#program.takeImages();
      return true;
    } catch (error) {
      this.#program.report.error(error);
      return false;
    }
  }

  /** @throws BlockError where a bitmap cannot go along; the other side learns of it by the end of the stream */
  async #checkBitmaps({ stream }: Sink): Promise<void> {
    if (!this.settings.has('dirty-bitmaps')) return;
    try {
      checkBitmapsCanLeave((await this.#program.blocks()).graph, this.#mapping);
    } catch (error) {
      stream.destroy();
      this.#program.report.error(error);
      throw error;
    }
  }

  async #send(target: MigrationUri, outgoing: Outgoing): Promise<void> {
    const { machine } = this.#program;
    const before = machine.runState;
    machine.services.sharedMemory.logged = true;
    try {
      const secure = await secureClient(this.#program, this.settings, target);
      const sink = await openSink(target, secure);
      await this.#checkBitmaps(sink);
      if (this.settings.has('postcopy-ram') && sink.answer === undefined)
        throw new QmpError('Unable to open return-path for postcopy');
      await outgoing.run(sink, await this.#channels(target, secure));
      this.#arrived(outgoing);
    } catch (error) {
      if (outgoing.wentAhead) {
        this.#lost(error);
        return;
      }
      outgoing.interrupt();
      machine.services.sharedMemory.logged = false;
      await this.#takeImages();
      const cancelled = this.#status === 'cancelling';
      if (!cancelled) this.#error = reason(error);
      this.#total = Math.round(performance.now() - this.#startedAt);
      if (before === 'running') machine.start();
      else machine.power.setState(before);
      for (const standby of machine.services.netCards.standbys.values()) await standby.giveBack();
      this.#set(cancelled ? 'cancelled' : 'failed');
    }
  }

  /** The connections that memory is spread over. */
  async #channels(target: MigrationUri, secure: Secure | undefined): Promise<MemoryChannels> {
    const { settings } = this;
    const count = settings.has('multifd') ? settings.number('multifd-channels') : 0;
    const sockets: Socket[] = [];
    for (let index = 0; index < count; index++) sockets.push(await openSocket(target, secure));
    return new MemoryChannels(sockets, pagePacker(settings));
  }

  /** The connection of a machine that went ahead has been lost: it waits over there, and its memory here. */
  #lost(error: unknown): void {
    this.#error = reason(error);
    this.#set('postcopy-paused');
  }

  async #sendRest(target: MigrationUri, outgoing: Outgoing): Promise<void> {
    try {
      const sink = await openSink(target, await secureClient(this.#program, this.settings, target));
      this.#error = undefined;
      this.#set('postcopy-active');
      await outgoing.resume(sink);
      this.#arrived(outgoing);
    } catch (error) {
      this.#lost(error);
    }
  }

  /** The machine is no longer this side's. */
  #countDowntime(): void {
    const now = performance.now();
    this.#downtime = Math.round(now - (this.#outgoing?.stoppedAt ?? now));
  }

  #arrived(outgoing: Outgoing): void {
    if (!outgoing.wentAhead) this.#countDowntime();
    this.#total = Math.round(performance.now() - this.#startedAt);
    this.#program.machine.services.sharedMemory.logged = false;
    this.#program.machine.power.setState('postmigrate');
    this.#set('completed');
  }

  /** The memory has been looked through once: its rounds may begin. One that was cancelled meanwhile ends by itself. */
  async #begin(): Promise<void> {
    this.#setup = Math.round(performance.now() - this.#startedAt);
    await this.#withdrawPrimaries();
    if (this.#status !== 'cancelling') this.#set('active');
  }

  /** Cards with a standby stay here: the guest is asked to let them go, and the machine leaves once it has. */
  async #withdrawPrimaries(): Promise<void> {
    const leaving: Promise<void>[] = [];
    for (const standby of this.#program.machine.services.netCards.standbys.values()) {
      const primary = standby.withdraw();
      if (primary === undefined) continue;
      this.#program.emit('UNPLUG_PRIMARY', { 'device-id': primary.id });
      leaving.push(primary.gone);
    }
    if (leaving.length === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const tooLate = new Promise<void>(resolve => {
      this.#unplugDeadline = () => {
        timer ??= setTimeout(resolve, UNPLUG_PATIENCE_MS);
      };
    });
    // Cancelled while the sink was being opened.
    if (this.#status === 'cancelling') this.#unplugDeadline?.();
    else this.#set('wait-unplug');
    await Promise.race([Promise.all(leaving), tooLate]);
    clearTimeout(timer);
    this.#unplugDeadline = undefined;
  }

  async #beforeSwitchover(): Promise<void> {
    if (this.settings.has('pause-before-switchover')) {
      const released = new Promise<void>(resolve => {
        this.#continue = resolve;
      });
      this.#set('pre-switchover');
      await released;
      this.#continue = undefined;
    }
    // What is cancelled stays so: the sender ends by itself.
    if (this.#status === 'cancelling') return;
    this.#set('device');
    const { graph } = await this.#program.blocks();
    this.#bitmaps = this.settings.has('dirty-bitmaps') ? bitmapsToSend(graph, this.#mapping) : [];
    await handOver(graph);
  }

  /** {@link info}, but not of the middle of the switch-over: QEMU's monitor answers nobody then. */
  async settledInfo(): Promise<Migration['info']> {
    while (this.#status === 'device') await new Promise<void>(resolve => this.#changes.push(resolve));
    const blockers = await this.#blockers();
    return { ...this.info, ...(blockers.length > 0 && { 'blocked-reasons': blockers }) };
  }

  async #blockers(): Promise<string[]> {
    return (await this.#program.blocks()).graph.migrationBlockers();
  }

  /** @throws QmpError where the machine has what another process could not take over */
  async refuseWhereBlocked(): Promise<void> {
    const [blocker] = await this.#blockers();
    if (blocker !== undefined) throw new QmpError(blocker);
  }

  #set(status: Status): void {
    this.#status = status;
    for (const changed of this.#changes.splice(0)) changed();
    // Of the switch-over clients hear where they have asked to be waited for.
    const silent = status === 'device' && !this.settings.has('pause-before-switchover');
    if (this.settings.has('events') && !silent) this.#program.emit('MIGRATION', { status });
  }
}
