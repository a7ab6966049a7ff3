import { rmSync, writeFileSync } from 'node:fs';
import type { TypeRegistry } from '../../device/registry.ts';
import { SouthbridgeError } from '../../errors.ts';
import { Machine } from '../../machine/machine.ts';
import type { MachineType } from '../../machine/machine-type.ts';
import { TraceHub } from '../../trace/trace.ts';
import { type CommandLine, LocatedError, located, parseCommandLine } from '../options/command-line.ts';
import { GROUPS } from '../options/groups.ts';
import { HelpWanted, OptionError, parseOpts } from '../options/opts.ts';
import { helpText } from '../options/table.ts';
import { Program } from '../program.ts';
import { VERSION_TEXT } from '../version.ts';
import { chooseAccelerator } from './accelerators.ts';
import { type Defaults, defaultsFor } from './defaults.ts';
import { addDevice, deviceRequest } from './devices.ts';
import { type BackendParts, machineConfig, machineRequest } from './machine-config.ts';
import { applyPolicy } from './policy.ts';
import { Reporter } from './report.ts';
import { romImages } from './rom-images.ts';

/** What the program's entry point provides. */
export interface Entry {
  readonly program: string;
  readonly args: readonly string[];
  /** Registers the device and machine types that there are. */
  register(registry: TypeRegistry): void;
}

/** Runs the program until the machine ends; errors are reported and end it with status 1. */
export async function run(entry: Entry): Promise<void> {
  const report = new Reporter(entry.program);
  try {
    await start(entry, report);
  } catch (error) {
    if (error instanceof HelpWanted) process.exit(0);
    report.error(error);
    process.exit(1);
  }
}

async function start(entry: Entry, report: Reporter): Promise<void> {
  const line = parseCommandLine(entry.program, entry.args);
  if (line.has('help')) {
    process.stdout.write(helpText(entry.program));
    return;
  }
  if (line.has('version')) {
    process.stdout.write(VERSION_TEXT);
    return;
  }
  const { TypeRegistry: Registry } = await import('../../device/registry.ts');
  const registry = new Registry();
  entry.register(registry);
  for (const { value, location } of line.all('plugin')) await loadPlugin(registry, value, location);
  if (await wantsListing(line)) {
    const { printListing } = await import('./listings.ts');
    process.stdout.write(await printListing(line, registry));
    return;
  }
  refuseUnsupported(line);
  if (line.merged('msg').bool('timestamp')) report.timestamps = true;
  if (line.has('daemonize')) {
    const { becomeDaemon } = await import('./daemon.ts');
    if (await becomeDaemon(entry.args)) return;
  }
  const program = new Program(line, report, registry);
  try {
    await new Startup(program).go();
  } catch (error) {
    program.dispose();
    throw error;
  }
}

async function wantsListing(line: CommandLine): Promise<boolean> {
  if (line.help !== undefined) return true;
  const isHelp = (value: unknown): boolean => value === 'help' || value === '?';
  return (
    isHelp(machineRequest(line).type) ||
    isHelp(line.last('cpu')) ||
    isHelp(line.last('d')) ||
    line.opts('accel').some(({ opts }) => isHelp(opts.string('accel'))) ||
    line.opts('chardev').some(({ opts }) => isHelp(opts.string('backend'))) ||
    line.opts('device').some(({ opts }) => isHelp(opts.string('driver')) || opts.has('help')) ||
    line.object('object').some(({ value }) => isHelp(value['qom-type']))
  );
}

async function loadPlugin(registry: TypeRegistry, source: string, location: string): Promise<void> {
  try {
    const path = '../../device/plugin.js';
    const module: { loadPlugin(registry: TypeRegistry, source: string): Promise<void> } = await import(path);
    await module.loadPlugin(registry, source);
  } catch (error) {
    throw new LocatedError(location, error instanceof Error ? error : new Error(String(error)));
  }
}

/** Options that this program knows but cannot honour. */
function refuseUnsupported(line: CommandLine): void {
  const refuse = (name: string, message: string): void => {
    const given = line.all(name)[0];
    if (given !== undefined) throw new LocatedError(given.location, new OptionError(message));
  };
  refuse('spice', 'SPICE is not supported by this program');
  refuse('chroot', 'chroot is not supported by this program');
  refuse('runas', 'runas is not supported by this program');
  refuse('icount', 'icount is not supported by this program');
  for (const { opts, location } of line.opts('sandbox')) {
    if (opts.bool('enable')) {
      throw new LocatedError(
        location,
        new OptionError('failed to enable seccomp: it is not supported by this program'),
      );
    }
  }
  if (line.has('preconfig') && line.has('daemonize')) {
    throw new OptionError("'-preconfig' and '-incoming' options are mutually exclusive");
  }
}

