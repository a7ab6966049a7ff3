import { I2cDevice, i2cProperties } from '../../core/bus/i2c.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { field } from '../../core/state/fields.ts';
import { bmcLink, type DescribedInterface, type IpmiDescription, namedBmc, type SystemInterface } from './bmc.ts';
import { COMPLETION, NETFN, RESPONSE_BIT } from './message.ts';

/** SMBus commands (IPMI 2.0, section 12.3 and table 12-7). */
const SMBUS = {
  WRITE_SINGLE: 0x02,
  READ_START: 0x03,
  WRITE_START: 0x06,
  WRITE_MIDDLE: 0x07,
  WRITE_END: 0x08,
  READ_MIDDLE: 0x09,
  READ_RETRY: 0x0a,
} as const;

/** Bytes of one transfer, and of one message. */
const BLOCK = 32;
const MESSAGE = 255;
/** What a part of a long response starts with: a number of its own, and in the first part a pattern (table 12-4). */
const FIRST_PART = BLOCK - 2;
const NEXT_PART = BLOCK - 1;
const START_PATTERN = [0x00, 0x01];
const LAST_PART = 0xff;

/** Get System Interface Capabilities (section 22.9), which the interface answers itself. */
const GET_CAPABILITIES = 0x57;
const MULTI_PART = 2 << 6;

const properties = { ...i2cProperties, ...bmcLink } as const;

/** SMBus System Interface (IPMI 2.0, section 12): messages in blocks of at most 32 bytes. */
class SmbusIpmi extends I2cDevice<typeof properties> implements SystemInterface, DescribedInterface {
  readonly #bmc = namedBmc(this.props);
  readonly #state = this.state(1, {
    /** What the controller writes in the present transfer: a command, a count and as many bytes. */
    written: field.buffer(BLOCK + 2),
    writing: field.bool(),
    request: field.buffer(MESSAGE),
    response: field.buffer(MESSAGE),
    part: field.u16(),
    /** What the controller reads in the present transfer. */
    block: field.buffer(BLOCK + 1),
    position: field.u8(),
    id: field.u8(),
  });

  get ipmi(): IpmiDescription {
    return { kind: 'ssif', base: this.address, length: 0, slaveAddress: this.#bmc.slaveAddress, irq: 0 };
  }

  protected override realize(): void {
    this.onUnrealize(this.#bmc.join(this));
  }

  override start(read: boolean): boolean {
    const state = this.#state;
    if (read) {
      this.#written();
      // What there is nothing of is not acknowledged, and asked for again.
      return state.block.length > 0;
    }
    state.written = new Uint8Array(0);
    state.block = new Uint8Array(0);
    state.writing = true;
    return true;
  }

  override receive(byte: number): boolean {
    const state = this.#state;
    if (!state.writing || state.written.length >= BLOCK + 2) return false;
    state.written = Uint8Array.of(...state.written, byte);
    return true;
  }

  override transmit(): number {
    const state = this.#state;
    const byte = state.block[state.position];
    if (byte === undefined) return 0xff;
    state.position++;
    return byte;
  }

  override stop(): void {
    this.#written();
  }

  respond(id: number, response: Uint8Array): void {
    const state = this.#state;
    if (id !== state.id) return;
    state.id = (id + 1) & 0xff;
    const [target = 0, command = 0] = response;
    state.response =
      response.length > MESSAGE ? Uint8Array.of(target, command, COMPLETION.DATA_TRUNCATED) : response.slice();
    state.part = 0;
  }

  /** Software has to ask: there is no alert line. */
  setAttention(): void {}
  interruptsChanged(): void {}
  bmcReset(): void {}

  /** The controller has finished writing. */
  #written(): void {
    const state = this.#state;
    if (!state.writing) return;
    state.writing = false;
    const [command, count = 0, ...bytes] = state.written;
    switch (command) {
      case SMBUS.READ_START:
        this.#show(0);
        break;
      case SMBUS.READ_MIDDLE:
        this.#show(state.part + 1);
        break;
      case SMBUS.READ_RETRY:
        if (state.written.length > 1) this.#show(count);
        break;
      case SMBUS.WRITE_SINGLE:
      case SMBUS.WRITE_START:
        if (count !== bytes.length || count < 2) return;
        state.request = Uint8Array.from(bytes);
        if (command === SMBUS.WRITE_SINGLE) this.#execute();
        break;
      case SMBUS.WRITE_MIDDLE:
      case SMBUS.WRITE_END:
        this.#append(count, bytes, command === SMBUS.WRITE_END);
        break;
    }
  }

  /** A part that is not full is the last one, whatever it is called: drivers differ. */
  #append(count: number, bytes: readonly number[], last: boolean): void {
    const state = this.#state;
    if (count !== bytes.length || state.request.length === 0) return;
    if (state.request.length + count > MESSAGE) {
      state.request = new Uint8Array(0);
      return;
    }
    state.request = Uint8Array.of(...state.request, ...bytes);
    if (last || count < BLOCK) this.#execute();
  }

  #execute(): void {
    const state = this.#state;
    const message = state.request;
    state.request = new Uint8Array(0);
    state.response = new Uint8Array(0);
    state.part = 0;
    const [target, command, which] = message;
    if (target !== NETFN.APP << 2 || command !== GET_CAPABILITIES) {
      this.#bmc.request(state.id, message, false);
      return;
    }
    const head = [target | RESPONSE_BIT, command];
    if (which === undefined) state.response = Uint8Array.of(...head, COMPLETION.DATA_LENGTH_INVALID);
    else if ((which & 0x0f) !== 0) state.response = Uint8Array.of(...head, COMPLETION.INVALID_DATA_FIELD);
    else state.response = Uint8Array.of(...head, COMPLETION.OK, 0, MULTI_PART, MESSAGE, MESSAGE);
  }

  /** Makes a part of the response what is read next; of what there is not, nothing. */
  #show(part: number): void {
    const state = this.#state;
    const { response } = state;
    state.part = part;
    state.position = 0;
    if (response.length <= BLOCK) {
      state.block = part === 0 && response.length > 0 ? counted(response) : new Uint8Array(0);
      return;
    }
    if (part === 0) {
      state.block = counted([...START_PATTERN, ...response.subarray(0, FIRST_PART)]);
      return;
    }
    const bytes = response.subarray(FIRST_PART + (part - 1) * NEXT_PART).subarray(0, NEXT_PART);
    const end = FIRST_PART + part * NEXT_PART >= response.length;
    state.block = bytes.length === 0 ? new Uint8Array(0) : counted([end ? LAST_PART : part - 1, ...bytes]);
  }
}

const counted = (bytes: ArrayLike<number>): Uint8Array => Uint8Array.of(bytes.length, ...Array.from(bytes));

export const smbusIpmi = deviceType({
  type: 'smbus-ipmi',
  summary: 'IPMI interface on the SMBus',
  bus: 'i2c-bus',
  parents: ['smbus-device', 'i2c-slave', 'device'],
  properties,
  create: SmbusIpmi,
});
