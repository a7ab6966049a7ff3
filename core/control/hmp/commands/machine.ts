import { didYouMean } from '../../../errors.ts';
import { QmpError } from '../../qapi/error.ts';
import { type HmpCommand, hmp, viaQmp } from '../command.ts';

const LOG_ITEMS = ['guest_errors', 'unimp', 'int', 'cpu_reset', 'exec'] as const;
const hintFor = (item: string): string => {
  const hint = didYouMean(item, LOG_ITEMS);
  return hint === undefined ? '' : `, ${hint}`;
};

/** Running, stopping, resetting; CPUs; logs; keyboard and mouse. */
export const MACHINE_COMMANDS: readonly HmpCommand[] = [
  hmp('quit|q', '', '', 'quit the emulator', viaQmp('quit')),
  hmp('exit_preconfig', '', '', 'leave the preconfig state', viaQmp('x-exit-preconfig')),
  hmp('stop|s', '', '', 'stop emulation', viaQmp('stop')),
  hmp('cont|c', '', '', 'resume emulation', viaQmp('cont')),
  hmp('system_reset', '', '', 'reset the system', viaQmp('system_reset')),
  hmp('system_powerdown', '', '', 'press the power button', viaQmp('system_powerdown')),
  hmp('system_wakeup', '', '', 'wake the guest up from suspend', viaQmp('system_wakeup')),
  hmp('singlestep', 'option:s?', '[on|off]', 'one instruction at a time, or as usual', () => undefined),
  hmp('nmi', '', '', 'inject an NMI', viaQmp('inject-nmi')),
  hmp(
    'watchdog_action',
    'action:s',
    '[reset|shutdown|poweroff|pause|debug|none]',
    'what happens when a watchdog fires',
    viaQmp('watchdog-set-action', args => ({ action: args.text('action') })),
  ),
  hmp('boot_set', 'bootdevice:s', 'bootdevice', 'choose what firmware boots from next', ({ program }, args) => {
    const order = args.text('bootdevice');
    const set = program.machine.setBootOrder;
    if (set === undefined) throw new QmpError('no function defined to set boot device list for this architecture');
    set(order);
    return `boot device list now set to ${order}\n`;
  }),
  hmp('cpu', 'index:i', 'index', 'choose the CPU that commands are about', (context, args) => {
    const index = Number(args.integer('index'));
    if (context.program.machine.cpus.plugged[index] === undefined) return 'invalid CPU index\n';
    context.cpu = index;
    return undefined;
  }),
  hmp(
    'gdbserver',
    'device:s?',
    '[device]',
    "start a gdb server on a device (default 'tcp::1234'), or stop it with 'none'",
    async ({ program }, args) => {
      const device = args.optional('device') ?? 'tcp::1234';
      const { startGdb } = await import('../../gdb/start.ts');
      await startGdb(program, device);
      return device === 'none' ? 'Disabled gdbserver\n' : `Waiting for gdb connection on device '${device}'\n`;
    },
  ),
  hmp('log', 'items:s', 'item1[,...]', 'log these items from now on', ({ program }, args) => {
    const { trace } = program.machine;
    for (const item of args.text('items').split(',')) {
      if (item === 'none') for (const known of LOG_ITEMS) trace.log(known, false);
      else if (item === 'all') for (const known of LOG_ITEMS) trace.log(known);
      else if (item.startsWith('trace:')) trace.enable(item.slice('trace:'.length));
      else {
        const known = LOG_ITEMS.find(candidate => candidate === item);
        if (known === undefined) throw new QmpError(`unknown log item '${item}'${hintFor(item)}`);
        trace.log(known);
      }
    }
    return undefined;
  }),
  hmp(
    'trace-event',
    'name:s,option:b,vcpu:i?',
    'name on|off [vcpu]',
    'switch trace events on or off',
    viaQmp('trace-event-set-state', args => ({ name: args.text('name'), enable: args.flag('option') })),
  ),
  hmp('sync-profile', 'op:s?', '[on|off|reset]', 'profile locks: there are none here', (_context, args) =>
    args.optional('op') === undefined ? 'sync-profile is off\n' : undefined,
  ),
];
