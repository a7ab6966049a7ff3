/** The signalling rates of USB 1.1, 2.0 and 3.0, slowest first. */
export const SPEEDS = ['low', 'full', 'high', 'super'] as const;
export type UsbSpeed = (typeof SPEEDS)[number];

/** Sets of speeds, one bit for each of {@link SPEEDS}. */
export const SPEED_MASK = { low: 1, full: 2, high: 4, super: 8 } as const satisfies Readonly<Record<UsbSpeed, number>>;

/** Megabits a second, as QEMU prints them. */
export const MEGABITS = { low: '1.5', full: '12', high: '480', super: '5000' } as const;

/** The fastest speed that both sides have. */
export function commonSpeed(device: number, port: number): UsbSpeed | undefined {
  return SPEEDS.findLast(speed => (device & port & SPEED_MASK[speed]) !== 0);
}

/** QEMU's words for a set of speeds; it has none for low speed. */
export function speedNames(mask: number): string {
  const names = SPEEDS.filter(speed => speed !== 'low' && (mask & SPEED_MASK[speed]) !== 0);
  return names.length === 0 ? 'unknown' : names.join('+');
}
