import fc from 'fast-check';
import t, { type Test } from 'tap';
import { bench } from '../../../core/testing/bench.ts';
import { VirtioDriver } from '../../../core/testing/virtio-driver.ts';
import { STATUS } from '../../../core/virtio/features.ts';
import { virtioBalloonPci } from '../../../devices/virtio-balloon.ts';
import { virtioNetPci } from '../../../devices/virtio-net/virtio-net.ts';
import { virtioRngPci } from '../../../devices/virtio-rng.ts';
import { virtioSerialPci } from '../../../devices/virtio-serial.ts';

const INDIRECT = 1n << 28n;
const EVENT_INDEX = 1n << 29n;
const PACKED = 1n << 34n;

function rng(
  t: Test,
  features: bigint,
): { driver: VirtioDriver; lab: ReturnType<typeof bench>; fill: (queue: ReturnType<VirtioDriver['queue']>) => void } {
  const lab = bench();
  t.teardown(() => lab.dispose());
  lab.machine.start();
  const probe = lab.pci(virtioRngPci, { packed: 'on' });
  const driver = new VirtioDriver(lab, probe);
  driver.negotiate(features);
  const fill = (queue: ReturnType<VirtioDriver['queue']>): void => {
    const address = driver.allocate(64);
    queue.add([{ address, length: 64, writable: true }]);
    queue.kick();
    t.same(queue.used()?.length, 64);
    t.ok(
      driver.ram.bytes.subarray(address, address + 64).some(byte => byte !== 0),
      'the buffer has been written',
    );
  };
  return { driver, lab, fill };
}

for (const [name, features] of [
  ['split', 0n],
  ['split, with event index', EVENT_INDEX | INDIRECT],
  ['packed', PACKED],
  ['packed, with event index', PACKED | EVENT_INDEX | INDIRECT],
] as const) {
  t.test(`${name}: buffers go round the ring many times`, async t => {
    const { driver, fill } = rng(t, features);
    t.equal(driver.features & features, features);
    const queue = driver.queue(0);
    driver.start();
    for (let turn = 0; turn < 100; turn++) fill(queue);
    t.equal(driver.status & STATUS.DEVICE_NEEDS_RESET, 0);
  });

  t.test(`${name}: state goes on where it was`, async t => {
    const { driver, lab, fill } = rng(t, features);
    const queue = driver.queue(0);
    driver.start();
    for (let turn = 0; turn < 11; turn++) fill(queue);
    const devices = [...lab.machine.devices()].filter(device => device.typeName.startsWith('virtio'));
    const saved = devices.map(device => [device, device.save()] as const);
    lab.machine.stop('paused');
    for (const device of devices) device.reset();
    t.equal(driver.status, 0);
    for (const [device, state] of saved) device.restore(state);
    lab.machine.start();
    for (let turn = 0; turn < 11; turn++) fill(queue);
  });
}

t.test('an indirect table of many pieces is one buffer', async t => {
  for (const features of [INDIRECT, INDIRECT | PACKED]) {
    const { driver } = rng(t, features);
    const queue = driver.queue(0);
    driver.start();
    const target = driver.allocate(640);
    const table = driver.allocate(640);
    const pieces = Array.from({ length: 40 }, (_, index) => ({
      address: target + 600 - index * 16,
      length: 16,
      writable: true,
    }));
    queue.add(pieces, table);
    queue.kick();
    t.equal(queue.used()?.length, 640);
  }
});

