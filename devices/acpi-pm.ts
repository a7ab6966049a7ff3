import type { DeviceClock } from '../core/device/device.ts';
import type { SystemControl } from '../core/device/services.ts';
import type { IrqLine } from '../core/irq/line.ts';
import { type IoHandler, MemoryRegion } from '../core/memory/memory-region.ts';
import { field, type StateValues } from '../core/state/fields.ts';

/** The ACPI power management timer (ACPI 6, section 4.8.3.3). */
export const PM_TIMER_HZ = 3_579_545;
const PM_TIMER_BITS = 0xff_ffff;
const PM_TIMER_HALF = 0x80_0000;
const NS_PER_SECOND = 1e9;

/** PM1 status and enable (section 4.8.3.1). */
const PM1 = {
  TMR: 1 << 0,
  BM: 1 << 4,
  GBL: 1 << 5,
  PWRBTN: 1 << 8,
  SLPBTN: 1 << 9,
  RTC: 1 << 10,
  WAK: 1 << 15,
} as const;
const PM1_SCI_SOURCES = PM1.TMR | PM1.GBL | PM1.PWRBTN | PM1.RTC;
/** PM1 control (section 4.8.3.2). */
const CNT = { SCI_EN: 1 << 0, SLP_TYP_SHIFT: 10, SLP_TYP: 7, SLP_EN: 1 << 13 } as const;

/** Offsets in the PM I/O block of PIIX4 and ICH9. */
const EVENT = 0x00;
const CONTROL = 0x04;
const TIMER = 0x08;

export const acpiPmState = {
  status: field.u16(),
  enable: field.u16(),
  control: field.u16(),
  /** When TMR_STS is next set: at once after power-on, as QEMU has it. */
  overflowTicks: field.number(0),
};

export interface AcpiPmOptions {
  readonly clock: DeviceClock;
  readonly system: SystemControl;
  readonly sci: IrqLine;
  readonly disableS3: boolean;
  readonly disableS4: boolean;
  /** SLP_TYP of S4. */
  readonly s4: number;
  /** Whether general-purpose events want an SCI. */
  readonly gpePending: () => boolean;
}

/** The fixed hardware of ACPI: PM1 events and control, the timer, and the SCI that they make. */
export class AcpiPm {
  readonly #options: AcpiPmOptions;
  readonly #s: StateValues<typeof acpiPmState>;
  readonly #timer;

  constructor(state: StateValues<typeof acpiPmState>, options: AcpiPmOptions) {
    this.#s = state;
    this.#options = options;
    this.#timer = options.clock.timer('pm-timer', () => this.update());
  }

  /** The registers, placed by the chip: events at 0, control at 4, the timer at 8. */
  regions(): readonly { offset: number; region: MemoryRegion }[] {
    const event: IoHandler = {
      read: offset => (offset === 0 ? this.#status() : offset === 2 ? this.#s.enable : 0),
      write: (offset, _size, value) =>
        offset === 0 ? this.#writeStatus(value) : offset === 2 ? this.#writeEnable(value) : undefined,
    };
    const control: IoHandler = {
      read: (offset, size) => (this.#s.control >>> (8 * offset)) & (size === 1 ? 0xff : 0xffff),
      write: (offset, size, value) => this.#writeControl(offset, size, value),
    };
    const timer: IoHandler = { read: () => this.#ticks() & PM_TIMER_BITS, write: () => {} };
    return [
      {
        offset: EVENT,
        region: MemoryRegion.io('acpi-evt', 4, event, { valid: { min: 1, max: 2 }, impl: { min: 2, max: 2 } }),
      },
      {
        offset: CONTROL,
        region: MemoryRegion.io('acpi-cnt', 2, control, { valid: { min: 1, max: 2 }, impl: { min: 1, max: 2 } }),
      },
      {
        offset: TIMER,
        region: MemoryRegion.io('acpi-tmr', 4, timer, { valid: { min: 1, max: 4 }, impl: { min: 4, max: 4 } }),
      },
    ];
  }

  /** Software has taken ACPI over, or given it back, through the SMI command port. */
  setAcpiEnabled(enabled: boolean): void {
    this.#s.control = enabled ? this.#s.control | CNT.SCI_EN : this.#s.control & ~CNT.SCI_EN;
    this.update();
  }

  pressPowerButton(): void {
    this.#s.status |= PM1.PWRBTN;
    this.update();
  }

  /** Why the machine has woken up. */
  woken(reason: 'rtc' | 'pmtimer' | 'other'): void {
    this.#s.status |= PM1.WAK | (reason === 'rtc' ? PM1.RTC : reason === 'pmtimer' ? PM1.TMR : 0);
    this.update();
  }

  /** Works out the SCI and when the timer next makes one. */
  update(): void {
    const status = this.#status();
    this.#options.sci.set((status & this.#s.enable & PM1_SCI_SOURCES) !== 0 || this.#options.gpePending());
    if ((this.#s.enable & PM1.TMR) !== 0 && (status & PM1.TMR) === 0)
      this.#timer.armAt(ticksToNs(this.#s.overflowTicks));
    else this.#timer.cancel();
  }

  #ticks(): number {
    return Math.floor((this.#options.clock.now() * PM_TIMER_HZ) / NS_PER_SECOND);
  }

  /** TMR_STS is set whenever the timer's top bit changes. */
  #status(): number {
    if (this.#ticks() >= this.#s.overflowTicks) this.#s.status |= PM1.TMR;
    return this.#s.status;
  }

  #writeStatus(value: number): void {
    if ((this.#status() & value & PM1.TMR) !== 0) {
      this.#s.overflowTicks = (Math.floor(this.#ticks() / PM_TIMER_HALF) + 1) * PM_TIMER_HALF;
    }
    this.#s.status &= ~value;
    this.update();
  }

  #writeEnable(value: number): void {
    this.#s.enable = value & 0xffff;
    this.update();
  }

  #writeControl(offset: number, size: number, value: number): void {
    const written =
      size === 2 ? value : offset === 0 ? (this.#s.control & 0xff00) | value : (this.#s.control & 0xff) | (value << 8);
    this.#s.control = written & 0xffff & ~CNT.SLP_EN;
    if ((written & CNT.SLP_EN) === 0) return;
    const { system, disableS3, disableS4, s4 } = this.#options;
    const type = (written >>> CNT.SLP_TYP_SHIFT) & CNT.SLP_TYP;
    if (type === 0) {
      system.requestShutdown('guest-shutdown');
    } else if (type === 1) {
      if (!disableS3) system.requestSuspend();
    } else if (type === s4 && !disableS4) {
      system.emit('SUSPEND_DISK', {});
      system.requestShutdown('guest-shutdown');
    }
  }
}

function ticksToNs(ticks: number): number {
  return Math.ceil((ticks * NS_PER_SECOND) / PM_TIMER_HZ);
}
