/**
 * What a register access costs once it has reached the bank, in nanoseconds: the best of several rounds.
 *
 *   node dist/test/bench/registers.js
 */
import { bit, bits, driverView, RegisterBank, r8, r32, registerMap } from '../../core/register/register.ts';

const ACCESSES = 5_000_000;
const ROUNDS = 4;

const map = registerMap('bench', {
  PLAIN: r32(0x00),
  FIELDS: r32(0x04, { EN: bit(0), CAUSE: bit(1, 'w1c'), LEVEL: bits(8, 8) }),
  HOOKED: r32(0x08),
  LOW: r8(0x0c),
  HIGH: r8(0x0d),
  TABLE: r32(0x20, {}, { count: 64 }),
});

let calls = 0;
let sink = 0;
const bank = new RegisterBank(map, { HOOKED: { read: stored => stored, wrote: () => calls++ } });
const { regs } = bank;
const driver = driverView(map, bank);

/** Each is a loop of its own, so that none is measured with another one's types. */
const cases: Readonly<Record<string, (count: number) => void>> = {
  'read, 32 bits': count => {
    for (let i = 0; i < count; i++) sink ^= bank.read(0x00, 4);
  },
  'write, 32 bits': count => {
    for (let i = 0; i < count; i++) bank.write(0x00, 4, i);
  },
  'read, hooked': count => {
    for (let i = 0; i < count; i++) sink ^= bank.read(0x08, 4);
  },
  'write, hooked': count => {
    for (let i = 0; i < count; i++) bank.write(0x08, 4, i);
  },
  'read, a table': count => {
    for (let i = 0; i < count; i++) sink ^= bank.read(0x20 + 4 * (i & 63), 4);
  },
  'read, 16 bits of two registers': count => {
    for (let i = 0; i < count; i++) sink ^= bank.read(0x0c, 2);
  },
  'read, a hole': count => {
    for (let i = 0; i < count; i++) sink ^= bank.read(0x10, 4);
  },
  'model, get a bit': count => {
    for (let i = 0; i < count; i++) sink ^= regs.FIELDS.EN ? 1 : 0;
  },
  'model, set bits': count => {
    for (let i = 0; i < count; i++) regs.FIELDS.LEVEL = i & 0xff;
  },
  'driver, get a bit': count => {
    for (let i = 0; i < count; i++) sink ^= driver.FIELDS.EN ? 1 : 0;
  },
  'driver, set bits': count => {
    for (let i = 0; i < count; i++) driver.FIELDS.LEVEL = i & 0xff;
  },
};

for (const [name, run] of Object.entries(cases)) {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const start = process.hrtime.bigint();
    run(ACCESSES);
    best = Math.min(best, Number(process.hrtime.bigint() - start) / ACCESSES);
  }
  console.log(`${name.padEnd(32)} ${best.toFixed(1).padStart(6)} ns`);
}
console.log(`(${calls} hooks called, checksum ${sink})`);
