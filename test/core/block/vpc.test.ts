import fs from 'node:fs';
import t from 'tap';
import { imageInfo } from '../../../core/block/info.ts';
import { IoVector } from '../../../core/block/io-vector.ts';
import { fit } from '../../../core/block/vpc/geometry.ts';
import {
  bothWays,
  complaintOfQemu,
  contentOf,
  createByQemu,
  createByUs,
  folder,
  hostile,
  opened,
  powerFailures,
  qemuIo,
  type Variant,
} from './image-formats.ts';
import { noQemuImg, qemuImg } from './images.ts';

const CHS_SIZE = fit(8 << 20, false).total * 512;

const VARIANTS: readonly (Variant & { readonly ours: Record<string, string | boolean> })[] = [
  { format: 'vpc', options: 'subformat=dynamic', size: CHS_SIZE, ours: {} },
  { format: 'vpc', options: 'force_size=on', size: (7 << 20) + 512, ours: { 'force-size': true } },
  {
    format: 'vpc',
    options: 'subformat=fixed,force_size=on',
    size: 3 << 20,
    ours: { subformat: 'fixed', 'force-size': true },
  },
];

for (const variant of VARIANTS) {
  t.test(`both ways: ${variant.options}`, { skip: noQemuImg }, async t => {
    const file = folder.file('disk.vpc');
    fs.rmSync(file, { force: true });
    createByQemu(file, variant);
    // A fixed disk says what it is only at its end: QEMU must be told as well.
    const fixed = variant.options.includes('fixed');
    const options = fixed ? { driver: 'vpc' } : {};
    await bothWays(t, file, variant, false, options);
    const theirs = JSON.parse(qemuImg('info', '-f', 'vpc', '--output=json', file));
    const ours = await opened(file, async node => imageInfo(node, false), options);
    t.equal(ours['cluster-size'], theirs['cluster-size']);
    t.equal(ours['virtual-size'], theirs['virtual-size']);
    await createByUs(folder.file('ours.vpc'), 'vpc', { size: variant.size, ...variant.ours });
    const [made, wanted] = [folder.file('ours.vpc'), folder.file('theirs.vpc')].map(name => {
      if (name.includes('theirs')) createByQemu(name, variant);
      const bytes = fs.readFileSync(name);
      // The time, the UUID and the sum over them differ.
      for (const at of [0, bytes.length - 512]) bytes.fill(0, at + 24, at + 28).fill(0, at + 64, at + 84);
      return bytes;
    });
    t.same(made, wanted, 'and we make what qemu-img makes');
    await bothWays(t, folder.file('ours.vpc'), variant, false, options);
  });
}

t.test('the size is that of the geometry, of the footer, or as the user says', { skip: noQemuImg }, async t => {
  for (const size of [1 << 20, 100 << 20, 5e9, 130 * 2 ** 30, 600 * 2 ** 30]) {
    const file = folder.file('size.vpc');
    createByQemu(file, { format: 'vpc', options: '', size: size - (size % 512) });
    const theirs = JSON.parse(qemuImg('info', '--output=json', file))['virtual-size'];
    t.equal(await opened(file, async node => node.length), theirs, String(size));
    t.equal(fit(size - (size % 512), false).total * 512, theirs);
    for (const force_size_calc of ['chs', 'current_size']) {
      const given = qemuImg(
        'info',
        '--output=json',
        '--image-opts',
        `driver=vpc,force_size_calc=${force_size_calc},file.filename=${file}`,
      );
      const length = await opened(file, async node => node.length, { driver: 'vpc', force_size_calc });
      t.equal(length, JSON.parse(given)['virtual-size']);
    }
  }
  await t.rejects(createByUs(folder.file('odd.vpc'), 'vpc', { size: 1 << 20 }), {
    message: 'The requested image size cannot be represented in CHS geometry',
    hint: /^Try size=1079296 or force-size=on/,
  });
  await t.rejects(createByUs(folder.file('big.vpc'), 'vpc', { size: 2041 * 2 ** 30, 'force-size': true }), {
    message: 'Disk size is too large, max size is 2040 GiB',
  });
});

