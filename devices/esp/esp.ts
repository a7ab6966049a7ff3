import type { Registers } from '../../core/register/register.ts';
import type { ScsiBus } from '../../core/scsi/scsi-bus.ts';
import type { ScsiDevice } from '../../core/scsi/scsi-device.ts';
import type { ScsiRequest, ScsiTask } from '../../core/scsi/scsi-request.ts';
import { field, initialValues, type StateValues } from '../../core/state/fields.ts';
import {
  COMMAND,
  CONTROL1_DISABLE_RESET_INTERRUPT,
  type espRegisters,
  INTERRUPT,
  PHASE,
  STATUS,
  STEP,
  TARGET_MASK,
} from './registers.ts';

const FIFO_BYTES = 16;
/** Messages and a command descriptor block. */
const COMMAND_BYTES = 32;
/** What a start count of 0 stands for. */
const COUNT_OF_ZERO = 0x1_0000;

/** A command of the host that waits for the DMA engine to be started. */
const DEFERRED = ['none', 'select', 'select-atn', 'select-atn-stop', 'transfer'] as const;
type Deferred = (typeof DEFERRED)[number];

export const espFields = {
  count: field.u32(),
  countHighWritten: field.bool(),
  fifo: field.list(field.u8(), FIFO_BYTES),
  /** Messages to the target, of which there are `messages`, and the command after them. */
  command: field.list(field.u8(), COMMAND_BYTES),
  messages: field.u8(),
  /** The target waits for messages or a command. */
  takingCommand: field.bool(),
  dma: field.bool(),
  dmaEnabled: field.bool(),
  deferred: field.oneOf(DEFERRED, 'none'),
  /** The INFORMATION TRANSFER command that data of the target goes by; 0 before there was one. */
  transfer: field.u8(),
  /** Bytes of the command's data that are left: positive from the target, negative to it. */
  left: field.number(),
  firstData: field.bool(),
  target: field.u8(0xff),
  lun: field.u8(),
  status: field.u8(),
  /** Bytes that wait in the buffer of the request, from `at` on. */
  waiting: field.u32(),
  at: field.u32(),
} as const;

/** What the chip is built into: its registers, its way to memory and its interrupt. */
export interface EspHost {
  readonly regs: Registers<typeof espRegisters>;
  readonly s: StateValues<typeof espFields>;
  readonly scsiBus: ScsiBus;
  /** Moves bytes through the DMA engine. */
  readMemory(target: Uint8Array, at: number, length: number): void;
  writeMemory(source: Uint8Array, at: number, length: number): void;
  /** The interrupt bit of the status has changed. */
  interruptChanged(level: boolean): void;
  /** A command of a target has ended. */
  commandEnded(): void;
  unimplemented(what: string): void;
}

/** The SCSI side of the NCR 53C9x family: an initiator that the host leads from phase to phase. */
export class Esp implements ScsiTask {
  readonly #host: EspHost;
  readonly #bytes = new Uint8Array(COMMAND_BYTES);
  request: ScsiRequest | undefined;

  constructor(host: EspHost) {
    this.#host = host;
  }

