import { checkNotBusy } from '../../block/busy.ts';
import { backingImage, between, bottomOf, canReplace, contains, overlayOf } from '../../block/chain.ts';
import type { DirtyBitmap } from '../../block/dirty-bitmap.ts';
import type { BlockGraph } from '../../block/graph.ts';
import { snapshotInfo } from '../../block/info.ts';
import { BlockError } from '../../block/io-error.ts';
import { BackupJob } from '../../block/jobs/backup.ts';
import { CommitJob, StreamJob, writeBackingName } from '../../block/jobs/chain.ts';
import type { Job } from '../../block/jobs/job.ts';
import { MirrorJob, type MirrorOptions } from '../../block/jobs/mirror.ts';
import { JobTransaction } from '../../block/jobs/transaction.ts';
import type { BlockNode } from '../../block/node.ts';
import { BlockOptions } from '../../block/options.ts';
import { start } from '../../block/pending.ts';
import { cumulative, perm } from '../../block/permissions.ts';
import { createImage } from '../../block/snapshot-overlay.ts';
import type { Program } from '../program.ts';
import type { Args, Value } from '../qapi/declare.ts';
import { deviceNotFound, QmpError } from '../qapi/error.ts';
import type { SnapshotInfo } from '../qapi/schema/block-info.ts';
import type * as schema from '../qapi/schema/block-jobs.ts';
import type { commands as transactionCommands } from '../qapi/schema/transaction.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';
import type { Blocks } from '../startup/blocks.ts';
import {
  addBitmap,
  bitmapHash,
  clearBitmap,
  type Done,
  enableBitmap,
  mergeBitmaps,
  removeBitmap,
  rootNode,
} from './block-bitmaps.ts';
import { imageWithSnapshots, internalSnapshot, snapshot, snapshotSync } from './block-snapshots.ts';

type Action = Args<(typeof transactionCommands)['transaction']>['actions'][number];

function optionalNode(graph: BlockGraph, name: string | undefined): BlockNode | undefined {
  return name === undefined ? undefined : graph.lookupPair(undefined, name);
}

function inChain(top: BlockNode, file: string): BlockNode {
  const found = backingImage(top, file);
  if (found === undefined) throw new QmpError(`Can't find '${file}' in the backing chain`);
  return found;
}

/** The node that a device uses, or that nothing but the monitor does. */
function usedDirectly(graph: BlockGraph, device: string): BlockNode {
  const node = rootNode(graph, device);
  for (const { parent } of node.parents) if (parent.asNode !== undefined) throw new QmpError('Need a root block node');
  return node;
}

function jobId(blocks: Blocks, given: string | undefined, node: BlockNode): string {
  const id = given ?? node.ownDeviceName;
  blocks.jobs.checkId(id);
  return id;
}

interface Common {
  readonly speed?: number | bigint | undefined;
  readonly 'auto-finalize'?: boolean | undefined;
  readonly 'auto-dismiss'?: boolean | undefined;
}

function jobOptions(id: string, args: Common) {
  const speed = Number(args.speed ?? 0);
  if (speed < 0) throw new QmpError("Parameter 'speed' expects a non-negative value");
  return { id, speed, autoFinalize: args['auto-finalize'] ?? true, autoDismiss: args['auto-dismiss'] ?? true };
}

