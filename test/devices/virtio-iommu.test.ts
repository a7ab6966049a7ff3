import t, { type Test } from 'tap';
import { ms } from '../../core/clock/units.ts';
import type { Device } from '../../core/device/device.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { type Bench, bench, type PciProbe } from '../../core/testing/bench.ts';
import { VirtioDriver } from '../../core/testing/virtio-driver.ts';
import type { DriverQueue } from '../../core/testing/virtio-driver-queue.ts';
import { edu, eduRegisters } from '../../devices/edu.ts';
import { virtioIommuPci } from '../../devices/virtio-iommu/virtio-iommu.ts';
import { virtioRngPci } from '../../devices/virtio-rng.ts';

const REQUESTS = 0x20_0000;
const READ = 1;
const WRITE = 2;
const BYPASS_CONFIG = 1n << 6n;

interface Iommu {
  readonly lab: Bench;
  readonly probe: PciProbe<Device>;
  readonly driver: VirtioDriver;
  readonly queue: DriverQueue;
  readonly events: DriverQueue;
  request(type: number, words: readonly number[], room?: number): number;
  attach(domain: number, endpoint: number, flags?: number): number;
  map(domain: number, start: number, end: number, memory: number, flags: number): number;
  unmap(domain: number, start: number, end: number): number;
}

const wide = (value: number): readonly [number, number] => [value % 2 ** 32, Math.floor(value / 2 ** 32)];

function iommu(t: Test, props: Readonly<Record<string, string>> = {}): Iommu {
  const lab = bench();
  t.teardown(() => lab.dispose());
  lab.machine.start();
  const probe = lab.pci(virtioIommuPci, props);
  const driver = new VirtioDriver(lab, probe);
  driver.negotiate((1n << 33n) - 1n);
  const queue = driver.queue(0);
  const events = driver.queue(1);
  driver.start();
  const request: Iommu['request'] = (type, words, room = 4) => {
    const { view } = lab.ram;
    view.setUint32(REQUESTS, type, true);
    for (const [index, word] of words.entries()) view.setUint32(REQUESTS + 4 + 4 * index, word, true);
    lab.ram.bytes.fill(0xee, REQUESTS + 0x800, REQUESTS + 0x800 + room);
    queue.add([
      { address: REQUESTS, length: 4 + 4 * words.length },
      { address: REQUESTS + 0x800, length: room, writable: true },
    ]);
    queue.kick();
    const used = queue.used();
    if (used === undefined) throw new Error('no answer');
    return lab.ram.bytes[REQUESTS + 0x800 + used.length - 4] ?? -1;
  };
  return {
    lab,
    probe,
    driver,
    queue,
    events,
    request,
    attach: (domain, endpoint, flags = 0) => request(1, [domain, endpoint, flags, 0]),
    map: (domain, start, end, memory, flags) =>
      request(3, [domain, ...wide(start), ...wide(end), ...wide(memory), flags]),
    unmap: (domain, start, end) => request(4, [domain, ...wide(start), ...wide(end), 0]),
  };
}

t.test('a function sees what its domain maps, and nothing else', async t => {
  const { lab, attach, map, unmap, events, driver } = iommu(t);
  const card = lab.pci(edu, { dma_mask: (1n << 40n) - 1n });
  const regs = card.bar(0, eduRegisters);
  const endpoint = card.device.devfn;
  const report = driver.allocate(64);
  const copy = (bus: number, toCard: boolean): void => {
    regs.DMA_SRC.value = BigInt(toCard ? bus : 0x4_0000);
    regs.DMA_DST.value = BigInt(toCard ? 0x4_0000 : bus);
    regs.DMA_COUNT.value = 16n;
    regs.DMA_CMD.value = toCard ? 1n : 3n;
    lab.clock.advance(ms(200));
  };
  const fault = (): readonly number[] => {
    const used = events.used();
    if (used === undefined) return [];
    const { view } = lab.ram;
    return [
      view.getUint8(report),
      view.getUint32(report + 4, true),
      view.getUint32(report + 8, true),
      view.getUint32(report + 16, true),
    ];
  };
  const offer = (): void => {
    events.add([{ address: report, length: 24, writable: true }]);
    events.kick();
  };
  lab.ram.bytes.set(Buffer.from('0123456789abcdef'), 0x1000);
  copy(0x1000, true);
  copy(0x2000, false);
  t.equal(Buffer.from(lab.ram.bytes.slice(0x2000, 0x2010)).toString(), '0123456789abcdef', 'it bypasses at first');

  t.equal(attach(7, endpoint), 0);
  offer();
  copy(0x3000, false);
  t.same(fault(), [2, 0x100, endpoint, 0x3000], 'nothing is mapped');
  // Two pages that are neighbours to the card, and not in memory.
  t.equal(map(7, 0x80_0000_0000, 0x80_0000_0fff, 0x6000, READ | WRITE), 0);
  t.equal(map(7, 0x80_0000_1000, 0x80_0000_1fff, 0x9000, READ), 0);
  lab.ram.bytes.set(Buffer.from('ABCDEFGH'), 0x6ff8);
  lab.ram.bytes.set(Buffer.from('IJKLMNOP'), 0x9000);
  copy(0x80_0000_0ff8, true);
  copy(0x80_0000_0100, false);
  t.equal(Buffer.from(lab.ram.bytes.slice(0x6100, 0x6110)).toString(), 'ABCDEFGHIJKLMNOP');
  offer();
  copy(0x80_0000_1000, false);
  t.same(fault(), [2, 0x102, endpoint, 0x1000], 'that page is for reading only');
  t.equal(unmap(7, 0x80_0000_0000, 0x80_0000_1fff), 0);
  offer();
  copy(0x80_0000_0000, true);
  t.same(fault(), [2, 0x100, endpoint, 0], 'unmapped');
  t.equal(lab.ram.bytes[0x6100], 'A'.charCodeAt(0));
});

