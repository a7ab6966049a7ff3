import type { DeviceClock } from '../../core/device/device.ts';
import type { IoHandler } from '../../core/memory/memory-region.ts';
import { field, type StateValues } from '../../core/state/fields.ts';

/** Offsets in the TCO block (ICH9 datasheet, section 13.9). */
const REG = {
  RLD: 0x00,
  DAT_IN: 0x02,
  DAT_OUT: 0x03,
  STS1: 0x04,
  STS2: 0x06,
  CNT1: 0x08,
  CNT2: 0x0a,
  MESSAGE1: 0x0c,
  MESSAGE2: 0x0d,
  WDCNT: 0x0e,
  SW_IRQ_GEN: 0x10,
  TMR: 0x12,
} as const;
const STS1 = { SW_SMI: 1 << 1, INT: 1 << 2, TIMEOUT: 1 << 3, WRITABLE: 0xe870 } as const;
const STS2 = { SECOND_TIMEOUT: 1 << 1, BOOT: 1 << 2, WRITABLE: 0xfff8 } as const;
const CNT1 = { HALT: 1 << 11, LOCK: 1 << 12, WRITABLE: 0xfeff } as const;
const COUNT_MASK = 0x3ff;
/** The timer's clock: 0.6 seconds. */
const TICK_NS = 600_000_000;

export const tcoState = {
  rld: field.u16(),
  din: field.u8(),
  dout: field.u8(),
  sts1: field.u16(),
  sts2: field.u16(),
  cnt1: field.u16(),
  cnt2: field.u16(8),
  message1: field.u8(),
  message2: field.u8(),
  wdcnt: field.u8(),
  tmr: field.u16(4),
  swIrqGen: field.u8(3),
  timeouts: field.u8(),
};

export interface TcoOptions {
  readonly clock: DeviceClock;
  /** The second timeout in a row: true where the strap and GCS.NR let it reboot. */
  readonly reboot: () => boolean;
  readonly smi: () => void;
}

/** The TCO watchdog of ICH9: two timeouts in a row reset the machine. */
export class Tco implements IoHandler {
  readonly #s: StateValues<typeof tcoState>;
  readonly #options: TcoOptions;
  readonly #timer;
  #expiresAt = -1;

  constructor(state: StateValues<typeof tcoState>, options: TcoOptions) {
    this.#s = state;
    this.#options = options;
    this.#timer = options.clock.timer('tco', () => this.#expire());
  }

  /** Once set, TCO_LOCK keeps SMI_EN.TCO_EN as it is (section 13.9.5). */
  get locked(): boolean {
    return (this.#s.cnt1 & CNT1.LOCK) !== 0;
  }

  reset(): void {
    this.#expiresAt = -1;
  }

  restored(): void {
    this.#expiresAt = this.#timer.pending ? this.#timer.deadlineNs : -1;
  }

  get #runs(): boolean {
    return (this.#s.cnt1 & CNT1.HALT) === 0 && this.#s.tmr > 1;
  }

  #reload(): void {
    this.#s.rld = this.#s.tmr;
    this.#expiresAt = this.#options.clock.now() + (this.#s.tmr & COUNT_MASK) * TICK_NS;
    this.#timer.armAt(this.#expiresAt);
  }

  #stop(): void {
    this.#expiresAt = -1;
    this.#timer.cancel();
  }

  #expire(): void {
    const s = this.#s;
    s.rld = 0;
    s.sts1 |= STS1.TIMEOUT;
    s.timeouts++;
    if (s.timeouts === 2) {
      s.sts2 |= STS2.SECOND_TIMEOUT | STS2.BOOT;
      s.timeouts = 0;
      if (this.#options.reboot()) {
        this.#stop();
        return;
      }
    }
    this.#options.smi();
    this.#reload();
  }

  read(offset: number): number {
    const s = this.#s;
    switch (offset) {
      case REG.RLD: {
        if (this.#expiresAt < 0) return s.rld;
        const left = Math.trunc((this.#expiresAt - this.#options.clock.now()) / TICK_NS);
        return (left & 0xffff) | (s.rld & ~COUNT_MASK);
      }
      case REG.DAT_IN:
        return s.din;
      case REG.DAT_OUT:
        return s.dout;
      case REG.STS1:
        return s.sts1;
      case REG.STS2:
        return s.sts2;
      case REG.CNT1:
        return s.cnt1;
      case REG.CNT2:
        return s.cnt2;
      case REG.MESSAGE1:
        return s.message1;
      case REG.MESSAGE2:
        return s.message2;
      case REG.WDCNT:
        return s.wdcnt;
      case REG.SW_IRQ_GEN:
        return s.swIrqGen;
      case REG.TMR:
        return s.tmr;
      default:
        return 0;
    }
  }

  write(offset: number, _size: number, value: number): void {
    const s = this.#s;
    switch (offset) {
      case REG.RLD:
        s.timeouts = 0;
        if (this.#runs) this.#reload();
        else s.rld = value;
        return;
      case REG.DAT_IN:
        s.din = value & 0xff;
        s.sts1 |= STS1.SW_SMI;
        this.#options.smi();
        return;
      case REG.DAT_OUT:
        s.dout = value & 0xff;
        s.sts1 |= STS1.INT;
        return;
      case REG.STS1:
        s.sts1 = value & STS1.WRITABLE;
        return;
      case REG.STS2:
        s.sts2 = value & STS2.WRITABLE;
        return;
      case REG.CNT1:
        s.cnt1 = (value & CNT1.WRITABLE) | (s.cnt1 & CNT1.LOCK);
        if (this.#runs) this.#reload();
        else this.#stop();
        return;
      case REG.CNT2:
        s.cnt2 = value;
        return;
      case REG.MESSAGE1:
        s.message1 = value & 0xff;
        return;
      case REG.MESSAGE2:
        s.message2 = value & 0xff;
        return;
      case REG.WDCNT:
        s.wdcnt = value & 0xff;
        return;
      case REG.SW_IRQ_GEN:
        s.swIrqGen = value & 0xff;
        return;
      case REG.TMR:
        s.tmr = value;
        return;
      default:
    }
  }
}
