import type { Device } from '../../device/device.ts';
import type { DeviceType } from '../../device/device-type.ts';
import type { Prop } from '../../device/property.ts';
import { SouthbridgeError } from '../../errors.ts';
import { SeededRandom } from '../stand-ins.ts';
import { firstDifference, restoreAll, saveAll, subtree } from './saved.ts';
import { Socket } from './socket.ts';
import { Storm } from './storm.ts';

/** One promise that a device keeps. Run `check` in a test of that name; it rejects where the promise is broken. */
export interface ContractCheck {
  readonly name: string;
  check(): Promise<void>;
}

export interface ContractOptions {
  /** Types that may be plugged in to provide the bus that the device needs. */
  readonly hosts?: readonly DeviceType[];
  /** Properties to make it with, beside those that have to be there. */
  readonly properties?: Readonly<Record<string, unknown>>;
  /** Another seed throws other accesses. */
  readonly seed?: number;
  /** Accesses of one storm; default 250. */
  readonly accesses?: number;
}

/**
 * What every device has to do, without a word about any one: for use with any test runner, as
 * `for (const { name, check } of deviceContract(myDevice)) test(name, check)`.
 */
export function deviceContract(type: DeviceType, options: ContractOptions = {}): readonly ContractCheck[] {
  const { hosts = [], properties = {}, seed = 1, accesses = 250 } = options;
  const check = (name: string, promise: (trial: Trial) => void | Promise<void>): ContractCheck => ({
    name: `${type.type}: ${name}`,
    async check() {
      const random = new SeededRandom(seed);
      const trial = new Trial(type, properties, await Socket.make(type, hosts, random), random, accesses);
      try {
        await promise(trial);
      } finally {
        trial.socket.dispose();
      }
    },
  });
  const other = (): Promise<Socket> => Socket.make(type, hosts, new SeededRandom(seed));
  return [
    check('any offset, width and value never throws', trial => trial.survives()),
    check('reset twice equals once', trial => trial.resetsOnce()),
    check('no line stays high after reset', trial => trial.lowersLines()),
    check('save, mutate, restore equals', trial => trial.restores()),
    check('another one takes over its state', async trial => trial.isCopied(await other())),
    check('unrealize leaves nothing', trial => trial.leaves()),
    check('properties out of range are named errors', trial => trial.refuses()),
  ];
}

function broken(type: DeviceType, what: string): never {
  throw new SouthbridgeError('ERR_CONTRACT', `${type.type}: ${what}`);
}

/** One device in its socket, put to one check. */
class Trial {
  readonly type: DeviceType;
  readonly properties: Readonly<Record<string, unknown>>;
  readonly socket: Socket;
  readonly #random: SeededRandom;
  readonly #accesses: number;

  constructor(
    type: DeviceType,
    properties: Readonly<Record<string, unknown>>,
    socket: Socket,
    random: SeededRandom,
    accesses: number,
  ) {
    this.type = type;
    this.properties = properties;
    this.socket = socket;
    this.#random = random;
    this.#accesses = accesses;
  }

  async survives(): Promise<void> {
    const device = await this.#start();
    await this.#mutate(device, 4 * this.#accesses);
    this.socket.reset();
    this.socket.enable();
    await this.#mutate(device);
  }

  async resetsOnce(): Promise<void> {
    const device = await this.#start();
    await this.#mutate(device);
    this.socket.reset();
    await this.socket.settle();
    const once = saveAll(device);
    this.socket.reset();
    await this.socket.settle();
    const difference = firstDifference(once, saveAll(device));
    if (difference !== undefined) broken(this.type, `a second reset changes ${difference}`);
  }

  /** An output that idles high is as it was after power-on; all others, and all interrupts, are low. */
  async lowersLines(): Promise<void> {
    const device = await this.#start();
    const idle = linesHigh(device);
    await this.#mutate(device);
    this.socket.reset();
    await this.socket.settle();
    const high = [...this.socket.high(), ...linesHigh(device).filter(line => !idle.includes(line))];
    if (high.length > 0) broken(this.type, `after a reset ${high.join(', ')} is high`);
  }

  async restores(): Promise<void> {
    const device = await this.#start();
    await this.#mutate(device);
    const saved = saveAll(device);
    await this.#mutate(device);
    restoreAll(device, saved);
    const difference = firstDifference(saved, saveAll(device));
    if (difference !== undefined) broken(this.type, `after restoring there differs ${difference}`);
    await this.#mutate(device);
  }

