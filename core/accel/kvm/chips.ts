import { isSystemError } from '../../host/native.ts';
import * as abi from './abi.ts';
import type { NativeVm } from './addon.ts';

/** KVM_IRQCHIP_PIC_MASTER, _PIC_SLAVE and _IOAPIC (KVM API, section 4.26). */
const CHIPS = [0, 1, 2] as const;
const CHIP_SIZE = 520;
const PIT_SIZE = 112;
const CLOCK_SIZE = 48;
const CLOCK_FLAGS = 8;

/** The state of the VM's own chips, each in the kernel's layout; empty where the kernel has none. */
export interface ChipState {
  readonly irqchips: Uint8Array;
  readonly pit: Uint8Array;
}

/** The interrupt controllers and the timer inside the kernel, and the clock that it gives to guests. */
export class KernelChips {
  readonly #native: NativeVm;
  readonly #irqchip: boolean;
  readonly #pit: boolean;
  readonly #powerOn: ChipState;
  #stoppedClock: Uint8Array | undefined;

  constructor(native: NativeVm, irqchip: boolean, pit: boolean) {
    this.#native = native;
    this.#irqchip = irqchip;
    this.#pit = pit;
    this.#powerOn = this.read();
  }

  reset(): void {
    this.write(this.#powerOn);
  }

  read(): ChipState {
    const irqchips = new Uint8Array(this.#irqchip ? CHIPS.length * CHIP_SIZE : 0);
    const pit = new Uint8Array(this.#pit ? PIT_SIZE : 0);
    if (this.#irqchip) {
      for (const chip of CHIPS) {
        const state = irqchips.subarray(chip * CHIP_SIZE, (chip + 1) * CHIP_SIZE);
        state[0] = chip;
        this.#native.ioctl(abi.KVM_GET_IRQCHIP, state);
      }
    }
    if (this.#pit) this.#native.ioctl(abi.KVM_GET_PIT2, pit);
    return { irqchips, pit };
  }

  write(state: ChipState): void {
    if (this.#irqchip) {
      for (const chip of CHIPS) {
        this.#native.ioctl(abi.KVM_SET_IRQCHIP, state.irqchips.subarray(chip * CHIP_SIZE, (chip + 1) * CHIP_SIZE));
      }
    }
    if (this.#pit) this.#native.ioctl(abi.KVM_SET_PIT2, state.pit);
  }

  readClock(): Uint8Array {
    const clock = new Uint8Array(CLOCK_SIZE);
    this.#native.ioctl(abi.KVM_GET_CLOCK, clock);
    return clock;
  }

  writeClock(clock: Uint8Array): void {
    const value = Uint8Array.from(clock);
    new DataView(value.buffer).setUint32(CLOCK_FLAGS, 0, true);
    this.#native.ioctl(abi.KVM_SET_CLOCK, value);
  }

  /** kvmclock stands still while the VM does. */
  stopClock(): void {
    this.#stoppedClock ??= this.readClock();
  }

  startClock(): void {
    if (this.#stoppedClock !== undefined) this.writeClock(this.#stoppedClock);
    this.#stoppedClock = undefined;
  }

  /** The clock as a snapshot sees it. */
  get savedClock(): Uint8Array {
    return this.#stoppedClock ?? this.readClock();
  }

  restoreClock(clock: Uint8Array): void {
    this.writeClock(clock);
    this.#stoppedClock = clock;
  }
}

/** Runs `action`, and does not mind where the kernel finds that it does not apply. */
export function ignoringSystemErrors(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!isSystemError(error)) throw error;
  }
}
