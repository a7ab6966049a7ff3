import { crc32 } from 'node:zlib';
import { VIRTIO_STATUS } from 'southbridge';
import { bench, VirtioDriver } from 'southbridge/testing';
import t from 'tap';
import { VIRTIO_ID_CRC, virtioCrcPci } from './virtio-crc.ts';

function lab(wanted = 0n) {
  const lab = bench();
  t.teardown(() => lab.dispose());
  const card = lab.pci(virtioCrcPci);
  const driver = new VirtioDriver(lab, card);
  driver.negotiate(wanted);
  const queue = driver.queue(0);
  driver.start();
  return { card, driver, queue, ram: lab.ram.bytes };
}

t.test('a function of version 1 with the id of its kind', async t => {
  const { card, driver } = lab();
  t.equal(card.readConfig(0, 4), 0x1af4 + (0x1040 + VIRTIO_ID_CRC) * 0x1_0000);
  t.equal(driver.readConfig(0, 4), 2 ** 20, 'the longest message');
});

for (const [name, features] of [
  ['split', 0n],
  ['packed', 1n << 34n],
] as const)
  t.test(`checksums through a ${name} ring`, async t => {
    const { driver, queue, ram } = lab(features);
    const message = new TextEncoder().encode('123456789');
    const [at, result] = [driver.allocate(message.length), driver.allocate(4)];
    ram.set(message, at);
    queue.add([
      { address: at, length: message.length },
      { address: result, length: 4, writable: true },
    ]);
    queue.kick();
    t.equal(queue.used()?.length, 4);
    t.equal(new DataView(ram.buffer).getUint32(result, true), crc32(message));
    t.equal(new DataView(ram.buffer).getUint32(result, true), 0xcbf4_3926, "the polynomial's check value");
    t.equal(driver.readConfig(4, 4), 1);
  });

t.test('a message without room for its checksum breaks the device until it is reset', async t => {
  const { driver, queue } = lab();
  queue.add([{ address: driver.allocate(16), length: 16 }]);
  queue.kick();
  t.not(driver.status & VIRTIO_STATUS.DEVICE_NEEDS_RESET, 0);
});
