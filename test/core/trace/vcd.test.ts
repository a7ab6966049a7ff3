import t from 'tap';
import { ms } from '../../../core/clock/units.ts';
import { CoverageReport, htmlReference, r32, registerMap } from '../../../core/register/register.ts';
import { bench } from '../../../core/testing/bench.ts';
import { VcdRecorder } from '../../../core/trace/vcd.ts';
import { eduRegisters } from '../../../devices/edu.ts';
import { tickCard, tickRegisters } from '../../../docs/examples/tick-card.ts';

t.setTimeout(240_000);

t.test('waveforms of lines and registers', async t => {
  using lab = bench();
  const card = lab.pci(tickCard);
  const regs = card.bar(0, tickRegisters);
  let text = '';
  const vcd = new VcdRecorder(
    part => {
      text += part;
    },
    () => lab.clock.now(),
  );
  vcd.line('card', card.device.interruptLine);
  vcd.device(card.device, 'card');
  vcd.begin();
  regs.PERIOD.value = 500;
  regs.CONTROL.value = 3;
  lab.clock.advance(ms(0.5));
  regs.STATUS.TICKED = true;
  vcd.stop();
  regs.PERIOD.value = 7;
  t.match(
    text,
    /^\$comment southbridge \$end\n\$timescale 1ns \$end\n\$scope module card \$end\n\$var wire 1 ! irq \$end\n\$upscope/,
  );
  t.match(
    text,
    /\$scope module card\.tick \$end\n\$var wire 32 " ID \[31:0\] \$end\n\$var wire 32 # PERIOD \[31:0\] \$end/,
  );
  t.equal(
    text.slice(text.indexOf('#0\n')),
    '#0\n$dumpvars\n0!\nb0 "\nb0 #\nb0 $\nb0 %\nb0 &\n$end\nb111110100 #\nb11 $\n#500000\n1!\n0!\n',
  );
});

t.test('more signals than there are characters', async t => {
  let text = '';
  const vcd = new VcdRecorder(
    part => {
      text += part;
    },
    () => 0,
  );
  const map = registerMap('many', { TABLE: r32(0, {}, { count: 200 }) });
  const { RegisterBank } = await import('../../../core/register/register.ts');
  vcd.bank('device', new RegisterBank(map));
  vcd.begin();
  const codes = [...text.matchAll(/\$var wire 32 (\S+) TABLE_\d+/g)].map(match => match[1]);
  t.equal(new Set(codes).size, 200);
});

t.test('coverage over a whole suite', async t => {
  const report = new CoverageReport();
  for (const use of ['irq', 'run'] as const) {
    using lab = bench();
    const card = lab.pci(tickCard);
    report.watch(card.device);
    const regs = card.bar(0, tickRegisters);
    if (use === 'irq') regs.CONTROL.IRQ_ENABLE = true;
    else regs.CONTROL.RUN = true;
  }
  const text = String(report);
  t.match(text, /^tick: 2 of 6 fields covered\n/);
  t.match(text, /\n {2}PERIOD: never read, written\n/);
  t.notMatch(text, /CONTROL/, 'one test has used one bit of it, the other the other');
  t.match(text, /\nall: 2 of 6 fields covered, 33 %\n$/);
});

t.test('a page of HTML', async t => {
  const page = htmlReference([eduRegisters, registerMap('odd', { A: r32(0, {}, { doc: '<b> & "c"' }) })], 'edu');
  t.match(page, /^<!doctype html>\n<html lang="en">[\s\S]*<h2>edu<\/h2>[\s\S]*<\/html>\n$/);
  t.match(
    page,
    /<h3 id="edu-STATUS">STATUS<\/h3>\n<table class="bits"><tr><td class="reserved" colspan="24">reserved<\/td><td colspan="1">IRQ_ON_FACTORIAL<br>7<\/td>/,
  );
  t.match(page, /&lt;b&gt; &amp; &quot;c&quot;/);
});
