import fs from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { imageInfo } from '../../../core/block/info.ts';
import { IoVector } from '../../../core/block/io-vector.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { writeFlag } from '../../../core/block/requests.ts';
import {
  bothWays,
  compareByQemu,
  complaintOfQemu,
  contentOf,
  createByQemu,
  createByUs,
  folder,
  hostile,
  type Options,
  opened,
  powerFailures,
  qemuIo,
  type Variant,
} from './image-formats.ts';
import { noQemuImg, qemuCheck, qemuImg, quietGraph, randomNumbers } from './images.ts';

const SIZE = (5 << 20) + 512;

/** An image of ours; `parts` are the files of its extents. */
async function create(file: string, options: Options, parts: readonly string[] = []): Promise<void> {
  const { graph } = quietGraph();
  const extents: [string, string][] = [];
  const nodes = [];
  for (const [index, part] of parts.entries()) {
    fs.writeFileSync(part, '');
    const node = await graph.openTree(part, new BlockOptions(), {}, true);
    nodes.push(node);
    extents.push([`extents.${index}`, node.nodeName]);
  }
  await createByUs(file, 'vmdk', { ...options, ...Object.fromEntries(extents) }, graph);
  for (const node of nodes) await graph.released(node);
  await graph.close();
}

const VARIANTS: readonly (Variant & { readonly ours: Options; readonly parts: readonly string[] })[] = [
  { format: 'vmdk', options: '', size: SIZE, ours: {}, parts: [] },
  {
    format: 'vmdk',
    options: 'zeroed_grain=on,adapter_type=lsilogic,hwversion=7',
    size: SIZE,
    ours: { 'zeroed-grain': true, 'adapter-type': 'lsilogic', hwversion: '7' },
    parts: [],
  },
  {
    format: 'vmdk',
    options: 'subformat=monolithicFlat',
    size: SIZE,
    ours: { subformat: 'monolithicFlat' },
    parts: ['disk-flat.vmdk'],
  },
  {
    format: 'vmdk',
    options: 'subformat=twoGbMaxExtentFlat',
    size: SIZE,
    ours: { subformat: 'twoGbMaxExtentFlat' },
    parts: ['disk-f001.vmdk'],
  },
  {
    format: 'vmdk',
    options: 'subformat=twoGbMaxExtentSparse',
    size: SIZE,
    ours: { subformat: 'twoGbMaxExtentSparse' },
    parts: ['disk-s001.vmdk'],
  },
];

/** What an image and its extents are, but for the identity of the content. */
function filesOf(dir: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const name of fs.readdirSync(dir).sort()) {
    const bytes = fs.readFileSync(path.join(dir, name)).toString('latin1');
    // Its length counts: what follows is moved by it.
    files.set(name, bytes.replace(/\nCID=[0-9a-f]+/, '\nCID=').replace(/(ddb.toolsVersion = "[0-9]+"\n)\0*/, '$1'));
  }
  return files;
}

for (const variant of VARIANTS) {
  t.test(`both ways: ${variant.options || 'defaults'}`, { skip: noQemuImg }, async t => {
    const [theirs, ours] = ['theirs', 'ours'].map(name => folder.file(`${name}-${variant.options.length}`));
    if (theirs === undefined || ours === undefined) throw new Error('no folder');
    for (const dir of [theirs, ours]) fs.mkdirSync(dir);
    createByQemu(path.join(theirs, 'disk.vmdk'), variant);
    await create(
      path.join(ours, 'disk.vmdk'),
      { size: SIZE, ...variant.ours },
      variant.parts.map(part => path.join(ours, part)),
    );
    t.same(filesOf(ours), filesOf(theirs), 'we make what qemu-img makes');
    for (const dir of [theirs, ours]) {
      const file = path.join(dir, 'disk.vmdk');
      await bothWays(t, file, variant, true);
      const said = JSON.parse(qemuImg('info', '--output=json', file));
      const info = await opened(file, async node => imageInfo(node, false));
      t.same(info['format-specific'], said['format-specific']);
      t.equal(info['cluster-size'], said['cluster-size']);
    }
  });
}

