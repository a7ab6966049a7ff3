import type { RegisterScript } from '../register-script.ts';
import {
  BASE,
  BOTH,
  CARD,
  CONTEXTS,
  DATA,
  IOMMU,
  LEVEL1,
  LEVEL2,
  LEVEL3,
  machine,
  netdev,
  PAGE,
  QUEUE,
  REG,
  ROOT,
  TE,
  VtdDriver,
} from '../vtd-driver.ts';

const SIZE = 0x230;
const QIE = 0x0400_0000;
const TOP = 0x10_2000;
const STATUS = 0x10_9000;
const NOWHERE = 0x70_0000_0000n;
const LARGE = 0x20_0000;
const READ = 1n;
const WRITE = 2n;
const PS = 0x80n;

const rtl = [...netdev, '-device', 'rtl8139,netdev=n,addr=4,mac=52:54:00:12:34:56'];

const registersOf = (name: string, options: string, interrupts = 'off'): RegisterScript => {
  const driver = new VtdDriver(`registers ${name}`, machine(`,intremap=${interrupts}${options}`));
  const all = (note: string): void => {
    driver.about(note);
    for (let at = 0; at < SIZE; at += 4) driver.get(at);
  };
  all('at reset');
  // 38 and 3c are written one by one: QEMU stops where they are not.
  const commands: readonly number[] = [REG.GCMD, REG.CCMD, REG.CCMD + 4, REG.IOTLB, REG.IOTLB + 4, REG.IQT];
  for (const value of [0xffff_ffff, 0, 0x5a5a_a5a5]) {
    driver.about(`0x${value.toString(16)} to all but commands`);
    for (let at = 0; at < SIZE; at += 4) if (!commands.includes(at)) driver.set(at, value).get(at);
    all('and all of them');
  }
  driver
    .about('commands')
    .set(REG.CCMD, 0xffff_ffff)
    .set(REG.CCMD + 4, 0x6000_0003)
    .get(REG.CCMD)
    .get(REG.CCMD + 4);
  for (const granularity of [0, 1, 2, 3]) {
    driver.set(REG.CCMD + 4, 0x8000_0000 + granularity * 0x2000_0000).get(REG.CCMD + 4);
    driver
      .set(REG.IVA, 0x12)
      .set(REG.IOTLB + 4, 0x8000_0000 + granularity * 0x1000_0000)
      .get(REG.IOTLB + 4);
  }
  driver
    .about('too many pages')
    .set(REG.IVA, 0x13)
    .set(REG.IOTLB + 4, 0xb000_0000)
    .get(REG.IOTLB + 4);
  driver.script.write64(IOMMU + REG.RTADDR, 0x1234_5678_9abc_def0n);
  driver.get(REG.RTADDR).get(REG.RTADDR + 4);
  driver
    .about('a queue address')
    .set(REG.IQA, 0xfff0_0001)
    .set(REG.IQA + 4, 0xffff_ffff)
    .set(REG.GCMD, QIE);
  driver
    .get(REG.IQA)
    .get(REG.IQA + 4)
    .get(0x1c);
  driver.about('all commands').set(REG.GCMD, 0xffff_ffff).get(REG.GCMD).get(0x1c).set(REG.GCMD, 0).get(0x1c);
  all('in the end');
  return driver.script;
};
export const registers = (): RegisterScript => registersOf('of 39 bits', '');
export const registersWide = (): RegisterScript =>
  registersOf('of 48 bits, all on', ',aw-bits=48,caching-mode=on,device-iotlb=on,snoop-control=on');
export const registersByDefault = (): RegisterScript => registersOf('by default', '', 'auto');
export const registersBare = (): RegisterScript => registersOf('all off', ',pt=off,dma-drain=off,dma-translation=off');

