import { field, type StateFields, type StateValues } from '../state/fields.ts';
import type { ConfigSpace } from './config-space.ts';

/** Data Object Exchange (PCI Express 6.0, sections 6.30 and 7.9.24): software writes a request, word by word, and reads an answer. */

const CAPABILITY = { ID: 0x002e, VERSION: 1, SIZE: 0x18 } as const;
const REGISTER = { CAPABILITIES: 0x04, CONTROL: 0x08, STATUS: 0x0c, WRITE_MAILBOX: 0x10, READ_MAILBOX: 0x14 } as const;
const CONTROL = { ABORT: 1 << 0, INTERRUPT_ENABLE: 1 << 1, GO: 0x8000_0000 } as const;
const STATUS = { INTERRUPT: 1 << 1, ERROR: 1 << 2, READY: 0x8000_0000 } as const;
const INTERRUPT_SUPPORT = 1 << 0;
/** Table 6-32. */
const PCI_SIG = 0x0001;
const DISCOVERY = 0x00;
/** Words of a request that any protocol here looks at: two of header, and what comes first. */
const KEPT_WORDS = 4;
const HEADER_WORDS = 2;
/** An object's length field has 18 bits, and 0 stands for one more than they hold. */
const MAX_WORDS = 1 << 18;
/** The largest answer: a table entry's length has 16 bits. */
const MAX_ANSWER = 0x1_1000;

/** What an object is: its vendor and type, and who answers requests of it. */
export interface DataObjectProtocol {
  readonly vendor: number;
  readonly type: number;
  /**
   * @param request words behind the header, with 0 where the request ends
   * @param length words of the request, header and all
   * @returns what comes behind the header of the answer, in bytes; undefined discards the request
   */
  answer(request: readonly number[], length: number): Uint8Array | undefined;
}

export interface DataObjectExchangeParts {
  readonly config: ConfigSpace;
  readonly at: number;
  /** The message that tells of answers, and how it is sent. */
  readonly vector: number;
  readonly notify: (vector: number) => void;
  readonly protocols: readonly DataObjectProtocol[];
}

/** What is saved of it; the device declares it as state of its own. */
export const dataObjectState = {
  interruptEnabled: field.bool(),
  interrupt: field.bool(),
  error: field.bool(),
  ready: field.bool(),
  /** Words written so far, and the first of them. */
  written: field.u32(),
  request: field.words(KEPT_WORDS),
  /** Words of the answer that were read. */
  taken: field.u32(),
  answer: field.buffer(MAX_ANSWER),
} satisfies StateFields;

/** One instance, in a function's configuration space. */
export class DataObjectExchange {
  readonly #parts: DataObjectExchangeParts;
  readonly #state: StateValues<typeof dataObjectState>;

  constructor(parts: DataObjectExchangeParts, state: StateValues<typeof dataObjectState>) {
    this.#parts = parts;
    this.#state = state;
    const { config, at, vector } = parts;
    config.addExtendedCapability(CAPABILITY.ID, CAPABILITY.VERSION, at);
    config.set32(at + REGISTER.CAPABILITIES, INTERRUPT_SUPPORT | (vector << 1));
  }

