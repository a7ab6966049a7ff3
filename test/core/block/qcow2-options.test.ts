import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import t from 'tap';
import type { BlockGraph } from '../../../core/block/graph.ts';
import { IoVector } from '../../../core/block/io-vector.ts';
import type { BlockNode } from '../../../core/block/node.ts';
import { checkImage } from '../../../core/block/qcow2/driver.ts';
import type { Qcow2Node } from '../../../core/block/qcow2/node.ts';
import { writeFlag } from '../../../core/block/requests.ts';
import { imageFolder, noQemuImg, noZstd, openQcow2, qemuCheck, qemuImg, quietGraph, randomNumbers } from './images.ts';

const folder = imageFolder();
t.teardown(() => folder.remove());
t.setTimeout(300_000);

// Not a multiple of any cluster: the last one is cut.
const SIZE = (4 << 20) + 5 * 512;

/** Every option of `qemu-img create -o`, and the pairs that meet in our code. */
const VARIANTS: readonly string[] = [
  '',
  'compat=0.10',
  'compat=0.10,cluster_size=512',
  'cluster_size=512',
  'cluster_size=2M',
  ...[1, 2, 4, 8, 32, 64].map(bits => `refcount_bits=${bits},cluster_size=4k`),
  'lazy_refcounts=on',
  'preallocation=metadata',
  'preallocation=falloc,cluster_size=16k',
  'preallocation=full,cluster_size=4k',
  'compression_type=zstd',
  'compression_type=zstd,cluster_size=4k,lazy_refcounts=on',
  'compression_type=zstd,cluster_size=2M',
  'backing',
  'backing,compat=0.10,cluster_size=4k',
  'backing,compression_type=zstd,cluster_size=16k',
  'data_file',
  'data_file,cluster_size=4k,refcount_bits=1',
  'data_file,lazy_refcounts=on,backing',
  'data_file,data_file_raw=on',
  'data_file,data_file_raw=on,preallocation=metadata',
  'extended_l2=on',
  'extended_l2=on,cluster_size=16k',
  'extended_l2=on,cluster_size=2M,lazy_refcounts=on',
  'extended_l2=on,cluster_size=128k,compression_type=zstd,backing',
  'extended_l2=on,backing,preallocation=metadata',
  'extended_l2=on,data_file,backing,cluster_size=32k',
  'extended_l2=on,data_file,data_file_raw=on',
];

/** An image of that variant, and what is in it. */
function make(variant: string): { readonly file: string; readonly model: Buffer; readonly external: boolean } {
  const file = folder.file('image.qcow2');
  const external = folder.file('external.raw');
  const backing = folder.file('backing.raw');
  for (const old of [file, external]) fs.rmSync(old, { force: true });
  const names = variant.split(',').filter(name => name !== '');
  const model = Buffer.alloc(SIZE);
  const options = names
    .filter(name => name !== 'backing')
    .map(name => (name === 'data_file' ? `data_file=${external}` : name));
  if (names.includes('backing')) {
    // Shorter than the image, with holes.
    const below = Buffer.alloc(SIZE - 1_000_448);
    for (let at = 100_000; at < below.length; at += 333_000)
      below.fill(0xb0 + (at % 7), at, Math.min(below.length, at + 200_000));
    fs.writeFileSync(backing, below);
    below.copy(model);
    options.push(`backing_file=${backing}`, 'backing_fmt=raw');
  }
  qemuImg('create', '-q', '-f', 'qcow2', ...(options.length === 0 ? [] : ['-o', options.join()]), file, String(SIZE));
  return { file, model, external: names.includes('data_file') };
}

