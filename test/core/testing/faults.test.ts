import t from 'tap';
import { ms } from '../../../core/clock/units.ts';
import { NetClient } from '../../../core/net/net-client.ts';
import type { PciProbe } from '../../../core/testing/bench.ts';
import { type Bench, bench } from '../../../core/testing/bench.ts';
import { edu, eduRegisters } from '../../../devices/edu.ts';
import { isaSerial } from '../../../devices/isa-serial.ts';
import { serialRegisters } from '../../../devices/serial.ts';
import { tickCard, tickRegisters } from '../../../docs/examples/tick-card.ts';

t.setTimeout(240_000);

/** Copies 4 bytes from `from` to `to` of guest memory through the card's buffer. Addresses of its buffer begin at 0x40000. */
function transfer(
  lab: Bench,
  card: PciProbe<ReturnType<typeof edu.make>>,
  from: number,
  to: number,
  dir: 'fromRam' | 'toRam',
): void {
  const regs = card.bar(0, eduRegisters);
  regs.DMA_SRC.value = BigInt(from);
  regs.DMA_DST.value = BigInt(to);
  regs.DMA_COUNT.value = 4n;
  regs.DMA_CMD.value = dir === 'toRam' ? 3n : 1n;
  lab.clock.advance(ms(101));
}

t.test('a fault that never happens fails the test', async t => {
  const lab = bench();
  const card = lab.pci(edu);
  lab.faults.dmaFailure(card.device);
  t.throws(() => lab.dispose(), { code: 'ERR_FAULT_UNUSED', message: /'DMA failure of edu' never happened/ });
  const fresh = bench();
  fresh.pci(edu);
  t.doesNotThrow(() => fresh.dispose());
});

t.test('DMA failures: which, after how many, how often', async t => {
  using lab = bench();
  const card = lab.pci(edu);
  lab.ram.view.setUint32(0x1000, 0x1234_5678, true);
  const fault = lab.faults.dmaFailure(card.device, {
    direction: 'write',
    address: 0x2000,
    length: 16,
    after: 1,
    times: 1,
  });
  transfer(lab, card, 0x1000, 0x4_0000, 'fromRam');
  for (const expected of [0x1234_5678, 0, 0x1234_5678]) {
    lab.ram.view.setUint32(0x2000, 0, true);
    transfer(lab, card, 0x4_0000, 0x2000, 'toRam');
    t.equal(lab.ram.view.getUint32(0x2000, true), expected);
  }
  t.equal(fault.fired, 1);
});

t.test('stuck bits', async t => {
  using lab = bench();
  const card = lab.pci(edu);
  const regs = card.bar(0, eduRegisters);
  const busy = lab.faults.stuck(card.region(0), eduRegisters, 'STATUS.COMPUTING', true);
  t.equal(regs.STATUS.COMPUTING, true);
  t.equal(regs.STATUS.IRQ_ON_FACTORIAL, false);
  busy.remove();
  t.equal(regs.STATUS.COMPUTING, false);
  lab.faults.stuck(card.region(0), eduRegisters, 'ID', false, { times: 1 });
  t.equal(regs.ID.value, 0);
  t.equal(regs.ID.value, 0x0100_00ed);
  t.throws(() => lab.faults.stuck(card.region(0), eduRegisters, 'STATUS.NO', true), { code: 'ERR_FAULT_TARGET' });
  // A byte of a register, and a bit that would have been so anyhow.
  const whole = lab.faults.stuck(card.region(0), eduRegisters, 'LIVENESS', true);
  regs.LIVENESS.value = 0;
  t.equal(regs.LIVENESS.value, 0xffff_ffff);
  t.equal(whole.fired, 0, 'nothing is different');
  regs.LIVENESS.value = 0xff;
  t.equal(regs.LIVENESS.value, 0xffff_ffff);
  t.equal(whole.fired, 1);
});