t.test('a driver that breaks the rules is told, and nothing more is done', async t => {
  const bad: readonly (readonly [string, (driver: VirtioDriver) => void])[] = [
    [
      'a loop',
      driver =>
        chain(driver, [
          [0x20_0000, 16, 3, 1],
          [0x20_0000, 16, 3, 0],
        ]),
    ],
    [
      'a readable piece after a writable one',
      driver =>
        chain(driver, [
          [0x20_0000, 16, 3, 1],
          [0x20_0000, 16, 0, 0],
        ]),
    ],
    ['a piece of no bytes', driver => chain(driver, [[0x20_0000, 0, 2, 0]])],
    ['a piece outside RAM', driver => chain(driver, [[0xc000_0000, 16, 2, 0]])],
    ['a next that is not there', driver => chain(driver, [[0x20_0000, 16, 3, 0xffff]])],
    ['an indirect table of half a descriptor', driver => chain(driver, [[0x20_0000, 24, 4, 0]])],
  ];
  for (const [name, make] of bad) {
    const { driver } = rng(t, INDIRECT);
    make(driver);
    t.ok(driver.status & STATUS.DEVICE_NEEDS_RESET, name);
    driver.negotiate(0n);
    t.notOk(driver.status & STATUS.DEVICE_NEEDS_RESET, `${name}: a reset helps`);
  }
});

/** A chain with head 0, of address, length, flags and next. */
function chain(driver: VirtioDriver, descriptors: readonly (readonly [number, number, number, number])[]): void {
  const queue = driver.queue(0);
  driver.start();
  const { desc, driver: avail } = queue.parts;
  const { view } = driver.ram;
  for (const [index, [address, length, flags, next]] of descriptors.entries()) {
    const at = desc + index * 16;
    view.setUint32(at, address, true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + 12, flags, true);
    view.setUint16(at + 14, next, true);
  }
  view.setUint16(avail + 2, 1, true);
  queue.kick();
}

// Whatever is in the rings: no exception, an end in bounded time, and no harm outside RAM.
t.test('rings full of anything', async t => {
  const descriptor = fc.record({
    address: fc.oneof(fc.integer({ min: 0, max: 0x30_0000 }), fc.nat({ max: 0xffff_ffff })),
    high: fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat({ max: 0xffff_ffff }) }),
    length: fc.oneof(fc.integer({ min: 0, max: 64 }), fc.nat({ max: 0xffff_ffff })),
    flags: fc.nat({ max: 0xffff }),
    small: fc.nat({ max: 7 }),
    next: fc.oneof(fc.nat({ max: 15 }), fc.nat({ max: 0xffff })),
  });
  const types = [virtioRngPci, virtioNetPci, virtioSerialPci, virtioBalloonPci];
  const run = fc.property(
    fc.constantFrom(...types),
    fc.bigInt({ min: 0n, max: (1n << 41n) - 1n }),
    fc.array(descriptor, { minLength: 8, maxLength: 16 }),
    fc.uint8Array({ minLength: 64, maxLength: 64 }),
    fc.array(fc.nat({ max: 3 }), { minLength: 1, maxLength: 8 }),
    (type, features, descriptors, ring, kicks) => {
      const lab = bench({ ram: 4 * 2 ** 20 });
      try {
        lab.machine.start();
        const driver = new VirtioDriver(lab, lab.pci(type, { packed: 'on' }));
        driver.negotiate(features);
        const queues = [0, 1, 2, 3].map(index => driver.queue(index)).filter(queue => queue.parts.size > 0);
        driver.start();
        const { view, bytes } = driver.ram;
        for (const queue of queues) {
          for (const [index, { address, high, length, flags, small, next }] of descriptors.entries()) {
            const at = queue.parts.desc + index * 16;
            view.setUint32(at, address, true);
            view.setUint32(at + 4, high, true);
            view.setUint32(at + 8, length, true);
            view.setUint16(at + 12, (flags & 1) === 0 ? small : flags, true);
            view.setUint16(at + 14, (flags & 2) === 0 ? next : flags, true);
          }
          bytes.set(ring, queue.parts.driver);
        }
        for (const kick of kicks) queues[kick % queues.length]?.kick();
        driver.negotiate(0n);
      } finally {
        lab.dispose();
      }
    },
  );
  t.doesNotThrow(() => fc.assert(run, { numRuns: 150 }));
});
