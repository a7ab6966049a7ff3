import fs from 'node:fs';
import t from 'tap';
import { BlockBackend } from '../../../core/block/backend.ts';
import { BlkdebugNode } from '../../../core/block/blkdebug.ts';
import { Drives } from '../../../core/block/drives.ts';
import { errno } from '../../../core/block/io-error.ts';
import { IoVector } from '../../../core/block/io-vector.ts';
import { changeMedium, eject, exchangeNode, insertMedium } from '../../../core/block/media.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { qemuIo } from '../../../core/block/qemu-io/qemu-io.ts';
import { NO_LIMITS, ThrottleGroup } from '../../../core/block/throttle.ts';
import { imageFolder, noQemuImg, openQcow2, qemuCheck, qemuImg, quietGraph } from './images.ts';

const folder = imageFolder();
t.teardown(() => folder.remove());

const IDE = { interface: 'ide' } as const;

t.test('drives have places and names as QEMU gives them', async t => {
  const { graph } = quietGraph();
  const drives = new Drives(graph);
  const add = (options: Record<string, string>) => drives.add(Object.entries(options), IDE);
  const raw = { file: 'null-co://', format: 'raw' };
  t.match(await add(raw), { id: 'ide0-hd0', interface: 'ide', bus: 0, unit: 0, media: 'disk' });
  t.match(await add({ media: 'cdrom' }), { id: 'ide0-cd1', bus: 0, unit: 1 });
  t.match(await add({ ...raw, index: '3' }), { id: 'ide1-hd1', bus: 1, unit: 1 });
  t.match(await add({ ...raw, if: 'virtio' }), { id: 'virtio0' });
  t.match(await add({ ...raw, if: 'none', id: 'mine', iops: '100', cache: 'writethrough', werror: 'stop' }), {
    id: 'mine',
  });
  t.match(graph.backend('mine'), { writeCache: false, onWriteError: 'stop', onReadError: 'report' });
  t.equal(graph.backend('mine')?.throttle?.config.buckets['iops-total'].average, 100);
  const fails: [Record<string, string>, string][] = [
    [{ ...raw, index: '3' }, 'drive with bus=1, unit=1 (index=3) exists'],
    [{ ...raw, index: '1', bus: '1' }, 'index cannot be used with bus and unit'],
    [{ ...raw, unit: '2' }, 'unit 2 too big (max is 1)'],
    [{ ...raw, if: 'usb' }, "unsupported bus type 'usb'"],
    [{ ...raw, media: 'tape' }, "'tape' invalid media"],
    [{ ...raw, cache: 'maybe' }, 'invalid cache option'],
    [{ ...raw, werror: 'panic' }, "'panic' invalid write error action"],
    [{ ...raw, if: 'floppy', rerror: 'stop' }, 'rerror is not supported by this bus type'],
    [{ ...raw, if: 'none', id: 'mine' }, "Device with id 'mine' already exists"],
    [{ ...raw, driver: 'raw' }, "Cannot specify both 'driver' and 'format'"],
    [{ file: 'null-co://', format: 'bogus' }, "Unknown driver 'bogus'"],
    [{ ...raw, bogus: '1' }, "Block format 'raw' does not support the option 'bogus'"],
    [{ file: '/nonexistent/image' }, "Could not open '/nonexistent/image': No such file or directory"],
    [
      { ...raw, iops: '10', iops_rd: '10' },
      'bps/iops/max total values and read/write values cannot be used at the same time',
    ],
    [
      { ...raw, iops: '1', 'throttling.iops-total': '1' },
      "'throttling.iops-total' and its alias 'iops' can't be used at the same time",
    ],
  ];
  const nodes = graph.nodes().length;
  for (const [options, message] of fails) await t.rejects(add(options), { message }, message);
  t.equal(graph.nodes().length, nodes, 'nothing stays of what failed');
  t.same(drives.orphans().length, 3, 'nobody has taken them yet');
  await graph.close();
});

t.test('-snapshot keeps what is written out of the image', { skip: noQemuImg }, async t => {
  const file = folder.file('precious.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', file, '1M');
  const before = fs.readFileSync(file);
  const { graph } = quietGraph();
  const { backend } = await new Drives(graph).add(
    [
      ['file', file],
      ['if', 'none'],
    ],
    { ...IDE, snapshot: true },
  );
  t.equal(backend.readOnly, false);
  t.equal(await backend.writev(0, IoVector.of(Buffer.alloc(4096, 1))), 0);
  const read = Buffer.alloc(4096);
  t.equal(await backend.readv(0, IoVector.of(read)), 0);
  t.equal(read[4095], 1);
  await graph.close();
  t.equal(fs.readFileSync(file).compare(before), 0);
});