t.test('a disk in several files', { skip: noQemuImg }, async t => {
  const size = 2 ** 32 + 65536;
  for (const subformat of ['twoGbMaxExtentSparse', 'twoGbMaxExtentFlat']) {
    const file = folder.file(`split-${subformat}.vmdk`);
    createByQemu(file, { format: 'vmdk', options: `subformat=${subformat}`, size });
    qemuIo(file, 'vmdk', `write -P 7 ${2 ** 31 - 65536} 128k`, `write -P 8 ${size - 512} 512`);
    await opened(file, async node => {
      t.equal(node.length, size);
      const data = Buffer.alloc(200_000);
      await node.readv(2 ** 31 - 100_000, data.length, IoVector.of(data));
      t.equal(data.indexOf(7), 100_000 - 65536);
      t.equal(data.lastIndexOf(7), 100_000 + 65535);
      await node.writev(2 ** 32 - 1000, 2000, IoVector.of(Buffer.alloc(2000, 9)));
    });
    qemuIo(file, 'vmdk', `read -P 9 ${2 ** 32 - 1000} 2000`, `read -P 8 ${size - 512} 512`, `read -P 7 ${2 ** 31} 64k`);
    t.equal(qemuCheck(file).status, 0);
  }
  await t.rejects(create(folder.file('few.vmdk'), { size, subformat: 'twoGbMaxExtentFlat' }, [folder.file('few-1')]), {
    message: 'Extent [1] not specified',
  });
  await t.rejects(create(folder.file('many.vmdk'), { size: 512 }, [folder.file('many-1')]), {
    message: 'List of extents contains unused extents',
  });
});

t.test('streamOptimized: compressed grains, read and written once', { skip: noQemuImg }, async t => {
  const model = Buffer.alloc(SIZE);
  const random = randomNumbers(4);
  for (let at = 0; at < 2 << 20; at++) model[at] = random(256);
  model.fill('compresses well', 3 << 20, (3 << 20) + 300_000);
  model.fill(5, SIZE - 512);
  const raw = folder.file('stream.raw');
  const file = folder.file('stream.vmdk');
  fs.writeFileSync(raw, model);
  qemuImg('convert', '-f', 'raw', '-O', 'vmdk', '-o', 'subformat=streamOptimized', raw, file);
  await opened(file, async node => {
    t.equal((await contentOf(node)).compare(model), 0);
    await t.rejects(async () => node.writev(0, 65536, IoVector.of(Buffer.alloc(65536, 1))), { code: 'ERR_BLOCK_EIO' });
    await t.rejects(async () => node.writev(4 << 20, 512, IoVector.of(Buffer.alloc(512, 1))), {
      code: 'ERR_BLOCK_EINVAL',
    });
    await node.writev(4 << 20, 65536, IoVector.of(Buffer.alloc(65536, 6)), 0, writeFlag.COMPRESSED);
    model.fill(6, 4 << 20, (4 << 20) + 65536);
    t.equal((await contentOf(node)).compare(model), 0);
  });
  compareByQemu(file, 'vmdk', model);
  t.equal(qemuCheck(file).status, 0);
  const ours = folder.file('our-stream.vmdk');
  await create(ours, { size: SIZE, subformat: 'streamOptimized' });
  await opened(ours, async node => {
    for (let at = 0; at < SIZE; at += 65536) {
      const part = model.subarray(at, at + 65536);
      if (part.some(byte => byte !== 0)) await node.writev(at, part.length, IoVector.of(part));
    }
  });
  compareByQemu(ours, 'vmdk', model);
  t.equal(qemuCheck(ours).status, 0);
  // As VMware writes it: what the header lacks stands in the footer.
  const image = fs.readFileSync(file);
  const header = Buffer.from(image.subarray(0, 512));
  image.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, 56);
  const marker = Buffer.alloc(512);
  marker.writeBigUInt64LE(1n);
  marker.writeUInt32LE(3, 12);
  fs.writeFileSync(
    file,
    Buffer.concat([image, Buffer.alloc((512 - (image.length % 512)) % 512), marker, header, Buffer.alloc(512)]),
  );
  await opened(file, async node => t.equal((await contentOf(node)).compare(model), 0));
  compareByQemu(file, 'vmdk', model);
});

t.test('what backs a disk must be what backed it', { skip: noQemuImg }, async t => {
  const base = folder.file('base.vmdk');
  const top = folder.file('top.vmdk');
  createByQemu(base, { format: 'vmdk', options: '', size: SIZE });
  qemuIo(base, 'vmdk', 'write -P 1 0 2M');
  createByQemu(top, { format: 'vmdk', options: '', size: SIZE }, '-b', 'base.vmdk', '-F', 'vmdk');
  await create(folder.file('ours.vmdk'), { size: SIZE, 'backing-file': 'base.vmdk' });
  for (const name of ['top.vmdk', 'ours.vmdk']) {
    const file = folder.file(name);
    const model = Buffer.alloc(SIZE);
    model.fill(1, 0, 2 << 20);
    await opened(file, async node => {
      t.equal(node.backing?.driver.name, 'vmdk');
      t.match(imageInfo(node, false), { 'backing-filename': 'base.vmdk', 'backing-filename-format': 'vmdk' });
      for (const [offset, bytes] of [
        [1000, 100],
        [(2 << 20) - 300, 600],
        [131072, 65536],
      ] as const) {
        await node.writev(offset, bytes, IoVector.of(Buffer.alloc(bytes, 3)));
        model.fill(3, offset, offset + bytes);
      }
      await node.writeZeroes(200_000, 150_000);
      model.fill(0, 200_000, 350_000);
      t.equal((await contentOf(node)).compare(model), 0);
    });
    compareByQemu(file, 'vmdk', model);
  }
  qemuIo(base, 'vmdk', 'write -P 2 0 512');
  await opened(top, async node => {
    await t.rejects(async () => node.readv(1 << 20, 512, IoVector.of(Buffer.alloc(512))), { code: 'ERR_BLOCK_EINVAL' });
  });
  await t.rejects(
    create(folder.file('flat.vmdk'), { size: 512, subformat: 'monolithicFlat', 'backing-file': 'base.vmdk' }),
    {
      message: "Flat image can't have backing file",
    },
  );
  fs.writeFileSync(folder.file('base.raw'), Buffer.alloc(1024));
  await t.rejects(create(folder.file('no.vmdk'), { size: 512, 'backing-file': 'base.raw' }), {
    message: 'Invalid backing file format: raw. Must be vmdk',
  });
});

