/** One of the five localities of a FIFO interface: who is asking, from system software (0) to the dynamic launch's hardware (4). */
import { field, type StateValues } from '../../core/state/fields.ts';

export const LOCALITIES = 5;
/** The locality of none. */
export const NO_LOCALITY = 0xff;

/** States of the interface (PC Client Platform TPM Profile, section 5.5.2.1). */
export const PHASE = { IDLE: 0, READY: 1, COMPLETION: 2, EXECUTION: 3, RECEPTION: 4 } as const;

export const localityFields = {
  phase: field.words(LOCALITIES),
  access: field.words(LOCALITIES),
  sts: field.words(LOCALITIES),
  intEnable: field.words(LOCALITIES),
  intStatus: field.words(LOCALITIES),
  interfaceId: field.words(LOCALITIES),
};

type Words = StateValues<typeof localityFields>;

/** Its registers, in the device's state. */
export class Locality {
  readonly number: number;
  readonly #words: Words;

  constructor(words: Words, number: number) {
    this.#words = words;
    this.number = number;
  }

  get phase(): number {
    return this.#words.phase[this.number] ?? 0;
  }
  set phase(value: number) {
    this.#words.phase[this.number] = value;
  }

  get access(): number {
    return this.#words.access[this.number] ?? 0;
  }
  set access(value: number) {
    this.#words.access[this.number] = value;
  }

  get sts(): number {
    return this.#words.sts[this.number] ?? 0;
  }
  set sts(value: number) {
    this.#words.sts[this.number] = value;
  }

  get intEnable(): number {
    return this.#words.intEnable[this.number] ?? 0;
  }
  set intEnable(value: number) {
    this.#words.intEnable[this.number] = value;
  }

  get intStatus(): number {
    return this.#words.intStatus[this.number] ?? 0;
  }
  set intStatus(value: number) {
    this.#words.intStatus[this.number] = value;
  }

  get interfaceId(): number {
    return this.#words.interfaceId[this.number] ?? 0;
  }
  set interfaceId(value: number) {
    this.#words.interfaceId[this.number] = value;
  }
}
