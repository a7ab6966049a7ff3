import { ms, us } from 'southbridge';
import { bench } from 'southbridge/testing';
import t from 'tap';
import { isaStopwatch, stopwatchRegisters } from './isa-stopwatch.ts';

function lab() {
  const lab = bench();
  t.teardown(() => lab.dispose());
  lab.isa(isaStopwatch, { iobase: 0x280, irq: 7 });
  return { lab, regs: lab.ports(0x280, stopwatchRegisters), irq: () => lab.isaIrqs[7]?.level };
}

t.test('measures while it runs', async t => {
  const { lab: l, regs } = lab();
  t.equal(regs.ID.value, 0x5a);
  regs.CONTROL.RUN = true;
  l.clock.advance(us(1500));
  t.equal(regs.MICROSECONDS.value, 1500);
  regs.CONTROL.RUN = false;
  l.clock.advance(ms(10));
  t.equal(regs.MICROSECONDS.value, 1500);
  regs.CONTROL.RUN = true;
  l.clock.advance(us(500));
  t.equal(regs.MICROSECONDS.value, 2000);
  regs.CONTROL.CLEAR = true;
  t.equal(regs.MICROSECONDS.value, 0);
});

t.test('rings once, by interrupt where that is enabled', async t => {
  const { lab: l, regs, irq } = lab();
  regs.MICROSECONDS.value = 100;
  regs.CONTROL.RUN = true;
  l.clock.advance(us(99));
  t.equal(regs.STATUS.ALARM, false);
  l.clock.advance(us(1));
  t.equal(regs.STATUS.ALARM, true);
  t.equal(irq(), false);
  regs.CONTROL.IRQ_ENABLE = true;
  t.equal(irq(), true);
  regs.STATUS.ALARM = true;
  t.equal(irq(), false, 'acknowledged by writing a 1');
});
