import t from 'tap';
import { driverView, RegisterBank } from '../../../core/register/register.ts';
import { card, uart } from './maps.ts';

/** A bank on a bus that writes down what passes. */
function onBus(bank: {
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
}) {
  const log: string[] = [];
  const port = {
    read(offset: number, size: number): number {
      const value = bank.read(offset, size);
      log.push(`r${8 * size} ${offset.toString(16)}`);
      return value;
    },
    write(offset: number, size: number, value: number): void {
      log.push(`w${8 * size} ${offset.toString(16)} ${value.toString(16)}`);
      bank.write(offset, size, value);
    },
  };
  return { port, log };
}

t.test('each property is an access of the register, and fields spare their neighbours', async t => {
  const bank = new RegisterBank(card);
  const { port, log } = onBus(bank);
  const driver = driverView(card, port);
  bank.regs.CAUSE.value = 0x107;

  driver.CAUSE.RX = true;
  t.same(log.splice(0), ['r32 4', 'w32 4 105'], 'MASK as it is, TX not cleared by a one, LINK not by a zero');
  t.match(bank.regs.CAUSE, { RX: false, TX: true, LINK: true, MASK: true });
  driver.CTRL.GO = true;
  t.same(log.splice(0), ['r32 0', 'w32 0 40000102'], 'reserved bits as after reset');
  driver.CTRL.SPEED = 'slow';
  t.same(log.splice(0), ['r32 0', 'w32 0 40000000']);
  t.equal(driver.CTRL.SPEED, 'slow');
  driver.CTRL.LEVEL = 0x80;
  t.same([driver.CTRL.LEVEL, driver.CTRL.EN, driver.ID.value], [0x80, false, 0x8086_100e]);
});

t.test('nothing to preserve is nothing to read', async t => {
  const bank = new RegisterBank(uart);
  const { port, log } = onBus(bank);
  const driver = driverView(uart, port);
  driver.FCR.RFR = true;
  driver.THR.value = 0x41;
  t.same(log, ['w8 2 2', 'w8 0 41']);
});

t.test('64 bits and arrays', async t => {
  const bank = new RegisterBank(card);
  const { port, log } = onBus(bank);
  const driver = driverView(card, port);
  driver.BASE.value = 0x1234_5678_9abc_def0n;
  driver.BASE.high = 1;
  driver.TABLE.at(2).value = 7;
  driver.PAIR_HI.at(1).AV = true;
  driver.RING.at(1).value = 5n;
  t.same(log, [
    'w32 18 9abcdef0',
    'w32 1c 12345678',
    'w32 1c 1',
    'w32 28 7',
    'w32 4c 80000000',
    'w32 78 5',
    'w32 7c 0',
  ]);
  t.equal(driver.BASE.value, 0x1_9abc_def0n);
  t.equal(driver.BASE.low, 0x9abc_def0);
  t.same([...driver.TABLE.values], [0, 0, 7, 0]);
  t.same([...driver.RING.values], [0, 0, 5, 0]);
  t.same([...driver.BYTES.values], [...bank.regs.BYTES.values]);
  t.throws(() => driver.TABLE.at(-1), RangeError);
});
