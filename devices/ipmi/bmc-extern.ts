import type { Chardev } from '../../core/char/chardev.ts';
import { seconds } from '../../core/clock/units.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { field } from '../../core/state/fields.ts';
import { Bmc, bmcProperties, type ChassisOperation } from './bmc.ts';
import { COMPLETION, checksum, MAX_MESSAGE, RESPONSE_BIT } from './message.ts';

/** Bytes of the serial protocol that OpenIPMI's lanserv and QEMU speak (README.vm of OpenIPMI). */
const END_OF_MESSAGE = 0xa0;
const END_OF_COMMAND = 0xa1;
/** The next byte has {@link ESCAPED} set. */
const ESCAPE = 0xaa;
const ESCAPED = 0x10;

const COMMAND = {
  NO_ATTENTION: 0x00,
  ATTENTION: 0x01,
  ATTENTION_INTERRUPT: 0x02,
  POWER_OFF: 0x03,
  RESET: 0x04,
  ENABLE_INTERRUPT: 0x05,
  DISABLE_INTERRUPT: 0x06,
  SEND_NMI: 0x07,
  CAPABILITIES: 0x08,
  GRACEFUL_SHUTDOWN: 0x09,
  VERSION: 0xff,
} as const;
const CAPABILITY = {
  POWER: 0x01,
  RESET: 0x02,
  INTERRUPT: 0x04,
  NMI: 0x08,
  ATTENTION: 0x10,
  GRACEFUL_SHUTDOWN: 0x20,
} as const;
const PROTOCOL_VERSION = 1;

/** A request's number and checksum around it. */
const FRAMING = 2;
const SHORTEST_RESPONSE = 5;
const RESPONSE_DUE = seconds(4);

const properties = {
  ...bmcProperties,
  chardev: prop.backend<Chardev>('chardev', { help: 'id of the chardev that leads to the BMC' }),
} as const;

