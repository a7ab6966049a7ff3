import fs from 'node:fs';
import t from 'tap';
import { imageInfo } from '../../../core/block/info.ts';
import {
  bothWays,
  complaintOfQemu,
  createByQemu,
  createByUs,
  folder,
  hostile,
  opened,
  powerFailures,
  qemuIo,
  type Variant,
} from './image-formats.ts';
import { noQemuImg, qemuCheck, qemuImg } from './images.ts';

const VARIANTS: readonly (Variant & { readonly ours: Record<string, string> })[] = [
  { format: 'vdi', options: '', size: (8 << 20) + 512, ours: {} },
  { format: 'vdi', options: 'static=on', size: 5 << 20, ours: { preallocation: 'metadata' } },
];

for (const variant of VARIANTS) {
  t.test(`both ways: ${variant.options || 'defaults'}`, { skip: noQemuImg }, async t => {
    const file = folder.file('disk.vdi');
    fs.rmSync(file, { force: true });
    createByQemu(file, variant);
    await bothWays(t, file, variant, true);
    const theirs = JSON.parse(qemuImg('info', '--output=json', file));
    const ours = await opened(file, async node => imageInfo(node, false));
    t.equal(ours['cluster-size'], theirs['cluster-size']);
    await createByUs(folder.file('ours.vdi'), 'vdi', { size: variant.size, ...variant.ours });
    createByQemu(folder.file('theirs.vdi'), variant);
    const [made, wanted] = ['ours.vdi', 'theirs.vdi'].map(name =>
      // The two UUIDs differ.
      fs.readFileSync(folder.file(name)).fill(0, 392, 424),
    );
    t.same(made, wanted, 'and we make what qemu-img makes');
    await bothWays(t, folder.file('ours.vdi'), variant, true);
  });
}

t.test('what is wrong is said in words of QEMU', { skip: noQemuImg }, async t => {
  const file = folder.file('wrong.vdi');
  createByQemu(file, { format: 'vdi', options: '', size: 8 << 20 });
  const good = fs.readFileSync(file);
  const damage: readonly (readonly [string, (image: Buffer) => void])[] = [
    ['Image not in VDI format (bad signature 00000007)', image => image.writeUInt32LE(7, 64)],
    ['unsupported VDI image (version 2.3)', image => image.writeUInt32LE(0x20003, 68)],
    ['unsupported VDI image (unaligned block map offset 0x201)', image => image.writeUInt32LE(0x201, 340)],
    ['unsupported VDI image (unaligned data offset 0x401)', image => image.writeUInt32LE(0x401, 344)],
    ['unsupported VDI image (sector size 4096 is not 512)', image => image.writeUInt32LE(4096, 360)],
    ['unsupported VDI image (block size 65536 is not 1048576)', image => image.writeUInt32LE(65536, 376)],
    [
      'unsupported VDI image (disk size 9437184, image bitmap has room for 8388608)',
      image => image.writeBigUInt64LE(BigInt((9 << 20) - 1), 368),
    ],
    ['unsupported VDI image (non-NULL link UUID)', image => image.writeUInt32LE(1, 424)],
    ['unsupported VDI image (non-NULL parent UUID)', image => image.writeUInt32LE(1, 440)],
    [
      'Unsupported VDI image size (size is 0x2000000000000, max supported is 0x1fffff8000000)',
      image => image.writeBigUInt64LE(0x2000000000000n, 368),
    ],
    [
      'unsupported VDI image (too many blocks 536870913, max is 536870784)',
      image => image.writeUInt32LE(0x20000001, 384),
    ],
  ];
  for (const [message, spoil] of damage) {
    const bad = Buffer.from(good);
    spoil(bad);
    fs.writeFileSync(file, bad);
    await t.rejects(
      opened(file, async () => {}, { driver: 'vdi' }),
      { message },
    );
    t.ok(complaintOfQemu(file, 'vdi').includes(message), `as by QEMU: ${message}`);
  }
  await t.rejects(createByUs(file, 'vdi', { size: 1 << 20, preallocation: 'full' }), {
    message: 'Preallocation mode not supported for vdi',
  });
});

t.test('hostile headers and maps are refused or harmless', { skip: noQemuImg }, async t => {
  const file = folder.file('hostile.vdi');
  createByQemu(file, { format: 'vdi', options: '', size: 8 << 20 });
  qemuIo(file, 'vdi', 'write 0 64k', 'write 5M 64k');
  const areas = [
    [64, 16],
    [340, 120],
    [512, 32],
  ] as const;
  await hostile(t, file, 'vdi', areas);
});

t.test('the power may fail at any moment', { skip: noQemuImg }, async t => {
  const file = folder.file('crash.vdi');
  createByQemu(file, { format: 'vdi', options: '', size: 6 << 20 });
  await powerFailures(t, file, 'vdi', 1024, broken => {
    const { output } = qemuCheck(broken);
    // A block that nobody has is no damage: it was counted, and its entry did not come.
    t.notMatch(output, /also used by|too large/);
  });
});
