import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import t from 'tap';
import { DirtyBitmap } from '../../../core/block/dirty-bitmap.ts';
import { handOver, takeOver } from '../../../core/block/handover.ts';
import { IoVector } from '../../../core/block/io-vector.ts';
import { NbdServer } from '../../../core/block/nbd/server.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { checkImage } from '../../../core/block/qcow2/driver.ts';
import type { Qcow2Node } from '../../../core/block/qcow2/node.ts';
import { reopen } from '../../../core/block/reopen.ts';
import { imageFolder, noQemuImg, openQcow2, qemuCheck, qemuImg, quietGraph } from './images.ts';

const folder = imageFolder();
t.teardown(() => folder.remove());
t.setTimeout(180_000);

const SIZE = 32 << 20;

function create(name: string, options = 'cluster_size=64k'): string {
  const file = folder.file(name);
  qemuImg('create', '-q', '-f', 'qcow2', '-o', options, file, String(SIZE));
  return file;
}

function addBitmap(node: Qcow2Node, name: string, granularity = 65536, disabled = false): DirtyBitmap {
  const bitmap = new DirtyBitmap(node.length, { name, granularity, persistent: true, disabled });
  node.checkPersistent(bitmap);
  node.dirtyBitmaps.add(bitmap);
  return bitmap;
}

async function write(node: Qcow2Node, offset: number, bytes: number): Promise<void> {
  await node.writev(offset, bytes, IoVector.of(Buffer.alloc(bytes, 0x77)));
}

/** The dirty stretches, from a bitmap of ours. */
function dirtyIn(bitmap: DirtyBitmap | undefined): [number, number][] {
  const found: [number, number][] = [];
  for (let at = bitmap?.nextDirty(0) ?? -1; at >= 0; ) {
    const end = bitmap?.nextClean(at) ?? 0;
    found.push([at, end - at]);
    at = bitmap?.nextDirty(end) ?? -1;
  }
  return found;
}

/** The same by qemu-img, from a server. */
function dirtyAt(socket: string, name: string): [number, number][] {
  const image = `driver=nbd,server.type=unix,server.path=${socket},export=disk,x-dirty-bitmap=qemu:dirty-bitmap:${name}`;
  const map: { start: number; length: number; data: boolean }[] = JSON.parse(
    qemuImg('map', '--output=json', '--image-opts', image),
  );
  return map.filter(({ data }) => !data).map(({ start, length }) => [start, length]);
}

/** What QEMU's own server says of a bitmap in a file. */
async function dirtyByQemu(file: string, name: string): Promise<[number, number][]> {
  const socket = folder.file('qemu.sock');
  const server = spawn('qemu-nbd', ['-f', 'qcow2', '-r', '-x', 'disk', '-B', name, '-k', socket, file]);
  const ended = once(server, 'exit');
  while (!fs.existsSync(socket)) await new Promise(resolve => setTimeout(resolve, 20));
  const found = dirtyAt(socket, name);
  server.kill();
  await ended;
  return found;
}

function listed(file: string): Record<string, string[]> {
  const info = JSON.parse(qemuImg('info', '--output=json', file));
  const bitmaps: { name: string; flags: string[] }[] = info['format-specific'].data.bitmaps ?? [];
  return Object.fromEntries(bitmaps.map(({ name, flags }) => [name, flags.toSorted()]));
}

for (const options of ['cluster_size=64k', 'cluster_size=512', 'extended_l2=on']) {
  t.test(`kept in the image, and read by qemu-nbd: ${options}`, { skip: noQemuImg }, async t => {
    const file = create('kept.qcow2', options);
    const { graph } = quietGraph();
    let node = await openQcow2(graph, file);
    addBitmap(node, 'fine', 4096);
    addBitmap(node, 'coarse', 1 << 20);
    addBitmap(node, 'still', 65536, true).set(1 << 20, 65536);
    addBitmap(node, 'all', 512).set(0, SIZE);
    await write(node, 5000, 3000);
    await write(node, 20 << 20, 1 << 20);
    const fine = dirtyIn(node.dirtyBitmaps.named('fine'));
    t.same(fine, [
      [4096, 4096],
      [20 << 20, 1 << 20],
    ]);
    await graph.released(node);
    t.equal(qemuCheck(file).status, 0, qemuCheck(file).output);
    t.same(listed(file), { fine: ['auto'], coarse: ['auto'], still: [], all: ['auto'] });
    t.same(await dirtyByQemu(file, 'fine'), fine);
    t.same(await dirtyByQemu(file, 'coarse'), [
      [0, 1 << 20],
      [20 << 20, 1 << 20],
    ]);
    t.same(await dirtyByQemu(file, 'all'), [[0, SIZE]]);
    // While we have it open, nobody else may believe what the file says.
    node = await openQcow2(graph, file);
    t.same(
      [...node.dirtyBitmaps].map(({ name, enabled, persistent, inconsistent }) => [
        name,
        enabled,
        persistent,
        inconsistent,
      ]),
      [
        ['fine', true, true, false],
        ['coarse', true, true, false],
        ['still', false, true, false],
        ['all', true, true, false],
      ],
    );
    const inUse = JSON.parse(qemuImg('info', '-U', '--output=json', file))['format-specific'].data.bitmaps;
    t.ok(inUse.every(({ flags }: { flags: string[] }) => flags.includes('in-use')));
    await write(node, 30 << 20, 4096);
    await node.truncate(SIZE + (1 << 20));
    await node.forgetBitmap('coarse');
    const coarse = node.dirtyBitmaps.named('coarse');
    if (coarse !== undefined) node.dirtyBitmaps.remove(coarse);
    t.match(await checkImage(node, false), { corruptions: 0, leaks: 0 });
    await graph.released(node);
    t.equal(qemuCheck(file).status, 0);
    t.same(Object.keys(listed(file)), ['all', 'still', 'fine'], 'in the order that the file had');
    t.same(await dirtyByQemu(file, 'fine'), [...fine, [30 << 20, 4096]]);
    await graph.close();
  });
}

