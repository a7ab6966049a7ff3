import { rmSync, writeFileSync } from 'node:fs';
import { hostError, reason } from '../../block/io-error.ts';
import { fdSets } from '../../host/fd-sets.ts';
import type { CommandLine } from '../options/command-line.ts';
import { OptionError } from '../options/opts.ts';
import type { Program } from '../program.ts';
import { at } from './at.ts';

/**
 * What clients wait for: the character devices and the monitors on them. All else is loaded and built while they read the
 * greeting; their commands wait until it is there.
 */
export async function startEarly(program: Program): Promise<void> {
  const { line } = program;
  stayAlive(program);
  surviveDefects(program);
  writePidfile(program, line);
  handleSignals(program);
  for (const { opts } of line.opts('add-fd')) {
    const set = opts.number('set') ?? 0;
    fdSets.set(set, [...(fdSets.get(set) ?? []), { fd: opts.number('fd') ?? -1, opaque: opts.string('opaque') }]);
  }
  for (const { opts, location } of line.opts('chardev')) await at(location, () => program.chars.addOpts(opts));
  let index = 0;
  for (const { name, value, location } of line.given) {
    if (name !== 'monitor' && name !== 'qmp' && name !== 'qmp-pretty') continue;
    await at(location, async () => {
      const added = await program.chars.addCompat(`compat_monitor${index++}`, value);
      if (added === undefined) return;
      if (name === 'monitor') await program.addHmp(added.id);
      else await program.addQmp(added.id, name === 'qmp-pretty');
    });
  }
  for (const { opts, location } of line.opts('mon')) {
    await at(location, async () => {
      const mode = opts.string('mode') ?? 'readline';
      const id = opts.string('chardev');
      if (mode !== 'readline' && mode !== 'control')
        throw new OptionError(`Parameter 'mode' does not accept value '${mode}'`);
      if (id === undefined || program.chars.get(id) === undefined) throw new OptionError(`chardev "${id}" not found`);
      if (mode === 'control') await program.addQmp(id, opts.bool('pretty') ?? false);
      else await program.addHmp(id);
    });
  }
}

/** A machine without clients, timers and CPUs is still one: only `quit`, a signal or the guest ends the program. */
function stayAlive(program: Program): void {
  const timer = setInterval(() => undefined, 2 ** 30);
  program.resources.push({ dispose: () => clearInterval(timer) });
}

/**
 * A defect of a device or a command stops the machine, whose state can then be looked at and saved; it does not take the
 * process with it. Before the machine is built it does.
 */
function surviveDefects(program: Program): void {
  process.on('uncaughtException', error => {
    if ('code' in error && error.code === 'EPIPE') return;
    program.report.error(error);
    if (!program.isReady) process.exit(1);
    if (program.runState === 'running') program.machine.stop('internal-error');
  });
}

function writePidfile(program: Program, line: CommandLine): void {
  const given = line.all('pidfile').at(-1);
  if (given === undefined) return;
  try {
    writeFileSync(given.value, `${process.pid}\n`, { mode: 0o600 });
  } catch (cause) {
    const why = reason(hostError(cause));
    throw new OptionError(`cannot create PID file: Could not create '${given.value}': ${why}`);
  }
  program.resources.push({ dispose: () => rmSync(given.value, { force: true }) });
}

function handleSignals(program: Program): void {
  for (const [signal, number] of [
    ['SIGTERM', 15],
    ['SIGINT', 2],
    ['SIGHUP', 1],
  ] as const) {
    process.on(signal, () => {
      program.report.plain(`terminating on signal ${number}`);
      program.quit('host-signal');
    });
  }
  process.on('SIGPIPE', () => undefined);
}
