import t, { type Test } from 'tap';
import { eject, insertMedium } from '../../../core/block/media.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import { scsiCd, scsiHd } from '../../../devices/scsi/scsi-disk.ts';
import { settled, VirtioScsiLab } from './virtio-lab.ts';

t.setTimeout(300_000);

const BLOCKS = 4096;
const BLOCK = 512;
const GOOD = 0;
const CHECK_CONDITION = 2;

/** Every block says which it is. */
function numbered(blocks = BLOCKS, size = BLOCK): Buffer {
  const image = Buffer.alloc(blocks * size);
  for (let block = 0; block < blocks; block++) image.fill(block % 251, block * size, (block + 1) * size);
  return image;
}

async function disk(
  t: Test,
  props: Readonly<Record<string, string>> = {},
  drive: readonly (readonly [string, string])[] = [],
): Promise<{ lab: VirtioScsiLab; image: () => Buffer }> {
  const lab = await VirtioScsiLab.create(t);
  const image = await lab.image('d', numbered(), drive);
  lab.plug(scsiHd, { drive: 'd', ...props });
  await lab.ready();
  return { lab, image };
}

const be32 = (bytes: Uint8Array, at: number): number =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(at);
const text = (bytes: Uint8Array, at: number, length: number): string =>
  Buffer.from(bytes.subarray(at, at + length)).toString('latin1');

t.test('a reset is told first, then that there are new logical units, each once', async t => {
  const lab = await VirtioScsiLab.create(t);
  await lab.image('d', numbered());
  lab.plug(scsiHd, { drive: 'd' });
  t.equal((await lab.run([0x12, 0, 0, 0, 36, 0], { in: 36 })).status, GOOD, 'INQUIRY does not wait for it');
  const first = await lab.run([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], { in: 8 });
  t.equal(first.status, CHECK_CONDITION);
  t.equal(first.why, '06/29/00');
  t.equal((await lab.run([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], { in: 8 })).why, '06/3f/0e');
  t.equal((await lab.run([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], { in: 8 })).status, GOOD);
});

