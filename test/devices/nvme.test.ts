import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import { bench } from '../../core/testing/bench.ts';
import { nvme } from '../../devices/nvme/nvme.ts';
import { nvmeNs } from '../../devices/nvme/nvme-ns.ts';
import { ADMIN, DNR, IO, STATUS } from '../../devices/nvme/registers.ts';
import { type Completion, DATA_AT, Driver, PAGE, QUEUES_AT, rw, tick } from './nvme-driver.ts';

t.setTimeout(120_000);

const BLOCK = 512;
const DISK = 2 * 2 ** 20;
const NOWHERE = 0x7000_0000;

interface Parts {
  readonly driver: Driver;
  readonly drives: Drives;
  image(): Buffer;
}

async function controller(t: Test, props: Readonly<Record<string, string>> = {}): Promise<Parts> {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-nvme-'));
  const drives = new Drives(blockGraph());
  for (const id of ['d0', 'd1']) {
    writeFileSync(join(folder, id), Buffer.alloc(DISK, id));
    await drives.add(
      [
        ['id', id],
        ['file', join(folder, id)],
        ['format', 'raw'],
        ['if', 'none'],
      ],
      {
        ...{ interface: 'none', snapshot: false, isDefault: false },
      },
    );
  }
  const lab = bench({ backends: { find: (_kind, id) => drives.graph.backend(id) } });
  t.teardown(() => lab.dispose());
  t.teardown(() => rmSync(folder, { recursive: true }));
  lab.machine.start();
  const driver = new Driver(lab, { serial: 'S-42', drive: 'd0', ...props });
  return { driver, drives, image: () => readFileSync(join(folder, 'd0')) };
}

t.test('says who it is', async t => {
  const { driver } = await controller(t);
  const { regs, admin } = driver;
  t.equal(driver.probe.readConfig(0, 4), 0x0010_1b36);
  t.equal(driver.probe.readConfig(8, 4), 0x0108_0202);
  t.equal(regs.CAP.value, 0x0040_1820_0f01_07ffn | (4n << 52n), 'as QEMU 7.2 shows it');
  t.equal(regs.VS.value, 0x10400);
  driver.start();
  t.equal(regs.CSTS.value, 1);
  const identify = (cns: number, nsid = 0): Promise<Completion> =>
    driver.run(admin, { opcode: ADMIN.IDENTIFY, nsid, prp1: DATA_AT, dwords: [cns] });
  t.equal((await identify(1)).status, STATUS.SUCCESS);
  const who = driver.data(PAGE);
  t.equal(who.toString('latin1', 4, 24), 'S-42'.padEnd(20));
  t.equal(who.toString('latin1', 24, 64), 'QEMU NVMe Ctrl'.padEnd(40));
  t.equal(who[77], 7, 'mdts');
  t.match(who.toString('latin1', 768, 800), /^nqn\.2019-08\.org\.qemu:S-42\0/);
  t.equal((await identify(0, 1)).status, STATUS.SUCCESS);
  t.equal(driver.data(8).readUInt32LE(), DISK / BLOCK);
  await identify(2);
  t.same([driver.data(8).readUInt32LE(0), driver.data(8).readUInt32LE(4)], [1, 0]);
  await identify(3, 1);
  t.equal(driver.data(5).toString('hex'), '0401000000', 'the NVM command set');
  await identify(0, 2);
  t.ok(
    driver.data(PAGE).every(byte => byte === 0),
    'a namespace that is not there',
  );
  t.equal((await identify(0, 0)).status, STATUS.INVALID_NSID | DNR);
  t.equal((await identify(0x77)).status, STATUS.INVALID_FIELD | DNR);
  t.equal(await driver.status(admin, { opcode: 0x7f }), STATUS.INVALID_OPCODE | DNR);
});

