/** Pixels, row by row, a word each: 0x00RRGGBB. */
export interface Surface {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint32Array;
}

/** A pointer's picture: a word a pixel, 0xAARRGGBB with the alpha not yet multiplied in. */
export interface CursorImage {
  readonly width: number;
  readonly height: number;
  /** The pixel that points. */
  readonly hotX: number;
  readonly hotY: number;
  readonly pixels: Uint32Array;
}

/** One output of a display adapter, as the adapter provides it. */
export interface ScreenSource {
  /** The adapter's id, where it has one. */
  readonly device: string | undefined;
  /** The adapter's path in the object tree. */
  readonly path: string;
  /** Which of the adapter's outputs this is, from 0. */
  readonly head: number;
  /** True where the picture changes by the guest's plain writes to memory: who watches has to look at it again and again. */
  readonly polled: boolean;
  /** Draws what there is to be seen into `surface`, or into a new one where the size has changed. */
  draw(surface: Surface): Surface;
  /** The characters on the screen, a string a row; undefined in graphics modes. */
  text?(): readonly string[] | undefined;
  /** A viewer's window has this size now: the guest may follow. */
  suggestSize?(width: number, height: number): void;
}

/** Somebody who looks at a screen. */
export interface ScreenViewer {
  /** The picture of a screen that is not polled has changed, or its adapter has been reset. */
  changed(): void;
  cursorChanged?(): void;
}

/** A screen of this size without a picture. */
export const blankSurface = (width: number, height: number): Surface => ({
  width,
  height,
  pixels: new Uint32Array(width * height),
});

/** `surface` itself where it has this size, else a new one. */
export const fitted = (surface: Surface, width: number, height: number): Surface =>
  surface.width === width && surface.height === height ? surface : blankSurface(width, height);

/** What a display adapter shows on one of its outputs, and who looks at it. */
export class Screen {
  readonly source: ScreenSource;
  readonly #viewers = new Set<ScreenViewer>();
  #surface = blankSurface(640, 480);
  #cursor: CursorImage | undefined;

  constructor(source: ScreenSource) {
    this.source = source;
  }

  /** Brings the picture up to date. It is the same object as before unless the size has changed. */
  refresh(): Surface {
    this.#surface = this.source.draw(this.#surface);
    return this.#surface;
  }

  /** The pointer that the adapter draws beside the picture; undefined where the guest has none or draws it itself. */
  get cursor(): CursorImage | undefined {
    return this.#cursor;
  }

  set cursor(cursor: CursorImage | undefined) {
    this.#cursor = cursor;
    for (const viewer of this.#viewers) viewer.cursorChanged?.();
  }

  /** The adapter says that there is something new to be seen. */
  changed(): void {
    for (const viewer of this.#viewers) viewer.changed();
  }

  watch(viewer: ScreenViewer): () => void {
    this.#viewers.add(viewer);
    return () => this.#viewers.delete(viewer);
  }
}

/** The screens of a machine, in the order in which their adapters came. */
export class DisplayHub {
  readonly #screens: Screen[] = [];
  readonly #listeners = new Set<() => void>();

  /** An adapter's output; `remove` takes it away. */
  add(source: ScreenSource): Screen {
    const screen = new Screen(source);
    this.#screens.push(screen);
    this.#told();
    return screen;
  }

  remove(screen: Screen): void {
    const index = this.#screens.indexOf(screen);
    if (index < 0) return;
    this.#screens.splice(index, 1);
    this.#told();
  }

  get screens(): readonly Screen[] {
    return this.#screens;
  }

  /** The screen of an adapter, by its id or its path. */
  find(device: string, head: number): Screen | undefined {
    return this.#screens.find(
      ({ source }) => (source.device === device || source.path === device) && source.head === head,
    );
  }

  /** Calls `listener` when a screen comes or goes. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #told(): void {
    for (const listener of this.#listeners) listener();
  }
}