t.test('a virtio device goes through it where the driver has agreed, and around it otherwise', async t => {
  const SHIFT = 0x10_0000;
  for (const platform of ['on', 'off'] as const) {
    const { lab, attach, map } = iommu(t);
    const probe = lab.pci(virtioRngPci, { iommu_platform: platform });
    const owner = probe.device;
    if (!(owner instanceof PciDevice)) throw new TypeError('it is no PCI function');
    t.equal(attach(1, owner.devfn), 0);
    t.equal(map(1, 0x30_0000, 0x3f_ffff, 0x30_0000 + SHIFT, READ | WRITE), 0);
    const driver = new VirtioDriver(lab, probe, 0x30_0000);
    t.equal(driver.negotiate((1n << 34n) - 1n) >> 33n, platform === 'on' ? 1n : 0n);
    const queue = driver.queue(0);
    driver.start();
    const buffer = driver.allocate(64);
    queue.add([{ address: buffer, length: 64, writable: true }]);
    lab.ram.bytes.copyWithin(0x30_0000 + SHIFT, 0x30_0000, 0x32_0000);
    queue.kick();
    const filled = (at: number): boolean => lab.ram.bytes.slice(at, at + 64).some(byte => byte !== 0);
    const usedIndex = (shift: number): number => lab.ram.view.getUint16(queue.parts.device + 2 + shift, true);
    const through = platform === 'on';
    t.same([usedIndex(0), usedIndex(SHIFT)], through ? [0, 1] : [1, 0], `iommu_platform=${platform}: the ring`);
    t.same([filled(buffer), filled(buffer + SHIFT)], [!through, through], 'and the buffer');
  }
});

t.test('requests that are wrong, domains, probes, bypass, state', async t => {
  const { lab, request, attach, map, unmap, driver, probe, queue } = iommu(t);
  lab.pci(edu);
  const endpoint = 8;
  t.equal(attach(1, 0x1_0000), 6);
  t.equal(attach(1, endpoint, 2), 4);
  t.equal(request(9, [0, 0]), 2, 'no such request');
  t.equal(request(1, [1]), 4, 'too short');
  t.equal(map(1, 0, 0xfff, 0, READ), 6, 'no such domain');
  t.equal(attach(1, endpoint), 0);
  t.equal(map(1, 0, 0xfff, 0, 8), 4);
  t.equal(map(1, 0x1000, 0xfff, 0, READ), 4);
  t.equal(map(1, 2 ** 60, 2 ** 60 + 0xfff, 0, READ), 5, 'beyond what any card drives');
  t.equal(map(1, 0x1000, 0x1fff, 0, READ), 0);
  t.equal(map(1, 0, 0x1000, 0, READ), 4, 'it overlaps');
  t.equal(unmap(1, 0x1800, 0x1fff), 5);
  t.equal(attach(1, endpoint, 1), 4, 'that domain translates');
  t.equal(attach(2, endpoint, 1), 0, 'one that does not');
  t.equal(map(2, 0, 0xfff, 0, READ), 4);
  t.equal(map(1, 0, 0xfff, 0, READ), 6, 'the first has gone with its endpoint');
  t.equal(request(2, [1, endpoint, 0, 0]), 4);
  t.equal(request(5, [endpoint, ...new Array(16).fill(0)], 516), 0);
  const { view } = lab.ram;
  t.same([view.getUint16(REQUESTS + 0x800, true), view.getUint8(REQUESTS + 0x804)], [1, 1]);
  t.same([view.getUint32(REQUESTS + 0x808, true), view.getUint32(REQUESTS + 0x810, true)], [0xfee0_0000, 0xfeef_ffff]);
  t.equal(request(5, [0x333, ...new Array(16).fill(0)], 516), 6);
  t.equal(request(5, [endpoint, ...new Array(16).fill(0)], 100), 4, 'no room for the properties');

  t.equal(attach(3, endpoint), 0);
  t.equal(map(3, 0x5000, 0x5fff, 0x7000, READ), 0);
  const saved = probe.device.save();
  t.equal(unmap(3, 0x5000, 0x5fff), 0);
  const [device] = probe.device.buses[0]?.devices ?? [];
  const deviceSaved = device?.save();
  if (device === undefined || deviceSaved === undefined) throw new TypeError('there is no device');
  device.restore(deviceSaved);
  t.ok(saved);
  t.equal(map(3, 0x5000, 0x5fff, 0x7000, READ), 0, 'it was unmapped when it was saved');
  device.restore(device.save());
  t.equal(map(3, 0x5000, 0x5fff, 0x7000, READ), 4, 'and now it is there');

  t.equal(driver.readConfig(36, 1), 1);
  driver.writeConfig(36, 1, 0);
  t.equal(driver.readConfig(36, 1), 0);
  driver.writeConfig(36, 1, 2);
  t.equal(driver.readConfig(36, 1), 0);
  driver.status = 0;
  t.equal(driver.readConfig(36, 1), 0, "the driver's reset leaves it");
  t.equal(driver.negotiate(BYPASS_CONFIG) & BYPASS_CONFIG, BYPASS_CONFIG);
  t.equal(queue.used(), undefined);
  t.throws(() => lab.pci(virtioIommuPci), /multiple vIOMMUs/);
});
