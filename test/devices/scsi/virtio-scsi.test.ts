import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { BlockNode } from '../../../core/block/node.ts';
import { scsiCd, scsiHd } from '../../../devices/scsi/scsi-disk.ts';
import { settled, tmf, VirtioScsiLab } from './virtio-lab.ts';

t.setTimeout(300_000);

const BLOCK = 512;
const READ_ONE = [0x28, 0, 0, 0, 0, 4, 0, 0, 1, 0];
const OK = 0;
const ABORTED = 2;
const BAD_TARGET = 3;
const RESET = 4;
const SUCCEEDED = 10;
const REJECTED = 11;
const INCORRECT_LUN = 12;
const TMF = {
  ABORT_TASK: 0,
  ABORT_TASK_SET: 1,
  CLEAR_ACA: 2,
  NEXUS_RESET: 4,
  LUN_RESET: 5,
  QUERY_TASK: 6,
  QUERY_SET: 7,
};
const TRANSPORT_RESET = 1;
const PARAM_CHANGE = 3;
const MISSED = 0x8000_0000;
const RESCAN = 1;
const REMOVED = 2;
const NEEDS_RESET = 64;

async function withDisk(t: Test, props: Readonly<Record<string, string>> = {}): Promise<VirtioScsiLab> {
  const lab = await VirtioScsiLab.create(t, props);
  await lab.image('d', Buffer.alloc(64 * BLOCK, 'x'));
  lab.plug(scsiHd, { drive: 'd' }, 'disk0');
  await lab.ready();
  return lab;
}

/** Holds reads of the drive back until told otherwise. */
function hold(lab: VirtioScsiLab): () => void {
  const node = lab.drives.graph.backend('d')?.root as BlockNode;
  const { readv } = node;
  let release = (): void => {};
  const released = new Promise<void>(resolve => {
    release = resolve;
  });
  node.readv = async (...args) => {
    await released;
    node.readv = readv;
    await readv.apply(node, args);
  };
  return release;
}

t.test('configuration: sizes that a driver may choose, and limits', async t => {
  const lab = await withDisk(t, { num_queues: '4', max_sectors: '1024', cmd_per_lun: '7', virtqueue_size: '64' });
  const { driver } = lab;
  const words = [0, 4, 8, 12, 16, 20, 24].map(at => driver.readConfig(at, 4));
  t.same(words, [4, 62, 1024, 7, 16, 96, 32]);
  t.same([driver.readConfig(28, 2), driver.readConfig(30, 2), driver.readConfig(32, 4)], [0, 255, 16383]);
  driver.writeConfig(24, 4, 256);
  t.equal(driver.status & NEEDS_RESET, NEEDS_RESET, 'no CDB has 256 bytes');
  t.throws(() => lab.bench.pci(lab.adapter.type as never, { num_queues: '0' } as never));
});

t.test('the packed ring', async t => {
  const lab = await withDisk(t, { packed: 'on' });
  const { status, data } = await lab.run(READ_ONE, { in: BLOCK });
  t.equal(status, OK);
  t.ok(data.every(byte => byte === 0x78));
});

t.test('task management', async t => {
  const lab = await withDisk(t);
  const manage = async (subtype: number, target = 0, lun = 0, tag = 0): Promise<number | undefined> =>
    (await lab.manage(tmf(subtype, target, lun, tag), 1))[0];
  t.equal(await manage(TMF.QUERY_TASK, 0, 0, 5), OK, 'no such task');
  t.equal(await manage(TMF.CLEAR_ACA), REJECTED);
  t.equal(await manage(99), REJECTED);
  t.equal(await manage(TMF.LUN_RESET, 9), BAD_TARGET);
  t.equal(await manage(TMF.LUN_RESET, 0, 3), INCORRECT_LUN);

  let release = hold(lab);
  let read = lab.start(READ_ONE, { in: BLOCK, tag: 5 });
  t.equal(await manage(TMF.QUERY_TASK, 0, 0, 5), SUCCEEDED);
  t.equal(await manage(TMF.QUERY_TASK, 0, 0, 6), OK);
  t.equal(await manage(TMF.QUERY_SET), SUCCEEDED);
  const abort = lab.startManaging(tmf(TMF.ABORT_TASK, 0, 0, 5), 1);
  await new Promise(resolve => setImmediate(resolve));
  t.equal(abort(), undefined, 'the block layer still works on it');
  release();
  t.equal((await settled(abort))[0], OK);
  t.equal((await settled(read)).response, ABORTED);

  release = hold(lab);
  read = lab.start(READ_ONE, { in: BLOCK, tag: 5 });
  const reset = lab.startManaging(tmf(TMF.LUN_RESET, 0, 0), 1);
  release();
  t.equal((await settled(reset))[0], OK);
  t.equal((await settled(read)).response, RESET);
  t.equal((await lab.run(READ_ONE, { in: BLOCK })).why, '06/29/00', 'and it is told of');
  t.equal(await manage(TMF.NEXUS_RESET), OK);
  t.equal((await lab.run(READ_ONE, { in: BLOCK })).why, '06/29/00');
  const subscribe = new Uint8Array(16);
  subscribe[0] = 2;
  t.same([...(await lab.manage(subscribe, 5))], [0, 0, 0, 0, OK], 'no events to subscribe to');
});

