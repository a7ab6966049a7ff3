/** Durations in nanoseconds, the unit of every clock and timer. */
export const ns = (count: number): number => count;
export const us = (count: number): number => count * 1e3;
export const ms = (count: number): number => count * 1e6;
export const seconds = (count: number): number => count * 1e9;

export const NS_PER_SECOND = 1e9;
