import { performance } from 'node:perf_hooks';
import { BlockError } from './io-error.ts';

/** The limits: bytes or requests a second, in all or one way only. */
export const LIMITS = ['bps-total', 'bps-read', 'bps-write', 'iops-total', 'iops-read', 'iops-write'] as const;

export type Limit = (typeof LIMITS)[number];

/** One limit: a bucket that leaks `average` units a second. */
export interface BucketConfig {
  /** 0 for no limit. */
  readonly average: number;
  /** The rate that bursts may reach; 0 where there are none. */
  readonly max: number;
  /** How long a burst may last, in seconds. */
  readonly burstLength: number;
}

export interface ThrottleConfig {
  readonly buckets: { readonly [L in Limit]: BucketConfig };
  /** Requests count as several where they are longer than this, in bytes; 0 for never. */
  readonly iopsSize: number;
}

const UNLIMITED: BucketConfig = { average: 0, max: 0, burstLength: 1 };

export const NO_LIMITS: ThrottleConfig = {
  buckets: {
    'bps-total': UNLIMITED,
    'bps-read': UNLIMITED,
    'bps-write': UNLIMITED,
    'iops-total': UNLIMITED,
    'iops-read': UNLIMITED,
    'iops-write': UNLIMITED,
  },
  iopsSize: 0,
};

/** QEMU's own bound on all of the values. */
const VALUE_MAX = 1e15;

export function limitsAnything(config: ThrottleConfig): boolean {
  return LIMITS.some(limit => config.buckets[limit].average > 0);
}

/** @throws BlockError in QEMU's words where the limits contradict each other */
export function checkThrottle(config: ThrottleConfig): void {
  const { buckets } = config;
  for (const unit of ['bps', 'iops'] as const) {
    const total = buckets[`${unit}-total`];
    const one = [buckets[`${unit}-read`], buckets[`${unit}-write`]];
    if (total.average > 0 && one.some(bucket => bucket.average > 0)) {
      throw new BlockError('bps/iops/max total values and read/write values cannot be used at the same time');
    }
    if (total.max > 0 && one.some(bucket => bucket.max > 0)) {
      throw new BlockError('bps/iops/max total values and read/write values cannot be used at the same time');
    }
  }
  if (
    config.iopsSize > 0 &&
    !['iops-total', 'iops-read', 'iops-write'].some(limit => isLimit(limit) && buckets[limit].average > 0)
  ) {
    throw new BlockError('iops size requires an iops value to be set');
  }
  for (const limit of LIMITS) {
    const { average, max, burstLength } = buckets[limit];
    if (average < 0 || max < 0 || average > VALUE_MAX || max > VALUE_MAX) {
      throw new BlockError(`bps/iops/max values must be within [0, ${VALUE_MAX}]`);
    }
    if (burstLength < 1) throw new BlockError('the burst length cannot be 0');
    if (burstLength > 1 && max === 0) throw new BlockError('burst length set without burst rate');
    if (burstLength > 1 && max > VALUE_MAX / burstLength)
      throw new BlockError('burst length too high for this burst rate');
    if (max > 0 && average === 0) throw new BlockError('bps_max/iops_max require corresponding bps/iops values');
    if (max > 0 && max < average) throw new BlockError('bps_max/iops_max cannot be lower than bps/iops');
  }
}

function isLimit(name: string): name is Limit {
  return LIMITS.some(limit => limit === name);
}

class Bucket {
  readonly config: BucketConfig;
  #level = 0;
  #burstLevel = 0;

  constructor(config: BucketConfig) {
    this.config = config;
  }

  leak(seconds: number): void {
    this.#level = Math.max(0, this.#level - this.config.average * seconds);
    if (this.config.burstLength > 1) this.#burstLevel = Math.max(0, this.#burstLevel - this.config.max * seconds);
  }

  /** Seconds until the bucket has room again. */
  wait(): number {
    const { average, max, burstLength } = this.config;
    if (average === 0) return 0;
    // Without bursts a tenth of a second's worth may come at once.
    const over = this.#level - (max === 0 ? average / 10 : max * burstLength);
    if (over > 0) return over / average;
    if (burstLength > 1) {
      const overBurst = this.#burstLevel - max / 10;
      if (overBurst > 0) return overBurst / max;
    }
    return 0;
  }

  add(units: number): void {
    this.#level += units;
    if (this.config.burstLength > 1) this.#burstLevel += units;
  }
}

/** How time passes for the limits: the host's, or a test's. */
export interface ThrottleClock {
  nowMs(): number;
  after(ms: number, callback: () => void): void;
}

const hostClock: ThrottleClock = {
  nowMs: () => performance.now(),
  after: (ms, callback) => {
    setTimeout(callback, ms);
  },
};

