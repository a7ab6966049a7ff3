import { BlockError } from '../io-error.ts';

/** Cylinders, heads and sectors as a VHD footer has them. */
export interface ChsGeometry {
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
}

/** An image with this geometry is as large as its footer says. */
export const LARGEST: ChsGeometry = { cylinders: 65535, heads: 16, sectors: 255 };

export const sectorsOf = ({ cylinders, heads, sectors }: ChsGeometry): number => cylinders * heads * sectors;

export const LARGEST_SECTORS = sectorsOf(LARGEST);

/** 2040 GiB. */
export const MAX_SECTORS = 0xff00_0000;

/** "Appendix: CHS Calculation". */
function geometryFor(total: number): ChsGeometry {
  const capped = Math.min(total, LARGEST_SECTORS);
  const of = (heads: number, sectors: number): ChsGeometry => ({
    cylinders: Math.floor(Math.floor(capped / sectors) / heads),
    heads,
    sectors,
  });
  if (capped >= 65535 * 16 * 63) return of(16, 255);
  let tracks = Math.floor(capped / 17);
  const heads = Math.max(4, Math.ceil(tracks / 1024));
  if (tracks < heads * 1024 && heads <= 16) return of(heads, 17);
  tracks = Math.floor(capped / 31);
  return tracks < 16 * 1024 ? of(16, 31) : of(16, 63);
}

/**
 * The geometry of an image of at least `size` bytes, and how many sectors such an image has: the geometry's own, or for
 * the largest of all the image's.
 *
 * @throws BlockError where the format has no room for that
 */
export function fit(size: number, forceSize: boolean): { readonly geometry: ChsGeometry; readonly total: number } {
  const wanted = Math.floor(size / 512);
  let geometry = LARGEST;
  if (!forceSize) {
    const capped = Math.min(LARGEST_SECTORS, wanted);
    geometry = { cylinders: 0, heads: 0, sectors: 0 };
    for (let more = 0; capped > sectorsOf(geometry); more++) geometry = geometryFor(capped + more);
  }
  if (sectorsOf(geometry) !== LARGEST_SECTORS) return { geometry, total: sectorsOf(geometry) };
  if (wanted > MAX_SECTORS) throw new BlockError('Disk size is too large, max size is 2040 GiB');
  return { geometry, total: wanted };
}
