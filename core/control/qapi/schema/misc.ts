import { command, event } from '../declare.ts';
import { array, bool, enumeration, int, opt, str, struct, union } from '../types.ts';

export const NameInfo = struct('NameInfo', { name: opt(str) });
export const IOThreadInfo = struct('IOThreadInfo', {
  id: str,
  'thread-id': int,
  'poll-max-ns': int,
  'poll-grow': int,
  'poll-shrink': int,
  'aio-max-batch': int,
});
export const AddfdInfo = struct('AddfdInfo', { 'fdset-id': int, fd: int });
export const FdsetFdInfo = struct('FdsetFdInfo', { fd: int, opaque: opt(str) });
export const FdsetInfo = struct('FdsetInfo', { 'fdset-id': int, fds: array(FdsetFdInfo) });
export const CommandLineParameterType = enumeration('CommandLineParameterType', [
  'string',
  'boolean',
  'number',
  'size',
]);
export const CommandLineParameterInfo = struct('CommandLineParameterInfo', {
  name: str,
  type: CommandLineParameterType,
  help: opt(str),
  default: opt(str),
});
export const CommandLineOptionInfo = struct('CommandLineOptionInfo', {
  option: str,
  parameters: array(CommandLineParameterInfo),
});
export const TraceEventState = enumeration('TraceEventState', ['unavailable', 'disabled', 'enabled']);
export const TraceEventInfo = struct('TraceEventInfo', { name: str, state: TraceEventState, vcpu: bool });
export const YankInstanceType = enumeration('YankInstanceType', ['block-node', 'chardev', 'migration']);
export const YankInstanceBlockNode = struct('YankInstanceBlockNode', { 'node-name': str });
export const YankInstanceChardev = struct('YankInstanceChardev', { id: str });
export const YankInstance = union('YankInstance', { type: YankInstanceType }, 'type', {
  'block-node': YankInstanceBlockNode,
  chardev: YankInstanceChardev,
});
export const ReplayMode = enumeration('ReplayMode', ['none', 'record', 'play']);
export const ReplayInfo = struct('ReplayInfo', { mode: ReplayMode, filename: opt(str), icount: int });

export const commands = {
  add_client: command('Hands a connected socket to a server', {
    args: { protocol: str, fdname: str, skipauth: opt(bool), tls: opt(bool) },
  }),
  'query-name': command("The machine's name", { returns: NameInfo, preconfig: true }),
  'query-iothreads': command('The I/O threads', { returns: array(IOThreadInfo), preconfig: true }),
  stop: command('Stops the machine', {}),
  cont: command('Lets the machine run', {}),
  'x-exit-preconfig': command('Goes on to build the machine', { features: ['unstable'], preconfig: true }),
  'human-monitor-command': command('Executes a command of the human monitor', {
    args: { 'command-line': str, 'cpu-index': opt(int) },
    returns: str,
    features: ['savevm-monitor-nodes'],
  }),
  getfd: command('Takes the file descriptor that comes along, under a name', { args: { fdname: str } }),
  closefd: command('Closes a named file descriptor', { args: { fdname: str } }),
  'add-fd': command('Adds the file descriptor that comes along to a set', {
    args: { 'fdset-id': opt(int), opaque: opt(str) },
    returns: AddfdInfo,
  }),
  'remove-fd': command('Removes file descriptors from a set', { args: { 'fdset-id': int, fd: opt(int) } }),
  'query-fdsets': command('The sets of file descriptors', { returns: array(FdsetInfo) }),
  'query-command-line-options': command("The command line's options and their parameters", {
    args: { option: opt(str) },
    returns: array(CommandLineOptionInfo),
    preconfig: true,
  }),
  'trace-event-get-state': command('Whether trace events are on', {
    args: { name: str, vcpu: opt(int) },
    returns: array(TraceEventInfo),
  }),
  'trace-event-set-state': command('Switches trace events', {
    args: { name: str, enable: bool, 'ignore-unavailable': opt(bool), vcpu: opt(int) },
  }),
  'query-yank': command('What can be disconnected by force', { returns: array(YankInstance), oob: true }),
  yank: command('Disconnects by force', { args: { instances: array(YankInstance) }, oob: true }),
  'query-replay': command('State of record and replay', { returns: ReplayInfo }),
  'replay-break': command('Stops a replayed run at an instruction', { args: { icount: int } }),
  'replay-delete-break': command('Stops there no longer', {}),
  'replay-seek': command('Goes to an instruction of a replayed run', { args: { icount: int } }),
};

export const events = {
  RTC_CHANGE: event({ offset: int, 'qom-path': str }),
};