export function mapping(): RegisterScript {
  const driver = new VtdDriver('mapping and its caches', machine(',intremap=off', ...rtl)).card();
  for (let page = 0; page < 8; page++) driver.pattern(DATA + page * PAGE, 0x10 + page);
  driver
    .about('off')
    .copy(DATA, DATA + 0x8000)
    .see(DATA + 0x8000);
  driver
    .about('pages')
    .tables()
    .map(0, DATA)
    .map(1, DATA + 0x9000)
    .map(2, DATA + 0xc000)
    .map(3, DATA + 0xa000);
  driver
    .enable()
    .copy(BASE, BASE + PAGE)
    .see(DATA + 0x9000)
    .fault();
  driver
    .about('over a boundary')
    .copy(BASE, BASE + 3 * PAGE - 0x20)
    .see(DATA + 0xcfe0, 0x20)
    .see(DATA + 0xa000)
    .fault();
  driver
    .about('the tables change')
    .map(0, DATA + PAGE)
    .copy(BASE, BASE + PAGE)
    .see(DATA + 0x9000);
  driver
    .about('another domain')
    .set(REG.IOTLB, 0)
    .set(REG.IOTLB + 4, 0xa000_0006)
    .copy(BASE, BASE + PAGE);
  driver
    .see(DATA + 0x9000)
    .about('another page')
    .set(REG.IVA, BASE + 4 * PAGE)
    .set(REG.IOTLB + 4, 0xb000_0005);
  driver.copy(BASE, BASE + PAGE).see(DATA + 0x9000);
  driver
    .about('its page')
    .set(REG.IVA, BASE)
    .set(REG.IOTLB + 4, 0xb000_0005)
    .copy(BASE, BASE + PAGE);
  driver
    .see(DATA + 0x9000)
    .about('two pages')
    .map(0, DATA + 2 * PAGE)
    .set(REG.IVA, BASE | 1);
  driver
    .set(REG.IOTLB + 4, 0xb000_0005)
    .copy(BASE, BASE + PAGE)
    .see(DATA + 0x9000);
  driver
    .about('its domain')
    .map(0, DATA + 3 * PAGE)
    .set(REG.IOTLB + 4, 0xa000_0005)
    .copy(BASE, BASE + PAGE);
  driver
    .see(DATA + 0x9000)
    .about('all')
    .map(0, DATA + 4 * PAGE)
    .set(REG.IOTLB + 4, 0x9000_0000);
  driver.copy(BASE, BASE + PAGE).see(DATA + 0x9000);
  driver
    .about('a large page')
    .entry(LEVEL2, 1, BigInt(DATA) | BOTH | PS)
    .copy(BASE + LARGE + PAGE, BASE + LARGE + 0xd000);
  driver.see(DATA + 0xd000).fault();
  driver.about('forgotten by one of its pages').entry(LEVEL2, 1, BigInt(DATA + LARGE) | BOTH | PS);
  driver
    .pattern(DATA + LARGE + PAGE, 0x77)
    .set(REG.IVA, BASE + LARGE + 0x5000)
    .set(REG.IOTLB + 4, 0xb000_0005);
  driver.copy(BASE + LARGE + PAGE, BASE + LARGE + 0xd000).see(DATA + LARGE + 0xd000);
  driver
    .about('a gigabyte')
    .entry(LEVEL3, 2, BOTH | PS)
    .copy(2 ** 31 + DATA + 5 * PAGE, 2 ** 31 + DATA + 0xe000);
  driver.see(DATA + 0xe000).fault();
  driver
    .about('the context is kept')
    .context(0n, 0n)
    .copy(BASE, BASE + PAGE)
    .map(0, DATA + 6 * PAGE);
  driver
    .set(REG.IOTLB + 4, 0x9000_0000)
    .copy(BASE, BASE + PAGE)
    .see(DATA + 0x9000)
    .fault();
  driver
    .about('and passes through')
    .context(BigInt(LEVEL3) | 9n, 0x501n)
    .flush()
    .copy(DATA + 7 * PAGE, DATA + 0xf000);
  driver
    .see(DATA + 0xf000)
    .fault()
    .about('off again')
    .set(REG.GCMD, 0)
    .copy(DATA + PAGE, DATA + 0xf000)
    .get(0x1c);
  driver.see(DATA + 0xf000);
  return driver.script;
}

