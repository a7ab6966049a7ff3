import { deviceType } from '../../../core/device/device-type.ts';
import { type CardReceiver, cardProperties, NetCard } from '../../../core/net/net-cards.ts';
import { field } from '../../../core/state/fields.ts';
import { UsbDevice, usbProperties } from '../../../core/usb/device.ts';
import { PID, type UsbPacket } from '../../../core/usb/packet.ts';
import { classInterfaceIn, classInterfaceOut, STALL } from '../../../core/usb/request.ts';
import { CONFIGURATION, ENDPOINT, PACKET, STRING_MAC, usbNetDescription } from './description.ts';
import { control, frameLength, frameOffset, messageLength, PACKET_HEADER, packetHeader } from './rndis.ts';

/** Requests (CDC 1.2, section 6.2; ECM 1.2, section 6.2). */
const CDC = {
  SEND_ENCAPSULATED_COMMAND: classInterfaceOut(0x00),
  GET_ENCAPSULATED_RESPONSE: classInterfaceIn(0x01),
  SET_ETHERNET_PACKET_FILTER: classInterfaceOut(0x43),
} as const;

/** NETWORK_CONNECTION (CDC 1.2, section 6.3.1): connected. */
const CONNECTED = Uint8Array.of(0xa1, 0x00, 1, 0, 1, 0, 0, 0);
/** RESPONSE_AVAILABLE as RNDIS has it. */
const RESPONSE_AVAILABLE = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);
const NOTIFICATION = 8;

const BUFFER = 2048;
const RESPONSE_MAX = 256;
/** Answers that the host has not fetched, at most. */
const RESPONSES_MAX = 16;

const properties = { ...usbProperties, ...cardProperties };