/** Has qemu-io do what we do next, and the model with it. `compress`: nothing was written yet, so that it can. */
function fillWithQemuIo(file: string, model: Buffer, random: (below: number) => number, compress: boolean): void {
  const commands: string[] = [];
  const put = (command: string, offset: number, bytes: number, value: number): void => {
    commands.push('-c', `${command} ${offset} ${bytes}`);
    model.fill(value, offset, offset + bytes);
  };
  if (compress) {
    const half = 2 << 20;
    for (const [index, offset] of [half, SIZE - (SIZE % half)].entries()) {
      put(`write -c -P ${3 + index}`, offset, Math.min(half, SIZE - offset), 3 + index);
    }
  }
  for (let step = 0; step < 16; step++) {
    const offset = random(SIZE / 512) * 512;
    const bytes = Math.min(SIZE - offset, (1 + random(400)) * 512);
    const value = 1 + random(255);
    if (random(3) > 0) put(`write -P ${value}`, offset, bytes, value);
    else put(`write -z${random(2) === 0 ? ' -u' : ''}`, offset, bytes, 0);
  }
  const { status, stdout, stderr } = spawnSync(
    'qemu-io',
    ['-f', 'qcow2', '-t', 'unsafe', '-d', 'unmap', ...commands, file],
    {
      encoding: 'utf8',
    },
  );
  if (status !== 0) throw new Error(`qemu-io: ${stderr}${stdout.match(/.*fail.*/g)?.join() ?? ''}`);
}

async function fillWithOurs(
  node: Qcow2Node,
  model: Buffer,
  random: (below: number) => number,
  compressible: boolean,
): Promise<void> {
  for (let step = 0; step < 100; step++) {
    const offset = random(SIZE / 512) * 512;
    const bytes = Math.min(SIZE - offset, (1 + random(300)) * 512);
    const what = random(12);
    if (what < 6) {
      const data = Buffer.alloc(bytes, 1 + random(255));
      await node.writev(offset, bytes, IoVector.of(data));
      data.copy(model, offset);
    } else if (what < 9) {
      await node.writeZeroes(offset, bytes, random(2) === 0 ? 0 : writeFlag.MAY_UNMAP);
      model.fill(0, offset, offset + bytes);
    } else if (what < 10) {
      // What is left of a discarded range is up to the format; what we read then must be what they read.
      await node.discard(offset, bytes);
      await node.readv(offset, bytes, IoVector.of(model.subarray(offset, offset + bytes)));
    } else if (what < 11 && compressible) {
      const { clusterSize } = node;
      const cluster = Math.floor(offset / clusterSize) * clusterSize;
      const length = Math.min(clusterSize, SIZE - cluster);
      const data = Buffer.alloc(length);
      for (let at = 0; at < length; at += 64) data[at] = random(256);
      await node.writev(cluster, length, IoVector.of(data), 0, writeFlag.COMPRESSED);
      data.copy(model, cluster);
    } else {
      await node.flush();
    }
  }
}

interface Stretch {
  readonly start: number;
  length: number;
  readonly kind: string;
  readonly offset: number | undefined;
}

function joined(stretches: Iterable<Stretch>): Stretch[] {
  const result: Stretch[] = [];
  for (const stretch of stretches) {
    const last = result.at(-1);
    const goesOn =
      last?.kind === stretch.kind &&
      (last.offset === undefined ? undefined : last.offset + last.length) === stretch.offset;
    if (last !== undefined && goesOn) last.length += stretch.length;
    else result.push({ ...stretch });
  }
  return result;
}

/** What `qemu-img map` says, by our own node. */
async function mapOf(node: BlockNode): Promise<Stretch[]> {
  const found: Stretch[] = [];
  for (let at = 0; at < node.length; ) {
    let below: BlockNode | undefined = node;
    let depth = 0;
    let status = await node.status(at, node.length - at);
    let { bytes } = status;
    while (!status.allocated && !status.zero && below?.backing !== undefined) {
      below = below.backing;
      depth++;
      status = await below.status(at, bytes);
      bytes = Math.min(bytes, status.bytes);
    }
    // Behind the end of what backs it, the image itself is empty.
    if (below !== undefined && at >= below.length) depth = 0;
    const data = status.data && !status.zero;
    found.push({
      start: at,
      length: bytes,
      kind: `${depth} ${data ? 'data' : status.zero ? 'zero' : ''} ${status.compressed === true ? 'packed' : ''}`,
      offset: data ? status.offset : undefined,
    });
    at += bytes;
  }
  return joined(found);
}