/** Jobs, snapshots and dirty bitmaps, one by one and in transactions. */
export function blockJobCommands(program: Program): Handlers<QmpSession> {
  const jobs = async () => (await program.blocks()).jobs;
  const verb =
    (act: (job: Job) => void) =>
    async ({ id }: { readonly id: string }) =>
      act((await jobs()).get(id));
  const blockVerb =
    (act: (job: Job) => void) =>
    async ({ device }: { readonly device: string }) =>
      act((await jobs()).blockJob(device));
  return {
    'query-jobs': async () =>
      [...(await jobs())].map(job => ({
        id: job.id,
        type: job.type,
        status: job.status,
        'current-progress': job.offset,
        'total-progress': job.total,
        ...(job.error !== undefined && { error: job.error }),
      })),
    'query-block-jobs': async () =>
      [...(await jobs())]
        .filter(job => job.isBlockJob)
        .map(job => ({
          type: job.type,
          device: job.id,
          len: job.total,
          offset: job.offset,
          busy: job.busy,
          paused: job.paused,
          speed: job.speed,
          'io-status': job.ioStatus,
          ready: job.ready,
          status: job.status,
          'auto-finalize': job.autoFinalize,
          'auto-dismiss': job.autoDismiss,
          ...(job.error !== undefined && { error: job.error }),
        })),
    'job-pause': verb(job => job.pause()),
    'job-resume': verb(job => job.resume()),
    'job-cancel': verb(job => job.cancel(true)),
    'job-complete': verb(job => job.complete()),
    'job-finalize': verb(job => job.finalize()),
    'job-dismiss': verb(job => job.dismiss()),
    'block-job-pause': blockVerb(job => job.pause()),
    'block-job-resume': blockVerb(job => job.resume()),
    'block-job-cancel': async ({ device, force = false }) => {
      const job = (await jobs()).blockJob(device);
      if (job.paused && !force) {
        throw new QmpError(`The block job for device '${device}' is currently paused`);
      }
      job.cancel(force);
    },
    'block-job-complete': blockVerb(job => job.complete()),
    'block-job-dismiss': async ({ id }) => (await jobs()).blockJob(id).dismiss(),
    'block-job-finalize': async ({ id }) => (await jobs()).blockJob(id).finalize(),
    'block-job-set-speed': async ({ device, speed }) => (await jobs()).blockJob(device).setSpeed(Number(speed)),
    'block-commit': async args => blockCommit(await program.blocks(), args),
    'block-stream': async args => blockStream(await program.blocks(), args),
    'blockdev-mirror': async args => {
      const blocks = await program.blocks();
      await mirror(blocks, args, rootNode(blocks.graph, args.target));
    },
    'drive-mirror': async args => driveMirror(await program.blocks(), args),
    'blockdev-backup': async args => {
      const blocks = await program.blocks();
      await backup(blocks, args, rootNode(blocks.graph, args.target));
    },
    'drive-backup': async args => {
      await driveBackup(await program.blocks(), args);
    },
    'change-backing-file': async ({ device, 'image-node-name': name, 'backing-file': file }) => {
      const { graph } = await program.blocks();
      usedDirectly(graph, device);
      const node = graph.lookupPair(undefined, name);
      checkNotBusy(node);
      if (node.backing === undefined)
        throw new QmpError('not allowing backing file change on an image without a backing file');
      await writeBackingName(node, file, node.backing.driver.name);
    },
    'blockdev-snapshot': async args => {
      await (await snapshot((await program.blocks()).graph, args)).settle?.();
    },
    'blockdev-snapshot-sync': async args => {
      await (await snapshotSync((await program.blocks()).graph, args)).settle?.();
    },
    'blockdev-snapshot-internal-sync': async args => {
      await internalSnapshot((await program.blocks()).graph, args);
    },
    'blockdev-snapshot-delete-internal-sync': async ({ device, id, name }) => {
      if (id === undefined && name === undefined) throw new QmpError('Name or id must be provided');
      const node = imageWithSnapshots((await program.blocks()).graph, device);
      const found = node.snapshots.list.find(
        one => (id === undefined || one.id === id) && (name === undefined || one.name === name),
      );
      if (found === undefined) {
        throw new QmpError(
          `Snapshot with id '${id ?? 'null'}' and name '${name ?? 'null'}' does not exist on device '${device}'`,
        );
      }
      await node.graph.drained(() => start(node.exclusively(node.snapshots.remove(found))));
      return snapshotInfo(found) as Value<typeof SnapshotInfo>;
    },
    'block-dirty-bitmap-add': async args => {
      addBitmap((await program.blocks()).graph, args);
    },
    'block-dirty-bitmap-remove': async args => {
      await removeBitmap((await program.blocks()).graph, args);
    },
    'block-dirty-bitmap-clear': async args => {
      clearBitmap((await program.blocks()).graph, args);
    },
    'block-dirty-bitmap-enable': async args => {
      enableBitmap((await program.blocks()).graph, args, true);
    },
    'block-dirty-bitmap-disable': async args => {
      enableBitmap((await program.blocks()).graph, args, false);
    },
    'x-debug-block-dirty-bitmap-sha256': async ({ node, name }) => ({
      sha256: bitmapHash((await program.blocks()).graph, node, name),
    }),
    'block-dirty-bitmap-merge': async args => {
      mergeBitmaps((await program.blocks()).graph, args);
    },
    transaction: async ({ actions, properties }) => {
      const blocks = await program.blocks();
      const done: Done[] = [];
      const jobs = properties?.['completion-mode'] === 'grouped' ? new JobTransaction() : undefined;
      try {
        for (const action of actions) done.push(await perform(blocks, action, jobs));
        jobs?.seal();
      } catch (error) {
        for (const one of done.reverse()) await one.undo();
        throw error;
      }
      for (const one of done) await one.settle?.();
    },
  };
}