t.test('made and changed by qemu-img, read and carried on by us', { skip: noQemuImg }, async t => {
  const file = create('theirs.qcow2');
  qemuImg('bitmap', '--add', '-g', '4096', file, 'a');
  qemuImg('bitmap', '--add', '--disable', file, 'b');
  spawnSync('qemu-io', ['-f', 'qcow2', '-c', 'write 1M 8k', '-c', 'write 31M 4k', file]);
  const { graph } = quietGraph();
  const node = await openQcow2(graph, file);
  t.same(dirtyIn(node.dirtyBitmaps.named('a')), [
    [1 << 20, 8192],
    [31 << 20, 4096],
  ]);
  t.same(dirtyIn(node.dirtyBitmaps.named('b')), []);
  await write(node, 0, 512);
  await graph.released(node);
  qemuImg('bitmap', '--merge', 'a', file, 'b');
  t.same(await dirtyByQemu(file, 'b'), [
    [0, 65536],
    [1 << 20, 65536],
    [31 << 20, 65536],
  ]);
  t.equal(qemuCheck(file).status, 0);
  await graph.close();
});

t.test(
  'of an image that was not closed, bitmaps mean nothing and can only be removed',
  { skip: noQemuImg },
  async t => {
    const file = create('killed.qcow2');
    qemuImg('bitmap', '--add', file, 'lost');
    const first = quietGraph().graph;
    const node = await openQcow2(first, file);
    await write(node, 0, 512);
    await node.flush();
    fs.copyFileSync(file, folder.file('copy.qcow2'));
    await first.close();
    const copy = folder.file('copy.qcow2');
    t.same(listed(copy), { lost: ['auto', 'in-use'] });
    const { graph } = quietGraph();
    let again = await openQcow2(graph, copy);
    t.equal([...again.dirtyBitmaps][0]?.inconsistent, true);
    await graph.released(again);
    t.same(listed(copy), { lost: ['auto', 'in-use'] }, 'it stays what it is');
    again = await openQcow2(graph, copy);
    await again.forgetBitmap('lost');
    for (const bitmap of again.dirtyBitmaps.persistent) again.dirtyBitmaps.remove(bitmap);
    await graph.released(again);
    t.same(listed(copy), {});
    t.equal(qemuCheck(copy).status, 0, 'nothing is left of it');
    await graph.close();
  },
);

t.test('a program that knows no bitmaps wrote to the image', { skip: noQemuImg }, async t => {
  const file = create('old.qcow2');
  qemuImg('bitmap', '--add', file, 'gone');
  // The autoclear bits are gone.
  const fd = fs.openSync(file, 'r+');
  fs.writeSync(fd, Buffer.alloc(8), 0, 8, 88);
  fs.closeSync(fd);
  const { graph, warnings } = quietGraph();
  const node = await openQcow2(graph, file);
  t.match(warnings[0], /a program lacking bitmap support modified this file/);
  t.same([...node.dirtyBitmaps], []);
  await graph.close();
  t.same(listed(file), {});
  t.equal(qemuCheck(file).status, 3, 'its clusters are leaks');
});

