import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import t from 'tap';
import { imageInfo } from '../../../core/block/info.ts';
import { IoVector } from '../../../core/block/io-vector.ts';
import { LuksNode } from '../../../core/block/luks/luks.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { start, startFor } from '../../../core/block/pending.ts';
import { checkImage } from '../../../core/block/qcow2/driver.ts';
import { Qcow2Node } from '../../../core/block/qcow2/node.ts';
import { imageFolder, noQemuImg, qemuImg, quietGraph, randomNumbers } from './images.ts';

const folder = imageFolder();
t.teardown(() => folder.remove());
t.setTimeout(300_000);

const SIZE = (1 << 20) + 512;
const SECRET = ['--object', 'secret,id=sec0,data=open sesame'];

/** A graph that knows the passphrase, or another one. */
function graphWithSecret(passphrase = 'open sesame') {
  const { graph } = quietGraph();
  graph.secret = async () => Buffer.from(passphrase);
  return graph;
}

/** On some hosts qemu-img cannot always measure how long a passphrase takes, and says so. */
function createByQemu(...args: string[]): void {
  for (let tries = 0; ; tries++) {
    const { status, stderr } = spawnSync('qemu-img', ['create', '-q', ...SECRET, ...args], { encoding: 'utf8' });
    if (status === 0) return;
    if (!stderr.includes('accurate CPU usage') || tries > 40) throw new Error(stderr);
  }
}

/** An empty image of our own making. */
async function createByUs(driver: string, file: string, options: readonly string[]): Promise<void> {
  const graph = graphWithSecret();
  fs.writeFileSync(file, '');
  const target = await graph.openTree(file, new BlockOptions(), {}, true);
  const given = new BlockOptions([
    ['file', target.nodeName],
    ['size', SIZE],
  ]);
  for (const option of options) {
    const [key = '', value = ''] = option.split('=');
    given.set(key, value);
  }
  await graph.driver(driver).create?.(graph, given);
  t.same(given.keys(), [], 'every option was understood');
  await graph.released(target);
  await graph.close();
}

function qemuIo(image: string, ...commands: string[]): void {
  const args = commands.flatMap(command => ['-c', command]);
  const { status, stdout, stderr } = spawnSync('qemu-io', [...SECRET, '--image-opts', ...args, image], {
    encoding: 'utf8',
  });
  if (status !== 0 || /fail/.test(stdout)) throw new Error(stdout + stderr);
}

async function fill(node: LuksNode | Qcow2Node, model: Buffer, seed: number): Promise<void> {
  const random = randomNumbers(seed);
  for (let step = 0; step < 40; step++) {
    // Also what is no multiple of a sector.
    const offset = random(SIZE - 1000);
    const bytes = Math.min(SIZE - offset, 1 + random(100_000));
    if (random(4) === 0) {
      await node.writeZeroes(offset, bytes);
      model.fill(0, offset, offset + bytes);
    } else {
      const data = Buffer.alloc(bytes, 1 + random(255));
      await node.writev(offset, bytes, IoVector.of(data));
      data.copy(model, offset);
    }
  }
}

async function content(node: LuksNode | Qcow2Node): Promise<Buffer> {
  const data = Buffer.alloc(SIZE);
  await node.readv(0, SIZE, IoVector.of(data));
  return data;
}

const CIPHERS = [
  '',
  'cipher-alg=aes-128,hash-alg=sha1',
  'cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256',
  'cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha512',
  'cipher-alg=aes-128,cipher-mode=ctr,ivgen-alg=plain64',
];

for (const cipher of CIPHERS) {
  t.test(`a LUKS volume, both ways: ${cipher || 'defaults'}`, { skip: noQemuImg }, async t => {
    const file = folder.file('volume.luks');
    fs.rmSync(file, { force: true });
    const given = ['key-secret=sec0', 'iter-time=10', ...(cipher === '' ? [] : cipher.split(','))];
    // qemu-img measures for seconds how long a passphrase takes.
    if (cipher === '' || cipher.includes('essiv')) createByQemu('-f', 'luks', '-o', given.join(), file, String(SIZE));
    else await createByUs('luks', file, given);
    const image = `driver=luks,key-secret=sec0,file.filename=${file}`;
    qemuIo(image, `write -P 0 0 ${SIZE}`, 'write -P 7 1k 100k', 'write -P 9 1M 512');
    const model = Buffer.alloc(SIZE);
    model.fill(7, 1024, 1024 + (100 << 10));
    model.fill(9, 1 << 20, (1 << 20) + 512);
    const graph = graphWithSecret();
    const options = new BlockOptions([['key-secret', 'sec0']]);
    const node = await graph.openTree(file, options, {}, false);
    if (!(node instanceof LuksNode)) throw new Error('not recognised');
    t.equal(node.length, SIZE);
    t.equal((await content(node)).compare(model), 0, 'read');
    await fill(node, model, 4);
    t.equal((await content(node)).compare(model), 0);
    await graph.close();
    qemuImg('convert', ...SECRET, '--image-opts', '-O', 'raw', image, folder.file('plain.raw'));
    t.equal(fs.readFileSync(folder.file('plain.raw')).compare(model), 0, 'and written');
  });
}

