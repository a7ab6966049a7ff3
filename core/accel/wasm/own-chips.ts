import { ModuleCode } from './module-code.ts';

/** Ports that do not exist, which the module reads from to ask us. The answer 1 means that the instruction is done. */
export const ASK_CPUID = 0x1_0000;
export const ASK_RDMSR = 0x1_0001;
/** The interrupt-acknowledge cycle: the answer is 1 with the vector in bits 8 to 15, or 0 for none. */
export const ASK_INTERRUPT = 0x1_0002;
/** The byte that says whether it is worth asking: where the module's 8259A has its requests. */
export const INTERRUPT_PENDING = 35412;

/** `(address & -4096) == 0xfee00000`, and the same for the IOAPIC's 32 bytes: the module does this in every access of its own. */
const CHIP_RANGES: readonly (readonly [found: string, times: number])[] = [
  ['418080807746', 163],
  ['418080807646', 163],
];
/** Of the LEB128 constant's five bytes, the one whose bit 0 is bit 0 of the constant. */
const FIRST_BYTE_OF_CONSTANT = -5;

const I32_CONST = 0x41;
const LOCAL_GET = 0x20;
const CALL = 0x10;
const IF = 0x04;
const EMPTY = 0x40;
const RETURN = 0x0f;
const I32 = 0x7f;
const ELSE = 0x05;
const I32_LOAD8_U = 0x2d;
const I32_STORE16 = 0x3b;
const END = 0x0b;

/** LEB128 of a number below 2^20. */
const leb = (value: number): number[] => [(value & 0x7f) | 0x80, ((value >> 7) & 0x7f) | 0x80, (value >> 14) & 0x7f];
const const32 = (value: number): number[] => [I32_CONST, ...leb(value)];

/**
 * The module without its interrupt controllers and without a say in which CPU it is: the 8259A's ports and everything from FEC00000
 * on reach the bus, interrupts are asked for, and CPUID and RDMSR ask first. Returns what was not found as it should be, if anything.
 */
export function withoutChips(bytes: Buffer): Buffer | string {
  const module = Buffer.from(bytes);
  for (const [pattern, times] of CHIP_RANGES) {
    const found = Buffer.from(pattern, 'hex');
    let count = 0;
    for (let at = module.indexOf(found); at >= 0; at = module.indexOf(found, at + 1)) {
      // No address that is masked equals an odd one.
      const low = at + found.length + FIRST_BYTE_OF_CONSTANT;
      module[low] = (module[low] ?? 0) | 1;
      count++;
    }
    if (count !== times) return `the code ${pattern} is in it ${count} times and not ${times}`;
  }
  const code = new ModuleCode(module);
  const read8 = code.importIndex('io_port_read8');
  const write8 = code.importIndex('io_port_write8');
  const ask = code.importIndex('io_port_read32');
  if (read8 === undefined || write8 === undefined || ask === undefined) return 'it does not import its ports';
  const pending = [...const32(0), I32_LOAD8_U, 0, ...leb(INTERRUPT_PENDING)];
  const acknowledge = [...const32(ASK_INTERRUPT), CALL, ask];
  const question = (port: number): number[] => [...const32(port), CALL, ask, IF, EMPTY, RETURN, END];
  const done =
    code.replace('3cpu3cpu13io_port_read8', [LOCAL_GET, 0, CALL, read8]) &&
    code.replace('3cpu3cpu14io_port_write8', [LOCAL_GET, 0, LOCAL_GET, 1, CALL, write8]) &&
    // The result is a byte for whether there is one, and the vector, where the argument points.
    code.replace('3pic19pic_acknowledge_irq', [
      ...[LOCAL_GET, 0],
      ...[...pending, IF, I32, ...acknowledge, ELSE, ...const32(0), END],
      ...[I32_STORE16, 0, 0],
    ]) &&
    code.prepend('instr_0FA2', question(ASK_CPUID)) &&
    code.prepend('instr_0F32', question(ASK_RDMSR));
  return done ? code.build() : 'the functions for ports, interrupts, CPUID and RDMSR are not all in it';
}
