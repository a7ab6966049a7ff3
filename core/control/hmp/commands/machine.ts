import { didYouMean } from '../../../errors.ts';
import { QmpError } from '../../qapi/error.ts';
import { type HmpCommand, hmp, viaQmp, viaQmpBare } from '../command.ts';

const LOG_ITEMS = ['guest_errors', 'unimp', 'int', 'cpu_reset', 'exec'] as const;
const LOG_HELP = `Log items (comma separated):
none            remove all logs
int             interrupts and exceptions
exec            every block of instructions
cpu_reset       the CPU before it is reset
unimp           what is not implemented
guest_errors    what the guest does wrong
trace:PATTERN   enable trace events
`;
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
    program.log.attach(trace);
    if (args.text('items') === 'help') return LOG_HELP;
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
  hmp('logfile', 'filename:F', 'filename', 'log into this file from now on', ({ program }, args) => {
    program.log.open(args.text('filename'));
    return undefined;
  }),
  hmp(
    'trace-event',
    'name:s,option:b,vcpu:i?',
    'name on|off [vcpu]',
    'switch trace events on or off',
    async (context, args) => {
      await context.qmp('trace-event-set-state', { name: args.text('name'), enable: args.flag('option') });
      context.program.log.attach(context.program.machine.trace);
      return undefined;
    },
  ),
  hmp(
    'mce',
    'broadcast:-b,cpu_index:i,bank:i,status:l,mcg_status:l,addr:l,misc:l',
    '[-b] cpu bank status mcgstatus addr misc',
    'inject a machine check: no CPU here has them',
    ({ program }, args) => {
      if (program.machine.cpus.plugged[Number(args.integer('cpu_index'))] === undefined) return undefined;
      return 'MCE injection not supported\n';
    },
  ),
  hmp(
    'pcie_aer_inject_error',
    'advisory_non_fatal:-a,correctable:-c,id:s,error_status:s,header0:i?,header1:i?,header2:i?,header3:i?,prefix0:i?,prefix1:i?,prefix2:i?,prefix3:i?',
    '[-a] [-c] id status [header [prefix]]',
    "report an error of a PCI Express device: no device's error registers are writable here",
    ({ program }, args) => {
      const id = args.text('id');
      const found = [...program.machine.devices()].some(device => device.id === id);
      if (!found) return `id or pci device path is invalid or device not found. ${id}\n`;
      return 'failed to inject error: Function not implemented\n';
    },
  ),
  hmp(
    'replay_break',
    'icount:l',
    'icount',
    'stop a replayed run at an instruction',
    viaQmpBare('replay-break', args => ({ icount: args.integer('icount') })),
  ),
  hmp('replay_delete_break', '', '', 'stop there no longer', viaQmpBare('replay-delete-break')),
  hmp(
    'replay_seek',
    'icount:l',
    'icount',
    'go to an instruction of a replayed run',
    viaQmpBare('replay-seek', args => ({ icount: args.integer('icount') })),
  ),
  hmp(
    'dumpdtb',
    'filename:F',
    'filename',
    "save the machine's device tree: no x86 machine has one",
    viaQmp('dumpdtb', args => ({ filename: args.text('filename') })),
  ),
  hmp('sync-profile', 'op:s?', '[on|off|reset]', 'profile locks: there are none here', (_context, args) =>
    args.optional('op') === undefined ? 'sync-profile is off\n' : undefined,
  ),
];