  /** Puts into configuration space what a read of it will show. */
  refresh(): void {
    const { config, at } = this.#parts;
    const state = this.#state;
    config.set32(at + REGISTER.CONTROL, state.interruptEnabled ? CONTROL.INTERRUPT_ENABLE : 0);
    config.set32(
      at + REGISTER.STATUS,
      ((state.interrupt ? STATUS.INTERRUPT : 0) |
        (state.error ? STATUS.ERROR : 0) |
        (state.ready ? STATUS.READY : 0)) >>>
        0,
    );
    config.set32(at + REGISTER.READ_MAILBOX, state.ready && !state.error ? this.#answerWord(state.taken) : 0);
  }

  /** Software wrote `size` bytes of configuration space at `offset`. */
  written(offset: number, size: number, value: number): void {
    const register = (offset & ~3) - this.#parts.at;
    if (register < REGISTER.CONTROL || register >= CAPABILITY.SIZE) return;
    const lane = offset & 3;
    // 7.9.24: the mailboxes take whole words only.
    if (register === REGISTER.WRITE_MAILBOX && size === 4) this.#take(value);
    else if (register === REGISTER.READ_MAILBOX && size === 4) this.#next();
    else if (register === REGISTER.CONTROL) this.#control((value << (8 * lane)) >>> 0, lane === 0);
    else if (register === REGISTER.STATUS && lane === 0 && (value & STATUS.INTERRUPT) !== 0)
      this.#state.interrupt = false;
    this.refresh();
  }

  #control(value: number, lowByte: boolean): void {
    const state = this.#state;
    if ((value & CONTROL.ABORT) !== 0) {
      state.ready = false;
      state.error = false;
      this.#clear();
      return;
    }
    if (lowByte) state.interruptEnabled = (value & CONTROL.INTERRUPT_ENABLE) !== 0;
    if ((value & CONTROL.GO) !== 0) this.#go();
  }

  #take(value: number): void {
    const state = this.#state;
    if (state.written < KEPT_WORDS) state.request[state.written] = value;
    state.written = Math.min(state.written + 1, MAX_WORDS + 1);
  }

  /** Software is done with a word of the answer: with the last it is over, beyond it is a mistake. */
  #next(): void {
    const state = this.#state;
    const words = Math.ceil(state.answer.length / 4);
    state.taken++;
    if (state.taken === words) {
      this.#clear();
      state.ready = false;
    } else if (state.taken > words) {
      state.taken = words;
      state.error = true;
      this.#interrupt();
    }
  }

  /** 6.30.1: what is not as long as it says, or of no protocol here, is dropped without a word. */
  #go(): void {
    const state = this.#state;
    if (state.error) return;
    const [kind = 0, lengthField = 0, ...rest] = state.request;
    const length = lengthField & (MAX_WORDS - 1) || MAX_WORDS;
    const answer = length === state.written ? this.#answer(kind, rest, length) : undefined;
    if (answer === undefined) {
      this.#clear();
      return;
    }
    const whole = new Uint8Array(4 * (HEADER_WORDS + Math.ceil(answer.length / 4)));
    const view = new DataView(whole.buffer);
    view.setUint32(0, kind, true);
    view.setUint32(4, whole.length / 4, true);
    whole.set(answer, 4 * HEADER_WORDS);
    state.answer = whole;
    state.taken = 0;
    state.ready = true;
    this.#interrupt();
  }

  #answer(kind: number, request: readonly number[], length: number): Uint8Array | undefined {
    const { protocols } = this.#parts;
    if (kind === header(PCI_SIG, DISCOVERY)) return length > HEADER_WORDS ? this.#discover(request) : undefined;
    return protocols.find(({ vendor, type }) => header(vendor, type) === kind)?.answer(request, length);
  }

  /** 6.30.1.1: which protocols there are, one a request. Discovery itself is the first. */
  #discover([request = 0]: readonly number[]): Uint8Array {
    const { protocols } = this.#parts;
    const index = request & 0xff;
    const known = [{ vendor: PCI_SIG, type: DISCOVERY }, ...protocols];
    const { vendor, type } = known[index] ?? { vendor: 0xffff, type: 0xff };
    const next = index + 1 < known.length ? index + 1 : 0;
    return Uint8Array.of(vendor, vendor >>> 8, type, next);
  }

  #answerWord(index: number): number {
    const { answer } = this.#state;
    let word = 0;
    for (let byte = 3; byte >= 0; byte--) word = word * 256 + (answer[4 * index + byte] ?? 0);
    return word;
  }

  #clear(): void {
    const state = this.#state;
    state.written = 0;
    state.request.fill(0);
    state.taken = 0;
    state.answer = new Uint8Array(0);
  }

  #interrupt(): void {
    const state = this.#state;
    if (!state.interruptEnabled || state.interrupt) return;
    state.interrupt = true;
    this.#parts.notify(this.#parts.vector);
  }
}

function header(vendor: number, type: number): number {
  return (vendor | (type << 16)) >>> 0;
}
