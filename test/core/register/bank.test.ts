import fc from 'fast-check';
import t from 'tap';
import { RegisterBank } from '../../../core/register/register.ts';
import { card, uart } from './maps.ts';

t.test('a 16550: who answers goes by DLAB, and by reading or writing', async t => {
  const sent: number[] = [];
  const bank = new RegisterBank(uart, { THR: { wrote: value => sent.push(value) }, RBR: { read: () => 0x41 } });
  bank.write(0, 1, 0x42);
  t.same(sent, [0x42]);
  t.equal(bank.read(0, 1), 0x41);
  t.equal(bank.read(2, 1), 1, 'IIR, not FCR');
  bank.write(2, 1, 0xc7);
  t.match(bank.regs.FCR, { EN: true, RFR: false, TRIGGER: '14' });
  t.equal(bank.regs.IIR.value, 1, 'a write there is FCR, not IIR');
  bank.write(3, 1, 0x83);
  t.equal(bank.read(0, 1), 12, 'DLL');
  bank.write(0, 2, 0x0203);
  t.equal(bank.regs.DLL.value, 3);
  t.equal(bank.regs.DLM.value, 2, 'a wide write is one to each');
  t.equal(bank.read(0, 4), 0x8301_0203, 'and so is a wide read');
  bank.regs.LCR.DLAB = false;
  t.equal(bank.read(0, 1), 0x41);
  t.same(sent, [0x42], 'nothing was sent meanwhile');
});

t.test('read to clear, once the guest has seen it', async t => {
  const bank = new RegisterBank(uart);
  bank.regs.LSR.OE = true;
  bank.regs.MSR.DELTA = 0xf;
  t.equal(bank.read(4, 1), 0);
  t.ok(bank.regs.LSR.OE, 'its neighbours are not touched by a read');
  t.equal(bank.read(5, 2), 0x0f62);
  t.equal(bank.read(5, 2), 0x0060);
});

t.test('write one to clear, to set, write zero to clear, pulses', async t => {
  const seen: boolean[] = [];
  const bank = new RegisterBank(card, { CTRL: { wrote: value => seen.push((value & 2) !== 0) } });
  const { CAUSE, CTRL } = bank.regs;
  CAUSE.value = 0x107;
  bank.write(5, 1, 0);
  t.match(CAUSE, { RX: true, TX: true, LINK: true, MASK: false }, 'a write of another byte does not act on these');
  bank.write(4, 4, 0x5);
  t.match(CAUSE, { RX: false, TX: true, LINK: true });
  bank.write(4, 4, 0x2);
  t.match(CAUSE, { TX: false, LINK: false });
  bank.write(0, 1, 3);
  bank.write(3, 1, 0x80);
  bank.write(0, 4, 0);
  t.same(seen, [true, false, false], 'the hook sees the pulse');
  t.match(CTRL, { EN: false, GO: false, FUSE: true });
  t.equal(CTRL.value, 0xc000_0000, 'reserved bits are as after reset');
});

t.test('hooks say what is stored and read, and get what the guest wrote', async t => {
  const calls: unknown[][] = [];
  const bank = new RegisterBank(card, {
    SHORT: {
      read: stored => stored + 1,
      write: (value, ...rest) => {
        calls.push([value, ...rest]);
        return value | 0x1_8000;
      },
    },
    TABLE: { wrote: (value, _previous, index) => calls.push([index, value]) },
  });
  bank.write(0x0c, 2, 0x1234);
  bank.write(0x0d, 1, 0x56);
  t.same(calls.splice(0), [
    [0x1234, 0, 0, 0x1234, 0xffff],
    [0x5634, 0x9234, 0, 0x5600, 0xff00],
  ]);
  t.equal(bank.regs.SHORT.value, 0xd634, 'as returned, within its width');
  t.equal(bank.read(0x0c, 2), 0xd635);
  bank.write(0x2a, 4, 0x1111_2222);
  t.same(
    calls,
    [
      [2, 0x2222_0000],
      [3, 0x1111],
    ],
    'a write over two registers is one to each',
  );
  // @ts-expect-error no such register
  t.throws(() => new RegisterBank(card, { SHROT: {} }), { code: 'ERR_REGISTER_HOOK', hint: "did you mean 'SHORT'?" });
});

