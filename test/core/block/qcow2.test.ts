import fs from 'node:fs';
import t from 'tap';
import { IoVector } from '../../../core/block/io-vector.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { start, startFor } from '../../../core/block/pending.ts';
import { checkImage } from '../../../core/block/qcow2/driver.ts';
import { writeFlag } from '../../../core/block/requests.ts';
import { imageFolder, noQemuImg, openQcow2, qemuCheck, qemuImg, quietGraph, randomNumbers } from './images.ts';

const folder = imageFolder();
t.teardown(() => folder.remove());
t.setTimeout(120_000);

t.test('what qemu-img writes, we read: compressed, backed, sparse', { skip: noQemuImg }, async t => {
  const model = Buffer.alloc(6 << 20);
  const random = randomNumbers(7);
  for (let at = 0; at < model.length; at += 4096)
    if (random(3) > 0) model.fill(random(255), at, at + 4096 - random(100));
  for (let at = 1 << 20; at < 2 << 20; at++) model[at] = random(256);
  fs.writeFileSync(folder.file('source.raw'), model);
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', '-c', folder.file('source.raw'), folder.file('packed.qcow2'));
  qemuImg(
    'create',
    '-q',
    '-f',
    'qcow2',
    '-b',
    'packed.qcow2',
    '-F',
    'qcow2',
    '-o',
    'cluster_size=4k',
    folder.file('top.qcow2'),
    '8M',
  );
  const { graph } = quietGraph();
  const top = await openQcow2(graph, folder.file('top.qcow2'));
  t.equal(top.backing?.driver.name, 'qcow2', 'the backing file is opened beside the image');
  const read = Buffer.alloc(8 << 20, 1);
  await top.readv(0, read.length, IoVector.of(read));
  t.equal(read.subarray(0, model.length).compare(model), 0);
  t.equal(
    read.subarray(model.length).every(byte => byte === 0),
    true,
    'what is longer than the backing file is 0',
  );
  // A write into a backed cluster takes the rest of it along.
  await top.writev(5000, 100, IoVector.of(Buffer.alloc(100, 0xee)));
  model.fill(0xee, 5000, 5100);
  // A compressed cluster that is written to is one no more.
  await graph.released(top);
  const packed = await openQcow2(graph, folder.file('packed.qcow2'));
  await packed.writev(70000, 10, IoVector.of(Buffer.from('0123456789')));
  t.match(await checkImage(packed, false), { corruptions: 0, leaks: 0 });
  await graph.released(packed);
  t.equal(qemuCheck(folder.file('packed.qcow2')).status, 0);
  t.equal(qemuCheck(folder.file('top.qcow2')).status, 0);
  await graph.close();
});

t.test('compressed clusters of ours are read by qemu-img', { skip: noQemuImg }, async t => {
  const file = folder.file('squeezed.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', file, '4M');
  const { graph } = quietGraph();
  const node = await openQcow2(graph, file);
  const data = Buffer.alloc(4 << 20);
  const random = randomNumbers(3);
  for (let at = 0; at < data.length; at += 1 + random(64)) data[at] = random(256);
  await node.writev(0, data.length, IoVector.of(data), 0, writeFlag.COMPRESSED);
  const again = Buffer.alloc(data.length);
  await node.readv(0, data.length, IoVector.of(again));
  t.equal(again.compare(data), 0);
  await graph.released(node);
  t.equal(qemuCheck(file).status, 0);
  t.ok(fs.statSync(file).size < 3 << 20, 'and smaller');
  qemuImg('convert', '-O', 'raw', file, folder.file('squeezed.raw'));
  t.equal(fs.readFileSync(folder.file('squeezed.raw')).compare(data), 0);
  await graph.close();
});