for (const extra of ['', 'cluster_size=4k', 'extended_l2=on', 'preallocation=metadata', 'data_file']) {
  t.test(`an encrypted qcow2 image, both ways: ${extra || 'defaults'}`, { skip: noQemuImg }, async t => {
    const file = folder.file('secret.qcow2');
    for (const name of ['secret.qcow2', 'secret.data']) fs.rmSync(folder.file(name), { force: true });
    const options = extra === 'data_file' ? `data_file=${folder.file('secret.data')}` : extra;
    const given = ['encrypt.format=luks', 'encrypt.key-secret=sec0', 'encrypt.iter-time=10', options].filter(
      text => text !== '',
    );
    if (extra === '' || extra === 'data_file') createByQemu('-f', 'qcow2', '-o', given.join(), file, String(SIZE));
    else await createByUs('qcow2', file, given);
    const image = `driver=qcow2,encrypt.key-secret=sec0,file.filename=${file}`;
    // What was only preallocated holds anything at all.
    qemuIo(image, `write -P 0 0 ${SIZE}`, 'write -P 5 5k 300k', 'write -z 64k 3k');
    const model = Buffer.alloc(SIZE);
    model.fill(5, 5120, 5120 + (300 << 10));
    model.fill(0, 65536, 65536 + 3072);
    const graph = graphWithSecret();
    const node = await graph.openTree(file, new BlockOptions([['encrypt.key-secret', 'sec0']]), {}, false);
    if (!(node instanceof Qcow2Node)) throw new Error('not qcow2');
    t.equal((await content(node)).compare(model), 0, 'read');
    await fill(node, model, 9);
    t.equal((await content(node)).compare(model), 0);
    t.match(await checkImage(node, false), { corruptions: 0, leaks: 0 });
    if (extra !== 'data_file') {
      // State of the machine, in pieces of any length, in a snapshot.
      const state = Buffer.alloc(70_001, 0x3c);
      await node.writeVmState(0, IoVector.of(state.subarray(0, 1001)));
      await node.writeVmState(1001, IoVector.of(state.subarray(1001)));
      const when = { dateSeconds: 0, dateNanoseconds: 0, vmClockNs: 0 };
      const snapshot = await startFor(
        node.exclusively(node.snapshots.create({ name: 's', vmStateSize: state.length, ...when })),
      );
      await node.writev(0, 4096, IoVector.of(Buffer.alloc(4096, 1)));
      await start(node.exclusively(node.snapshots.apply(snapshot)));
      const read = Buffer.alloc(state.length);
      await node.readVmState(0, IoVector.of(read));
      t.equal(read.compare(state), 0);
      t.equal((await content(node)).compare(model), 0);
    }
    await graph.close();
    execFileSync('qemu-img', ['check', ...SECRET, '--image-opts', '-q', image]);
    qemuImg('convert', ...SECRET, '--image-opts', '-O', 'raw', image, folder.file('plain.raw'));
    t.equal(fs.readFileSync(folder.file('plain.raw')).compare(model), 0, 'and written');
  });
}

t.test('what a listing says of them', { skip: noQemuImg }, async t => {
  for (const [name, prefix] of [
    ['luks', ''],
    ['qcow2', 'encrypt.'],
  ] as const) {
    const file = folder.file(`listed.${name}`);
    const format = name === 'qcow2' ? ['encrypt.format=luks'] : [];
    await createByUs(name, file, [...format, `${prefix}key-secret=sec0`, `${prefix}iter-time=10`]);
    const theirs = JSON.parse(qemuImg('info', '--output=json', file));
    const graph = graphWithSecret();
    const node = await graph.openTree(file, new BlockOptions([[`${prefix}key-secret`, 'sec0']]), {}, false);
    const ours = imageInfo(node, false);
    t.equal(ours['encrypted'], true);
    t.same(ours['format-specific'], theirs['format-specific'], name);
    await graph.close();
  }
});

t.test('who has no key does not get in', { skip: noQemuImg }, async t => {
  const file = folder.file('locked.luks');
  await createByUs('luks', file, ['key-secret=sec0', 'iter-time=10']);
  const wrong = graphWithSecret('open barley');
  await t.rejects(wrong.openTree(file, new BlockOptions([['key-secret', 'sec0']]), {}, false), {
    message: 'Invalid password, cannot unlock any keyslot',
  });
  await t.rejects(wrong.openTree(file, new BlockOptions(), {}, false), {
    message: "Parameter 'key-secret' is required for cipher",
  });
  t.same(wrong.nodes(), []);
  const { graph } = quietGraph();
  await t.rejects(graph.openTree(file, new BlockOptions([['key-secret', 'sec0']]), {}, false), {
    message: "No secret with id 'sec0'",
  });
  const good = fs.readFileSync(file);
  const random = randomNumbers(3);
  for (let round = 0; round < 30; round++) {
    const bad = Buffer.from(good.subarray(0, 8192));
    // Not the iterations: a header may ask for hours.
    for (let flips = 0; flips < 3; flips++) bad[random(112)] = random(256);
    fs.writeFileSync(file, bad);
    const knowing = graphWithSecret();
    try {
      await knowing.openTree(
        file,
        new BlockOptions([
          ['driver', 'luks'],
          ['key-secret', 'sec0'],
        ]),
        { readOnly: true },
        false,
      );
    } catch (error) {
      t.match(error, { code: /^ERR_/ });
    }
    await knowing.close();
  }
});
