/**
 * The System Management Controller of Intel Macs, as far as an operating system needs it to know where it runs: it answers reads of
 * named values ("keys"). There is no data sheet; the protocol is the one of Linux's and Darwin's drivers.
 */
import { IsaDevice } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { field } from '../core/state/fields.ts';

const DATA_PORT = 0x00;
const COMMAND_PORT = 0x04;
const ERROR_PORT = 0x1e;

const READ_KEY = 0x10;
const KEY_SIZE = 4;
const LONGEST_VALUE = 32;

const STATUS = { DONE: 0x00, DATA_READY: 0x01, ACKNOWLEDGED: 0x04, NEW_COMMAND: 0x08 } as const;
const STATUS_MASK = 0x0f;
const ERROR = { NONE: 0x00, INTERRUPTED: 0x80, STILL_BAD_COMMAND: 0x81, BAD_COMMAND: 0x82, NO_SUCH_KEY: 0x84 } as const;

/** What OSK0 and OSK1 hold together, in characters. */
const OSK_SIZE = 64;
const NO_OSK = 'This is a dummy key. Enter the real key using the -osk parameter';
/** Version 1.19f3 of the firmware. */
const REVISION = [0x01, 0x13, 0x0f, 0x00, 0x00, 0x03];

const properties = {
  iobase: prop.u32({ default: 0x300 }),
  osk: prop.string({ help: `${OSK_SIZE} characters that Darwin asks for` }),
};

class AppleSmc extends IsaDevice<typeof properties> {
  readonly #s = this.state(1, {
    command: field.u8(),
    status: field.u8(),
    error: field.u8(),
    /** What the last read of the data port gave: nothing new is the same again. */
    shown: field.u8(),
    key: field.bytes(KEY_SIZE),
    /** Bytes of the key, and then of its length, that have come. */
    keyBytes: field.u8(),
    value: field.bytes(LONGEST_VALUE),
    length: field.u8(),
    given: field.u8(),
  });
  readonly #keys = this.#values();

  protected override realize(): void {
    const { iobase } = this.props;
    const bytes = { impl: { max: 1 } } as const;
    this.ports(
      iobase + DATA_PORT,
      1,
      { read: () => this.#readData(), write: (_offset, _size, value) => this.#writeData(value) },
      bytes,
      'applesmc-data',
    );
    this.ports(
      iobase + COMMAND_PORT,
      1,
      { read: () => this.#s.status, write: (_offset, _size, value) => this.#start(value) },
      bytes,
      'applesmc-cmd',
    );
    this.ports(iobase + ERROR_PORT, 1, { read: () => this.#s.error, write: () => {} }, bytes, 'applesmc-err');
  }

  #values(): ReadonlyMap<string, readonly number[]> {
    const { osk } = this.props;
    const characters = [...Buffer.from(osk?.length === OSK_SIZE ? osk : NO_OSK, 'latin1')];
    return new Map([
      ['REV ', REVISION],
      ['OSK0', characters.slice(0, LONGEST_VALUE)],
      ['OSK1', characters.slice(LONGEST_VALUE)],
      ['NATJ', [0]],
      ['MSSP', [0]],
      ['MSSD', [0]],
    ]);
  }

  /** The one command that there is; it must not come in the middle of another. */
  #start(command: number): void {
    const s = this.#s;
    const status = s.status & STATUS_MASK;
    if (command !== READ_KEY) {
      s.status = STATUS.NEW_COMMAND;
      s.error = ERROR.BAD_COMMAND;
    } else if (status === STATUS.DONE || status === STATUS.NEW_COMMAND) {
      s.command = command;
      s.status = STATUS.NEW_COMMAND | STATUS.ACKNOWLEDGED;
    } else {
      s.status = STATUS.NEW_COMMAND;
      s.error = ERROR.INTERRUPTED;
    }
    s.keyBytes = 0;
    s.given = 0;
  }

  /** A key's four characters, and behind them how much of its value is wanted, which changes nothing. */
  #writeData(value: number): void {
    const s = this.#s;
    if (s.command !== READ_KEY) return this.#badCommand();
    if ((s.status & STATUS_MASK) === STATUS.DONE) return;
    if (s.keyBytes < KEY_SIZE) {
      s.key[s.keyBytes] = value;
      s.status = STATUS.ACKNOWLEDGED;
    } else if (s.keyBytes === KEY_SIZE) {
      this.#look();
    }
    s.keyBytes = Math.min(s.keyBytes + 1, KEY_SIZE + 1);
  }

  #look(): void {
    const s = this.#s;
    const value = this.#keys.get(String.fromCharCode(...s.key));
    if (value === undefined) {
      s.status = STATUS.DONE;
      s.error = ERROR.NO_SUCH_KEY;
      return;
    }
    s.value.set(value);
    s.length = value.length;
    s.given = 0;
    s.status = STATUS.ACKNOWLEDGED | STATUS.DATA_READY;
    s.error = ERROR.NONE;
  }

  #readData(): number {
    const s = this.#s;
    if (s.command !== READ_KEY) this.#badCommand();
    else if ((s.status & STATUS.DATA_READY) !== 0 && s.given < s.length) {
      s.shown = s.value[s.given] ?? 0;
      s.given++;
      if (s.given === s.length) s.status = STATUS.DONE;
    }
    return s.shown;
  }

  #badCommand(): void {
    this.#s.status = STATUS.DONE;
    this.#s.error = ERROR.STILL_BAD_COMMAND;
  }
}

export const isaAppleSmc = deviceType({
  type: 'isa-applesmc',
  summary: 'System Management Controller of Intel Macs',
  bus: 'ISA',
  category: 'misc',
  parents: ['isa-device', 'device'],
  properties,
  create: AppleSmc,
});
