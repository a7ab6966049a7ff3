import { blockInfos } from '../../commands/block.ts';
import { type HmpCommand, hmp } from '../command.ts';

interface JobInfo {
  readonly type: string;
  readonly device: string;
  readonly len: number;
  readonly offset: number;
  readonly speed: number;
}

/** Disks, jobs, snapshots. */
export const BLOCK_INFO: readonly HmpCommand[] = [
  hmp(
    'block',
    'nodes:-n,verbose:-v,device:B?',
    '[-n] [-v] [device]',
    'disks and what is in them',
    async ({ program }, args) => {
      const wanted = args.optional('device');
      const list = (await blockInfos(program)).filter(({ device }) => wanted === undefined || device === wanted);
      return list.map(diskReport).join('\n');
    },
  ),
  hmp('blockstats', '', '', 'show block device statistics', async context => {
    const list = (await context.qmp('query-blockstats')) as readonly {
      device?: string;
      stats: Readonly<Record<string, unknown>>;
    }[];
    return list
      .filter(({ device }) => device !== undefined)
      .map(
        ({ device, stats }) =>
          `${device}: rd_bytes=${stats['rd_bytes']} wr_bytes=${stats['wr_bytes']} rd_operations=${stats['rd_operations']} wr_operations=${stats['wr_operations']} flush_operations=${stats['flush_operations']}\n`,
      )
      .join('');
  }),
  hmp('block-jobs', '', '', 'jobs on disks', async context => {
    const jobs = (await context.qmp('query-block-jobs')) as readonly JobInfo[];
    if (jobs.length === 0) return 'No active jobs\n';
    return jobs
      .map(({ type, device, offset, len, speed }) =>
        type === 'stream'
          ? `Streaming device ${device}: Completed ${offset} of ${len} bytes, speed limit ${speed} bytes/s\n`
          : `Type ${type}, device ${device}: Completed ${offset} of ${len} bytes, speed limit ${speed} bytes/s\n`,
      )
      .join('');
  }),
  hmp('snapshots', '', '', 'machines saved in the disks', async ({ program }) =>
    (await import('../../migration/snapshots.ts')).listSnapshots(program),
  ),
];

type Disk = Awaited<ReturnType<typeof blockInfos>>[number];

function diskReport({ device, qdev, inserted, removable, locked, tray_open: tray, 'io-status': io }: Disk): string {
  const file =
    inserted === undefined
      ? '[not inserted]'
      : `${inserted.file} (${inserted.drv}${inserted.ro ? ', read-only' : ''}${inserted.encrypted ? ', encrypted' : ''})`;
  const node = inserted?.['node-name'] ?? '';
  const name = device === '' ? node || qdev : `${device}${node === '' ? '' : ` (${node})`}`;
  const lines = [`${name}: ${file}`];
  if (qdev !== undefined) lines.push(`    Attached to:      ${qdev}`);
  if (io !== undefined && io !== 'ok') lines.push(`    I/O status:       ${io}`);
  if (removable)
    lines.push(`    Removable device: ${locked ? '' : 'not '}locked, tray ${tray === true ? 'open' : 'closed'}`);
  if (inserted !== undefined) lines.push(...imageLines(inserted));
  return `${lines.join('\n')}\n`;
}

function imageLines(inserted: NonNullable<Disk['inserted']>): string[] {
  const { cache, backing_file: backing, backing_file_depth: depth, detect_zeroes: zeroes } = inserted;
  const mode = `${cache.writeback ? 'writeback' : 'writethrough'}${cache.direct ? ', direct' : ''}${cache['no-flush'] ? ', ignore flushes' : ''}`;
  return [
    `    Cache mode:       ${mode}`,
    ...(backing === undefined ? [] : [`    Backing file:     ${backing} (chain depth: ${depth})`]),
    ...(zeroes === 'off' ? [] : [`    Detect zeroes:    ${zeroes}`]),
  ];
}
