/**
 * The device author's kit: register accesses a second through the driver-side views, over the bus, in one thread; and benches made a
 * second, with a card on each. The best of several rounds. To reach: 1,000,000 and 1,000.
 *
 *   node dist/test/bench/kit.js
 */
import { bench } from '../../core/testing/bench.ts';
import { tickCard, tickRegisters } from '../../docs/examples/tick-card.ts';

const ROUNDS = 5;
const ACCESSES = 1_000_000;
const BENCHES = 300;

/** How many `times` a second `action` does its work; the best round. */
function rate(times: number, action: () => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const began = performance.now();
    action();
    best = Math.min(best, performance.now() - began);
  }
  return (times * 1000) / best;
}

const lab = bench();
const regs = lab.pci(tickCard).bar(0, tickRegisters);
let sink = 0;
const cases: readonly (readonly [name: string, unit: string, times: number, action: () => void])[] = [
  [
    'register reads',
    'accesses',
    ACCESSES,
    () => {
      for (let count = 0; count < ACCESSES; count++) sink ^= regs.COUNT.value;
    },
  ],
  [
    'register writes',
    'accesses',
    ACCESSES,
    () => {
      for (let count = 0; count < ACCESSES; count++) regs.PERIOD.value = count;
    },
  ],
  [
    'fields read and written (read, modify, write)',
    'accesses',
    2 * ACCESSES,
    () => {
      for (let count = 0; count < ACCESSES; count++) regs.CONTROL.IRQ_ENABLE = (count & 1) !== 0;
    },
  ],
  [
    'benches with a PCI card, made and disposed of',
    'benches',
    BENCHES,
    () => {
      for (let count = 0; count < BENCHES; count++) {
        const fresh = bench();
        fresh.pci(tickCard);
        fresh.dispose();
      }
    },
  ],
];
for (const [name, unit, times, action] of cases) {
  console.log(
    `${name.padEnd(48)} ${Math.round(rate(times, action)).toLocaleString('en').padStart(12)} ${unit} a second`,
  );
}
process.exitCode = sink === 0.5 ? 1 : 0;
