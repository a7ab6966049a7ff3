import type { Dma } from '../../core/memory/dma.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { COMPLETION, MESSAGE, PAGE, REQUEST, RINGS, SETUP, SETUP_MESSAGES, STATE } from './registers.ts';

const ringFields = (pages: number) =>
  ({ pages: field.words(2 * pages), mask: field.u32(), next: field.u32() }) as const;

export const ringsFields = {
  /** Where the page of the rings' state is; 0 before the driver has said. */
  state: field.number(),
  valid: field.bool(),
  messagesValid: field.bool(),
  requests: field.record(ringFields(RINGS.PAGES_MAX)),
  completions: field.record(ringFields(RINGS.PAGES_MAX)),
  messages: field.record(ringFields(RINGS.MESSAGE_PAGES_MAX)),
} as const;

type RingState = StateValues<ReturnType<typeof ringFields>>;

/** The address of a page whose number is in two words. */
const pageAddress = (low: number, high: number): number => (high & 0xf_ffff) * 2 ** 44 + low * PAGE;

/** Takes `pages` page numbers, from word `from` of `words` on. Returns the logarithm of how many entries there are. */
function describe(ring: RingState, entryBytes: number, pages: number, words: Uint32Array, from: number): number {
  for (let word = 0; word < ring.pages.length; word++)
    ring.pages[word] = word < 2 * pages ? (words[from + word] ?? 0) : 0;
  const log2 = 32 - Math.clz32(pages * (PAGE / entryBytes) - 1);
  ring.mask = 2 ** log2 - 1;
  ring.next = 0;
  return log2;
}

/** The address of the entry that comes next. Indices count on and on; the ring goes round. */
function nextEntry(ring: RingState, entryBytes: number): number {
  const at = (ring.next & ring.mask) * entryBytes;
  ring.next = (ring.next + 1) >>> 0;
  const page = 2 * Math.floor(at / PAGE);
  return pageAddress(ring.pages[page] ?? 0, ring.pages[page + 1] ?? 0) + (at % PAGE);
}

/** A request that has ended. */
export interface Completed {
  readonly descriptor: { readonly contextLow: number; readonly contextHigh: number };
  /** Bytes of its data. */
  readonly moved: number;
}

/** The three rings in the driver's memory: requests, completions and messages. */
export class Rings {
  readonly #dma: Dma;
  readonly #s: StateValues<typeof ringsFields>;
  readonly #request = new Uint8Array(REQUEST.BYTES);
  readonly request = new DataView(this.#request.buffer);
  /** The command descriptor block of {@link request}. */
  readonly cdb = this.#request.subarray(REQUEST.CDB, REQUEST.CDB + REQUEST.CDB_MAX);
  readonly #completion = new Uint8Array(COMPLETION.BYTES);
  readonly #completionView = new DataView(this.#completion.buffer);
  readonly #message = new Uint8Array(MESSAGE.BYTES);
  readonly #messageView = new DataView(this.#message.buffer);

  constructor(dma: Dma, state: StateValues<typeof ringsFields>) {
    this.#dma = dma;
    this.#s = state;
  }

  get valid(): boolean {
    return this.#s.valid;
  }

  #tell(at: number, value: number): void {
    this.#dma.write32(this.#s.state + at, value);
  }

  /** SETUP_RINGS. False where there are no pages, or too many. */
  setup(data: Uint32Array): boolean {
    const s = this.#s;
    const requestPages = data[SETUP.REQUEST_PAGES] ?? 0;
    const completionPages = data[SETUP.COMPLETION_PAGES] ?? 0;
    if (!pagesFit(requestPages, RINGS.PAGES_MAX) || !pagesFit(completionPages, RINGS.PAGES_MAX)) return false;
    s.state = pageAddress(data[SETUP.STATE] ?? 0, data[SETUP.STATE + 1] ?? 0);
    const requestsLog2 = describe(s.requests, REQUEST.BYTES, requestPages, data, SETUP.REQUESTS);
    const completionsLog2 = describe(s.completions, COMPLETION.BYTES, completionPages, data, SETUP.COMPLETIONS);
    this.#tell(STATE.REQUEST_PRODUCER, 0);
    this.#tell(STATE.REQUEST_CONSUMER, 0);
    this.#tell(STATE.REQUEST_ENTRIES_LOG2, requestsLog2);
    this.#tell(STATE.COMPLETION_PRODUCER, 0);
    this.#tell(STATE.COMPLETION_CONSUMER, 0);
    this.#tell(STATE.COMPLETION_ENTRIES_LOG2, completionsLog2);
    s.valid = true;
    return true;
  }

