import type { HostThreads } from '../../host/host-threads.ts';
import { QmpError } from '../qapi/error.ts';
import type { UserObject } from './objects.ts';

const MAX = 2n ** 63n - 1n;
const INT_MAX = 2 ** 31 - 1;

/** What an iothread can be told while it runs, and what holds at first. They are kept for whoever asks: one thread does all. */
const PARAMETERS = [
  ['poll-max-ns', 32768],
  ['poll-grow', 0],
  ['poll-shrink', 0],
  ['aio-max-batch', 0],
  ['thread-pool-min', 0],
  ['thread-pool-max', 64],
] as const;
type Parameter = (typeof PARAMETERS)[number][0];

/** Gives an iothread its parameters; deleting the object ends the thread that stands for it. @throws QmpError for wrong values */
export function openIothread(threads: HostThreads, object: UserObject): void {
  const given: Readonly<Record<string, unknown>> = { ...object.spec };
  const values = new Map<Parameter, number>();
  for (const [name, initial] of PARAMETERS) values.set(name, integer(name, given[name] ?? initial));
  checkPool(values);
  for (const [name] of PARAMETERS) {
    object.defineProperty({
      name,
      type: 'int',
      get: () => values.get(name) ?? 0,
      set: value => {
        const changed = new Map(values).set(name, integer(name, value));
        checkPool(changed);
        values.set(name, changed.get(name) ?? 0);
      },
    });
  }
  object.onDelete = () => threads.end(`IO ${object.id}`);
}

/** What `query-iothreads` says of one. */
export function iothreadInfo(threads: HostThreads, object: UserObject) {
  const value = (name: Parameter): number => Number(object.property(name)?.get() ?? 0);
  return {
    id: object.id,
    'thread-id': threads.idOf(`IO ${object.id}`),
    'poll-max-ns': value('poll-max-ns'),
    'poll-grow': value('poll-grow'),
    'poll-shrink': value('poll-shrink'),
    'aio-max-batch': value('aio-max-batch'),
  };
}

function integer(name: Parameter, value: unknown): number {
  if (typeof value !== 'bigint' && !Number.isInteger(value))
    throw new QmpError(`Invalid parameter type for '${name}', expected: integer`);
  if (Number(value) < 0) throw new QmpError(`${name} value must be in range [0, ${MAX}]`);
  return Number(value);
}

function checkPool(values: ReadonlyMap<Parameter, number>): void {
  const [min, max] = [values.get('thread-pool-min') ?? 0, values.get('thread-pool-max') ?? 0];
  if (min > max || max === 0 || min > INT_MAX || max > INT_MAX)
    throw new QmpError('bad thread-pool-min/thread-pool-max values');
}
