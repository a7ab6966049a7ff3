import fs from 'node:fs';
import t from 'tap';
import { BlockBackend } from '../../../core/block/backend.ts';
import { DirtyBitmap } from '../../../core/block/dirty-bitmap.ts';
import type { BlockGraph } from '../../../core/block/graph.ts';
import { IoVector } from '../../../core/block/io-vector.ts';
import { BackupJob } from '../../../core/block/jobs/backup.ts';
import { CommitJob, StreamJob } from '../../../core/block/jobs/chain.ts';
import { Jobs } from '../../../core/block/jobs/job.ts';
import { MirrorJob } from '../../../core/block/jobs/mirror.ts';
import type { BlockNode } from '../../../core/block/node.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { installOverlay, openOverlay } from '../../../core/block/snapshot-overlay.ts';
import { NO_LIMITS } from '../../../core/block/throttle.ts';
import { until } from '../../until.ts';
import { imageFolder, noQemuImg, openQcow2, qemuCheck, qemuImg, quietGraph } from './images.ts';

const folder = imageFolder();
t.teardown(() => folder.remove());

const SIZE = 4 << 20;

function watch(graph: BlockGraph): string[] {
  const seen: string[] = [];
  graph.onEvent(event => {
    seen.push(event.event === 'JOB_STATUS_CHANGE' ? event.status : event.event);
  });
  return seen;
}

/** A guest with an image of its own, that writes when told to. */
async function guest(graph: BlockGraph, node: BlockNode) {
  const backend = new BlockBackend(graph);
  graph.nameBackend(backend, 'vda');
  backend.name = 'vda';
  backend.insert(node);
  backend.attachDevice({ id: 'vda-device', removable: false }, { writable: true });
  const model = Buffer.alloc(SIZE);
  return {
    backend,
    model,
    async write(offset: number, bytes: number, value: number): Promise<void> {
      model.fill(value, offset, offset + bytes);
      if ((await backend.writev(offset, IoVector.of(Buffer.alloc(bytes, value)))) !== 0)
        throw new Error('the write failed');
    },
    async content(): Promise<Buffer> {
      const bytes = Buffer.alloc(SIZE);
      await backend.readv(0, IoVector.of(bytes));
      return bytes;
    },
  };
}

function create(name: string, ...more: string[]): string {
  const file = folder.file(name);
  qemuImg('create', '-q', '-f', 'qcow2', ...more, file, String(SIZE));
  return file;
}

t.test('mirror follows the guest and takes the place of its image', { skip: noQemuImg }, async t => {
  const { graph } = quietGraph();
  const source = await openQcow2(graph, create('m1.qcow2'));
  const vm = await guest(graph, source);
  for (let at = 0; at < SIZE; at += 300_000) await vm.write(at, 100_000, 1 + (at % 200));
  const target = await openQcow2(graph, create('m2.qcow2'));
  const events = watch(graph);
  const jobs = new Jobs(graph);
  const job = jobs.add(
    await new MirrorJob(graph, { id: 'copy', source, target, sync: 'full', autoDismiss: false }).setup(),
  );
  t.throws(() => jobs.checkId('copy'), { message: "Job ID 'copy' already in use" });
  for (let turn = 0; turn < 20; turn++) {
    await vm.write(turn * 50_000, 5000, 200 + turn);
    await new Promise(resolve => setImmediate(resolve));
  }
  await until(() => job.ready);
  await vm.write(777_216, 512, 9);
  job.complete();
  await job.finished;
  t.ok(vm.backend.root === target);
  t.same(await vm.content(), vm.model, 'nothing was lost on the way');
  t.same(events, [
    'created',
    'running',
    'ready',
    'BLOCK_JOB_READY',
    'waiting',
    'pending',
    'BLOCK_JOB_COMPLETED',
    'concluded',
  ]);
  job.dismiss();
  t.throws(() => jobs.get('copy'), { message: 'Job not found' });
  t.ok(source.closed, 'the old image is let go');
  await graph.close();
  t.equal(qemuCheck(folder.file('m2.qcow2')).status, 0);
});

