import { readFileSync } from 'node:fs';
import { SouthbridgeError } from '../../errors.ts';
import type { Machine } from '../../machine/machine.ts';
import type { OpenTraceSink } from '../../plugin/plugin.ts';
import { programCounter } from '../../trace/sinks/program-counter.ts';
import { TraceHub } from '../../trace/trace.ts';
import { LocatedError } from '../options/command-line.ts';
import { isHelp } from '../options/numbers.ts';
import type { Program } from '../program.ts';

const LOG_ITEMS = ['guest_errors', 'unimp', 'int', 'cpu_reset', 'exec'] as const;

/** What `-trace`, `-trace-sink`, `-d` and `-D` ask for. */
export class Tracing {
  readonly #program: Program;
  readonly #sinks: OpenTraceSink[] = [];
  #hub: TraceHub | undefined;

  constructor(program: Program) {
    this.#program = program;
  }

  /** Made where it is first asked for, with the command line's events switched on. */
  get hub(): TraceHub {
    this.#hub ??= this.#make();
    return this.#hub;
  }

  /** `-trace help`: which events there are is known once the machine is complete. */
  get wantsList(): boolean {
    return this.#program.line.opts('trace').some(({ opts }) => opts.all('enable').some(isHelp));
  }

  built(machine: Machine): void {
    for (const sink of this.#sinks) sink.built?.(machine);
  }

  #make(): TraceHub {
    const hub = new TraceHub();
    const { line, report, log } = this.#program;
    const traces = line.opts('trace');
    for (const { opts, location } of traces) {
      for (const glob of opts.all('enable')) enable(hub, glob);
      for (const path of opts.all('events')) enableFrom(hub, path, location);
    }
    const items = (line.last('d') ?? '').split(',').filter(Boolean);
    for (const item of items) {
      const known = LOG_ITEMS.find(each => each === item);
      if (item.startsWith('trace:')) enable(hub, item.slice('trace:'.length));
      else if (known !== undefined) hub.log(known);
      else report.warn(`-d ${item} is not an item of this program`);
    }
    this.#openSinks(hub);
    const path = traces.flatMap(({ opts }) => opts.all('file')).at(-1) ?? line.last('D');
    if (path !== undefined) log.open(path);
    if (traces.length > 0 || items.length > 0) log.attach(hub);
    return hub;
  }

  #openSinks(hub: TraceHub): void {
    const program = this.#program;
    for (const { opts } of program.line.opts('trace-sink')) {
      const { sink: name = '', ...values } = Object.fromEntries(opts.entries());
      const sink = program.plugins.openTraceSink(name, values, {
        programCounter: () => programCounter(program.machine),
      });
      this.#sinks.push(sink);
      hub.addSink((event, detail, timeNs) => sink.write(event, detail, timeNs));
      program.resources.push({ dispose: () => sink.dispose?.() });
    }
  }
}

/** `-glob` switches off, as in QEMU. */
function enable(hub: TraceHub, glob: string): void {
  if (glob.startsWith('-')) hub.enable(glob.slice(1), false);
  else hub.enable(glob);
}

/** Globs, one a line; `#` begins a comment. */
function enableFrom(hub: TraceHub, path: string, location: string | undefined): void {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const error = new SouthbridgeError(
      'ERR_TRACE_EVENTS',
      `cannot read the trace events in '${path}'`,
      'it is a file of event names or globs, one a line',
      { cause },
    );
    throw location === undefined ? error : new LocatedError(location, error);
  }
  for (const line of text.split('\n')) {
    const glob = line.trim();
    if (glob !== '' && !glob.startsWith('#')) enable(hub, glob);
  }
}
