import type { InputButton, InputEvent, InputHandler } from '../display/input.ts';
import { Chardev, type ModemLines } from './chardev.ts';

/** What the mouse sends once it has power: a Microsoft mouse with a third button, as Logitech's say it. */
const MOUSE_ID = Buffer.from('M3');
/** The plug and play answer is in 6 bits: ASCII less 0x20 (Plug and Play External COM Device specification, section 3). */
const SIX_BITS = 0x20;
const BEGIN = '(';
const END = ')';
/** Version 1.0: the high and the low half, which are no characters. */
const VERSION = [0x01, 0x24] as const;
const VENDOR_AND_PRODUCT = 'QMU0001';
const CLASS = 'MOUSE';

/** What may wait for the guest: a mouse forgets what is more. */
const BUFFER = 64;
const NO_LINES: ModemLines = { cts: false, dsr: false, ri: false, dcd: false };

const sixBits = (text: string): number[] => [...Buffer.from(text, 'latin1')].map(byte => byte - SIX_BITS);

/** Vendor, product, class and description between parentheses, with a sum over all but itself. */
function plugAndPlay(description: string): Buffer {
  const body = [...sixBits(BEGIN), ...VERSION, ...sixBits(`${VENDOR_AND_PRODUCT}\\\\${CLASS}\\\\${description}`)];
  const sum = [...body, ...sixBits(END)].reduce((total, byte) => total + byte, 0) & 0xff;
  return Buffer.from([...body, ...sixBits(sum.toString(16).padStart(2, '0').toUpperCase()), ...sixBits(END)]);
}

/** A Microsoft serial mouse: three bytes of seven bits a movement, a fourth for the middle button. DTR and RTS are its power. */
export class MsMouseChardev extends Chardev implements InputHandler {
  readonly name = 'QEMU Microsoft Mouse';
  readonly kinds: ReadonlySet<InputEvent['kind']> = new Set(['relative', 'button'] as const);
  readonly #unplug: () => void;
  readonly #pressed = new Set<InputButton>();
  #powered = false;
  #waiting: number[] = [];
  #x = 0;
  #y = 0;
  #middleChanged = false;

  /** @param plug makes it one of the machine's pointers; returns how to take it away again */
  constructor(label: string, plug: (handler: InputHandler) => () => void) {
    super(label);
    this.#unplug = plug(this);
  }

  override get filename(): string {
    return 'msmouse';
  }

  override setOutputs({ dtr, rts }: { readonly dtr: boolean; readonly rts: boolean }): void {
    const before = this.#powered;
    this.#powered = dtr || rts;
    if (this.#powered && !before) this.#send([...MOUSE_ID, ...plugAndPlay(this.name)]);
    if (this.#powered) return;
    this.#waiting = [];
    this.#pressed.clear();
    this.#middleChanged = false;
    this.#x = 0;
    this.#y = 0;
  }

  override modemLines(): ModemLines {
    return NO_LINES;
  }

  input(event: InputEvent): void {
    if (!this.#powered) return;
    if (event.kind === 'relative') {
      if (event.axis === 'x') this.#x += event.value;
      else this.#y += event.value;
    } else if (event.kind === 'button') {
      if (event.button === 'middle') this.#middleChanged = true;
      if (event.down) this.#pressed.add(event.button);
      else this.#pressed.delete(event.button);
    }
  }

  sync(): void {
    if (!this.#powered) return;
    const [x, y] = [this.#x, this.#y];
    this.#x = 0;
    this.#y = 0;
    const down = (button: InputButton, bit: number): number => (this.#pressed.has(button) ? bit : 0);
    const packet = [
      0x40 | down('left', 0x20) | down('right', 0x10) | (((y >> 6) & 3) << 2) | ((x >> 6) & 3),
      x & 0x3f,
      y & 0x3f,
    ];
    if (this.#middleChanged || this.#pressed.has('middle')) packet.push(down('middle', 0x20));
    this.#middleChanged = false;
    this.#send(packet);
  }

  override acceptInput(): void {
    super.acceptInput();
    if (this.holdsInput || this.#waiting.length === 0) return;
    const bytes = Buffer.from(this.#waiting);
    this.#waiting = [];
    this.push(bytes);
  }

  /** What the guest writes moves no mouse. */
  protected override transmit(bytes: Uint8Array): number {
    return bytes.length;
  }

  override dispose(): void {
    this.#unplug();
  }

  #send(bytes: readonly number[]): void {
    if (this.#waiting.length + bytes.length > BUFFER) return;
    this.#waiting.push(...bytes);
    this.acceptInput();
  }
}