t.test('reads and writes through PRPs, PRP lists and SGLs; queues wrap', async t => {
  const { driver, image } = await controller(t);
  driver.start();
  const ring = await driver.ioQueue(1, 4);
  driver.fill(0x61, 2 * PAGE);
  t.equal(await driver.status(ring, rw(IO.WRITE, 3, 2)), STATUS.SUCCESS);
  t.equal(image().toString('latin1', 3 * BLOCK, 5 * BLOCK), 'a'.repeat(2 * BLOCK));
  t.equal(image()[5 * BLOCK], 0x64, 'and no more');
  for (let round = 0; round < 11; round++) {
    driver.fill(round, BLOCK);
    t.equal(await driver.status(ring, rw(IO.WRITE, round, 1)), STATUS.SUCCESS);
  }
  t.equal(image()[10 * BLOCK], 10);
  // A list of pages in reverse order, which begins at the last entry of its page: that names the next list.
  const list = DATA_AT + 0x10_0000;
  const pages = Array.from({ length: 8 }, (_, index) => DATA_AT + (20 - index) * PAGE);
  const [first = 0, ...rest] = pages;
  driver.memory.setBigUint64(list + PAGE - 8, BigInt(list + PAGE), true);
  for (const [index, page] of rest.entries()) driver.memory.setBigUint64(list + PAGE + 8 * index, BigInt(page), true);
  for (const [index, page] of pages.entries()) driver.fill(0x30 + index, PAGE, page);
  t.equal(await driver.status(ring, rw(IO.WRITE, 64, 64, first, list + PAGE - 8)), STATUS.SUCCESS);
  for (let index = 0; index < 8; index++) t.equal(image()[64 * BLOCK + index * PAGE], 0x30 + index);
  // The same backwards, by a segment of an SGL with a piece of odd length.
  const segment = list + 4 * PAGE;
  const pieces = [
    [DATA_AT + 5, 1001],
    [DATA_AT + 3 * PAGE, 64 * BLOCK - 1001],
  ] as const;
  for (const [index, [address, length]] of pieces.entries()) {
    driver.memory.setBigUint64(segment + 16 * index, BigInt(address), true);
    driver.memory.setBigUint64(segment + 16 * index + 8, BigInt(length), true);
  }
  const sgl = { prp1: segment, prp2: (3n << 60n) | 32n };
  t.equal(await driver.status(ring, { ...rw(IO.READ, 64, 64), flags: 1 << 6, ...sgl }), STATUS.SUCCESS);
  const read = Buffer.concat([driver.data(1001, DATA_AT + 5), driver.data(64 * BLOCK - 1001, DATA_AT + 3 * PAGE)]);
  t.same(read, image().subarray(64 * BLOCK, 128 * BLOCK));
  t.ok(driver.lab.messageCount(0x41) > 0, 'vector 1 of MSI-X');
});

t.test('flush, write zeroes, compare, verify and deallocate', async t => {
  const { driver, image } = await controller(t);
  driver.start();
  const ring = await driver.ioQueue(1);
  t.equal(await driver.status(ring, { opcode: IO.FLUSH, nsid: 1 }), STATUS.SUCCESS);
  t.equal(await driver.status(ring, { opcode: IO.FLUSH, nsid: 0xffff_ffff }), STATUS.SUCCESS);
  t.equal(await driver.status(ring, rw(IO.WRITE_ZEROES, 8, 8)), STATUS.SUCCESS);
  t.ok(
    image()
      .subarray(8 * BLOCK, 16 * BLOCK)
      .every(byte => byte === 0),
  );
  driver.fill(0, PAGE);
  t.equal(await driver.status(ring, rw(IO.COMPARE, 8, 8)), STATUS.SUCCESS);
  t.equal(await driver.status(ring, rw(IO.COMPARE, 9, 8)), STATUS.COMPARE_FAILURE);
  t.equal(await driver.status(ring, rw(IO.VERIFY, 0, 8)), STATUS.SUCCESS);
  driver.memory.setUint32(DATA_AT + 4, 16, true);
  driver.memory.setBigUint64(DATA_AT + 8, 32n, true);
  t.equal(
    await driver.status(ring, { opcode: IO.DATASET_MANAGEMENT, nsid: 1, prp1: DATA_AT, dwords: [0, 4] }),
    STATUS.SUCCESS,
  );
});