t.test('write-blocking: the target has what the guest wrote before the guest goes on', { skip: noQemuImg }, async t => {
  const { graph } = quietGraph();
  const source = await openQcow2(graph, create('w0.qcow2'));
  const vm = await guest(graph, source);
  await vm.write(0, SIZE, 1);
  const target = await openQcow2(graph, create('w1.qcow2'));
  const jobs = new Jobs(graph);
  // So slow that it never gets anywhere by itself.
  const job = jobs.add(
    await new MirrorJob(graph, { id: 'm', source, target, sync: 'full', writeBlocking: true, speed: 1024 }).setup(),
  );
  const copied = async (offset: number, bytes: number): Promise<boolean> => {
    const there = Buffer.alloc(bytes);
    await target.readv(offset, bytes, IoVector.of(there));
    return there.equals(vm.model.subarray(offset, offset + bytes));
  };
  for (let round = 0; round < 20; round++) {
    const offset = 2 ** 21 + ((round * 77_777) % 2 ** 20);
    await vm.write(offset, 5000, round + 2);
    t.ok(await copied(offset, 5000), `round ${round}`);
  }
  vm.model.fill(0, 2 ** 20, 2 ** 20 + 65536);
  t.equal(await vm.backend.writeZeroes(2 ** 20, 65536), 0);
  t.ok(await copied(2 ** 20, 65536));
  job.setSpeed(0);
  // Writes race with the copying of what there was before.
  while (!job.ready) {
    await Promise.all([vm.write(100_000, 70_000, 90), vm.write(3_000_000, 300_000, 91)]);
    await new Promise(resolve => setImmediate(resolve));
  }
  job.complete();
  await job.finished;
  t.equal(source.follower, undefined);
  t.same(await vm.content(), vm.model, 'the guest is on the target now');
  await graph.close();
  t.equal(qemuCheck(folder.file('w1.qcow2')).status, 0);
});

t.test('snapshots over an image, committed into each other and streamed', { skip: noQemuImg }, async t => {
  const { graph } = quietGraph();
  const base = await openQcow2(graph, create('c0.qcow2'));
  const vm = await guest(graph, base);
  await vm.write(0, 1 << 20, 1);
  const over = async (node: BlockNode, name: string): Promise<BlockNode> => {
    const overlay = await openOverlay(graph, node, {
      filename: folder.file(name),
      format: 'qcow2',
      mode: 'absolute-paths',
    });
    await (await installOverlay(graph, node, overlay)).settle();
    return overlay;
  };
  const one = await over(base, 'c1.qcow2');
  t.equal(base.readOnly, true, 'what backs an image is not written to');
  await vm.write(500_000, 1 << 20, 2);
  const two = await over(one, 'c2.qcow2');
  await vm.write(1 << 20, 300_000, 3);
  const three = await over(two, 'c3.qcow2');
  await vm.write(2 << 20, 70_000, 4);
  const jobs = new Jobs(graph);
  // The two in the middle go down into the base.
  const commit = jobs.add(await new CommitJob(graph, { id: 'down', active: three, top: two, base }).setup());
  await vm.write(2_200_000, 70_000, 5);
  await commit.finished;
  t.equal(commit.error, undefined);
  t.ok(three.backing === base);
  t.ok(one.closed && two.closed);
  t.same(await vm.content(), vm.model);
  t.equal(
    JSON.parse(qemuImg('info', '-U', '--output=json', folder.file('c3.qcow2')))['backing-filename'],
    folder.file('c0.qcow2'),
  );
  // All that backs the image comes up into it.
  const stream = jobs.add(await new StreamJob(graph, { id: 'up', top: three, base: undefined }).setup());
  await vm.write(3 << 20, 70_000, 6);
  await stream.finished;
  t.equal(stream.error, undefined);
  t.ok(three.backing === undefined);
  t.same(await vm.content(), vm.model);
  await graph.close();
  t.equal(qemuCheck(folder.file('c3.qcow2')).status, 0);
  t.equal(qemuCheck(folder.file('c0.qcow2')).status, 0);
  const raw = folder.file('c3.raw');
  qemuImg('convert', '-O', 'raw', folder.file('c3.qcow2'), raw);
  t.same(fs.readFileSync(raw), vm.model);
});

t.test('the active image is committed and given up', { skip: noQemuImg }, async t => {
  const { graph } = quietGraph();
  const base = await openQcow2(graph, create('a0.qcow2'));
  const vm = await guest(graph, base);
  await vm.write(0, 100_000, 1);
  const top = await openOverlay(graph, base, {
    filename: folder.file('a1.qcow2'),
    format: 'qcow2',
    mode: 'absolute-paths',
  });
  await (await installOverlay(graph, base, top)).settle();
  await vm.write(50_000, 100_000, 2);
  const job = new Jobs(graph).add(
    await new MirrorJob(graph, { id: 'commit', source: top, target: base, sync: 'full', activeCommit: true }).setup(),
  );
  await until(() => job.ready);
  await vm.write(90_000, 1000, 3);
  job.complete();
  await job.finished;
  t.equal(job.error, undefined);
  t.ok(vm.backend.root === base);
  t.same(await vm.content(), vm.model);
  await vm.write(0, 512, 4);
  await graph.close();
  t.equal(qemuCheck(folder.file('a0.qcow2')).status, 0);
});

