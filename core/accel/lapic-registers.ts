/**
 * The local APIC's registers (Intel SDM volume 3, chapter 11): 32 bits wide and 16 bytes apart, in a page of which the first
 * 1024 bytes are in use.
 */
export const PAGE = 0xfee0_0000;
export const STRIDE = 16;
export const REGISTERS_END = 0x400;

/** Offsets (table 11-1). */
export const ID = 0x20;
export const VERSION = 0x30;
export const TPR = 0x80;
export const APR = 0x90;
export const PPR = 0xa0;
export const EOI = 0xb0;
export const LDR = 0xd0;
export const DFR = 0xe0;
export const SVR = 0xf0;
export const ISR = 0x100;
export const TMR = 0x180;
export const IRR = 0x200;
export const ESR = 0x280;
export const ICR_LOW = 0x300;
export const ICR_HIGH = 0x310;
export const LVT_TIMER = 0x320;
export const LVT_THERMAL = 0x330;
export const LVT_COUNTERS = 0x340;
export const LVT_LINT0 = 0x350;
export const LVT_LINT1 = 0x360;
export const LVT_ERROR = 0x370;
export const INITIAL_COUNT = 0x380;
export const CURRENT_COUNT = 0x390;
export const DIVIDE = 0x3e0;

/** Vectors below are the CPU's own: to send or to get one is an error (section 11.5.2). */
export const FIRST_VECTOR = 16;

/** Delivery modes (section 11.5.1), in the same bits of all that names one: local vectors, commands and the data of messages. */
export const DELIVERY = { FIXED: 0, LOWEST: 1, SMI: 2, NMI: 4, INIT: 5, STARTUP: 6, EXTINT: 7 } as const;

export const deliveryOf = (word: number): number => (word >> 8) & 7;

/** By how much the timer divides, from the divide configuration register (figure 11-10). */
export const divisorOf = (divide: number): number => 1 << ((((divide & 3) | ((divide & 8) >> 1)) + 1) & 7);

/** All registers, a word for each. */
export const registersOf = (read: (offset: number) => number): Uint32Array =>
  Uint32Array.from({ length: REGISTERS_END / STRIDE }, (_, index) => read(STRIDE * index));
