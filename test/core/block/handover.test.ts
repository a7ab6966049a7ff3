import fs from 'node:fs';
import t from 'tap';
import { BlockBackend } from '../../../core/block/backend.ts';
import { activate, handOver, takeOver } from '../../../core/block/handover.ts';
import { IoVector } from '../../../core/block/io-vector.ts';
import { PERM_ALL, perm } from '../../../core/block/permissions.ts';
import { noAddon } from '../host/addon.ts';
import { noQemuImg, openQcow2, qemuCheck, quietGraph } from './images.ts';

const SIZE = 4 << 20;

/** One side of a migration: a graph with the image, and a device that uses it. */
async function side(file: string, inactive: boolean) {
  const { graph } = quietGraph();
  graph.inactive = inactive;
  const backend = new BlockBackend(graph);
  backend.name = 'disk0';
  const node = await openQcow2(graph, file);
  backend.insert(node);
  backend.attachDevice({ id: 'device', removable: false }, { writable: true });
  return {
    graph,
    node,
    write: async (offset: number, value: number): Promise<number> =>
      backend.writev(offset, IoVector.of(Buffer.alloc(70_000, value))),
    read: async (offset: number): Promise<number | undefined> => {
      const bytes = Buffer.alloc(70_000);
      await backend.readv(offset, IoVector.of(bytes));
      return bytes.every(byte => byte === bytes[0]) ? bytes[0] : undefined;
    },
  };
}

t.test('an image goes to another process and comes back', { skip: noAddon }, async t => {
  const file = await quietGraph().graph.temporaryImage(SIZE);
  t.teardown(() => fs.rmSync(file));
  const source = await side(file, false);
  t.equal(await source.write(0, 1), 0);
  await t.rejects(side(file, false), { message: /^Failed to get "write" lock$/ }, 'two may not have it');
  const target = await side(file, true);
  // What the other side read too early must not be what it goes on with.
  t.equal(await target.read(0), 0);
  await t.rejects(takeOver(target.graph), { message: /lock/ }, 'the source has it still');
  t.equal(await source.write(1 << 20, 2), 0);
  await handOver(source.graph);
  await takeOver(target.graph);
  t.same([await target.read(0), await target.read(1 << 20)], [1, 2]);
  t.equal(await target.write(2 << 20, 3), 0);
  await t.rejects(takeOver(source.graph), { message: /lock/ }, 'the target has it now');
  await handOver(target.graph);
  await takeOver(source.graph);
  t.equal(await source.read(2 << 20), 3);
  t.equal(await source.write(3 << 20, 4), 0);
  await target.graph.close();
  await source.graph.close();
  if (noQemuImg === false) t.equal(qemuCheck(file).status, 0);
});

t.test('an image that another process made larger', { skip: noAddon }, async t => {
  const file = await quietGraph().graph.temporaryImage(SIZE);
  t.teardown(() => fs.rmSync(file));
  const source = await side(file, false);
  const target = await side(file, true);
  await source.node.truncate(2 * SIZE);
  t.equal(await source.write(2 * SIZE - 70_000, 7), 0);
  await handOver(source.graph);
  await takeOver(target.graph);
  t.equal(target.node.length, 2 * SIZE);
  t.equal(await target.read(2 * SIZE - 70_000), 7);
  await source.graph.close();
  await target.graph.close();
  if (noQemuImg === false) t.equal(qemuCheck(file).status, 0);
});

t.test('what an export serves to a migration is taken over first, and kept', { skip: noQemuImg }, async t => {
  const file = await quietGraph().graph.temporaryImage(SIZE);
  t.teardown(() => fs.rmSync(file));
  const target = await side(file, true);
  const { graph, node } = target;
  t.equal(node.inactive, true);
  await activate(node);
  t.equal(node.inactive, false);
  const writer = new BlockBackend(graph, { perm: perm.WRITE, shared: PERM_ALL });
  writer.insert(node);
  t.equal(await writer.writev(100_000, IoVector.of(Buffer.alloc(70_000, 9))), 0, 'the device does not mind yet');
  await takeOver(graph);
  t.equal(await target.read(100_000), 9, 'what was written is not read anew');
  t.equal(await writer.writev(200_000, IoVector.of(Buffer.alloc(512, 8))), 0, 'nor before it runs');
  await writer.close();
  for (const backend of graph.backends) backend.resetIoStatus();
  const other = new BlockBackend(graph, { perm: perm.WRITE, shared: PERM_ALL });
  t.throws(() => other.insert(node), { message: /^Permission conflict/ }, 'now it does');
  await other.close();
  await graph.close();
  t.equal(qemuCheck(file).status, 0);
});

t.test('autoclear bits that nobody knows are gone once the image is written to', async t => {
  const file = await quietGraph().graph.temporaryImage(SIZE);
  t.teardown(() => fs.rmSync(file));
  const fd = fs.openSync(file, 'r+');
  // The highest byte of the field.
  fs.writeSync(fd, Uint8Array.of(0xff), 0, 1, 88);
  fs.closeSync(fd);
  const { graph } = quietGraph();
  await graph.released(await openQcow2(graph, file));
  t.equal(fs.readFileSync(file)[88], 0);
  await graph.close();
});
