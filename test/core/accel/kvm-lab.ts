import { existsSync } from 'node:fs';
import type {
  DeadlineSource,
  GuestBus,
  InterruptSource,
  Vm,
  VmOptions,
  VmStop,
} from '../../../core/accel/accelerator.ts';
import { kvm } from '../../../core/accel/kvm/accelerator.ts';
import { SharedRam } from '../../../core/memory/guest-ram.ts';

/** Why KVM cannot be tested here, or false: tap's `skip`. */
export const noKvm: string | false = existsSync('/dev/kvm') ? false : 'this host has no /dev/kvm';

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
  memoryRead(address: number, size: number): number {
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

export interface Lab {
  readonly vm: Vm;
  readonly bus: RecordingBus;
  readonly ram: SharedRam;
  /** Resolves with the guest's next stop. */
  readonly stopped: Promise<VmStop>;
  /** The same for the stop after that. */
  nextStop(): Promise<VmStop>;
  /** Resolves once the guest has done `count` accesses that `match`. */
  seen(match: (access: Access) => boolean, count?: number): Promise<Access>;
}

/** A guest of 1 MiB whose reset vector jumps to `code` at 0000:1000 in real mode. */
export function lab(code: readonly number[], options: Partial<VmOptions> & { interrupts?: InterruptSource } = {}): Lab {
  const bus = new RecordingBus();
  const ram = new SharedRam('ram', 0x10_0000);
  const rom = new SharedRam('rom', 0x1_0000, { readonly: true });
  ram.bytes.set(code, CODE);
  rom.bytes.set([0xea, CODE & 0xff, CODE >> 8, 0, 0], 0xfff0);
  let resolve: (stop: VmStop) => void = () => {};
  const nextStop = (): Promise<VmStop> =>
    new Promise(done => {
      resolve = done;
    });
  const stopped = nextStop();
  const vm = kvm.createVm({
    bus,
    clock: noTimers,
    cpus: 1,
    irqchip: true,
    lowRam: ram.size,
    stopped: stop => resolve(stop),
    ...options,
  });
  vm.mapRam(0, ram, 0, 0xf_0000, false);
  vm.mapRam(0xf_0000, rom, 0, rom.size, true);
  vm.mapRam(0xffff_0000, rom, 0, rom.size, true);
  const seen = (match: (access: Access) => boolean, count = 1): Promise<Access> =>
    new Promise(done => {
      bus.onAccess = access => {
        if (match(access) && --count === 0) done(access);
      };
    });
  return { vm, bus, ram, stopped, nextStop, seen };
}

export const CODE = 0x1000;

/** Matches accesses to one port or address. */
export const at =
  (address: number) =>
  (access: Access): boolean =>
    access.address === address;

/** Points a real-mode interrupt vector at 0000:`offset`. */
export function setVector(ram: SharedRam, vector: number, offset: number): void {
  ram.view.setUint16(4 * vector, offset, true);
  ram.view.setUint16(4 * vector + 2, 0, true);
}