  get #s(): StateValues<typeof espFields> {
    return this.#host.s;
  }

  get #phase(): number {
    return this.#host.regs.STATREG.value & STATUS.PHASE;
  }

  /** All status bits but the interrupt, which has its own rules. */
  #setStatus(status: number): void {
    const { STATREG } = this.#host.regs;
    STATREG.value = (STATREG.value & STATUS.INTERRUPT) | status;
  }

  #interrupt(cause: number): void {
    const { regs } = this.#host;
    regs.INSTREG.value |= cause;
    if ((regs.STATREG.value & STATUS.INTERRUPT) !== 0) return;
    regs.STATREG.value |= STATUS.INTERRUPT;
    this.#host.interruptChanged(true);
  }

  /** Reading the interrupt status acknowledges it. */
  takeInterrupt(cause: number): number {
    const { regs } = this.#host;
    regs.INSTREG.value = 0;
    regs.STATREG.value &= ~STATUS.COUNT_TO_ZERO;
    if ((regs.STATREG.value & STATUS.INTERRUPT) !== 0) {
      regs.STATREG.value &= ~STATUS.INTERRUPT;
      this.#host.interruptChanged(false);
    }
    return cause;
  }

  // Counters and FIFOs

  get startCount(): number {
    const { regs } = this.#host;
    return regs.STCLO.value | (regs.STCMID.value << 8) | (regs.STCHI.value << 16);
  }

  startCountWritten(high: boolean): void {
    if (high) this.#s.countHighWritten = true;
    this.#host.regs.STATREG.value &= ~STATUS.COUNT_TO_ZERO;
  }

  fifoWritten(byte: number): void {
    const s = this.#s;
    if (!s.takingCommand) {
      if (s.fifo.length < FIFO_BYTES) s.fifo.push(byte);
      return;
    }
    if (s.command.length < COMMAND_BYTES) s.command.push(byte);
    if (this.#host.regs.CMDREG.value === COMMAND.INFORMATION_TRANSFER) this.#interrupt(INTERRUPT.SERVICE_REQUEST);
  }

  readFifo(): number {
    const s = this.#s;
    if (this.#phase === PHASE.DATA_IN) {
      if (s.left !== 0) this.#moveByFifo();
      // The last byte has been read.
      else this.#setStatus(STATUS.COUNT_TO_ZERO | PHASE.STATUS);
    }
    return s.fifo.shift() ?? 0;
  }

  // Commands of the host

  execute(command: number): void {
    const s = this.#s;
    const { regs } = this.#host;
    s.dma = (command & COMMAND.DMA) !== 0;
    if (s.dma) s.count = this.startCount || COUNT_OF_ZERO;
    switch (command & COMMAND.CODE) {
      case COMMAND.NOP:
      case COMMAND.SET_ATN:
      case COMMAND.RESET_ATN:
        break;
      case COMMAND.CLEAR_FIFO:
        s.fifo = [];
        break;
      case COMMAND.RESET_DEVICE:
        this.reset();
        break;
      case COMMAND.RESET_BUS:
        this.#resetBus();
        break;
      case COMMAND.INFORMATION_TRANSFER:
        this.#begin('transfer');
        break;
      case COMMAND.COMMAND_COMPLETE_STEPS:
        this.#receiveStatus();
        break;
      case COMMAND.MESSAGE_ACCEPTED:
        regs.ISREG.value = STEP.NONE;
        this.#interrupt(INTERRUPT.DISCONNECTED);
        break;
      case COMMAND.TRANSFER_PAD:
        this.#setStatus(STATUS.COUNT_TO_ZERO);
        regs.INSTREG.value |= INTERRUPT.SUCCESSFUL_OPERATION;
        regs.ISREG.value = STEP.NONE;
        break;
      case COMMAND.SELECT_WITHOUT_ATN:
        this.#begin('select');
        break;
      case COMMAND.SELECT_WITH_ATN:
        this.#begin('select-atn');
        break;
      case COMMAND.SELECT_WITH_ATN_STOP:
        this.#begin('select-atn-stop');
        break;
      case COMMAND.ENABLE_SELECTION:
        regs.INSTREG.value = 0;
        break;
      case COMMAND.DISABLE_SELECTION:
        regs.INSTREG.value = 0;
        this.#interrupt(0);
        break;
      default:
        this.#host.unimplemented(`command 0x${command.toString(16)}`);
    }
  }

  /** As after power-on, but for the DMA engine. */
  reset(): void {
    this.request?.cancel();
    this.request = undefined;
    const { dmaEnabled } = this.#s;
    Object.assign(this.#s, initialValues(espFields), { dmaEnabled });
    this.#host.interruptChanged(false);
  }

  #resetBus(): void {
    for (const phase of ['enter', 'hold', 'exit'] as const) this.#host.scsiBus.resetPhase(phase);
    this.request = undefined;
    if ((this.#host.regs.CNTLREG1.value & CONTROL1_DISABLE_RESET_INTERRUPT) === 0) {
      this.#interrupt(INTERRUPT.SCSI_RESET);
    }
  }

  /** The DMA engine has been started or stopped. */
  enableDma(enabled: boolean): void {
    const s = this.#s;
    s.dmaEnabled = enabled;
    if (!enabled || s.deferred === 'none') return;
    const { deferred } = s;
    s.deferred = 'none';
    this.#begin(deferred);
  }

  #begin(what: Deferred): void {
    const s = this.#s;
    if (s.dma && !s.dmaEnabled) {
      s.deferred = what;
      return;
    }
    switch (what) {
      case 'select':
        this.#selectWithCommand(0);
        break;
      case 'select-atn':
        this.#selectWithCommand(1);
        break;
      case 'select-atn-stop':
        this.#selectAndStop();
        break;
      case 'transfer':
        this.#informationTransfer();
        break;
      case 'none':
        break;
    }
  }

  // Selection (chapter 3.5.4.2)

  get #device(): ScsiDevice | undefined {
    return this.#host.scsiBus.find(0, this.#s.target, 0);
  }

  /** True where a target answers. */
  #select(): boolean {
    const s = this.#s;
    const { regs } = this.#host;
    s.left = 0;
    s.fifo = [];
    s.target = regs.SDIDREG.value & TARGET_MASK;
    if (this.#device === undefined) {
      s.command = [];
      this.#setStatus(0);
      regs.INSTREG.value = 0;
      regs.ISREG.value = STEP.NONE;
      this.#interrupt(INTERRUPT.DISCONNECTED);
      return false;
    }
    // The interrupt follows with the phase that comes next.
    regs.INSTREG.value |= INTERRUPT.SUCCESSFUL_OPERATION;
    regs.ISREG.value = STEP.COMMAND;
    return true;
  }

  /** Takes up to `most` bytes for the target from memory or the FIFO, and selects. How many there were; -1 without a target. */
  #selectWith(most: number): number {
    const s = this.#s;
    this.request?.cancel();
    this.request = undefined;
    const length = Math.min(s.dma ? s.count : s.fifo.length, most, COMMAND_BYTES - s.command.length);
    if (length === 0) return 0;
    this.#gather(length);
    return this.#select() ? length : -1;
  }

  #gather(length: number): void {
    const s = this.#s;
    if (s.dma) {
      this.#host.readMemory(this.#bytes, 0, length);
      for (let index = 0; index < length; index++) s.command.push(this.#bytes[index] ?? 0);
    } else {
      s.command.push(...s.fifo.splice(0, length));
    }
  }

  #selectWithCommand(messages: number): void {
    const s = this.#s;
    const length = this.#selectWith(COMMAND_BYTES);
    if (length > 0) {
      s.messages = messages;
      s.takingCommand = false;
      this.#sendCommand();
    } else if (length === 0) {
      s.takingCommand = true;
      this.#host.regs.ISREG.value = STEP.COMMAND;
      this.#setStatus(PHASE.COMMAND);
    }
  }

  /** The target waits for more messages, or with the next transfer for the command. */
  #selectAndStop(): void {
    const s = this.#s;
    const length = this.#selectWith(1);
    if (length < 0) return;
    s.takingCommand = true;
    this.#setStatus(PHASE.MESSAGE_OUT);
    this.#host.regs.ISREG.value = STEP.MESSAGE_OUT;
    if (length === 0) return;
    s.messages = 1;
    this.#interrupt(INTERRUPT.SERVICE_REQUEST | INTERRUPT.SUCCESSFUL_OPERATION);
  }

  #sendCommand(): void {
    const s = this.#s;
    const { regs, scsiBus } = this.#host;
    if (s.messages > 0) {
      s.lun = (s.command[0] ?? 0) & 7;
      s.command.splice(0, s.messages);
      s.messages = 0;
    }
    const { length } = s.command;
    const device = this.#device === undefined ? undefined : scsiBus.find(0, s.target, s.lun);
    if (length === 0 || device === undefined) return;
    this.#bytes.set(s.command);
    s.command = [];
    this.request?.cancel();
    const request = device.request(this, 0, s.lun, this.#bytes, length);
    this.request = request;
    const expected = request.enqueue();
    s.left = expected;
    if (expected === 0) return;
    s.transfer = 0;
    s.count = 0;
    regs.ISREG.value = STEP.COMMAND;
    if (expected > 0) {
      // The interrupt comes with the first data.
      s.firstData = true;
      this.#setStatus(STATUS.COUNT_TO_ZERO | PHASE.DATA_IN);
    } else {
      this.#setStatus(STATUS.COUNT_TO_ZERO | PHASE.DATA_OUT);
      this.#interrupt(INTERRUPT.SERVICE_REQUEST | INTERRUPT.SUCCESSFUL_OPERATION);
    }
    request.continue();
  }

  // Information transfer (chapter 3.5.4.4)

  #informationTransfer(): void {
    const s = this.#s;
    s.transfer = this.#host.regs.CMDREG.value;
    if (s.takingCommand) {
      if (s.dma) this.#gather(Math.min(s.count, COMMAND_BYTES - s.command.length));
      this.#commandBytesSent();
      return;
    }
    if (s.dma) {
      this.#host.regs.STATREG.value &= ~STATUS.COUNT_TO_ZERO;
      this.#moveByDma();
    } else {
      this.#moveByFifo();
    }
  }

  /** In MESSAGE OUT the command phase follows; in COMMAND the target has it all. */
  #commandBytesSent(): void {
    const s = this.#s;
    s.left = 0;
    if (this.#phase === PHASE.COMMAND) {
      if (s.command.length <= s.messages) return;
      s.takingCommand = false;
      this.#sendCommand();
      return;
    }
    s.messages = s.command.length;
    this.#setStatus(STATUS.COUNT_TO_ZERO | PHASE.COMMAND);
    this.#host.regs.ISREG.value = STEP.COMMAND;
    this.#interrupt(INTERRUPT.SERVICE_REQUEST);
  }

  #moveByDma(): void {
    const s = this.#s;
    const { request } = this;
    // Waits until there is data, or room for it.
    if (request === undefined || s.waiting === 0) return;
    const out = this.#phase === PHASE.DATA_OUT;
    const length = Math.min(s.count, s.waiting, request.buffer.length - s.at);
    if (out) this.#host.readMemory(request.buffer, s.at, length);
    else this.#host.writeMemory(request.buffer, s.at, length);
    s.count -= length;
    this.#moved(length, out);
    if (s.waiting === 0) {
      request.continue();
      // More of the same transfer follows, or the end of the command.
      if (out || s.count !== 0 || s.left === 0) return;
    }
    this.#transferDone();
  }

  #moved(length: number, out: boolean): void {
    const s = this.#s;
    s.at += length;
    s.waiting -= length;
    s.left += out ? length : -length;
  }

  #moveByFifo(): void {
    const s = this.#s;
    const { request } = this;
    if (request === undefined || s.waiting === 0) return;
    if (this.#phase === PHASE.DATA_OUT) {
      const length = Math.min(s.fifo.length, s.waiting);
      for (const byte of s.fifo.splice(0, length)) {
        request.buffer[s.at] = byte;
        this.#moved(1, true);
      }
    } else if (s.fifo.length === 0) {
      s.fifo.push(request.buffer[s.at] ?? 0);
      this.#moved(1, false);
    }
    if (s.waiting === 0) request.continue();
    else this.#interrupt(INTERRUPT.SERVICE_REQUEST);
  }

  #transferDone(): void {
    this.#host.regs.STATREG.value |= STATUS.COUNT_TO_ZERO;
    this.#s.count = 0;
    this.#interrupt(INTERRUPT.SERVICE_REQUEST);
  }

  /** The status and COMMAND COMPLETE, to memory or to the FIFO. */
  #receiveStatus(): void {
    const s = this.#s;
    const { regs } = this.#host;
    if (s.dma) {
      this.#bytes[0] = s.status;
      this.#bytes[1] = 0;
      this.#host.writeMemory(this.#bytes, 0, 2);
      regs.ISREG.value = STEP.COMMAND;
      this.#setStatus(STATUS.COUNT_TO_ZERO | PHASE.MESSAGE_IN);
      this.#interrupt(INTERRUPT.SERVICE_REQUEST | INTERRUPT.SUCCESSFUL_OPERATION);
    } else {
      s.fifo = [s.status, 0];
      regs.STATREG.value |= PHASE.MESSAGE_IN;
      this.#interrupt(INTERRUPT.SUCCESSFUL_OPERATION);
    }
  }

  // What the target has to say

  transfer(_request: ScsiRequest, length: number): void {
    const s = this.#s;
    s.waiting = length;
    s.at = 0;
    if (this.#phase !== PHASE.DATA_OUT && s.firstData) {
      s.firstData = false;
      this.#host.regs.STATREG.value |= STATUS.COUNT_TO_ZERO;
      this.#interrupt(INTERRUPT.SERVICE_REQUEST);
    }
    if (s.transfer === (COMMAND.INFORMATION_TRANSFER | COMMAND.DMA)) {
      if (s.count !== 0) this.#moveByDma();
      else if (s.left <= 0) this.#transferDone();
    } else if (s.transfer === COMMAND.INFORMATION_TRANSFER) {
      this.#moveByFifo();
    }
  }

  complete(request: ScsiRequest): void {
    const s = this.#s;
    if (request !== this.request) return;
    // By FIFO the last byte is still to be read.
    if (s.dma || this.#phase === PHASE.DATA_OUT) s.left = 0;
    s.waiting = 0;
    s.status = request.status;
    if (s.left === 0) {
      this.#setStatus(STATUS.COUNT_TO_ZERO | PHASE.STATUS);
      this.#transferDone();
    }
    this.request = undefined;
    this.#host.commandEnded();
  }

  cancelled(request: ScsiRequest): void {
    if (request !== this.request) return;
    this.request = undefined;
    this.#s.waiting = 0;
  }
}
