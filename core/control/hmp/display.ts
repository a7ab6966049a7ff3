import type { InputButton, InputEvent } from '../../display/input.ts';
import { QmpError } from '../qapi/error.ts';
import { QKeyCode } from '../qapi/schema/ui.ts';
import { type HmpCommand, type HmpContext, hmp, words } from './command.ts';

/** Bits of `mouse_button`. */
const BUTTONS: readonly (readonly [InputButton, number])[] = [
  ['left', 1],
  ['right', 2],
  ['middle', 4],
];

/** The state of the buttons that the last `mouse_button` left, for each monitor's program. */
const pressed = new WeakMap<object, number>();

const send = ({ program }: HmpContext, events: readonly InputEvent[]): void =>
  void program.machine.services.input.send(events);

/** A key of `sendkey`: a name, `<`, or a number. */
function keyValue(name: string): { type: 'qcode' | 'number'; data: string | number } {
  const key = name === '<' ? 'less' : name;
  if (QKeyCode.values.some(value => value === key)) return { type: 'qcode', data: key };
  if (/^(0x[0-9a-f]+|\d+)$/i.test(key)) return { type: 'number', data: Number(key) };
  throw new QmpError(`unknown key: '${name}'`);
}

/** Takes `-x value` out of a command's words. */
function takeOption(list: string[], flag: string): string | undefined {
  const at = list.indexOf(flag);
  return at < 0 ? undefined : list.splice(at, 2)[1];
}

/** Commands about screens, keyboards and mice. */
export const DISPLAY_COMMANDS: readonly HmpCommand[] = [
  hmp(
    'screendump',
    'filename [-f format] [device [head]]',
    "save screen from head 'head' of display device 'device' in specified format 'format' as image 'filename'.",
    async (context, text) => {
      const list = words(text);
      const format = takeOption(list, '-f');
      const [filename = '', device, head] = list;
      await context.qmp('screendump', {
        filename,
        ...(format !== undefined && { format }),
        ...(device !== undefined && { device }),
        ...(head !== undefined && { head: Number(head) }),
      });
      return undefined;
    },
  ),
  hmp(
    'sendkey',
    'keys [hold_ms]',
    "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)",
    async (context, text) => {
      const [keys = '', hold] = words(text);
      await context.qmp('send-key', {
        keys: keys.split('-').map(keyValue),
        ...(hold !== undefined && { 'hold-time': Number(hold) }),
      });
      return undefined;
    },
  ),
  hmp('mouse_move', 'dx dy [dz]', 'send mouse move events', (context, text) => {
    const [x = 0, y = 0, z = 0] = words(text).map(Number);
    send(context, [
      { kind: 'relative', axis: 'x', value: x },
      { kind: 'relative', axis: 'y', value: y },
    ]);
    if (z === 0) return undefined;
    const button = z > 0 ? 'wheel-up' : 'wheel-down';
    send(context, [{ kind: 'button', button, down: true }]);
    send(context, [{ kind: 'button', button, down: false }]);
    return undefined;
  }),
  hmp('mouse_button', 'button_state', 'change mouse button state (1=L, 2=M, 4=R)', (context, text) => {
    const state = Number(words(text)[0]);
    const changed = state ^ (pressed.get(context.program) ?? 0);
    pressed.set(context.program, state);
    send(
      context,
      BUTTONS.filter(([, bit]) => (changed & bit) !== 0).map(([button, bit]) => ({
        kind: 'button',
        button,
        down: (state & bit) !== 0,
      })),
    );
    return undefined;
  }),
  hmp('mouse_set', 'index', 'set which mouse device receives events', ({ program }, text) => {
    const index = Number(words(text)[0]);
    const { input } = program.machine.services;
    const handler = input.handlers.find(candidate => input.numberOf(candidate) === index);
    if (handler === undefined) throw new QmpError(`Mouse at index '${index}' not found`);
    if (!input.pointers.includes(handler)) throw new QmpError(`Input device '${handler.name}' is not a mouse`);
    input.activate(handler);
    return undefined;
  }),
  hmp(
    'set_password',
    'protocol password [-d display] [action-if-connected]',
    'set spice/vnc password',
    async (context, text) => {
      const list = words(text);
      const display = takeOption(list, '-d');
      const [protocol, password, connected] = list;
      await context.qmp('set_password', {
        protocol,
        password,
        ...(connected !== undefined && { connected }),
        ...(display !== undefined && { display }),
      });
      return undefined;
    },
  ),
  hmp('expire_password', 'protocol time [-d display]', 'set spice/vnc password expire-time', async (context, text) => {
    const list = words(text);
    const display = takeOption(list, '-d');
    const [protocol, time] = list;
    await context.qmp('expire_password', { protocol, time, ...(display !== undefined && { display }) });
    return undefined;
  }),
];

/** `info mice`. */
export async function miceReport(context: HmpContext): Promise<string> {
  const mice = (await context.qmp('query-mice')) as readonly {
    name: string;
    index: number;
    current: boolean;
    absolute: boolean;
  }[];
  if (mice.length === 0) return 'No mouse devices connected\n';
  return mice
    .map(
      ({ name, index, current, absolute }) =>
        `${current ? '*' : ' '} Mouse #${index}: ${name}${absolute ? ' (absolute)' : ''}\n`,
    )
    .join('');
}

/** `info vnc`. */
export async function vncReport({ program }: HmpContext): Promise<string> {
  const { all } = await program.displays();
  if (all.length === 0) return 'None\n';
  return all
    .map(({ request, server, places }) => {
      const auth = request.password ? 'vnc' : 'none';
      const place = (kind: string, { host, service, family, websocket }: (typeof places)[number]): string =>
        `  ${kind}: ${host}:${service} (${family}${websocket ? ' (Websocket)' : ''})\n`;
      return [
        `${request.id}:\n`,
        ...places.map(where => `${place('Server', where)}    Auth: ${auth} (Sub: none)\n`),
        ...server.clients.map(
          ({ address }) => `${place('Client', address)}    x509_dname: none\n    sasl_username: none\n`,
        ),
        ...(places.length === 0 ? [`  Auth: ${auth} (Sub: none)\n`] : []),
        ...(request.screen === undefined ? [] : [`  Display: ${request.screen.device}\n`]),
      ].join('');
    })
    .join('');
}
