import type { Chardev, CharUser } from '../core/char/chardev.ts';
import type { Timer } from '../core/clock/timer-queue.ts';
import type { DeviceClock } from '../core/device/device.ts';
import { prop } from '../core/device/property.ts';
import type { IrqLine } from '../core/irq/line.ts';
import type { IoHandler } from '../core/memory/memory-region.ts';
import { bit, bits, type RegisterHooks, type Registers, r8, registerMap } from '../core/register/register.ts';
import { field, type StateValues } from '../core/state/fields.ts';

/** The registers of the 16550A (PC16550D datasheet, table II). */
export const serialRegisters = registerMap('serial', {
  DLL: r8(0, {}, { when: 'LCR.DLAB', reset: 12, doc: 'Divisor latch, low' }),
  RBR: r8(0, {}, { doc: 'Receiver buffer (read), transmitter holding (write)' }),
  DLM: r8(1, {}, { when: 'LCR.DLAB', doc: 'Divisor latch, high' }),
  IER: r8(1, { ERBFI: bit(0), ETBEI: bit(1), ELSI: bit(2), EDSSI: bit(3) }, { doc: 'Interrupt enable' }),
  IIR: r8(2, {}, { reset: 1, doc: 'Interrupt identification (read), FIFO control (write)' }),
  LCR: r8(
    3,
    { WLS: bits(0, 2), STB: bit(2), PEN: bit(3), EPS: bit(4), SP: bit(5), BREAK: bit(6), DLAB: bit(7) },
    { doc: 'Line control' },
  ),
  MCR: r8(
    4,
    { DTR: bit(0), RTS: bit(1), OUT1: bit(2), OUT2: bit(3), LOOP: bit(4) },
    { reset: 0x08, doc: 'Modem control' },
  ),
  LSR: r8(
    5,
    { DR: bit(0), OE: bit(1), PE: bit(2), FE: bit(3), BI: bit(4), THRE: bit(5), TEMT: bit(6), FIFO_ERROR: bit(7) },
    { access: 'ro', reset: 0x60, doc: 'Line status' },
  ),
  MSR: r8(
    6,
    { DCTS: bit(0), DDSR: bit(1), TERI: bit(2), DDCD: bit(3), CTS: bit(4), DSR: bit(5), RI: bit(6), DCD: bit(7) },
    { access: 'ro', reset: 0xb0, doc: 'Modem status' },
  ),
  SCR: r8(7, {}, { doc: 'Scratch' }),
});

const IIR = {
  NONE: 0x01,
  MODEM: 0x00,
  THRE: 0x02,
  DATA: 0x04,
  LINE: 0x06,
  TIMEOUT: 0x0c,
  SOURCE: 0x0f,
  FIFO_ENABLED: 0xc0,
} as const;
const FCR = { ENABLE: 0x01, RX_RESET: 0x02, TX_RESET: 0x04, DMA_MODE: 0x08, TRIGGER: 0xc0 } as const;
const TRIGGER_LEVELS = [1, 4, 8, 14] as const;
const FIFO_SIZE = 16;
const MSR_DELTAS = 0x0f;
const NS = 1e9;
const DEFAULT_BAUDBASE = 115_200;
/** How long output may wait for a host that takes none, in character times. */
const MAX_TRANSMIT_RETRIES = 4;

/** What a port of its own has, besides where it is. */
export const serialProperties = {
  chardev: prop.backend<Chardev>('chardev'),
  baudbase: prop.u32({ default: 115_200 }),
  wakeup: prop.bool({ default: false, help: 'a received byte wakes the machine up' }),
} as const;

export const serialState = {
  fcr: field.u8(),
  thrPending: field.bool(),
  timeoutPending: field.bool(),
  rx: field.buffer(FIFO_SIZE),
  tx: field.buffer(FIFO_SIZE),
  tsr: field.u8(),
  retries: field.u8(),
  lastTransmit: field.number(),
};

export interface SerialParts {
  readonly clock: DeviceClock;
  readonly irq: IrqLine;
  readonly chardev: Chardev | undefined;
  readonly state: StateValues<typeof serialState>;
  readonly baudbase?: number;
  /** Bytes have come in. */
  readonly received?: () => void;
}