t.test('64 bits, in halves', async t => {
  const halves: bigint[][] = [];
  const bank = new RegisterBank(card, {
    BASE: {
      read: stored => stored + 1n,
      write: value => value & ~0xfn,
      wrote: (value, previous, _index, written, touched) => halves.push([value, previous, written, touched]),
    },
  });
  bank.write(0x18, 4, 0xffff_ffff);
  bank.write(0x1c, 4, 0);
  bank.write(0x1d, 1, 0x34);
  t.same(halves, [
    [0xffff_fff0n, 0n, 0xffff_ffffn, 0xffff_ffffn],
    [0xffff_fff0n, 0xffff_fff0n, 0n, 0xffff_ffff_0000_0000n],
    [0x3400_ffff_fff0n, 0xffff_fff0n, 0x3400_0000_0000n, 0xff00_0000_0000n],
  ]);
  t.equal(bank.read(0x18, 4), 0xffff_fff1);
  t.equal(bank.read(0x1a, 4), 0x3400_ffff, 'across the middle');
  t.match(bank.regs.WIDE, { LOW: 1, HIGH: 0, DONE: true, low: 1, high: 0x8000_0000, value: 0x8000_0000_0000_0001n });
  bank.write(0x14, 4, 0x8000_3400);
  t.match(bank.regs.WIDE, { HIGH: 0x34, DONE: false, value: 0x3400_0000_0001n });
});

t.test("the model's view: arrays, choices, widths", async t => {
  const bank = new RegisterBank(card);
  const { TABLE, PAIR_LO, PAIR_HI, BYTES, RING, CTRL, SHORT } = bank.regs;
  bank.write(0x24, 4, 0xdead_beef);
  t.same([TABLE.length, TABLE.at(1).value, TABLE.values[1]], [4, 0xdead_beef, 0xdead_beef]);
  t.throws(() => TABLE.at(4), RangeError);
  bank.write(0x5c, 4, 0x8000_0000);
  t.same([PAIR_HI.at(3).AV, PAIR_LO.at(3).value, PAIR_HI.at(2).AV], [true, 0, false]);
  bank.write(0x62, 2, 0x1234);
  t.same([...BYTES.values], [0xa5, 0xa5, 0x34, 0x12, 0xa5, 0xa5, 0xa5, 0xa5]);
  RING.at(1).value = 0x1_0000_0002n;
  t.same([bank.read(0x78, 4), bank.read(0x7c, 4)], [2, 1]);
  CTRL.LEVEL = 0x1ff;
  CTRL.SPEED = 'slow';
  t.equal(CTRL.value, 0x40ff_0000, 'a field takes what fits');
  bank.write(1, 1, 3);
  t.equal(CTRL.SPEED, 3, 'a value without a name is a number');
  SHORT.value = -1;
  t.equal(SHORT.value, 0xffff);
});

t.test('what the type checker refuses', async t => {
  const { regs } = new RegisterBank(card, {
    // @ts-expect-error 64-bit registers have bigints
    BASE: { write: () => 5 },
  });
  const { regs: serial } = new RegisterBank(uart);
  // @ts-expect-error no such choice
  t.throws(() => (serial.LCR.WLS = 'nine'), { code: 'ERR_REGISTER_CHOICE' });
  // @ts-expect-error all values have names, so a number is none
  serial.LCR.WLS = 2;
  // @ts-expect-error no such field
  t.equal(regs.CTRL.BUSY, undefined);
  // @ts-expect-error not implemented, so the model cannot use it
  t.equal(serial.MCR.AFE, undefined);
  // @ts-expect-error a bit is a boolean
  regs.CTRL.EN = 1;
  // @ts-expect-error an array has elements
  t.equal(regs.TABLE.value, undefined);
  // @ts-expect-error 64-bit registers have bigints
  t.throws(() => (regs.BASE.value = 5));
  // @ts-expect-error no such register
  t.equal(regs.CTLR, undefined);
});

