import { type CardReader, CcidBus, type CcidCard } from '../../../core/bus/ccid.ts';
import { type DeviceContext, deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { field } from '../../../core/state/fields.ts';
import { UsbDevice, usbProperties } from '../../../core/usb/device.ts';
import { PID, type UsbPacket } from '../../../core/usb/packet.ts';
import { STALL } from '../../../core/usb/request.ts';
import {
  ANSWER,
  COMMAND,
  ccidDescription,
  DEFAULT_PARAMETERS,
  ENDPOINT,
  ERROR,
  HEADER,
  LENGTH_AT,
  MESSAGE_MAX,
  NOTIFY_SLOT_CHANGE,
  OWN_AT,
  REFUSED_WITH,
  SEQUENCE_AT,
  SLOT_AT,
  STATUS,
  T0_PARAMETERS_SIZE,
} from './messages.ts';

const PACKET_SIZE = 64;
/** Answers that the host has not fetched, at most: it may have one command under way. */
const ANSWERS_MAX = 8;

const properties = { ...usbProperties, debug: prop.u8({ default: 0 }) } as const;

/** A smart card reader with one slot (CCID, revision 1.1). */
class UsbCcid extends UsbDevice<typeof properties> implements CardReader {
  readonly productName = 'QEMU USB CCID';
  protected readonly description = ccidDescription;
  readonly #s = this.state(
    1,
    {
      powered: field.bool(),
      /** The host has not been told that a card has come or gone. */
      changed: field.bool(),
      protocol: field.u8(),
      parameters: field.buffer(DEFAULT_PARAMETERS.length),
      /** A command that has come in part, and answers, of which the first has gone in part. */
      command: field.buffer(MESSAGE_MAX),
      answers: field.list(field.buffer(MESSAGE_MAX), ANSWERS_MAX),
      sent: field.u32(),
      /** Slot and sequence number of the command that the card works on. */
      working: field.bool(),
      slot: field.u8(),
      sequence: field.u8(),
    },
    { name: 'reader', onReset: 'keep' },
  );
  readonly #slot: CcidBus;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    this.#slot = this.addBus(
      new CcidBus(context.id === undefined ? 'ccid-bus.0' : `${context.id}.0`, this, {
        services: context.services,
        home: context.bus.home,
        owner: this,
      }),
    );
    this.#s.parameters = DEFAULT_PARAMETERS.slice();
  }

  protected override get attachedSettable(): boolean {
    return true;
  }

  get #card(): CcidCard | undefined {
    const { card } = this.#slot;
    return card?.inserted ? card : undefined;
  }

  protected override busReset(): void {
    Object.assign(this.#s, {
      powered: false,
      changed: this.#card !== undefined,
      protocol: 0,
      parameters: DEFAULT_PARAMETERS.slice(),
      command: new Uint8Array(0),
      answers: [],
      sent: 0,
      working: false,
    });
  }

  /** Section 5.3: all three requests are about what this reader does by itself. */
  protected override controlRequest(): number {
    return STALL;
  }

  // CardReader

  cardInserted(): void {
    this.#slotChanged();
  }

  cardRemoved(): void {
    this.#s.powered = false;
    if (this.#s.working) this.failed();
    this.#slotChanged();
  }

  answer(apdu: Uint8Array): void {
    const s = this.#s;
    if (!s.working) return;
    s.working = false;
    this.#reply(ANSWER.DATA_BLOCK, s.slot, s.sequence, { data: apdu });
  }

  failed(): void {
    const s = this.#s;
    if (!s.working) return;
    s.working = false;
    this.#reply(ANSWER.DATA_BLOCK, s.slot, s.sequence, { error: ERROR.MUTE });
  }

  #slotChanged(): void {
    this.#s.changed = true;
    this.wake(this.endpoint(PID.IN, ENDPOINT.INTERRUPT));
  }

  // Endpoints

  protected override handleData(packet: UsbPacket): void {
    const number = packet.endpoint?.number;
    if (packet.pid === PID.OUT && number === ENDPOINT.OUT) this.#take(packet);
    else if (packet.pid === PID.IN && number === ENDPOINT.IN) this.#give(packet);
    else if (packet.pid === PID.IN && number === ENDPOINT.INTERRUPT) this.#notify(packet);
    else packet.status = 'stall';
  }

  #take(packet: UsbPacket): void {
    const s = this.#s;
    const length = packet.size;
    if (s.command.length + length > MESSAGE_MAX) {
      s.command = new Uint8Array(0);
      packet.status = 'stall';
      return;
    }
    const command = new Uint8Array(s.command.length + length);
    command.set(s.command);
    packet.take(command, s.command.length, length);
    s.command = command;
    if (command.length < HEADER) {
      if (length % PACKET_SIZE !== 0) s.command = new Uint8Array(0);
      return;
    }
    const whole = HEADER + new DataView(command.buffer).getUint32(LENGTH_AT, true);
    if (command.length < whole && length % PACKET_SIZE === 0) return;
    s.command = new Uint8Array(0);
    this.#execute(command, command.length >= whole ? command.slice(HEADER, whole) : undefined);
  }

  #give(packet: UsbPacket): void {
    const s = this.#s;
    const [first] = s.answers;
    if (first === undefined) {
      packet.status = 'nak';
      return;
    }
    s.sent += packet.put(first, s.sent, first.length - s.sent);
    // A message that fills its last packet is ended by an empty one.
    if (s.sent < first.length || (packet.transferred === packet.size && first.length % PACKET_SIZE === 0)) return;
    s.answers = s.answers.slice(1);
    s.sent = 0;
  }

  #notify(packet: UsbPacket): void {
    if (!this.#s.changed) {
      packet.status = 'nak';
      return;
    }
    this.#s.changed = false;
    packet.put(Uint8Array.of(NOTIFY_SLOT_CHANGE, (this.#card === undefined ? 0 : 1) | 2), 0, 2);
  }

  // Commands (section 6.1)

  #execute(header: Uint8Array, data: Uint8Array | undefined): void {
    const s = this.#s;
    const type = header[0] ?? 0;
    const slot = header[SLOT_AT] ?? 0;
    const sequence = header[SEQUENCE_AT] ?? 0;
    const card = this.#card;
    const answer = (with_: number, more: Reply = {}): void => this.#reply(with_, slot, sequence, more);
    if (data === undefined) return answer(ANSWER.SLOT_STATUS, { error: ERROR.LENGTH });
    if (slot !== 0) return answer(ANSWER.SLOT_STATUS, { error: ERROR.SLOT });
    switch (type) {
      case COMMAND.ICC_POWER_ON:
        s.powered = card !== undefined;
        return answer(ANSWER.DATA_BLOCK, card === undefined ? { error: ERROR.MUTE } : { data: card.atr });
      case COMMAND.ICC_POWER_OFF:
        s.powered = false;
        return answer(ANSWER.SLOT_STATUS);
      case COMMAND.GET_SLOT_STATUS:
        return answer(ANSWER.SLOT_STATUS);
      case COMMAND.XFR_BLOCK:
        if (card === undefined || !s.powered) return answer(ANSWER.DATA_BLOCK, { error: ERROR.MUTE });
        Object.assign(s, { working: true, slot, sequence });
        return card.command(data);
      case COMMAND.SET_PARAMETERS:
        s.protocol = header[OWN_AT] ?? 0;
        s.parameters = padded(data);
        return this.#parameters(slot, sequence);
      case COMMAND.RESET_PARAMETERS:
        s.protocol = 0;
        s.parameters = DEFAULT_PARAMETERS.slice();
        return this.#parameters(slot, sequence);
      case COMMAND.GET_PARAMETERS:
        return this.#parameters(slot, sequence);
      case COMMAND.ABORT:
        if (s.working) Object.assign(s, { working: false });
        return answer(ANSWER.SLOT_STATUS);
      default:
        this.log.unimplemented(`command 0x${type.toString(16)}`);
        return answer(REFUSED_WITH.get(type) ?? ANSWER.SLOT_STATUS, { error: ERROR.NOT_SUPPORTED });
    }
  }

  #parameters(slot: number, sequence: number): void {
    const { protocol, parameters } = this.#s;
    const data = protocol === 0 ? parameters.slice(0, T0_PARAMETERS_SIZE) : parameters;
    this.#reply(ANSWER.PARAMETERS, slot, sequence, { data, own: protocol });
  }

  #reply(type: number, slot: number, sequence: number, { data, own, error }: Reply): void {
    const s = this.#s;
    const message = new Uint8Array(HEADER + (data?.length ?? 0));
    const icc = this.#card === undefined ? STATUS.ABSENT : s.powered ? STATUS.ACTIVE : STATUS.INACTIVE;
    message[0] = type;
    new DataView(message.buffer).setUint32(LENGTH_AT, data?.length ?? 0, true);
    message[SLOT_AT] = slot;
    message[SEQUENCE_AT] = sequence;
    message[OWN_AT] = icc | (error === undefined ? 0 : STATUS.FAILED);
    message[OWN_AT + 1] = error ?? ERROR.NONE;
    message[OWN_AT + 2] = own ?? 0;
    if (data !== undefined) message.set(data, HEADER);
    if (s.answers.length >= ANSWERS_MAX) {
      this.log.guestError('the host does not fetch its answers');
      return;
    }
    s.answers = [...s.answers, message];
    this.wake(this.endpoint(PID.IN, ENDPOINT.IN));
  }
}

interface Reply {
  readonly data?: Uint8Array;
  /** The last byte of the header, which each type of answer has its own use for. */
  readonly own?: number;
  readonly error?: number;
}

function padded(data: Uint8Array): Uint8Array {
  const parameters = new Uint8Array(DEFAULT_PARAMETERS.length);
  parameters.set(data.subarray(0, parameters.length));
  return parameters;
}

export const usbCcid = deviceType({
  type: 'usb-ccid',
  summary: 'CCID smart card reader',
  bus: 'usb-bus',
  category: 'input',
  parents: ['usb-device', 'device'],
  hotpluggable: true,
  properties,
  create: UsbCcid,
});
