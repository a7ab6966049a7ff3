import t, { type Test } from 'tap';
import { ms } from '../../core/clock/units.ts';
import { driverView } from '../../core/register/register.ts';
import { type Bench, bench } from '../../core/testing/bench.ts';
import { SeededRandom } from '../../core/testing/stand-ins.ts';
import { edu, eduRegisters } from '../../devices/edu.ts';
import { intelIommu } from '../../devices/intel-iommu/intel-iommu.ts';
import { IOMMU_BASE, intelIommuRegisters } from '../../devices/intel-iommu/registers.ts';
import { IOAPIC_BASE, IoApic, ioapic } from '../../devices/ioapic.ts';
import { virtioIommuPci } from '../../devices/virtio-iommu/virtio-iommu.ts';

const ROOT = 0x10_0000;
const CONTEXTS = 0x10_1000;
const LEVEL3 = 0x10_3000;
const LEVEL2 = 0x10_4000;
const LEVEL1 = 0x10_5000;
const QUEUE = 0x10_6000;
const IOVA = 0x40_0000_0000;
const TE = 0x8000_0000;
const SRTP = 0x4000_0000;
const QIE = 0x0400_0000;

function setUp(t: Test, props: Readonly<Record<string, string>> = {}, before: (lab: Bench) => unknown = () => {}) {
  const lab: Bench = bench();
  t.teardown(() => lab.dispose());
  lab.machine.start();
  before(lab);
  const device = lab.machine.system.plug(intelIommu, {}, props);
  device.reset();
  const { memory } = lab.machine;
  const regs = driverView(intelIommuRegisters, {
    read: (offset, size) => memory.read(IOMMU_BASE + offset, size),
    write: (offset, size, value) => memory.write(IOMMU_BASE + offset, size, value),
  });
  const card = lab.pci(edu, { dma_mask: (1n << 52n) - 1n });
  const source = card.device.devfn;
  const bar = card.bar(0, eduRegisters);
  const entry = (at: number, low: bigint): void => lab.ram.view.setBigUint64(at, low, true);
  const copy = (bus: number, toCard: boolean, length = 16): void => {
    bar.DMA_SRC.value = BigInt(toCard ? bus : 0x4_0000);
    bar.DMA_DST.value = BigInt(toCard ? 0x4_0000 : bus);
    bar.DMA_COUNT.value = BigInt(length);
    bar.DMA_CMD.value = toCard ? 1n : 3n;
    lab.clock.advance(ms(200));
  };
  /** A table of 39 bits with one page of level 1 below {@link IOVA}. */
  const enable = (): void => {
    entry(ROOT, BigInt(CONTEXTS) | 1n);
    entry(CONTEXTS + 16 * source, BigInt(LEVEL3) | 1n);
    entry(CONTEXTS + 16 * source + 8, 0x701n);
    entry(LEVEL3 + 8 * (IOVA / 2 ** 30), BigInt(LEVEL2) | 3n);
    entry(LEVEL2, BigInt(LEVEL1) | 3n);
    regs.RTADDR.value = BigInt(ROOT);
    regs.GCMD.value = SRTP;
    regs.GCMD.value = TE;
  };
  const text = (at: number, length = 16): string => Buffer.from(lab.ram.bytes.slice(at, at + length)).toString();
  const put = (at: number, what: string): void => lab.ram.bytes.set(Buffer.from(what), at);
  return { lab, device, regs, card, source, entry, copy, enable, text, put };
}