t.test('refuses what is wrong, with the right status', async t => {
  const { driver } = await controller(t);
  driver.start();
  const { admin } = driver;
  const ring = await driver.ioQueue(1);
  const last = DISK / BLOCK - 1;
  for (const [command, status] of [
    [rw(IO.READ, last, 2), STATUS.LBA_RANGE | DNR],
    [{ ...rw(IO.READ, 0, 1), dwords: [0, 0xffff_ffff, 0] }, STATUS.LBA_RANGE | DNR],
    [rw(IO.READ, 0, 1025), STATUS.INVALID_FIELD | DNR],
    [{ ...rw(IO.READ, 0, 1), nsid: 0 }, STATUS.INVALID_NSID | DNR],
    [{ ...rw(IO.READ, 0, 1), nsid: 2 }, STATUS.INVALID_FIELD | DNR],
    [{ ...rw(IO.READ, 0, 1), flags: 1 }, STATUS.INVALID_FIELD],
    [rw(0x55, 0, 1), STATUS.INVALID_OPCODE | DNR],
    [rw(IO.READ, 0, 16, DATA_AT, DATA_AT + 8), STATUS.INVALID_PRP_OFFSET | DNR],
    [rw(IO.READ, 0, 32, DATA_AT, DATA_AT + 12), STATUS.INVALID_PRP_OFFSET | DNR],
    [rw(IO.READ, 0, 32, DATA_AT, NOWHERE), STATUS.DATA_TRANSFER_ERROR | DNR],
    [rw(IO.WRITE, 0, 1, NOWHERE), STATUS.DATA_TRANSFER_ERROR],
  ] as const)
    t.equal(await driver.status(ring, command), status, JSON.stringify(command));
  const queue = (opcode: number, dwords: readonly number[], prp1 = DATA_AT): Promise<number> =>
    driver.status(admin, { opcode, prp1, dwords });
  t.equal(await queue(ADMIN.CREATE_CQ, [0x7_0001, 1]), STATUS.INVALID_QID | DNR, 'is there');
  t.equal(await queue(ADMIN.CREATE_CQ, [0x7_0041, 1]), STATUS.INVALID_QID | DNR, 'beyond the last');
  t.equal(await queue(ADMIN.CREATE_CQ, [2, 1]), STATUS.INVALID_QUEUE_SIZE | DNR);
  t.equal(await queue(ADMIN.CREATE_CQ, [0x800_0002, 1]), STATUS.INVALID_QUEUE_SIZE | DNR);
  t.equal(await queue(ADMIN.CREATE_CQ, [0x7_0002, 1], DATA_AT + 16), STATUS.INVALID_PRP_OFFSET | DNR);
  t.equal(await queue(ADMIN.CREATE_CQ, [0x7_0002, 1 | (65 << 16)]), STATUS.INVALID_VECTOR | DNR);
  t.equal(await queue(ADMIN.CREATE_CQ, [0x7_0002, 0]), STATUS.INVALID_FIELD | DNR);
  t.equal(await queue(ADMIN.CREATE_SQ, [0x7_0002, 1 | (2 << 16)]), STATUS.INVALID_CQID | DNR);
  t.equal(await queue(ADMIN.DELETE_SQ, [0]), STATUS.INVALID_QID | DNR);
  t.equal(await queue(ADMIN.DELETE_CQ, [1]), STATUS.INVALID_QUEUE_DELETION);
  t.equal(await queue(ADMIN.DELETE_SQ, [1]), STATUS.SUCCESS);
  t.equal(await queue(ADMIN.DELETE_CQ, [1]), STATUS.SUCCESS);
  t.equal(await queue(ADMIN.DELETE_CQ, [1]), STATUS.INVALID_CQID | DNR);
  t.equal(await queue(ADMIN.ABORT, [9]), STATUS.INVALID_FIELD | DNR);
  t.same(await driver.run(admin, { opcode: ADMIN.ABORT }), { status: 0, result: 1 });
});

