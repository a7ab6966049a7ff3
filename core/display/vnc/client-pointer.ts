import { ABSOLUTE_MAX, type InputButton, type InputEvent, type InputHub } from '../input.ts';

/** Buttons by their bits in a pointer event (RFC 6143, section 7.5.5). */
const BUTTONS: readonly InputButton[] = ['left', 'middle', 'right', 'wheel-up', 'wheel-down'];
/** What stands for no movement where a client sends movements. */
const CENTRE = 0x7fff;

/** A client's pointer: positions on the picture, or movements, as the guest's pointing device wants them. */
export class ClientPointer {
  readonly #input: InputHub;
  #buttons = 0;
  #last: { readonly x: number; readonly y: number } | undefined;

  constructor(input: InputHub) {
    this.#input = input;
  }

  /**
   * @param mode the guest has a tablet; or the client sends movements, as it has been told that the guest has none; or it
   * only knows positions, whose differences are movements
   */
  event(
    buttons: number,
    x: number,
    y: number,
    mode: 'absolute' | 'movement' | 'position',
    width: number,
    height: number,
  ): void {
    const events: InputEvent[] = this.#pressed(buttons);
    if (mode === 'absolute') {
      events.push({ kind: 'absolute', axis: 'x', value: scaled(x, width) });
      events.push({ kind: 'absolute', axis: 'y', value: scaled(y, height) });
    } else if (mode === 'movement') {
      events.push({ kind: 'relative', axis: 'x', value: x - CENTRE });
      events.push({ kind: 'relative', axis: 'y', value: y - CENTRE });
    } else {
      if (this.#last !== undefined) {
        events.push({ kind: 'relative', axis: 'x', value: x - this.#last.x });
        events.push({ kind: 'relative', axis: 'y', value: y - this.#last.y });
      }
      this.#last = { x, y };
    }
    this.#input.send(events);
  }

  #pressed(buttons: number): InputEvent[] {
    const changed = buttons ^ this.#buttons;
    this.#buttons = buttons;
    return BUTTONS.flatMap((button, bit): InputEvent[] =>
      (changed & (1 << bit)) === 0 ? [] : [{ kind: 'button', button, down: (buttons & (1 << bit)) !== 0 }],
    );
  }
}

const scaled = (value: number, size: number): number =>
  size < 1 ? ABSOLUTE_MAX >> 1 : Math.min(ABSOLUTE_MAX, Math.floor((value * ABSOLUTE_MAX) / size));
