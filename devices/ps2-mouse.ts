import type { InputButton, InputEvent, InputHandler } from '../core/display/input.ts';
import { field, type StateValues } from '../core/state/fields.ts';
import { NO_COMMAND, PS2_ACK, PS2_RESEND, PS2_SELF_TEST_PASSED, Ps2Device, ps2State } from './ps2.ts';

/** Commands (IBM PS/2 Mouse technical reference). */
const CMD = {
  SET_SCALING_11: 0xe6,
  SET_SCALING_21: 0xe7,
  SET_RESOLUTION: 0xe8,
  GET_SCALE: 0xe9,
  SET_STREAM: 0xea,
  POLL: 0xeb,
  RESET_WRAP: 0xec,
  SET_WRAP: 0xee,
  SET_REMOTE: 0xf0,
  GET_TYPE: 0xf2,
  SET_SAMPLE: 0xf3,
  ENABLE_DEVICE: 0xf4,
  DISABLE_DEVICE: 0xf5,
  SET_DEFAULT: 0xf6,
  RESET: 0xff,
} as const;
const STATUS = { REMOTE: 0x40, ENABLED: 0x20, SCALE21: 0x10 } as const;
/** Identities: plain, with a wheel, with a wheel and five buttons. */
const PLAIN = 0;
const WHEEL = 3;
const FIVE_BUTTONS = 4;
/** The sample rates that unlock the wheel and the further buttons (Microsoft's convention). */
const UNLOCK_WHEEL = [200, 100, 80] as const;
const UNLOCK_BUTTONS = [200, 200, 80] as const;
const BUTTON_BITS: Readonly<Partial<Record<InputButton, number>>> = {
  left: 0x01,
  right: 0x02,
  middle: 0x04,
  side: 0x08,
  extra: 0x10,
};

export const mouseState = {
  ...ps2State,
  status: field.u8(),
  resolution: field.u8(2),
  sampleRate: field.u8(100),
  wrap: field.bool(),
  type: field.u8(PLAIN),
  detect: field.u8(),
  dx: field.number(),
  dy: field.number(),
  dz: field.number(),
  dw: field.number(),
  buttons: field.u8(),
};

/** A PS/2 mouse that can become one with a wheel. */
export class Ps2Mouse extends Ps2Device implements InputHandler {
  readonly name = 'QEMU PS/2 Mouse';
  readonly kinds: ReadonlySet<InputEvent['kind']> = new Set(['button', 'relative'] as const);
  readonly #s: StateValues<typeof mouseState>;

  constructor(state: StateValues<typeof mouseState>, changed: (hasData: boolean) => void) {
    super(state, changed);
    this.#s = state;
  }

  input(event: InputEvent): void {
    const s = this.#s;
    if ((s.status & STATUS.ENABLED) === 0) return;
    if (event.kind === 'relative') {
      if (event.axis === 'x') s.dx += event.value;
      else s.dy -= event.value;
    } else if (event.kind === 'button') {
      const bit = BUTTON_BITS[event.button];
      if (bit !== undefined) s.buttons = event.down ? s.buttons | bit : s.buttons & ~bit;
      else if (event.down) this.#wheel(event.button);
    }
  }

  /** Sends as many packets as the movement needs. */
  sync(): void {
    const s = this.#s;
    if ((s.status & STATUS.ENABLED) === 0 || (s.status & STATUS.REMOTE) !== 0) return;
    while (this.#sendPacket(false) && (s.dx !== 0 || s.dy !== 0 || s.dz !== 0 || s.dw !== 0));
  }

  /** Makes the guest look, though this mouse has not moved: another in its place has something to say. */
  nudge(): void {
    this.#s.dx++;
    this.sync();
  }

  override reset(): void {
    this.clearQueue();
    Object.assign(this.#s, {
      command: NO_COMMAND,
      status: 0,
      resolution: 2,
      sampleRate: 100,
      wrap: false,
      type: PLAIN,
      detect: 0,
      dx: 0,
      dy: 0,
      dz: 0,
      dw: 0,
      buttons: 0,
    });
  }

