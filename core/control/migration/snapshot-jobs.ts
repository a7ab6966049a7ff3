import type { JobType } from '../../block/events.ts';
import type { BlockGraph } from '../../block/graph.ts';
import { Job } from '../../block/jobs/job.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';
import { load, namedDisks, remove, save } from './snapshots.ts';

/** One step that a job does as a whole: the machine stands still meanwhile. */
class SnapshotJob extends Job {
  override readonly type: JobType;
  override readonly isBlockJob = false;
  readonly #step: (job: Job) => Promise<void>;

  constructor(graph: BlockGraph, id: string, type: JobType, step: (job: Job) => Promise<void>) {
    // Clients fetch the result with query-jobs, and dismiss the job then.
    super(graph, { id, autoDismiss: false });
    this.type = type;
    this.#step = step;
  }

  protected override async work(): Promise<void> {
    this.total = 1;
    await this.#step(this);
    this.offset = 1;
  }
}

/** `snapshot-save`, `snapshot-load` and `snapshot-delete`: savevm and its kin with named disks, as jobs. */
export function snapshotCommands(program: Program): Handlers<QmpSession> {
  const begin = async (id: string, type: JobType, step: (job: Job) => Promise<void>): Promise<void> => {
    const { graph, jobs } = await program.blocks();
    jobs.checkId(id);
    jobs.add(new SnapshotJob(graph, id, type, step));
  };
  return {
    'snapshot-save': ({ 'job-id': id, tag, vmstate, devices }) =>
      begin(id, 'snapshot-save', async job => {
        const disks = await namedDisks(program, vmstate, devices);
        if (disks.nodes.some(node => node.snapshots.find(tag) !== undefined))
          throw new QmpError(`Snapshot '${tag}' already exists in one or more devices`);
        await save(program, tag, disks, job);
      }),
    'snapshot-load': ({ 'job-id': id, tag, vmstate, devices }) =>
      begin(id, 'snapshot-load', async job => load(program, tag, await namedDisks(program, vmstate, devices), job)),
    'snapshot-delete': ({ 'job-id': id, tag, devices }) =>
      begin(id, 'snapshot-delete', async () => remove(tag, await namedDisks(program, undefined, devices))),
  };
}
