import t from 'tap';
import { ms, us } from '../../core/clock/units.ts';
import { bench } from '../../core/testing/bench.ts';
import { i8042 } from '../../devices/i8042.ts';

const DATA = 0x60;
const COMMAND = 0x64;
const FULL = 0x01;
const FROM_MOUSE = 0x20;
const KEY_A = 0x1e;
const KEYBOARD_IRQ = 1;
const MOUSE_IRQ = 12;

function lab(properties: { 'kbd-throttle'?: boolean } = {}) {
  const lab = bench();
  t.teardown(() => lab.dispose());
  // The bench's machine does not run, so input goes to the devices directly.
  const { keyboard, mouse } = lab.isa(i8042, properties);
  lab.machine.resetDevices();
  const { ports } = lab.machine;
  return {
    lab,
    status: (): number => ports.read(COMMAND, 1) & (FULL | FROM_MOUSE),
    read: (): number => ports.read(DATA, 1),
    command: (value: number, ...bytes: readonly number[]): void => {
      ports.write(COMMAND, 1, value);
      for (const byte of bytes) ports.write(DATA, 1, byte);
    },
    press: (): void => keyboard.input({ kind: 'key', key: 'a', down: true }),
    move(): void {
      mouse.input({ kind: 'relative', axis: 'x', value: 1 });
      mouse.sync();
    },
    irq: (line: number): boolean => lab.isaIrqs[line]?.level ?? false,
  };
}

t.test('a byte that the guest has been shown stays in the output buffer until it is read', async t => {
  const { command, irq, move, press, read, status } = lab();
  command(0x60, 0x43);
  command(0xd4, 0xf4);
  t.equal(read(), 0xfa, 'the mouse reports from now on');
  move();
  t.equal(status(), FULL | FROM_MOUSE);
  press();
  t.equal(status(), FULL | FROM_MOUSE, 'a key does not take its place');
  t.same([irq(KEYBOARD_IRQ), irq(MOUSE_IRQ)], [false, true]);
  t.equal(read() & 0x08, 0x08, 'the first byte of a mouse packet');
  t.equal(status(), FULL, 'then the keyboard is served first');
  t.same([irq(KEYBOARD_IRQ), irq(MOUSE_IRQ)], [true, false]);
  t.equal(read(), KEY_A);
});

t.test('the bytes of a disabled port wait unseen', async t => {
  const { command, press, read, status } = lab();
  command(0x60, 0x43);
  command(0xad);
  press();
  t.equal(status(), 0);
  command(0xae);
  t.equal(status(), FULL);
  t.equal(read(), KEY_A);
  command(0xa7);
  command(0xd3, 0x55);
  t.equal(status(), FULL | FROM_MOUSE, 'what the controller itself says does not wait');
  t.equal(read(), 0x55);
});

t.test('a command takes back what is left of the reply to the one before', async t => {
  const { lab: l, read, status } = lab();
  const { ports } = l.machine;
  ports.write(DATA, 1, 0xf2);
  t.equal(read(), 0xfa);
  ports.write(DATA, 1, 0xee);
  t.equal(read(), 0xee, 'not the identity');
  t.equal(status(), 0);
});

t.test('kbd-throttle keeps a millisecond between two bytes of the keyboard', async t => {
  const { lab: l, command, press, read, status } = lab({ 'kbd-throttle': true });
  command(0x60, 0x43);
  press();
  press();
  t.equal(read(), KEY_A);
  t.equal(status(), 0);
  l.clock.advance(us(999));
  t.equal(status(), 0);
  l.clock.advance(ms(1));
  t.equal(status(), FULL);
});