function mapOfQemu(file: string): Stretch[] {
  interface Entry {
    readonly start: number;
    readonly length: number;
    readonly depth: number;
    readonly data: boolean;
    readonly zero: boolean;
    readonly offset?: number;
  }
  const entries: Entry[] = JSON.parse(qemuImg('map', '--output=json', file));
  return joined(
    entries.map(({ start, length, depth, data, zero, offset }) => ({
      start,
      length,
      // Where much of the file is holes, QEMU looks there as well.
      kind: `${depth} ${data ? 'data' : zero ? 'zero' : ''} ${data && offset === undefined ? 'packed' : ''}`,
      offset: data ? offset : undefined,
    })),
  );
}

async function contentOf(node: BlockNode): Promise<Buffer> {
  const content = Buffer.alloc(SIZE, 0xaa);
  await node.readv(0, SIZE, IoVector.of(content));
  return content;
}

async function opened<T>(file: string, use: (node: Qcow2Node, graph: BlockGraph) => Promise<T>): Promise<T> {
  const { graph } = quietGraph();
  try {
    return await use(await openQcow2(graph, file), graph);
  } finally {
    await graph.close();
  }
}

for (const variant of VARIANTS) {
  const skip = noQemuImg || (variant.includes('zstd') && noZstd);
  t.test(`both ways: ${variant || 'defaults'}`, { skip }, async t => {
    const { file, model, external } = make(variant);
    const random = randomNumbers(variant.length + 5);
    fillWithQemuIo(file, model, random, !external && !variant.includes('preallocation'));
    await opened(file, async node => {
      t.equal((await contentOf(node)).compare(model), 0, 'what qemu-io wrote is read, bit for bit');
      t.match(await checkImage(node, false), { corruptions: 0, leaks: 0, wrongMarks: 0 });
      await fillWithOurs(node, model, random, !external);
      t.equal((await contentOf(node)).compare(model), 0, 'and so is what we wrote');
      t.match(await checkImage(node, false), { corruptions: 0, leaks: 0, wrongMarks: 0 });
    });
    const { status, output } = qemuCheck(file);
    t.equal(status, 0, output);
    qemuImg('convert', '-O', 'raw', file, folder.file('copy.raw'));
    t.equal(fs.readFileSync(folder.file('copy.raw')).compare(model), 0, 'qemu-img reads what we wrote');
    if (variant.includes('data_file_raw')) {
      // Its last cluster is whole.
      const raw = fs.readFileSync(folder.file('external.raw')).subarray(0, SIZE);
      t.equal(raw.compare(model), 0, 'and it lies raw in the data file');
    }
    t.same(await opened(file, mapOf), mapOfQemu(file), 'lying where it lies');
    // And once more by QEMU, over our clusters.
    fillWithQemuIo(file, model, random, false);
    t.equal(qemuCheck(file).status, 0);
    await opened(file, async node => {
      t.equal((await contentOf(node)).compare(model), 0);
    });
  });
}

t.test('the data file is what the guest writes, whatever that is', { skip: noQemuImg }, async t => {
  const { file } = make('data_file');
  await opened(file, async (node, graph) => {
    t.equal(node.data.driver.name, 'file', 'nobody asks what format it has');
    const header = fs.readFileSync(file).subarray(0, 512);
    await node.writev(0, 512, IoVector.of(new Uint8Array(header)));
    await node.flush();
    t.equal(graph.nodes().length, 3);
  });
  t.equal(fs.readFileSync(folder.file('external.raw')).readUInt32BE(0), 0x514649fb);
});
