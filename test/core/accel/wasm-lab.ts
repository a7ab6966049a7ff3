import type { DeadlineSource, GuestBus, VmOptions, VmStop } from '../../../core/accel/accelerator.ts';
import { wasm } from '../../../core/accel/wasm/accelerator.ts';
import { WasmVm } from '../../../core/accel/wasm/vm.ts';
import { type GuestRam, SharedRam } from '../../../core/memory/guest-ram.ts';

export interface Access {
  readonly kind: 'in' | 'out' | 'read' | 'write';
  readonly address: number;
  readonly size: number;
  readonly value: number;
}

/** A bus that answers from `reads` and writes down what it saw. */
export class RecordingBus implements GuestBus {
  readonly accesses: Access[] = [];
  readonly reads = new Map<number, number>();
  onAccess: (access: Access) => void = () => {};

  portRead(port: number, size: number): number {
    return this.#note({ kind: 'in', address: port, size, value: this.reads.get(port) ?? 0 });
  }
  portWrite(port: number, size: number, value: number): void {
    this.#note({ kind: 'out', address: port, size, value });
  }
  /** What is at the top of 4 GiB. */
  rom: Uint8Array = new Uint8Array(0);

  memoryRead(address: number, size: number): number {
    const inRom = address - (2 ** 32 - this.rom.length);
    if (inRom >= 0) return Buffer.from(this.rom).readUIntLE(inRom, size);
    return this.#note({ kind: 'read', address, size, value: this.reads.get(address) ?? 0 });
  }
  memoryWrite(address: number, size: number, value: number): void {
    this.#note({ kind: 'write', address, size, value });
  }
  #note(access: Access): number {
    this.accesses.push(access);
    this.onAccess(access);
    return access.value;
  }
}

export const noTimers: DeadlineSource = { untilDeadline: () => Number.POSITIVE_INFINITY, expire() {}, onDeadline() {} };

/** Where the lab's guest code is. */
export const CODE = 0x1000;
export const RAM_SIZE = 2 ** 21;

export interface Lab {
  readonly vm: WasmVm;
  readonly bus: RecordingBus;
  readonly ram: GuestRam;
  readonly rom: SharedRam;
  /** Resolves with the guest's next stop. */
  readonly stopped: Promise<VmStop>;
  /** Resolves once the guest has done `count` accesses that `match`. */
  seen(match: (access: Access) => boolean, count?: number): Promise<Access>;
}

/** A guest of 2 MiB whose ROM, at the top of 4 GiB and below 1 MiB, jumps to `code` at 0000:1000 in real mode. */
export function lab(code: readonly number[], options: Partial<VmOptions> = {}): Lab {
  const bus = new RecordingBus();
  let resolve: (stop: VmStop) => void = () => {};
  const stopped = new Promise<VmStop>(done => {
    resolve = done;
  });
  const vm = wasm.createVm({
    bus,
    clock: noTimers,
    cpus: 1,
    irqchip: true,
    lowRam: RAM_SIZE,
    stopped: stop => resolve(stop),
    ...options,
  });
  const ram = vm.allocateRam?.('ram', RAM_SIZE);
  if (!(vm instanceof WasmVm) || ram === undefined) throw new Error('the accelerator gave no RAM');
  const rom = new SharedRam('rom', 0x1_0000, { readonly: true });
  bus.rom = rom.bytes;
  ram.bytes.set(code, CODE);
  rom.bytes.set([0xea, CODE & 0xff, CODE >> 8, 0, 0], 0xfff0);
  vm.mapRam(0, ram, 0, 0xa_0000, false);
  vm.mapRam(0xf_0000, rom, 0, rom.size, true);
  vm.mapRam(0x10_0000, ram, 0x10_0000, RAM_SIZE - 0x10_0000, false);
  vm.mapRam(0xffff_0000, rom, 0, rom.size, true);
  const seen = (match: (access: Access) => boolean, count = 1): Promise<Access> =>
    new Promise(done => {
      bus.onAccess = access => {
        if (match(access) && --count === 0) done(access);
      };
    });
  return { vm, bus, ram, rom, stopped, seen };
}
