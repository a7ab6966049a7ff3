import type { TypeRegistry } from '../../device/registry.ts';
import { engineThreadsGiveWay } from '../../host/engine-threads.ts';
import type { LoadedPlugin, PluginHost } from '../../plugin/host.ts';
import { type CommandLine, LocatedError, parseCommandLine } from '../options/command-line.ts';
import { isHelp } from '../options/numbers.ts';
import { HelpWanted, OptionError, type Opts } from '../options/opts.ts';
import { Program } from '../program.ts';
import { at } from './at.ts';
import { checkSmallOptions } from './checks.ts';
import { startEarly } from './early.ts';
import { Reporter } from './report.ts';
import { wantedListing } from './wanted-listing.ts';

/** What the program's entry point provides. */
export interface Entry {
  readonly program: string;
  readonly args: readonly string[];
  /** The device and machine types that there are. */
  registry(): TypeRegistry;
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
  const registry = entry.registry();
  const { PluginHost } = await import('../../plugin/host.ts');
  const plugins = new PluginHost(registry);
  const watched: LoadedPlugin[] = [];
  for (const { opts, location } of line.opts('plugin')) await at(location, () => loadPlugin(plugins, opts));
  for (const { opts, location } of line.opts('watch-plugin')) {
    const plugin = await at(location, () => loadPlugin(plugins, opts));
    if (plugin !== undefined) watched.push(plugin);
  }
  const wanted = wantedListing(line);
  if (wanted !== undefined) {
    const { listing } = await import('./listings.ts');
    process.stdout.write(await listing(wanted, line, registry, plugins));
    return;
  }
  refuseUnsupported(line, report);
  if (line.merged('msg').bool('timestamp')) report.timestamps = true;
  if (line.has('daemonize')) {
    const { becomeDaemon } = await import('./daemon.ts');
    if (await becomeDaemon(entry.args)) return;
  }
  if (line.has('sandbox')) {
    const { applySandbox } = await import('./sandbox.ts');
    await applySandbox(line);
  }
  engineThreadsGiveWay();
  const program = new Program(line, report, registry, plugins);
  try {
    await startEarly(program);
    const { Startup } = await import('./startup.ts');
    await new Startup(program).go();
    await watchPlugins(program, watched);
  } catch (error) {
    // Somebody has ended the program while it was starting: what start-up then trips over is nobody's error.
    if (program.ending) return;
    program.dispose();
    throw error;
  }
}

async function watchPlugins(program: Program, watched: readonly LoadedPlugin[]): Promise<void> {
  if (watched.length === 0) return;
  const { PluginWatcher } = await import('../../plugin/watcher.ts');
  for (const plugin of watched)
    program.resources.push(new PluginWatcher(plugin, program.plugins, () => program.machine, program.report));
}

async function loadPlugin(plugins: PluginHost, opts: Opts): Promise<LoadedPlugin | undefined> {
  const path = opts.string('path') ?? '';
  if (isHelp(path)) return undefined;
  const prefix = opts.string('prefix');
  return plugins.load(path, prefix === undefined ? {} : { prefix });
}

/** Options that this program knows but cannot honour. */
export function refuseUnsupported(line: CommandLine, report: Reporter): void {
  const refuse = (name: string, message: string, hint: string): void => {
    const given = line.all(name)[0];
    if (given !== undefined) throw new LocatedError(given.location, new OptionError(message, hint));
  };
  refuse(
    'iscsi',
    'iSCSI is not supported by this program',
    'attach the target to the host, and give its block device to -drive',
  );
  refuse(
    'win2k-hack',
    'the work-around for Windows 2000 is not supported by this program',
    'install it on a disk of another controller, such as -device lsi53c895a',
  );
  refuse(
    'dump-vmstate',
    'there is no such description: state is checked by name and version when it is loaded',
    "compare two programs by 'info version'",
  );
  refuse('spice', 'SPICE is not supported by this program', 'take -vnc');
  refuse('chroot', 'chroot is not supported by this program', 'start it in a container, or take -sandbox on');
  refuse('runas', 'runas is not supported by this program', 'start it as that user: sudo -u USER, setpriv, or systemd');
  checkSmallOptions(line);
  for (const name of ['mem-prealloc', 'dfilter', 'async-teardown'] as const)
    if (line.has(name)) report.warn(`-${name} has no effect in this program`);
  if (line.has('preconfig') && line.has('daemonize')) {
    throw new OptionError("'-preconfig' and '-incoming' options are mutually exclusive");
  }
}