for (const options of ['cluster_size=64k', 'extended_l2=on', 'extended_l2=on,cluster_size=16k'])
  t.test(`internal snapshots: made, applied, deleted, ours and theirs: ${options}`, { skip: noQemuImg }, async t => {
    const file = folder.file('snap.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, file, '8M');
    const { graph } = quietGraph();
    const node = await openQcow2(graph, file);
    const write = (offset: number, value: number): Promise<void> =>
      Promise.resolve(node.writev(offset, 100_000, IoVector.of(Buffer.alloc(100_000, value))));
    const first = async (): Promise<number> => {
      const byte = Buffer.alloc(1);
      await node.readv(70_000, 1, IoVector.of(byte));
      return byte[0] ?? -1;
    };
    await write(0, 1);
    const when = { dateSeconds: 1_700_000_000, dateNanoseconds: 5, vmClockNs: 123 };
    const vmState = Buffer.alloc(200_000, 0x5a);
    await node.writeVmState(0, IoVector.of(vmState));
    await startFor(node.exclusively(node.snapshots.create({ name: 'one', vmStateSize: vmState.length, ...when })));
    await start(node.clearing.discard(node.vmStateOffset, vmState.length, true, 'other'));
    await write(0, 2);
    await write(3 << 20, 3);
    await startFor(node.exclusively(node.snapshots.create({ name: 'two', vmStateSize: 0, ...when })));
    await write(0, 4);
    t.match(await checkImage(node, false), { corruptions: 0, leaks: 0 });
    const one = node.snapshots.find('one');
    const two = node.snapshots.find('2');
    if (one === undefined || two === undefined) throw new Error('a snapshot is missing');
    await start(node.exclusively(node.snapshots.apply(one)));
    t.equal(await first(), 1);
    const restored = Buffer.alloc(vmState.length);
    await node.readVmState(0, IoVector.of(restored));
    t.equal(restored.compare(vmState), 0, 'with the state of the machine');
    await start(node.exclusively(node.snapshots.apply(two)));
    t.equal(await first(), 2);
    await start(node.exclusively(node.snapshots.remove(one)));
    t.match(await checkImage(node, false), { corruptions: 0, leaks: 0 });
    await graph.released(node);
    t.equal(qemuCheck(file).status, 0);
    t.match(qemuImg('snapshot', '-l', file), /2\s+two/);
    qemuImg('snapshot', '-c', 'three', file);
    qemuImg('snapshot', '-d', 'two', file);
    const again = await openQcow2(graph, file);
    t.same(
      again.snapshots.list.map(({ name }) => name),
      ['three'],
    );
    await graph.released(again);
    await graph.close();
  });

for (const options of ['cluster_size=512', 'extended_l2=on,cluster_size=16k'])
  t.test(`longer, shorter, and longer again: ${options}`, { skip: noQemuImg }, async t => {
    const file = folder.file('size.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, file, '1M');
    const { graph } = quietGraph();
    const node = await openQcow2(graph, file);
    await node.writev(0, 1 << 20, IoVector.of(Buffer.alloc(1 << 20, 9)));
    await node.truncate(64 << 20);
    await node.writev(63 << 20, 512, IoVector.of(Buffer.alloc(512, 8)));
    await node.truncate(100 << 10);
    await node.truncate(1 << 20, { preallocation: 'metadata' });
    const data = Buffer.alloc(1 << 20, 1);
    await node.readv(0, data.length, IoVector.of(data));
    t.equal(
      data.subarray(0, 100 << 10).every(byte => byte === 9),
      true,
    );
    t.equal(
      data.subarray(100 << 10).every(byte => byte === 0),
      true,
      'what was cut off does not come back',
    );
    t.match(await checkImage(node, false), { corruptions: 0, leaks: 0 });
    await graph.released(node);
    t.equal(qemuCheck(file).status, 0);
    await graph.close();
  });

t.test('images of our own making', { skip: noQemuImg }, async t => {
  const { graph } = quietGraph();
  for (const options of [
    {},
    { version: 'v2' },
    { 'cluster-size': 4096, 'refcount-bits': 1 },
    { preallocation: 'full' },
    { 'lazy-refcounts': true },
    { 'extended-l2': true },
    { 'extended-l2': true, 'cluster-size': 16384, preallocation: 'metadata' },
  ]) {
    const file = folder.file('made.qcow2');
    await graph.driver('file').create?.(
      graph,
      new BlockOptions([
        ['filename', file],
        ['size', 0],
      ]),
    );
    const target = await graph.openTree(file, new BlockOptions(), {}, true);
    const given = new BlockOptions([['file', target.nodeName], ['size', 3 << 20], ...Object.entries(options)]);
    await graph.driver('qcow2').create?.(graph, given);
    t.same(given.keys(), [], 'every option was understood');
    await graph.released(target);
    t.equal(qemuCheck(file).status, 0, JSON.stringify(options));
    t.equal(JSON.parse(qemuImg('info', '--output=json', file))['virtual-size'], 3 << 20);
  }
  await graph.close();
});

t.test('damage is found, said and contained', { skip: noQemuImg }, async t => {
  const file = folder.file('damaged.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', file, '8M');
  const { graph, warnings } = quietGraph();
  let node = await openQcow2(graph, file);
  await node.writev(0, 65536, IoVector.of(Buffer.alloc(65536, 1)));
  const l2 = node.map.l1[0] ?? 0;
  await graph.released(node);
  const fd = fs.openSync(file, 'r+');
  // The guest's first cluster now is the L1 table.
  const entry = Buffer.alloc(8);
  entry.writeBigUInt64BE(0x8000_0000_0003_0000n);
  fs.writeSync(fd, entry, 0, 8, l2);
  fs.closeSync(fd);
  const events: string[] = [];
  graph.onEvent(({ event }) => events.push(event));
  node = await openQcow2(graph, file);
  await t.rejects(async () => node.writev(0, 512, IoVector.of(Buffer.alloc(512))), { code: 'ERR_BLOCK_EIO' });
  t.same(events, ['BLOCK_IMAGE_CORRUPTED']);
  t.match(
    warnings.at(-1),
    /Marking image as corrupt: Preventing invalid write on metadata \(overlaps with active L1 table\)/,
  );
  await t.rejects(
    async () => node.readv(0, 512, IoVector.of(Buffer.alloc(512))),
    { code: 'ERR_BLOCK_ENOMEDIUM' },
    'it is out of use',
  );
  await graph.released(node);
  await t.rejects(openQcow2(graph, file), { message: 'qcow2: Image is corrupt; cannot be opened read/write' });
  const reader = await openQcow2(graph, file, { 'read-only': 'on' });
  t.equal(reader.readOnly, true, 'but can be read');
  await graph.released(reader);
  t.same(graph.nodes(), [], 'nothing stays open');
  await graph.close();
});

t.test('what another process still has is not marked: it is only spoken of, and once', { skip: noQemuImg }, async t => {
  const file = folder.file('theirs.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', file, '64M');
  const { graph, warnings } = quietGraph();
  const map = await openQcow2(graph, file);
  const l1 = map.image.header.l1Offset;
  await graph.released(map);
  const fd = fs.openSync(file, 'r+');
  fs.writeSync(fd, Buffer.from([0, 0, 0, 0, 0x2a, 0x2a, 0x2a, 0x2a]), 0, 8, l1);
  fs.closeSync(fd);
  graph.inactive = true;
  const events: unknown[] = [];
  graph.onEvent(event => events.push(event));
  const node = await openQcow2(graph, file);
  for (let again = 0; again < 2; again++)
    await t.rejects(async () => node.readv(0, 512, IoVector.of(Buffer.alloc(512))), { code: 'ERR_BLOCK_EIO' });
  t.match(events, [{ event: 'BLOCK_IMAGE_CORRUPTED', fatal: false, msg: /0x2a2a2a00 unaligned \(L1 index: 0\)$/ }]);
  t.equal(warnings.filter(line => line.includes('Image is corrupt')).length, 1);
  const info = JSON.parse(qemuImg('info', '-U', '--output=json', file));
  t.equal(info['format-specific'].data.corrupt, false);
  await graph.close();
});

t.test('subclusters that are there and zero at once are damage', { skip: noQemuImg }, async t => {
  const file = folder.file('both.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'extended_l2=on', file, '8M');
  const { graph, warnings } = quietGraph();
  let node = await openQcow2(graph, file);
  await node.writev(0, 4096, IoVector.of(Buffer.alloc(4096, 1)));
  const l2 = node.map.l1[0] ?? 0;
  await graph.released(node);
  const fd = fs.openSync(file, 'r+');
  fs.writeSync(fd, Buffer.from([0, 0, 0, 1, 0, 0, 0, 3]), 0, 8, l2 + 8);
  fs.closeSync(fd);
  t.equal(qemuCheck(file).status, 2, 'qemu-img says so too');
  node = await openQcow2(graph, file);
  t.match(await checkImage(node, false), { corruptions: 1 });
  await t.rejects(async () => node.readv(0, 512, IoVector.of(Buffer.alloc(512))), { code: 'ERR_BLOCK_EIO' });
  t.match(warnings.at(-1), /Invalid subcluster allocation/);
  await graph.close();
});

t.test('hostile headers are refused, whatever they say', { skip: noQemuImg }, async t => {
  const file = folder.file('hostile.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', file, '1M');
  const good = fs.readFileSync(file);
  const { graph } = quietGraph();
  const random = randomNumbers(11);
  let opened = 0;
  for (let round = 0; round < 400; round++) {
    const bad = Buffer.from(good);
    for (let flips = 1 + random(4); flips > 0; flips--) bad[8 + random(104)] = random(256);
    fs.writeFileSync(file, bad);
    try {
      const node = await openQcow2(graph, file);
      opened++;
      try {
        await node.writev(0, 4096, IoVector.of(Buffer.alloc(4096, 1)));
        await node.readv(0, 65536, IoVector.of(Buffer.alloc(65536)));
      } catch (error) {
        t.match(error, { code: /^ERR_/ }, 'an I/O error is one of ours');
      }
      await graph.released(node);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_'))) t.fail(String(error));
    }
  }
  t.ok(opened < 400, 'some are refused');
  t.same(graph.nodes(), [], 'and nothing stays open');
  await graph.close();
});
