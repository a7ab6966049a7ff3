import type { IrqLine } from '../../core/irq/line.ts';
import type { IoHandler } from '../../core/memory/memory-region.ts';
import { bit, bits, type RegisterBank, type Registers, r8, registerMap } from '../../core/register/register.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import type { Bmc, SystemInterface } from './bmc.ts';
import { COMPLETION, MAX_MESSAGE } from './message.ts';

/** Keyboard Controller Style interface (IPMI 2.0, section 9.1). */
export const kcsRegisters = registerMap('ipmi-kcs', {
  DATA_OUT: r8(0, {}, { access: 'ro' }),
  DATA_IN: r8(0, {}, { access: 'wo' }),
  STATUS: r8(1, { OBF: bit(0), IBF: bit(1), SMS_ATN: bit(2), CD: bit(3), STATE: bits(6, 2) }, { access: 'ro' }),
  COMMAND: r8(1, {}, { access: 'wo' }),
});
type Regs = Registers<typeof kcsRegisters>;

/** STATUS.STATE (table 9-2). */
export const KCS_STATE = { IDLE: 0, READ: 1, WRITE: 2, ERROR: 3 } as const;
/** Control codes (table 9-3). */
export const KCS_CODE = { GET_STATUS_ABORT: 0x60, WRITE_START: 0x61, WRITE_END: 0x62, READ: 0x68 } as const;
/** Interface status codes (table 9-4). */
export const KCS_STATUS = { ABORTED: 0x01, ILLEGAL_CONTROL_CODE: 0x02 } as const;

export const kcsState = {
  request: field.buffer(MAX_MESSAGE),
  truncated: field.bool(),
  lastByte: field.bool(),
  response: field.buffer(MAX_MESSAGE),
  position: field.u16(),
  /** Of the request that is answered next. */
  id: field.u8(),
  outputPending: field.bool(),
  attentionPending: field.bool(),
};

interface KcsParts {
  readonly bmc: Bmc;
  readonly bank: RegisterBank<typeof kcsRegisters>;
  readonly state: StateValues<typeof kcsState>;
  readonly irq: IrqLine | undefined;
}

/** The interface's state machine (section 9.15): a byte at a time, each acknowledged by the output buffer. */
export class Kcs implements SystemInterface {
  readonly #bmc: Bmc;
  readonly #regs: Regs;
  readonly #state: StateValues<typeof kcsState>;
  readonly #irq: IrqLine | undefined;
  readonly handler: IoHandler;

  constructor({ bmc, bank, state, irq }: KcsParts) {
    this.#bmc = bmc;
    this.#regs = bank.regs;
    this.#state = state;
    this.#irq = irq;
    this.handler = {
      read: (offset, size) => (offset > 1 ? 0xff : this.#read(offset, bank.read(offset, size))),
      write: (offset, _size, value) => {
        if (offset <= 1) this.#write(offset, value);
      },
    };
  }

  respond(id: number, response: Uint8Array): void {
    const state = this.#state;
    if (id !== state.id) return;
    state.id = (id + 1) & 0xff;
    state.response =
      response.length > MAX_MESSAGE
        ? Uint8Array.of(response[0] ?? 0, response[1] ?? 0, COMPLETION.CANNOT_RETURN_BYTES)
        : response.slice();
    state.position = 0;
    this.#regs.STATUS.STATE = KCS_STATE.READ;
    this.#readNext(KCS_CODE.READ);
    this.#regs.STATUS.IBF = false;
  }

  setAttention(on: boolean, interrupt: boolean): void {
    this.#regs.STATUS.SMS_ATN = on;
    if (on && !interrupt) return;
    this.#state.attentionPending = on;
    this.#update();
  }

  interruptsChanged(): void {
    this.#update();
  }

  bmcReset(): void {}

  #read(offset: number, value: number): number {
    if (offset === 0) {
      this.#regs.STATUS.OBF = false;
      this.#state.outputPending = false;
    } else this.#state.attentionPending = false;
    this.#update();
    return value;
  }

  #write(offset: number, value: number): void {
    const { STATUS } = this.#regs;
    if (STATUS.IBF) return;
    STATUS.IBF = true;
    STATUS.CD = offset === 1;
    const answered = offset === 1 ? this.#command(value) : this.#data(value);
    if (answered) STATUS.IBF = false;
  }

  /** False where the BMC has the request, and takes its time. */
  #command(code: number): boolean {
    const { STATUS } = this.#regs;
    const state = this.#state;
    if (code === KCS_CODE.GET_STATUS_ABORT) {
      if (STATUS.STATE !== KCS_STATE.ERROR) {
        state.id = (state.id + 1) & 0xff; // what is still answered is of no interest any more
        this.#fail(KCS_STATUS.ABORTED);
        this.#output();
      }
    } else if (code === KCS_CODE.WRITE_START && STATUS.STATE === KCS_STATE.IDLE) {
      STATUS.STATE = KCS_STATE.WRITE;
      state.request = new Uint8Array(0);
      state.truncated = false;
      state.lastByte = false;
      this.#output();
    } else if (code === KCS_CODE.WRITE_END && STATUS.STATE === KCS_STATE.WRITE) {
      state.lastByte = true;
      this.#output();
    } else this.#fail(KCS_STATUS.ILLEGAL_CONTROL_CODE);
    return true;
  }

  #data(value: number): boolean {
    const { STATUS } = this.#regs;
    switch (STATUS.STATE) {
      case KCS_STATE.WRITE:
        return this.#take(value);
      case KCS_STATE.READ:
        this.#readNext(value);
        return true;
      case KCS_STATE.ERROR:
        // The status code is read as a response of one byte.
        STATUS.STATE = KCS_STATE.READ;
        this.#readNext(KCS_CODE.READ);
        return true;
      default:
        return true;
    }
  }

  /** A byte of a request; with the last one the BMC gets it. */
  #take(value: number): boolean {
    const state = this.#state;
    if (state.request.length < MAX_MESSAGE) state.request = appended(state.request, value);
    else state.truncated = true;
    if (!state.lastByte) {
      this.#output();
      return true;
    }
    state.lastByte = false;
    state.response = new Uint8Array(0);
    state.position = 0;
    this.#bmc.request(state.id, state.request, state.truncated);
    return false;
  }

  #readNext(code: number): void {
    const { STATUS, DATA_OUT } = this.#regs;
    const state = this.#state;
    if (state.position >= state.response.length) STATUS.STATE = KCS_STATE.IDLE;
    else if (code === KCS_CODE.READ) DATA_OUT.value = state.response[state.position++] ?? 0;
    else this.#fail(KCS_STATUS.ILLEGAL_CONTROL_CODE);
    this.#output();
  }

  #fail(status: number): void {
    this.#state.response = Uint8Array.of(status);
    this.#state.position = 0;
    this.#regs.STATUS.STATE = KCS_STATE.ERROR;
  }

  #output(): void {
    this.#regs.STATUS.OBF = true;
    this.#state.outputPending = true;
    this.#update();
  }

  #update(): void {
    const pending = this.#state.outputPending || this.#state.attentionPending;
    this.#irq?.set(pending && this.#bmc.interruptsEnabled);
  }
}

function appended(bytes: Uint8Array, byte: number): Uint8Array {
  const longer = new Uint8Array(bytes.length + 1);
  longer.set(bytes);
  longer[bytes.length] = byte;
  return longer;
}
