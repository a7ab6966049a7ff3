import { SouthbridgeError } from '../../errors.ts';
import { Machine } from '../../machine/machine.ts';
import type { NicConfig } from '../../machine/machine-config.ts';
import type { MachineType } from '../../machine/machine-type.ts';
import { seededRandom } from '../../rng/xorshift.ts';
import { type CommandLine, LocatedError } from '../options/command-line.ts';
import { GROUPS } from '../options/groups.ts';
import { parseSize } from '../options/numbers.ts';
import { OptionError, parseOpts } from '../options/opts.ts';
import type { Program } from '../program.ts';
import { chooseAccelerator } from './accelerators.ts';
import { at } from './at.ts';
import { type Defaults, defaultsFor } from './defaults.ts';
import { addDevice, deviceRequest } from './devices.ts';
import { checkDisplay, vgaAdapter } from './display-options.ts';
import { instructionClock } from './icount.ts';
import { type BackendParts, machineConfig, machineRequest } from './machine-config.ts';
import { applyPolicy } from './policy.ts';
import type { Reporter } from './report.ts';
import { romImages } from './rom-images.ts';
import { Tracing } from './tracing.ts';

/** Bytes of system firmware in flash, unless `-machine max-fw-size` says otherwise. */
const MAX_FIRMWARE = 8 * 2 ** 20;

/** `-smp` with a part of 0 is taken as if the part were not given, and QEMU says so. */
function warnOfZeroes(line: CommandLine, report: Reporter): void {
  const given = line.object('smp')[0];
  if (given === undefined || Object.values(given.value).every(part => part !== '0')) return;
  report.warn('Deprecated CPU topology (considered invalid): CPU topology parameters must be greater than zero');
}

/** The order in which QEMU brings a machine up: backends, machine, devices, then the CPUs. */
export class Startup {
  readonly #program: Program;
  readonly #line: CommandLine;
  readonly #tracing: Tracing;

  constructor(program: Program) {
    this.#program = program;
    this.#line = program.line;
    this.#tracing = new Tracing(program);
  }

  async go(): Promise<void> {
    const program = this.#program;
    const line = this.#line;
    checkDisplay(line);
    warnOfZeroes(line, program.report);
    const type = await this.#machineType();
    await program.earlyObjects();
    program.accelerator = await chooseAccelerator(line, program.report, program.plugins);
    const defaults = defaultsFor(line, type);
    const parts = await this.#backends(type, defaults);
    await program.lateObjects();
    await this.#defaultMonitor(defaults);
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
    if (request.type?.endsWith('.json')) return this.#machineFile(request.type, request.location);
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

  /** `-machine ./board.json`: the type in that file. */
  async #machineFile(path: string, location: string | undefined): Promise<MachineType> {
    const { parts } = await at(location, () => this.#program.plugins.load(path));
    const [type] = parts.machines;
    if (type === undefined) throw new SouthbridgeError('ERR_MACHINE_UNKNOWN', `there is no machine type in ${path}`);
    return type;
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
    const vga = vgaAdapter(line) ?? (defaults.vga && !nographic ? type.defaults.vga : 'none');
    const drives = await this.#drives(type, defaults);
    const flash = await this.#flash(type);
    await this.#netdevs();
    await this.#audiodevs();
    await this.#folders();
    await this.#tpmdevs();
    const nics = await this.#nics(defaults);
    return { serials, parallels, drives, flash, nics, vga };
  }

  /** `-blockdev`, `-drive` and the empty drives that a machine has by default. */
  async #drives(type: MachineType, defaults: Defaults): Promise<BackendParts['drives']> {
    const line = this.#line;
    const nodes = line.object('blockdev');
    const given = line.opts('drive');
    if (nodes.length === 0 && given.length === 0 && !defaults.cdrom && !defaults.floppy) return [];
    const blocks = await this.#program.blocks();
    blocks.drives.setUnitsPerBus('ide', type.defaults.ideUnits);
    for (const { value, keyval, location } of nodes) await at(location, () => blocks.addNode(value, keyval));
    for (const { opts, location } of given) await at(location, () => blocks.addDrive(opts));
    const fallback = async (wanted: boolean, kind: 'ide' | 'floppy', index: number, text: string): Promise<void> => {
      if (wanted && blocks.drives.byIndex(kind, index) === undefined)
        await blocks.addDrive(parseOpts(GROUPS.drive, text), true);
    };
    await fallback(defaults.cdrom, 'ide', 2, 'if=ide,index=2,media=cdrom');
    await fallback(defaults.floppy, 'floppy', 0, 'if=floppy,index=0');
    return blocks.onBoard;
  }