t.test('a function reaches what its tables lead to, and says why where they do not', async t => {
  const { lab, regs, source, entry, copy, enable, text, put } = setUp(t);
  put(0x1000, '0123456789abcdef');
  copy(0x1000, true);
  copy(0x2000, false);
  t.equal(text(0x2000), '0123456789abcdef', 'nothing is translated at first');
  enable();
  entry(LEVEL1, 0x6003n);
  entry(LEVEL1 + 8, 0x9001n);
  put(0x6ff8, 'ABCDEFGH');
  put(0x9000, 'IJKLMNOP');
  copy(IOVA + 0xff8, true);
  copy(IOVA + 0x100, false);
  t.equal(text(0x6100), 'ABCDEFGHIJKLMNOP', 'pages that are neighbours to it, and not in memory');
  regs.FEADDR.value = 0xfee0_1000;
  regs.FEDATA.value = 0x4321;
  regs.FECTL.IM = false;
  copy(IOVA + 0x1008, false);
  t.same(
    [regs.FSTS.PPF, regs.FRCD_HIGH.SID, regs.FRCD_HIGH.FR, regs.FRCD_HIGH.T, regs.FRCD.value],
    [true, source, 5, false, BigInt(IOVA + 0x1000)],
    'a page that was read before, and is for reading only',
  );
  t.same(lab.messages, [{ address: 0xfee0_1000, data: 0x4321 }]);
  copy(IOVA + 0x2000, true);
  t.equal(regs.FRCD_HIGH.FR, 5, 'another fault of the same requester is none of its own');
  regs.FRCD_HIGH.F = true;
  t.same([regs.FSTS.PPF, regs.FRCD_HIGH.F], [false, false]);
  copy(IOVA + 0x2000, true);
  t.same([regs.FRCD_HIGH.FR, regs.FRCD_HIGH.T], [6, true], 'not present');
  t.equal(lab.messages.length, 2);
  const other = lab.pci(edu);
  const otherBar = other.bar(0, eduRegisters);
  Object.assign(otherBar.DMA_SRC, { value: 0x1000n });
  Object.assign(otherBar.DMA_DST, { value: 0x4_0000n });
  Object.assign(otherBar.DMA_COUNT, { value: 16n });
  Object.assign(otherBar.DMA_CMD, { value: 1n });
  lab.clock.advance(ms(200));
  t.same([regs.FSTS.PFO, regs.FRCD_HIGH.SID], [true, source], 'for another requester there is no room');
});

t.test('messages of functions are not translated, events go out by the queue too', async t => {
  const { lab, card, regs, entry, enable } = setUp(t);
  enable();
  card.enableMsi(1, 0x55);
  card.bar(0, eduRegisters).IRQ_RAISE.value = 1;
  t.same(lab.messages, [{ address: 0xfee0_0000, data: 0x55 }]);
  regs.IEADDR.value = 0xfee0_2000;
  regs.IEDATA.value = 0x66;
  regs.IECTL.IM = false;
  regs.IQA.value = BigInt(QUEUE);
  regs.GCMD.value = (TE | QIE) >>> 0;
  // Both a status and an interrupt.
  entry(QUEUE, 0x1234_5678_0000_0035n);
  entry(QUEUE + 8, 0x7000n);
  regs.IQT.value = 0x10;
  t.equal(lab.ram.view.getUint32(0x7000, true), 0x1234_5678);
  t.same(lab.messages[1], { address: 0xfee0_2000, data: 0x66 });
  t.same([regs.ICS.IWC, regs.IQH.value], [true, 0x10]);
});

