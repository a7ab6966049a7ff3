import { CcidCard } from '../../../core/bus/ccid.ts';
import type { Chardev } from '../../../core/char/chardev.ts';
import { deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import { field } from '../../../core/state/fields.ts';

/** Messages of libcacard's vscard protocol: type, reader and length in network order, and the contents. */
const MESSAGE = {
  INIT: 1,
  ERROR: 2,
  READER_ADD: 3,
  READER_REMOVE: 4,
  ATR: 5,
  CARD_REMOVE: 6,
  APDU: 7,
  FLUSH: 8,
  FLUSH_COMPLETE: 9,
} as const;
const HEADER = 12;
const CONTENTS_MAX = 0x1_0000;
const MAGIC = 0x5643_5344;
const VERSION = 2;
const UNDEFINED_READER = 0xffff_ffff;
const READER = 0;
const SUCCESS = 0;
const CANNOT_ADD_MORE = 2;
const ATR_MAX = 40;
/** What a card answers on reset that has not said. */
const DEFAULT_ATR = Uint8Array.of(0x3b, 0x95, 0x13, 0x81, 0x01, 0x56, 0x53, 0x43, 0x41, 0x52, 0x44);

const properties = {
  chardev: prop.backend<Chardev>('chardev'),
  debug: prop.u8({ default: 0 }),
} as const;

/** A card at the other end of a character device, with someone who speaks the vscard protocol. */
class PassthroughCard extends CcidCard<typeof properties> {
  readonly #s = this.state(
    1,
    {
      inserted: field.bool(),
      readerAdded: field.bool(),
      atr: field.buffer(ATR_MAX),
      incoming: field.buffer(HEADER + CONTENTS_MAX),
    },
    { onReset: 'keep' },
  );

  protected override realize(): void {
    const { chardev } = this.props;
    if (chardev === undefined) throw new SouthbridgeError('ERR_PROPERTY_MISSING', 'missing chardev', 'chardev=ID');
    this.#s.atr = DEFAULT_ATR.slice();
    chardev.attach({
      canReceive: () => HEADER + CONTENTS_MAX - this.#s.incoming.length,
      receive: bytes => this.#receive(bytes),
      event: event => {
        if (event === 'closed') this.#remove();
      },
    });
    this.onUnrealize(() => {
      this.#remove();
      chardev.detach();
    });
  }

  get inserted(): boolean {
    return this.#s.inserted;
  }

  get atr(): Uint8Array {
    return this.#s.atr;
  }

  command(apdu: Uint8Array): void {
    if (!this.#send(MESSAGE.APDU, READER, apdu)) this.reader.failed();
  }

  #remove(): void {
    const had = this.#s.inserted;
    Object.assign(this.#s, { inserted: false, readerAdded: false, incoming: new Uint8Array(0) });
    if (had) this.reader.cardRemoved();
  }

  #receive(bytes: Uint8Array): void {
    const s = this.#s;
    const incoming = new Uint8Array(s.incoming.length + bytes.length);
    incoming.set(s.incoming);
    incoming.set(bytes, s.incoming.length);
    const view = new DataView(incoming.buffer);
    let at = 0;
    while (incoming.length - at >= HEADER) {
      const length = view.getUint32(at + 8);
      if (length > CONTENTS_MAX) {
        this.log.guestError(`a message of ${length} bytes`);
        at = incoming.length;
        break;
      }
      if (incoming.length - at < HEADER + length) break;
      this.#message(view.getUint32(at), view.getUint32(at + 4), incoming.slice(at + HEADER, at + HEADER + length));
      at += HEADER + length;
    }
    s.incoming = incoming.slice(at);
  }

  #message(type: number, readerId: number, contents: Uint8Array): void {
    const s = this.#s;
    switch (type) {
      case MESSAGE.INIT:
        this.#send(MESSAGE.INIT, UNDEFINED_READER, words(MAGIC, VERSION, 0));
        break;
      case MESSAGE.READER_ADD:
        this.#send(MESSAGE.ERROR, s.readerAdded ? readerId : READER, words(s.readerAdded ? CANNOT_ADD_MORE : SUCCESS));
        s.readerAdded = true;
        break;
      case MESSAGE.READER_REMOVE:
      case MESSAGE.CARD_REMOVE:
        if (type === MESSAGE.READER_REMOVE) s.readerAdded = false;
        if (!s.inserted) break;
        s.inserted = false;
        this.reader.cardRemoved();
        break;
      case MESSAGE.ATR:
        if (contents.length > ATR_MAX) {
          this.log.guestError('ATR size exceeds spec, ignoring');
          break;
        }
        s.atr = contents;
        s.inserted = true;
        this.reader.cardInserted();
        break;
      case MESSAGE.APDU:
        this.reader.answer(contents);
        break;
      case MESSAGE.FLUSH:
        this.#send(MESSAGE.FLUSH_COMPLETE, READER, new Uint8Array(0));
        break;
      case MESSAGE.ERROR:
        // The other end's word on what it was told; a code of 0 is that all is well.
        if (contents.some(byte => byte !== 0)) this.log.guestError('the card reports an error');
        break;
      default:
        this.log.guestError(`a message of type ${type}`);
    }
  }

  #send(type: number, readerId: number, contents: Uint8Array): boolean {
    const { chardev } = this.props;
    if (chardev === undefined) return false;
    const message = new Uint8Array(HEADER + contents.length);
    message.set(words(type, readerId, contents.length));
    message.set(contents, HEADER);
    chardev.writeAll(message);
    return true;
  }
}

function words(...values: readonly number[]): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(4 * values.length));
  for (const [index, value] of values.entries()) bytes.setUint32(4 * index, value);
  return new Uint8Array(bytes.buffer);
}

export const ccidCardPassthru = deviceType({
  type: 'ccid-card-passthru',
  summary: 'Smart card behind a character device',
  bus: 'ccid-bus',
  category: 'input',
  parents: ['ccid-card', 'device'],
  hotpluggable: true,
  properties,
  create: PassthroughCard,
});
