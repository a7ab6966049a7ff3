/** What receives the level of a line. */
export type IrqSink = (level: boolean) => void;

/** Decides what of an edge goes on to `pass`. */
export type IrqFilter = (level: boolean, pass: IrqSink) => void;

/**
 * One interrupt line, or any other single wire: it has a level and at most one sink. Setting the level that it already
 * has tells the sink nothing, so a level-triggered source may set it as often as it likes.
 */
export class IrqLine {
  readonly name: string;
  #level = false;
  #sink: IrqSink | undefined;
  /** As connected last: a device that is out has let go, and another may take its place. */
  #lastSink: IrqSink | undefined;
  /** The interceptor and all watchers as one. */
  #observer: IrqSink | undefined;
  #interceptor: IrqSink | undefined;
  #watchers: readonly IrqSink[] = [];
  #filter: IrqFilter | undefined;
  #rises = 0;

  constructor(name: string, sink?: IrqSink) {
    this.name = name;
    this.#sink = sink;
    this.#lastSink = sink;
  }

  get level(): boolean {
    return this.#level;
  }

  /** How often it has gone high, for statistics. */
  get rises(): number {
    return this.#rises;
  }

  get connected(): boolean {
    return this.#sink !== undefined;
  }

  set(level: boolean): void {
    if (level === this.#level) return;
    this.#level = level;
    if (level) this.#rises++;
    if (this.#filter === undefined) this.#sink?.(level);
    else this.#filter(level, reached => this.#sink?.(reached));
    this.#observer?.(level);
  }

  raise(): void {
    this.set(true);
  }

  lower(): void {
    this.set(false);
  }

  /** One edge: high, then low. */
  pulse(): void {
    this.set(true);
    this.set(false);
  }

  /** Wires this line to `sink`, which learns the present level if that is high. */
  connect(sink: IrqSink): void {
    this.#sink = sink;
    this.#lastSink = sink;
    if (this.#level) sink(true);
  }

  disconnect(): void {
    if (this.#level) this.#sink?.(false);
    this.#sink = undefined;
  }

  /** Shows each edge to `observer` too: qtest's irq_intercept_in and irq_intercept_out. */
  intercept(observer: IrqSink | undefined): void {
    this.#interceptor = observer;
    this.#observe();
  }

  /** Shows each edge to `watcher`, beside all others: probes, waveforms. Returns how to stop it. */
  watch(watcher: IrqSink): () => void {
    this.#watchers = [...this.#watchers, watcher];
    this.#observe();
    return () => {
      this.#watchers = this.#watchers.filter(each => each !== watcher);
      this.#observe();
    };
  }

  /** Lets `filter` decide what of each edge reaches the sink: injected faults. Returns how to take it out. */
  interpose(filter: IrqFilter): () => void {
    this.#filter = filter;
    return () => {
      if (this.#filter !== filter) return;
      this.#filter = undefined;
      this.#sink?.(this.#level);
    };
  }

  /** Leads where `other` led, which no longer drives anything. */
  takeOver(other: IrqLine): void {
    this.#sink = other.#lastSink;
    this.#lastSink = other.#lastSink;
    other.#sink = undefined;
  }

  /** Drives the sink without the source: injected faults. */
  force(level: boolean): void {
    this.#sink?.(level);
  }

  #observe(): void {
    const all = this.#interceptor === undefined ? this.#watchers : [this.#interceptor, ...this.#watchers];
    const [only] = all;
    this.#observer =
      all.length <= 1
        ? only
        : level => {
            for (const each of all) each(level);
          };
  }

  /** Puts back a saved level without telling the sink, which restores its own view. */
  restore(level: boolean): void {
    this.#level = level;
  }
}

/** Several sources on one wire: the output is high while any input is. Inputs beyond the declared ones are never made. */
export class WiredOr {
  readonly output: IrqLine;
  #high = 0;

  constructor(output: IrqLine) {
    this.output = output;
  }

  /** One more input of this wire. */
  input(name: string): IrqLine {
    return new IrqLine(name, level => {
      this.#high += level ? 1 : -1;
      this.output.set(this.#high > 0);
    });
  }
}
