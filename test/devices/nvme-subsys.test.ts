import t, { type Test } from 'tap';
import { blockGraph } from '../../core/block/block.ts';
import { Drives } from '../../core/block/drives.ts';
import { bench } from '../../core/testing/bench.ts';
import { nvme } from '../../devices/nvme/nvme.ts';
import { nvmeNs } from '../../devices/nvme/nvme-ns.ts';
import { ADMIN, DNR, EVENT, IO, LOG, STATUS } from '../../devices/nvme/registers.ts';
import { type NvmeSubsystem, nvmeSubsys } from '../../devices/nvme/subsystem.ts';
import { DATA_AT, Driver, rw } from './nvme-driver.ts';

t.setTimeout(120_000);

const ATTACH = 0;
const DETACH = 1;
const SECOND_QUEUES = 0x30_0000;

interface Parts {
  readonly lab: ReturnType<typeof bench>;
  readonly subsystem: NvmeSubsystem;
  readonly drives: Drives;
  readonly first: Driver;
  readonly second: Driver;
}

async function twoControllers(t: Test): Promise<Parts> {
  const drives = new Drives(blockGraph());
  for (const id of ['d0', 'd1', 'd2']) {
    const options = { id, driver: 'null-co', size: '1M', 'read-zeroes': 'on', if: 'none' };
    await drives.add(Object.entries(options), { interface: 'none', snapshot: false, isDefault: false });
  }
  const lab = bench({ backends: { find: (_kind, id) => drives.graph.backend(id) } });
  t.teardown(() => lab.dispose());
  const subsystem = lab.machine.system.plug(nvmeSubsys, {}, {}, 'sub');
  lab.machine.start();
  const first = new Driver(lab, { serial: 'one', subsys: 'sub' });
  const second = new Driver(lab, { serial: 'one', subsys: 'sub' }, SECOND_QUEUES);
  first.probe.device.buses[0]?.plug(nvmeNs, {}, { drive: 'd0' });
  first.probe.device.buses[0]?.plug(nvmeNs, {}, { drive: 'd1', shared: false });
  second.probe.device.buses[0]?.plug(nvmeNs, {}, { drive: 'd2', detached: true });
  for (const driver of [first, second]) driver.start();
  return { lab, subsystem, drives, first, second };
}

async function active(driver: Driver): Promise<number[]> {
  await driver.run(driver.admin, { opcode: ADMIN.IDENTIFY, prp1: DATA_AT, dwords: [2] });
  const list = driver.data(64);
  return Array.from({ length: 16 }, (_, index) => list.readUInt32LE(4 * index)).filter(nsid => nsid !== 0);
}

function attach(driver: Driver, nsid: number, select: number, ...ids: readonly number[]): Promise<number> {
  driver.memory.setUint16(DATA_AT, ids.length, true);
  ids.forEach((id, index) => driver.memory.setUint16(DATA_AT + 2 + 2 * index, id, true));
  return driver.status(driver.admin, { opcode: ADMIN.NAMESPACE_ATTACHMENT, nsid, prp1: DATA_AT, dwords: [select] });
}

t.test('two controllers read and write one namespace', async t => {
  const { first, second, subsystem } = await twoControllers(t);
  t.equal(subsystem.qualifiedName, 'nqn.2019-08.org.qemu:sub');
  t.same([await active(first), await active(second)], [[1, 2], [1]]);
  const queues = [await first.ioQueue(1), await second.ioQueue(1)] as const;
  t.equal(await first.status(queues[0], rw(IO.READ, 0, 8)), STATUS.SUCCESS);
  t.equal(await second.status(queues[1], rw(IO.READ, 0, 8)), STATUS.SUCCESS);
  t.equal(await first.status(queues[0], { ...rw(IO.READ, 0, 8), nsid: 2 }), STATUS.SUCCESS);
  t.equal(await second.status(queues[1], { ...rw(IO.READ, 0, 8), nsid: 2 }), STATUS.INVALID_FIELD | DNR);
  t.equal(await attach(second, 1, DETACH, 0), STATUS.SUCCESS);
  t.equal(await first.status(queues[0], rw(IO.READ, 0, 8)), STATUS.INVALID_FIELD | DNR);
  t.equal(await second.status(queues[1], rw(IO.READ, 0, 8)), STATUS.SUCCESS);
});

