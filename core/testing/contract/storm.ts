import type { Device } from '../../device/device.ts';
import type { FlatRange } from '../../memory/flat-view.ts';
import { PciDevice } from '../../pci/pci-device.ts';
import type { SeededRandom } from '../stand-ins.ts';
import { subtree } from './saved.ts';
import type { Socket } from './socket.ts';

const SIZES = [1, 2, 4] as const;
const CONFIG_SIZES = SIZES;
/** Values that find mistakes: limits, single bits, addresses within RAM and at its end. */
const VALUES = [0, 1, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1000, 0x8_0000, 0xf_fff0];
const ACCESSES_BETWEEN_STEPS = 16;
const LONGEST_STEP_NS = 200_000;

/** Throws accesses at a device, any offset, width and value, with time passing in between. */
export class Storm {
  readonly #socket: Socket;
  readonly #device: Device;
  readonly #random: SeededRandom;

  constructor(socket: Socket, device: Device, random: SeededRandom) {
    this.#socket = socket;
    this.#device = device;
    this.#random = random;
  }

  /** @throws an error that names the access which threw */
  rage(accesses: number): void {
    for (let count = 1; count <= accesses; count++) {
      this.#access();
      if (count % ACCESSES_BETWEEN_STEPS === 0) this.#step();
    }
  }

  #step(): void {
    const deltaNs = this.#random.below(LONGEST_STEP_NS);
    this.#guard(`${deltaNs} ns passing`, () => this.#socket.advance(deltaNs));
    this.#socket.enable();
  }

  #access(): void {
    const { io, memory } = this.#socket.reachable();
    const kind = this.#random.below(8);
    if (kind === 0 && this.#device instanceof PciDevice) this.#configAccess(this.#device);
    else if (kind <= 2 || io.length + memory.length === 0) this.#bankAccess();
    else {
      const range = this.#random.pick([...io, ...memory]);
      if (range !== undefined) this.#rangeAccess(range, io.includes(range));
    }
  }

  #rangeAccess(range: FlatRange, io: boolean): void {
    const size = this.#size();
    const address = range.start + this.#offset(range.end - range.start, size);
    const space = io ? this.#socket.machine.ports : this.#socket.machine.memory;
    const where = `${io ? 'port' : 'address'} 0x${address.toString(16)} ('${range.region.name}')`;
    this.#readOrWrite(
      where,
      size,
      () => space.read(address, size),
      value => space.write(address, size, value),
    );
  }

  #configAccess(device: PciDevice): void {
    const size = this.#random.pick(CONFIG_SIZES) ?? 4;
    const offset = this.#random.below(device.config.size / size) * size;
    this.#readOrWrite(
      `configuration register 0x${offset.toString(16)}`,
      size,
      () => device.configRead(offset, size),
      value => device.configWrite(offset, size, value),
    );
  }

  /** Registers of the device and of what is below it, wherever they may be mapped. */
  #bankAccess(): void {
    const bank = this.#random.pick([...subtree(this.#device)].flatMap(device => device.banks));
    if (bank === undefined) return;
    const size = this.#size();
    const offset = this.#offset(bank.map.size + 8, size);
    this.#readOrWrite(
      `${bank.map.name} offset 0x${offset.toString(16)}`,
      size,
      () => bank.read(offset, size),
      value => bank.write(offset, size, value),
    );
  }

  #readOrWrite(where: string, size: number, read: () => number, write: (value: number) => void): void {
    if (this.#random.below(3) === 0) {
      this.#guard(`a read of ${size} at ${where}`, () => checkValue(read(), size));
    } else {
      const value = ((this.#random.below(2) === 0 ? this.#random.pick(VALUES) : this.#random.word()) ?? 0) >>> 0;
      const cut = size === 4 ? value : value & (2 ** (8 * size) - 1);
      this.#guard(`a write of 0x${cut.toString(16)}, ${size} bytes, at ${where}`, () => write(cut));
    }
  }

  #size(): 1 | 2 | 4 {
    return this.#random.pick(SIZES) ?? 4;
  }

  /** Mostly low and aligned, where most registers are. */
  #offset(length: number, size: number): number {
    const within = this.#random.below(4) === 0 ? length : Math.min(length, 256);
    const offset = this.#random.below(within);
    return this.#random.below(4) === 0 ? offset : offset - (offset % size);
  }

  #guard(what: string, action: () => void): void {
    try {
      action();
    } catch (error) {
      throw new Error(`${what} throws ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`, {
        cause: error,
      });
    }
  }
}

function checkValue(value: number, size: number): void {
  if (Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size)) return;
  throw new Error(`nothing but gives ${value}, which is no unsigned number of ${size} bytes`);
}
