import * as lapic from '../../accel/lapic-registers.ts';
import { hex } from '../hex.ts';

/** The local vector table (section 11.5.1), in the order of the report. */
const VECTORS = [
  ['LVT0', lapic.LVT_LINT0],
  ['LVT1', lapic.LVT_LINT1],
  ['LVTPC', lapic.LVT_COUNTERS],
  ['LVTERR', lapic.LVT_ERROR],
  ['LVTTHMR', lapic.LVT_THERMAL],
  ['LVTT', lapic.LVT_TIMER],
] as const;

const DELIVERY = ['Fixed', '...', 'SMI', '...', 'NMI', 'INIT', '...', 'ExtINT'];
const TIMER_MODES = ['one-shot', 'periodic', 'tsc-deadline', 'periodic'];
const SHORTHANDS = ['no-shorthand', 'self', 'all-self', 'all'];
const FLAT = 0xf;

const hex8 = (value: number): string => `0x${hex(value >>> 0, 8)}`;
const hex2 = (value: number): string => `0x${hex(value & 0xff, 2)}`;
const bit = (value: number, position: number): boolean => ((value >>> position) & 1) !== 0;

function vectorLine(name: string, offset: number, entry: number): string {
  const mode = lapic.deliveryOf(entry);
  const words = [
    bit(entry, 13) ? 'active-lo' : 'active-hi',
    (bit(entry, 15) ? 'level' : 'edge').padEnd(5),
    (bit(entry, 16) ? 'masked' : '').padEnd(6),
    (bit(entry, 12) ? 'pending' : '').padEnd(7),
    (offset === lapic.LVT_TIMER ? (TIMER_MODES[(entry >>> 17) & 3] ?? '') : '').padEnd(12),
    (DELIVERY[mode] ?? '').padEnd(6),
  ].join(' ');
  const vector = DELIVERY[mode] === 'NMI' ? '' : ` (vec ${entry & 0xff})`;
  return `${name}\t ${hex8(entry)} ${words}${vector}\n`;
}

/** Section 11.6.1: what the last interprocessor interrupt was, and for whom. */
function commandLines(low: number, high: number, model: number): string {
  const shorthand = (low >>> 18) & 3;
  const logical = bit(low, 11);
  const words = [
    logical ? 'logical' : 'physical',
    bit(low, 15) ? 'level' : 'edge',
    bit(low, 14) ? 'assert' : 'de-assert',
    SHORTHANDS[shorthand],
  ].join(' ');
  const destination = high >>> 24;
  const mask = (width: number): string => (destination & (2 ** width - 1)).toString(2).padStart(width, '0');
  let whom = '';
  if (shorthand === 0) {
    if (!logical) whom = ` cpu ${destination} (APIC ID)`;
    else if (model === FLAT) whom = ` mask ${mask(8)} (APIC ID)`;
    else if (model === 0) whom = ` cluster ${destination >>> 4} mask ${mask(4)} (APIC ID)`;
  }
  return `ICR\t ${hex8(low)} ${words}\nICR2\t ${hex8(high)}${whom}\n`;
}

/** `info lapic`. @param registers the APIC's page, a word for each 16 bytes of it */
export function lapicReport(cpu: number, registers: Uint32Array): string {
  const at = (offset: number): number => registers[offset >>> 4] ?? 0;
  const vectors = (name: string, first: number): string => {
    const set: string[] = [];
    for (let vector = 0; vector < 256; vector++) {
      const word = (vector >>> 5) << 4;
      if (bit(at(first + word), vector & 31))
        set.push(`${vector}${bit(at(lapic.TMR + word), vector & 31) ? '(level)' : ''} `);
    }
    return `${name}\t ${set.length === 0 ? '(none)' : set.join('')}\n`;
  };
  const divide = at(lapic.DIVIDE) & 0xb;
  const spurious = at(lapic.SVR);
  const model = at(lapic.DFR) >>> 28;
  const logical = at(lapic.LDR) >>> 24;
  const cluster = model === 0 ? `(cluster ${logical >>> 4}: id ${logical & 0xf})` : '';
  return [
    `dumping local APIC state for CPU ${String(cpu).padEnd(2)}\n\n`,
    ...VECTORS.map(([name, offset]) => vectorLine(name, offset, at(offset))),
    `Timer\t DCR=0x${divide.toString(16)} (divide by ${lapic.divisorOf(divide)})`,
    ` initial_count = ${at(lapic.INITIAL_COUNT)} current_count = ${at(lapic.CURRENT_COUNT)}\n`,
    `SPIV\t ${hex8(spurious)} APIC ${bit(spurious, 8) ? 'enabled' : 'disabled'},`,
    ` focus=${bit(spurious, 9) ? 'on' : 'off'}, spurious vec ${spurious & 0xff}\n`,
    commandLines(at(lapic.ICR_LOW), at(lapic.ICR_HIGH), model),
    `ESR\t ${hex8(at(lapic.ESR))}\n`,
    vectors('ISR', lapic.ISR),
    vectors('IRR', lapic.IRR),
    `\nAPR ${hex2(at(lapic.APR))} TPR ${hex2(at(lapic.TPR))} DFR ${hex2(model)} LDR ${hex2(logical)}${cluster}`,
    ` PPR ${hex2(at(lapic.PPR))}\n`,
  ].join('');
}