/** A network card on USB: RNDIS, or the communication class's Ethernet. */
class UsbNet extends UsbDevice<typeof properties> implements CardReceiver {
  readonly productName = 'QEMU USB Network Interface';
  protected readonly description = usbNetDescription;
  readonly #card = new NetCard(this, { owner: this, mac: this.props.mac, backend: this.props.netdev });
  readonly #s = this.state(
    1,
    {
      initialized: field.bool(),
      filter: field.u16(),
      responses: field.list(field.buffer(RESPONSE_MAX), RESPONSES_MAX),
      /** What comes from the host, and how much of it there is. */
      out: field.bytes(BUFFER),
      outLength: field.u16(),
      /** What goes to the host: how much of it, and how much has gone. */
      in: field.bytes(BUFFER),
      inLength: field.u16(),
      inSent: field.u16(),
    },
    { name: 'card', onReset: 'keep' },
  );
  readonly #frame = new Uint8Array(BUFFER);
  #outView = viewOf(this.#s.out);
  #inView = viewOf(this.#s.in);

  protected override setUp(): void {
    this.onUnrealize(this.#card.plug(this.services.netCards));
  }

  protected override busReset(): void {
    Object.assign(this.#s, { initialized: false, filter: 0, responses: [], outLength: 0 });
    this.#emptied();
  }

  protected override restored(): void {
    super.restored();
    this.#outView = viewOf(this.#s.out);
    this.#inView = viewOf(this.#s.in);
  }

  protected override get firmwareKind(): string {
    return 'network';
  }

  protected override stringFor(index: number, text: string | undefined): string | undefined {
    return index === STRING_MAC ? Buffer.from(this.#card.mac).toString('hex') : text;
  }

  get #isRndis(): boolean {
    return this.configurationValue === CONFIGURATION.RNDIS;
  }

  // Requests

  protected override controlRequest(
    request: number,
    value: number,
    index: number,
    length: number,
    data: Uint8Array,
  ): number {
    const encapsulated = this.#isRndis && value === 0 && index === 0;
    switch (request) {
      case CDC.SEND_ENCAPSULATED_COMMAND:
        return encapsulated ? this.#command(Buffer.from(data.subarray(0, length))) : STALL;
      case CDC.GET_ENCAPSULATED_RESPONSE:
        return encapsulated ? this.#response(data) : STALL;
      case CDC.SET_ETHERNET_PACKET_FILTER:
        return this.#isRndis ? STALL : 0;
      default:
        return STALL;
    }
  }

  #command(message: Buffer): number {
    const s = this.#s;
    const outcome = control(message, s, this.#card.mac);
    if (outcome === 'stall') return STALL;
    if (outcome.reset === true) {
      s.responses = [];
      s.outLength = 0;
      this.#emptied();
    }
    if (outcome.answer === undefined) return 0;
    if (s.responses.length >= RESPONSES_MAX) {
      this.log.guestError('the host does not fetch its answers');
      return STALL;
    }
    s.responses = [...s.responses, outcome.answer];
    this.wake(this.endpoint(PID.IN, ENDPOINT.STATUS));
    return 0;
  }

  /** One zero where there is none. */
  #response(data: Uint8Array): number {
    const [first, ...others] = this.#s.responses;
    this.#s.responses = others;
    data.set(first ?? [0]);
    return first?.length ?? 1;
  }

  // Data

  protected override handleData(packet: UsbPacket): void {
    const number = packet.endpoint?.number;
    if (packet.pid === PID.IN && number === ENDPOINT.STATUS) this.#notify(packet);
    else if (packet.pid === PID.IN && number === ENDPOINT.DATA) this.#give(packet);
    else if (packet.pid === PID.OUT && number === ENDPOINT.DATA) this.#take(packet);
    else packet.status = 'stall';
  }

  #notify(packet: UsbPacket): void {
    if (packet.size < NOTIFICATION) packet.status = 'stall';
    else if (!this.#isRndis) packet.put(CONNECTED, 0, NOTIFICATION);
    else if (this.#s.responses.length > 0) packet.put(RESPONSE_AVAILABLE, 0, NOTIFICATION);
    else packet.status = 'nak';
  }

  /** A frame of whole packets is followed by an empty one, unless it says its own length. */
  #give(packet: UsbPacket): void {
    const s = this.#s;
    if (s.inLength === 0) {
      packet.status = 'nak';
      return;
    }
    const given = packet.put(s.in, s.inSent, s.inLength - s.inSent);
    s.inSent += given;
    if (s.inSent >= s.inLength && (this.#isRndis || s.inLength % PACKET !== 0 || given === 0)) this.#emptied();
  }

  #emptied(): void {
    this.#s.inLength = 0;
    this.#s.inSent = 0;
    this.#card.client.receiverReady();
  }

  #take(packet: UsbPacket): void {
    const s = this.#s;
    s.outLength += packet.take(s.out, s.outLength, BUFFER - s.outLength);
    if (this.#isRndis) {
      this.#takeMessages();
    } else if (packet.size % PACKET !== 0 || packet.size === 0) {
      this.#card.client.send(s.out, s.outLength);
      s.outLength = 0;
    }
  }

  #takeMessages(): void {
    const s = this.#s;
    for (;;) {
      const size = messageLength(this.#outView, s.outLength);
      if (size < 0) {
        this.log.guestError('a message of an impossible length');
        s.outLength = 0;
      }
      if (size <= 0 || size > s.outLength) return;
      const offset = frameOffset(this.#outView, size);
      if (offset >= 0) {
        const length = frameLength(this.#outView);
        for (let at = 0; at < length; at++) this.#frame[at] = s.out[offset + at] ?? 0;
        this.#card.client.send(this.#frame, length);
      }
      s.out.copyWithin(0, size, s.outLength);
      s.outLength -= size;
    }
  }

  // The network's side

  /** What the host does not want yet is lost. */
  get #wanted(): boolean {
    const { initialized, filter } = this.#s;
    return this.configurationValue !== 0 && (!this.#isRndis || (initialized && filter !== 0));
  }

  canReceive(): boolean {
    return !this.#wanted || this.#s.inLength === 0;
  }

  receive(frame: Uint8Array, length: number): boolean {
    const s = this.#s;
    const header = this.#isRndis ? PACKET_HEADER : 0;
    if (!this.#wanted || header + length > BUFFER) return true;
    if (s.inLength > 0) return false;
    if (header > 0) packetHeader(this.#inView, length);
    for (let at = 0; at < length; at++) s.in[header + at] = frame[at] ?? 0;
    s.inLength = header + length;
    s.inSent = 0;
    this.wake(this.endpoint(PID.IN, ENDPOINT.DATA));
    return true;
  }
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

export const usbNet = deviceType({
  type: 'usb-net',
  summary: 'QEMU USB Network Interface',
  bus: 'usb-bus',
  category: 'network',
  parents: ['usb-device', 'device'],
  hotpluggable: true,
  properties,
  create: UsbNet,
});