/** @param jobs where the jobs of the transaction count together or not at all */
async function perform(blocks: Blocks, action: Action, jobs: JobTransaction | undefined): Promise<Done> {
  const { graph } = blocks;
  if (jobs !== undefined && !['abort', 'blockdev-backup', 'drive-backup'].includes(action.type)) {
    throw new QmpError(`Action '${action.type}' does not support Transaction property completion-mode = grouped`);
  }
  switch (action.type) {
    case 'abort':
      throw new QmpError('Transaction aborted using Abort action');
    case 'blockdev-snapshot':
      return snapshot(graph, action.data);
    case 'blockdev-snapshot-sync':
      return snapshotSync(graph, action.data);
    case 'blockdev-snapshot-internal-sync':
      return internalSnapshot(graph, action.data);
    case 'blockdev-backup':
      return cancelling(await backup(blocks, action.data, rootNode(graph, action.data.target), jobs));
    case 'drive-backup':
      return cancelling(await driveBackup(blocks, action.data, jobs));
    case 'block-dirty-bitmap-add':
      return addBitmap(graph, action.data);
    case 'block-dirty-bitmap-remove':
      return removeBitmap(graph, action.data);
    case 'block-dirty-bitmap-clear':
      return clearBitmap(graph, action.data);
    case 'block-dirty-bitmap-enable':
      return enableBitmap(graph, action.data, true);
    case 'block-dirty-bitmap-disable':
      return enableBitmap(graph, action.data, false);
    case 'block-dirty-bitmap-merge':
      return mergeBitmaps(graph, action.data);
  }
}

function cancelling(job: Job): Done {
  return {
    async undo() {
      job.cancel(true);
      await job.finished;
    },
  };
}

// Jobs

