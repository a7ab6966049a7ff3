import { readFileSync } from 'node:fs';
import type { Accelerator } from '../../accel/accelerator.ts';
import type { Device } from '../../device/device.ts';
import type { DeviceType } from '../../device/device-type.ts';
import type { BackendLookup } from '../../device/property.ts';
import type { TypeRegistry } from '../../device/registry.ts';
import { SouthbridgeError } from '../../errors.ts';
import { bootDirectly } from '../../loader/boot.ts';
import { E820 } from '../../loader/image.ts';
import { loadKernel } from '../../loader/kernel.ts';
import { Machine } from '../../machine/machine.ts';
import { DEFAULT_CONFIG, type MachineConfig } from '../../machine/machine-config.ts';
import type { MachineType } from '../../machine/machine-type.ts';
import { MachineLoader, saveMachine } from '../../state/snapshot.ts';
import { SeededRandom } from '../stand-ins.ts';
import { ScriptedConsole } from './console.ts';
import { type InputLog, InputPlayer } from './inputs.ts';

const MIB = 2 ** 20;
const TIMEOUT_MS = 60_000;
const BLANK_ROM = 0x1_0000;
const CONSOLE = 'console';
/** Time of day at the start of a deterministic run, milliseconds since 1970. */
const FIXED_START = Date.UTC(2020, 0, 1);

/** A device to plug in beside the machine's own. */
export interface GuestDevice {
  readonly driver: string | DeviceType;
  readonly id?: string;
  /** A bus by name; the first that fits where absent. */
  readonly bus?: string;
  readonly properties?: Readonly<Record<string, unknown>>;
}

export interface GuestOptions {
  /** A machine type, or its name in `registry`. */
  readonly machine: string | MachineType;
  /** Default: `wasm`, which runs everywhere. */
  readonly accelerator?: string | Accelerator;
  /** Where names of types are looked up: `builtInTypes()`. */
  readonly registry?: TypeRegistry;
  /** Bytes; default 64 MiB. */
  readonly memory?: number;
  /** A file, or its contents: ELF, multiboot or Linux. */
  readonly kernel?: string | Uint8Array;
  readonly initrd?: string;
  /** The kernel's command line. */
  readonly append?: string;
  /** `direct`: the kernel is put into memory and entered, without firmware. Default: `direct` where the kernel is an ELF file. */
  readonly boot?: 'direct' | 'firmware';
  readonly devices?: readonly GuestDevice[];
  /** For what is not the console. */
  readonly backends?: BackendLookup;
  /** Anything else of the machine's configuration. */
  readonly config?: Partial<MachineConfig>;
  /** Virtual time counts instructions, chance is seeded and input is logged: a run can be repeated bit for bit. */
  readonly deterministic?: boolean;
  /** Host time that {@link Guest.expect} waits by default; 60 seconds. */
  readonly timeoutMs?: number;
}

/** The state of a guest at one moment: memory, devices, CPU, and how far its console was read. */
export interface GuestSnapshot {
  readonly state: Buffer;
  readonly console: ScriptedConsole['mark'];
  readonly timeNs: number;
  readonly inputs: number;
}

/** A machine with guest software in the hands of a test. Dispose of it. */
export class Guest {
  readonly machine: Machine;
  readonly console: ScriptedConsole;
  /** The guest's exit status, once it has shut down. */
  readonly exited: Promise<number>;
  readonly #options: GuestOptions;
  readonly #inputs: InputPlayer;

  private constructor(machine: Machine, console: ScriptedConsole, options: GuestOptions) {
    this.machine = machine;
    this.console = console;
    this.#options = options;
    this.#inputs = new InputPlayer(machine.clocks.virtual, console, options.deterministic ?? false);
    this.exited = new Promise(resolve => machine.power.onFinished(resolve));
  }

  /** Makes the machine with the kernel in place; it does not run yet. @throws whatever cannot be made, by name */
  static async make(options: GuestOptions): Promise<Guest> {
    const console = new ScriptedConsole(CONSOLE);
    await console.open();
    const direct = (options.boot ?? (isElf(options) ? 'direct' : 'firmware')) === 'direct';
    const machine = await makeMachine(options, console, direct);
    try {
      for (const device of options.devices ?? []) await plug(machine, device, options.registry);
      if (direct) bootKernel(machine, options);
      machine.resetDevices();
    } catch (error) {
      machine.dispose();
      throw error;
    }
    return new Guest(machine, console, options);
  }

  /** Makes the machine and lets it run. */
  static async boot(options: GuestOptions): Promise<Guest> {
    const guest = await Guest.make(options);
    guest.resume();
    return guest;
  }

  resume(): void {
    this.machine.start();
  }

  pause(): void {
    this.machine.stop();
  }

  /** What was typed so far and when, for {@link Guest.replay}. */
  get inputs(): InputLog {
    return this.#inputs.log;
  }

  /** Virtual time, nanoseconds. */
  get timeNs(): number {
    return this.machine.clocks.virtual.now();
  }

  /** Types into the console. */
  type(text: string): void {
    this.#inputs.type(text);
  }

  /** The console's inputs of another run come again, each at its own virtual time. */
  replay(log: InputLog): void {
    this.#inputs.replay(log);
  }

  /** Waits for the console to say something new; see {@link ScriptedConsole.expect}. */
  expect(
    pattern: RegExp | string,
    timeoutMs: number = this.#options.timeoutMs ?? TIMEOUT_MS,
  ): Promise<RegExpExecArray> {
    return this.console.expect(pattern, timeoutMs);
  }