t.test('features, log pages and events', async t => {
  const { driver } = await controller(t);
  driver.start();
  const { admin } = driver;
  const get = (...dwords: number[]): Promise<Completion> =>
    driver.run(admin, { opcode: ADMIN.GET_FEATURES, prp1: DATA_AT, dwords });
  const set = (...dwords: number[]): Promise<Completion> =>
    driver.run(admin, { opcode: ADMIN.SET_FEATURES, prp1: DATA_AT, dwords });
  const log = (page: number, bytes: number): Promise<Completion> =>
    driver.run(admin, {
      opcode: ADMIN.GET_LOG_PAGE,
      nsid: 0xffff_ffff,
      prp1: DATA_AT,
      dwords: [page | ((bytes / 4 - 1) << 16)],
    });
  t.equal((await set(7, 0x3_0003)).result, 0x3f_003f);
  t.equal((await get(1)).result, 7);
  t.equal((await get(4)).result, 0x157);
  t.equal((await get(6)).result, 1);
  t.equal((await get(9, 1)).result, 1);
  t.equal((await get(4 | 0x300)).result, 4, 'what may be done with it');
  t.equal((await set(1, 0)).status, STATUS.FEATURE_NOT_CHANGEABLE | DNR);
  t.equal((await set(0x8000_0004, 0)).status, STATUS.FEATURE_NOT_SAVEABLE | DNR);
  t.equal((await get(0x33)).status, STATUS.INVALID_FIELD | DNR);
  driver.memory.setBigUint64(DATA_AT, 0x1234_5678_9abcn, true);
  await set(0xe);
  driver.lab.clock.advance(5_000_000);
  await get(0xe);
  t.equal(driver.data(8).readBigUInt64LE(), (0x1234_5678_9abcn + 5n) | (1n << 49n));
  await log(2, 512);
  t.equal(driver.data(3).readUInt16LE(1), 0x143);
  await log(5, 4096);
  t.equal(driver.data(4096).readUInt32LE(1024 + 4 * IO.WRITE), 3);
  t.equal((await log(3, 512)).status, STATUS.SUCCESS);
  t.equal(driver.data(16).toString('latin1', 8, 11), '1.0');
  t.equal((await log(0x70, 512)).status, STATUS.INVALID_FIELD | DNR);
  // Events: one of a kind until its page is read.
  const requests = [0, 1, 2, 3, 4].map(() => driver.submit(admin, { opcode: ADMIN.ASYNC_EVENT }));
  t.equal((await driver.wait(admin, requests[4] ?? 0)).status, STATUS.ASYNC_EVENT_LIMIT);
  driver.doorbell(9 * 8, 1);
  t.equal((await driver.wait(admin, requests[3] ?? 0)).result, 0x01_0000);
  await set(0xb, 0x1ff);
  await set(4, 0x100);
  t.equal((await driver.wait(admin, requests[2] ?? 0)).result, 0x02_0101, 'too hot');
  await set(4, 0x101);
  t.equal(driver.ended(admin, requests[1] ?? 0), undefined);
  await log(2, 512);
  t.equal((await driver.wait(admin, requests[1] ?? 0)).result, 0x02_0101);
});

