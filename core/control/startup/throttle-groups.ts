import type { BlockGraph } from '../../block/graph.ts';
import { BlockOptions } from '../../block/options.ts';
import { LIMITS, type ThrottleConfig } from '../../block/throttle.ts';
import { takeLimits } from '../../block/throttle-options.ts';
import { QmpError } from '../qapi/error.ts';
import { ThrottleLimits } from '../qapi/schema/block-jobs.ts';
import { ROOT } from '../qapi/types.ts';
import type { UserObject } from './objects.ts';

type Limits = Readonly<Record<string, number>>;

/** Makes the group of an object `throttle-group`. Its limits may be changed while devices and filters keep to them. */
export function openThrottleGroup(graph: BlockGraph, object: UserObject): void {
  if (graph.throttleGroups.has(object.id)) throw new QmpError('A group with this name already exists');
  // The limits are given as one member, or as several: `x-bps-total`.
  const { spec } = object;
  const limits = spec['qom-type'] === 'throttle-group' ? spec.limits : undefined;
  const group = graph.throttleGroup(object.id);
  try {
    group.configure(merged({}, { ...spec, ...limits }));
  } catch (error) {
    graph.throttleGroups.delete(object.id);
    throw error;
  }
  object.defineProperty({
    name: 'limits',
    type: 'ThrottleLimits',
    get: () => limitsOf(group.config),
    set: value => group.configure(merged(limitsOf(group.config), { ...ThrottleLimits.read(value, ROOT) })),
  });
  for (const name of Object.keys(limitsOf(group.config))) {
    object.defineProperty({
      name: `x-${name}`,
      type: 'int',
      get: () => limitsOf(group.config)[name] ?? 0,
      set: () => {
        throw new QmpError('Property cannot be set after initialization');
      },
    });
  }
  object.inUse = () => group.members.size > 0;
  object.onDelete = () => void graph.throttleGroups.delete(object.id);
}

/** What `limits` shows: `bps-total`, `bps-total-max`, `bps-total-max-length`, ..., `iops-size`. */
function limitsOf({ buckets, iopsSize }: ThrottleConfig): Limits {
  const shown: Record<string, number> = {};
  for (const limit of LIMITS) {
    const { average, max, burstLength } = buckets[limit];
    shown[limit] = average;
    shown[`${limit}-max`] = max;
    shown[`${limit}-max-length`] = burstLength;
  }
  return { ...shown, 'iops-size': iopsSize };
}

/** @throws BlockError where the limits contradict each other */
function merged(before: Limits, changes: Readonly<Record<string, unknown>>): ThrottleConfig {
  const options = new BlockOptions();
  for (const [name, value] of [...Object.entries(before), ...Object.entries(changes)])
    if (typeof value === 'number' || typeof value === 'bigint') options.set(name.replace(/^x-/, ''), value);
  return takeLimits(options);
}