  /** A device by id or path, for assertions on its state. @throws SouthbridgeError ERR_GUEST_DEVICE */
  device(idOrPath: string): Device {
    const device = this.machine.findDevice(idOrPath);
    if (device !== undefined) return device;
    throw new SouthbridgeError('ERR_GUEST_DEVICE', `the machine has no device '${idOrPath}'`, "give it an 'id'");
  }

  /** The whole state. The guest is stopped while it is taken, and then as before. */
  snapshot(): GuestSnapshot {
    const running = this.machine.power.running;
    if (running) this.pause();
    const state = Buffer.concat([...saveMachine(this.machine)]);
    const snapshot = { state, console: this.console.mark, timeNs: this.timeNs, inputs: this.inputs.length };
    if (running) this.resume();
    return snapshot;
  }

  /** Puts a snapshot of this machine, or one of its make, back. The guest is stopped then. */
  restore(snapshot: GuestSnapshot): void {
    this.pause();
    this.#inputs.rewind(snapshot.inputs);
    const loader = new MachineLoader(this.machine);
    loader.feed(snapshot.state);
    loader.end();
    this.console.rewind(snapshot.console);
  }

  dispose(): void {
    this.#inputs.dispose();
    this.machine.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

const kernelBytes = (kernel: string | Uint8Array): Uint8Array =>
  typeof kernel === 'string' ? readFileSync(kernel) : kernel;

function isElf({ kernel }: GuestOptions): boolean {
  return (
    kernel !== undefined && Buffer.from(kernelBytes(kernel).subarray(0, 4)).equals(Buffer.from('\x7fELF', 'latin1'))
  );
}

async function makeMachine(options: GuestOptions, console: ScriptedConsole, direct: boolean): Promise<Machine> {
  const { deterministic = false, memory = 64 * MIB, backends } = options;
  const type = await machineNamed(options);
  const accelerator = await acceleratorNamed(options.accelerator ?? 'wasm');
  accelerator.probe();
  const { romImages } = await import('../../control/startup/rom-images.ts');
  const random = new SeededRandom(1);
  if (!direct && typeof options.kernel === 'object')
    throw new SouthbridgeError('ERR_GUEST_KERNEL', 'firmware loads a kernel from a file', 'give its path');
  const config: MachineConfig = {
    ...DEFAULT_CONFIG,
    ramSize: memory,
    maxRamSize: memory,
    serials: [CONSOLE],
    ...('console' in type.options && { options: { console: CONSOLE } }),
    ...(!direct && {
      kernel: options.kernel as string | undefined,
      initrd: options.initrd,
      append: options.append,
    }),
    ...(deterministic && { rtc: { base: FIXED_START, clock: 'vm', driftfix: 'none' } as const }),
    ...options.config,
  };
  return new Machine({
    type,
    config,
    accelerator,
    romImage: direct ? () => new Uint8Array(BLANK_ROM) : romImages([]),
    backends: {
      find(kind, id) {
        if (kind === 'chardev' && id === CONSOLE) return console;
        if (backends !== undefined) return backends.find(kind, id);
        throw new SouthbridgeError('ERR_BACKEND', `there is no ${kind} '${id}'`, 'give the guest `backends`');
      },
    },
    ...(deterministic && {
      icount: { shift: 0, sleep: false },
      random: () => random.below(0x1_0000) / 0x1_0000,
    }),
  }).build();
}

async function machineNamed({ machine, registry }: GuestOptions): Promise<MachineType> {
  if (typeof machine !== 'string') return machine;
  if (registry !== undefined) return registry.requireMachine(machine);
  throw new SouthbridgeError(
    'ERR_GUEST_MACHINE',
    `nobody knows a machine '${machine}'`,
    'give `registry: builtInTypes()`, or the type',
  );
}

async function acceleratorNamed(accelerator: string | Accelerator): Promise<Accelerator> {
  if (typeof accelerator !== 'string') return accelerator;
  const { acceleratorNamed: find } = await import('../../control/startup/accelerators.ts');
  return find(accelerator);
}

async function plug(machine: Machine, device: GuestDevice, registry: TypeRegistry | undefined): Promise<void> {
  const { driver, id, bus: wanted, properties = {} } = device;
  const type = typeof driver === 'string' ? await registry?.requireDevice(driver) : driver;
  if (type === undefined)
    throw new SouthbridgeError(
      'ERR_GUEST_DEVICE',
      `nobody knows a device '${String(driver)}'`,
      'give `registry`, or the type',
    );
  const candidates = wanted === undefined ? [...machine.buses()] : [machine.findBus(wanted)];
  const bus = candidates.find(each => each?.accepts(type) && !each.full);
  if (bus === undefined)
    throw new SouthbridgeError('ERR_GUEST_DEVICE', `no bus takes '${type.type}'`, `it needs ${type.bus}`);
  bus.plug(type, {}, properties, id);
}

function bootKernel(machine: Machine, options: GuestOptions): void {
  const { kernel, append, initrd } = options;
  if (kernel === undefined) return;
  const memory = [
    { address: 0, size: 0xa_0000, type: E820.RAM },
    { address: MIB, size: machine.config.ramSize - MIB, type: E820.RAM },
  ];
  const image = loadKernel(kernelBytes(kernel), {
    memory,
    ...(append !== undefined && { commandLine: append }),
    ...(initrd !== undefined && { initrd: readFileSync(initrd) }),
  });
  bootDirectly(machine, image);
}