t.test('a full completion queue, a pin for interrupts, shutdown and reset', async t => {
  const { driver } = await controller(t);
  driver.start(false);
  const { regs, admin } = driver;
  t.equal(
    await driver.status(admin, { opcode: ADMIN.CREATE_CQ, prp1: DATA_AT, dwords: [0x7_0001, 1 | (1 << 16)] }),
    STATUS.INVALID_VECTOR | DNR,
  );
  const cids = Array.from({ length: 15 }, () => driver.write(admin, { opcode: ADMIN.ABORT }));
  driver.doorbell(0, admin.tail);
  t.equal(driver.probe.intx.level, true);
  regs.INTMS.value = 1;
  t.equal(driver.probe.intx.level, false);
  regs.INTMC.value = 1;
  t.equal(driver.probe.intx.level, true);
  t.equal(regs.INTMS.value, 0);
  const more = driver.submit(admin, { opcode: ADMIN.ABORT });
  for (const cid of [...cids, more]) t.equal((await driver.wait(admin, cid)).result, 1);
  t.equal(driver.probe.intx.level, false);
  regs.CC.value = regs.CC.value | (1 << 14);
  t.equal(regs.CSTS.SHST, 2);
  regs.CC.value = 0;
  t.equal(regs.CSTS.value, 0);
  regs.AQA.value = 0;
  regs.CC.value = (4 << 20) | (6 << 16) | 1;
  t.equal(regs.CSTS.value, 2, 'no queues: fatal');
});

t.test('a controller that is disabled waits for the disk', async t => {
  const { driver } = await controller(t);
  driver.start();
  const ring = await driver.ioQueue(1);
  const backend = driver.probe.device.namespace(1)?.backend;
  if (backend === undefined) throw new Error('no disk');
  const quiesced = backend.quiesce();
  const read = driver.submit(ring, rw(IO.READ, 0, 8));
  driver.regs.CC.value = 0;
  t.equal(driver.regs.CSTS.RDY, true, 'the disk has a command');
  await quiesced;
  backend.unquiesce();
  while (driver.regs.CSTS.RDY) await tick();
  t.equal(driver.ended(ring, read), undefined, 'nobody hears of it');
  Object.assign(driver.admin, { tail: 0, head: 0, phase: 1 });
  driver.fill(0, 2 * PAGE, QUEUES_AT);
  driver.start();
  t.equal(await driver.status(await driver.ioQueue(1), rw(IO.READ, 0, 1)), STATUS.SUCCESS);
});

t.test('a snapshot takes commands along that have not ended', async t => {
  const { driver } = await controller(t);
  driver.start();
  const { admin, lab } = driver;
  const ring = await driver.ioQueue(1);
  const event = driver.submit(admin, { opcode: ADMIN.ASYNC_EVENT });
  const backend = driver.probe.device.namespace(1)?.backend;
  if (backend === undefined) throw new Error('no disk');
  const quiesced = backend.quiesce();
  const read = driver.submit(ring, rw(IO.READ, 0, 8));
  t.equal(driver.ended(ring, read), undefined, 'the disk is busy');
  const deletion = driver.submit(admin, { opcode: ADMIN.DELETE_SQ, dwords: [1] });
  t.equal(driver.ended(admin, deletion), undefined, 'the queue has commands');
  const saved = driver.probe.device.save();
  driver.probe.device.reset();
  await quiesced;
  backend.unquiesce();
  await tick();
  driver.fill(0, PAGE);
  lab.machine.stop();
  driver.probe.device.restore(saved);
  lab.machine.start();
  t.equal((await driver.wait(ring, read)).status, STATUS.SUCCESS);
  t.equal(driver.data(4).toString(), 'd0d0');
  t.equal((await driver.wait(admin, deletion)).status, STATUS.SUCCESS);
  driver.doorbell(9 * 8, 1);
  t.equal((await driver.wait(admin, event)).status, STATUS.SUCCESS);
});