t.test('a device goes on with another node, and stays with its own where it cannot', async t => {
  const { graph } = quietGraph();
  const add = (node: string, rest: Record<string, string>) =>
    graph.add(new BlockOptions(Object.entries({ 'node-name': node, ...rest })));
  const disk = await add('disk', { driver: 'null-co', size: '1M' });
  const backend = new BlockBackend(graph);
  backend.insert(disk);
  backend.attachDevice({ id: 'sda', removable: false }, { writable: true });
  await add('filter', { driver: 'copy-on-read', file: 'disk' });
  await add('fixed', { driver: 'null-co', size: '1M', 'read-only': 'on' });
  await exchangeNode(backend, 'filter');
  t.equal(backend.root?.nodeName, 'filter');
  await t.rejects(exchangeNode(backend, 'fixed'), { message: 'Block node is read-only' });
  await t.rejects(exchangeNode(backend, 'none'), { message: "Cannot find device='' nor node-name='none'" });
  t.equal(backend.root?.nodeName, 'filter');
  t.equal(await backend.writev(0, IoVector.of(Buffer.alloc(512))), 0);
  await exchangeNode(backend, 'disk');
  await graph.delete('filter');
  t.equal(disk.parents.size, 1);
  await graph.close();
});

t.test('copy on read brings what backs an image into it', { skip: noQemuImg }, async t => {
  fs.writeFileSync(folder.file('cold.raw'), Buffer.alloc(1 << 20, 5));
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'cold.raw', '-F', 'raw', folder.file('warm.qcow2'));
  const { graph } = quietGraph();
  const { backend } = await new Drives(graph).add(
    [
      ['file', folder.file('warm.qcow2')],
      ['copy-on-read', 'on'],
      ['if', 'none'],
    ],
    IDE,
  );
  const read = Buffer.alloc(100_000);
  t.equal(await backend.readv(200_000, IoVector.of(read)), 0);
  t.equal(
    read.every(byte => byte === 5),
    true,
  );
  await graph.close();
  const map: { start: number; length: number; depth: number }[] = JSON.parse(
    qemuImg('map', '--output=json', folder.file('warm.qcow2')),
  );
  t.equal(
    map.filter(({ depth }) => depth === 0).reduce((sum, { length }) => sum + length, 0),
    2 * 65536,
    'the clusters that were read',
  );
  t.equal(qemuCheck(folder.file('warm.qcow2')).status, 0);
});

t.test('limits hold requests back, by the clock that they are given', async t => {
  let now = 0;
  const alarms: { at: number; callback: () => void }[] = [];
  const clock = {
    nowMs: () => now,
    after: (ms: number, callback: () => void) => void alarms.push({ at: now + ms, callback }),
  };
  const group = new ThrottleGroup('g', clock);
  group.configure({
    ...NO_LIMITS,
    buckets: { ...NO_LIMITS.buckets, 'iops-total': { average: 10, max: 0, burstLength: 1 } },
  });
  let admitted = 0;
  for (let request = 0; request < 20; request++) {
    const turn = group.admit({}, 'read', 512);
    if (turn === undefined) admitted++;
    else void turn.then(() => admitted++);
  }
  t.equal(admitted, 2, 'a tenth of a second may come at once, and one more fills the bucket');
  while (now < 1000) {
    now += 10;
    for (const alarm of alarms.splice(0)) {
      if (alarm.at <= now) alarm.callback();
      else alarms.push(alarm);
    }
    await null;
  }
  t.ok(admitted >= 11 && admitted <= 12, `ten a second from then on: ${admitted}`);
});