t.test(
  'a backup is of the moment when it began; an incremental one of what was written since',
  { skip: noQemuImg },
  async t => {
    const { graph } = quietGraph();
    const source = await openQcow2(graph, create('b0.qcow2'));
    const vm = await guest(graph, source);
    for (let at = 0; at < SIZE; at += 131072) await vm.write(at, 65536, 1 + at / 131072);
    const then = Buffer.from(vm.model);
    const bitmap = new DirtyBitmap(SIZE, { name: 'since', granularity: 65536 });
    source.dirtyBitmaps.add(bitmap);
    const target = await openQcow2(graph, create('b1.qcow2'));
    target.monitorOwned = true;
    const jobs = new Jobs(graph);
    const job = jobs.add(await new BackupJob(graph, { id: 'backup', source, target, sync: 'full' }).setup());
    for (let turn = 0; turn < 30; turn++) {
      await vm.write(SIZE - (turn + 1) * 100_000, 3000, 99);
      await new Promise(resolve => setImmediate(resolve));
    }
    await job.finished;
    t.equal(job.error, undefined);
    t.ok(vm.backend.root === source, 'the filter is gone');
    const copy = Buffer.alloc(SIZE);
    await target.readv(0, SIZE, IoVector.of(copy));
    t.same(copy, then);
    t.same(await vm.content(), vm.model);
    const dirty = bitmap.count;
    t.ok(dirty > 0);
    const second = jobs.add(
      await new BackupJob(graph, { id: 'more', source, target, sync: 'incremental', bitmap }).setup(),
    );
    await second.finished;
    t.equal(second.error, undefined);
    t.equal(second.total >= dirty, true);
    await target.readv(0, SIZE, IoVector.of(copy));
    t.same(copy, vm.model, 'now it is of this moment');
    t.equal(source.dirtyBitmaps.named('since')?.count, 0);
    await graph.close();
  },
);

t.test('a backup that others read: what has not changed is read in the disk itself', { skip: noQemuImg }, async t => {
  const { graph } = quietGraph();
  const source = await openQcow2(graph, create('f0.qcow2'));
  source.monitorOwned = true;
  const vm = await guest(graph, source);
  for (let at = 0; at < SIZE; at += 131072) await vm.write(at, 65536, 1 + at / 131072);
  const then = Buffer.from(vm.model);
  const target = await openQcow2(graph, create('f1.qcow2'));
  target.monitorOwned = true;
  target.attach('backing', source);
  const reader = new BlockBackend(graph);
  reader.insert(target);
  const jobs = new Jobs(graph);
  const job = jobs.add(await new BackupJob(graph, { id: 'pull', source, target, sync: 'none' }).setup());
  t.ok(target.backing === source, 'the backup stands on the disk, not on what copies from it');
  for (let turn = 0; turn < 24; turn++) {
    const offset = turn * 170_000;
    const seen = Buffer.alloc(200_000);
    const reading = reader.readv(offset, IoVector.of(seen.subarray(0, Math.min(200_000, SIZE - offset))));
    await Promise.all([vm.write(offset, 90_000, 100 + turn), reading]);
    t.ok(seen.subarray(0, SIZE - offset).equals(then.subarray(offset, offset + 200_000)), `round ${turn}`);
  }
  job.cancel(true);
  await job.finished;
  t.same(await vm.content(), vm.model);
  await graph.close();
});