t.test('lost and spurious interrupts, INTx and messages', async t => {
  using lab = bench();
  const card = lab.pci(tickCard);
  const regs = card.bar(0, tickRegisters);
  const { irq } = card;
  const line = card.device.interruptLine;
  lab.faults.lostInterrupts(line, { times: 1 });
  regs.CONTROL.IRQ_ENABLE = true;
  regs.CONTROL.RUN = true;
  lab.clock.advance(ms(1));
  t.same([irq.raised, card.intx.level], [1, false], 'raised, and nobody sees it');
  regs.STATUS.TICKED = true;
  lab.clock.advance(ms(1));
  t.equal(card.intx.level, true, 'the next one arrives');
  regs.CONTROL.RUN = false;
  regs.STATUS.TICKED = true;
  t.equal(card.intx.level, false);

  lab.faults.spuriousInterrupt(line, ms(2));
  t.equal(card.intx.level, true);
  t.equal(regs.STATUS.TICKED, false, 'the device knows nothing of it');
  lab.clock.advance(ms(2));
  t.equal(card.intx.level, false);

  const messages = lab.pci(edu);
  messages.enableMsi(1, 0x51);
  lab.faults.lostMessages(lab.messageWindow, { data: 0x51, times: 1 });
  const eduRegs = messages.bar(0, eduRegisters);
  eduRegs.IRQ_RAISE.value = 1;
  t.equal(lab.messageCount(0x51), 0);
  eduRegs.IRQ_RAISE.value = 1;
  t.equal(lab.messageCount(0x51), 1);
  t.throws(() => card.enableMsix(), { code: 'ERR_PCI_MSI' });
});

t.test('surprise removal', async t => {
  using lab = bench();
  const card = lab.pci(tickCard);
  const regs = card.bar(0, tickRegisters);
  regs.CONTROL.IRQ_ENABLE = true;
  regs.CONTROL.RUN = true;
  lab.clock.advance(ms(1));
  t.equal(card.intx.level, true);
  const fault = lab.faults.surpriseRemoval(card.device);
  t.equal(card.intx.level, false);
  t.equal(regs.ID.value, 0xffff_ffff);
  t.equal(card.readConfig(0, 4), 0xffff_ffff);
  regs.CONTROL.RUN = false;
  fault.remove();
  t.equal(regs.CONTROL.RUN, true, 'the write went nowhere');
  t.equal(regs.ID.value, 0x7469_636b);
});

t.test('slow and torn accesses', async t => {
  using lab = bench();
  const card = lab.pci(tickCard);
  const regs = card.bar(0, tickRegisters);
  regs.CONTROL.RUN = true;
  const slow = lab.faults.slowIo(card.region(0), ms(1), { direction: 'read', offset: 0x10, length: 4 });
  t.equal(regs.COUNT.value, 1);
  t.equal(regs.COUNT.value, 2);
  t.equal(regs.ID.value, 0x7469_636b);
  t.equal(slow.fired, 2);
  slow.remove();
  regs.PERIOD.value = 0x0102_0304;
  const torn = lab.faults.tornIo(card.region(0), 2, { offset: 4, length: 4, betweenNs: 1 });
  const before = lab.clock.now();
  t.equal(regs.PERIOD.value, 0x0102_0304, 'the same, in two pieces');
  regs.PERIOD.value = 0xa1a2_a3a4;
  t.equal(lab.clock.now() - before, 4);
  torn.remove();
  t.equal(regs.PERIOD.value, 0xa1a2_a3a4);
});

t.test('on ISA ports', async t => {
  using lab = bench();
  lab.isa(isaSerial, { iobase: 0x3f8, irq: 4 });
  t.equal(lab.machine.ports.read(0x3fd, 1) & 0x20, 0x20);
  lab.faults.stuck(lab.portRegion(0x3f8), serialRegisters, 'LSR.THRE', false);
  t.equal(lab.machine.ports.read(0x3fd, 1) & 0x20, 0, 'a transmitter that never gets empty');
  t.throws(() => lab.portRegion(0x999), { code: 'ERR_BENCH_PORT' });
});

t.test('link flaps and clocks that go wrong', async t => {
  using lab = bench();
  const changes: boolean[] = [];
  const client = new NetClient('wire', 'test', {
    canReceive: () => true,
    receive: () => true,
    linkChanged: up => changes.push(up),
  });
  lab.faults.linkFlap(client, ms(10), 2);
  lab.clock.advance(ms(100));
  t.same(changes, [false, true, false, true]);
  const skew = lab.faults.clockSkew(-500_000);
  const before = lab.clock.now();
  lab.clock.advance(ms(2));
  t.equal(lab.clock.now() - before, ms(1));
  skew.remove();
  lab.clock.advance(ms(2));
  t.equal(lab.clock.now() - before, ms(3));
});
