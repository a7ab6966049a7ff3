/** Commands of a memory device (CXL 2.0, section 8.2.9): what software asks through the mailbox, and what it gets. */
import type { DeviceClock } from '../../core/device/device.ts';
import { uuidOctets } from '../../core/firmware/machine-items.ts';
import { copyFromRam, copyToRam } from '../../core/memory/copy.ts';
import { eachStretch, type MemoryBackend } from '../../core/memory/memory-backend.ts';
import { field, type StateFields, type StateValues } from '../../core/state/fields.ts';
import { PAYLOAD_SIZE } from './device-registers.ts';

/** 8.2.8.4.5.1 */
export const RETURN_CODE = {
  SUCCESS: 0x00,
  INVALID_INPUT: 0x02,
  UNSUPPORTED: 0x03,
  INTERNAL_ERROR: 0x04,
  INVALID_PAYLOAD_LENGTH: 0x16,
} as const;
type ReturnCode = (typeof RETURN_CODE)[keyof typeof RETURN_CODE];

/** Table 168: what a command has changed by the time it is done. */
const EFFECT = { CONFIGURATION: 1 << 1, DATA: 1 << 2, POLICY: 1 << 3, LOG: 1 << 4 } as const;

/** Capacities are counted in these. */
const CAPACITY_UNIT = 2 ** 28;
const FIRMWARE = 'BWFW VERSION 0';
/** 8.2.9.2.1: two slots, of which the first is active and the next too. */
const FIRMWARE_SLOTS = { COUNT: 2, INFO: (1 << 0) | (1 << 3) } as const;
const HIGH = 2 ** 32;
/** 8.2.9.4.1, table 169 */
const COMMAND_EFFECTS_LOG = uuidOctets('0da9c0b5-bf41-4b78-8f79-96b1623b3f17');
const LOG_ENTRY = 4;
const SET_LSA_HEADER = 8;

/** What is saved. The time that the host set goes on through resets (8.2.9.3). */
export const mailboxState = {
  timeSet: field.bool(),
  timeLow: field.u32(),
  timeHigh: field.u32(),
  /** Virtual time, in nanoseconds, when the host set the time. */
  timeSetAt: field.number(),
  interruptPolicy: field.u32(),
} satisfies StateFields;

export interface MailboxParts {
  /** The command's payload, in and out: {@link PAYLOAD_SIZE} bytes. */
  readonly payload: Uint8Array;
  readonly clock: DeviceClock;
  /** The device's memory and label storage; undefined before the device is on its bus. */
  memory(): MemoryBackend | undefined;
  labels(): MemoryBackend | undefined;
}

interface Command {
  readonly opcode: number;
  /** Bytes of input; undefined for any. */
  readonly input: number | undefined;
  readonly effect: number;
  /** @param length of the input. Returns what failed, or the bytes of output; 0 for none. */
  run(length: number): Outcome;
}

type Outcome = { readonly code: ReturnCode; readonly length: number };
const DONE: Outcome = { code: RETURN_CODE.SUCCESS, length: 0 };

function failed(code: ReturnCode): Outcome {
  return { code, length: 0 };
}

export class Mailbox {
  readonly #payload: Uint8Array;
  readonly #view: DataView;
  readonly #parts: MailboxParts;
  readonly #state: StateValues<typeof mailboxState>;
  readonly #commands: readonly Command[];
  readonly #byOpcode: ReadonlyMap<number, Command>;

  constructor(parts: MailboxParts, state: StateValues<typeof mailboxState>) {
    this.#parts = parts;
    this.#payload = parts.payload;
    this.#view = new DataView(parts.payload.buffer, parts.payload.byteOffset, parts.payload.length);
    this.#state = state;
    this.#commands = this.#commandSet();
    this.#byOpcode = new Map(this.#commands.map(command => [command.opcode, command]));
  }

