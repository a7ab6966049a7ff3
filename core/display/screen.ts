/** A picture: `width` * `height` pixels of red, green and blue, a byte each, row by row. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

/** What shows a picture: a display adapter's output. */
export interface Screen {
  readonly name: string;
  /** What is on the screen now. */
  picture(): Picture;
  /** The characters on the screen, a string a row; undefined in graphics modes. */
  text(): readonly string[] | undefined;
}

/** The screens of a machine, in the order in which their adapters came. */
export class DisplayHub {
  readonly #screens: Screen[] = [];

  register(screen: Screen): () => void {
    this.#screens.push(screen);
    return () => {
      const index = this.#screens.indexOf(screen);
      if (index >= 0) this.#screens.splice(index, 1);
    };
  }

  get screens(): readonly Screen[] {
    return this.#screens;
  }
}

/** A picture as a portable pixmap (Netpbm, "P6"). */
export function portablePixmap({ width, height, rgb }: Picture): Uint8Array {
  return Buffer.concat([Buffer.from(`P6\n${width} ${height}\n255\n`, 'latin1'), rgb]);
}