t.test('messages go where a table says, and come from whom it says', async t => {
  const { lab, card, regs, entry, device, source } = setUp(t, { intremap: 'on' }, lab =>
    lab.machine.system.plug(ioapic),
  );
  const TABLE = 0x8_0000;
  t.equal(device.interruptRemapping, true);
  t.same([regs.ECAP.IR, regs.ECAP.EIM, regs.ECAP.MHMV], [true, false, 15]);
  const raise = (address: number, data: number): void => {
    card.enableMsi(1, data);
    const at = card.readConfig(0x34, 1);
    card.writeConfig(at + 4, 4, address);
    card.bar(0, eduRegisters).IRQ_RAISE.value = 1;
  };
  const refused = (what: string, fault: number, index: number): void => {
    t.same(
      [lab.messages.length, regs.FRCD_HIGH.F, regs.FRCD_HIGH.SID, regs.FRCD_HIGH.FR, regs.FRCD.value],
      [0, true, source, fault, BigInt(index) << 48n],
      what,
    );
    regs.FRCD_HIGH.F = true;
  };
  regs.IRTA.value = BigInt(TABLE) | 3n;
  regs.GCMD.value = 0x0100_0000;
  regs.GCMD.value = 0x0200_0000;
  t.same([regs.GSTS.IRTPS, regs.GSTS.IRES], [true, true]);
  raise(0xfee0_1000, 0x40);
  t.same(lab.messages.splice(0), [{ address: 0xfee0_1000, data: 0x40 }], 'one that is not in the new format');
  // Entry 5: vector 0x77 by lowest priority, level, logical, to 3, from the card.
  entry(TABLE + 5 * 16, 0x0000_0300_0077_003dn);
  entry(TABLE + 5 * 16 + 8, BigInt(0x4_0000 | source));
  raise(0xfee0_0010 | (5 << 5), 0);
  t.same(lab.messages.splice(0), [{ address: 0xfee0_300c, data: 0xc177 }]);
  raise(0xfee0_0018 | (3 << 5), 2);
  t.same(lab.messages.splice(0), [{ address: 0xfee0_300c, data: 0xc177 }], 'with a subhandle');
  raise(0xfee0_0010 | (16 << 5), 0);
  refused('behind the end of the table', 0x21, 16);
  raise(0xfee0_0014 | (1 << 5), 0);
  refused('an index of 16 bits', 0x21, 0x8001);
  raise(0xfee0_0010 | (6 << 5), 0);
  refused('not present', 0x22, 6);
  entry(TABLE + 6 * 16, 0x2n);
  raise(0xfee0_0010 | (6 << 5), 0);
  t.equal(regs.FRCD_HIGH.F, false, 'not present, and not recorded');
  entry(TABLE + 6 * 16, 0x1001n);
  raise(0xfee0_0010 | (6 << 5), 0);
  refused('reserved', 0x24, 6);
  entry(TABLE + 6 * 16, 0x0077_0001n);
  for (const [verify, allowed] of [
    [0x4_0000 | (source ^ 1), false],
    [0x5_0000 | (source ^ 4), true],
    [0x6_0000 | (source ^ 6), true],
    [0x7_0000 | (source ^ 7), true],
    [0x7_0000 | (source ^ 8), false],
    [0x8_0000, true],
    [0x8_0201, false],
    [0xc_0000, false],
  ] as const) {
    entry(TABLE + 6 * 16 + 8, BigInt(verify));
    raise(0xfee0_0010 | (6 << 5), 0);
    if (!allowed) refused(`0x${verify.toString(16)}`, 0x26, 6);
    else t.same(lab.messages.splice(0), [{ address: 0xfee0_0000, data: 0x4077 }]);
  }
  regs.IRTA.value = 0x70_0000_0000n | 3n;
  regs.GCMD.value = 0x0300_0000;
  raise(0xfee0_0010, 0);
  refused('a table that is not in memory', 0x23, 0);
});

t.test('the I/O APIC sends through it too', async t => {
  const { lab, entry, regs } = setUp(t, {}, lab =>
    lab.machine.memoryRoot.add(lab.machine.system.plug(ioapic).region, IOAPIC_BASE),
  );
  const { memory } = lab.machine;
  const [chip] = lab.machine.system.devices.filter(each => each instanceof IoApic);
  const redirect = (pin: number, low: number, high: number): void => {
    for (const [index, value] of [low, high].entries()) {
      memory.write(IOAPIC_BASE, 4, 0x10 + 2 * pin + index);
      memory.write(IOAPIC_BASE + 0x10, 4, value);
    }
  };
  const table = 0x8_0000;
  entry(table + 16, 0x0000_0100_0055_0001n);
  entry(table + 24, 0x4_ff00n);
  redirect(4, 0x31, 0x0200_0000);
  chip?.pins[4]?.pulse();
  regs.IRTA.value = BigInt(table);
  regs.GCMD.value = 0x0100_0000;
  regs.GCMD.value = 0x0200_0000;
  // Format in bit 48, index in 49 to 63.
  redirect(4, 0x55, (1 << 17) | (1 << 16));
  chip?.pins[4]?.pulse();
  t.same(lab.messages, [
    { address: 0xfee0_2000, data: 0x31 },
    { address: 0xfee0_1000, data: 0x4055 },
  ]);
});

