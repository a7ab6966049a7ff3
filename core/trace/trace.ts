/** Where trace lines go. */
export type TraceSink = (event: string, detail: string, timeNs: number) => void;

/** One named trace event. Check `enabled` before building the detail, so a disabled event costs one field read. */
export interface TraceEvent {
  readonly name: string;
  readonly enabled: boolean;
  emit(detail: string): void;
}

/** What QEMU's `-d` switches on (its documentation, section "log items"). */
export type LogItem = 'guest_errors' | 'unimp' | 'int' | 'cpu_reset' | 'exec' | 'trace:*';

class HubEvent implements TraceEvent {
  readonly name: string;
  readonly #hub: TraceHub;
  enabled = false;

  constructor(hub: TraceHub, name: string) {
    this.#hub = hub;
    this.name = name;
  }

  emit(detail: string): void {
    if (this.enabled) this.#hub.deliver(this.name, detail);
  }
}

/** The trace events of one machine, switched on and off by glob (`e1000.*`, `*`), now and for events to come. */
export class TraceHub {
  readonly #events = new Map<string, HubEvent>();
  readonly #rules: { pattern: RegExp; enable: boolean }[] = [];
  readonly #sinks = new Set<TraceSink>();
  readonly #items = new Set<LogItem>();
  readonly #changed = new Set<() => void>();
  /** Guest time for the trace lines. */
  now: () => number = () => 0;

  event(name: string): TraceEvent {
    const known = this.#events.get(name);
    if (known !== undefined) return known;
    const event = new HubEvent(this, name);
    event.enabled = this.#ruled(name);
    this.#events.set(name, event);
    return event;
  }

  /** Enables or disables all events that match `glob`: `*` any run of characters, `?` one. Returns how many matched. */
  enable(glob: string, enable = true): number {
    const pattern = globPattern(glob);
    this.#rules.push({ pattern, enable });
    let matched = 0;
    for (const event of this.#events.values()) {
      if (!pattern.test(event.name)) continue;
      event.enabled = enable;
      matched++;
    }
    for (const listener of this.#changed) listener();
    return matched;
  }

  /** Calls `listener` whenever events were switched. */
  onChange(listener: () => void): () => void {
    this.#changed.add(listener);
    return () => this.#changed.delete(listener);
  }

  events(): TraceEvent[] {
    return [...this.#events.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  addSink(sink: TraceSink): () => void {
    this.#sinks.add(sink);
    return () => this.#sinks.delete(sink);
  }

  /** Switches a log item, as `-d` does; guest errors and unimplemented features are events of these names. */
  log(item: LogItem, on = true): void {
    if (on) this.#items.add(item);
    else this.#items.delete(item);
    this.enable(`${item}.*`, on);
  }

  isLogged(item: LogItem): boolean {
    return this.#items.has(item);
  }

  deliver(event: string, detail: string): void {
    const time = this.now();
    for (const sink of this.#sinks) sink(event, detail, time);
  }

  #ruled(name: string): boolean {
    let enabled = false;
    for (const rule of this.#rules) if (rule.pattern.test(name)) enabled = rule.enable;
    return enabled;
  }
}

function globPattern(glob: string): RegExp {
  const source = glob
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`);
}