t.test('read-only, writable again, and in another process', { skip: noQemuImg }, async t => {
  const file = create('moves.qcow2');
  qemuImg('bitmap', '--add', file, 'a');
  const { graph } = quietGraph();
  const node = await openQcow2(graph, file, { 'read-only': 'on' });
  t.equal([...node.dirtyBitmaps][0]?.readonly, true);
  t.same(listed(file), { a: ['auto'] }, 'a reader does not take them');
  await reopen(node, { readOnly: false });
  t.equal([...node.dirtyBitmaps][0]?.readonly, false);
  await write(node, 0, 512);
  await reopen(node, { readOnly: true });
  t.same(listed(file), { a: ['auto'] });
  t.same(await dirtyByQemu(file, 'a'), [[0, 65536]]);
  await reopen(node, { readOnly: false });
  await handOver(graph);
  t.same(listed(file), { a: ['auto'] });
  spawnSync('qemu-io', ['-f', 'qcow2', '-c', 'write 1M 64k', file]);
  await takeOver(graph);
  t.same(dirtyIn([...node.dirtyBitmaps][0]), [
    [0, 65536],
    [1 << 20, 65536],
  ]);
  await graph.close();
  t.equal(qemuCheck(file).status, 0);
});

t.test('bitmaps and depths by NBD', { skip: noQemuImg }, async t => {
  const base = create('base.qcow2');
  const file = folder.file('top.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', file);
  spawnSync('qemu-io', ['-f', 'qcow2', '-c', 'write 8M 1M', base]);
  const { graph } = quietGraph();
  const node = await openQcow2(graph, file);
  addBitmap(node, 'seen');
  await write(node, 65536, 65536);
  const socket = folder.file('ours.sock');
  const server = await NbdServer.listen(graph, { path: socket });
  const exported = server.add(node, {
    id: 'e',
    name: 'disk',
    writable: true,
    bitmaps: () => [...node.dirtyBitmaps],
    allocationDepth: true,
  });
  t.equal([...node.dirtyBitmaps][0]?.busy, true);
  // Two contexts in one request, by our own client and theirs.
  const run = async (context: string) => {
    const client = quietGraph().graph;
    const options: [string, string][] = [
      ['driver', 'nbd'],
      ['server.type', 'unix'],
      ['server.path', socket],
      ['export', 'disk'],
    ];
    const reader = await client.openTree(
      undefined,
      new BlockOptions([...options, ['x-dirty-bitmap', context]]),
      { readOnly: true },
      false,
    );
    const dirty: [number, number][] = [];
    for (let at = 0; at < reader.length; ) {
      const status = await reader.status(at, reader.length - at);
      if (!status.data) dirty.push([at, status.bytes]);
      at += status.bytes;
    }
    await client.close();
    return dirty;
  };
  t.same(await run('qemu:dirty-bitmap:seen'), [[65536, 65536]]);
  await t.rejects(run('qemu:dirty-bitmap:other'), /x-dirty-bitmap qemu:dirty-bitmap:other not found/);
  const child = spawn('qemu-img', [
    'map',
    '--output=json',
    '--image-opts',
    `driver=nbd,server.type=unix,server.path=${socket},export=disk,x-dirty-bitmap=qemu:dirty-bitmap:seen`,
  ]);
  const output: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
  await once(child, 'close');
  const map: { start: number; length: number; data: boolean }[] = JSON.parse(Buffer.concat(output).toString());
  t.same(
    map.filter(({ data }) => !data).map(({ start, length }) => [start, length]),
    [[65536, 65536]],
  );
  const list = spawn('qemu-nbd', ['-L', '-k', socket]);
  const text: Buffer[] = [];
  list.stdout.on('data', (chunk: Buffer) => text.push(chunk));
  await once(list, 'close');
  for (const name of ['base:allocation', 'qemu:allocation-depth', 'qemu:dirty-bitmap:seen'])
    t.match(Buffer.concat(text).toString(), name);
  await server.remove(exported, true);
  t.equal([...node.dirtyBitmaps][0]?.busy, false);
  await server.stop();
  await graph.close();
});

t.test('a directory that makes no sense is refused', { skip: noQemuImg }, async t => {
  const file = create('hostile.qcow2');
  qemuImg('bitmap', '--add', file, 'a');
  const good = fs.readFileSync(file);
  const directory = Number(good.readBigUInt64BE(good.indexOf(Buffer.from([0x23, 0x85, 0x28, 0x75])) + 24));
  const { graph } = quietGraph();
  for (const [at, byte] of [
    [0, 0xff],
    [8, 0x7f],
    [12, 0x80],
    [16, 9],
    [17, 60],
    [18, 0xff],
    [20, 0xff],
  ] as const) {
    const bad = Buffer.from(good);
    bad[directory + at] = byte;
    fs.writeFileSync(file, bad);
    await t.rejects(openQcow2(graph, file), { code: 'ERR_BLOCK' }, `byte ${at}`);
  }
  t.same(graph.nodes(), []);
  await graph.close();
});