t.test('blkdebug fails, once or always, and holds requests up', async t => {
  const config = folder.file('rules');
  fs.writeFileSync(
    config,
    '[inject-error]\nevent = "flush_to_disk"\nerrno = "5"\nonce = "on"\nimmediately = "off"\n\n[set-state]\nevent = "write_aio"\nstate = "1"\nnew_state = "2"\n\n[inject-error]\nevent = "read_aio"\nstate = "2"\nerrno = "28"\n',
  );
  fs.writeFileSync(folder.file('debugged.raw'), Buffer.alloc(65536));
  const { graph } = quietGraph();
  const node = await graph.openTree(
    `blkdebug:${config}:${folder.file('debugged.raw')}`,
    new BlockOptions().set('driver', 'raw'),
    {},
    false,
  );
  t.ok(node.file instanceof BlkdebugNode);
  const backend = new BlockBackend(graph);
  backend.insert(node);
  const iov = IoVector.of(Buffer.alloc(512));
  t.equal(await backend.readv(0, iov), 0);
  t.equal(await backend.writev(0, iov), 0);
  t.equal(await backend.flush(), errno.EIO);
  t.equal(await backend.flush(), 0, 'once');
  t.equal(await backend.readv(0, iov), errno.ENOSPC, 'after a write, reads fail');
  graph.nameBackend(backend, 'd');
  backend.name = 'd';
  let said = '';
  const print = (text: string): void => {
    said += text;
  };
  await qemuIo(graph, 'd', 'break write_aio A', print);
  let done = false;
  const write = Promise.resolve(backend.writev(0, iov)).then(() => {
    done = true;
  });
  await new Promise(resolve => setTimeout(resolve, 20));
  t.equal(done, false, 'it waits');
  await qemuIo(graph, 'd', 'resume A', print);
  await write;
  t.equal(said, '');
  await qemuIo(graph, 'd', 'resume A', print);
  t.equal(said, 'Could not resume request: No such file or directory\n');
  t.equal(backend.errorAction(false, errno.ENOSPC), 'stop');
  t.equal(backend.errorAction(false, errno.EIO), 'report');
  await graph.close();
});

t.test('media come and go through a tray', async t => {
  const { graph } = quietGraph();
  const backend = new BlockBackend(graph);
  const events: string[] = [];
  let open = false;
  let locked = true;
  const device = {
    id: 'cd0',
    removable: true,
    trayOpen: () => open,
    mediumLocked: () => locked,
    ejectRequest: () => void events.push('asked'),
    changeMedium: (inserted: boolean) => {
      open = !inserted;
      events.push(inserted ? 'closed' : 'opened');
    },
  };
  backend.insert(
    await graph.openTree('null-co://', new BlockOptions().set('driver', 'raw'), { readOnly: true }, false),
  );
  backend.attachDevice(device, { writable: false });
  await t.rejects(eject(graph, { id: 'cd0' }, false), {
    message: "Device 'cd0' is locked and force was not specified, wait for tray to open and try again",
  });
  t.same(events, ['asked']);
  await eject(graph, { id: 'cd0' }, true);
  t.equal(backend.inserted, false);
  t.equal(backend.readv(0, IoVector.of(Buffer.alloc(512))), errno.ENOMEDIUM);
  locked = false;
  await changeMedium(graph, { id: 'cd0' }, { filename: 'null-co://', format: 'raw', readOnly: 'retain' });
  t.equal(backend.readOnly, true, 'as the one before');
  t.same(events.slice(-1), ['closed']);
  t.throws(() => insertMedium(graph, { id: 'cd0' }, 'nope'), { message: "Node 'nope' not found" });
  await t.rejects(eject(graph, { id: 'cd1' }, false), { code: 'ERR_DEVICE_NOT_FOUND' });
  await graph.close();
});

t.test('an image that grows tells its device', { skip: noQemuImg }, async t => {
  const file = folder.file('grows.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', file, '1M');
  const { graph } = quietGraph();
  const backend = new BlockBackend(graph);
  const node = await openQcow2(graph, file);
  backend.insert(node);
  let told = 0;
  backend.attachDevice({ id: 'd', removable: false, resized: () => void told++ }, { writable: true, resizable: true });
  await node.truncate(2 << 20);
  t.equal(told, 1);
  t.equal(backend.length, 2 << 20);
  await graph.close();
});

t.test('cache=none goes around the page cache, with memory that may lie anywhere', { skip: noQemuImg }, async t => {
  const file = folder.file('direct.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', file, '1M');
  const { graph } = quietGraph();
  let drive: Awaited<ReturnType<Drives['add']>>;
  try {
    drive = await new Drives(graph).add(
      [
        ['file', file],
        ['cache', 'none'],
        ['if', 'none'],
      ],
      IDE,
    );
  } catch (error) {
    // A tmpfs of an old kernel has no O_DIRECT.
    t.match(error, { message: /Invalid argument/ });
    return;
  }
  const { backend } = drive;
  const model = Buffer.alloc(1 << 20);
  for (let at = 1; at < 60; at++) {
    const data = Buffer.alloc(at * 100, at);
    data.copy(model, at * 7777);
    t.equal(await backend.writev(at * 7777, IoVector.of(data)), 0);
  }
  t.equal(await backend.flush(), 0);
  const read = Buffer.alloc(model.length);
  t.equal(await backend.readv(0, IoVector.of(read)), 0);
  t.equal(read.compare(model), 0);
  await graph.close();
  t.equal(qemuCheck(file).status, 0);
});
