import type { Writable } from '../json/writer.ts';
import type { EventData, EventName } from './catalog.ts';

/** At most one event a second of these names, the last one of a burst coming late: QEMU's limits. */
const LIMIT_NS = 1_000_000_000n;
const LIMITED: ReadonlyMap<string, string | undefined> = new Map([
  ['RTC_CHANGE', undefined],
  ['WATCHDOG', undefined],
  ['BALLOON_CHANGE', undefined],
  ['QUORUM_REPORT_BAD', 'node-name'],
  ['QUORUM_FAILURE', undefined],
  ['VSERPORT_CHANGE', 'id'],
  ['MEMORY_DEVICE_SIZE_CHANGE', 'qom-path'],
]);

/** An event as it goes over the wire. */
export interface QmpEvent {
  readonly [member: string]: Writable;
}

interface Waiting {
  readonly timer: NodeJS.Timeout;
  pending: QmpEvent | undefined;
}

/** Hands events to all monitors, with timestamps, and holds back those that come too often. */
export class EventHub {
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #waiting = new Map<string, Waiting>();
  /** Nanoseconds since 1970. */
  readonly #now: () => bigint;

  constructor(now: () => bigint = wallClock) {
    this.#now = now;
  }

  listen(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit<Name extends EventName>(name: Name, data?: EventData<Name>): void {
    const now = this.#now();
    const event: QmpEvent = {
      timestamp: { seconds: Number(now / 1_000_000_000n), microseconds: Number((now / 1000n) % 1_000_000n) },
      event: name,
      ...(isFilled(data) && { data }),
    };
    if (!LIMITED.has(name)) this.#deliver(event);
    else this.#limit(limitKey(name, data), event);
  }

  /** Forgets what is held back; for the end of the program. */
  dispose(): void {
    for (const { timer } of this.#waiting.values()) clearTimeout(timer);
    this.#waiting.clear();
    this.#listeners.clear();
  }

  #limit(key: string, event: QmpEvent): void {
    const waiting = this.#waiting.get(key);
    if (waiting !== undefined) {
      waiting.pending = event;
      return;
    }
    this.#deliver(event);
    this.#arm(key);
  }

  #arm(key: string): void {
    const timer = setTimeout(
      () => {
        const pending = this.#waiting.get(key)?.pending;
        this.#waiting.delete(key);
        if (pending === undefined) return;
        this.#deliver(pending);
        this.#arm(key);
      },
      Number(LIMIT_NS / 1_000_000n),
    );
    timer.unref();
    this.#waiting.set(key, { timer, pending: undefined });
  }

  #deliver(event: QmpEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

const isFilled = (data: unknown): data is { readonly [member: string]: Writable } =>
  typeof data === 'object' && data !== null && Object.keys(data).length > 0;

function limitKey(name: string, data: unknown): string {
  const member = LIMITED.get(name);
  if (member === undefined || typeof data !== 'object' || data === null) return name;
  const values: Readonly<Record<string, unknown>> = { ...data };
  return `${name} ${String(values[member])}`;
}

function wallClock(): bigint {
  return BigInt(Math.floor((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
}
