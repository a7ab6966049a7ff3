/** Cylinders, heads and sectors of a disk, as its firmware is told. */
export interface Geometry {
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
}

/** How the BIOS translates: in QEMU's words, as `bios-chs-trans` takes them. */
export type Translation = 'none' | 'lba' | 'large' | 'rechs';

const SECTOR = 512;
const MBR_SIGNATURE_AT = 510;
const PARTITIONS_AT = 446;

/**
 * The geometry that the partition table was made for, if one can be told from it: a partition that ends on the last
 * head and sector of a cylinder shows how many there are.
 */
function fromPartitions(mbr: Uint8Array, sectors: number): Geometry | undefined {
  if (mbr[MBR_SIGNATURE_AT] !== 0x55 || mbr[MBR_SIGNATURE_AT + 1] !== 0xaa) return undefined;
  const view = new DataView(mbr.buffer, mbr.byteOffset, SECTOR);
  for (let index = 0; index < 4; index++) {
    const entry = PARTITIONS_AT + index * 16;
    const count = view.getUint32(entry + 12, true);
    const endHead = view.getUint8(entry + 5);
    if (count === 0 || endHead === 0) continue;
    const heads = endHead + 1;
    const perTrack = view.getUint8(entry + 6) & 63;
    if (perTrack === 0) continue;
    const cylinders = Math.floor(sectors / (heads * perTrack));
    if (cylinders < 1 || cylinders > 16383) continue;
    return { cylinders, heads, sectors: perTrack };
  }
  return undefined;
}

/** What disks of the size had: 16 heads of 63 sectors. */
function fromSize(sectors: number): Geometry {
  const cylinders = Math.min(16383, Math.max(2, Math.floor(sectors / (16 * 63))));
  return { cylinders, heads: 16, sectors: 63 };
}

/**
 * The geometry and translation of a disk that nobody specified.
 *
 * @param mbr the first sector
 * @param bytes the length of the disk
 */
export function guessGeometry(mbr: Uint8Array, bytes: number): { geometry: Geometry; translation: Translation } {
  const sectors = Math.floor(bytes / SECTOR);
  const found = fromPartitions(mbr, sectors);
  if (found === undefined) {
    const geometry = fromSize(sectors);
    return { geometry, translation: automatic(geometry) };
  }
  if (found.heads > 16) {
    // The table was made under LBA translation; the disk itself has its usual geometry.
    const geometry = fromSize(sectors);
    return { geometry, translation: geometry.cylinders * geometry.heads <= 131072 ? 'large' : 'lba' };
  }
  return { geometry: found, translation: 'none' };
}

/** What a BIOS chooses for a geometry by itself. */
export function automatic(geometry: Geometry): Translation {
  return geometry.cylinders <= 1024 && geometry.heads <= 16 && geometry.sectors <= 63 ? 'none' : 'lba';
}