export function faults(): RegisterScript {
  const driver = new VtdDriver('faults', machine(',intremap=off', ...rtl)).card().tables();
  driver
    .map(0, DATA)
    .map(1, DATA + 0x9000)
    .pattern(DATA, 0x31);
  driver.set(REG.FEDATA, 0x41).set(REG.FEADDR, 0xfee0_0000).set(REG.FECTL, 0).enable();
  const attempt = (note: string, from = BASE, to = BASE + PAGE): void => {
    driver.about(note).flush().copy(from, to).fault();
  };
  attempt('none');
  driver.see(DATA + 0x9000);
  driver.root(0n);
  attempt('no root entry');
  for (const low of [3n, 0x401n, (1n << 40n) | 1n]) {
    driver.root(BigInt(CONTEXTS) | low);
    attempt(`reserved bits of a root entry, ${low}`);
  }
  driver.root(BigInt(CONTEXTS) | 1n, 1n);
  attempt('its upper half');
  driver.root(0x7f_ffff_f001n);
  attempt('contexts that are not in memory');
  driver.root(BigInt(CONTEXTS) | 1n);
  const good = BigInt(LEVEL3) | 1n;
  for (const [note, low, high] of [
    ['not present', 0n, 0n],
    ['not present, not recorded', 2n, 0n],
    ['reserved', good | 0x10n, 0x501n],
    ['beyond the width', good | (1n << 39n), 0x501n],
    ['reserved, upper half', good, 0x581n],
    ['reserved, top', good, 0x501n | (1n << 63n)],
    ['4 levels', good, 0x502n],
    ['2 levels', good, 0x500n],
    ['7 levels', good, 0x505n],
    ['device TLB', good | 4n, 0x501n],
    ['no such type', good | 12n, 0x501n],
    ['no such type, not recorded', good | 14n, 0x501n],
    ['tables that are not in memory', 0x7f_ffff_f001n, 0x501n],
  ] as const) {
    driver.context(low, high);
    attempt(`context: ${note}`);
  }
  driver.root(1n).script.write64(ROOT, BigInt(CONTEXTS) | 1n);
  driver.context(good, 0x501n);
  for (const [note, entry, index, value] of [
    ['no level 3', LEVEL3, 1, 0n],
    ['level 3 reserved', LEVEL3, 1, BigInt(LEVEL2) | BOTH | 0x800n],
    ['level 3 beyond', LEVEL3, 1, BigInt(LEVEL2) | BOTH | (1n << 40n)],
    ['level 3 transient', LEVEL3, 1, BigInt(LEVEL2) | BOTH | (1n << 62n)],
    ['level 3 of software', LEVEL3, 1, BigInt(LEVEL2) | BOTH | (0xbff0n << 48n)],
    ['a gigabyte, not whole', LEVEL3, 1, 0x20_0000n | BOTH | PS],
    ['level 3 to nowhere', LEVEL3, 1, NOWHERE | BOTH],
    ['level 3 again', LEVEL3, 1, BigInt(LEVEL2) | BOTH],
    ['no level 2', LEVEL2, 0, 0n],
    ['level 2 reserved', LEVEL2, 0, BigInt(LEVEL1) | BOTH | 0x800n],
    ['large, not whole', LEVEL2, 0, 0x1000n | BOTH | PS],
    ['large, snooped', LEVEL2, 0, 0x800n | BOTH | PS],
    ['level 2 for reading', LEVEL2, 0, BigInt(LEVEL1) | READ],
    ['level 2 for writing', LEVEL2, 0, BigInt(LEVEL1) | WRITE],
    ['level 2 again', LEVEL2, 0, BigInt(LEVEL1) | BOTH],
    ['level 1 reserved', LEVEL1, 0, BigInt(DATA) | BOTH | 0x800n],
    ['level 1 transient', LEVEL1, 0, BigInt(DATA) | BOTH | (1n << 62n)],
    ['level 1, what is ignored', LEVEL1, 0, BigInt(DATA) | BOTH | 0x7fcn],
    ['level 1 all ones', LEVEL1, 0, 0xffff_ffff_ffff_ffffn],
    ['level 1 to interrupts', LEVEL1, 0, 0xfee0_1000n | BOTH],
    ['level 1 for reading', LEVEL1, 0, BigInt(DATA) | READ],
    ['target for reading', LEVEL1, 1, BigInt(DATA + 0x9000) | READ],
    ['target for writing', LEVEL1, 1, BigInt(DATA + 0x9000) | WRITE],
    ['source for writing', LEVEL1, 0, BigInt(DATA) | WRITE],
  ] as const) {
    driver.entry(entry, index, value);
    attempt(note);
  }
  driver.map(0, DATA);
  attempt('beyond the tables', 0x4000_0000 + LARGE, BASE + PAGE);
  driver
    .about('masked')
    .set(REG.FECTL, 0x8000_0000)
    .flush()
    .copy(BASE + 9 * PAGE, BASE)
    .get(REG.FSTS)
    .get(REG.FECTL);
  driver
    .about('one requester, once')
    .copy(BASE + 10 * PAGE, BASE)
    .get(REG.FRCD)
    .get(REG.FSTS);
  driver.about('unmasked').set(REG.FECTL, 0).get(REG.FECTL).fault();
  driver
    .about('translation ends')
    .pattern(DATA, 0x55)
    .set(REG.GCMD, 0)
    .copy(DATA, DATA + PAGE)
    .see(DATA + PAGE)
    .fault();
  return driver.script;
}