t.test('a job can be paused, slowed and cancelled, and an error ends it', async t => {
  const { graph } = quietGraph();
  const make = (name: string, more = {}): Promise<BlockNode> =>
    graph.add(
      BlockOptions.fromJson({ driver: 'null-co', 'read-zeroes': true, size: 64 << 20, 'node-name': name, ...more }),
    );
  const source = await make('source');
  await make('plain');
  const target = await graph.add(
    BlockOptions.fromJson({
      driver: 'blkdebug',
      image: 'plain',
      'node-name': 'target',
      'inject-error': [{ event: 'none', sector: 65536, errno: 28 }],
    }),
  );
  const events = watch(graph);
  const jobs = new Jobs(graph);
  const job = jobs.add(
    await new MirrorJob(graph, {
      id: 'j',
      source,
      target: graph.lookup('plain'),
      sync: 'full',
      speed: 1 << 20,
    }).setup(),
  );
  await until(() => job.status === 'running' && job.offset > 0);
  job.pause();
  await until(() => job.status === 'paused');
  t.throws(() => job.pause(), { message: 'Job is already paused' });
  t.throws(() => job.complete(), { message: "Job 'j' in state 'paused' cannot accept command verb 'complete'" });
  job.resume();
  job.cancel(true);
  await job.finished;
  t.same(events.slice(-3), ['BLOCK_JOB_CANCELLED', 'concluded', 'null']);
  const failing = jobs.add(
    await new MirrorJob(graph, { id: 'k', source, target, sync: 'full', onTargetError: 'report' }).setup(),
  );
  await failing.finished;
  t.equal(failing.error, 'No space left on device');
  t.ok(events.includes('BLOCK_JOB_ERROR'));
  await graph.close();
});

t.test('the end of the process ends the jobs, and what was written is there', { skip: noQemuImg }, async t => {
  const { graph } = quietGraph();
  const source = await openQcow2(graph, create('e0.qcow2'));
  const vm = await guest(graph, source);
  await vm.write(0, 1 << 20, 1);
  const target = await openQcow2(graph, create('e1.qcow2'));
  const jobs = new Jobs(graph);
  jobs.add(await new MirrorJob(graph, { id: 'slow', source, target, sync: 'full', speed: 1024 }).setup());
  await vm.write(500_000, 5000, 2);
  await graph.close();
  t.ok(source.closed && target.closed);
  t.equal(qemuCheck(folder.file('e0.qcow2')).status, 0);
  qemuImg('convert', '-O', 'raw', folder.file('e0.qcow2'), folder.file('e0.raw'));
  t.same(fs.readFileSync(folder.file('e0.raw')), vm.model);
});

t.test(
  'a backup into an image that its own source backs shows the moment when it began',
  { skip: noQemuImg },
  async t => {
    const { graph } = quietGraph();
    const source = await openQcow2(graph, create('n0.qcow2'));
    const vm = await guest(graph, source);
    await vm.write(0, 200_000, 1);
    const before = await vm.content();
    const target = await openQcow2(graph, create('n1.qcow2'));
    target.monitorOwned = true;
    target.attach('backing', source);
    const jobs = new Jobs(graph);
    const job = jobs.add(await new BackupJob(graph, { id: 'fleece', source, target, sync: 'none' }).setup());
    t.ok(target.backing === source, 'not the filter, which it lies under');
    await vm.write(70_000, 5000, 2);
    const seen = Buffer.alloc(source.length);
    await target.readv(0, seen.length, IoVector.of(seen));
    t.equal(seen.compare(before), 0);
    job.cancel(true);
    await job.finished;
    await graph.close();
  },
);

t.test('a job over a throttled node ends at once when the process does, and waits for nobody when drained', async t => {
  const { graph } = quietGraph();
  const limits = {
    buckets: { ...NO_LIMITS.buckets, 'bps-total': { average: 1, max: 0, burstLength: 1 } },
    iopsSize: 0,
  };
  // Time stands still: what is held back is only ever let go.
  graph.throttleClock = { nowMs: () => 0, after: () => {} };
  graph.throttleGroup('slow').configure(limits);
  const open = (options: Record<string, string | number>): Promise<BlockNode> =>
    graph.add(new BlockOptions(Object.entries(options)));
  const source = await open({
    'node-name': 'slow-node',
    driver: 'throttle',
    'throttle-group': 'slow',
    'file.driver': 'null-co',
    'file.size': SIZE,
  });
  const target = await open({ 'node-name': 'to', driver: 'null-co', size: SIZE });
  const jobs = new Jobs(graph);
  const job = jobs.add(
    await new MirrorJob(graph, { id: 'slow', source, target, sync: 'full', bufferSize: 65536 }).setup(),
  );
  await until(() => job.offset >= 65536);
  let drained = 0;
  await graph.drained(() => {
    drained = job.offset;
  });
  t.ok(drained < SIZE, 'a piece passed, not all');
  await graph.close();
  t.equal(job.status, 'null');
});