/** The order in which QEMU brings a machine up: backends, machine, devices, then the CPUs. */
class Startup {
  readonly #program: Program;
  readonly #line: CommandLine;

  constructor(program: Program) {
    this.#program = program;
    this.#line = program.line;
  }

  async go(): Promise<void> {
    const program = this.#program;
    const line = this.#line;
    this.#pidfile();
    const type = await this.#machineType();
    await this.#objects(false);
    for (const { opts, location } of line.opts('chardev')) await at(location, () => program.chars.addOpts(opts));
    program.accelerator = await chooseAccelerator(line, program.report);
    const defaults = defaultsFor(line, type);
    const parts = await this.#backends(type, defaults);
    await this.#objects(true);
    await this.#monitors(defaults);
    this.#signals();
    const machine = this.#machine(type, parts);
    program.adopt(machine);
    await this.#memory(machine);
    const build = (): Promise<void> => this.#build(machine);
    if (line.has('preconfig')) {
      await this.#qtest(machine);
      program.open(build);
      await this.#ready();
      return;
    }
    await build();
    await this.#qtest(machine);
    program.open();
    await this.#ready();
  }

  async #machineType(): Promise<MachineType> {
    const { registry } = this.#program;
    const request = machineRequest(this.#line);
    try {
      return await registry.requireMachine(request.type ?? 'pc');
    } catch (error) {
      if (!(error instanceof SouthbridgeError) || error.code !== 'ERR_MACHINE_UNKNOWN') throw error;
      const hint = `${error.hint === undefined ? '' : `${error.hint}\n`}Use -machine help to list supported machines`;
      throw new LocatedError(
        request.location,
        new SouthbridgeError('ERR_MACHINE_UNKNOWN', 'unsupported machine type', hint),
      );
    }
  }