t.test('who it is: INQUIRY and vital product data', async t => {
  const { lab } = await disk(t, {
    serial: 'S-1234567',
    vendor: 'ACME',
    product: 'ROCKET',
    ver: '9.1',
    wwn: '0x5000c50015ea71ac',
    port_wwn: '0x5000c50015ea71ad',
    port_index: '2',
    rotation_rate: '7200',
    min_io_size: '4096',
    opt_io_size: '65536',
    discard_granularity: '8192',
  });
  const standard = (await lab.run([0x12, 0, 0, 0, 96, 0], { in: 96 })).data;
  t.same([...standard.subarray(0, 8)], [0, 0, 5, 0x12, 91, 0, 0, 0x12]);
  t.equal(text(standard, 8, 28), 'ACME    ROCKET          9.1\0');
  const page = async (code: number): Promise<Uint8Array> =>
    (await lab.run([0x12, 1, code, 0, 255, 0], { in: 255 })).data;
  t.same([...(await page(0)).subarray(0, 10)], [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
  t.equal(text(await page(0x80), 3, 10), '\tS-1234567');
  const designators = Buffer.from(await page(0x83));
  t.equal(designators[3], 13 + 12 + 12 + 8);
  t.equal(designators.toString('latin1', 8, 17), 'S-1234567');
  t.equal(designators.toString('hex', 17, 29), '010300085000c50015ea71ac');
  t.equal(designators.toString('hex', 29, 41), '619300085000c50015ea71ad');
  t.equal(designators.toString('hex', 41, 49), '6194000400000002');
  const limits = await page(0xb0);
  t.equal(limits[4], 1, 'WSNZ');
  t.same([limits[7], be32(limits, 12)], [8, 128], 'transfers: granularity, and the best length');
  t.equal(be32(limits, 20), 2 ** 30 / BLOCK, 'largest UNMAP');
  t.equal(be32(limits, 28), 16, 'granularity of UNMAP');
  t.same([...(await page(0xb1)).subarray(3, 6)], [0x3c, 7200 >> 8, 7200 & 0xff]);
  t.same([...(await page(0xb2)).subarray(3, 7)], [4, 0, 0xe0, 2]);
  t.equal((await lab.run([0x12, 1, 0x99, 0, 255, 0], { in: 255 })).why, '05/24/00');
  t.equal((await lab.run([0x12, 0, 1, 0, 36, 0], { in: 36 })).why, '05/24/00', 'a page without EVPD');
});

t.test('all ways to read and write blocks', async t => {
  const { lab, image } = await disk(t);
  const reads: readonly (readonly number[])[] = [
    [0x08, 0, 1, 2, 3, 0],
    [0x28, 0, 0, 0, 1, 2, 0, 0, 3, 0],
    [0xa8, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 0],
    [0x88, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 0],
  ];
  for (const cdb of reads) {
    const { status, data, residual } = await lab.run(cdb, { in: 3 * BLOCK });
    t.equal(status, GOOD);
    t.equal(residual, 0);
    t.same(Buffer.from(data), numbered().subarray(0x102 * BLOCK, 0x105 * BLOCK), `READ ${cdb.length}`);
  }
  const writes: readonly (readonly number[])[] = [
    [0x0a, 0, 0, 8, 2, 0],
    [0x2a, 0, 0, 0, 0, 16, 0, 0, 2, 0],
    [0x2e, 0, 0, 0, 0, 24, 0, 0, 2, 0],
    [0xaa, 0, 0, 0, 0, 32, 0, 0, 0, 2, 0, 0],
    [0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 2, 0, 0],
  ];
  for (const [index, cdb] of writes.entries()) {
    const out = Buffer.alloc(2 * BLOCK, 0x60 + index);
    t.equal((await lab.run(cdb, { out })).status, GOOD);
    t.same(image().subarray((8 + 8 * index) * BLOCK, (10 + 8 * index) * BLOCK), out, `WRITE ${cdb.length}`);
  }
  const long = await lab.run([0x08, 0, 0, 0, 0, 0], { in: 256 * BLOCK });
  t.equal(long.status, GOOD, 'READ (6) of 0 blocks is of 256');
  t.same(Buffer.from(long.data), image().subarray(0, 256 * BLOCK));
  const all = await lab.run([0x28, 0, 0, 0, 0, 0, 0, 0x10, 0, 0], { in: BLOCKS * BLOCK });
  t.same(Buffer.from(all.data), image(), 'the whole disk at once');
});

t.test('what it refuses', async t => {
  const { lab } = await disk(t);
  const why = async (cdb: readonly number[], out?: number, wanted?: number): Promise<string> =>
    (await lab.run(cdb, { ...(out !== undefined && { out: Buffer.alloc(out) }), ...(wanted && { in: wanted }) })).why;
  t.equal(await why([0x28, 0, 0, 0, 0x10, 0, 0, 0, 1, 0], undefined, BLOCK), '05/21/00', 'beyond the end');
  t.equal(await why([0x28, 0, 0, 0, 0x10, 0, 0, 0, 0, 0]), '', 'no blocks at the very end');
  t.equal(await why([0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], undefined, BLOCK), '05/24/00', 'protection information');
  const far = [0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1, 0, 0];
  t.equal(await why(far, undefined, BLOCK), '05/21/00', 'the last address that there is');
  t.equal(await why([0xff, 0, 0, 0, 0, 0]), '05/20/00', 'a group without commands');
  t.equal(await why([0x01, 0, 0, 0, 0, 0]), '05/20/00', 'no disk rewinds');
  t.equal(await why([0x2f, 2, 0, 0, 0, 0, 0, 0, 1, 0], BLOCK), '05/24/00', 'VERIFY compares nothing');
  t.equal(await why([0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0]), '');
  t.equal(await why([0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0], undefined, 12), '', 'even a disk has a table of contents');
  t.equal(await why([0x46, 0, 0, 0, 0, 0, 0, 0, 40, 0], undefined, 40), '05/24/00', 'but no configuration');
  t.equal((await lab.run([0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0], { in: BLOCK })).response, 1, 'too little room: overrun');
  t.equal((await lab.run([0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], { in: BLOCK })).response, 1, 'the wrong way');
  t.equal((await lab.run([0, 0, 0, 0, 0, 0], { target: 7 })).response, 3, 'no such target');
});

t.test('a disk that is only read', async t => {
  const { lab } = await disk(t, {}, [['readonly', 'on']]);
  t.equal((await lab.run([0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], { out: Buffer.alloc(BLOCK) })).why, '07/27/00');
  t.equal((await lab.run([0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0], { out: Buffer.alloc(BLOCK) })).why, '07/27/00');
  const sense = (await lab.run([0x1a, 0, 0x3f, 0, 255, 0], { in: 255 })).data;
  t.equal((sense[2] ?? 0) & 0x80, 0x80, 'write protected');
});

t.test('WRITE SAME and UNMAP', async t => {
  const { lab, image } = await disk(t);
  const zeroes = (from: number, to: number): boolean =>
    image()
      .subarray(from * BLOCK, to * BLOCK)
      .every(byte => byte === 0);
  t.equal((await lab.run([0x41, 0, 0, 0, 0, 8, 0, 0, 4, 0], { out: Buffer.alloc(BLOCK) })).status, GOOD);
  t.ok(zeroes(8, 12));
  const block = Buffer.from(Array.from({ length: BLOCK }, (_, at) => at & 0xff));
  const same = [0x93, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 3, 5, 0, 0];
  t.equal((await lab.run(same, { out: block })).status, GOOD);
  for (const at of [100, 101, 500, 872]) t.same(image().subarray(at * BLOCK, (at + 1) * BLOCK), block, `block ${at}`);
  t.same(image().subarray(873 * BLOCK, 874 * BLOCK), numbered().subarray(873 * BLOCK, 874 * BLOCK));
  t.equal((await lab.run([0x93, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0])).status, GOOD, 'without data: zeroes');
  t.ok(zeroes(20, 22));
  t.equal((await lab.run([0x41, 0, 0, 0, 0, 8, 0, 0, 0, 0], { out: block })).why, '05/24/00', 'of no blocks');
  const unmap = Buffer.alloc(40);
  unmap.writeUInt16BE(38, 0);
  unmap.writeUInt16BE(32, 2);
  unmap.writeUInt32BE(40, 12);
  unmap.writeUInt32BE(8, 16);
  unmap.writeUInt32BE(64, 28);
  unmap.writeUInt32BE(8, 32);
  t.equal((await lab.run([0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], { out: unmap })).status, GOOD);
  unmap.writeUInt32BE(BLOCKS, 28);
  t.equal((await lab.run([0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], { out: unmap })).why, '05/21/00', 'beyond the end');
  unmap.writeUInt16BE(31, 2);
  t.equal((await lab.run([0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], { out: unmap })).why, '05/1a/00', 'half a descriptor');
});

t.test('capacity and geometry', async t => {
  const { lab } = await disk(t, {
    cyls: '100',
    heads: '4',
    secs: '10',
    physical_block_size: '4096',
  });
  const ten = (await lab.run([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], { in: 8 })).data;
  t.same([be32(ten, 0), be32(ten, 4)], [BLOCKS - 1, BLOCK]);
  const sixteen = (await lab.run([0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], { in: 32 })).data;
  t.same([be32(sixteen, 0), be32(sixteen, 4), be32(sixteen, 8)], [0, BLOCKS - 1, BLOCK]);
  t.same([...sixteen.subarray(12, 16)], [0, 3, 0x80, 0], 'physical blocks of 8, and UNMAP');
  const rigid = (await lab.run([0x1a, 8, 4, 0, 255, 0], { in: 255 })).data;
  t.same([...rigid.subarray(4, 10)], [4, 0x16, 0, 0, 100, 4]);
});

t.test('the write cache is turned off by MODE SELECT, and nothing else is changed', async t => {
  const { lab } = await disk(t);
  const cache = async (): Promise<Uint8Array> =>
    (await lab.run([0x1a, 8, 8, 0, 255, 0], { in: 255 })).data.subarray(4, 24);
  const page = Buffer.from(await cache());
  t.same([...page.subarray(0, 3)], [8, 0x12, 4]);
  page[2] = 0;
  const list = Buffer.concat([Buffer.alloc(4), page]);
  t.equal((await lab.run([0x15, 0x10, 0, 0, list.length, 0], { out: list })).status, GOOD);
  t.equal((await cache())[2], 0);
  t.equal(lab.drives.graph.backend('d')?.writeCache, false);
  page[3] = 1;
  const wrong = Buffer.concat([Buffer.alloc(4), page]);
  t.equal((await lab.run([0x15, 0x10, 0, 0, wrong.length, 0], { out: wrong })).why, '05/26/00');
  t.equal((await lab.run([0x15, 0x10, 0, 0, wrong.length - 1, 0], { out: wrong.subarray(0, -1) })).why, '05/1a/00');
  t.equal((await lab.run([0x15, 0, 0, 0, list.length, 0], { out: list })).why, '05/24/00', 'without page format');
  t.equal((await lab.run([0x1a, 8, 0xc8, 0, 255, 0], { in: 255 })).why, '05/39/00', 'nothing is saved');
});

t.test('logical units: what is there, and what a target says of those that are not', async t => {
  const lab = await VirtioScsiLab.create(t);
  for (const [id, lun] of [
    ['a', '1'],
    ['b', '300'],
  ] as const) {
    await lab.image(id, numbered(16));
    lab.plug(scsiHd, { drive: id, 'scsi-id': '5', lun });
  }
  const luns = await lab.run([0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], { target: 5, in: 64 });
  t.equal(luns.status, GOOD);
  t.equal(be32(luns.data, 0), 24);
  t.equal(Buffer.from(luns.data.subarray(8, 32)).toString('hex'), '0000000000000000412c0000000000000001000000000000');
  const other = await lab.run([0x12, 0, 0, 0, 36, 0], { target: 5, lun: 9, in: 36 });
  t.equal(other.data[0], 0x7f, 'no logical unit there');
  const zero = await lab.run([0x12, 0, 0, 0, 36, 0], { target: 5, lun: 0, in: 36 });
  t.equal(zero.data[0], 0x3f, 'LUN 0 is there for REPORT LUNS only');
  await lab.ready({ target: 5, lun: 300 });
  t.equal((await lab.run([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], { target: 5, lun: 9, in: 8 })).why, '05/25/00');
  t.throws(() => lab.plug(scsiHd, { drive: 'a', 'scsi-id': '5', lun: '1' }), { message: /lun already used by/ });
  t.throws(() => lab.plug(scsiHd, { drive: 'a', 'scsi-id': '256' }), { message: 'bad scsi device id: 256' });
  t.throws(() => lab.plug(scsiHd, { drive: 'a', lun: '16384' }), { message: 'bad scsi device lun: 16384' });
  t.throws(() => lab.plug(scsiHd, { drive: 'a', channel: '1' }), { message: 'bad scsi channel id: 1' });
});

t.test('a CD: its table, its tray, and a change of disc', async t => {
  const lab = await VirtioScsiLab.create(t);
  await lab.image('c', numbered(64, 2048), [['media', 'cdrom']]);
  const device = lab.plug(scsiCd, { drive: 'c' }, 'cd0');
  await lab.ready();
  const capacity = (await lab.run([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], { in: 8 })).data;
  t.same([be32(capacity, 0), be32(capacity, 4)], [63, 2048]);
  const read = await lab.run([0x28, 0, 0, 0, 0, 9, 0, 0, 2, 0], { in: 4096 });
  t.same(Buffer.from(read.data), numbered(64, 2048).subarray(9 * 2048, 11 * 2048));
  const toc = (await lab.run([0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0], { in: 20 })).data;
  t.equal(Buffer.from(toc).toString('hex'), '0012010100140100000000000016aa0000000040');
  const config = (await lab.run([0x46, 0, 0, 0, 0, 0, 0, 0, 40, 0], { in: 40 })).data;
  t.same([be32(config, 0), config[7], config[36]], [36, 8, 0x39], 'a CD-ROM in a drive with a tray');
  t.equal((await lab.run([0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], { out: Buffer.alloc(2048) })).why, '07/27/00');
  t.equal((await lab.run([0xad, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0], { in: 2048 })).why, '05/30/00', 'not a DVD');

  await lab.run([0x1e, 0, 0, 0, 1, 0]);
  t.equal((await lab.run([0x1b, 0, 0, 0, 2, 0])).why, '05/53/02', 'a locked tray stays closed');
  const named = { id: 'cd0' };
  await t.rejects(eject(lab.drives.graph, named, false), { message: /is locked and force was not specified/ });
  const event = async (): Promise<number[]> => [
    ...(await lab.run([0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0], { in: 8 })).data.subarray(4, 6),
  ];
  t.same(await event(), [1, 2], 'the guest is asked to eject');
  t.same(await event(), [0, 2]);
  await lab.run([0x1e, 0, 0, 0, 0, 0]);
  t.equal((await lab.run([0x1b, 0, 0, 0, 2, 0])).status, GOOD);
  t.equal((await lab.run([0, 0, 0, 0, 0, 0])).why, '02/3a/00', 'the tray is open');
  await eject(lab.drives.graph, named, false);
  await lab.image('other', numbered(32, 2048), [['readonly', 'on']]);
  const options = new BlockOptions();
  options.set('driver', 'null-co');
  options.set('node-name', 'fresh');
  options.set('size', 32 * 2048);
  options.set('read-only', true);
  await lab.drives.graph.add(options);
  insertMedium(lab.drives.graph, named, 'fresh');
  t.equal((await lab.run([0x1b, 0, 0, 0, 3, 0])).status, GOOD, 'START with LOEJ closes it');
  t.equal(device.kind, 'cd');
  t.equal((await lab.run([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], { in: 8 })).data[3], 31, 'the new disc is shorter');
});

t.test('a medium that the monitor changes is told as gone, and then as new', async t => {
  const lab = await VirtioScsiLab.create(t);
  await lab.image('c', numbered(64, 2048), [['media', 'cdrom']]);
  lab.plug(scsiCd, { drive: 'c' }, 'cd0');
  await lab.ready();
  const device = lab.drives.graph.backend('c')?.device;
  device?.changeMedium?.(false);
  device?.changeMedium?.(true);
  t.equal((await lab.run([0, 0, 0, 0, 0, 0])).why, '06/3a/00');
  t.equal((await lab.run([0, 0, 0, 0, 0, 0])).why, '06/28/00');
  t.equal((await lab.run([0, 0, 0, 0, 0, 0])).status, GOOD);
});

t.test('an empty drive', async t => {
  const lab = await VirtioScsiLab.create(t);
  lab.plug(scsiCd, {});
  await lab.ready();
  for (const cdb of [
    [0, 0, 0, 0, 0, 0],
    [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  ]) {
    t.equal((await lab.run(cdb, { in: cdb.length === 10 ? 8 : 0 })).why, '02/3a/00');
  }
  t.throws(() => lab.plug(scsiHd, {}), { message: 'drive property not set' });
});

t.test('sense data waits for REQUEST SENSE only where the adapter has not brought it', async t => {
  const { lab } = await disk(t);
  await lab.run([0xff, 0, 0, 0, 0, 0]);
  const fixed = (await lab.run([0x03, 0, 0, 0, 18, 0], { in: 18 })).data;
  t.same([fixed[0], fixed[2], fixed[12]], [0x70, 5, 0x20]);
  const descriptor = (await lab.run([0x03, 1, 0, 0, 8, 0], { in: 8 })).data;
  t.same([...descriptor.subarray(0, 4)], [0x72, 0, 0, 0], 'nothing more');
});

t.test('errors of the host follow rerror and werror, and stopped requests go on', async t => {
  const lab = await VirtioScsiLab.create(t);
  await lab.image('d', numbered());
  lab.plug(scsiHd, { drive: 'd', rerror: 'stop' });
  await lab.ready();
  const backend = lab.drives.graph.backend('d');
  const node = backend?.root;
  if (backend === undefined || node === undefined) throw new TypeError('no drive');
  let failures = 1;
  const { readv } = node;
  node.readv = (...args) => (failures-- > 0 ? Promise.reject(new Error('no luck')) : readv.apply(node, args));
  const answer = lab.start([0x28, 0, 0, 0, 0, 4, 0, 0, 1, 0], { in: BLOCK });
  for (let turn = 0; turn < 5; turn++) await new Promise(resolve => setImmediate(resolve));
  t.equal(answer(), undefined, 'it waits');
  t.equal(backend.ioStatus, 'failed');
  lab.bench.machine.stop();
  lab.bench.machine.start();
  const { status, data } = await settled(answer);
  t.equal(status, GOOD);
  t.same(Buffer.from(data), numbered().subarray(4 * BLOCK, 5 * BLOCK));
  backend.onReadError = 'report';
  failures = 1;
  t.equal((await lab.run([0x28, 0, 0, 0, 0, 4, 0, 0, 1, 0], { in: BLOCK })).why, '0b/00/06');
  backend.onReadError = 'ignore';
  failures = 1;
  t.equal((await lab.run([0x28, 0, 0, 0, 0, 4, 0, 0, 1, 0], { in: BLOCK })).status, GOOD);
});
