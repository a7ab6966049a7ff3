/** The colours of `pixels` by their numbers, in the order of their appearance; undefined where there are more than `limit`. */
export function paletteOf(pixels: Uint32Array, limit: number): Map<number, number> | undefined {
  const colours = new Map<number, number>();
  let last = -1;
  for (const pixel of pixels) {
    if (pixel === last) continue;
    last = pixel;
    if (colours.has(pixel)) continue;
    if (colours.size === limit) return undefined;
    colours.set(pixel, colours.size);
  }
  return colours;
}
