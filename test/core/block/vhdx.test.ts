import fs from 'node:fs';
import t from 'tap';
import { imageInfo } from '../../../core/block/info.ts';
import { crc32c } from '../../../core/block/vhdx/crc32c.ts';
import { seal } from '../../../core/block/vhdx/layout.ts';
import {
  bothWays,
  complaintOfQemu,
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
import { noQemuImg, qemuImg } from './images.ts';

const MIB = 1 << 20;

const VARIANTS: readonly (Variant & { readonly ours: Options })[] = [
  { format: 'vhdx', options: '', size: 20 * MIB + 512, ours: {} },
  {
    format: 'vhdx',
    options: 'block_size=1M,log_size=2M,block_state_zero=off',
    size: 6 * MIB,
    ours: { 'block-size': MIB, 'log-size': 2 * MIB, 'block-state-zero': false },
  },
  {
    format: 'vhdx',
    options: 'subformat=fixed,block_size=1M',
    size: 5 * MIB,
    ours: { subformat: 'fixed', 'block-size': MIB },
  },
  {
    format: 'vhdx',
    options: 'subformat=fixed,block_state_zero=off,block_size=2M',
    size: 5 * MIB,
    ours: { subformat: 'fixed', 'block-state-zero': false, 'block-size': 2 * MIB },
  },
];

/** All but what is new in each image: who made it, the numbers in the headers, and the disk's own. */
function comparable(file: string): Buffer {
  const image = fs.readFileSync(file);
  image.fill(0, 8, 520);
  for (const at of [64 << 10, 128 << 10]) image.fill(0, at + 4, at + 48);
  const metadata = Number(image.readBigUInt64LE((192 << 10) + 48 + 16));
  return image.fill(0, metadata + 65536 + 16, metadata + 65536 + 32);
}

for (const variant of VARIANTS) {
  t.test(`both ways: ${variant.options || 'defaults'}`, { skip: noQemuImg }, async t => {
    const [theirs, ours] = [folder.file('theirs.vhdx'), folder.file('ours.vhdx')];
    createByQemu(theirs, variant);
    await createByUs(ours, 'vhdx', { size: variant.size, ...variant.ours });
    t.ok(comparable(ours).equals(comparable(theirs)), 'we make what qemu-img makes');
    for (const file of [theirs, ours]) {
      await bothWays(t, file, variant, true);
      const said = JSON.parse(qemuImg('info', '--output=json', file));
      t.equal(await opened(file, async node => imageInfo(node, false)['cluster-size']), said['cluster-size']);
    }
  });
}

t.test('CRC-32C is that of the standard', async t => {
  // RFC 3720, B.4; the four bytes that are left out lie behind them.
  t.equal(crc32c(new Uint8Array(32), 32), 0x8a9136aa);
  t.equal(crc32c(new Uint8Array(32).fill(0xff), 32), 0x62a8ab43);
  t.equal(
    crc32c(
      Uint8Array.from({ length: 32 }, (_, index) => index),
      32,
    ),
    0x46dd794e,
  );
});

t.test('what is to be made must be possible', async t => {
  const cases: readonly (readonly [Options, string])[] = [
    [{ size: 2 ** 47 }, 'Image size too large; max of 64TB'],
    [{ size: MIB, 'log-size': 2 ** 32 }, 'Log size must be smaller than 4 GB'],
    [{ size: MIB, 'log-size': 512 }, 'Log size must be a multiple of 1 MB'],
    [{ size: MIB, 'block-size': 512 }, 'Block size must be a multiple of 1 MB'],
    [{ size: MIB, 'block-size': 3 * MIB }, 'Block size must be a power of two'],
    [{ size: MIB, 'block-size': 512 * MIB }, 'Block size must not exceed 268435456'],
  ];
  for (const [options, message] of cases)
    await t.rejects(createByUs(folder.file('impossible.vhdx'), 'vhdx', options), { message });
});

t.test('what is wrong is refused, as by QEMU', { skip: noQemuImg }, async t => {
  const file = folder.file('wrong.vhdx');
  createByQemu(file, { format: 'vhdx', options: 'block_size=1M', size: 4 * MIB });
  qemuIo(file, 'vhdx', 'write 0 64k');
  const good = fs.readFileSync(file);
  const invalid = `Could not open '${file}': Invalid argument`;
  const metadata = 3 * MIB;
  const damage: readonly (readonly [string, (image: Buffer) => void])[] = [
    [
      'No valid VHDX header found',
      image => image.fill(1, (64 << 10) + 8, (64 << 10) + 9).fill(1, (128 << 10) + 8, (128 << 10) + 9),
    ],
    [invalid, image => image.fill(1, 192 << 10, (192 << 10) + 1)],
    [invalid, image => image.writeUInt32LE(3 * MIB, metadata + 65536)],
    [invalid, image => image.writeBigUInt64LE(2n ** 40n + 6n, 2 * MIB)],
    [invalid, image => image.writeBigUInt64LE(BigInt(2 * MIB) + 6n, 2 * MIB)],
    [`Could not open '${file}': Operation not supported`, image => image.writeUInt32LE(4096, metadata + 65536 + 32)],
  ];
  for (const [message, spoil] of damage) {
    const bad = Buffer.from(good);
    spoil(bad);
    fs.writeFileSync(file, bad);
    await t.rejects(
      opened(file, async () => {}, { driver: 'vhdx' }),
      { message },
    );
    t.ok(complaintOfQemu(file, 'vhdx').includes(message), `as by QEMU: ${message}`);
  }
});

t.test('hostile headers and tables are refused or harmless', { skip: noQemuImg }, async t => {
  const file = folder.file('hostile.vhdx');
  createByQemu(file, { format: 'vhdx', options: 'block_size=1M', size: 3 * MIB });
  qemuIo(file, 'vhdx', 'write 0 64k');
  const areas = [
    [64 << 10, 80],
    [128 << 10, 80],
    [192 << 10, 96],
    [MIB, 200],
    [2 * MIB, 24],
    [3 * MIB, 192],
    [3 * MIB + 65536, 40],
  ] as const;
  await hostile(t, file, 'vhdx', areas, (image, random) => {
    if (random(8) === 0) return;
    for (const at of [64 << 10, 128 << 10]) seal(image.subarray(at, at + 4096));
    seal(image.subarray(192 << 10, 256 << 10));
    // Also a log that has something.
    const length = image.readUInt32LE(MIB + 8);
    if (length > 0 && length < 65536) seal(image.subarray(MIB, MIB + length));
    if (random(2) === 0) image.copy(image, (64 << 10) + 48, MIB + 32, MIB + 48);
    for (const at of [64 << 10, 128 << 10]) seal(image.subarray(at, at + 4096));
  });
});

t.test('the power may fail at any moment', { skip: noQemuImg }, async t => {
  const file = folder.file('crash.vhdx');
  createByQemu(file, { format: 'vhdx', options: 'block_size=1M', size: 6 * MIB });
  let replayed = 0;
  await powerFailures(t, file, 'vhdx', 8 * MIB, (broken, end) => {
    const readOnly = complaintOfQemu(broken, 'vhdx');
    if (readOnly.includes('contains a log that needs to be replayed')) replayed++;
    else t.equal(readOnly, '', `QEMU opens it after ${end} operations`);
    const copy = folder.file('repaired.vhdx');
    fs.copyFileSync(broken, copy);
    t.match(qemuImg('check', '-r', 'all', copy), /No errors were found|repaired/);
  });
  t.ok(replayed > 0, `${replayed} times the log had something`);
});

t.test('a log that has something is replayed, or the image stays closed', { skip: noQemuImg }, async t => {
  const file = folder.file('log.vhdx');
  createByQemu(file, { format: 'vhdx', options: 'block_size=1M', size: 4 * MIB });
  qemuIo(file, 'vhdx', 'write -P 5 0 64k');
  // The table as it was before, and headers that say that the log is not done.
  const image = fs.readFileSync(file);
  const entry = image.subarray(MIB, MIB + 8192);
  t.equal(entry.toString('latin1', 0, 4), 'loge');
  image.fill(0, 2 * MIB, 2 * MIB + 8);
  for (const at of [64 << 10, 128 << 10]) {
    entry.copy(image, at + 48, 32, 48);
    seal(image.subarray(at, at + 4096));
  }
  fs.writeFileSync(file, image);
  t.match(complaintOfQemu(file, 'vhdx'), /contains a log that needs to be replayed/);
  await t.rejects(
    opened(file, async () => {}, { 'read-only': true }),
    {
      message: `VHDX image file '${file}' opened read-only, but contains a log that needs to be replayed`,
      hint: /qemu-img check -r all/,
    },
  );
  await opened(file, async () => {});
  qemuIo(file, 'vhdx', 'read -P 5 0 64k');
  t.equal(complaintOfQemu(file, 'vhdx'), '');
});
