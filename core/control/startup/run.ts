import type { TypeRegistry } from '../../device/registry.ts';
import { type CommandLine, LocatedError, parseCommandLine } from '../options/command-line.ts';
import { HelpWanted, OptionError } from '../options/opts.ts';
import { Program } from '../program.ts';
import { startEarly } from './early.ts';
import { Reporter } from './report.ts';

/** What the program's entry point provides. */
export interface Entry {
  readonly program: string;
  readonly args: readonly string[];
  /** Registers the device and machine types that there are. */
  register(registry: TypeRegistry): void;
}

/** Runs the program until the machine ends; errors are reported and end it with status 1. */
export async function run(entry: Entry): Promise<void> {
  const report = new Reporter(entry.program);
  try {
    await start(entry, report);
  } catch (error) {
    if (error instanceof HelpWanted) process.exit(0);
    report.error(error);
    process.exit(1);
  }
}

async function start(entry: Entry, report: Reporter): Promise<void> {
  const line = parseCommandLine(entry.program, entry.args);
  if (line.has('help')) {
    const { helpText } = await import('../options/table.ts');
    process.stdout.write(helpText(entry.program));
    return;
  }
  if (line.has('version')) {
    const { VERSION_TEXT } = await import('../version.ts');
    process.stdout.write(VERSION_TEXT);
    return;
  }
  const { TypeRegistry: Registry } = await import('../../device/registry.ts');
  const registry = new Registry();
  entry.register(registry);
  for (const { value, location } of line.all('plugin')) await loadPlugin(registry, value, location);
  if (await wantsListing(line)) {
    const { printListing } = await import('./listings.ts');
    process.stdout.write(await printListing(line, registry));
    return;
  }
  refuseUnsupported(line);
  if (line.merged('msg').bool('timestamp')) report.timestamps = true;
  if (line.has('daemonize')) {
    const { becomeDaemon } = await import('./daemon.ts');
    if (await becomeDaemon(entry.args)) return;
  }
  const program = new Program(line, report, registry);
  try {
    await startEarly(program);
    const { Startup } = await import('./startup.ts');
    await new Startup(program).go();
  } catch (error) {
    program.dispose();
    throw error;
  }
}

async function wantsListing(line: CommandLine): Promise<boolean> {
  if (line.help !== undefined) return true;
  const isHelp = (value: unknown): boolean => value === 'help' || value === '?';
  return (
    isHelp(line.object('machine')[0]?.value['type']) ||
    isHelp(line.last('cpu')) ||
    isHelp(line.last('d')) ||
    line.opts('accel').some(({ opts }) => isHelp(opts.string('accel'))) ||
    line.opts('chardev').some(({ opts }) => isHelp(opts.string('backend'))) ||
    line.opts('device').some(({ opts }) => isHelp(opts.string('driver')) || opts.has('help')) ||
    line.object('object').some(({ value }) => isHelp(value['qom-type']))
  );
}

async function loadPlugin(registry: TypeRegistry, source: string, location: string): Promise<void> {
  try {
    const path = '../../device/plugin.js';
    const module: { loadPlugin(registry: TypeRegistry, source: string): Promise<void> } = await import(path);
    await module.loadPlugin(registry, source);
  } catch (error) {
    throw new LocatedError(location, error instanceof Error ? error : new Error(String(error)));
  }
}

/** Options that this program knows but cannot honour. */
function refuseUnsupported(line: CommandLine): void {
  const refuse = (name: string, message: string): void => {
    const given = line.all(name)[0];
    if (given !== undefined) throw new LocatedError(given.location, new OptionError(message));
  };
  refuse('spice', 'SPICE is not supported by this program');
  refuse('chroot', 'chroot is not supported by this program');
  refuse('runas', 'runas is not supported by this program');
  for (const { opts, location } of line.opts('sandbox')) {
    if (opts.bool('enable')) {
      throw new LocatedError(
        location,
        new OptionError('failed to enable seccomp: it is not supported by this program'),
      );
    }
  }
  if (line.has('preconfig') && line.has('daemonize')) {
    throw new OptionError("'-preconfig' and '-incoming' options are mutually exclusive");
  }
}
