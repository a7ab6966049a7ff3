/** Formats of floppy disks, and how one is recognized by its size. */

/** Drive types: 3.5" of 1.44 and 2.88 MB, 5.25" of 1.2 MB. */
export const DRIVE_TYPES = ['144', '288', '120', 'none', 'auto'] as const;
export type DriveType = (typeof DRIVE_TYPES)[number];

/** Data rates as the CCR selects them (82077AA datasheet, section 2.1.8). */
export const RATE = { K500: 0, K300: 1, K250: 2, M1: 3 } as const;

export interface Format {
  readonly drive: '144' | '288' | '120';
  readonly sectors: number;
  readonly tracks: number;
  readonly sides: 1 | 2;
  readonly rate: number;
}

/** Drive, sides, rate, and the tracks and sectors that go with them; the first that fits is taken. */
const TABLE: readonly (readonly [
  Format['drive'],
  Format['sides'],
  number,
  readonly (readonly [tracks: number, sectors: number])[],
])[] = [
  [
    '144',
    2,
    RATE.K500,
    [
      [80, 18],
      [80, 20],
      [80, 21],
      [82, 21],
      [83, 21],
      [80, 22],
      [80, 23],
      [80, 24],
    ],
  ],
  [
    '288',
    2,
    RATE.M1,
    [
      [80, 36],
      [80, 39],
      [80, 40],
      [80, 44],
      [80, 48],
    ],
  ],
  [
    '144',
    2,
    RATE.K250,
    [
      [80, 9],
      [80, 10],
      [82, 10],
      [83, 10],
      [80, 13],
      [80, 14],
    ],
  ],
  [
    '120',
    2,
    RATE.K500,
    [
      [80, 15],
      [80, 18],
      [82, 18],
      [83, 18],
      [80, 20],
    ],
  ],
  [
    '120',
    2,
    RATE.K250,
    [
      [80, 9],
      [80, 11],
    ],
  ],
  ['120', 2, RATE.K300, [[40, 9]]],
  ['120', 1, RATE.K300, [[40, 9]]],
  [
    '120',
    2,
    RATE.K300,
    [
      [41, 10],
      [42, 10],
    ],
  ],
  ['120', 2, RATE.K250, [[40, 8]]],
  ['120', 1, RATE.K250, [[40, 8]]],
  ['144', 1, RATE.K250, [[80, 9]]],
];

const FORMATS: readonly Format[] = TABLE.flatMap(([drive, sides, rate, sizes]) =>
  sizes.map(([tracks, sectors]) => ({ drive, sides, rate, tracks, sectors })),
);

const inches = (drive: DriveType): number => (drive === '120' ? 5.25 : 3.5);

/**
 * The format of a disk of `total` sectors in a drive of type `drive`: of the same type and size, else of the same diameter
 * and size, else of that size alone, else the type's own.
 */
export function formatOf(total: number, drive: DriveType, fallback: DriveType): Format | undefined {
  const ofSize = FORMATS.filter(({ tracks, sectors, sides }) => tracks * sectors * sides === total);
  const type = drive === 'auto' ? fallback : drive;
  return (
    ofSize.find(format => drive === 'auto' || format.drive === drive) ??
    ofSize.find(format => inches(format.drive) === inches(drive)) ??
    ofSize[0] ??
    FORMATS.find(format => format.drive === type)
  );
}
