import type { Machine } from '../../machine/machine.ts';
import type { PowerPolicy } from '../../machine/power-control.ts';
import { type CommandLine, located } from '../options/command-line.ts';
import { OptionError } from '../options/opts.ts';

const ACTIONS = {
  reboot: ['reset', 'shutdown'],
  shutdown: ['poweroff', 'pause'],
  panic: ['pause', 'shutdown', 'exit-failure', 'none'],
  watchdog: ['reset', 'shutdown', 'poweroff', 'pause', 'debug', 'none', 'inject-nmi'],
} as const satisfies { readonly [K in keyof PowerPolicy]: readonly PowerPolicy[K][] };

/** Sets one action of a machine's policy by name. False where there is no such event or action. */
export function setAction(policy: PowerPolicy, event: string, action: string): boolean {
  const set = <K extends keyof PowerPolicy>(key: K, values: readonly PowerPolicy[K][]): boolean => {
    const value = values.find(candidate => candidate === action);
    if (value === undefined) return false;
    policy[key] = value;
    return true;
  };
  if (event === 'reboot') return set('reboot', ACTIONS.reboot);
  if (event === 'shutdown') return set('shutdown', ACTIONS.shutdown);
  if (event === 'panic') return set('panic', ACTIONS.panic);
  return event === 'watchdog' && set('watchdog', ACTIONS.watchdog);
}

/** `-no-reboot`, `-no-shutdown`, `-action`, `-watchdog-action`, in the order in which they were given. */
export function applyPolicy(line: CommandLine, machine: Machine): void {
  const { policy } = machine.power;
  if (line.has('no-reboot')) setAction(policy, 'reboot', 'shutdown');
  if (line.has('no-shutdown')) setAction(policy, 'shutdown', 'pause');
  for (const { opts, location } of line.opts('action')) {
    located(location, () => {
      for (const { key, value } of opts.values) {
        if (!setAction(policy, key, value))
          throw new OptionError(`Parameter '${key}' does not accept value '${value}'`);
      }
    });
  }
  const watchdog = line.all('watchdog-action').at(-1);
  if (watchdog !== undefined && !setAction(policy, 'watchdog', watchdog.value)) {
    located(watchdog.location, () => {
      throw new OptionError(`Parameter 'watchdog' does not accept value '${watchdog.value}'`);
    });
  }
}
