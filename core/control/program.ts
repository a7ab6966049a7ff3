import type { AudioBackend } from '../audio/backend.ts';
import { DEFAULT_ESCAPE } from '../char/mux.ts';
import type { TypeRegistry } from '../device/registry.ts';
import type { InputHandler } from '../display/input.ts';
import type { Screen } from '../display/screen.ts';
import { SouthbridgeError } from '../errors.ts';
import type { FileTree } from '../fsdev/file-tree.ts';
import { HostThreads } from '../host/host-threads.ts';
import type { Machine } from '../machine/machine.ts';
import type { RunState } from '../machine/run-state.ts';
import type { PluginHost } from '../plugin/host.ts';
import type { TpmEmulator } from '../tpm/emulator.ts';
import { LogOutput } from '../trace/sinks/log-output.ts';
import { CharManager } from './char/manager.ts';
import type { Displays } from './display/displays.ts';
import type { MemoryDump } from './dump/memory-dump.ts';
import type { Migration } from './migration/migration.ts';
import { type CommandLine, LocatedError } from './options/command-line.ts';
import { parseSize } from './options/numbers.ts';
import { OptionError } from './options/opts.ts';
import type { Args } from './qapi/declare.ts';
import { QmpError } from './qapi/error.ts';
import { commands as controlCommands } from './qapi/schema/control.ts';
import type { Bound, CommandTable, EventData, EventName } from './qmp/catalog.ts';
import { EventHub } from './qmp/events.ts';
import type { QmpHost, QmpMonitor, QmpSession } from './qmp/monitor.ts';
import type { ChosenAccelerator } from './startup/accelerators.ts';
import { Backends } from './startup/backends.ts';
import type { Blocks } from './startup/blocks.ts';
import type { Nets } from './startup/nets.ts';
import type { UserObjects } from './startup/objects.ts';
import type { PluginObjects } from './startup/plugin-object.ts';
import type { Reporter } from './startup/report.ts';

const negotiation = controlCommands.qmp_capabilities;

/** Something that holds on to the host and is to be let go at the end: a monitor, a server, a pid file. */
export interface Resource {
  dispose(): void;
}

/**
 * The running program: command line, backends, monitors and, once it is built, the machine. Everything that a client can
 * do goes through here.
 */
export class Program implements QmpHost {
  readonly line: CommandLine;
  readonly report: Reporter;
  readonly registry: TypeRegistry;
  readonly plugins: PluginHost;
  readonly events = new EventHub();
  readonly chars: CharManager;
  readonly backends: Backends;
  /** What `-audiodev` made, by id. */
  readonly audiodevs = new Map<string, AudioBackend>();
  /** What `-fsdev` made, by id. */
  readonly fsdevs = new Map<string, FileTree>();
  /** What `-tpmdev` made, by id. */
  readonly tpmdevs = new Map<string, TpmEmulator>();
  readonly monitors: QmpMonitor[] = [];
  /** Takes over a file descriptor that a client passed under a name (`getfd`). */
  takeNamedFd: (name: string) => number | undefined = () => undefined;
  /** What `-d`, `-trace` and `log` print. */
  readonly log = new LogOutput();
  readonly resources: Resource[] = [this.log];
  /** What stands for CPUs and iothreads among the host's threads. */
  readonly threads = new HostThreads();
  #machine: Machine | undefined;
  #accelerator: ChosenAccelerator | undefined;
  #table: Promise<CommandTable<QmpSession>> | undefined;
  #ready: () => void = () => undefined;
  readonly #whenReady: Promise<void>;
  #isReady = false;
  #built = false;
  #objects: Promise<UserObjects> | undefined;
  #earlyObjects: Promise<void> | undefined;
  #pluginObjects: Promise<PluginObjects> | undefined;
  #displays: Promise<Displays> | undefined;
  #blocks: Promise<Blocks> | undefined;
  #nets: Promise<Nets> | undefined;
  #migration: Promise<Migration> | undefined;
  #memoryDump: Promise<MemoryDump> | undefined;
  #leavePreconfig: (() => Promise<void>) | undefined;
  readonly #inputs = new Set<(machine: Machine) => void>();
  #exiting = false;
  #onExit: () => void = () => {};
  #quitting = false;