t.test('namespaces on its bus, and memory of its own', async t => {
  const { driver } = await controller(t, { cmb_size_mb: '1' });
  const { regs } = driver;
  const [bus] = driver.probe.device.buses;
  if (bus === undefined) throw new Error('no bus');
  t.throws(() => bus.plug(nvmeNs, { nsid: 1, drive: 'd1' }), { message: "namespace id '1' already allocated" });
  bus.plug(nvmeNs, { nsid: 7, drive: 'd1', logical_block_size: '4096', physical_block_size: '4096' });
  driver.start();
  await driver.run(driver.admin, { opcode: ADMIN.IDENTIFY, prp1: DATA_AT, dwords: [2] });
  t.same([driver.data(8).readUInt32LE(0), driver.data(8).readUInt32LE(4)], [1, 7]);
  const ring = await driver.ioQueue(1);
  t.equal(await driver.status(ring, { ...rw(IO.READ, 1, 1), nsid: 7 }), STATUS.SUCCESS);
  t.equal(driver.data(4).toString(), 'd1d1');
  regs.CMBMSC.value = 0x40_0000_0003n;
  t.equal(regs.CMBSZ.value >>> 12, 1);
  t.equal(regs.CMBSTS.CBAI, false);
  t.equal(await driver.status(ring, rw(IO.READ, 0, 1, 0x40_0000_0000)), STATUS.SUCCESS);
  t.equal(driver.probe.port(2).read(0, 2), 0x3064);
});

t.test('what cannot be is refused in words', async t => {
  for (const [props, message] of [
    [{ drive: 'd0' }, 'serial property not set'],
    [{ serial: 'x', max_ioqpairs: '0' }, 'max_ioqpairs must be between 1 and 65535'],
    [{ serial: 'x', msix_qsize: '2049' }, 'msix_qsize must be between 1 and 2048'],
    [{ serial: 'x', sriov_max_vfs: '1' }, 'subsystem is required for the use of SR-IOV'],
  ] as const) {
    const lab = bench();
    t.throws(() => lab.pci(nvme, { ...props, drive: undefined }), { message });
    lab.dispose();
  }
});

t.test('survives hostile commands', async t => {
  const { driver } = await controller(t, { cmb_size_mb: '1' });
  const word = fc.oneof(
    fc.constantFrom(0, 1, 8, PAGE - 8, DATA_AT, DATA_AT + 8, QUEUES_AT, NOWHERE, 0xffff_ffff, 0xfee0_0000),
    fc.nat(0xffff_ffff),
  );
  const opcode = fc.oneof(fc.constantFrom(...Object.values(ADMIN), ...Object.values(IO)), fc.nat(255));
  const command = fc.record({
    io: fc.boolean(),
    dwords: fc.array(word, { minLength: 16, maxLength: 16 }),
    opcode,
    flags: fc.constantFrom(0, 0, 0, 0x40, 0x80, 0xc0, 1),
    nsid: fc.constantFrom(1, 1, 1, 0, 2, 0xffff_ffff),
    memory: fc.array(word, { minLength: 8, maxLength: 64 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(command, { minLength: 1, maxLength: 20 }), async commands => {
      driver.regs.CC.value = 0;
      while (driver.regs.CSTS.RDY) await tick();
      Object.assign(driver.admin, { tail: 0, head: 0, phase: 1 });
      driver.fill(0, 2 * PAGE, QUEUES_AT);
      driver.start();
      const ring = await driver.ioQueue(1);
      for (const { io, dwords, opcode, flags, nsid, memory } of commands) {
        const target = io ? ring : driver.admin;
        for (const [index, value] of memory.entries()) driver.memory.setUint32(DATA_AT + 4 * index, value, true);
        const at = target.submissions + target.tail * 64;
        driver.write(target, { opcode, flags, nsid });
        for (const [index, value] of dwords.entries())
          if (index > 3) driver.memory.setUint32(at + 4 * index, value, true);
        driver.doorbell(target.id * 8, target.tail);
        driver.poll(target);
      }
      for (const [index, value] of (commands[0]?.dwords ?? []).entries()) driver.doorbell(4 * index, value);
      await tick();
      return driver.regs.VS.value === 0x10400;
    }),
    { numRuns: 60 },
  );
});
