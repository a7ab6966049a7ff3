import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import t from 'tap';
import { BlockBackend } from '../../../core/block/backend.ts';
import { checkNotBusy } from '../../../core/block/busy.ts';
import type { BlockEvent } from '../../../core/block/events.ts';
import { SnapshotAccessNode } from '../../../core/block/filters/snapshot-access.ts';
import type { BlockGraph } from '../../../core/block/graph.ts';
import { graphInfo } from '../../../core/block/graph-info.ts';
import { IoVector } from '../../../core/block/io-vector.ts';
import { Jobs } from '../../../core/block/jobs/job.ts';
import { MirrorJob } from '../../../core/block/jobs/mirror.ts';
import type { BlockNode } from '../../../core/block/node.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { perm } from '../../../core/block/permissions.ts';
import { qemuIo } from '../../../core/block/qemu-io/qemu-io.ts';
import { writeJson } from '../../../core/control/json/writer.ts';
import { imageFolder, quietGraph } from './images.ts';

const SIZE = 1 << 20;
const folder = imageFolder();
t.teardown(() => folder.remove());

async function rawFile(graph: BlockGraph, name: string, byte: number): Promise<BlockNode> {
  fs.writeFileSync(folder.file(name), Buffer.alloc(SIZE, byte));
  return graph.add(BlockOptions.fromJson({ driver: 'file', 'node-name': name, filename: folder.file(name) }));
}

const content = async (node: BlockNode, at: number): Promise<number | undefined> => {
  const buffer = Buffer.alloc(512);
  await node.readv(at, 512, IoVector.of(buffer));
  return buffer.every(byte => byte === buffer[0]) ? buffer[0] : undefined;
};

const write = (node: BlockNode, at: number, bytes: number, byte: number): unknown =>
  node.writev(at, bytes, IoVector.of(Buffer.alloc(bytes, byte)));

t.test('copy-before-write keeps what is replaced, and snapshot-access shows it', async t => {
  const { graph } = quietGraph();
  await rawFile(graph, 'source', 1);
  await rawFile(graph, 'target', 0);
  const filter = await graph.add(
    BlockOptions.fromJson({ driver: 'copy-before-write', 'node-name': 'cbw', file: 'source', target: 'target' }),
  );
  const access = await graph.add(
    BlockOptions.fromJson({ driver: 'snapshot-access', 'node-name': 'access', discard: 'unmap', file: 'cbw' }),
  );
  t.ok(access instanceof SnapshotAccessNode);
  await write(filter, 70_000, 512, 2);
  await filter.writeZeroes(200_000, 512);
  t.equal(await content(filter, 70_000), 2);
  t.equal(await content(access, 70_000), 1);
  t.equal(await content(access, 200_000), 1);
  const whole = Buffer.alloc(SIZE);
  await access.readv(0, SIZE, IoVector.of(whole));
  t.ok(
    whole.every(byte => byte === 1),
    'partly from the target, partly from the source',
  );
  await t.rejects(async () => write(access, 0, 512, 3), { code: 'ERR_BLOCK_EOPNOTSUPP' });
  await access.discard(131_072, 65_536);
  await t.rejects(content(access, 140_000), { code: 'ERR_BLOCK_EACCES' }, 'what was discarded is gone');
  await graph.close();
});

t.test('a copy that fails breaks the write, or the snapshot', async t => {
  for (const policy of ['break-guest-write', 'break-snapshot']) {
    const { graph } = quietGraph();
    await rawFile(graph, 'source', 1);
    await rawFile(graph, 'target', 0);
    const filter = await graph.add(
      BlockOptions.fromJson({
        driver: 'copy-before-write',
        'node-name': 'cbw',
        'on-cbw-error': policy,
        file: 'source',
        target: {
          driver: 'raw',
          file: {
            driver: 'blkdebug',
            image: 'target',
            'inject-error': [{ event: 'write_aio', errno: 5, once: true }],
          },
        },
      }),
    );
    const access = await graph.add(
      BlockOptions.fromJson({ driver: 'snapshot-access', 'node-name': 'access', file: 'cbw' }),
    );
    if (policy === 'break-guest-write') {
      await t.rejects(async () => write(filter, 0, 512, 2), { code: 'ERR_BLOCK_EIO' });
      t.equal(await content(access, 0), 1, 'the snapshot is whole');
    } else {
      await write(filter, 0, 512, 2);
      t.equal(await content(filter, 0), 2);
      await t.rejects(content(access, 0), { code: 'ERR_BLOCK_EACCES' });
    }
    await graph.close();
  }
});

