import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import t from 'tap';
import { BlockBackend, whenDone } from '../../../core/block/backend.ts';
import { blockGraph } from '../../../core/block/block.ts';
import { guessGeometry } from '../../../core/block/geometry.ts';
import { errno } from '../../../core/block/io-error.ts';
import { IoVector } from '../../../core/block/io-vector.ts';
import { BlockOptions } from '../../../core/block/options.ts';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sb-block-'));
t.teardown(() => fs.rmSync(dir, { recursive: true, force: true }));

function image(name: string, bytes: Uint8Array): string {
  const file = path.join(dir, name);
  fs.writeFileSync(file, bytes);
  return file;
}

t.test('a raw file is read and written in place, from shared memory in pieces', async t => {
  const file = image('a.raw', Buffer.alloc(1 << 20, 7));
  const graph = blockGraph();
  const node = await graph.add(
    BlockOptions.fromJson({ driver: 'raw', 'node-name': 'disk0', file: { driver: 'file', filename: file } }),
  );
  const backend = new BlockBackend(graph);
  backend.insert(node);
  const ram = new Uint8Array(new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true }).buffer);
  const iov = new IoVector().add(ram, 100, 300).add(ram, 4096, 212);
  ram.fill(0xaa, 100, 400);
  ram.fill(0xbb, 4096, 4308);
  t.equal(backend.writev(512, iov), 0, 'a write that the page cache takes is done at once');
  const disk = fs.readFileSync(file);
  t.equal(disk[511], 7);
  t.equal(disk[512], 0xaa);
  t.equal(disk[812], 0xbb);
  t.equal(disk[1024], 7);
  ram.fill(0);
  t.equal(backend.readv(512, iov), 0);
  t.equal(ram[399], 0xaa);
  t.equal(ram[4307], 0xbb);
  t.equal(ram[4308], 0);
  t.equal(backend.readv(1 << 20, iov), errno.EIO, 'nothing lies behind the end');
  t.equal(await backend.flush(), 0);
  t.match(backend.stats.report(0, 0), {
    rd_bytes: 512,
    wr_operations: 1,
    flush_operations: 1,
    invalid_rd_operations: 1,
  });
  await graph.close();
});

t.test('large requests go through the thread pool', async t => {
  const file = image('b.raw', Buffer.alloc(4 << 20, 1));
  const graph = blockGraph();
  const backend = new BlockBackend(graph);
  backend.insert(await graph.openTree(file, new BlockOptions().set('driver', 'raw'), {}, false));
  const data = new Uint8Array(2 << 20).fill(9);
  const result = backend.writev(1 << 20, IoVector.of(data));
  t.ok(result instanceof Promise);
  let status: number | undefined;
  whenDone(result, error => {
    status = error;
  });
  await backend.quiesce();
  t.equal(status, 0, 'quiesced: nothing is under way');
  backend.unquiesce();
  t.equal(
    fs
      .readFileSync(file)
      .subarray(1 << 20, 3 << 20)
      .every(byte => byte === 9),
    true,
  );
  await graph.close();
});

t.test('a part of a file, its bounds, and what is wrong with options', async t => {
  const file = image('c.raw', Buffer.alloc(8192, 3));
  const graph = blockGraph();
  const open = (options: { readonly [name: string]: string | number | boolean }): Promise<unknown> =>
    graph.add(BlockOptions.fromJson({ driver: 'raw', 'file.driver': 'file', 'file.filename': file, ...options }));
  await open({ 'node-name': 'part', offset: 1024, size: 4096 });
  const part = graph.lookup('part');
  t.equal(part.length, 4096);
  const bytes = new Uint8Array(1024);
  await part.readv(3584, 1024, IoVector.of(bytes));
  t.equal(bytes[511], 3);
  t.equal(bytes[512], 0, 'behind its end are zeroes, not the rest of the file');
  await t.rejects(open({ 'node-name': 'part' }), { message: "Duplicate nodes with node-name='part'" });
  await t.rejects(open({ 'node-name': '1x' }), { message: "Invalid node-name: '1x'" });
  await t.rejects(open({ 'node-name': 'x', offset: 16384 }), {
    message: /Offset \(16384\) cannot be greater than size/,
  });
  await t.rejects(open({ 'node-name': 'x', bogus: 1 }), {
    message: "Block format 'raw' does not support the option 'bogus'",
  });
  await t.rejects(open({ 'node-name': 'x', 'read-only': 'perhaps' }), {
    message: "Parameter 'read-only' expects 'on' or 'off'",
  });
  await t.rejects(graph.add(BlockOptions.fromJson({ driver: 'file', filename: '/nonexistent', 'node-name': 'y' })), {
    message: "Could not open '/nonexistent': No such file or directory",
  });
  t.throws(() => graph.lookupPair('x', 'y'), { message: "Cannot find device='x' nor node-name='y'" });
  t.equal(graph.nodes().length, 2, 'what failed to open left nothing behind');
  await graph.close();
});

t.test('a guessed format is reported, and the guest cannot turn it into another', async t => {
  const file = image('d.raw', Buffer.alloc(8192));
  const graph = blockGraph();
  const warnings: string[] = [];
  graph.warn = message => warnings.push(message);
  const node = await graph.openTree(file, new BlockOptions(), {}, false);
  t.equal(node.driver.name, 'raw');
  t.match(warnings[0], /Image format was not specified for/);
  await node.writev(0, 512, IoVector.of(new Uint8Array(512).fill(1)));
  await graph.released(node);
  await graph.close();
});

t.test('a node is for one writer', async t => {
  const file = image('e.raw', Buffer.alloc(8192));
  const graph = blockGraph();
  const node = await graph.add(BlockOptions.fromJson({ driver: 'file', filename: file, 'node-name': 'n' }));
  const first = new BlockBackend(graph);
  first.insert(node);
  first.attachDevice({ id: 'one', removable: false }, { writable: true });
  const second = new BlockBackend(graph);
  second.insert(node);
  t.throws(() => second.attachDevice({ id: 'two', removable: false }, { writable: true }), {
    message: /^Permission conflict on node 'n': permissions 'write' are both required by block device 'one'/,
  });
  await graph.close();
});

t.test('the geometry is guessed as QEMU guesses it', async t => {
  const mbr = new Uint8Array(512);
  t.same(guessGeometry(mbr, 40 << 20), { geometry: { cylinders: 81, heads: 16, sectors: 63 }, translation: 'none' });
  mbr.set([0x55, 0xaa], 510);
  mbr.set([0x80, 1, 1, 0, 6, 15, 17, 5, 1, 0, 0, 0, 200, 0, 0, 0], 446);
  t.same(guessGeometry(mbr, 40 << 20), { geometry: { cylinders: 301, heads: 16, sectors: 17 }, translation: 'none' });
});