/** A request that is held back. */
interface Waiting {
  readonly resume: () => void;
  readonly bytes: number;
  readonly underWay: boolean;
}

/** Limits that one or more backends share; requests beyond them wait in the order of their arrival. */
export class ThrottleGroup {
  readonly name: string;
  readonly members = new Set<object>();
  readonly #clock: ThrottleClock;
  #config: ThrottleConfig = NO_LIMITS;
  #buckets: { [L in Limit]: Bucket };
  #leakedMs: number;
  readonly #queues: { readonly [W in 'read' | 'write']: { queue: Waiting[]; armed: boolean } } = {
    read: { queue: [], armed: false },
    write: { queue: [], armed: false },
  };
  #lifted = 0;

  constructor(name: string, clock: ThrottleClock | undefined = hostClock) {
    this.name = name;
    this.#clock = clock;
    this.#buckets = bucketsOf(NO_LIMITS);
    this.#leakedMs = clock.nowMs();
  }

  get config(): ThrottleConfig {
    return this.#config;
  }

  /** @throws BlockError where the limits contradict each other */
  configure(config: ThrottleConfig): void {
    checkThrottle(config);
    this.#config = config;
    this.#buckets = bucketsOf(config);
    this.#leakedMs = this.#clock.nowMs();
    this.#dispatch('read');
    this.#dispatch('write');
  }

  join(member: object): void {
    this.members.add(member);
  }

  leave(member: object): void {
    this.members.delete(member);
  }

  /** Somebody waits for what is under way to end: limits do not hold it up until {@link lower}. */
  lift(): void {
    this.#lifted++;
    for (const way of ['read', 'write'] as const) {
      const state = this.#queues[way];
      const passing = state.queue.filter(({ underWay }) => underWay);
      state.queue = state.queue.filter(({ underWay }) => !underWay);
      for (const { bytes, resume } of passing) {
        this.#account(way, bytes);
        resume();
      }
    }
  }

  lower(): void {
    this.#lifted--;
  }

  /**
   * Waits for a request's turn; undefined where it may begin at once. `underWay`: it was begun above, so that others may have to
   * wait for its end.
   */
  admit(_member: object, way: 'read' | 'write', bytes: number, underWay = false): Promise<void> | undefined {
    const { queue } = this.#queues[way];
    if ((underWay && this.#lifted > 0) || (queue.length === 0 && this.#wait(way) === 0)) {
      this.#account(way, bytes);
      return undefined;
    }
    const turn = new Promise<void>(resume => {
      queue.push({ resume, bytes, underWay });
    });
    this.#arm(way);
    return turn;
  }

  #dispatch(way: 'read' | 'write'): void {
    const { queue } = this.#queues[way];
    while (this.#wait(way) === 0) {
      const next = queue.shift();
      if (next === undefined) return;
      this.#account(way, next.bytes);
      next.resume();
    }
    if (queue.length > 0) this.#arm(way);
  }

  #arm(way: 'read' | 'write'): void {
    const state = this.#queues[way];
    if (state.armed) return;
    state.armed = true;
    this.#clock.after(Math.max(1, Math.ceil(this.#wait(way) * 1000)), () => {
      state.armed = false;
      this.#dispatch(way);
    });
  }

  #wait(way: 'read' | 'write'): number {
    const now = this.#clock.nowMs();
    const seconds = Math.max(0, now - this.#leakedMs) / 1000;
    this.#leakedMs = now;
    for (const limit of LIMITS) this.#buckets[limit].leak(seconds);
    const own = way === 'read' ? (['bps-read', 'iops-read'] as const) : (['bps-write', 'iops-write'] as const);
    let longest = Math.max(this.#buckets['bps-total'].wait(), this.#buckets['iops-total'].wait());
    for (const limit of own) longest = Math.max(longest, this.#buckets[limit].wait());
    return longest;
  }

  #account(way: 'read' | 'write', bytes: number): void {
    const { iopsSize } = this.#config;
    const requests = iopsSize > 0 && bytes > iopsSize ? bytes / iopsSize : 1;
    this.#buckets['bps-total'].add(bytes);
    this.#buckets['iops-total'].add(requests);
    this.#buckets[`bps-${way}`].add(bytes);
    this.#buckets[`iops-${way}`].add(requests);
  }
}

function bucketsOf(config: ThrottleConfig): { [L in Limit]: Bucket } {
  const { buckets } = config;
  return {
    'bps-total': new Bucket(buckets['bps-total']),
    'bps-read': new Bucket(buckets['bps-read']),
    'bps-write': new Bucket(buckets['bps-write']),
    'iops-total': new Bucket(buckets['iops-total']),
    'iops-read': new Bucket(buckets['iops-read']),
    'iops-write': new Bucket(buckets['iops-write']),
  };
}