t.test('the queue goes on where it was wrong, once that is put right', async t => {
  const { regs, entry, enable } = setUp(t);
  enable();
  regs.IQA.value = BigInt(QUEUE);
  regs.GCMD.value = (TE | QIE) >>> 0;
  entry(QUEUE, 0xfn);
  entry(QUEUE + 16, 0x11n);
  regs.IQT.value = 0x20;
  t.same([regs.IQH.value, regs.FSTS.IQE], [0, true]);
  entry(QUEUE, 0x11n);
  regs.FSTS.IQE = true;
  t.same([regs.IQH.value, regs.FSTS.IQE], [0x20, false]);
});

t.test('it is saved with its queue, without what it has kept', async t => {
  const { device, regs, entry, copy, enable, text, put } = setUp(t);
  enable();
  entry(LEVEL1, 0x6003n);
  put(0x6000, 'before.before.be');
  put(0x8000, 'after.after.afte');
  copy(IOVA, true);
  const saved = device.save();
  entry(LEVEL1, 0x8003n);
  copy(IOVA, true);
  copy(IOVA + 0x100, false);
  t.equal(text(0x6100), 'before.before.be', 'kept');
  device.reset();
  t.equal(regs.GSTS.TES, false);
  device.restore(saved);
  t.equal(regs.GSTS.TES, true);
  copy(IOVA, true);
  copy(IOVA + 0x100, false);
  t.equal(text(0x8100), 'after.after.afte');
});

t.test('tables and queues of noise, or of itself', async t => {
  const { lab, regs, copy, enable, entry, source } = setUp(t, { 'aw-bits': '48' });
  const random = new SeededRandom(7);
  for (let round = 0; round < 200; round++) {
    enable();
    // Noise, whose pointers lead into RAM now and then.
    for (const table of [LEVEL3, LEVEL2, LEVEL1, QUEUE])
      for (let at = 0; at < 4096; at += 8) {
        const low = random.below(2 ** 32);
        const pointer = random.below(4) > 0 ? BigInt(low & 0xff_f003) : BigInt(low) << BigInt(random.below(32));
        entry(table + at, pointer);
      }
    copy(random.below(2 ** 31) * 2 ** random.below(18), round % 2 === 0, 4096);
    regs.IQA.value = BigInt(QUEUE) | BigInt(random.below(8));
    regs.GCMD.value = (TE | QIE) >>> 0;
    regs.FSTS.IQE = true;
    regs.IQT.value = random.below(0x8_0000);
    regs.FRCD_HIGH.F = true;
  }
  enable();
  // Its own registers as tables, and as what is written.
  entry(CONTEXTS + 16 * source, BigInt(IOMMU_BASE) | 1n);
  regs.CCMD.value = 0xa000_0000_0000_0000n;
  copy(IOVA, true, 4096);
  entry(LEVEL1, BigInt(IOMMU_BASE) | 3n);
  copy(IOVA, false, 4096);
  t.equal(lab.machine.memory.read(IOMMU_BASE, 4), 0x10);
});

t.test('what is refused', async t => {
  for (const [props, message] of [
    [{ 'aw-bits': '40' }, /Supported values for aw-bits are: 39, 48/],
    [{ intremap: 'off', eim: 'on' }, /eim=on cannot be selected without intremap=on/],
    [{ 'x-pasid-mode': 'on' }, /Need to set scalable mode for PASID/],
    [{ 'x-scalable-mode': 'on', 'dma-drain': 'off' }, /Need to set dma_drain for scalable mode/],
    [{ 'x-scalable-mode': 'on' }, /scalable mode is not supported/],
    [{ intremap: 'on' }, /Interrupt Remapping cannot work with kernel-irqchip=on/],
  ] as const) {
    const lab = bench();
    t.throws(() => lab.machine.system.plug(intelIommu, {}, props), message);
    lab.dispose();
  }
  const { lab } = setUp(t);
  t.throws(() => lab.machine.system.plug(intelIommu), /multiple vIOMMUs/);
  t.throws(() => lab.pci(virtioIommuPci), /multiple vIOMMUs/);
});
