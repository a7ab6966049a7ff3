import t from 'tap';
import { RunningProgram } from './program.ts';

t.test('the whole protocol on a PC', async t => {
  const program = await RunningProgram.start('-machine', 'pc');
  t.equal(await program.command('endianness'), 'OK little');
  t.equal(await program.command('outl 0xcf8 0x80000000'), 'OK');
  t.equal(await program.command('inl 0xcfc'), 'OK 0x12378086');
  t.equal(await program.command('inw 0xcfe'), 'OK 0x1237');
  t.equal(await program.command('writeq 0x10000 0x1122334455667788'), 'OK');
  t.equal(await program.command('readl 0x10004'), 'OK 0x0000000011223344');
  t.equal(await program.command('readq 65536'), 'OK 0x1122334455667788');
  t.equal(await program.command('write 0x20000 4 0x0102'), 'OK');
  t.equal(await program.command('read 0x20000 4'), 'OK 0x01020000');
  t.equal(await program.command('b64write 0x20000 3 QUJD'), 'OK');
  t.equal(await program.command('b64read 0x20000 3'), 'OK QUJD');
  t.equal(await program.command('memset 0x20000 0x3 0xff'), 'OK');
  t.equal(await program.command('read 0x1ffff 5'), 'OK 0x00ffffff00');
  t.equal(await program.command('clock_step 1000'), 'OK 1000');
  t.equal(await program.command('clock_set 500'), 'OK 1000');
  t.equal(await program.command('module_load a b'), 'FAIL');
  t.equal(await program.command('irq_intercept_in nowhere'), 'FAIL Unknown device');
  t.equal(await program.command('irq_intercept_in ioapic'), 'OK');
  t.equal(await program.command('set_irq_in ioapic unnamed-gpio-in 5 1'), 'IRQ raise 5');
  t.equal(await program.qtest.next(), 'OK');
  t.equal(await program.command('nonsense 1 2'), "FAIL Unknown command 'nonsense'");
  t.equal(await program.command('outb 0x70'), "FAIL Invalid arguments to 'outb'");
  t.equal(await program.stop(), 0);
});

t.test('requests may be cut anywhere and come in heaps', async t => {
  const program = await RunningProgram.start('-machine', 'none');
  const text = 'writel 0x0 0x1\nendianness\nclock_step 7\n'.repeat(20);
  for (const character of text) program.qtest.send(character);
  for (let round = 1; round <= 20; round++) {
    t.equal(await program.qtest.next(), 'OK');
    t.equal(await program.qtest.next(), 'OK little');
    t.equal(await program.qtest.next(), `OK ${round * 7}`);
  }
  await program.stop();
});