  /** Runs a command whose `length` bytes of input are in the payload, where its output then is. */
  run(opcode: number, length: number): Outcome {
    const command = this.#byOpcode.get(opcode);
    if (command === undefined) return failed(RETURN_CODE.UNSUPPORTED);
    if (length > PAYLOAD_SIZE || (command.input !== undefined && command.input !== length))
      return failed(RETURN_CODE.INVALID_PAYLOAD_LENGTH);
    return command.run(length);
  }

  /** In the order of their opcodes, as the log of them has them. */
  #commandSet(): Command[] {
    return [
      { opcode: 0x0100, input: 1, effect: 0, run: () => this.#zeros(0x20) },
      { opcode: 0x0101, input: undefined, effect: EFFECT.LOG, run: () => DONE },
      { opcode: 0x0102, input: 0, effect: 0, run: () => this.#interruptPolicy() },
      { opcode: 0x0103, input: 4, effect: EFFECT.CONFIGURATION, run: () => this.#setInterruptPolicy() },
      { opcode: 0x0200, input: 0, effect: 0, run: () => this.#firmwareInfo() },
      { opcode: 0x0300, input: 0, effect: 0, run: () => this.#timestamp() },
      { opcode: 0x0301, input: 8, effect: EFFECT.POLICY, run: () => this.#setTimestamp() },
      { opcode: 0x0400, input: 0, effect: 0, run: () => this.#supportedLogs() },
      { opcode: 0x0401, input: 0x18, effect: 0, run: () => this.#log() },
      { opcode: 0x4000, input: 0, effect: 0, run: () => this.#identify() },
      { opcode: 0x4100, input: 0, effect: 0, run: () => this.#partitions() },
      { opcode: 0x4102, input: 8, effect: 0, run: () => this.#labels() },
      {
        opcode: 0x4103,
        input: undefined,
        effect: EFFECT.CONFIGURATION | EFFECT.DATA,
        run: length => this.#setLabels(length),
      },
    ];
  }

  // Events (8.2.9.1): there never are any

  #zeros(length: number): Outcome {
    this.#payload.fill(0, 0, length);
    return { code: RETURN_CODE.SUCCESS, length };
  }

  #interruptPolicy(): Outcome {
    this.#view.setUint32(0, this.#state.interruptPolicy, true);
    return { code: RETURN_CODE.SUCCESS, length: 4 };
  }

  #setInterruptPolicy(): Outcome {
    this.#state.interruptPolicy = this.#view.getUint32(0, true);
    return DONE;
  }

  // Firmware (8.2.9.2.1)

  #firmwareInfo(): Outcome {
    if (this.#size < CAPACITY_UNIT) return failed(RETURN_CODE.INTERNAL_ERROR);
    const outcome = this.#zeros(0x50);
    this.#payload[0] = FIRMWARE_SLOTS.COUNT;
    this.#payload[1] = FIRMWARE_SLOTS.INFO;
    this.#text(0x10, FIRMWARE);
    return outcome;
  }

  // Time (8.2.9.3)

  #timestamp(): Outcome {
    const { timeSet, timeLow, timeHigh, timeSetAt } = this.#state;
    const passed = timeSet ? Math.max(0, this.#parts.clock.now() - timeSetAt) : 0;
    const low = (timeSet ? timeLow : 0) + (passed % HIGH);
    const high = (timeSet ? timeHigh : 0) + Math.floor(passed / HIGH) + Math.floor(low / HIGH);
    this.#view.setUint32(0, low % HIGH, true);
    this.#view.setUint32(4, high % HIGH, true);
    return { code: RETURN_CODE.SUCCESS, length: 8 };
  }

  #setTimestamp(): Outcome {
    const state = this.#state;
    state.timeSet = true;
    state.timeLow = this.#view.getUint32(0, true);
    state.timeHigh = this.#view.getUint32(4, true);
    state.timeSetAt = this.#parts.clock.now();
    return DONE;
  }

  // Logs (8.2.9.4): that of which commands there are

  get #logSize(): number {
    return this.#commands.length * LOG_ENTRY;
  }

  #supportedLogs(): Outcome {
    const outcome = this.#zeros(0x1c);
    this.#view.setUint16(0, 1, true);
    this.#payload.set(COMMAND_EFFECTS_LOG, 8);
    this.#view.setUint32(0x18, this.#logSize, true);
    return outcome;
  }

  #log(): Outcome {
    if (COMMAND_EFFECTS_LOG.some((byte, index) => this.#payload[index] !== byte))
      return failed(RETURN_CODE.UNSUPPORTED);
    const offset = this.#view.getUint32(0x10, true);
    const length = this.#view.getUint32(0x14, true);
    if (offset + length > this.#logSize) return failed(RETURN_CODE.INVALID_INPUT);
    const log = new DataView(new ArrayBuffer(this.#logSize));
    for (const [index, { opcode, effect }] of this.#commands.entries()) {
      log.setUint16(index * LOG_ENTRY, opcode, true);
      log.setUint16(index * LOG_ENTRY + 2, effect, true);
    }
    this.#payload.set(new Uint8Array(log.buffer, offset, length), 0);
    return { code: RETURN_CODE.SUCCESS, length };
  }

  // The memory (8.2.9.5.1 and 8.2.9.5.2): all of it keeps its contents

  get #size(): number {
    return this.#parts.memory()?.size ?? 0;
  }

  #identify(): Outcome {
    if (this.#size % CAPACITY_UNIT !== 0) return failed(RETURN_CODE.INTERNAL_ERROR);
    const outcome = this.#zeros(0x43);
    this.#text(0, `${FIRMWARE}0`);
    this.#view.setUint32(0x10, this.#size / CAPACITY_UNIT, true);
    this.#view.setUint32(0x20, this.#size / CAPACITY_UNIT, true);
    this.#view.setUint32(0x38, (this.#parts.labels()?.size ?? 0) % HIGH, true);
    return outcome;
  }

  #partitions(): Outcome {
    if (this.#size % CAPACITY_UNIT !== 0) return failed(RETURN_CODE.INTERNAL_ERROR);
    const outcome = this.#zeros(0x20);
    this.#view.setUint32(0x08, this.#size / CAPACITY_UNIT, true);
    return outcome;
  }

  // Label storage (8.2.9.5.2.3 and 8.2.9.5.2.4)

  #labels(): Outcome {
    const offset = this.#view.getUint32(0, true);
    const length = this.#view.getUint32(4, true);
    const labels = this.#parts.labels();
    if (labels === undefined || length > PAYLOAD_SIZE || offset + length > labels.size)
      return failed(RETURN_CODE.INVALID_INPUT);
    eachStretch(labels, offset, length, (bytes, from, done, size) =>
      copyFromRam(bytes, from, this.#payload, done, size),
    );
    return { code: RETURN_CODE.SUCCESS, length };
  }

  #setLabels(input: number): Outcome {
    if (input === 0) return DONE;
    if (input < SET_LSA_HEADER) return failed(RETURN_CODE.INVALID_PAYLOAD_LENGTH);
    const offset = this.#view.getUint32(0, true);
    const length = input - SET_LSA_HEADER;
    const labels = this.#parts.labels();
    if (labels === undefined || offset + length > labels.size) return failed(RETURN_CODE.INVALID_INPUT);
    if (labels.contents().some(({ readonly }) => readonly)) return failed(RETURN_CODE.INTERNAL_ERROR);
    eachStretch(labels, offset, length, (bytes, from, done, size) =>
      copyToRam(this.#payload, SET_LSA_HEADER + done, bytes, from, size),
    );
    return DONE;
  }

  #text(at: number, value: string): void {
    for (let index = 0; index < value.length; index++) this.#payload[at + index] = value.charCodeAt(index);
  }
}
