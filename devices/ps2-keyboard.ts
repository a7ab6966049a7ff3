import type { InputEvent, InputHandler } from '../core/display/input.ts';
import { field, type StateValues } from '../core/state/fields.ts';
import { NO_COMMAND, PS2_ACK, PS2_RESEND, PS2_SELF_TEST_PASSED, Ps2Device, ps2State } from './ps2.ts';
import { scancodes } from './ps2-scancodes.ts';

/** Commands (IBM PS/2 Keyboard technical reference). */
const CMD = {
  SET_LEDS: 0xed,
  ECHO: 0xee,
  SCANCODE: 0xf0,
  GET_ID: 0xf2,
  SET_RATE: 0xf3,
  ENABLE: 0xf4,
  RESET_DISABLE: 0xf5,
  RESET_ENABLE: 0xf6,
  ALL_TYPEMATIC: 0xf7,
  ALL_MAKE_BREAK: 0xf8,
  ALL_MAKE: 0xf9,
  ALL_TYPEMATIC_MAKE_BREAK: 0xfa,
  KEY_TYPEMATIC: 0xfb,
  KEY_MAKE_BREAK: 0xfc,
  KEY_MAKE: 0xfd,
  RESEND: 0xfe,
  RESET: 0xff,
} as const;
const ID = 0xab;
const ID_PLAIN = 0x83;
const ID_TRANSLATED = 0x41;

export const keyboardState = {
  ...ps2State,
  scanning: field.bool(true),
  set: field.u8(2),
  leds: field.u8(),
  translate: field.bool(),
};

/** A 101-key PS/2 keyboard. */
export class Ps2Keyboard extends Ps2Device implements InputHandler {
  readonly name = 'QEMU PS/2 Keyboard';
  readonly kinds: ReadonlySet<InputEvent['kind']> = new Set(['key'] as const);
  readonly #s: StateValues<typeof keyboardState>;
  readonly #ledsChanged: (leds: number) => void;

  /** @param ledsChanged told bits 0 to 2: scroll lock, num lock, caps lock */
  constructor(
    state: StateValues<typeof keyboardState>,
    changed: (hasData: boolean) => void,
    ledsChanged: (leds: number) => void,
  ) {
    super(state, changed);
    this.#s = state;
    this.#ledsChanged = ledsChanged;
  }

  /** The controller makes set 1 of set 2; the keyboard's identity shows it. */
  setTranslation(translate: boolean): void {
    this.#s.translate = translate;
  }

  input(event: InputEvent): void {
    if (event.kind !== 'key' || !this.#s.scanning) return;
    const set = this.#s.translate && this.#s.set === 2 ? 1 : this.#s.set;
    this.queueInput(scancodes(event.key, event.down, set));
  }

  sync(): void {}

  override reset(): void {
    this.clearQueue();
    Object.assign(this.#s, { command: NO_COMMAND, scanning: true, set: 2, leds: 0 });
    this.#ledsChanged(0);
  }

  override write(value: number): void {
    const s = this.#s;
    const { command } = s;
    this.dropReply();
    if (command !== NO_COMMAND) {
      s.command = NO_COMMAND;
      this.#parameter(command, value);
      return;
    }
    switch (value) {
      case 0x00:
        this.reply(PS2_ACK);
        break;
      case 0x05:
        this.reply(PS2_RESEND);
        break;
      case CMD.GET_ID:
        this.reply(PS2_ACK, ID, s.translate ? ID_TRANSLATED : ID_PLAIN);
        break;
      case CMD.ECHO:
        this.reply(CMD.ECHO);
        break;
      case CMD.ENABLE:
        s.scanning = true;
        this.reply(PS2_ACK);
        break;
      case CMD.SCANCODE:
      case CMD.SET_LEDS:
      case CMD.SET_RATE:
      case CMD.KEY_TYPEMATIC:
      case CMD.KEY_MAKE_BREAK:
      case CMD.KEY_MAKE:
        s.command = value;
        this.reply(PS2_ACK);
        break;
      case CMD.RESET_DISABLE:
        this.reset();
        s.scanning = false;
        this.reply(PS2_ACK);
        break;
      case CMD.RESET_ENABLE:
        this.reset();
        this.reply(PS2_ACK);
        break;
      case CMD.RESET:
        this.reset();
        this.reply(PS2_ACK, PS2_SELF_TEST_PASSED);
        break;
      case CMD.RESEND:
        this.reply(s.lastByte);
        break;
      case CMD.ALL_TYPEMATIC:
      case CMD.ALL_MAKE_BREAK:
      case CMD.ALL_MAKE:
      case CMD.ALL_TYPEMATIC_MAKE_BREAK:
        this.reply(PS2_ACK);
        break;
      default:
        this.reply(PS2_RESEND);
    }
  }

  #parameter(command: number, value: number): void {
    const s = this.#s;
    if (command === CMD.SCANCODE) {
      if (value === 0) {
        this.reply(PS2_ACK, s.translate ? ([0x43, 0x41, 0x3f][s.set - 1] ?? s.set) : s.set);
      } else if (value <= 3) {
        s.set = value;
        this.reply(PS2_ACK);
      } else {
        this.reply(PS2_RESEND);
      }
      return;
    }
    if (command === CMD.SET_LEDS) {
      s.leds = value & 7;
      this.#ledsChanged(s.leds);
    }
    this.reply(PS2_ACK);
  }
}