  /** `-drive if=pflash`, `-machine pflash0=...`. */
  async #flash(type: MachineType): Promise<BackendParts['flash']> {
    if (!('pflash0' in type.options)) return [];
    const { options, location } = machineRequest(this.#line);
    const text = (name: string): string | undefined => {
      const value = options[name];
      return typeof value === 'string' ? value : undefined;
    };
    const named = [text('pflash0'), text('pflash1')];
    const wanted = this.#line.opts('drive').some(({ opts }) => opts.string('if') === 'pflash');
    if (!wanted && named.every(node => node === undefined)) return [];
    const blocks = await this.#program.blocks();
    const limit = Number(parseSize(text('max-fw-size') ?? '') ?? MAX_FIRMWARE);
    return at(location, () => blocks.flash(named, limit));
  }

  async #audiodevs(): Promise<void> {
    const backends = this.#line.object('audiodev');
    const cards = this.#line.object('audio');
    if (backends.length === 0 && cards.length === 0) return;
    const { addAudiodev } = await import('./audiodevs.ts');
    for (const { value, location } of backends) await at(location, () => addAudiodev(this.#program, value));
    if (cards.length === 0) return;
    const { audioBackend } = await import('./audio-option.ts');
    for (const { value, location } of cards) await at(location, () => addAudiodev(this.#program, audioBackend(value)));
    if (cards[1] !== undefined)
      throw new LocatedError(cards[1].location, new OptionError('only one -audio option is allowed'));
  }

  /** `-fsdev`, and the backend's half of `-virtfs`. */
  async #folders(): Promise<void> {
    const given = [...this.#line.opts('fsdev'), ...this.#line.opts('virtfs')];
    if (given.length === 0) return;
    const { addFolder } = await import('./fsdevs.ts');
    for (const { opts, location } of given) await at(location, () => addFolder(this.#program, opts));
  }

  async #tpmdevs(): Promise<void> {
    const given = this.#line.opts('tpmdev');
    if (given.length === 0) return;
    const { addTpmdev } = await import('./tpmdevs.ts');
    for (const { opts, location } of given) await at(location, () => addTpmdev(this.#program, opts));
  }

  /** `-netdev`, in each of its syntaxes. */
  async #netdevs(): Promise<void> {
    const objects = this.#line.object('netdev');
    const given = this.#line.opts('netdev');
    if (objects.length === 0 && given.length === 0) return;
    const nets = await this.#program.nets();
    for (const { opts, location } of given) await at(location, () => nets.addOpts(opts));
    for (const { value, keyval, location } of objects) await at(location, () => nets.addObject(value, keyval));
  }

  /** `-nic` and `-net`, or the card that a machine has by default. */
  async #nics(defaults: Defaults): Promise<BackendParts['nics']> {
    const nic = this.#line.opts('nic');
    const net = this.#line.opts('net');
    if (nic.length === 0 && net.length === 0 && !defaults.net) return [];
    const nets = await this.#program.nets();
    const cards: NicConfig[] = [];
    for (const { opts, location } of nic) cards.push(...(await at(location, () => nets.addNic(opts))));
    for (const { opts, location } of net) cards.push(...(await at(location, () => nets.addLegacy(opts))));
    if (defaults.net) cards.push(...(await nets.addDefault()));
    return Promise.all(cards.map(card => this.#withType(card)));
  }

  /** @throws SouthbridgeError ERR_NIC_MODEL with QEMU's text */
  async #withType(card: NicConfig): Promise<NicConfig> {
    if (card.model === undefined) return card;
    const model = card.model === 'virtio' ? 'virtio-net-pci' : card.model;
    const { registry } = this.#program;
    await registry.load(model);
    const type = registry.device(model);
    if (type === undefined || type.bus !== 'PCI' || !('netdev' in type.properties)) {
      throw new SouthbridgeError('ERR_NIC_MODEL', `Unsupported NIC model: ${model}`, '-nic model=help lists them');
    }
    return { ...card, type };
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

  /** The monitor that a machine has by default; without a screen nobody sees it, unless it is on the terminal. */
  async #defaultMonitor(defaults: Defaults): Promise<void> {
    const program = this.#program;
    const nographic = this.#line.has('nographic');
    if (!defaults.monitor || (nographic && defaults.serial)) return;
    const added = await program.chars.addCompat('compat_monitor0', nographic ? 'stdio' : 'vc');
    if (added !== undefined && nographic) await program.addHmp(added.id);
  }

  #machine(type: MachineType, parts: BackendParts): Machine {
    const program = this.#program;
    const line = this.#line;
    const request = machineRequest(line);
    const config = machineConfig(line, type, parts);
    const { accelerator, options } = program.accelerator;
    const kernelIrqchip =
      options?.string('kernel-irqchip') ?? request.options['kernel-irqchip'] ?? request.options['kernel_irqchip'];
    const icount = instructionClock(line, accelerator);
    return new Machine({
      type,
      config,
      accelerator,
      backends: program.backends,
      trace: this.#tracing.hub,
      romImage: romImages(line.all('L').map(({ value }) => value)),
      ...(kernelIrqchip !== undefined && { kernelIrqchip: kernelIrqchip !== 'off' }),
      ...(icount !== undefined && { icount }),
      ...this.#seeded(),
    });
  }

  /** `-seed`: what devices draw by chance repeats. */
  #seeded(): { random?: () => number } {
    const given = this.#line.all('seed').at(-1);
    if (given === undefined) return {};
    const seed = parseSize(given.value);
    if (seed === undefined)
      throw new LocatedError(given.location, new OptionError(`Invalid seed number: ${given.value}`));
    return { random: seededRandom(Number(BigInt(seed) % 0x1_0000_0000n)) };
  }

  async #build(machine: Machine): Promise<void> {
    const program = this.#program;
    const line = this.#line;
    machine.build();
    for (const warning of machine.warnings) program.report.warn(warning);
    applyPolicy(line, machine);
    await this.#devices(machine);
    machine.resetDevices();
    await (await program.displays()).open();
    this.#tracing.built(machine);
    if (this.#tracing.wantsList) {
      process.stdout.write(
        machine.trace
          .events()
          .map(({ name }) => `${name}\n`)
          .join(''),
      );
      program.exit(0);
      return;
    }
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
    const own = perNode
      ? config.numa.flatMap(option => (option.type === 'node' && option.memdev !== undefined ? [option.memdev] : []))
      : config.ramSize > 0
        ? [typeof given === 'string' ? given : type.defaultRamId]
        : [];
    for (const id of own) objects.memory(id).claim();
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
    for (const { opts, location } of line.opts('virtfs')) {
      const { sharedFolder } = await import('./fsdevs.ts');
      given.push({ values: sharedFolder(opts), location });
    }
    for (const { value, location } of line.all('debugcon')) {
      const added = await at(location, () => this.#program.chars.addCompat('debugcon', value));
      if (added !== undefined) given.push({ values: { driver: 'isa-debugcon', chardev: added.id }, location });
      if (added?.monitor) await this.#program.addHmp(added.id);
    }
    if (line.opts('drive').length > 0) {
      const blocks = await this.#program.blocks();
      for (const drive of blocks.virtio)
        given.push({ values: { driver: 'virtio-blk-pci', drive }, location: `-drive id=${drive}` });
    }
    for (const bus of machine.buses()) bus.hotplugging = false;
    for (const { value, location } of line.all('usbdevice')) {
      const { addUsbDevice } = await import('./usb-device.ts');
      await at(location, () => addUsbDevice(machine, registry, value));
    }
    for (const { value, location } of line.object('audio')) {
      const { addSoundCard } = await import('./audio-option.ts');
      await at(location, () => addSoundCard(machine, registry, value));
    }
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

  async #ready(): Promise<void> {
    if (!this.#line.has('daemonize')) return;
    const { tellParent } = await import('./daemon.ts');
    tellParent();
  }
}
