/** Mouse buttons, as QEMU names them (QAPI InputButton). */
export type InputButton =
  | 'left'
  | 'middle'
  | 'right'
  | 'wheel-up'
  | 'wheel-down'
  | 'side'
  | 'extra'
  | 'wheel-left'
  | 'wheel-right'
  | 'touch';

/** One thing that a person did. Keys are QEMU's qcodes (QAPI QKeyCode); absolute positions go from 0 to 0x7fff. */
export type InputEvent =
  | { readonly kind: 'key'; readonly key: string; readonly down: boolean }
  | { readonly kind: 'button'; readonly button: InputButton; readonly down: boolean }
  | { readonly kind: 'relative'; readonly axis: 'x' | 'y'; readonly value: number }
  | { readonly kind: 'absolute'; readonly axis: 'x' | 'y'; readonly value: number };

/** A device that takes input: a keyboard, a mouse, a tablet. */
export interface InputHandler {
  readonly name: string;
  readonly kinds: ReadonlySet<InputEvent['kind']>;
  input(event: InputEvent): void;
  /** The events so far belong together: a mouse now sends its packet. */
  sync(): void;
}

/** The highest position that an absolute axis reports. */
export const ABSOLUTE_MAX = 0x7fff;

/** Brings what a person does to the device that is to have it: for each kind of event the one activated last. */
export class InputHub {
  readonly #handlers: InputHandler[] = [];

  register(handler: InputHandler): () => void {
    this.#handlers.unshift(handler);
    return () => {
      const index = this.#handlers.indexOf(handler);
      if (index >= 0) this.#handlers.splice(index, 1);
    };
  }

  /** From now on `handler` is asked first: the guest has switched the device on. */
  activate(handler: InputHandler): void {
    const index = this.#handlers.indexOf(handler);
    if (index <= 0) return;
    this.#handlers.splice(index, 1);
    this.#handlers.unshift(handler);
  }

  /** Delivers events that happened at once. Returns how many found a device. */
  send(events: readonly InputEvent[]): number {
    const touched = new Set<InputHandler>();
    let delivered = 0;
    for (const event of events) {
      const handler = this.find(event.kind);
      if (handler === undefined) continue;
      handler.input(event);
      touched.add(handler);
      delivered++;
    }
    for (const handler of touched) handler.sync();
    return delivered;
  }

  find(kind: InputEvent['kind']): InputHandler | undefined {
    return this.#handlers.find(handler => handler.kinds.has(kind));
  }

  get handlers(): readonly InputHandler[] {
    return this.#handlers;
  }
}
