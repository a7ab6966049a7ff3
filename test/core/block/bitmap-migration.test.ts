import t from 'tap';
import {
  bitmapsToSend,
  checkBitmapsCanLeave,
  checkMapping,
  type MigratedBitmap,
  takeBitmap,
} from '../../../core/block/bitmap-migration.ts';
import { DirtyBitmap } from '../../../core/block/dirty-bitmap.ts';
import { handOver, takeOver } from '../../../core/block/handover.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { IncomingBitmaps, pieces } from '../../../core/control/migration/bitmaps.ts';
import type { SavedRecord } from '../../../core/state/fields.ts';
import { imageFolder, noQemuImg, openQcow2, qemuImg, quietGraph } from './images.ts';

const SIZE = 8 << 20;
const folder = imageFolder();
t.teardown(() => folder.remove());

async function nullNode(name: string) {
  const { graph } = quietGraph();
  const node = await graph.add(BlockOptions.fromJson({ driver: 'null-co', 'node-name': name, size: SIZE }));
  return { graph, node };
}

function marked(persistent = false): DirtyBitmap {
  const bitmap = new DirtyBitmap(SIZE, { name: 'b', granularity: 4096, persistent, disabled: true });
  bitmap.set(70_000, 9000);
  return bitmap;
}

/** What goes over the wire, and back. */
function carried(sent: readonly MigratedBitmap[]): MigratedBitmap[] {
  const arrived: MigratedBitmap[] = [];
  const incoming = new IncomingBitmaps(
    bitmap => {
      arrived.push(bitmap);
      return () => undefined;
    },
    error => {
      throw error;
    },
  );
  for (const piece of pieces(sent)) incoming.feed(piece);
  return arrived;
}

t.test('a bitmap goes to another process under its alias', async t => {
  const from = await nullNode('src');
  const bitmap = marked();
  from.node.dirtyBitmaps.add(bitmap);
  const mapping = [{ 'node-name': 'src', alias: 'disk', bitmaps: [{ name: 'b', alias: 'c' }] }];
  const sent = carried(bitmapsToSend(from.graph, mapping));
  t.match(sent, [{ node: 'disk', name: 'c', granularity: 4096, enabled: false }]);
  const to = await nullNode('dst');
  const there = [
    {
      'node-name': 'dst',
      alias: 'disk',
      bitmaps: [{ name: 'd', alias: 'c', transform: { persistent: false } }],
    },
  ];
  for (const one of sent) takeBitmap(to.graph, there, one);
  const [taken] = [...to.node.dirtyBitmaps];
  t.equal(taken?.name, 'd');
  t.equal(taken?.enabled, false);
  t.same(taken?.bytes, bitmap.bytes);
  t.equal(taken?.count, bitmap.count);
  t.throws(() => takeBitmap(to.graph, there, { ...sent[0], name: 'x' } as MigratedBitmap), {
    message: "Error: Unknown bitmap alias 'x' on node 'dst' (alias 'disk')",
  });
  t.throws(() => takeBitmap(to.graph, [], sent[0] as MigratedBitmap), { message: "Error: Unknown node alias 'disk'" });
});

t.test('names that make no sense, and bitmaps that cannot go', async t => {
  const node = (name: string, alias: string) => ({ 'node-name': name, alias, bitmaps: [] });
  t.throws(() => checkMapping([node('a', '1x')]), {
    message: "Invalid mapping given for block-bitmap-mapping: The node alias '1x' is not well-formed",
  });
  t.throws(() => checkMapping([node('a', 'x'), node('a', 'y')]), {
    message: "Invalid mapping given for block-bitmap-mapping: The node name 'a' is mapped twice",
  });
  t.throws(() => checkMapping([node('a', 'x'), node('b', 'x')]), {
    message: "Invalid mapping given for block-bitmap-mapping: The node alias 'x' is used twice",
  });
  const bitmaps = [
    { name: 'm', alias: 'n' },
    { name: 'o', alias: 'n' },
  ];
  t.throws(() => checkMapping([{ 'node-name': 'a', alias: 'x', bitmaps }]), {
    message: "Invalid mapping given for block-bitmap-mapping: The bitmap alias 'x'/'n' is used twice",
  });
  const { graph, node: holder } = await nullNode('src');
  const bitmap = marked();
  bitmap.busy = true;
  holder.dirtyBitmaps.add(bitmap);
  t.throws(() => checkBitmapsCanLeave(graph, undefined), {
    message: "Bitmap 'b' is currently in use by another operation and cannot be used",
  });
  t.doesNotThrow(() => checkBitmapsCanLeave(graph, []), 'it is not to go');
});