/** A BMC in another process, such as OpenIPMI's simulator. */
class BmcExtern extends Bmc<typeof properties> {
  readonly slaveAddress = this.props.slave_addr;
  readonly #state = this.state(
    1,
    {
      interrupts: field.bool(),
      /** The request that waits for its answer: its number and first bytes. */
      waiting: field.buffer(3),
    },
    { onReset: 'keep' },
  );
  readonly #due = this.clock.timer('response', () => this.#timedOut(), { onReset: 'keep' });
  #connected = false;
  /** What the chardev has not taken yet. */
  #unsent: Uint8Array = new Uint8Array(0);
  readonly #received = new Uint8Array(MAX_MESSAGE + FRAMING);
  #length = 0;
  #escaped = false;
  #tooLong = false;

  override get interruptsEnabled(): boolean {
    return this.#state.interrupts;
  }

  protected override realize(): void {
    const { chardev } = this.props;
    if (chardev === undefined)
      throw new SouthbridgeError('ERR_IPMI_BMC', 'IPMI external bmc requires chardev attribute');
    chardev.attach({
      canReceive: () => 1,
      receive: bytes => {
        for (const byte of bytes) this.#receive(byte);
      },
      event: event => {
        if (event === 'opened') this.#opened();
        else if (event === 'closed') this.#closed();
      },
      drained: () => this.#send(),
    });
    this.onUnrealize(() => chardev.detach());
  }

  override request(id: number, message: Uint8Array, truncated: boolean): void {
    const refusal =
      message.length < 2
        ? COMPLETION.DATA_LENGTH_INVALID
        : truncated
          ? COMPLETION.DATA_TRUNCATED
          : this.#connected
            ? COMPLETION.OK
            : COMPLETION.INITIALIZING;
    const head = Uint8Array.of(id, message[0] ?? 0, message[1] ?? 0);
    if (refusal !== COMPLETION.OK) {
      this.#answer(head, refusal);
      return;
    }
    this.#state.waiting = head;
    const framed = Uint8Array.of(id, ...message);
    this.#queue([...escaped([...framed, checksum(framed)]), END_OF_MESSAGE]);
    this.#due.arm(RESPONSE_DUE);
  }

  /** Snapshots hold no connection: what waited for an answer gets none. */
  protected override restored(): void {
    if (this.#state.waiting.length > 0) this.#due.arm(0);
  }

  #opened(): void {
    this.#connected = true;
    this.#unsent = new Uint8Array(0);
    this.#length = 0;
    this.#escaped = false;
    this.#tooLong = false;
    const can = (operation: ChassisOperation, bit: number): number =>
      this.possible(operation) === COMPLETION.OK ? bit : 0;
    const capabilities =
      CAPABILITY.INTERRUPT |
      CAPABILITY.ATTENTION |
      can('power-off', CAPABILITY.POWER) |
      can('soft-off', CAPABILITY.GRACEFUL_SHUTDOWN) |
      can('reset', CAPABILITY.RESET) |
      can('nmi', CAPABILITY.NMI);
    this.#queue([...escaped([COMMAND.VERSION, PROTOCOL_VERSION]), END_OF_COMMAND]);
    this.#queue([...escaped([COMMAND.CAPABILITIES, capabilities]), END_OF_COMMAND]);
  }

  /** The other end says again what is to be said once it is back. */
  #closed(): void {
    this.#connected = false;
    this.#unsent = new Uint8Array(0);
    this.front?.setAttention(false, false);
    this.#giveUp(COMPLETION.INITIALIZING);
  }

  #timedOut(): void {
    this.#giveUp(COMPLETION.TIMEOUT);
  }

  #giveUp(completion: number): void {
    const { waiting } = this.#state;
    if (waiting.length > 0) this.#answer(waiting, completion);
  }

  #answer([id = 0, target = 0, command = 0]: Uint8Array, completion: number): void {
    this.#state.waiting = new Uint8Array(0);
    this.#due.cancel();
    this.front?.respond(id, Uint8Array.of(target | RESPONSE_BIT, command, completion));
  }

  #queue(bytes: readonly number[]): void {
    this.#unsent = Uint8Array.of(...this.#unsent, ...bytes);
    this.#send();
  }

  #send(): void {
    if (this.#unsent.length === 0) return;
    const sent = this.props.chardev?.write(this.#unsent) ?? 0;
    this.#unsent = this.#unsent.subarray(sent);
  }

  #receive(byte: number): void {
    if (byte === END_OF_MESSAGE) this.#message();
    else if (byte === END_OF_COMMAND) this.#command();
    else if (byte === ESCAPE) {
      this.#escaped = true;
      return;
    } else if (this.#length >= this.#received.length) this.#tooLong = true;
    else this.#received[this.#length++] = this.#escaped ? byte & ~ESCAPED : byte;
    this.#escaped = false;
    if (byte !== END_OF_MESSAGE && byte !== END_OF_COMMAND) return;
    this.#length = 0;
    this.#tooLong = false;
  }

  #message(): void {
    const message = this.#received.subarray(0, this.#length);
    if (this.#escaped || message.length < SHORTEST_RESPONSE) return;
    const [id = 0, target = 0, command = 0] = message;
    const response = this.#tooLong
      ? Uint8Array.of(target, command, COMPLETION.DATA_TRUNCATED)
      : message.subarray(1, message.length - 1);
    if (!this.#tooLong && checksum(message) !== 0) return;
    this.#state.waiting = new Uint8Array(0);
    this.#due.cancel();
    this.front?.respond(id, response);
  }

  #command(): void {
    if (this.#tooLong || this.#escaped || this.#length === 0) return;
    switch (this.#received[0]) {
      case COMMAND.NO_ATTENTION:
        this.front?.setAttention(false, false);
        break;
      case COMMAND.ATTENTION:
        this.front?.setAttention(true, false);
        break;
      case COMMAND.ATTENTION_INTERRUPT:
        this.front?.setAttention(true, true);
        break;
      case COMMAND.POWER_OFF:
        this.operate('power-off');
        break;
      case COMMAND.RESET:
        this.operate('reset');
        break;
      case COMMAND.ENABLE_INTERRUPT:
      case COMMAND.DISABLE_INTERRUPT:
        this.#state.interrupts = this.#received[0] === COMMAND.ENABLE_INTERRUPT;
        this.front?.interruptsChanged();
        break;
      case COMMAND.SEND_NMI:
        this.operate('nmi');
        break;
      case COMMAND.GRACEFUL_SHUTDOWN:
        this.operate('soft-off');
        break;
    }
  }
}

function escaped(bytes: readonly number[]): number[] {
  return bytes.flatMap(byte =>
    byte === END_OF_MESSAGE || byte === END_OF_COMMAND || byte === ESCAPE ? [ESCAPE, byte | ESCAPED] : [byte],
  );
}

export const ipmiBmcExtern = deviceType({
  type: 'ipmi-bmc-extern',
  summary: 'Baseboard management controller in another process',
  properties,
  parents: ['ipmi-bmc', 'device'],
  hotpluggable: false,
  create: BmcExtern,
});
