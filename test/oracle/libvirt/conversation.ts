import { readFileSync } from 'node:fs';
import type { RunningProgram } from '../../core/control/program.ts';

/** A JSON value's form: the name of a scalar's type, a list with its elements' form, or members; a `?` ends optional ones. */
export type Shape = string | readonly Shape[] | { readonly [name: string]: Shape };

/** A command and what QEMU answered, or an event that came. */
export type Entry =
  | {
      readonly execute: string;
      readonly arguments?: object;
      readonly returns?: Shape;
      /** Where the machine determines the answer. */
      readonly equals?: unknown;
      /** The devices under /machine/peripheral, with their types. */
      readonly has?: readonly string[];
      readonly error?: { readonly class: string; readonly desc: string };
    }
  | { readonly event: string; readonly data: Shape };

export interface Recording {
  readonly source: string;
  readonly machines: Readonly<
    Record<
      'pc' | 'sn',
      {
        readonly cpuProperties: Readonly<Record<string, readonly string[]>>;
        readonly steps: readonly { readonly step: string; readonly conversation: readonly Entry[] }[];
      }
    >
  >;
}

/** The recording; `dist` has no copy of it. */
export function recording(): Recording {
  const here = new URL('.', import.meta.url).pathname.replace('/dist/', '/');
  return JSON.parse(readFileSync(`${here}conversations.json`, 'utf8'));
}

/** Where `value` differs from `shape`, in words; undefined where it does not. */
export function misfit(value: unknown, shape: Shape, where = 'answer'): string | undefined {
  if (typeof shape === 'string') {
    const is = value === null ? 'null' : typeof value;
    return shape === 'any' || is === shape ? undefined : `${where} is ${is} and not ${shape}`;
  }
  if (Array.isArray(shape)) {
    if (!Array.isArray(value)) return `${where} is no list`;
    const [element] = shape;
    if (element === undefined) return undefined;
    return first(value.map((item, index) => misfit(item, element, `${where}[${index}]`)));
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return `${where} has no members`;
  const members = Object.entries(shape);
  const known = new Set(members.map(([name]) => name.replace(/\?$/, '')));
  const extra = Object.keys(value).find(name => !known.has(name));
  if (extra !== undefined) return `${where}.${extra} is not in QEMU's answer`;
  return first(
    members.map(([name, member]) => {
      const key = name.replace(/\?$/, '');
      const found: unknown = Reflect.get(value, key);
      if (found === undefined) return name.endsWith('?') ? undefined : `${where}.${key} is missing`;
      return misfit(found, member, `${where}.${key}`);
    }),
  );
}

function first(complaints: readonly (string | undefined)[]): string | undefined {
  return complaints.find(complaint => complaint !== undefined);
}

/** How long to wait for an event: milliseconds. */
const PATIENCE = 20_000;

/** Plays conversations to a machine, and says what is other than in the recording. */
export class Player {
  readonly #program: RunningProgram;
  readonly #replace: (text: string) => string;
  #seen = 0;

  /** @param replace puts real paths in place of `$IMG/` */
  constructor(program: RunningProgram, replace: (text: string) => string) {
    this.#program = program;
    this.#replace = replace;
  }

  async play(conversation: readonly Entry[]): Promise<string[]> {
    const complaints: string[] = [];
    for (const entry of conversation) {
      const complaint = 'event' in entry ? await this.#event(entry.event, entry.data) : await this.#command(entry);
      if (complaint !== undefined) complaints.push(complaint);
    }
    return complaints;
  }

  async #event(name: string, data: Shape): Promise<string | undefined> {
    const event = await this.#nextEvent();
    if (event === undefined) return `event ${name} does not come`;
    if (event['event'] !== name) return `event ${event['event']} came, and not ${name}`;
    return misfit(event['data'] ?? {}, data, name);
  }

  /** Events come while commands are answered. */
  async #nextEvent(): Promise<Readonly<Record<string, unknown>> | undefined> {
    for (const end = performance.now() + PATIENCE; performance.now() < end; ) {
      const event = this.#program.events[this.#seen];
      if (event !== undefined) {
        this.#seen++;
        return event;
      }
      await this.#program.execute('query-status');
    }
    return undefined;
  }

  async #command(entry: Extract<Entry, { execute: string }>): Promise<string | undefined> {
    const { execute, error } = entry;
    const text = this.#replace(JSON.stringify({ execute, ...(entry.arguments && { arguments: entry.arguments }) }));
    const reply = await this.#program.request(`${text}\n`);
    const refused = reply['error'];
    if (error !== undefined || refused !== undefined) {
      const same = JSON.stringify(refused) === this.#replace(JSON.stringify(error) ?? '');
      return same ? undefined : `${text}: ${JSON.stringify(refused)}, and not ${JSON.stringify(error)}`;
    }
    const answer = reply['return'];
    const complaint =
      'equals' in entry
        ? unequal(answer, entry.equals)
        : (misfit(answer, entry.returns ?? {}) ?? devices(answer, entry.has));
    return complaint === undefined ? undefined : `${text}: ${complaint}`;
  }
}

function unequal(answer: unknown, wanted: unknown): string | undefined {
  const [is, ought] = [sorted(answer), sorted(wanted)].map(value => JSON.stringify(value));
  return is === ought ? undefined : `${is}, and not ${ought}`;
}

function devices(answer: unknown, wanted: readonly string[] | undefined): string | undefined {
  if (wanted === undefined || !Array.isArray(answer)) return undefined;
  const there = answer.map(({ name, type }) => `${name} ${type}`);
  return wanted.find(device => !there.includes(device));
}

/** With the members of objects in alphabetical order. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, member]) => [name, sorted(member)]),
  );
}