t.test('rules that come through a pipe hold nobody up but their node', async t => {
  const { graph } = quietGraph();
  await rawFile(graph, 'ruled', 1);
  const pipe = folder.file('rules');
  execFileSync('mkfifo', [pipe]);
  const opening = graph.add(
    BlockOptions.fromJson({ driver: 'blkdebug', 'node-name': 'debug', config: pipe, image: 'ruled' }),
  );
  await setImmediate();
  t.equal(await content(graph.lookup('ruled'), 0), 1, 'others are served meanwhile');
  fs.writeFileSync(pipe, '[inject-error]\nevent = "none"\niotype = "read"\nerrno = "5"\n');
  const node = await opening;
  await t.rejects(content(node, 0), { code: 'ERR_BLOCK_EIO' });
  await graph.close();
});

t.test('a quorum outvotes a child, rewrites it, and fails where there is no majority', async t => {
  const { graph } = quietGraph();
  const events: BlockEvent[] = [];
  graph.onEvent(event => events.push(event));
  const children = [await rawFile(graph, 'q1', 1), await rawFile(graph, 'q2', 9), await rawFile(graph, 'q3', 1)];
  const quorum = await graph.add(
    BlockOptions.fromJson({
      driver: 'quorum',
      'node-name': 'quorum',
      'vote-threshold': 2,
      'rewrite-corrupted': true,
      children: ['q1', 'q2', 'q3'],
    }),
  );
  t.equal(await content(quorum, 1024), 1);
  t.match(events, [{ event: 'QUORUM_REPORT_BAD', type: 'read', nodeName: 'q2', sectorNum: 2, sectorsCount: 1 }]);
  t.equal(await content(quorum, 1024), 1);
  t.equal(events.length, 1, 'it was put right');
  await write(quorum, 0, 512, 5);
  for (const child of children) t.equal(await content(child, 0), 5);
  fs.writeFileSync(folder.file('q1'), Buffer.alloc(SIZE, 7));
  await t.rejects(content(quorum, 4096), { code: 'ERR_BLOCK_EIO' });
  t.match(events.at(-1), { event: 'QUORUM_FAILURE', reference: 'quorum', sectorNum: 8, sectorsCount: 1 });
  t.equal(quorum.removeChild('children.2')?.nodeName, 'q3');
  t.throws(() => quorum.removeChild('children.1'), {
    message: 'The number of children cannot be lower than the vote threshold 2',
  });
  await graph.close();
});

t.test('a node that a job works on is busy, and its filter is seen in the graph', async t => {
  const { graph } = quietGraph();
  const source = await rawFile(graph, 'm1', 1);
  const target = await rawFile(graph, 'm2', 0);
  const jobs = new Jobs(graph);
  const job = jobs.add(
    await new MirrorJob(graph, { id: 'job', source, target, sync: 'full', filterNodeName: 'filter', speed: 1 }).setup(),
  );
  for (const node of [source, target, graph.lookup('filter')])
    t.throws(() => checkNotBusy(node), {
      message: `Node '${node.nodeName}' is busy: block device is in use by block job: mirror`,
    });
  await t.rejects(graph.delete('m1'), { message: /^Node 'm1' is busy/ });
  const edges = graphInfo(graph, jobs)['edges'];
  t.equal(Array.isArray(edges) && edges.length, 4);
  job.cancel(true);
  await job.finished;
  t.equal(graph.node('filter'), undefined);
  checkNotBusy(source);
  await graph.close();
});

