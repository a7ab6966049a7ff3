/** The README's device works, and the README shows it as it is. */
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { ms } from '../../core/clock/units.ts';
import { bench } from '../../core/testing/bench.ts';
import { tickCard, tickRegisters } from '../../docs/examples/tick-card.ts';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');

t.test('the card ticks, interrupts, and stops at its limit', async t => {
  const lab = bench();
  const card = lab.pci(tickCard, { limit: 3 });
  const regs = card.bar(0, tickRegisters);
  t.equal(regs.ID.value, 0x7469636b);
  regs.PERIOD.value = 500;
  regs.CONTROL.IRQ_ENABLE = true;
  regs.CONTROL.RUN = true;
  lab.clock.advance(ms(0.5));
  t.equal(regs.COUNT.value, 1);
  t.equal(card.intx.level, true);
  regs.STATUS.TICKED = true;
  t.equal(card.intx.level, false, 'writing 1 clears it');
  lab.clock.advance(ms(100));
  t.equal(regs.COUNT.value, 3);
});

t.test('the README has this very file', async t => {
  const sample = readFileSync(join(ROOT, 'docs/examples/tick-card.ts'), 'utf8');
  t.ok(readFileSync(join(ROOT, 'README.md'), 'utf8').includes(sample));
});