/** Four levels, and addresses above 4 GiB, with the descriptors that an e1000 fetches and writes back. */
export function wide(): RegisterScript {
  const e1000 = [...netdev, '-device', 'e1000,netdev=n,addr=4,mac=52:54:00:12:34:56'];
  const driver = new VtdDriver('48 bits', machine(',intremap=off,aw-bits=48,device-iotlb=on', ...e1000));
  const BAR = 0xe000_0000;
  const { script } = driver;
  const ring = 0x8000_4000_0000n;
  script.pciWrite(CARD, 0x10, BAR).pciWrite(CARD, 4, 6);
  driver.root(BigInt(CONTEXTS) | 1n).context(BigInt(TOP) | 5n, 0x502n);
  driver
    .entry(TOP, 256, BigInt(LEVEL3) | BOTH)
    .entry(LEVEL3, 1, BigInt(LEVEL2) | BOTH)
    .entry(LEVEL2, 0, BigInt(LEVEL1) | BOTH);
  driver.map(0, DATA).enable();
  const transmit = (note: string, base: bigint): void => {
    driver.about(note).flush();
    // The descriptor: a frame of 64 bytes, end of packet, insert FCS, report status.
    script
      .write64(DATA, base + 0x100n)
      .write32(DATA + 8, 0x0b00_0040)
      .write32(DATA + 12, 0);
    script.write32(BAR + 0x400, 0).write32(BAR + 0x3800, Number(base & 0xffff_ffffn));
    script
      .write32(BAR + 0x3804, Number(base >> 32n))
      .write32(BAR + 0x3808, 0x1000)
      .write32(BAR + 0x3810, 0);
    script
      .write32(BAR + 0x3818, 0)
      .write32(BAR + 0x400, 2)
      .write32(BAR + 0x3818, 1)
      .read32(BAR + 0x3810);
    driver.see(DATA, 16).fault();
  };
  transmit('mapped', ring);
  transmit('beyond the width', 1n << 48n);
  transmit('not mapped', ring + 0x8000_0000_0000n - 0x1000n);
  transmit('the next page', ring + 0x1000n);
  driver.entry(TOP, 256, BigInt(LEVEL3) | BOTH | PS);
  transmit('no page is of 512 GiB', ring);
  driver.entry(TOP, 256, BigInt(LEVEL3) | BOTH | (1n << 62n));
  transmit('nor is a table transient', ring);
  driver.entry(TOP, 256, BigInt(LEVEL3) | BOTH).map(0, DATA, BOTH | (1n << 62n));
  transmit('but a page', ring);
  driver.entry(TOP, 256, NOWHERE | BOTH);
  transmit('a table that is not in memory', ring);
  driver
    .context(BigInt(LEVEL3) | 1n, 0x501n)
    .entry(LEVEL3, 256, BigInt(LEVEL2) | BOTH)
    .map(0, DATA);
  transmit('three levels', 256n << 30n);
  transmit('and what is beyond these', 1n << 39n);
  return script;
}

