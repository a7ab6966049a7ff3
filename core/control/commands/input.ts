import type { InputEvent } from '../../display/input.ts';
import { keyOfNumber } from '../../display/keys.ts';
import type { Program } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { KeyValue, InputEvent as QapiEvent } from '../qapi/schema/ui.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

const HOLD_MS = 100;

/** The qcode of a key that may have been given by its number. `sysrq` is an old name of `print`. */
function keyName(key: Value<typeof KeyValue>): string {
  const name = key.type === 'qcode' ? key.data : keyOfNumber(Number(key.data));
  return name === 'sysrq' ? 'print' : name;
}

function inputEvent(event: Value<typeof QapiEvent>): InputEvent {
  switch (event.type) {
    case 'key':
      return { kind: 'key', key: keyName(event.data.key), down: event.data.down };
    case 'btn':
      return { kind: 'button', button: event.data.button, down: event.data.down };
    case 'rel':
      return { kind: 'relative', axis: event.data.axis, value: Number(event.data.value) };
    default:
      return { kind: 'absolute', axis: event.data.axis, value: Number(event.data.value) };
  }
}

/** What a person would do at the machine. */
export function inputCommands(program: Program): Handlers<QmpSession> {
  return {
    'send-key': ({ keys, 'hold-time': hold }) => {
      const queue = program.machine.keys;
      const pauseMs = Number(hold ?? HOLD_MS);
      const names = keys.map(keyName);
      for (const key of names) {
        queue.key(key, true);
        queue.pause(pauseMs);
      }
      for (const key of names.toReversed()) {
        queue.key(key, false);
        queue.pause(pauseMs);
      }
    },
    'input-send-event': ({ device, head, events }) => {
      if (device !== undefined) program.screen(device, Number(head ?? 0));
      const { input } = program.machine.services;
      if (!input.takesInput) throw new QmpError('VM not running');
      const list = events.map(inputEvent);
      for (const event of list) {
        if (input.find(event.kind) === undefined)
          throw new QmpError(`Input handler not found for event type ${QAPI_KIND[event.kind]}`);
      }
      input.send(list);
    },
    'query-mice': () => {
      const { input } = program.machine.services;
      return input.pointers.map((handler, index) => ({
        name: handler.name,
        index: input.numberOf(handler),
        current: index === 0,
        absolute: handler.kinds.has('absolute'),
      }));
    },
  };
}

const QAPI_KIND: Readonly<Record<InputEvent['kind'], string>> = {
  key: 'key',
  button: 'btn',
  relative: 'rel',
  absolute: 'abs',
};
