import type { BlockOptions } from './options.ts';
import { type BucketConfig, LIMITS, type Limit, type ThrottleConfig } from './throttle.ts';

/** Takes the limits out of options: `bps-total`, `bps-total-max`, `bps-total-max-length`, ..., `iops-size`. */
export function takeLimits(options: BlockOptions, prefix = ''): ThrottleConfig {
  const bucket = (limit: Limit): BucketConfig => ({
    average: options.number(`${prefix}${limit}`) ?? 0,
    max: options.number(`${prefix}${limit}-max`) ?? 0,
    burstLength: options.number(`${prefix}${limit}-max-length`) ?? 1,
  });
  const [bpsTotal, bpsRead, bpsWrite, iopsTotal, iopsRead, iopsWrite] = LIMITS;
  return {
    buckets: {
      'bps-total': bucket(bpsTotal),
      'bps-read': bucket(bpsRead),
      'bps-write': bucket(bpsWrite),
      'iops-total': bucket(iopsTotal),
      'iops-read': bucket(iopsRead),
      'iops-write': bucket(iopsWrite),
    },
    iopsSize: options.number(`${prefix}iops-size`) ?? 0,
  };
}