t.test('events of hotplug and of a new capacity', async t => {
  const lab = await withDisk(t);
  lab.offerEvents(4);
  t.same(lab.event(), { type: MISSED, lun: [0, 0, 0, 0], reason: 0 }, 'what came before there was room was missed');
  await lab.image('e', Buffer.alloc(BLOCK));
  const device = lab.plug(scsiHd, { drive: 'e', 'scsi-id': '3', lun: '257' });
  const event = lab.event();
  t.same(event, { type: TRANSPORT_RESET, lun: [1, 3, 0x41, 1], reason: RESCAN });
  lab.drives.graph.backend('e')?.resized();
  t.same(lab.event(), { type: PARAM_CHANGE, lun: [1, 3, 0x41, 1], reason: 0x2a | (9 << 8) });
  lab.bus.unplug(device);
  t.same(lab.event(), { type: TRANSPORT_RESET, lun: [1, 3, 0x41, 1], reason: REMOVED });
  t.equal((await lab.run(READ_ONE, { target: 3, lun: 257, in: BLOCK })).response, BAD_TARGET);
  t.equal((await lab.run(READ_ONE, { in: BLOCK })).why, '06/3f/0e', 'the others tell that the units have changed');
});

t.test('a disk goes while it works', async t => {
  const lab = await withDisk(t);
  const release = hold(lab);
  const read = lab.start(READ_ONE, { in: BLOCK });
  const [device] = [...lab.bus.units()];
  if (device !== undefined) lab.bus.unplug(device);
  release();
  t.equal((await settled(read)).response, ABORTED);
});

t.test('a queue that is reset on its own has no answers any more', async t => {
  const lab = await withDisk(t);
  const release = hold(lab);
  const read = lab.start(READ_ONE, { in: BLOCK });
  lab.adapter.device?.resetQueue(2);
  release();
  for (let turn = 0; turn < 5; turn++) await new Promise(resolve => setImmediate(resolve));
  t.equal(read(), undefined);
  t.equal([...lab.bus.units()][0]?.requests.size, 0);
});

t.test('requests that are under way are saved, and go on after a restore', async t => {
  const lab = await withDisk(t);
  const release = hold(lab);
  const read = lab.start(READ_ONE, { in: BLOCK });
  const saved = [...lab.bench.machine.devices()].map(device => [device, device.save()] as const);
  lab.bench.machine.stop();
  for (const [device, state] of saved) device.restore(state);
  t.equal(read(), undefined);
  release();
  for (let turn = 0; turn < 5; turn++) await new Promise(resolve => setImmediate(resolve));
  t.equal(read(), undefined, 'what was under way before does not answer');
  lab.bench.machine.start();
  const { status, data } = await settled(read);
  t.equal(status, OK);
  t.ok(data.every(byte => byte === 0x78));
  const [first] = saved;
  t.ok(first);
  const disk = [...lab.bus.units()][0];
  t.throws(() => disk?.restore({ ...disk.save(), requests: [{ request: 5, task: null }] }), {
    code: 'ERR_STATE_VALUE',
  });
});

t.test('headers that are too short break the device, and a reset mends it', async t => {
  const lab = await withDisk(t);
  const at = lab.driver.allocate(64);
  lab.requests.add([
    { address: at, length: 20 },
    { address: at + 32, length: 12, writable: true },
  ]);
  lab.requests.kick();
  t.equal(lab.driver.status & NEEDS_RESET, NEEDS_RESET);
  lab.driver.status = 0;
  t.equal(lab.driver.status, 0);
});

t.test('no command, however odd, throws or stays away', async t => {
  const lab = await withDisk(t);
  await lab.image('c', Buffer.alloc(64 * 2048), [['media', 'cdrom']]);
  lab.plug(scsiCd, { drive: 'c', 'scsi-id': '1' });
  const opcodes = [
    0x00, 0x03, 0x04, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x2b, 0x2e, 0x2f, 0x35,
  ];
  const more = [0x41, 0x42, 0x43, 0x46, 0x4a, 0x51, 0x55, 0x5a, 0x88, 0x8a, 0x8f, 0x93, 0x9e, 0xa0, 0xa8, 0xad, 0xbd];
  const command = fc.record({
    opcode: fc.oneof(fc.constantFrom(...opcodes, ...more), fc.nat(255)),
    rest: fc.uint8Array({ minLength: 31, maxLength: 31 }),
    small: fc.boolean(),
    target: fc.constantFrom(0, 1, 2),
    lun: fc.constantFrom(0, 0, 1),
    length: fc.constantFrom(0, 4, 8, 12, 24, 96, 512, 2048, 70_000),
    out: fc.boolean(),
    fill: fc.nat(255),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 6 }), async commands => {
      for (const { opcode, rest, small, target, lun, length, out, fill } of commands) {
        // Mostly small numbers, so that commands get as far as their data.
        const cdb = [opcode, ...rest].map((byte, index) => (small && index > 0 ? byte & 3 : byte));
        const data = out ? { out: Buffer.alloc(Math.max(1, length), fill) } : { in: length };
        const answer = await lab.run(cdb, { target, lun, ...data });
        if (answer.response > 12) throw new Error(`response ${answer.response} to ${cdb}`);
      }
      // The memory of what is over is used again.
      lab.rewind();
    }),
    { numRuns: 150 },
  );
  await lab.ready();
  t.equal((await lab.run([0x12, 0, 0, 0, 36, 0], { in: 36 })).status, OK, 'and the disk still answers');
});

t.test('no chain of descriptors throws', async t => {
  const lab = await withDisk(t);
  const piece = fc.record({
    address: fc.oneof(fc.nat(0x20_0000), fc.constantFrom(0xfee0_0000, 0xe000_0000, 0xffff_f000)),
    length: fc.constantFrom(0, 1, 19, 51, 108, 512, 0x1_0000, 0x4000_0000),
    writable: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.nat(2), fc.array(piece, { minLength: 1, maxLength: 6 }), (queue, pieces) => {
      const target = [lab.control, lab.events, lab.requests][queue] ?? lab.requests;
      target.add(pieces);
      target.kick();
      if ((lab.driver.status & NEEDS_RESET) === 0) return;
      lab.restart();
    }),
    { numRuns: 300 },
  );
});