t.test('the bits of a block that another program wrote are set before data is', { skip: noQemuImg }, async t => {
  const file = folder.file('bits.vpc');
  createByQemu(file, { format: 'vpc', options: 'force_size=on', size: 4 << 20 });
  qemuIo(file, 'vpc', 'write -P 3 0 64k');
  const image = fs.readFileSync(file);
  const bitmap = image.readUInt32BE(1536) * 512;
  image.fill(0, bitmap, bitmap + 512);
  fs.writeFileSync(file, image);
  await opened(file, async node => {
    await node.writev(512, 512, IoVector.of(Buffer.alloc(512, 9)));
    t.equal((await contentOf(node))[512], 9);
  });
  t.ok(
    fs
      .readFileSync(file)
      .subarray(bitmap, bitmap + 512)
      .every(byte => byte === 0xff),
  );
});

t.test('what is wrong is said in words of QEMU', { skip: noQemuImg }, async t => {
  const file = folder.file('wrong.vpc');
  createByQemu(file, { format: 'vpc', options: 'force_size=on', size: 8 << 20 });
  const good = fs.readFileSync(file);
  const damage: readonly (readonly [string, (image: Buffer) => Buffer | void])[] = [
    ['Incorrect header checksum', image => void image.writeUInt8(7, 60)],
    ['Invalid header magic', image => void image.write('cxspoiled', 512)],
    ['Invalid block size 3145728', image => void image.writeUInt32BE(3 << 20, 544)],
    ['Page table too small', image => void image.writeUInt32BE(1, 540)],
    ['invalid VPC image', image => void image.write('connextix', 0)],
    [
      'block-vpc: free_data_block_offset points after the end of file. The image has been truncated.',
      image => void image.writeUInt32BE(5000, 1536),
    ],
    ['File too small for a VHD header', () => Buffer.alloc(0)],
  ];
  for (const [message, spoil] of damage) {
    const bad = Buffer.from(good);
    const shorter = spoil(bad);
    if (message === 'invalid VPC image') bad.fill(0, bad.length - 512);
    fs.writeFileSync(file, shorter ?? bad);
    await t.rejects(
      opened(file, async () => {}, { driver: 'vpc' }),
      { message },
    );
    t.ok(complaintOfQemu(file, 'vpc').includes(message), `as by QEMU: ${message}`);
  }
  await t.rejects(
    opened(file, async () => {}, { driver: 'vpc', force_size_calc: 'guess' }),
    {
      message: "Invalid size calculation mode: 'guess'",
    },
  );
});

t.test('hostile headers are refused, whatever they say', { skip: noQemuImg }, async t => {
  const file = folder.file('hostile.vpc');
  createByQemu(file, { format: 'vpc', options: 'force_size=on', size: 8 << 20 });
  qemuIo(file, 'vpc', 'write 0 64k', 'write 5M 64k');
  const areas = [
    [8, 80],
    [512, 48],
    [1536, 16],
  ] as const;
  await hostile(t, file, 'vpc', areas, (image, random) => {
    if (random(8) === 0) return;
    // Mostly with a sum that is right, or nothing behind it would be reached.
    image.writeUInt32BE(0, 64);
    let sum = 0;
    for (const byte of image.subarray(0, 512)) sum += byte;
    image.writeUInt32BE(~sum >>> 0, 64);
  });
});

t.test('the power may fail at any moment', { skip: noQemuImg }, async t => {
  const file = folder.file('crash.vpc');
  createByQemu(file, { format: 'vpc', options: 'force_size=on', size: 6 << 20 });
  await powerFailures(t, file, 'vpc', 2048, broken => void qemuImg('info', broken));
});
