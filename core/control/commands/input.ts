import type { InputButton, InputEvent } from '../../display/input.ts';
import type { Program } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import { type KeyValue, type InputEvent as QapiEvent, QKeyCode } from '../qapi/schema/ui.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

const HOLD_MS = 100;

/** The qcode of a key that was given by its PC scancode of set 1, extended ones with bit 7 set: found by its place in QEMU's table. */
function keyName(key: Value<typeof KeyValue>): string {
  if (key.type === 'qcode') return key.data;
  const name = NUMBERS.get(Number(key.data));
  if (name === undefined) throw new QmpError(`invalid key number: 0x${Number(key.data).toString(16)}`);
  return name;
}

/** Set 1 scancodes (IBM PC technical reference) of the keys that scripts send by number. */
const NUMBERS: ReadonlyMap<number, string> = new Map<number, string>(
  [
    ...'1234567890'.split('').map((digit, index): [number, string] => [index + 2, digit]),
    ...'qwertyuiop'.split('').map((letter, index): [number, string] => [index + 0x10, letter]),
    ...'asdfghjkl'.split('').map((letter, index): [number, string] => [index + 0x1e, letter]),
    ...'zxcvbnm'.split('').map((letter, index): [number, string] => [index + 0x2c, letter]),
    ...Array.from({ length: 10 }, (_, index): [number, string] => [index + 0x3b, `f${index + 1}`]),
    [0x01, 'esc'],
    [0x0c, 'minus'],
    [0x0d, 'equal'],
    [0x0e, 'backspace'],
    [0x0f, 'tab'],
    [0x1c, 'ret'],
    [0x1d, 'ctrl'],
    [0x2a, 'shift'],
    [0x36, 'shift_r'],
    [0x38, 'alt'],
    [0x39, 'spc'],
    [0x3a, 'caps_lock'],
    [0x57, 'f11'],
    [0x58, 'f12'],
    [0x9d, 'ctrl_r'],
    [0xb8, 'alt_r'],
    [0xc7, 'home'],
    [0xc8, 'up'],
    [0xc9, 'pgup'],
    [0xcb, 'left'],
    [0xcd, 'right'],
    [0xcf, 'end'],
    [0xd0, 'down'],
    [0xd1, 'pgdn'],
    [0xd2, 'insert'],
    [0xd3, 'delete'],
  ].filter((entry): entry is [number, string] => QKeyCode.values.some(name => name === entry[1])),
);

function inputEvent(event: Value<typeof QapiEvent>): InputEvent {
  switch (event.type) {
    case 'key':
      return { kind: 'key', key: keyName(event.data.key), down: event.data.down };
    case 'btn':
      return { kind: 'button', button: event.data.button as InputButton, down: event.data.down };
    case 'rel':
      return { kind: 'relative', axis: event.data.axis, value: Number(event.data.value) };
    default:
      return { kind: 'absolute', axis: event.data.axis, value: Number(event.data.value) };
  }
}

export function inputCommands(program: Program): Handlers<QmpSession> {
  return {
    'send-key': ({ keys, 'hold-time': hold }) => {
      const { input } = program.machine.services;
      const names = keys.map(keyName);
      for (const key of names) input.send([{ kind: 'key', key, down: true }]);
      const release = (): void => {
        for (const key of [...names].reverse()) input.send([{ kind: 'key', key, down: false }]);
      };
      setTimeout(release, Number(hold ?? HOLD_MS)).unref();
    },
    'input-send-event': ({ events }) => {
      const { input } = program.machine.services;
      const list = events.map(inputEvent);
      for (const event of list) {
        if (input.find(event.kind) === undefined)
          throw new QmpError(`Input handler not found for event type ${QAPI_KIND[event.kind]}`);
      }
      input.send(list);
    },
    'query-mice': () =>
      program.machine.services.input.handlers
        .filter(({ kinds }) => kinds.has('relative') || kinds.has('absolute'))
        .map(({ name, kinds }, index) => ({ name, index, current: index === 0, absolute: kinds.has('absolute') })),
  };
}

const QAPI_KIND: Readonly<Record<InputEvent['kind'], string>> = {
  key: 'key',
  button: 'btn',
  relative: 'rel',
  absolute: 'abs',
};