t.test('what is wrong is said in words of QEMU', { skip: noQemuImg }, async t => {
  const file = folder.file('wrong.vmdk');
  createByQemu(file, { format: 'vmdk', options: '', size: 8 << 20 });
  const good = fs.readFileSync(file);
  const text = (line: string, type = 'monolithicFlat'): Buffer =>
    Buffer.from(`# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="${type}"\n${line}\n`);
  const damage: readonly (readonly [string, (image: Buffer) => Buffer | undefined])[] = [
    ['Unsupported VMDK version 4', image => void image.writeUInt32LE(4, 4)],
    ['VMDK version 3 must be read only', image => void image.writeUInt32LE(3, 4)],
    ['L2 table size too big', image => void image.writeUInt32LE(513, 44)],
    ['L1 entry size is invalid', image => void image.writeUInt32LE(0, 44)],
    ['Invalid granularity, image may be corrupt', image => void image.writeBigUInt64LE(0x300000n, 20)],
    ['L1 size too big', image => void image.writeBigUInt64LE(1n << 42n, 12)],
    ['File truncated, expecting at least 5120000 bytes', image => void image.writeBigUInt64LE(10000n, 64)],
    ['Invalid footer', image => void image.writeBigInt64LE(-1n, 56)],
    ["Unsupported image type 'fullDevice'", () => text('', 'fullDevice')],
    ['Invalid extent line: RW 100 FLAT "a.vmdk"', () => text('RW 100 FLAT "a.vmdk"')],
    ['invalid VMDK image descriptor', () => Buffer.from('# Disk DescriptorFile\nversion=1\nCID=1\n')],
  ];
  for (const [message, spoil] of damage) {
    const bad = Buffer.from(good);
    fs.writeFileSync(file, spoil(bad) ?? bad);
    await t.rejects(
      opened(file, async () => {}, { driver: 'vmdk' }),
      { message },
    );
    if (!message.includes('read only')) t.ok(complaintOfQemu(file, 'vmdk').includes(message), `as by QEMU: ${message}`);
  }
  fs.writeFileSync(file, text('RW 100 FLAT "nbd:localhost:1" 0'));
  await t.rejects(
    opened(file, async () => {}),
    { message: /No such file or directory/ },
    'a descriptor names files only',
  );
});

t.test('hostile headers and tables are refused or harmless', { skip: noQemuImg }, async t => {
  const file = folder.file('hostile.vmdk');
  createByQemu(file, { format: 'vmdk', options: '', size: 8 << 20 });
  qemuIo(file, 'vmdk', 'write 0 64k', 'write 5M 64k');
  await hostile(t, file, 'vmdk', [
    [4, 76],
    [512, 500],
    [21 * 512, 16],
    [22 * 512, 16],
    [26 * 512, 8],
    [27 * 512, 16],
  ]);
  qemuImg('convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized', file, folder.file('packed.vmdk'));
  await hostile(t, folder.file('packed.vmdk'), 'vmdk', [
    [4, 76],
    [26 * 512, 516],
    [65536, 64],
  ]);
  const flat = folder.file('hostile-flat.vmdk');
  createByQemu(flat, { format: 'vmdk', options: 'subformat=monolithicFlat', size: 1 << 20 });
  await hostile(t, flat, 'vmdk', [[0, fs.statSync(flat).size]]);
});

t.test('the power may fail at any moment', { skip: noQemuImg }, async t => {
  const file = folder.file('crash.vmdk');
  createByQemu(file, { format: 'vmdk', options: '', size: 3 << 20 });
  await powerFailures(t, file, 'vmdk', 65536, (broken, end) => {
    // Before its descriptor is on the disk anew it may be torn.
    if (end > 8) t.equal(qemuCheck(broken).status, 0);
  });
});