async function blockCommit(blocks: Blocks, args: Args<(typeof schema.commands)['block-commit']>): Promise<void> {
  const { graph, jobs } = blocks;
  const active = commitDevice(graph, args.device);
  checkNotBusy(active);
  if (args.top !== undefined && args['top-node'] !== undefined)
    throw new QmpError("'top-node' and 'top' are mutually exclusive");
  const topNode = optionalNode(graph, args['top-node']);
  if (topNode !== undefined && !contains(active, topNode))
    throw new QmpError(`'${args['top-node']}' is not in this backing file chain`);
  const isActive = args.top === undefined || args.top === active.filename;
  const top = topNode ?? (isActive ? active : backingImage(active, args.top ?? ''));
  if (top === undefined) throw new QmpError(`Top image file ${args.top} not found`);
  if (args.base !== undefined && args['base-node'] !== undefined)
    throw new QmpError("'base-node' and 'base' are mutually exclusive");
  const baseNode = optionalNode(graph, args['base-node']);
  if (baseNode !== undefined && !contains(top, baseNode))
    throw new QmpError(`'${args['base-node']}' is not in this backing file chain`);
  const base = baseNode ?? (args.base === undefined ? bottomOf(top) : inChain(top, args.base));
  for (const node of [...between(top, base), base]) checkNotBusy(node);
  if (top === base) throw new QmpError('cannot commit an image into itself');
  const options = jobOptions(jobId(blocks, args['job-id'], active), args);
  const onError = args['on-error'] ?? 'report';
  const filterNodeName = args['filter-node-name'];
  const isTop = top.withoutFilters === active.withoutFilters;
  if (isTop || (cumulative(top).perm & perm.WRITE) !== 0) {
    if (args['backing-file'] !== undefined) {
      throw new QmpError(`'backing-file' specified, but 'top' ${isTop ? 'is the active layer' : 'has a writer on it'}`);
    }
    const job = new MirrorJob(graph, {
      ...options,
      source: top,
      target: base,
      sync: 'full',
      activeCommit: true,
      filterNodeName,
      onSourceError: onError,
      onTargetError: onError,
    });
    jobs.add(await job.setup());
    return;
  }
  const overlay = overlayOf(active, top);
  if (overlay === undefined) throw new QmpError(`'${args.device}' is not in this backing file chain`);
  checkNotBusy(overlay);
  const backingFile = args['backing-file'];
  const job = new CommitJob(graph, { ...options, active, top, base, backingFile, filterNodeName, onError });
  jobs.add(await job.setup());
}

/** libvirt finds out by the class of the error whether there is the command at all. */
function commitDevice(graph: BlockGraph, device: string): BlockNode {
  try {
    return usedDirectly(graph, device);
  } catch (error) {
    if (error instanceof BlockError && error.code === 'ERR_BLOCK_NOT_FOUND') throw deviceNotFound(device);
    throw error;
  }
}

async function blockStream(blocks: Blocks, args: Args<(typeof schema.commands)['block-stream']>): Promise<void> {
  const { graph, jobs } = blocks;
  if (args.base !== undefined && args['base-node'] !== undefined)
    throw new QmpError("'base' and 'base-node' cannot be specified at the same time");
  for (const one of ['base', 'base-node'] as const) {
    if (args.bottom === undefined || args[one] === undefined) continue;
    const names = one === 'base' ? "'base' and 'bottom'" : "'bottom' and 'base-node'";
    throw new QmpError(`${names} cannot be specified at the same time`);
  }
  const top = rootNode(graph, args.device);
  const baseNode = optionalNode(graph, args['base-node']);
  if (baseNode !== undefined && (baseNode === top || !contains(top, baseNode)))
    throw new QmpError(`Node '${args['base-node']}' is not a backing image of '${args.device}'`);
  const bottom = optionalNode(graph, args.bottom);
  if (bottom?.driver.kind === 'filter')
    throw new QmpError(`Node '${args.bottom}' is a filter, use a non-filter node as 'bottom'`);
  if (bottom !== undefined && !contains(top, bottom))
    throw new QmpError(`Node '${args.bottom}' is not in a chain starting from '${args.device}'`);
  const base = baseNode ?? (args.base === undefined ? bottom?.backing : inChain(top, args.base));
  for (const node of between(top, base)) checkNotBusy(node);
  if (base === undefined && args['backing-file'] !== undefined)
    throw new QmpError('backing file specified, but streaming the entire chain');
  const options = jobOptions(jobId(blocks, args['job-id'], top), args);
  const job = new StreamJob(graph, {
    ...options,
    top,
    base,
    backingFile: args['backing-file'],
    filterNodeName: args['filter-node-name'],
    onError: args['on-error'] ?? 'report',
  });
  jobs.add(await job.setup());
}

