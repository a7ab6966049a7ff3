/** What requests are counted as. */
export const READ = 0;
export const WRITE = 1;
export const FLUSH = 2;
export const UNMAP = 3;

export type AccountKind = typeof READ | typeof WRITE | typeof FLUSH | typeof UNMAP;

const PREFIX = ['rd', 'wr', 'flush', 'unmap'] as const;

/** The statistics of a backend, as query-blockstats shows them. Times are milliseconds here and nanoseconds there. */
export class Accounting {
  readonly bytes = [0, 0, 0, 0];
  readonly operations = [0, 0, 0, 0];
  readonly failed = [0, 0, 0, 0];
  readonly invalid = [0, 0, 0, 0];
  readonly merged = [0, 0, 0, 0];
  readonly timeMs = [0, 0, 0, 0];
  lastAccessMs = 0;
  accountInvalid = true;
  accountFailed = true;

  done(kind: AccountKind, bytes: number, startedMs: number, nowMs: number): void {
    this.bytes[kind] = (this.bytes[kind] ?? 0) + bytes;
    this.operations[kind] = (this.operations[kind] ?? 0) + 1;
    this.timeMs[kind] = (this.timeMs[kind] ?? 0) + nowMs - startedMs;
    this.lastAccessMs = nowMs;
  }

  fail(kind: AccountKind, startedMs: number, nowMs: number): void {
    this.failed[kind] = (this.failed[kind] ?? 0) + 1;
    if (!this.accountFailed) return;
    this.timeMs[kind] = (this.timeMs[kind] ?? 0) + nowMs - startedMs;
    this.lastAccessMs = nowMs;
  }

  /** A request that was wrong in itself. */
  refuse(kind: AccountKind, nowMs: number): void {
    this.invalid[kind] = (this.invalid[kind] ?? 0) + 1;
    if (this.accountInvalid) this.lastAccessMs = nowMs;
  }

  /** The members of BlockDeviceStats. */
  report(nowMs: number, highestOffset: number): Record<string, number | boolean | readonly never[]> {
    const stats: Record<string, number | boolean | readonly never[]> = {};
    for (const [kind, prefix] of PREFIX.entries()) {
      if (prefix !== 'flush') {
        stats[`${prefix}_bytes`] = this.bytes[kind] ?? 0;
        stats[`${prefix}_merged`] = this.merged[kind] ?? 0;
      }
      stats[`${prefix}_operations`] = this.operations[kind] ?? 0;
      stats[`${prefix}_total_time_ns`] = Math.round((this.timeMs[kind] ?? 0) * 1e6);
      stats[`failed_${prefix}_operations`] = this.failed[kind] ?? 0;
      stats[`invalid_${prefix}_operations`] = this.invalid[kind] ?? 0;
    }
    stats['wr_highest_offset'] = highestOffset;
    if (this.lastAccessMs > 0) stats['idle_time_ns'] = Math.round((nowMs - this.lastAccessMs) * 1e6);
    stats['account_invalid'] = this.accountInvalid;
    stats['account_failed'] = this.accountFailed;
    stats['timed_stats'] = [];
    return stats;
  }
}