t.test('a mapping may make a bitmap persistent where no image keeps it: it is what it was told to be', async t => {
  const from = await nullNode('src');
  from.node.dirtyBitmaps.add(marked());
  const to = await nullNode('src');
  const bitmaps = [{ name: 'b', alias: 'b', transform: { persistent: true } }];
  const [sent] = bitmapsToSend(from.graph, undefined);
  if (sent !== undefined) takeBitmap(to.graph, [{ 'node-name': 'src', alias: 'src', bitmaps }], sent);
  t.equal(to.node.dirtyBitmaps.named('b')?.persistent, true);
  await to.graph.close();
});

t.test('where one bitmap has no place the machine comes without any, and says so once', async t => {
  const from = await nullNode('src');
  for (const name of ['first', 'second', 'third'])
    from.node.dirtyBitmaps.add(new DirtyBitmap(from.node.length, { name, granularity: 4096 }));
  const to = await nullNode('src');
  const said: string[] = [];
  const mapping = [{ 'node-name': 'src', alias: 'src', bitmaps: [{ name: 'third', alias: 'third' }] }];
  const incoming = new IncomingBitmaps(
    bitmap => takeBitmap(to.graph, mapping, bitmap),
    error => said.push(error.message),
  );
  for (const piece of pieces(bitmapsToSend(from.graph, undefined))) incoming.feed(piece);
  t.same(said, ["Error: Unknown bitmap alias 'second' on node 'src' (alias 'src')"]);
  t.equal(to.node.dirtyBitmaps.size, 0, 'the one that had a place is gone again');
});

t.test('a stream that was altered is refused', async t => {
  const { node, graph } = await nullNode('src');
  node.dirtyBitmaps.add(marked());
  const [head, bits] = [...pieces(bitmapsToSend(graph, undefined))];
  const refused = (...records: (SavedRecord | undefined)[]): void => {
    const incoming = new IncomingBitmaps(
      () => {
        t.fail('taken');
        return () => undefined;
      },
      () => t.fail('has no place'),
    );
    t.throws(
      () => {
        for (const record of records) if (record !== undefined) incoming.feed(record);
      },
      { message: 'a dirty bitmap is damaged' },
    );
  };
  refused(bits);
  refused({ ...head, bytes: 2 ** 40 });
  refused(head, { kind: 'bits', bits: new Uint8Array(4096) });
  refused({ kind: 'other' });
});

t.test('what an image keeps goes with the image, unless it goes by itself', { skip: noQemuImg }, async t => {
  const file = folder.file('image.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', file, `${SIZE}`);
  const { graph } = quietGraph();
  const node = await openQcow2(graph, file);
  node.monitorOwned = true;
  node.dirtyBitmaps.add(marked(true));
  await handOver(graph);
  t.same([...node.dirtyBitmaps], [], 'only the image knows it now');
  await takeOver(graph);
  t.equal([...node.dirtyBitmaps][0]?.count, marked().count);
  const sent = bitmapsToSend(graph, [
    { 'node-name': node.nodeName, alias: 'disk', bitmaps: [{ name: 'b', alias: 'b' }] },
  ]);
  t.equal(sent[0]?.persistent, true);
  await handOver(graph);
  t.equal(node.dirtyBitmaps.size, 1, 'kept in memory, in case the machine comes back');
  t.notOk(qemuImg('info', '-U', '--output=json', file).includes('"bitmaps"'), 'and not in the image');
  await takeOver(graph);
  t.equal([...node.dirtyBitmaps][0]?.count, marked().count);
  t.equal([...node.dirtyBitmaps][0]?.inTransit, false);
  await graph.close();
  t.ok(qemuImg('info', '--output=json', file).includes('"bitmaps"'));
});
