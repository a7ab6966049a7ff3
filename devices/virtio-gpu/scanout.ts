import { fitted, type Screen, type ScreenSource, type Surface } from '../../core/display/screen.ts';
import type { GpuResource, Rectangle } from './resource.ts';

const CURSOR_SIZE = 64;

/** What an adapter shows where the driver has not set the scanout: a VGA's picture. */
export interface Fallback {
  draw(surface: Surface): Surface;
  text(): readonly string[] | undefined;
}

/** One output (section 5.7.2): the part of a resource that it shows, and the monitor that is plugged in. */
export class Scanout implements ScreenSource {
  readonly device: string | undefined;
  readonly path: string;
  readonly head: number;
  readonly #suggested: (head: number, width: number, height: number) => void;
  /** For the output of a VGA. */
  fallback: Fallback | undefined;
  screen: Screen | undefined;
  /** The mode that the monitor prefers; no width for no monitor. */
  width = 0;
  height = 0;
  resource: GpuResource | undefined;
  area: Rectangle = { x: 0, y: 0, width: 0, height: 0 };

  constructor(
    place: { readonly device: string | undefined; readonly path: string; readonly head: number },
    suggested: (head: number, width: number, height: number) => void,
  ) {
    this.device = place.device;
    this.path = place.path;
    this.head = place.head;
    this.#suggested = suggested;
  }

  get polled(): boolean {
    return this.resource === undefined && this.fallback !== undefined;
  }

  draw(surface: Surface): Surface {
    const { resource, area } = this;
    if (resource === undefined) {
      if (this.fallback !== undefined) return this.fallback.draw(surface);
      const blank = fitted(surface, this.width || 640, this.height || 480);
      blank.pixels.fill(0);
      return blank;
    }
    const fit = fitted(surface, area.width, area.height);
    resource.copy(area, fit.pixels);
    return fit;
  }

  text(): readonly string[] | undefined {
    return this.resource === undefined ? this.fallback?.text() : undefined;
  }

  suggestSize(width: number, height: number): void {
    this.#suggested(this.head, width, height);
  }

  /** The driver shows `area` of `resource`, or nothing any more. */
  show(resource: GpuResource | undefined, area: Rectangle = { x: 0, y: 0, width: 0, height: 0 }): void {
    this.resource = resource;
    this.area = area;
    this.screen?.changed();
  }

  /** A pointer of 64 by 64 (section 5.7.6.10); without a resource there is none to be seen. */
  setCursor(resource: GpuResource | undefined, hotX: number, hotY: number): void {
    if (this.screen === undefined) return;
    if (resource !== undefined && (resource.width !== CURSOR_SIZE || resource.height !== CURSOR_SIZE)) return;
    const pixels = resource?.cursorPixels() ?? new Uint32Array(CURSOR_SIZE * CURSOR_SIZE);
    this.screen.cursor = { width: CURSOR_SIZE, height: CURSOR_SIZE, hotX, hotY, pixels };
  }
}