type MirrorArgs = Omit<Args<(typeof schema.commands)['blockdev-mirror']>, 'target'>;

/** A target that was opened for the mirror, without what backs it. */
type OpenedTarget = Pick<MirrorOptions, 'emptyTarget' | 'targetBacking'>;

async function mirror(blocks: Blocks, args: MirrorArgs, target: BlockNode, opened: OpenedTarget = {}): Promise<void> {
  const { graph, jobs } = blocks;
  const source = usedDirectly(graph, args.device);
  const { sync } = args;
  if (sync === 'incremental' || sync === 'bitmap') throw new QmpError(`Sync mode '${sync}' not supported`);
  const { replaces: replaced } = args;
  const replaces = replaced === undefined ? undefined : graph.node(replaced);
  if (replaced !== undefined && replaces === undefined)
    throw new QmpError(`Failed to find node with node-name='${replaced}'`);
  if (replaces !== undefined) {
    checkNotBusy(replaces);
    if (!canReplace(source, replaces)) {
      throw new QmpError(
        `Cannot replace '${replaced}' by a node mirrored from '${source.nodeName}', because it cannot be guaranteed that doing so would not lead to an abrupt change of visible data`,
      );
    }
    if (replaces.length !== source.length)
      throw new QmpError('cannot replace image with a mirror image of different size');
  }
  checkNotBusy(source);
  checkNotBusy(target);
  if (Number(args['buf-size'] ?? 0) < 0) throw new QmpError("Invalid parameter 'buf-size'");
  const options = jobOptions(jobId(blocks, args['job-id'], source), args);
  const job = new MirrorJob(graph, {
    ...options,
    source,
    target,
    sync,
    ...opened,
    replaces: replaces ?? (source.withoutImplicit === source ? undefined : source.withoutImplicit),
    filterNodeName: args['filter-node-name'],
    granularity: args.granularity,
    bufferSize: Number(args['buf-size'] ?? 0),
    writeBlocking: args['copy-mode'] === 'write-blocking',
    onSourceError: args['on-source-error'],
    onTargetError: args['on-target-error'],
  });
  jobs.add(await job.setup());
}

/** What backs a new image that does not get all of its source. */
function backingOfCopy(source: BlockNode, sync: string): BlockNode | undefined {
  return sync === 'none' ? source : sync === 'top' ? source.withoutFilters.backing : undefined;
}

/** A new or existing image file to copy `source` into. */
async function targetImage(
  graph: BlockGraph,
  source: BlockNode,
  wanted: {
    readonly target: string;
    readonly format?: string;
    readonly mode?: 'existing' | 'absolute-paths';
    readonly nodeName?: string;
    /** What the image says backs it is opened with it. */
    readonly withBacking: boolean;
  },
  backing: BlockNode | undefined,
): Promise<BlockNode> {
  const format = wanted.format ?? (wanted.mode === 'existing' ? undefined : source.driver.name);
  if (format !== undefined && ![...graph.drivers()].some(({ name }) => name === format))
    throw new QmpError(`Unknown file format '${format}'`);
  if (wanted.mode !== 'existing') {
    await createImage(
      graph,
      wanted.target,
      format ?? 'raw',
      source.length,
      backing === undefined ? undefined : { file: backing.filename, format: backing.withoutFilters.driver.name },
    );
  }
  const options = new BlockOptions();
  if (!wanted.withBacking) options.set('backing', null);
  if (format !== undefined) options.set('driver', format);
  if (wanted.nodeName !== undefined) options.set('node-name', wanted.nodeName);
  return graph.openTree(wanted.target, options, { discard: source.settings.discard }, false);
}

