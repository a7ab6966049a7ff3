import { type CommandLine, located } from '../options/command-line.ts';
import { OptionError } from '../options/opts.ts';

/** `-compat`: what each policy can be, the one that this program has first (QAPI CompatPolicy). */
const POLICIES: ReadonlyMap<string, readonly string[]> = new Map([
  ['deprecated-input', ['accept', 'reject', 'crash']],
  ['deprecated-output', ['accept', 'hide']],
  ['unstable-input', ['accept', 'reject', 'crash']],
  ['unstable-output', ['accept', 'hide']],
]);

/** A range of `-dfilter`: `0x100..0x1ff`, `0x100+0x100`, `0x1ff-0xff`. */
const RANGE = /^(0x[0-9a-f]+|\d+)(\.\.|\+|-)(0x[0-9a-f]+|\d+)$/i;

/**
 * What options with little effect, or none, are given.
 * @throws LocatedError with QEMU's words
 */
export function checkSmallOptions(line: CommandLine): void {
  for (const { value, location } of line.object('compat')) {
    located(location, () => {
      for (const [key, policy] of Object.entries(value)) {
        const values = POLICIES.get(key);
        if (values === undefined) throw new OptionError(`Parameter '${key}' is unexpected`);
        if (!values.some(known => known === policy))
          throw new OptionError(`Parameter '${key}' does not accept value '${String(policy)}'`);
        if (policy !== values[0])
          throw new OptionError(
            `this program has no policy '${key}=${String(policy)}'`,
            `take '${key}=${values[0]}', and look for 'features' in query-qmp-schema`,
          );
      }
    });
  }
  for (const { value, location } of line.all('dfilter')) {
    located(location, () => {
      if (!value.split(',').every(range => RANGE.test(range))) throw new OptionError('Bad range specifier');
    });
  }
  for (const { value, location } of line.all('rotate')) {
    located(location, () => {
      if (!['0', '90', '180', '270'].includes(value))
        throw new OptionError('only 90, 180, 270 deg rotation is available');
    });
  }
}