t.test('attachment outlasts a reset, and a snapshot has it', async t => {
  const { lab, first, second } = await twoControllers(t);
  t.equal(await attach(first, 3, ATTACH, 0, 1), STATUS.SUCCESS);
  const saved = [first, second].map(driver => driver.probe.device.save());
  t.equal(await attach(first, 3, DETACH, 0, 1), STATUS.SUCCESS);
  t.equal(await attach(first, 1, DETACH, 1), STATUS.SUCCESS);
  for (const { probe } of [first, second]) probe.device.reset();
  t.same([...first.probe.device.namespaces()].length, 2);
  t.same([...second.probe.device.namespaces()].length, 0);
  lab.machine.stop();
  for (const [index, { probe }] of [first, second].entries()) probe.device.restore(saved[index] ?? null);
  lab.machine.start();
  const ids = (driver: Driver): number[] => [...driver.probe.device.namespaces()].map(({ nsid }) => nsid);
  t.same(
    [ids(first), ids(second)],
    [
      [1, 2, 3],
      [1, 3],
    ],
  );
});

t.test('namespaces stay when the controller goes by which they came', async t => {
  const { lab, subsystem, first, second } = await twoControllers(t);
  const ring = await second.ioQueue(1);
  const { device } = first.probe;
  device.bus.unplug(device);
  t.same([...subsystem.controllerIds(0)], [1]);
  t.same(await active(second), [1]);
  t.equal(await second.status(ring, rw(IO.READ, 0, 8)), STATUS.SUCCESS);
  t.equal(await attach(second, 2, ATTACH, 1), STATUS.SUCCESS, 'the private one is free now');
  t.equal(subsystem.namespaceBus.devices.length, 3);
  const again = lab.pci(nvme, { serial: 'one', subsys: 'sub' }).device;
  t.equal(again.controllerId, 0);
  t.same(
    [...again.namespaces()].map(({ nsid }) => nsid),
    [1],
  );
});

t.test('each controller hears that a namespace has another size', async t => {
  const { drives, first, second } = await twoControllers(t);
  for (const driver of [first, second]) {
    await driver.run(driver.admin, { opcode: ADMIN.SET_FEATURES, dwords: [0x0b, 1 << 8] });
  }
  const waiting = [first, second].map(driver => driver.submit(driver.admin, { opcode: ADMIN.ASYNC_EVENT }));
  drives.graph.backend('d0')?.resized();
  for (const [index, driver] of [first, second].entries()) {
    const { result } = await driver.wait(driver.admin, waiting[index] ?? 0);
    t.equal(result, EVENT.NOTICE | (EVENT.NAMESPACE_CHANGED << 8) | (LOG.CHANGED_NAMESPACES << 16));
  }
});

t.test('what cannot be is refused in words', async t => {
  const { lab, first, subsystem } = await twoControllers(t);
  for (const [props, message] of [
    [{ serial: 'two', subsys: 'sub' }, 'invalid controller serial'],
    [{ serial: 'one', subsys: 'none' }, "Device 'none' not found"],
    [{ serial: 'one', subsys: first.probe.device }, "Invalid parameter type for 'subsys', expected: nvme-subsys"],
    [
      { serial: 'one', subsys: 'sub', drive: 'd0' },
      "subsystem support is unavailable with legacy namespace ('drive' property)",
    ],
  ] as const) {
    t.throws(() => lab.pci(nvme, props), { message });
  }
  const [bus] = first.probe.device.buses;
  t.throws(() => bus?.plug(nvmeNs, {}, { drive: 'd0', nsid: 3 }), { message: "namespace id '3' already allocated" });
  t.throws(() => subsystem.namespaceBus.plug(nvmeNs, {}, { drive: 'd0' }), { code: 'ERR_BUS_KIND' });
});