/** A 16550A UART: the chip, whatever bus it is on. */
export class Serial implements IoHandler, CharUser {
  readonly #clock: DeviceClock;
  readonly #irq: IrqLine;
  readonly #chardev: Chardev | undefined;
  readonly #s: StateValues<typeof serialState>;
  readonly #bank: IoHandler;
  readonly #regs: Registers<typeof serialRegisters>;
  readonly #timeout: Timer;
  readonly #modemPoll: Timer;
  readonly #byte = new Uint8Array(1);
  readonly #baudbase: number;
  readonly #received: (() => void) | undefined;
  #waitingForHost = false;

  constructor(
    bank: (
      hooks: RegisterHooks<typeof serialRegisters>,
    ) => IoHandler & { readonly regs: Registers<typeof serialRegisters> },
    parts: SerialParts,
  ) {
    this.#clock = parts.clock;
    this.#irq = parts.irq;
    this.#chardev = parts.chardev;
    this.#s = parts.state;
    this.#baudbase = parts.baudbase ?? DEFAULT_BAUDBASE;
    this.#received = parts.received;
    const registers = bank({
      RBR: { read: () => this.#receiveByte(), write: (value, previous) => (this.#transmitByte(value), previous) },
      IER: { wrote: (value, previous) => this.#enableChanged(value, previous) },
      IIR: { read: stored => this.#identify(stored), write: value => this.#fifoControl(value) },
      LCR: { wrote: value => this.#lineControl(value) },
      MCR: { write: (value, previous) => this.#modemControl(value, previous) },
      LSR: { read: stored => this.#lineStatus(stored) },
      MSR: { read: stored => this.#modemStatus(stored) },
      DLL: { wrote: () => this.#parametersChanged() },
      DLM: { wrote: () => this.#parametersChanged() },
    });
    this.#bank = registers;
    this.#regs = registers.regs;
    this.#timeout = parts.clock.timer('fifo-timeout', () => this.#receiveTimeout());
    this.#modemPoll = parts.clock.timer('modem-poll', () => this.#pollModem());
    this.#chardev?.attach(this);
  }

  dispose(): void {
    this.#chardev?.detach();
  }

  read(offset: number, size: number): number {
    return this.#bank.read(offset, size);
  }

  write(offset: number, size: number, value: number): void {
    this.#bank.write(offset, size, value);
  }

  reset(): void {
    this.#s.lastTransmit = this.#clock.now();
    this.#waitingForHost = false;
    this.#pollModem();
    this.#regs.MSR.value &= ~MSR_DELTAS;
    this.#update();
    // A byte from before the reset is gone, and there is room for what comes behind it.
    this.#chardev?.acceptInput();
  }

  // The host's side

  canReceive(): number {
    if ((this.#s.fcr & FCR.ENABLE) === 0) return this.#regs.LSR.DR ? 0 : 1;
    const { rx } = this.#s;
    // Offer no more than the trigger level at a time, so that the interrupt comes where the driver expects it.
    return rx.length >= FIFO_SIZE ? 0 : rx.length <= this.#trigger() ? Math.max(1, this.#trigger() - rx.length) : 1;
  }

  receive(bytes: Uint8Array): void {
    this.#received?.();
    if (this.#regs.MCR.LOOP) return;
    for (const byte of bytes) this.#pushReceived(byte);
    this.#update();
  }

  event(event: string): void {
    if (event !== 'break') return;
    this.#pushReceived(0);
    this.#regs.LSR.BI = true;
    this.#update();
  }

  drained(): void {
    if (!this.#waitingForHost) return;
    this.#waitingForHost = false;
    this.#transmit();
  }

  // Receiving

  #fifoEnabled(): boolean {
    return (this.#s.fcr & FCR.ENABLE) !== 0;
  }

  #trigger(): number {
    return TRIGGER_LEVELS[(this.#s.fcr & FCR.TRIGGER) >> 6] ?? 1;
  }

  /** Nanoseconds that one character takes on the line. */
  #characterNs(): number {
    const { LCR, DLL, DLM } = this.#regs;
    const divisor = (DLM.value << 8) | DLL.value;
    const frame = 1 + 5 + LCR.WLS + (LCR.PEN ? 1 : 0) + (LCR.STB ? 2 : 1);
    return divisor === 0 ? 0 : Math.floor((NS * divisor * frame) / this.#baudbase);
  }

  #pushReceived(byte: number): void {
    const { LSR } = this.#regs;
    const s = this.#s;
    if (!this.#fifoEnabled()) {
      if (LSR.DR) LSR.OE = true;
      s.rx = Uint8Array.of(byte);
    } else if (s.rx.length < FIFO_SIZE) {
      s.rx = Uint8Array.of(...s.rx, byte);
      // Four character times without a read make a time-out interrupt (datasheet, section 8.6.3).
      this.#timeout.arm(4 * this.#characterNs());
    } else {
      LSR.OE = true;
    }
    LSR.DR = true;
  }

  #receiveByte(): number {
    const s = this.#s;
    const byte = s.rx[0] ?? 0;
    if (this.#fifoEnabled()) {
      s.rx = s.rx.slice(1);
      if (s.rx.length === 0) {
        this.#regs.LSR.DR = false;
        this.#regs.LSR.BI = false;
        this.#timeout.cancel();
      } else {
        this.#timeout.arm(4 * this.#characterNs());
      }
      s.timeoutPending = false;
    } else {
      this.#regs.LSR.DR = false;
      this.#regs.LSR.BI = false;
    }
    this.#update();
    if (!this.#regs.MCR.LOOP) this.#chardev?.acceptInput();
    return byte;
  }

  #receiveTimeout(): void {
    if (this.#s.rx.length === 0) return;
    this.#s.timeoutPending = true;
    this.#update();
  }

  // Transmitting

  #transmitByte(byte: number): void {
    const s = this.#s;
    if (this.#fifoEnabled()) {
      // A full FIFO loses its newest byte to the new one.
      s.tx = Uint8Array.of(...(s.tx.length < FIFO_SIZE ? s.tx : s.tx.subarray(0, FIFO_SIZE - 1)), byte);
    } else {
      s.tx = Uint8Array.of(byte);
    }
    s.thrPending = false;
    this.#regs.LSR.THRE = false;
    this.#regs.LSR.TEMT = false;
    this.#update();
    if (!this.#waitingForHost) this.#transmit();
  }

  /** Sends all that waits; a host that takes nothing more is tried again when it drains. */
  #transmit(): void {
    const s = this.#s;
    while (s.tx.length > 0) {
      const byte = s.tx[0] ?? 0;
      if (this.#regs.MCR.LOOP) {
        this.#pushReceived(byte);
      } else {
        this.#byte[0] = byte;
        if (this.#chardev !== undefined && this.#chardev.write(this.#byte) < 1 && s.retries < MAX_TRANSMIT_RETRIES) {
          this.#waitingForHost = true;
          break;
        }
      }
      s.tx = s.tx.slice(1);
    }
    if (s.tx.length === 0) {
      this.#regs.LSR.THRE = true;
      this.#regs.LSR.TEMT = true;
      s.thrPending = true;
      s.lastTransmit = this.#clock.now();
    }
    this.#update();
  }

  // Control

  #enableChanged(value: number, previous: number): void {
    const changed = value ^ previous;
    if (this.#regs.IER.EDSSI && (changed & 8) !== 0) this.#pollModem();
    // Enabling the transmitter's interrupt while it is empty interrupts at once; disabling it takes that back.
    if ((changed & 2) !== 0) this.#s.thrPending = this.#regs.IER.ETBEI && this.#regs.LSR.THRE;
    if (changed !== 0) this.#update();
  }

  #identify(stored: number): number {
    if ((stored & IIR.SOURCE) === IIR.THRE) {
      this.#s.thrPending = false;
      this.#update();
    }
    return stored;
  }

  /** FCR shares its address with IIR, whose new value this returns. */
  #fifoControl(written: number): number {
    const s = this.#s;
    let value = written;
    // Switching the FIFOs on or off empties them (datasheet, section 8.5).
    if (((value ^ s.fcr) & FCR.ENABLE) !== 0) value |= FCR.TX_RESET | FCR.RX_RESET;
    if ((value & FCR.RX_RESET) !== 0) {
      this.#regs.LSR.DR = false;
      this.#regs.LSR.BI = false;
      this.#timeout.cancel();
      s.timeoutPending = false;
      s.rx = new Uint8Array(0);
    }
    if ((value & FCR.TX_RESET) !== 0) {
      this.#regs.LSR.THRE = true;
      s.thrPending = true;
      s.tx = new Uint8Array(0);
    }
    s.fcr = value & (FCR.ENABLE | FCR.DMA_MODE | FCR.TRIGGER);
    this.#update();
    this.#chardev?.acceptInput();
    return this.#regs.IIR.value;
  }

  #lineControl(value: number): void {
    this.#parametersChanged();
    this.#chardev?.setBreak((value & 0x40) !== 0);
  }

  #parametersChanged(): void {
    const { LCR, DLL, DLM } = this.#regs;
    const divisor = (DLM.value << 8) | DLL.value;
    if (divisor === 0 || divisor > this.#baudbase) return;
    this.#chardev?.setParameters({
      speed: Math.floor(this.#baudbase / divisor),
      parity: LCR.PEN ? (LCR.EPS ? 'even' : 'odd') : 'none',
      dataBits: LCR.WLS + 5,
      stopBits: LCR.STB ? 2 : 1,
    });
  }

  #modemControl(value: number, previous: number): number {
    if (((value ^ previous) & 0x03) !== 0 && (value & 0x10) === 0)
      this.#chardev?.setOutputs({ dtr: (value & 1) !== 0, rts: (value & 2) !== 0 });
    return value & 0x1f;
  }

  #lineStatus(stored: number): number {
    if ((stored & 0x12) !== 0) {
      // Reading clears overrun and break.
      this.#regs.LSR.OE = false;
      this.#regs.LSR.BI = false;
      this.#update();
    }
    return stored;
  }

  #modemStatus(stored: number): number {
    const { MCR, MSR } = this.#regs;
    if (MCR.LOOP) {
      // Outputs are looped to inputs: OUT2, OUT1, DTR and RTS to DCD, RI, DSR and CTS (datasheet, section 8.7).
      return ((MCR.value & 0x0c) << 4) | ((MCR.value & 0x02) << 3) | ((MCR.value & 0x01) << 5);
    }
    if ((stored & MSR_DELTAS) !== 0) {
      MSR.value &= ~MSR_DELTAS;
      this.#update();
    }
    return stored;
  }

  #pollModem(): void {
    const lines = this.#chardev?.modemLines();
    if (lines === undefined) return;
    const { MSR } = this.#regs;
    const before = MSR.value;
    MSR.CTS = lines.cts;
    MSR.DSR = lines.dsr;
    MSR.RI = lines.ri;
    MSR.DCD = lines.dcd;
    const changed = (before ^ MSR.value) >> 4;
    // RI counts on its trailing edge only.
    MSR.value |= (changed & 0x0b) | (changed & (before >> 4) & 0x04);
    if (changed !== 0) this.#update();
    if (this.#regs.IER.EDSSI) this.#modemPoll.arm(NS / 100);
  }

  /** Works out the highest pending interrupt (datasheet, table V). */
  #update(): void {
    const { IER, LSR, MSR, IIR: iir } = this.#regs;
    const s = this.#s;
    let source: number = IIR.NONE;
    if (IER.ELSI && (LSR.value & 0x1e) !== 0) source = IIR.LINE;
    else if (IER.ERBFI && s.timeoutPending) source = IIR.TIMEOUT;
    else if (IER.ERBFI && LSR.DR && (!this.#fifoEnabled() || s.rx.length >= this.#trigger())) source = IIR.DATA;
    else if (IER.ETBEI && s.thrPending) source = IIR.THRE;
    else if (IER.EDSSI && (MSR.value & MSR_DELTAS) !== 0) source = IIR.MODEM;
    iir.value = source | (this.#fifoEnabled() ? IIR.FIFO_ENABLED : 0);
    this.#irq.set(source !== IIR.NONE);
  }
}
