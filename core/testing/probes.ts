import type { Clock } from '../clock/clock.ts';
import type { IrqLine } from '../irq/line.ts';

/** One change of a line. */
export interface Edge {
  readonly level: boolean;
  /** Virtual time, nanoseconds. */
  readonly timeNs: number;
}

/** Watches a line: every edge with its time. */
export class IrqProbe {
  readonly edges: Edge[] = [];
  readonly line: IrqLine;
  readonly #stop: () => void;

  constructor(line: IrqLine, clock: Clock) {
    this.line = line;
    this.#stop = line.watch(level => this.edges.push({ level, timeNs: clock.now() }));
  }

  get level(): boolean {
    return this.line.level;
  }

  /** How often it was raised. */
  get raised(): number {
    return this.edges.filter(edge => edge.level).length;
  }

  clear(): void {
    this.edges.length = 0;
  }

  stop(): void {
    this.#stop();
  }
}