export function queue(): RegisterScript {
  const driver = new VtdDriver('invalidation queue', machine(',intremap=off', ...rtl)).card().tables();
  driver
    .map(0, DATA)
    .map(1, DATA + 0x9000)
    .pattern(DATA, 0x21)
    .pattern(DATA + PAGE, 0x42);
  driver.set(REG.IEDATA, 0x42).set(REG.IEADDR, 0xfee0_0000).enable();
  driver
    .about('enabled')
    .set(REG.IQA, QUEUE)
    .set(REG.IQA + 4, 0)
    .set(REG.IQT, 0)
    .set(REG.GCMD, TE | QIE)
    .queue();
  driver
    .get(REG.IQA)
    .copy(BASE, BASE + PAGE)
    .see(DATA + 0x9000);
  driver.about('everything, and a status').map(0, DATA + PAGE);
  driver.descriptor(0, 0x11).descriptor(1, 0x12).descriptor(2, 0x25, 0xcafe_f00d, STATUS).set(REG.IQT, 0x30).queue();
  driver
    .see(STATUS, 8)
    .copy(BASE, BASE + PAGE)
    .see(DATA + 0x9000);
  driver
    .about('by register it does not work')
    .set(REG.CCMD + 4, 0xa000_0000)
    .get(REG.CCMD + 4);
  driver.set(REG.IOTLB + 4, 0x9000_0000).get(REG.IOTLB + 4);
  driver.about('it cannot go: nothing waits').descriptor(3, 0x11).set(REG.IQT, 0x40).set(REG.GCMD, TE).queue();
  driver.about('a page').map(0, DATA).descriptor(4, 0x0005_0032, 0, BASE).descriptor(5, 0x45, 0, 0);
  driver
    .about('a wait for nothing is wrong')
    .set(REG.IQT, 0x60)
    .queue()
    .descriptor(5, 0x65, 7, STATUS + 4);
  driver
    .set(REG.FSTS, 0x10)
    .set(REG.IQT, 0x60)
    .queue()
    .see(STATUS, 8)
    .copy(BASE, BASE + PAGE)
    .see(DATA + 0x9000);
  driver.about('an interrupt, masked').descriptor(6, 0x15).set(REG.IQT, 0x70).queue();
  driver.about('unmasked').set(REG.IECTL, 0).queue().set(REG.ICS, 1).queue();
  driver.about('an interrupt').descriptor(7, 0x15).set(REG.IQT, 0x80).queue().set(REG.ICS, 1).queue();
  const wrong: readonly (readonly [string, ...number[]])[] = [
    ['no type', 0x0],
    ['no such type', 0x8],
    ['no such context granularity', 0x01],
    ['context reserved', 0x51],
    ['context reserved, upper half', 0x11, 0x0004_0000],
    ['context reserved, second half', 0x11, 0, 1],
    ['no such granularity', 0x02],
    ['TLB reserved', 0x0112],
    ['TLB reserved, upper half', 0x12, 1],
    ['TLB reserved, second half', 0x12, 0, 0x80],
    ['too many pages', 0x32, 0, 0x13],
    ['device TLB reserved', 0x0000_0083],
    ['device TLB reserved, second half', 0x3, 0, 2],
    ['wait reserved', 0xa5],
    ['wait, not aligned', 0x25, 0, STATUS + 1],
    ['wait, not in memory', 0x25, 0, 0, 0x70],
  ];
  const good = [0x25, 0x1234, STATUS] as const;
  for (const [index, [note, ...words]] of wrong.entries()) {
    driver
      .about(note)
      .descriptor(8 + index, ...words)
      .set(REG.IQT, 16 * (9 + index))
      .queue();
    driver
      .descriptor(8 + index, ...good)
      .set(REG.FSTS, 0x10)
      .set(REG.IQT, 16 * (9 + index))
      .queue();
  }
  let at = 8 + wrong.length;
  driver
    .about('others')
    .descriptor(at++, 0x3, 0x20, 0x1000)
    .descriptor(at++, 0x4)
    .descriptor(at++, 0x6)
    .descriptor(at++, 0x7);
  driver
    .descriptor(at++, 0x32_0012 | 0x30, 0, 0x1234_5000 | 18, 0x7f)
    .descriptor(at++, ...good)
    .set(REG.IQT, 16 * at)
    .queue();
  driver
    .about('around the end')
    .set(REG.IQT, 16 * 255)
    .queue();
  for (let index = at; index < 256; index++) driver.descriptor(index, 0x11);
  driver
    .set(REG.FSTS, 0x10)
    .set(REG.IQT, 16 * 255)
    .queue()
    .descriptor(0, ...good)
    .set(REG.IQT, 16)
    .queue();
  driver.about('it goes').set(REG.GCMD, TE).queue();
  driver
    .about('a tail behind the end')
    .set(REG.IQT, 0x1000)
    .queue()
    .set(REG.GCMD, TE | QIE)
    .queue();
  return driver.script;
}