  async isCopied(other: Socket): Promise<void> {
    try {
      const device = await this.#start();
      await this.#mutate(device);
      const saved = saveAll(device);
      const copy = await other.plug(this.properties);
      other.reset();
      other.machine.clocks.virtual.restore(this.socket.machine.clocks.virtual.now());
      restoreAll(copy, saved);
      const difference = firstDifference(saved, saveAll(copy));
      if (difference !== undefined) broken(this.type, `in the copy there differs ${difference}`);
    } finally {
      other.dispose();
    }
  }

  async leaves(): Promise<void> {
    const device = await this.#start();
    await this.#mutate(device);
    this.socket.clear();
    await this.socket.settle();
    const left = this.socket.leftovers();
    if (left.length > 0) broken(this.type, `once it is out, there is ${left.join('; ')}`);
    // And its backends are free again.
    await this.socket.plug(this.properties);
    this.socket.clear();
  }

  /** A value that cannot be is refused by name; any other works, or is refused by name for a reason of the device's. */
  async refuses(): Promise<void> {
    const attempt = async (values: Readonly<Record<string, unknown>>): Promise<SouthbridgeError | undefined> => {
      let device: Device | undefined;
      try {
        device = await this.socket.plug({ ...this.properties, ...values });
        return undefined;
      } catch (error) {
        if (error instanceof SouthbridgeError) return error;
        throw new SouthbridgeError(
          'ERR_CONTRACT',
          `${this.type.type} with ${shown(values)} throws ${String(error)}`,
          undefined,
          {
            cause: error,
          },
        );
      } finally {
        device?.bus.unplug(device);
      }
    };
    if ((await attempt({ 'no-such-property': '1' }))?.code !== 'ERR_PROPERTY_UNKNOWN')
      broken(this.type, 'takes a property that it has not');
    for (const [name, property] of Object.entries(this.type.properties)) {
      for (const value of wrongValues(property)) {
        const refusal = await attempt({ [name]: value });
        if (refusal === undefined) broken(this.type, `takes ${shown({ [name]: value })}`);
        if (!refusal.message.includes(name)) broken(this.type, `refuses ${name}, but says '${refusal.message}'`);
      }
      for (const value of edgeValues(property)) await attempt({ [name]: value });
    }
    this.socket.clear();
    await this.socket.settle();
    const left = this.socket.leftovers();
    if (left.length > 0) broken(this.type, `of one with unusual properties there is left ${left.join('; ')}`);
  }

  /** The device in its socket, after the power-on reset. */
  async #start(): Promise<Device> {
    const device = await this.socket.plug(this.properties);
    this.socket.reset();
    this.socket.enable();
    return device;
  }

  async #mutate(device: Device, accesses = this.#accesses): Promise<void> {
    new Storm(this.socket, device, this.#random).rage(accesses);
    await this.socket.settle();
  }
}

function linesHigh(device: Device): string[] {
  return [...subtree(device)].flatMap(each =>
    [...each.outputPins].flatMap(([list, pins]) =>
      pins.flatMap((pin, index) => (pin.level ? [`${each.typeName} ${list}[${index}] (${pin.name})`] : [])),
    ),
  );
}

const shown = (values: Readonly<Record<string, unknown>>): string =>
  Object.entries(values)
    .map(([name, value]) => `${name}=${String(value)}`)
    .join(',');

/** Bits of the integer types, and whether they have a sign. */
const INTEGERS: ReadonlyMap<string, readonly [bits: bigint, signed: boolean]> = new Map([
  ['uint8', [8n, false]],
  ['uint16', [16n, false]],
  ['uint32', [32n, false]],
  ['int32', [32n, true]],
  ['uint64', [64n, false]],
]);

/** What no property of this kind may take. */
function wrongValues(property: Prop<unknown>): unknown[] {
  const integer = INTEGERS.get(property.type);
  if (integer !== undefined && !isSpecial(property)) {
    const [bits, signed] = integer;
    return ['nonsense', 1n << (signed ? bits - 1n : bits), signed ? -(1n << (bits - 1n)) - 1n : -1n];
  }
  return ['bool', 'size', 'OnOffAuto'].includes(property.type) ? ['nonsense'] : [];
}

/** A kind of its own that only is called an integer: a PCI address. */
function isSpecial(property: Prop<unknown>): boolean {
  return property.type === 'int32' && property.format(8) !== 8;
}

/** What such a property takes as a kind, though the device may not. */
function edgeValues(property: Prop<unknown>): unknown[] {
  const integer = INTEGERS.get(property.type);
  if (integer !== undefined && !isSpecial(property)) {
    const [bits, signed] = integer;
    return [0, (1n << (signed ? bits - 1n : bits)) - 1n];
  }
  return property.type === 'bool' ? [true, false] : property.type === 'size' ? [0, 1, 2 ** 40] : [];
}