  /** SETUP_MSG_RING, which does nothing before the other rings are there. False where there are no pages, or too many. */
  setupMessages(data: Uint32Array): boolean {
    const s = this.#s;
    if (!s.valid) return true;
    const pages = data[SETUP_MESSAGES.PAGES] ?? 0;
    if (!pagesFit(pages, RINGS.MESSAGE_PAGES_MAX)) return false;
    const log2 = describe(s.messages, MESSAGE.BYTES, pages, data, SETUP_MESSAGES.MESSAGES);
    this.#tell(STATE.MESSAGE_PRODUCER, 0);
    this.#tell(STATE.MESSAGE_CONSUMER, 0);
    this.#tell(STATE.MESSAGE_ENTRIES_LOG2, log2);
    s.messagesValid = true;
    return true;
  }

  /** Requests that the driver has put in. None where it says that there are more than the longest ring has. */
  get waiting(): number {
    const waiting = (this.#dma.read32(this.#s.state + STATE.REQUEST_PRODUCER) - this.#s.requests.next) >>> 0;
    return waiting < RINGS.REQUESTS_MAX ? waiting : 0;
  }

  /** Copies the next request to {@link request}; what cannot be read is 0. */
  take(): void {
    if (!this.#dma.read(nextEntry(this.#s.requests, REQUEST.BYTES), this.#request)) this.#request.fill(0);
  }

  /** Tells the driver how many requests have been taken. */
  taken(): void {
    this.#tell(STATE.REQUEST_CONSUMER, this.#s.requests.next);
  }

  /** Drivers have no more requests under way than there is room for completions: nobody looks at how far they are. */
  complete({ descriptor, moved }: Completed, hostStatus: number, scsiStatus: number, senseLength: number): void {
    const view = this.#completionView;
    view.setUint32(COMPLETION.CONTEXT, descriptor.contextLow, true);
    view.setUint32(COMPLETION.CONTEXT + 4, descriptor.contextHigh, true);
    view.setUint32(COMPLETION.DATA_LENGTH, moved, true);
    view.setUint32(COMPLETION.SENSE_LENGTH, senseLength, true);
    view.setUint16(COMPLETION.HOST_STATUS, hostStatus, true);
    view.setUint16(COMPLETION.SCSI_STATUS, scsiStatus, true);
    this.#dma.write(nextEntry(this.#s.completions, COMPLETION.BYTES), this.#completion);
  }

  /** Tells the driver how many completions there are. */
  completed(): void {
    this.#tell(STATE.COMPLETION_PRODUCER, this.#s.completions.next);
  }

  /** Sends the driver a message about a device. False where it has no ring for it, or no room there. */
  send(type: number, target: number, lun: number): boolean {
    const s = this.#s;
    if (!s.messagesValid) return false;
    const producer = this.#dma.read32(s.state + STATE.MESSAGE_PRODUCER);
    const consumer = this.#dma.read32(s.state + STATE.MESSAGE_CONSUMER);
    if ((producer - consumer) >>> 0 > s.messages.mask) return false;
    this.#messageView.setUint32(MESSAGE.TYPE, type, true);
    this.#messageView.setUint32(MESSAGE.TARGET, target, true);
    this.#message[MESSAGE.LUN + 1] = lun;
    this.#dma.write(nextEntry(s.messages, MESSAGE.BYTES), this.#message);
    this.#tell(STATE.MESSAGE_PRODUCER, s.messages.next);
    return true;
  }

  reset(): void {
    const s = this.#s;
    Object.assign(s, { state: 0, valid: false, messagesValid: false });
    for (const ring of [s.requests, s.completions, s.messages]) {
      ring.pages.fill(0);
      Object.assign(ring, { mask: 0, next: 0 });
    }
  }
}

const pagesFit = (pages: number, max: number): boolean => pages > 0 && pages <= max;
