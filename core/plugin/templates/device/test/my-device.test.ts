import assert from 'node:assert/strict';
import { test } from 'node:test';
import { us } from 'southbridge';
import { bench, deviceContract } from 'southbridge/testing';
import { myDevice, myDeviceRegisters } from '../src/my-device.ts';

for (const { name, check } of deviceContract(myDevice)) test(name, check);

test('a job takes its time, and interrupts', () => {
  const lab = bench();
  const card = lab.pci(myDevice, { latency: 50 });
  const regs = card.bar(0, myDeviceRegisters);
  regs.VALUE.value = 21;
  regs.CONTROL.IRQ_ENABLE = true;
  regs.CONTROL.START = true;
  assert.equal(regs.STATUS.BUSY, true);
  lab.clock.advance(us(50));
  assert.equal(regs.STATUS.BUSY, false);
  assert.equal(regs.VALUE.value, 42);
  assert.equal(card.intx.level, true);
  regs.STATUS.DONE = true;
  assert.equal(card.intx.level, false, 'writing 1 acknowledges');
  lab.dispose();
});
