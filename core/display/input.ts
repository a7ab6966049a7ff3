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

/** The lights of a keyboard. */
export const LED = { SCROLL_LOCK: 1, NUM_LOCK: 2, CAPS_LOCK: 4 } as const;

/** Brings what a person does to the device that is to have it: for each kind of event the one activated last. */
export class InputHub {
  readonly #handlers: InputHandler[] = [];
  readonly #numbers = new Map<InputHandler, number>();
  readonly #listeners = new Set<() => void>();
  readonly #takesInput: () => boolean;
  readonly #held = new Set<string>();
  #leds = 0;
  #lastNumber = 0;

  /** @param takesInput whether the guest runs: while it does not, nothing that a person does reaches it */
  constructor(takesInput: () => boolean = () => true) {
    this.#takesInput = takesInput;
  }

  register(handler: InputHandler): () => void {
    this.#handlers.push(handler);
    this.#numbers.set(handler, ++this.#lastNumber);
    this.#told();
    return () => {
      const index = this.#handlers.indexOf(handler);
      if (index < 0) return;
      this.#handlers.splice(index, 1);
      this.#numbers.delete(handler);
      this.#told();
    };
  }

  /** From now on `handler` is asked first: the guest has switched the device on. */
  activate(handler: InputHandler): void {
    this.#move(handler, 0);
  }

  /** From now on `handler` is asked last: the guest no longer listens to the device. */
  deactivate(handler: InputHandler): void {
    this.#move(handler, this.#handlers.length - 1);
  }

  /** Whether the guest runs, so that what a person does reaches it. */
  get takesInput(): boolean {
    return this.#takesInput();
  }

  /** Delivers events that happened at once. Returns how many found a device. */
  send(events: readonly InputEvent[]): number {
    if (!this.#takesInput()) return 0;
    const touched = new Set<InputHandler>();
    let delivered = 0;
    for (const event of events) {
      const handler = this.find(event.kind);
      if (handler === undefined) continue;
      if (event.kind === 'key') {
        if (event.down) this.#held.add(event.key);
        else this.#held.delete(event.key);
      }
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

  /** Whether the pointer that is asked first wants positions, not movements. */
  get absolute(): boolean {
    return this.pointers[0]?.kinds.has('absolute') ?? false;
  }

  /** Keys that are down now. */
  get held(): ReadonlySet<string> {
    return this.#held;
  }

  /** Mice and tablets, the one that is asked first at the head. */
  get pointers(): readonly InputHandler[] {
    return this.#handlers.filter(({ kinds }) => kinds.has('relative') || kinds.has('absolute'));
  }

  get handlers(): readonly InputHandler[] {
    return this.#handlers;
  }

  /** The number by which a user chooses the device (`mouse_set`). */
  numberOf(handler: InputHandler): number {
    return this.#numbers.get(handler) ?? 0;
  }

  /** The lights of the keyboard, see {@link LED}; the guest sets them. */
  get leds(): number {
    return this.#leds;
  }

  set leds(leds: number) {
    if (leds === this.#leds) return;
    this.#leds = leds;
    this.#told();
  }

  /** Calls `listener` when lights or {@link absolute} may have changed. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #move(handler: InputHandler, to: number): void {
    const index = this.#handlers.indexOf(handler);
    if (index < 0 || index === to) return;
    this.#handlers.splice(index, 1);
    this.#handlers.splice(to, 0, handler);
    this.#told();
  }

  #told(): void {
    for (const listener of this.#listeners) listener();
  }
}
