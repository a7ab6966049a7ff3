import type { NumaOption } from '../../machine/numa.ts';
import type { Json, JsonObject } from '../json/value.ts';
import { type Opts, parseKeyval } from '../options/opts.ts';
import type { Value } from '../qapi/declare.ts';
import { NumaOptions } from '../qapi/schema/machine.ts';
import { KEYVAL_ROOT } from '../qapi/types.ts';

/** `-numa` as written: ranges of CPUs become lists, and `cpus` may be given several times. */
export function numaOption(opts: Opts): NumaOption {
  const values: Record<string, Json> = {};
  for (const { key, value } of opts.values) if (key !== 'cpus') values[key] = value;
  const cpus = opts.all('cpus').flatMap(expandRange);
  const nested: JsonObject = parseKeyval(
    Object.entries(values)
      .map(([key, value]) => `${key}=${String(value).replaceAll(',', ',,')}`)
      .join(','),
  );
  return numaFromQapi(NumaOptions.read(cpus.length > 0 ? { ...nested, cpus } : nested, KEYVAL_ROOT));
}

function expandRange(text: string): string[] {
  const match = /^(\d+)-(\d+)$/.exec(text);
  if (match === null) return [text];
  const first = Number(match[1]);
  const count = Math.max(0, Math.min(65536, Number(match[2]) - first + 1));
  return Array.from({ length: count }, (_, index) => String(first + index));
}

/** The option as the machine takes it, from QAPI's form (`set-numa-node`). */
export function numaFromQapi(option: Value<typeof NumaOptions>): NumaOption {
  switch (option.type) {
    case 'node':
      return { ...option, mem: option.mem === undefined ? undefined : Number(option.mem) };
    case 'dist':
      return option;
    case 'cpu': {
      const id = (value: number | bigint | undefined): number | undefined =>
        value === undefined ? undefined : Number(value);
      return {
        type: 'cpu',
        nodeId: id(option['node-id']),
        socket: id(option['socket-id']),
        die: id(option['die-id']),
        core: id(option['core-id']),
        thread: id(option['thread-id']),
      };
    }
    case 'hmat-lb': {
      const { initiator, target, hierarchy, latency, bandwidth } = option;
      return {
        type: 'hmat-lb',
        initiator,
        target,
        hierarchy,
        dataType: option['data-type'],
        latency: latency === undefined ? undefined : Number(latency),
        bandwidth: bandwidth === undefined ? undefined : Number(bandwidth),
      };
    }
    default: {
      const { size, level, associativity, policy, line } = option;
      return { type: 'hmat-cache', nodeId: option['node-id'], size: Number(size), level, associativity, policy, line };
    }
  }
}
