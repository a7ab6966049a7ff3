import fc from 'fast-check';
import t from 'tap';
import { bit, bits, choice, driverView, r16, r32, r64, r8, RegisterBank, registerMap, tag } from '../../../core/register/register.ts';

const uart = registerMap('uart', {
  DLL: r8(0, {}, { when: 'LCR.DLAB', reset: 12 }),
  RBR: r8(0),
  DLM: r8(1, {}, { when: 'LCR.DLAB' }),
  IER: r8(1, { RDA: bit(0), THRE: bit(1) }),
  LCR: r8(3, { WLS: choice(0, 2, { five: 0, six: 1, seven: 2, eight: 3 }), STB: bit(2), DLAB: bit(7) }),
  MCR: r8(4, { DTR: bit(0), AFE: tag(5) }),
  STATUS: r16(6, { ERR: bit(0, 'w1c'), OVER: bit(1, 'w1c'), EN: bit(8), KICK: bit(9, 'pulse'), SEEN: bits(12, 4, 'rc') }),
  TABLE: r32(0x10, {}, { count: 4 }),
  WIDE: r64(0x20, { LOW: bits(0, 8), HIGH: bits(40, 8) }),
});

t.test('banked registers answer by their condition, and the first declared wins', async t => {
  const bank = new RegisterBank(uart);
  bank.write(0, 1, 0x41);
  bank.regs.LCR.DLAB = true;
  t.equal(bank.read(0, 1), 12);
  bank.write(0, 2, 0x0203);
  t.equal(bank.regs.DLL.value, 3);
  t.equal(bank.regs.DLM.value, 2);
  bank.regs.LCR.DLAB = false;
  t.equal(bank.read(0, 1), 0x41);
});

t.test('access modes: write one to clear, pulse, read to clear, reserved bits', async t => {
  const seen: number[] = [];
  const bank = new RegisterBank(uart, { STATUS: { wrote: value => seen.push(value) } });
  bank.regs.STATUS.ERR = true;
  bank.regs.STATUS.OVER = true;
  bank.regs.STATUS.SEEN = 5;
  bank.write(6, 1, 0x01);
  t.match(bank.regs.STATUS, { ERR: false, OVER: true, EN: false });
  bank.write(6, 2, 0x0f00);
  t.match(bank.regs.STATUS, { EN: true, KICK: false, OVER: true });
  t.same(seen.map(value => (value & 0x200) !== 0), [false, true], 'the hook sees the pulse');
  t.equal(bank.read(7, 1) >> 4, 5, 'the first read shows it');
  t.equal(bank.read(7, 1) >> 4, 0, 'and clears it');
  bank.write(1, 1, 0xff);
  t.equal(bank.read(1, 1), 3, 'reserved bits stay 0');
});

t.test('choices, arrays and 64-bit registers', async t => {
  const halves: [bigint, bigint][] = [];
  const bank = new RegisterBank(uart, { WIDE: { wrote: (value, _previous, _index, written) => halves.push([value, written]) } });
  bank.write(3, 1, 0x03);
  t.equal(bank.regs.LCR.WLS, 'eight');
  bank.regs.LCR.WLS = 'six';
  t.equal(bank.read(3, 1), 1);
  // @ts-expect-error there is no such choice
  t.throws(() => (bank.regs.LCR.WLS = 'nine'), { code: 'ERR_REGISTER_CHOICE' });
  bank.write(0x14, 4, 0xdead_beef);
  t.equal(bank.regs.TABLE.at(1).value, 0xdead_beef);
  t.equal(bank.regs.TABLE.values[1], 0xdead_beef);
  bank.write(0x20, 4, 0x12);
  bank.write(0x24, 4, 0x3400);
  t.match(bank.regs.WIDE, { LOW: 0x12, HIGH: 0x34, low: 0x12 });
  t.same(halves, [[0x12n, 0x12n], [0x3400_0000_0012n, 0x3400_0000_0000n]], 'each half by itself');
});

t.test('the driver sees the same map, and its field writes spare write-one-to-clear neighbours', async t => {
  const bank = new RegisterBank(uart);
  const driver = driverView(uart, bank);
  bank.regs.STATUS.ERR = true;
  driver.STATUS.EN = true;
  t.equal(bank.regs.STATUS.ERR, true);
  driver.STATUS.ERR = true;
  t.equal(bank.regs.STATUS.ERR, false);
  driver.TABLE.at(2).value = 7;
  t.equal(bank.regs.TABLE.at(2).value, 7);
});

t.test('declarations that contradict themselves are named errors', async t => {
  t.throws(() => registerMap('x', { A: r8(0, { F: bits(4, 8) }) }), { code: 'ERR_REGISTER_MAP' });
  t.throws(() => registerMap('x', { A: r32(0), B: r8(2) }), { code: 'ERR_REGISTER_MAP', message: /overlaps A/ });
  t.throws(() => registerMap('x', { A: r8(0, {}, { when: 'LRC.DLAB' }), LCR: r8(1, { DLAB: bit(0) }) }), { code: 'ERR_REGISTER_MAP', message: /names no field/ });
  t.throws(() => registerMap('x', { A: r8(0, {}, { reset: 256 }) }), { code: 'ERR_REGISTER_MAP' });
});

t.test('any access is served, and a saved bank is the same bank', async t => {
  const bank = new RegisterBank(uart);
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0x40 }), fc.constantFrom(1, 2, 4), fc.integer({ min: 0, max: 0xffff_ffff }), fc.boolean(), (offset, size, value, write) => {
      if (write) bank.write(offset, size, value);
      const read = bank.read(offset, size);
      if (read !== read >>> 0 || read >= 2 ** (8 * size)) throw new Error(`read 0x${read.toString(16)}`);
    }),
  );
  const other = new RegisterBank(uart);
  other.restore(bank.save());
  t.same(other.save(), bank.save());
  t.throws(() => other.restore(new Uint8Array(3)), { code: 'ERR_STATE_VALUE' });
});