  constructor(line: CommandLine, report: Reporter, registry: TypeRegistry, plugins: PluginHost) {
    this.line = line;
    this.report = report;
    this.registry = registry;
    this.plugins = plugins;
    this.chars = new CharManager({
      daemonized: line.has('daemonize'),
      plugInput: handler => this.#plugInput(handler),
      exit: status => this.exit(status),
      info: message => report.info(message),
      terminate: () => this.quit('host-qmp-quit'),
      commit: () => void this.#commitDisks(),
      escape: escapeCharacter(line),
      secure: async request => {
        const { tlsUpgrade } = await import('./startup/tls-objects.ts');
        return tlsUpgrade(this, request);
      },
    });
    this.backends = new Backends(this);
    this.#whenReady = new Promise(resolve => {
      this.#ready = resolve;
    });
  }

  /** Character devices are there before the machine that they are a part of. */
  #plugInput(handler: InputHandler): () => void {
    let unplug: (() => void) | undefined;
    const plug = (machine: Machine): void => {
      unplug = machine.services.input.register(handler);
    };
    if (this.#machine === undefined) this.#inputs.add(plug);
    else plug(this.#machine);
    return () => {
      this.#inputs.delete(plug);
      unplug?.();
    };
  }

  /** Writes what `-snapshot` keeps apart back to the images. */
  async #commitDisks(): Promise<void> {
    try {
      const { executeIn, hmpContext } = await import('./hmp/execute.ts');
      await executeIn(hmpContext(this, 0), 'commit all');
    } catch (error) {
      this.report.error(error);
    }
  }

  /** The machine; not yet built before `-preconfig` is left. */
  get machine(): Machine {
    if (this.#machine === undefined) throw new QmpError('there is no machine yet');
    return this.#machine;
  }

  get accelerator(): ChosenAccelerator {
    if (this.#accelerator === undefined) throw new QmpError('there is no accelerator yet');
    return this.#accelerator;
  }

  set accelerator(accelerator: ChosenAccelerator) {
    this.#accelerator = accelerator;
  }

  /** The host's thread of CPU number `index`. */
  cpuThread(index: number): number {
    const { vm, accelerator } = this.machine;
    const own = vm.vcpus.find(vcpu => vcpu.index === index)?.threadId;
    if (own !== undefined) return own;
    const name = `CPU ${index}/${accelerator.name.toUpperCase()}`;
    const id = this.threads.idOf(name);
    if (index === 0) this.threads.follow(name);
    return id;
  }

  get runState(): RunState {
    return this.#machine?.runState ?? 'prelaunch';
  }

  /** Takes the machine, before it is built: its events flow from now on. */
  adopt(machine: Machine): void {
    this.#machine = machine;
    for (const plug of this.#inputs) plug(machine);
    this.#inputs.clear();
    machine.listen((event, data) => this.#machineEvent(event, data));
    machine.power.onFinished(code => this.exit(code));
  }

  /** The objects that the user made. */
  objects(): Promise<UserObjects> {
    this.#objects ??= Promise.all([import('./startup/objects.ts'), this.pluginObjects()]).then(([module, brought]) => {
      const objects = new module.UserObjects(brought);
      this.backends.provide('memory-backend', id => objects.memory(id));
      this.#provideRngs(module.RNGS, objects);
      objects.provide('cryptodev-backend-builtin', async object => {
        const { checkCryptodev, cryptodevOf } = await import('./startup/cryptodevs.ts');
        checkCryptodev(object);
        this.backends.provide('cryptodev', id => cryptodevOf(objects, id));
      });
      objects.provide('iothread', async object => {
        const { openIothread } = await import('./startup/iothreads.ts');
        openIothread(this.threads, object);
      });
      objects.provide('throttle-group', async object => {
        const { openThrottleGroup } = await import('./startup/throttle-groups.ts');
        openThrottleGroup((await this.blocks()).graph, object);
      });
      for (const type of module.TLS_CREDENTIALS) {
        objects.provide(type, async object => {
          const { openCredentials } = await import('./startup/tls-objects.ts');
          openCredentials(objects, object);
        });
      }
      for (const type of module.AUTHORIZERS) {
        objects.provide(type, async object => {
          const { openAuthorizer } = await import('./startup/tls-objects.ts');
          openAuthorizer(this, object);
        });
      }
      for (const type of module.NET_FILTERS) {
        objects.provide(type, async object => {
          const { addFilter } = await import('./startup/net-filters.ts');
          await addFilter(this, objects, object);
        });
      }
      return objects;
    });
    return this.#objects;
  }

  /** Makes the objects of the command line that others may refer to: once, for whoever is first. */
  earlyObjects(): Promise<void> {
    this.#earlyObjects ??= this.#addObjects(false);
    return this.#earlyObjects;
  }

  /** Makes those that refer to backends. */
  lateObjects(): Promise<void> {
    return this.#addObjects(true);
  }

  async #addObjects(late: boolean): Promise<void> {
    if (this.line.object('object').length === 0) return;
    const { addObjects } = await import('./startup/line-objects.ts');
    await addObjects(this, late);
  }

  #provideRngs(types: readonly string[], objects: UserObjects): void {
    for (const type of types) {
      objects.provide(type, async object => {
        const { openRng, rngOf } = await import('./startup/rng-backends.ts');
        openRng(this, object);
        this.backends.provide('rng', id => {
          const rng = rngOf(objects.get(id));
          if (rng === undefined) throw new SouthbridgeError('ERR_BACKEND', `can't find value '${id}'`);
          return rng;
        });
      });
    }
  }

  /** Those of plugins' types. */
  pluginObjects(): Promise<PluginObjects> {
    this.#pluginObjects ??= import('./startup/plugin-object.ts').then(module => {
      const objects = new module.PluginObjects(this.plugins, this.backends);
      this.resources.push(objects);
      return objects;
    });
    return this.#pluginObjects;
  }

  /** The block layer; loaded when the first drive or question about one comes. */
  blocks(): Promise<Blocks> {
    this.#blocks ??= import('./startup/blocks.ts').then(module => new module.Blocks(this));
    return this.#blocks;
  }

  /**
   * Takes the images back where a migration has given them away; nothing happens where there are none.
   *
   * @throws BlockError where another process uses one
   */
  async takeImages(): Promise<void> {
    if (this.#blocks === undefined) return;
    const { graph } = await this.#blocks;
    if (!graph.inactive) return;
    const { takeOver } = await import('../block/handover.ts');
    await takeOver(graph);
  }

  /** The network backends; loaded when the first one comes. */
  nets(): Promise<Nets> {
    this.#nets ??= import('./startup/nets.ts').then(module => new module.Nets(this));
    return this.#nets;
  }

  /** The servers that show the screen; loaded when the machine is built. */
  displays(): Promise<Displays> {
    this.#displays ??= import('./display/displays.ts').then(module => new module.Displays(this));
    return this.#displays;
  }

  /**
   * The screen of a display adapter.
   * @throws QmpError with QEMU's words where there is none
   */
  screen(device: string, head: number): Screen {
    const { displays } = this.machine.services;
    const screen = displays.find(device, head);
    if (screen !== undefined) return screen;
    if (this.machine.findDevice(device) === undefined)
      throw new QmpError(`Device '${device}' not found`, 'DeviceNotFound');
    throw new QmpError(`Device ${device} (head ${head}) is not bound to a QemuConsole`);
  }

  /** Migration to and from this machine; loaded when first asked for. */
  migration(): Promise<Migration> {
    this.#migration ??= import('./migration/migration.ts').then(module => new module.Migration(this));
    return this.#migration;
  }

  /** Dumps of the guest's memory; loaded when first asked for. */
  memoryDump(): Promise<MemoryDump> {
    this.#memoryDump ??= import('./dump/memory-dump.ts').then(module => new module.MemoryDump(this));
    return this.#memoryDump;
  }

  /** A QMP server on a character device. */
  async addQmp(chardev: string, pretty: boolean): Promise<void> {
    const { QmpMonitor: Monitor } = await import('./qmp/monitor.ts');
    const monitor = new Monitor(this, this.chars.claim(chardev), pretty);
    this.monitors.push(monitor);
    this.resources.push(monitor);
  }

  /** A human monitor on a character device. */
  async addHmp(chardev: string): Promise<void> {
    const { HmpMonitor } = await import('./hmp/monitor.ts');
    this.resources.push(new HmpMonitor(this, this.chars.claim(chardev)));
  }

  /** Lets clients' commands through. */
  open(leavePreconfig?: () => Promise<void>): void {
    this.#leavePreconfig = leavePreconfig;
    this.#isReady = true;
    this.#ready();
  }

  /** The machine has been built: all commands can be used. */
  built(): void {
    this.#built = true;
  }

  /** Whether start-up has got as far as letting clients in. */
  get isReady(): boolean {
    return this.#isReady;
  }

  /** Commands that arrive while the machine is still being put together wait for this. */
  get whenReady(): Promise<void> {
    return this.#whenReady;
  }

  /** `x-exit-preconfig`. */
  async exitPreconfig(): Promise<void> {
    const leave = this.#leavePreconfig;
    if (leave === undefined) throw new QmpError('The command is permitted only before machine initialization');
    this.#leavePreconfig = undefined;
    await leave();
  }

  // QmpHost

  async find(name: string): Promise<Bound<QmpSession> | undefined> {
    if (!this.#isReady) await this.#whenReady;
    if (name === 'qmp_capabilities') return NEGOTIATION;
    const table = await this.commands();
    return table.get(name);
  }

  admit(name: string, bound: Bound<QmpSession>): void {
    if (!this.#built && !bound.command.preconfig) {
      throw new QmpError(`The command '${name}' is permitted only after machine initialization has completed`);
    }
  }

  /** All commands that have handlers; loaded when first asked for. */
  commands(): Promise<CommandTable<QmpSession>> {
    this.#table ??= import('./commands/index.ts').then(module => module.commandTable(this));
    return this.#table;
  }

  emit<Name extends EventName>(name: Name, data?: EventData<Name>): void {
    this.events.emit(name, data);
  }

  // The end

  /** Shuts down in order: the machine's SHUTDOWN event, then the end of the process. */
  quit(cause: 'host-qmp-quit' | 'host-signal' | 'host-ui'): void {
    this.#quitting = true;
    if (this.#machine !== undefined && this.#built) {
      this.#machine.power.requestShutdown(cause);
      return;
    }
    // A machine that is not built has nothing to shut down.
    if (this.#machine !== undefined) this.emit('SHUTDOWN', { guest: false, reason: cause });
    this.exit(0);
  }

  /** Shuts down for a client, which hears of the shutdown before it has its reply, as QEMU's do. */
  async quitFor(cause: 'host-qmp-quit'): Promise<void> {
    const exiting = new Promise<void>(resolve => {
      this.#onExit = resolve;
    });
    this.quit(cause);
    await exiting;
  }

  /** The end has begun: the process will exit by itself. */
  get ending(): boolean {
    return this.#exiting || this.#quitting;
  }

  /** Ends the process once clients have what was written to them; nothing is left behind. */
  exit(code: number): void {
    if (this.#exiting) return;
    this.#exiting = true;
    this.#onExit();
    void this.#finish(code);
  }

  async #finish(code: number): Promise<void> {
    try {
      // The reply to the command that ends it all.
      await new Promise<void>(resolve => setImmediate(resolve));
      if (this.#machine?.power.running) this.#machine.vm.pause();
      const blocks = await this.#blocks;
      if (blocks !== undefined) await blocks.graph.close();
      await this.chars.flush();
    } catch (error) {
      this.report.error(error);
    }
    this.dispose();
    process.exit(code);
  }

  dispose(): void {
    for (const resource of this.resources.splice(0).reverse()) attempt(() => resource.dispose(), this.report);
    this.threads.dispose();
    this.#machine?.dispose();
    this.backends.dispose();
    this.chars.dispose();
    this.events.dispose();
  }

  #machineEvent(event: string, data: Readonly<Record<string, unknown>>): void {
    if (event === 'CPU_REPORT') {
      this.report.plain(String(data['report']));
      return;
    }
    this.events.emit(event as EventName, data as never);
  }
}

function attempt(action: () => void, report: Reporter): void {
  try {
    action();
  } catch (error) {
    report.error(error);
  }
}

/** The one command before negotiation; it needs nothing of the rest, which is only loaded for a client that goes on. */
const NEGOTIATION: Bound<QmpSession> = {
  command: negotiation,
  handle(args, session) {
    session.monitor.negotiate((args as Args<typeof negotiation>).enable ?? []);
  },
};

/** `-echr`: a number in C's notation. */
function escapeCharacter(line: CommandLine): number {
  const given = line.all('echr').at(-1);
  if (given === undefined) return DEFAULT_ESCAPE;
  const value = parseSize(given.value);
  if (value === undefined || value > 0xff)
    throw new LocatedError(given.location, new OptionError("'-echr' takes the number of a character, such as 0x14"));
  return Number(value);
}