async function driveMirror(blocks: Blocks, args: Args<(typeof schema.commands)['drive-mirror']>): Promise<void> {
  const { graph } = blocks;
  const source = rootNode(graph, args.device);
  const { target: file, format, mode, 'node-name': nodeName, ...rest } = args;
  if (args.replaces !== undefined && nodeName === undefined)
    throw new QmpError('a node-name must be provided when replacing a named node of the graph');
  const backing = backingOfCopy(source, args.sync);
  const target = await targetImage(
    graph,
    source,
    {
      target: file,
      withBacking: false,
      ...(format !== undefined && { format }),
      ...(mode !== undefined && { mode }),
      ...(nodeName !== undefined && { nodeName }),
    },
    backing,
  );
  try {
    const opened: OpenedTarget =
      mode === 'existing' ? { targetBacking: 'its own' } : { emptyTarget: true, targetBacking: backing };
    await mirror(blocks, rest, target, opened);
  } catch (error) {
    await graph.released(target);
    throw error;
  }
}

type BackupArgs = Omit<Value<typeof schema.BlockdevBackup>, 'target'>;

/** The bitmap that says what is to be copied, or that is to be brought up to date by a copy. */
function backupBitmap(source: BlockNode, args: BackupArgs): DirtyBitmap | undefined {
  const { sync, bitmap: name, 'bitmap-mode': mode } = args;
  if ((sync === 'incremental' || sync === 'bitmap') && name === undefined)
    throw new QmpError(`must provide a valid bitmap name for '${sync}' sync mode`);
  if (sync === 'incremental' && mode !== undefined && mode !== 'on-success')
    throw new QmpError(`Bitmap sync mode must be 'on-success' when using sync mode '${sync}'`);
  if (name === undefined) {
    if (mode !== undefined) throw new QmpError('Cannot specify bitmap sync mode without a bitmap');
    return undefined;
  }
  const bitmap = source.dirtyBitmaps.named(name);
  if (bitmap === undefined) throw new QmpError(`Bitmap '${name}' could not be found`);
  if (mode === undefined && sync !== 'incremental')
    throw new QmpError('Bitmap sync mode must be given when providing a bitmap');
  bitmap.checkUsable({ readonly: true });
  if (sync === 'none') throw new QmpError(`sync mode '${sync}' does not produce meaningful bitmap outputs`);
  if (mode === 'never' && sync !== 'bitmap') {
    throw new QmpError(`Bitmap sync mode '${mode}' has no meaningful effect when combined with sync mode '${sync}'`);
  }
  return bitmap;
}

async function backup(blocks: Blocks, args: BackupArgs, target: BlockNode, transaction?: JobTransaction): Promise<Job> {
  const { graph, jobs } = blocks;
  const source = rootNode(graph, args.device);
  const bitmap = backupBitmap(source, args);
  if (source !== target) for (const node of [source, target]) checkNotBusy(node);
  const job = new BackupJob(graph, {
    ...jobOptions(jobId(blocks, args['job-id'], source), args),
    transaction,
    source,
    target,
    sync: args.sync,
    bitmap,
    bitmapMode: args.sync === 'incremental' ? 'on-success' : args['bitmap-mode'],
    compress: args.compress,
    filterNodeName: args['filter-node-name'],
    onSourceError: args['on-source-error'],
    onTargetError: args['on-target-error'],
  });
  return jobs.add(await job.setup());
}

async function driveBackup(
  blocks: Blocks,
  args: Value<typeof schema.DriveBackup>,
  transaction?: JobTransaction,
): Promise<Job> {
  const { graph } = blocks;
  const source = rootNode(graph, args.device);
  const { target: file, format, mode, ...rest } = args;
  const backing = backingOfCopy(source, args.sync);
  const target = await targetImage(
    graph,
    source,
    {
      target: file,
      withBacking: args.sync !== 'none',
      ...(format !== undefined && { format }),
      ...(mode !== undefined && { mode }),
    },
    backing,
  );
  try {
    // With nothing copied but what is overwritten, the rest is read from the source itself.
    if (args.sync === 'none' && target.driver.supportsBacking === true) target.attach('backing', source);
    return await backup(blocks, rest, target, transaction);
  } catch (error) {
    await graph.released(target);
    throw error;
  }
}
