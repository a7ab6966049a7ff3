import { enterSandbox } from '../../host/sandbox.ts';
import type { CommandLine } from '../options/command-line.ts';
import { OptionError, type Opts } from '../options/opts.ts';
import { at } from './at.ts';

/** `-sandbox`: each occurrence denies more, as each is a filter of its own. */
export async function applySandbox(line: CommandLine): Promise<void> {
  for (const { opts, location } of line.opts('sandbox')) {
    await at(location, () => {
      if (opts.bool('enable') !== true) return;
      enterSandbox({
        obsolete: choice(opts, 'obsolete', 'deny', ['allow', 'deny']) === 'deny',
        // A process that filters itself cannot pass privileges to its children either, so both words mean the same.
        privileges: choice(opts, 'elevateprivileges', 'allow', ['allow', 'deny', 'children']) !== 'allow',
        spawn: choice(opts, 'spawn', 'allow', ['allow', 'deny']) === 'deny',
        resources: choice(opts, 'resourcecontrol', 'allow', ['allow', 'deny']) === 'deny',
      });
    });
  }
}

function choice(opts: Opts, name: string, fallback: string, words: readonly string[]): string {
  const word = opts.string(name) ?? fallback;
  if (!words.includes(word)) throw new OptionError(`invalid argument for ${name}`);
  return word;
}