t.test('reset, save and restore', async t => {
  const calls: string[] = [];
  const bank = new RegisterBank(uart, {
    SCR: {
      read: () => {
        calls.push('read');
        return 0;
      },
      wrote: () => calls.push('wrote'),
    },
  });
  bank.write(7, 1, 0x55);
  bank.write(3, 1, 0x80);
  bank.write(0, 1, 9);
  calls.length = 0;
  const saved = bank.save();
  bank.reset();
  t.match(bank.regs, { DLL: { value: 12 }, LCR: { DLAB: false }, SCR: { value: 0x55 } }, 'sticky registers survive');
  bank.restore(saved);
  t.match(bank.regs, { DLL: { value: 9 }, LCR: { DLAB: true }, SCR: { value: 0x55 } });
  t.same(bank.save(), saved);
  t.same(calls, [], 'without telling the model');
  for (const wrong of [new Uint8Array(3), new Uint8Array(saved.length + 4), [...saved], null, 'x']) {
    t.throws(() => bank.checkSaved(wrong), { code: 'ERR_STATE_VALUE' });
    t.throws(() => bank.restore(wrong), { code: 'ERR_STATE_VALUE' });
  }
  bank.restore(new Uint8Array(saved.length).fill(0xff));
  t.equal(bank.regs.LCR.value, 0xff, 'no register gets more bits than it has');
});

t.test('reports name the register and the field, and observers come and go', async t => {
  const bank = new RegisterBank(card);
  const serial = new RegisterBank(uart);
  const messages: string[] = [];
  const watcher = {
    guestError: (message: string) => messages.push(message),
    unimplemented: (message: string) => messages.push(`unimplemented: ${message}`),
  };
  const stops = [bank.observe(watcher), serial.observe(watcher)];
  t.equal(bank.read(0x0e, 2), 0xffff);
  t.equal(bank.read(0x0c, 4), 0xffff_0000);
  bank.write(0x1000, 1, 0);
  bank.write(0x08, 4, 0);
  bank.write(0x00, 4, 0x4000_0101);
  bank.write(0x00, 4, 0x0000_0105);
  serial.write(4, 1, 0x21);
  serial.write(2, 1, 0x01);
  t.equal(serial.read(0, 1), 0);
  t.same(messages.splice(0), [
    'read of offset 0xe to 0xf, where card has no register',
    'read of offset 0xe to 0xf, where card has no register',
    'write to offset 0x1000, where card has no register',
    'write of 0x0 to read-only card.ID',
    'write of 0x105 to card.CTRL changes reserved bits 0x40000004',
    'unimplemented: uart.MCR: AFE is not implemented',
  ]);
  const accesses: unknown[][] = [];
  const stop = bank.observe({
    access: (entry, element, word, ...rest) => accesses.push([entry.name, element, word, ...rest]),
  });
  bank.write(0x15, 1, 0x34);
  bank.read(0x28, 4);
  bank.write(0x1000, 1, 0);
  t.equal(messages.length, 1, 'the first observer is still there');
  for (const each of [...stops, stop, stop]) each();
  bank.write(0x1000, 1, 0);
  bank.read(0x28, 4);
  t.same(accesses, [
    ['WIDE', 0, 1, 0x3400, 0x8000_0000, 0x8000_3400, true, 0xff00],
    ['TABLE', 2, 0, 0, 0, 0, false, 0xffff_ffff],
  ]);
  t.equal(messages.length, 1);
});

t.test('any offset, width and value is served', async t => {
  for (const map of [uart, card]) {
    const bank = new RegisterBank(map);
    bank.observe({ access: () => {}, guestError: () => {}, unimplemented: () => {} });
    const offset = fc.oneof(fc.integer({ min: -8, max: 0x90 }), fc.maxSafeNat());
    const value = fc.oneof(fc.integer({ min: 0, max: 0xffff_ffff }), fc.double());
    fc.assert(
      fc.property(offset, fc.constantFrom(1, 2, 3, 4, 8), value, fc.boolean(), (offset, size, value, write) => {
        if (write) bank.write(offset, size, value);
        const read = bank.read(offset, size);
        if (read !== read >>> 0 || read >= 2 ** (8 * size)) throw new Error(`read ${read}`);
      }),
      { numRuns: 2000 },
    );
    const other = new RegisterBank(map);
    other.restore(bank.save());
    t.same(other.save(), bank.save());
  }
});
