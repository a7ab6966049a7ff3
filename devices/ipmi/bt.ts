import type { IrqLine } from '../../core/irq/line.ts';
import type { IoHandler } from '../../core/memory/memory-region.ts';
import {
  bit,
  type RegisterBank,
  type RegisterHooks,
  type Registers,
  r8,
  registerMap,
} from '../../core/register/register.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import type { Bmc, SystemInterface } from './bmc.ts';
import { COMPLETION, MAX_MESSAGE, NETFN, RESPONSE_BIT } from './message.ts';

/** Block Transfer interface (IPMI 2.0, section 11.6). */
export const btRegisters = registerMap('ipmi-bt', {
  BT_CTRL: r8(0, {
    CLR_WR_PTR: bit(0, 'pulse'),
    CLR_RD_PTR: bit(1, 'pulse'),
    H2B_ATN: bit(2, 'pulse'),
    B2H_ATN: bit(3, 'w1c'),
    SMS_ATN: bit(4, 'w1c'),
    OEM0: bit(5, 'ro'),
    H_BUSY: bit(6, 'pulse'),
    B_BUSY: bit(7, 'ro'),
  }),
  HOST2BMC: r8(1, {}, { access: 'wo' }),
  BMC2HOST: r8(1, {}, { access: 'ro' }),
  INTMASK: r8(2, { B2H_IRQ_EN: bit(0), B2H_IRQ: bit(1, 'w1c') }),
});

/** Bits as software writes them: of BT_CTRL, and of INTMASK. */
const CLR_WR_PTR = 1 << 0;
const CLR_RD_PTR = 1 << 1;
const H2B_ATN = 1 << 2;
const H_BUSY = 1 << 6;
const B2H_IRQ_EN = 1 << 0;

/** Places in a message (section 11.3): its length, network function, sequence number and command. */
const LENGTH = 0;
const TARGET = 1;
const SEQUENCE = 2;
const COMMAND = 3;
const HEADER = 4;

/** Get BT Interface Capabilities (section 22.10), which the interface answers itself. */
const GET_BT_CAPABILITIES = 0x36;
const OUTSTANDING_REQUESTS = 1;
const RESPONSE_SECONDS = 10;
const RETRIES = 0;
const LONGEST = 0xff;

export const btState = {
  request: field.buffer(MAX_MESSAGE),
  truncated: field.bool(),
  response: field.buffer(MAX_MESSAGE),
  position: field.u16(),
  /** Of the request that is answered next. */
  id: field.u8(),
  sequence: field.u8(),
};

interface BtParts {
  readonly bmc: Bmc;
  bank(hooks: RegisterHooks<typeof btRegisters>): RegisterBank<typeof btRegisters>;
  readonly state: StateValues<typeof btState>;
  readonly irq: IrqLine | undefined;
}

/** A message at a time, through a buffer each way. */
export class Bt implements SystemInterface {
  readonly #bmc: Bmc;
  readonly #regs: Registers<typeof btRegisters>;
  readonly #state: StateValues<typeof btState>;
  readonly #irq: IrqLine | undefined;
  readonly handler: IoHandler;

