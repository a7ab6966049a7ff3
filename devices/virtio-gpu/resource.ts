import type { Dma } from '../../core/memory/dma.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { FORMATS, MAX_BACKING_ENTRIES } from './protocol.ts';

const PIXEL = 4;
/** The largest picture of which a snapshot may hold pixels, as `max_hostmem` cannot be beyond. */
const MAX_IMAGE = 2 ** 32 - 1;

export interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** A stretch of the guest's memory that a resource is made of. */
interface BackingEntry {
  readonly address: number;
  readonly length: number;
}

export const resourceFields = {
  id: field.u32(),
  format: field.u32(),
  width: field.u32(),
  height: field.u32(),
  image: field.buffer(MAX_IMAGE),
  attached: field.bool(),
  backing: field.list(field.record({ address: field.number(), length: field.u32() }), MAX_BACKING_ENTRIES),
} as const;

/** A picture of the driver's, in the device, and the guest's memory from which its pixels come (section 5.7.6.1). */
export class GpuResource {
  readonly id: number;
  readonly format: number;
  readonly width: number;
  readonly height: number;
  readonly image: Uint8Array;
  #backing: readonly BackingEntry[] | undefined;

  constructor(id: number, format: number, width: number, height: number) {
    this.id = id;
    this.format = format;
    this.width = width;
    this.height = height;
    this.image = new Uint8Array(GpuResource.imageSize(width, height));
  }

  static imageSize(width: number, height: number): number {
    return width * height * PIXEL;
  }

  static restored(saved: StateValues<typeof resourceFields>): GpuResource | undefined {
    if (!FORMATS.has(saved.format) || saved.image.length !== GpuResource.imageSize(saved.width, saved.height))
      return undefined;
    const resource = new GpuResource(saved.id, saved.format, saved.width, saved.height);
    resource.image.set(saved.image);
    if (saved.attached) resource.#backing = saved.backing;
    return resource;
  }

  save(): StateValues<typeof resourceFields> {
    const { id, format, width, height, image } = this;
    const backing = [...(this.#backing ?? [])];
    return { id, format, width, height, image, attached: this.#backing !== undefined, backing };
  }

  get attached(): boolean {
    return this.#backing !== undefined;
  }

  attach(backing: readonly BackingEntry[]): void {
    this.#backing = backing;
  }

  detach(): void {
    this.#backing = undefined;
  }

  /** Whether a rectangle of the driver's lies within. */
  contains({ x, y, width, height }: Rectangle): boolean {
    return x + width <= this.width && y + height <= this.height;
  }

  /** Fetches a rectangle; `offset` is where in the backing its first pixel is, whose rows are as long as the picture's. */
  transfer(dma: Dma, offset: number, { x, y, width, height }: Rectangle): void {
    const stride = this.width * PIXEL;
    if (offset === 0 && x === 0 && y === 0 && width === this.width) {
      this.#read(dma, 0, 0, stride * this.height);
      return;
    }
    for (let row = 0; row < height; row++)
      this.#read(dma, offset + stride * row, (y + row) * stride + x * PIXEL, width * PIXEL);
  }

  /** Copies `area` as 0x00RRGGBB, row by row, to `target`. */
  copy(area: Rectangle, target: Uint32Array): void {
    const view = new DataView(this.image.buffer);
    const { red, green, blue } = FORMATS.get(this.format) ?? { red: 0, green: 0, blue: 0 };
    const native = red === 2 && green === 1 && blue === 0;
    for (let row = 0; row < area.height; row++) {
      const from = ((area.y + row) * this.width + area.x) * PIXEL;
      const to = row * area.width;
      for (let column = 0; column < area.width; column++) {
        const at = from + column * PIXEL;
        target[to + column] = native
          ? view.getUint32(at, true) & 0xff_ffff
          : ((this.image[at + red] ?? 0) << 16) | ((this.image[at + green] ?? 0) << 8) | (this.image[at + blue] ?? 0);
      }
    }
  }

  /** Its pixels as 0xAARRGGBB: a cursor's. */
  cursorPixels(): Uint32Array {
    const pixels = new Uint32Array(this.width * this.height);
    this.copy({ x: 0, y: 0, width: this.width, height: this.height }, pixels);
    const { red, green, blue } = FORMATS.get(this.format) ?? { red: 2, green: 1, blue: 0 };
    const alpha = 6 - red - green - blue;
    for (let index = 0; index < pixels.length; index++)
      pixels[index] = ((pixels[index] ?? 0) | ((this.image[index * PIXEL + alpha] ?? 0) << 24)) >>> 0;
    return pixels;
  }

  /** Reads from the backing, piece by piece; what lies beyond it stays as it was. */
  #read(dma: Dma, offset: number, at: number, length: number): void {
    let start = 0;
    let to = at;
    let from = offset;
    let left = Math.min(length, this.image.length - at);
    for (const { address, length: size } of this.#backing ?? []) {
      if (left <= 0) return;
      if (from < start + size) {
        const piece = Math.min(left, start + size - from);
        dma.read(address + from - start, this.image, to, piece);
        to += piece;
        from += piece;
        left -= piece;
      }
      start += size;
    }
  }
}
