import type { CommandLine } from '../options/command-line.ts';
import type { GroupName } from '../options/groups.ts';
import { isHelp } from '../options/numbers.ts';

/** What can be listed. */
export type Listing =
  | 'plugins'
  | 'machines'
  | 'machine-options'
  | 'rom-folders'
  | 'audio-drivers'
  | 'sound-cards'
  | 'cpus'
  | 'accelerators'
  | 'chardevs'
  | 'image-formats'
  | 'tpmdevs'
  | 'network-cards'
  | 'netdevs'
  | 'objects'
  | 'trace-sinks'
  | 'log-items'
  | 'devices';

/** The listing that the command line asks for, the first here of several: `-machine help`, `-device e1000,help` and the like. */
export function wantedListing(line: CommandLine): Listing | undefined {
  const { help } = line;
  const helpFor = (option: string): boolean => help?.option === option && isHelp(help.value);
  const asks = (group: GroupName, key: string): boolean =>
    line.opts(group).some(({ opts }) => isHelp(opts.string(key)));
  if (asks('plugin', 'path')) return 'plugins';
  if (helpFor('machine') || isHelp(line.object('machine')[0]?.value['type'])) return 'machines';
  if (help?.option === 'machine') return 'machine-options';
  if (line.all('L').some(({ value }) => isHelp(value))) return 'rom-folders';
  if (line.has('audio-help') || helpFor('audio') || helpFor('audiodev')) return 'audio-drivers';
  for (const { value } of [...line.object('audio'), ...line.object('audiodev')]) {
    if (isHelp(value['driver'])) return 'audio-drivers';
    if (isHelp(value['model'])) return 'sound-cards';
  }
  if (isHelp(line.last('cpu'))) return 'cpus';
  if (asks('accel', 'accel')) return 'accelerators';
  if (asks('chardev', 'backend')) return 'chardevs';
  if (asks('drive', 'format')) return 'image-formats';
  if (asks('tpmdev', 'type')) return 'tpmdevs';
  if (asks('nic', 'model') || asks('net', 'model')) return 'network-cards';
  if (asks('netdev', 'type') || asks('nic', 'type')) return 'netdevs';
  if (help?.option === 'object' || line.object('object').some(({ value }) => isHelp(value['qom-type'])))
    return 'objects';
  if (asks('trace-sink', 'sink')) return 'trace-sinks';
  if (isHelp(line.last('d'))) return 'log-items';
  if (help !== undefined || line.opts('device').some(({ opts }) => isHelp(opts.string('driver')) || opts.has('help')))
    return 'devices';
  return undefined;
}
