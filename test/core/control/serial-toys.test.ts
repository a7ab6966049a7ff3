import { once } from 'node:events';
import t from 'tap';
import { RunningProgram } from './program.ts';

t.setTimeout(100_000);

t.test('msmouse: power, plug and play, movements and buttons on the serial port', async t => {
  const program = await RunningProgram.start('-machine', 'pc', '-serial', 'msmouse');
  t.teardown(() => void program.process.kill('SIGKILL'));
  await program.execute('qmp_capabilities');
  await program.execute('cont');
  const readAll = async (): Promise<number[]> => {
    const bytes: number[] = [];
    for (;;) {
      // The line status says whether there is a byte (bit 0); each takes its time on the line.
      await program.command('clock_step 20000000');
      if ((Number((await program.command('inb 0x3fd')).split(' ')[1]) & 1) === 0) return bytes;
      bytes.push(Number((await program.command('inb 0x3f8')).split(' ')[1]));
    }
  };
  const move = (...events: object[]) => program.execute('input-send-event', { events });
  const rel = (axis: string, value: number) => ({ type: 'rel', data: { axis, value } });
  const button = (name: string, down: boolean) => ({ type: 'btn', data: { button: name, down } });

  await move(rel('x', 5));
  t.same(await readAll(), [], 'without power it is dead');
  await program.command('outb 0x3fc 3');
  const hello = await readAll();
  t.equal(String.fromCharCode(...hello.slice(0, 2)), 'M3');
  const answer = hello.slice(2);
  t.same([answer[1], answer[2]], [1, 0x24], 'version 1.0');
  const text = String.fromCharCode(...answer.map(byte => byte + 0x20));
  t.match(text, /^\(!DQMU0001\\\\MOUSE\\\\QEMU Microsoft Mouse[0-9A-F]{2}\)$/);
  const counted = [...answer.slice(0, -3), ...answer.slice(-1)].reduce((sum, byte) => sum + byte, 0) & 0xff;
  t.equal(text.slice(-3, -1), counted.toString(16).padStart(2, '0').toUpperCase(), 'the sum');

  await move(rel('x', 5), rel('y', -3));
  t.same(await readAll(), [0x40 | (3 << 2), 5, 0x3d]);
  await move(button('left', true));
  t.same(await readAll(), [0x60, 0, 0]);
  await move(button('left', false), button('middle', true));
  t.same(await readAll(), [0x40, 0, 0, 0x20]);
  await move(button('middle', false));
  t.same(await readAll(), [0x40, 0, 0, 0], 'the third button is told once more when it goes up');
  await move(rel('x', 1));
  t.same(await readAll(), [0x40, 1, 0]);
  await program.command('outb 0x3fc 0');
  await move(rel('x', 1));
  t.same(await readAll(), []);
  await program.command('outb 0x3fc 1');
  t.same(await readAll(), hello, 'and again');
  t.match(await program.execute('query-mice'), { return: [{ name: /./ }] });
  t.equal(await program.stop(), 0);
});

t.test('testdev: the guest ends the program with the status that it wants', async t => {
  const program = await RunningProgram.start('-machine', 'pc', '-serial', 'testdev');
  t.teardown(() => void program.process.kill('SIGKILL'));
  const exited = once(program.process, 'exit');
  program.qtest.send(['outb 0x3f8 0x20', 'outb 0x3f8 0x31', 'outb 0x3f8 0x32', 'outb 0x3f8 0x71', ''].join('\n'));
  t.same(await exited, [25, null]);
});