  constructor({ bmc, bank, state, irq }: BtParts) {
    this.#bmc = bmc;
    this.#state = state;
    this.#irq = irq;
    const bound = bank({
      BT_CTRL: { wrote: value => this.#control(value) },
      HOST2BMC: { wrote: value => this.#take(value) },
      BMC2HOST: { read: () => this.#give() },
      INTMASK: { wrote: (value, previous) => this.#mask(value, previous) },
    });
    this.#regs = bound.regs;
    this.handler = {
      read: (offset, size) => (offset > 2 ? 0xff : bound.read(offset, size)),
      write: (offset, size, value) => {
        if (offset <= 2) bound.write(offset, size, value);
      },
    };
  }

  respond(id: number, response: Uint8Array): void {
    const state = this.#state;
    if (id !== state.id) return;
    state.id = (id + 1) & 0xff;
    const [target = 0, command = 0] = response;
    const fits = response.length <= MAX_MESSAGE - 2;
    const rest = fits ? response.subarray(1) : Uint8Array.of(command, COMPLETION.CANNOT_RETURN_BYTES);
    state.response = Uint8Array.of(rest.length + 2, target, state.sequence, ...rest);
    this.#answered();
  }

  setAttention(on: boolean, interrupt: boolean): void {
    const { BT_CTRL, INTMASK } = this.#regs;
    if (on === BT_CTRL.SMS_ATN) return;
    BT_CTRL.SMS_ATN = on;
    if (BT_CTRL.B2H_ATN) return;
    if (!on) INTMASK.B2H_IRQ = false;
    else if (interrupt && INTMASK.B2H_IRQ_EN) INTMASK.B2H_IRQ = true;
    this.#update();
  }

  interruptsChanged(): void {
    this.#update();
  }

  bmcReset(cold: boolean): void {
    if (!cold) return;
    this.#regs.INTMASK.B2H_IRQ = false;
    this.#regs.INTMASK.B2H_IRQ_EN = false;
    this.#update();
  }

  #control(written: number): void {
    const { BT_CTRL } = this.#regs;
    const state = this.#state;
    if ((written & CLR_WR_PTR) !== 0) {
      state.request = new Uint8Array(0);
      state.truncated = false;
    }
    if ((written & CLR_RD_PTR) !== 0) state.position = 0;
    if ((written & H_BUSY) !== 0) BT_CTRL.H_BUSY = !BT_CTRL.H_BUSY;
    if ((written & H2B_ATN) === 0) return;
    BT_CTRL.B_BUSY = true;
    this.#execute();
  }

  #take(value: number): void {
    const state = this.#state;
    if (state.request.length >= MAX_MESSAGE) state.truncated = true;
    else {
      const longer = new Uint8Array(state.request.length + 1);
      longer.set(state.request);
      longer[state.request.length] = value;
      state.request = longer;
    }
  }

  #give(): number {
    const state = this.#state;
    const byte = state.response[state.position];
    if (byte === undefined) return 0xff;
    state.position++;
    if (state.position === state.response.length) {
      state.position = 0;
      state.response = new Uint8Array(0);
    }
    return byte;
  }

  #execute(): void {
    const state = this.#state;
    const message = state.request;
    if (message.length < HEADER) return;
    if (message[LENGTH] !== message.length - 1 && !state.truncated) {
      state.request = new Uint8Array(0);
      return;
    }
    const target = message[TARGET] ?? 0;
    state.sequence = message[SEQUENCE] ?? 0;
    if (target === NETFN.APP << 2 && message[COMMAND] === GET_BT_CAPABILITIES) {
      const facts = [OUTSTANDING_REQUESTS, LONGEST, LONGEST, RESPONSE_SECONDS, RETRIES];
      const response = [target | RESPONSE_BIT, state.sequence, GET_BT_CAPABILITIES, COMPLETION.OK, ...facts];
      state.response = Uint8Array.of(response.length, ...response);
      this.#answered();
      return;
    }
    this.#bmc.request(state.id, Uint8Array.of(target, ...message.subarray(COMMAND)), state.truncated);
  }

  #answered(): void {
    const { BT_CTRL, INTMASK } = this.#regs;
    this.#state.position = 0;
    BT_CTRL.B_BUSY = false;
    BT_CTRL.B2H_ATN = true;
    if (INTMASK.B2H_IRQ_EN) INTMASK.B2H_IRQ = true;
    this.#update();
  }

  /** Enabling the interrupt tells of what waits already (section 11.6.3). */
  #mask(value: number, previous: number): void {
    const { BT_CTRL, INTMASK } = this.#regs;
    const enabled = (value & B2H_IRQ_EN) !== 0;
    if (enabled && (previous & B2H_IRQ_EN) === 0 && (BT_CTRL.B2H_ATN || BT_CTRL.SMS_ATN)) INTMASK.B2H_IRQ = true;
    if (!enabled) INTMASK.B2H_IRQ = false;
    this.#update();
  }

  #update(): void {
    this.#irq?.set(this.#regs.INTMASK.B2H_IRQ && this.#bmc.interruptsEnabled);
  }
}