  override write(value: number): void {
    const s = this.#s;
    if (s.command !== NO_COMMAND) {
      const { command } = s;
      s.command = NO_COMMAND;
      if (command === CMD.SET_SAMPLE) this.#setSampleRate(value);
      else s.resolution = value;
      this.reply(PS2_ACK);
      return;
    }
    if (s.wrap) {
      if (value === CMD.RESET_WRAP) {
        s.wrap = false;
        this.reply(PS2_ACK);
        return;
      }
      if (value !== CMD.RESET) {
        this.reply(value);
        return;
      }
    }
    this.#command(value);
  }

  #command(value: number): void {
    const s = this.#s;
    switch (value) {
      case CMD.SET_SCALING_11:
        s.status &= ~STATUS.SCALE21;
        break;
      case CMD.SET_SCALING_21:
        s.status |= STATUS.SCALE21;
        break;
      case CMD.SET_STREAM:
        s.status &= ~STATUS.REMOTE;
        break;
      case CMD.SET_REMOTE:
        s.status |= STATUS.REMOTE;
        break;
      case CMD.SET_WRAP:
        s.wrap = true;
        break;
      case CMD.ENABLE_DEVICE:
        s.status |= STATUS.ENABLED;
        break;
      case CMD.DISABLE_DEVICE:
        s.status &= ~STATUS.ENABLED;
        break;
      case CMD.SET_DEFAULT:
        Object.assign(s, { sampleRate: 100, resolution: 2, status: 0 });
        break;
      case CMD.SET_SAMPLE:
      case CMD.SET_RESOLUTION:
        s.command = value;
        break;
      case CMD.GET_TYPE:
        this.reply(PS2_ACK, s.type);
        return;
      case CMD.GET_SCALE:
        this.reply(PS2_ACK, s.status | this.#statusButtons, s.resolution, s.sampleRate);
        return;
      case CMD.POLL:
        this.reply(PS2_ACK);
        this.#sendPacket(true);
        return;
      case CMD.RESET:
        this.reset();
        this.reply(PS2_ACK, PS2_SELF_TEST_PASSED, s.type);
        return;
      default:
        this.reply(PS2_RESEND);
        return;
    }
    this.reply(PS2_ACK);
  }

  /** The status byte has the buttons in another order: right, middle, left from bit 0 up. */
  get #statusButtons(): number {
    const { buttons } = this.#s;
    return ((buttons & 1) << 2) | ((buttons & 2) >> 1) | ((buttons & 4) >> 1);
  }

  #wheel(button: InputButton): void {
    const s = this.#s;
    if (button === 'wheel-up') s.dz--;
    else if (button === 'wheel-down') s.dz++;
    else if (button === 'wheel-right') s.dw--;
    else if (button === 'wheel-left') s.dw++;
  }

  #setSampleRate(rate: number): void {
    const s = this.#s;
    s.sampleRate = rate;
    const sequence = s.type === WHEEL ? UNLOCK_BUTTONS : UNLOCK_WHEEL;
    if (s.type === FIVE_BUTTONS) return;
    if (rate === sequence[s.detect]) s.detect++;
    else s.detect = rate === sequence[0] ? 1 : 0;
    if (s.detect < sequence.length) return;
    s.detect = 0;
    s.type = s.type === PLAIN ? WHEEL : FIVE_BUTTONS;
  }

  /** One movement packet of three or four bytes; what does not fit stays for the next. */
  #sendPacket(asReply: boolean): boolean {
    const s = this.#s;
    const x = clamp(s.dx, 127);
    const y = clamp(s.dy, 127);
    const packet = [0x08 | (x < 0 ? 0x10 : 0) | (y < 0 ? 0x20 : 0) | (s.buttons & 7), x & 0xff, y & 0xff];
    let z = 0;
    if (s.type === WHEEL) {
      z = clamp(s.dz, 127);
      packet.push(z & 0xff);
    } else if (s.type === FIVE_BUTTONS) {
      z = clamp(s.dz, 7);
      packet.push((z & 0x0f) | ((s.buttons & 0x18) << 1));
    }
    if (asReply) this.reply(...packet);
    else if (!this.queueInput(packet)) return false;
    s.dx -= x;
    s.dy -= y;
    s.dz = s.type === PLAIN ? 0 : s.dz - z;
    s.dw = 0;
    return true;
  }
}

function clamp(value: number, limit: number): number {
  return Math.max(-limit, Math.min(limit, value));
}
