import { deviceType } from '../core/device/device-type.ts';
import { PciDevice } from '../core/pci/pci-device.ts';
import { field } from '../core/state/fields.ts';

/** Section numbers are those of Intel's 6300ESB I/O Controller Hub datasheet (300641), chapter 16, "Watchdog Timer". */

/** 16.4.15: WDT Configuration, in configuration space. */
const CONFIG = 0x60;
const CONFIG_REBOOT_DISABLED = 1 << 5;
const CONFIG_FAST = 1 << 2;
const CONFIG_INTERRUPT = 0x03;
/** 16.4.16: WDT Lock. */
const LOCK = 0x68;
const LOCK_LOCKED = 1 << 0;
const LOCK_ENABLE = 1 << 1;
const LOCK_FREE_RUN = 1 << 2;

/** 16.5: memory-mapped registers. */
const PRELOAD1 = 0x00;
const PRELOAD2 = 0x04;
const RELOAD = 0x0c;
const RELOAD_WDT_RELOAD = 1 << 8;
const RELOAD_WDT_TIMEOUT = 1 << 9;
/** Linux's driver takes bit 12 for the timeout flag, so both say it. */
const RELOAD_TIMEOUT_FOR_LINUX = 1 << 12;
const PRELOAD_MASK = 0xf_ffff;
const BAR_SIZE = 16;

/** 16.5.4: two writes in a row let one write to a preload or reload register through. */
const UNLOCK = [0x80, 0x86] as const;
const UNLOCKED = UNLOCK.length;

/** One PCI clock, and the prescalers of the 1 kHz and 1 MHz rates. */
const PCI_CLOCK_NS = 30;
const SLOW_SHIFT = 15;
const FAST_SHIFT = 5;

/** A watchdog in two stages: the first would interrupt, the second resets. */
class I6300Esb extends PciDevice {
  readonly #state = this.state(1, {
    config: field.u8(),
    lock: field.u8(),
    preload1: field.u32(PRELOAD_MASK),
    preload2: field.u32(PRELOAD_MASK),
    stage: field.u8(1),
    unlockStep: field.u8(),
  });
  /** Survives the reset that the watchdog itself brought about. */
  readonly #history = this.state(1, { timedOut: field.bool() }, { name: 'history', onReset: 'keep' });
  readonly #watchdog = this.clock.timer('watchdog', () => this.#expire());

  protected override realize(): void {
    this.bar(0, {
      read: (offset, size) =>
        offset === RELOAD && size === 2 && this.#history.timedOut ? RELOAD_WDT_TIMEOUT | RELOAD_TIMEOUT_FOR_LINUX : 0,
      write: (offset, size, value) => this.#write(offset, size, value),
    });
  }

  override configRead(offset: number, size: number): number {
    if (offset === CONFIG && size === 2) return this.#state.config;
    if (offset === LOCK && size === 1) return this.#state.lock;
    return super.configRead(offset, size);
  }

  override configWrite(offset: number, size: number, value: number): void {
    if (offset === CONFIG && size === 2)
      this.#state.config = value & (CONFIG_REBOOT_DISABLED | CONFIG_FAST | CONFIG_INTERRUPT);
    else if (offset === LOCK && size === 1) this.#writeLock(value);
    else super.configWrite(offset, size, value);
  }

  #writeLock(value: number): void {
    const { lock } = this.#state;
    if ((lock & LOCK_LOCKED) !== 0) return;
    this.#state.lock = value & (LOCK_LOCKED | LOCK_ENABLE | LOCK_FREE_RUN);
    if ((value & LOCK_ENABLE) === 0) this.#watchdog.cancel();
    else if ((lock & LOCK_ENABLE) === 0) this.#restart(1);
  }

  #write(offset: number, size: number, value: number): void {
    const state = this.#state;
    if (offset === RELOAD && value === UNLOCK[0]) {
      state.unlockStep = 1;
    } else if (offset === RELOAD && value === UNLOCK[1] && state.unlockStep === 1) {
      state.unlockStep = UNLOCKED;
    } else if (state.unlockStep === UNLOCKED && size > 1) {
      state.unlockStep = 0;
      if (size === 2 && offset === RELOAD) this.#reload(value);
      if (size === 4 && offset === PRELOAD1) state.preload1 = value & PRELOAD_MASK;
      if (size === 4 && offset === PRELOAD2) state.preload2 = value & PRELOAD_MASK;
    }
  }

  #reload(value: number): void {
    if ((value & RELOAD_WDT_RELOAD) !== 0) this.#restart(1);
    if ((value & (RELOAD_WDT_TIMEOUT | RELOAD_TIMEOUT_FOR_LINUX)) !== 0) this.#history.timedOut = false;
  }

  #restart(stage: 1 | 2): void {
    const state = this.#state;
    if ((state.lock & LOCK_ENABLE) === 0) return;
    state.stage = stage;
    const preload = stage === 1 ? state.preload1 : state.preload2;
    this.#watchdog.arm(preload * 2 ** ((state.config & CONFIG_FAST) !== 0 ? FAST_SHIFT : SLOW_SHIFT) * PCI_CLOCK_NS);
  }

  #expire(): void {
    const state = this.#state;
    if (state.stage === 1) {
      if ((state.config & CONFIG_INTERRUPT) !== CONFIG_INTERRUPT)
        this.log.unimplemented('the interrupt of stage 1 (APIC 1, INT 10, or SMI)');
      this.#restart(2);
      return;
    }
    const freeRun = (state.lock & LOCK_FREE_RUN) !== 0;
    if ((state.config & CONFIG_REBOOT_DISABLED) === 0) {
      this.#history.timedOut = true;
      this.services.system.watchdogExpired(this.typeName);
      Object.assign(state, {
        config: 0,
        lock: 0,
        preload1: PRELOAD_MASK,
        preload2: PRELOAD_MASK,
        stage: 1,
        unlockStep: 0,
      });
    }
    if (freeRun) this.#restart(1);
  }
}

export const i6300esb = deviceType({
  type: 'i6300esb',
  summary: 'Intel 6300ESB',
  category: 'watchdog',
  pci: { vendor: 0x8086, device: 0x25ab, class: 0x088000 },
  bars: { 0: { size: BAR_SIZE } },
  create: I6300Esb,
});