  async #objects(late: boolean): Promise<void> {
    const given = this.#line.object('object');
    if (given.length === 0) return;
    const { isLate, UserObjects } = await import('./objects.ts');
    const objects = await this.#program.objects();
    for (const { value, keyval, location } of given) {
      if (isLate(value) !== late) continue;
      await at(location, () => objects.add(UserObjects.parse(value, keyval)));
    }
  }

  /** Serial and parallel ports, drives and network cards: all that the machine's definition will look for. */
  async #backends(type: MachineType, defaults: Defaults): Promise<BackendParts> {
    const line = this.#line;
    const nographic = line.has('nographic');
    const serials = await this.#ports(
      'serial',
      defaults.serial ? (nographic ? (defaults.monitor ? 'mon:stdio' : 'stdio') : 'vc') : undefined,
    );
    const parallels = await this.#ports('parallel', defaults.parallel ? (nographic ? 'null' : 'vc') : undefined);
    const vga = line.last('vga') ?? (defaults.vga && !nographic ? type.defaults.vga : 'none');
    const drives = await this.#drives(defaults);
    return { serials, parallels, drives, nics: [], vga };
  }

  /** `-blockdev`, `-drive` and the empty drives that a machine has by default. */
  async #drives(defaults: Defaults): Promise<BackendParts['drives']> {
    const line = this.#line;
    const nodes = line.object('blockdev');
    const given = line.opts('drive');
    if (nodes.length === 0 && given.length === 0 && !defaults.cdrom && !defaults.floppy) return [];
    const blocks = await this.#program.blocks();
    for (const { value, location } of nodes) await at(location, () => blocks.addNode(value));
    for (const { opts, location } of given) await at(location, () => blocks.addDrive(opts));
    const fallback = async (wanted: boolean, type: 'ide' | 'floppy', index: number, text: string): Promise<void> => {
      if (wanted && blocks.drives.byIndex(type, index) === undefined)
        await blocks.addDrive(parseOpts(GROUPS.drive, text), true);
    };
    await fallback(defaults.cdrom, 'ide', 2, 'if=ide,index=2,media=cdrom');
    await fallback(defaults.floppy, 'floppy', 0, 'if=floppy,index=0');
    return blocks.onBoard;
  }

  /** `-serial` and `-parallel` in order, or the default one. */
  async #ports(option: 'serial' | 'parallel', fallback: string | undefined): Promise<(string | undefined)[]> {
    const given = this.#line.all(option).map(({ value, location }) => ({ value, location }));
    if (given.length === 0 && fallback !== undefined)
      given.push({ value: fallback, location: `-${option} ${fallback}` });
    const ids: (string | undefined)[] = [];
    for (const [index, { value, location }] of given.entries()) {
      const added = await at(location, () => this.#program.chars.addCompat(`${option}${index}`, value));
      ids.push(added?.id);
      if (added?.monitor) await this.#program.addHmp(added.id);
    }
    return ids;
  }

  async #monitors(defaults: Defaults): Promise<void> {
    const program = this.#program;
    const line = this.#line;
    let index = 0;
    for (const { name, value, location } of line.given) {
      if (name !== 'monitor' && name !== 'qmp' && name !== 'qmp-pretty') continue;
      await at(location, async () => {
        const added = await program.chars.addCompat(`compat_monitor${index++}`, value);
        if (added === undefined) return;
        if (name === 'monitor') await program.addHmp(added.id);
        else await program.addQmp(added.id, name === 'qmp-pretty');
      });
    }
    for (const { opts, location } of line.opts('mon')) {
      await at(location, async () => {
        const mode = opts.string('mode') ?? 'readline';
        const id = opts.string('chardev');
        if (mode !== 'readline' && mode !== 'control') throw new OptionError(`unknown monitor mode "${mode}"`);
        if (id === undefined || program.chars.get(id) === undefined) throw new OptionError(`chardev "${id}" not found`);
        if (mode === 'control') await program.addQmp(id, opts.bool('pretty') ?? false);
        else await program.addHmp(id);
      });
    }
    const serialHasMonitor = line.has('nographic') && defaults.serial && defaults.monitor;
    if (defaults.monitor && !serialHasMonitor) {
      const added = await program.chars.addCompat(`compat_monitor${index}`, line.has('nographic') ? 'stdio' : 'vc');
      if (added !== undefined) await program.addHmp(added.id);
    }
  }

  #machine(type: MachineType, parts: BackendParts): Machine {
    const program = this.#program;
    const line = this.#line;
    const request = machineRequest(line);
    const config = machineConfig(line, type, parts);
    const { accelerator, options } = program.accelerator;
    const kernelIrqchip =
      options?.string('kernel-irqchip') ?? request.options['kernel-irqchip'] ?? request.options['kernel_irqchip'];
    return new Machine({
      type,
      config,
      accelerator,
      backends: program.backends,
      trace: this.#trace(),
      romImage: romImages(line.all('L').map(({ value }) => value)),
      ...(kernelIrqchip !== undefined && { kernelIrqchip: kernelIrqchip !== 'off' }),
    });
  }

  async #build(machine: Machine): Promise<void> {
    const program = this.#program;
    const line = this.#line;
    machine.build();
    for (const warning of machine.warnings) program.report.warn(warning);
    applyPolicy(line, machine);
    await this.#devices(machine);
    machine.resetDevices();
    program.built();
    await this.#gdb();
    const loadvm = line.all('loadvm').at(-1);
    if (loadvm !== undefined) {
      const { loadVm } = await import('../migration/snapshots.ts');
      await at(loadvm.location, () => loadVm(program, loadvm.value));
    }
    const incoming = line.all('incoming').at(-1);
    if (incoming === undefined) {
      if (!line.has('S')) machine.start();
      return;
    }
    machine.power.setState('inmigrate');
    if (incoming.value === 'defer') return;
    const migration = await program.migration();
    void at(incoming.location, () => migration.receive(incoming.value)).catch(error => {
      program.report.error(error);
      program.exit(1);
    });
  }

  /** Guest RAM as an object, where the user did not bring one. */
  async #memory(machine: Machine): Promise<void> {
    const objects = await this.#program.objects();
    const { config, type } = machine;
    const given = machineRequest(this.#line).options['memory-backend'];
    const perNode = config.numa.some(option => option.type === 'node' && option.memdev !== undefined);
    if (typeof given === 'string') {
      if (objects.get(given) === undefined) throw new OptionError(`memory backend '${given}' not found`);
    } else if (config.ramSize > 0 && !perNode) {
      await objects.add({ 'qom-type': 'memory-backend-ram', id: type.defaultRamId, size: config.ramSize });
    }
    objects.moveTo(machine.root.child('objects') ?? machine.root);
  }

  async #devices(machine: Machine): Promise<void> {
    const { registry } = this.#program;
    const line = this.#line;
    const given = [
      ...line.opts('device').map(({ opts, location }) => ({
        values: { ...Object.fromEntries(opts.entries()), ...(opts.id !== undefined && { id: opts.id }) },
        location,
      })),
      ...line.object('device').map(({ value, location }) => ({ values: value, location })),
    ];
    if (line.opts('drive').length > 0) {
      const blocks = await this.#program.blocks();
      for (const drive of blocks.virtio)
        given.push({ values: { driver: 'virtio-blk-pci', drive }, location: `-drive id=${drive}` });
    }
    for (const bus of machine.buses()) bus.hotplugging = false;
    for (const { values, location } of given) {
      await at(location, () => addDevice(machine, registry, deviceRequest(values), false));
    }
    for (const bus of machine.buses()) bus.hotplugging = true;
  }

  async #qtest(machine: Machine): Promise<void> {
    const given = this.#line.all('qtest').at(-1);
    if (given === undefined) return;
    const program = this.#program;
    const [{ QtestServer }, { QtestLog }, { machineTarget }] = await Promise.all([
      import('../qtest/server.ts'),
      import('../qtest/log.ts'),
      import('../qtest/machine-target.ts'),
    ]);
    const added = await program.chars.addCompat('qtest', given.value);
    if (added === undefined) return;
    const log = QtestLog.open(this.#line.last('qtest-log'));
    program.resources.push(new QtestServer(program.chars.claim(added.id), machineTarget(machine), log));
  }

  async #gdb(): Promise<void> {
    const given = this.#line.given.findLast(({ name }) => name === 'gdb' || name === 's');
    if (given === undefined) return;
    await at(given.location, async () => {
      const { startGdb } = await import('../gdb/start.ts');
      await startGdb(this.#program, given.name === 's' ? 'tcp::1234' : given.value);
    });
  }

  #trace(): TraceHub {
    const trace = new TraceHub();
    const { report } = this.#program;
    const globs = this.#line.opts('trace').flatMap(({ opts }) => opts.all('enable'));
    for (const glob of globs) trace.enable(glob);
    const items = (this.#line.last('d') ?? '').split(',').filter(Boolean);
    for (const item of items) {
      if (item.startsWith('trace:')) trace.enable(item.slice('trace:'.length));
      else if (item === 'guest_errors' || item === 'unimp' || item === 'int' || item === 'cpu_reset' || item === 'exec')
        trace.log(item);
      else report.warn(`-d ${item} is not an item of this program`);
    }
    if (globs.length > 0 || items.length > 0) {
      const path = this.#line.last('D');
      if (path !== undefined) writeFileSync(path, '');
      trace.addSink((event, detail) => {
        const text = `${event} ${detail}\n`;
        if (path === undefined) process.stderr.write(text);
        else writeFileSync(path, text, { flag: 'a' });
      });
    }
    return trace;
  }

  #pidfile(): void {
    const given = this.#line.all('pidfile').at(-1);
    if (given === undefined) return;
    located(given.location, () => {
      try {
        writeFileSync(given.value, `${process.pid}\n`, { mode: 0o600 });
      } catch (cause) {
        throw new OptionError(`cannot create PID file: ${cause instanceof Error ? cause.message : String(cause)}`);
      }
    });
    this.#program.resources.push({ dispose: () => rmSync(given.value, { force: true }) });
  }

  #signals(): void {
    const program = this.#program;
    for (const [signal, number] of [
      ['SIGTERM', 15],
      ['SIGINT', 2],
      ['SIGHUP', 1],
    ] as const) {
      process.on(signal, () => {
        program.report.plain(`terminating on signal ${number}`);
        program.quit('host-signal');
      });
    }
    process.on('SIGPIPE', () => undefined);
  }

  async #ready(): Promise<void> {
    if (!this.#line.has('daemonize')) return;
    const { tellParent } = await import('./daemon.ts');
    tellParent();
  }
}

/** Runs a step, and names the option behind it in the error that it may throw. */
async function at<T>(location: string | undefined, step: () => T | Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    if (error instanceof HelpWanted || error instanceof LocatedError || !(error instanceof Error)) throw error;
    throw location === undefined ? error : new LocatedError(location, error);
  }
}