t.test('qemu-io says what it did, asks for permission, and does not wait for aio', async t => {
  const { graph } = quietGraph();
  await rawFile(graph, 'io', 1);
  let said = '';
  const io = (line: string): Promise<string | undefined> => {
    said = '';
    return qemuIo(graph, 'io', line, text => {
      said += text;
    });
  };
  await io('write -P 3 0 64k');
  t.match(
    said,
    /^wrote 65536\/65536 bytes at offset 0\n64 KiB, 1 ops; [0-9:. sec]+ \([0-9.]+ [KMGT]?i?B(ytes)?\/sec and [0-9.]+ ops\/sec\)\n$/,
  );
  await io('read -P 3 -s 512 -l 512 0 64k');
  t.match(said, /^read 65536\/65536/);
  await io('read -P 4 0 512');
  t.match(said, /^Pattern verification failed at offset 0, 512 bytes\nread 512\/512/);
  await io('read 1M 512');
  t.equal(said, 'read failed: Input/output error\n');
  await io('write -u 0 512');
  t.equal(said, '-u requires -z to be specified\n');
  await io('alloc 0 1M');
  t.equal(said, '1048576/1048576 bytes allocated at offset 0 bytes\n');
  await io('frobnicate');
  t.equal(said, 'command "frobnicate" not found\n');
  await graph.delete('io');
  await graph.add(
    BlockOptions.fromJson({ driver: 'file', 'node-name': 'io', filename: folder.file('io'), 'read-only': true }),
  );
  t.equal(await io('write 0 512'), 'Block node is read-only\n');
  await graph.close();
});

t.test('members of objects are written in the order of QEMU', t => {
  t.equal(
    writeJson({
      timestamp: { seconds: 1, microseconds: 2 },
      event: 'X',
      data: { type: 'read', 'node-name': 'd', 'sector-num': 0, 'sectors-count': 1 },
    }),
    '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "X", "data": {"node-name": "d", "sectors-count": 1, "sector-num": 0, "type": "read"}}',
  );
  t.end();
});

t.test('preallocate takes room ahead, and gives back what nobody wrote to', async t => {
  const { graph } = quietGraph();
  const size = (): number => fs.statSync(folder.file('grows')).size;
  fs.writeFileSync(folder.file('grows'), Buffer.alloc(4096));
  const options = {
    driver: 'raw',
    'node-name': 'raw',
    file: {
      driver: 'preallocate',
      'node-name': 'room',
      'prealloc-size': SIZE,
      'prealloc-align': 4096,
      file: { driver: 'file', filename: folder.file('grows') },
    },
  };
  const node = await graph.add(BlockOptions.fromJson(options));
  const backend = new BlockBackend(graph);
  backend.insert(node);
  const { CONSISTENT_READ, WRITE, RESIZE } = perm;
  backend.setPermissions({ perm: CONSISTENT_READ | WRITE | RESIZE, shared: CONSISTENT_READ });
  await write(node, 0, 4096, 1);
  t.equal(size(), 4096, 'there is room for that');
  await write(node, 4096, 512, 2);
  t.equal(size(), 4096 + 4096 + SIZE);
  t.equal(node.length, 4096 + 512);
  await write(node, SIZE, 512, 3);
  t.equal(size(), 4096 + 4096 + SIZE, 'still within');
  await backend.close();
  await graph.close();
  t.equal(size(), SIZE + 512, 'what was taken ahead is given back');
});

t.test('blkverify says where two images differ', async t => {
  const { graph } = quietGraph();
  await rawFile(graph, 'right', 1);
  await rawFile(graph, 'wrong', 1);
  const node = await graph.add(
    BlockOptions.fromJson({ driver: 'blkverify', 'node-name': 'both', raw: 'right', test: 'wrong' }),
  );
  t.equal(await content(node, 0), 1);
  const { node: wrong } = node.children.get('test') ?? {};
  t.ok(wrong);
  fs.writeFileSync(folder.file('wrong'), Buffer.alloc(SIZE, 1).fill(2, 1000, 1001));
  await t.rejects(content(node, 512), {
    message: 'blkverify: read offset=512 bytes=512 contents mismatch at offset 1000',
  });
  await graph.close();
});
