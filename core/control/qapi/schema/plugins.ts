import { command } from '../declare.ts';
import { array, int, opt, str, struct } from '../types.ts';

export const PluginInfo = struct('PluginInfo', {
  name: str,
  version: str,
  api: str,
  file: str,
  prefix: str,
  reloads: int,
  problem: opt(str),
  devices: array(str),
  machines: array(str),
  backends: array(str),
  'trace-sinks': array(str),
  accelerators: array(str),
});

/** This program's own: QEMU has no plugins of this kind. */
export const commands = {
  'x-query-plugins': command('The plugins, and what each brought', {
    returns: array(PluginInfo),
    features: ['unstable'],
    preconfig: true,
  }),
};
