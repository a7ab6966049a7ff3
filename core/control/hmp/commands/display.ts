import type { InputButton, InputEvent } from '../../../display/input.ts';
import { QmpError } from '../../qapi/error.ts';
import { QKeyCode } from '../../qapi/schema/ui.ts';
import { type HmpCommand, type HmpContext, hmp, viaQmp } from '../command.ts';

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

/** Commands about screens, keyboards and mice. */
export const DISPLAY_COMMANDS: readonly HmpCommand[] = [
  hmp(
    'screendump',
    'filename:F,format:-fs,device:s?,head:i?',
    'filename [-f format] [device [head]]',
    'save what a screen shows as a PPM or PNG file',
    viaQmp('screendump', args => ({
      filename: args.text('filename'),
      format: args.optional('format'),
      device: args.optional('device'),
      head: args.optionalInteger('head'),
    })),
  ),
  hmp(
    'sendkey',
    'keys:s,hold-time:i?',
    'keys [hold_ms]',
    "press keys of the guest's keyboard, as in 'sendkey ctrl-alt-f1', for 100 ms",
    viaQmp('send-key', args => ({
      keys: args.text('keys').split('-').map(keyValue),
      'hold-time': args.optionalInteger('hold-time'),
    })),
  ),
  hmp(
    'mouse_move',
    'dx_str:s,dy_str:s,dz_str:s?',
    'dx dy [dz]',
    'move the mouse, and turn its wheel',
    (context, args) => {
      const [x = 0, y = 0, z = 0] = ['dx_str', 'dy_str', 'dz_str'].map(name => Number(args.optional(name) ?? 0));
      send(context, [
        { kind: 'relative', axis: 'x', value: x },
        { kind: 'relative', axis: 'y', value: y },
      ]);
      if (z === 0) return undefined;
      const button = z > 0 ? 'wheel-up' : 'wheel-down';
      send(context, [{ kind: 'button', button, down: true }]);
      send(context, [{ kind: 'button', button, down: false }]);
      return undefined;
    },
  ),
  hmp('mouse_button', 'button_state:i', 'state', 'press buttons of the mouse (1=L, 2=M, 4=R)', (context, args) => {
    const state = Number(args.integer('button_state'));
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
  hmp('mouse_set', 'index:i', 'index', 'choose the mouse that gets the events', ({ program }, args) => {
    const index = Number(args.integer('index'));
    const { input } = program.machine.services;
    const handler = input.handlers.find(candidate => input.numberOf(candidate) === index);
    if (handler === undefined) return `Mouse at index '${index}' not found\n`;
    if (!input.pointers.includes(handler)) throw new QmpError(`Input device '${handler.name}' is not a mouse`);
    input.activate(handler);
    return undefined;
  }),
  hmp(
    'set_password',
    'protocol:s,password:s,display:-ds,connected:s?',
    'protocol password [-d display] [action-if-connected]',
    "set a display server's password",
    viaQmp('set_password', args => ({
      protocol: args.text('protocol'),
      password: args.text('password'),
      connected: args.optional('connected'),
      display: args.optional('display'),
    })),
  ),
  hmp(
    'expire_password',
    'protocol:s,time:s,display:-ds',
    'protocol time [-d display]',
    "say when a display server's password expires",
    viaQmp('expire_password', args => ({
      protocol: args.text('protocol'),
      time: args.text('time'),
      display: args.optional('display'),
    })),
  ),
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
    .map(display => {
      const { request, server, places } = display;
      const auth = (websocket: boolean): string => {
        const { auth: primary, vencrypt = 'none' } = display.authOf(websocket);
        return `Auth: ${primary} (Sub: ${vencrypt})\n`;
      };
      const place = (kind: string, { host, service, family, websocket }: (typeof places)[number]): string =>
        `  ${kind}: ${host}:${service} (${family}${websocket ? ' (Websocket)' : ''})\n`;
      return [
        `${request.id}:\n`,
        ...places.map(where => `${place('Server', where)}    ${auth(where.websocket)}`),
        ...server.clients.map(
          ({ information }) =>
            `${place('Client', information)}    x509_dname: ${information.x509_dname ?? 'none'}\n    sasl_username: none\n`,
        ),
        ...(places.length === 0 ? [`  ${auth(false)}`] : []),
        ...(request.screen === undefined ? [] : [`  Display: ${request.screen.device}\n`]),
      ].join('');
    })
    .join('');
}
