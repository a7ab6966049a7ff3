import t from 'tap';
import { Hub } from '../../../core/net/hub.ts';
import { NetClient } from '../../../core/net/net-client.ts';
import { bench } from '../../../core/testing/bench.ts';
import { AhciDriver } from '../../../core/testing/drivers/ahci-driver.ts';
import { DescriptorRing } from '../../../core/testing/drivers/descriptor-ring.ts';
import { hardware } from '../../../core/testing/matchers.ts';
import { StandIns } from '../../../core/testing/stand-ins.ts';
import { ich9Ahci } from '../../../devices/ahci/ahci.ts';
import { e1000 } from '../../../devices/e1000/e1000.ts';
import { edu, eduRegisters } from '../../../devices/edu.ts';
import { ideHd } from '../../../devices/ide/ide-drive.ts';

t.setTimeout(240_000);

t.test('AHCI: identify, write and read, queued and not, and an error', async t => {
  using lab = bench({ backends: await StandIns.make() });
  const probe = lab.pci(ich9Ahci);
  probe.device.buses[0]?.plug(ideHd, {}, { drive: 'disk' });
  lab.machine.start();
  const driver = new AhciDriver(lab, probe);
  driver.start();
  t.equal(driver.signature, 0x101);
  const identify = await driver.run({ command: 0xec, regions: [{ address: 0x1000, length: 512 }] });
  t.equal(identify.status & 0x81, 0);
  t.equal(lab.ram.view.getUint32(0x1000 + 2 * 60, true), 2048, 'sectors of the stand-in disk');
  t.equal(driver.transferred(0), 512);
  lab.ram.bytes.fill(0xaa, 0x2000, 0x2800);
  const regions = [
    { address: 0x2000, length: 512 },
    { address: 0x2400, length: 512 },
  ];
  t.equal((await driver.run({ command: 0x25, lba: 5, count: 2, regions, slot: 3 })).status & 0x81, 0, 'READ DMA EXT');
  hardware(t).memory(lab, 0x21fe, [0, 0, 0xaa, 0xaa]);
  hardware(t).memory(lab, 0x25fe, [0, 0, 0xaa, 0xaa]);
  t.not(driver.acknowledge(), 0);
  await driver.run({
    command: 0x60,
    lba: 1,
    count: 1,
    regions: [{ address: 0x2200, length: 512 }],
    slot: 7,
    queued: true,
  });
  hardware(t).memory(lab, 0x23fe, [0, 0, 0]);
  const beyond = await driver.run({ command: 0x25, lba: 5000, count: 1, regions: [{ address: 0x2000, length: 512 }] });
  t.equal(beyond.status & 1, 1, 'beyond the end');
});

t.test('a network card: rings that wrap, in both directions', async t => {
  const hub = new Hub(0);
  const frames: Buffer[] = [];
  const peer = hub.addPort('card');
  const other = new NetClient('other', 'test', {
    canReceive: () => true,
    receive(frame, length) {
      frames.push(Buffer.from(frame.slice(0, length)));
      return true;
    },
  });
  other.connect(hub.addPort('other').client);
  using lab = bench({ backends: { find: () => peer } });
  lab.machine.start();
  const probe = lab.pci(e1000, { netdev: 'net0' });
  const port = probe.port(0);
  const done = (view: DataView, at: number): boolean => (view.getUint8(at + 12) & 1) !== 0;
  const ring = (address: number, base: number): DescriptorRing => {
    const entries = 8;
    for (const [offset, value] of [
      [0, address],
      [4, 0],
      [8, entries * 16],
      [0x10, 0],
      [0x18, 0],
    ] as const)
      port.write(base + offset, 4, value);
    return new DescriptorRing({
      ram: lab.ram,
      address,
      entries,
      size: 16,
      done,
      doorbell: tail => port.write(base + 0x18, 4, tail),
    });
  };
  const transmit = ring(0x1_0000, 0x3800);
  port.write(0x400, 4, 0x0a);
  for (let count = 0; count < 20; count++) {
    lab.ram.bytes.set([255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 0, count], 0x3_0000);
    transmit.put((view, at) => {
      view.setUint32(at, 0x3_0000, true);
      view.setUint16(at + 8, 60, true);
      view.setUint8(at + 11, 0x0b); // RS, IFCS, EOP
    });
    transmit.kick();
    t.type(transmit.take(), 'number');
    lab.clock.advance(1e6);
  }
  t.same(
    frames.map(frame => frame[14]),
    Array.from({ length: 20 }, (_, count) => count),
  );
  while (transmit.free > 0) transmit.put(() => {});
  t.throws(() => transmit.put(() => {}), { code: 'ERR_RING_FULL' });

  const receive = ring(0x2_0000, 0x2800);
  for (let index = 0; index < 7; index++) receive.put((view, at) => view.setUint32(at, 0x4_0000 + index * 2048, true));
  receive.kick();
  port.write(0x100, 4, 0x801a); // EN, UPE, MPE, BAM
  other.send(Buffer.from([255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 2, 8, 0, ...Array(50).fill(9)]));
  lab.clock.advance(1e6);
  const at = receive.take();
  t.equal(at === undefined ? 0 : lab.ram.view.getUint16(at + 8, true), 68, 'with its checksum');
  t.equal(receive.take(), undefined);
});

t.test('assertions say what was there', async t => {
  using lab = bench();
  const card = lab.pci(edu);
  const regs = card.bar(0, eduRegisters);
  const failures: string[] = [];
  const hw = hardware({
    ok(value, message) {
      if (!value) failures.push(message);
    },
  });
  t.ok(hw.registers(regs, { ID: { value: 0x0100_00ed }, STATUS: { COMPUTING: false } }));
  t.notOk(hw.registers(regs, { STATUS: { COMPUTING: true } }, 'busy'));
  const { irq } = card;
  regs.IRQ_RAISE.value = 1;
  t.ok(hw.raised(irq, 1));
  t.notOk(hw.raised(irq, 2));
  t.notOk(hw.messages(lab, [5]));
  t.notOk(hw.memory(lab, 0x1000, [1]));
  t.same(failures, [
    'busy: found {"STATUS":{"COMPUTING":false}}, wanted {"STATUS":{"COMPUTING":true}}',
    'irq raised: found 1, wanted 2',
    'messages: found [], wanted [5]',
    'memory at 0x1000: found [0], wanted [1]',
  ]);
});
