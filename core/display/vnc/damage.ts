import { blankSurface, type Surface } from '../screen.ts';

export const TILE = 16;

export interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Which parts of a picture a client has not yet seen, by tiles of 16 by 16. */
export class Damage {
  #columns = 0;
  #rows = 0;
  #tiles = new Uint8Array(0);
  #count = 0;

  /** All of a picture of this size. */
  resize(width: number, height: number): void {
    this.#columns = Math.ceil(width / TILE);
    this.#rows = Math.ceil(height / TILE);
    this.#tiles = new Uint8Array(this.#columns * this.#rows).fill(1);
    this.#count = this.#tiles.length;
  }

  get empty(): boolean {
    return this.#count === 0;
  }

  mark(column: number, row: number): void {
    const index = row * this.#columns + column;
    if (this.#tiles[index] !== 0) return;
    this.#tiles[index] = 1;
    this.#count++;
  }

  markArea({ x, y, width, height }: Rectangle): void {
    const right = Math.min(this.#columns, Math.ceil((x + width) / TILE));
    const bottom = Math.min(this.#rows, Math.ceil((y + height) / TILE));
    for (let row = Math.floor(y / TILE); row < bottom; row++)
      for (let column = Math.floor(x / TILE); column < right; column++) this.mark(column, row);
  }

  /** Takes all damage as rectangles that do not overlap, cut to `width` by `height`: as wide and then as high as they get. */
  take(width: number, height: number): Rectangle[] {
    const found: Rectangle[] = [];
    const tiles = this.#tiles;
    for (let row = 0; row < this.#rows && this.#count > 0; row++) {
      for (let column = 0; column < this.#columns; column++) {
        if (tiles[row * this.#columns + column] === 0) continue;
        let right = column;
        while (right < this.#columns && tiles[row * this.#columns + right] === 1) right++;
        let bottom = row;
        while (bottom < this.#rows && this.#full(bottom, column, right)) {
          tiles.fill(0, bottom * this.#columns + column, bottom * this.#columns + right);
          bottom++;
        }
        this.#count -= (right - column) * (bottom - row);
        const x = column * TILE;
        const y = row * TILE;
        const rectangle = {
          x,
          y,
          width: Math.min(width, right * TILE) - x,
          height: Math.min(height, bottom * TILE) - y,
        };
        if (rectangle.width > 0 && rectangle.height > 0) found.push(rectangle);
      }
    }
    return found;
  }

  #full(row: number, left: number, right: number): boolean {
    for (let column = left; column < right; column++) if (this.#tiles[row * this.#columns + column] === 0) return false;
    return true;
  }
}

/** The picture as clients were last told of it, to find out what has changed since. */
export class Reference {
  #surface: Surface = blankSurface(0, 0);
  #bytes: Buffer = Buffer.alloc(0);

  get surface(): Surface {
    return this.#surface;
  }

  /** Takes over a picture of another size as a whole. False where the size is the same. */
  resized(surface: Surface): boolean {
    const { width, height, pixels } = surface;
    if (width === this.#surface.width && height === this.#surface.height) return false;
    this.#surface = { width, height, pixels: pixels.slice() };
    this.#bytes = bytesOf(this.#surface);
    return true;
  }

  /** Takes over what has changed and calls `changed` for each tile that has. The size is the same. */
  update(surface: Surface, changed: (column: number, row: number) => void): boolean {
    const bytes = bytesOf(surface);
    if (bytes.equals(this.#bytes)) return false;
    const { width, height } = surface;
    const marked = new Uint8Array(Math.ceil(width / TILE));
    for (let y = 0; y < height; y++) {
      if (y % TILE === 0) marked.fill(0);
      const at = y * width;
      if (bytes.compare(this.#bytes, at * 4, (at + width) * 4, at * 4, (at + width) * 4) === 0) continue;
      for (let column = 0; column < marked.length; column++) {
        if (marked[column] !== 0 || !this.#differs(surface, at + column * TILE, Math.min(TILE, width - column * TILE)))
          continue;
        marked[column] = 1;
        changed(column, Math.floor(y / TILE));
      }
    }
    this.#surface.pixels.set(surface.pixels);
    return true;
  }

  #differs({ pixels }: Surface, at: number, length: number): boolean {
    for (let index = at; index < at + length; index++) if (pixels[index] !== this.#surface.pixels[index]) return true;
    return false;
  }
}

const bytesOf = ({ pixels }: Surface): Buffer => Buffer.from(pixels.buffer, pixels.byteOffset, pixels.byteLength);
