import { type PciPlace, RegisterScript } from './register-script.ts';

export const IOMMU = 0xfed9_0000;
export const REG = {
  ...{ GCMD: 0x18, RTADDR: 0x20, CCMD: 0x28, FSTS: 0x34, FECTL: 0x38, FEDATA: 0x3c, FEADDR: 0x40 },
  ...{ IQH: 0x80, IQT: 0x88, IQA: 0x90, ICS: 0x9c, IECTL: 0xa0, IEDATA: 0xa4, IEADDR: 0xa8 },
  ...{ IVA: 0xf0, IOTLB: 0xf8, FRCD: 0x220 },
} as const;
export const TE = 0x8000_0000;
const SRTP = 0x4000_0000;

/** Where the tables are. */
export const ROOT = 0x10_0000;
export const CONTEXTS = 0x10_1000;
export const LEVEL3 = 0x10_3000;
export const LEVEL2 = 0x10_4000;
export const LEVEL1 = 0x10_5000;
export const QUEUE = 0x10_8000;

/** The card's addresses begin here. */
export const BASE = 0x4000_0000;
export const PAGE = 0x1000;
/** Where they lead to. */
export const DATA = 0x20_0000;
/** An entry's: for reading and writing. */
export const BOTH = 3n;

export const CARD: PciPlace = { device: 4 };
const IO = 0xc000;

export const netdev = ['-netdev', 'hubport,hubid=0,id=n'];
export const machine = (options: string, ...more: readonly string[]): string[] => [
  ...['-machine', 'q35', '-m', '64M', '-nodefaults', '-device', `intel-iommu${options}`],
  ...more,
];

/** What a driver of the hardware does, with an RTL8139 in loopback mode that copies by DMA without a clock. */
export class VtdDriver {
  readonly script: RegisterScript;
  #source: number;

  constructor(name: string, options: readonly string[], source = 4 << 3) {
    this.script = new RegisterScript(`intel-iommu: ${name}`, options);
    this.#source = source;
  }

  set(register: number, value: number): this {
    this.script.write32(IOMMU + register, value);
    return this;
  }

  get(register: number, mask?: number): this {
    this.script.read32(IOMMU + register, mask);
    return this;
  }

  about(note: string): this {
    this.script.about(note);
    return this;
  }

  entry(table: number, index: number, value: bigint): this {
    this.script.write64(table + 8 * index, value);
    return this;
  }

  /** The context of the card: `width` 1 for 39 bits, 2 for 48. */
  context(low: bigint, high: bigint): this {
    const at = CONTEXTS + 16 * (this.#source & 0xff);
    this.script.write64(at, low).write64(at + 8, high);
    return this;
  }

  root(low: bigint, high = 0n): this {
    const at = ROOT + 16 * (this.#source >> 8);
    this.script.write64(at, low).write64(at + 8, high);
    return this;
  }

  tables(): this {
    return this.root(BigInt(CONTEXTS) | 1n)
      .context(BigInt(LEVEL3) | 1n, (5n << 8n) | 1n)
      .entry(LEVEL3, BASE / 2 ** 30, BigInt(LEVEL2) | BOTH)
      .entry(LEVEL2, 0, BigInt(LEVEL1) | BOTH);
  }

  map(page: number, memory: number, access = BOTH): this {
    return this.entry(LEVEL1, page, BigInt(memory) | access);
  }

  enable(): this {
    return this.set(REG.RTADDR, ROOT)
      .set(REG.RTADDR + 4, 0)
      .set(REG.GCMD, SRTP)
      .set(REG.GCMD, TE)
      .get(0x1c);
  }

  flush(): this {
    return this.set(REG.CCMD + 4, 0xa000_0000)
      .get(REG.CCMD + 4)
      .set(REG.IOTLB + 4, 0x9000_0000)
      .get(REG.IOTLB + 4);
  }

  /** Lets the card answer at I/O port 0xc000. */
  card(place = CARD): this {
    this.script.pciWrite(place, 0x10, IO | 1).pciWrite(place, 4, 7);
    return this;
  }

  /** Copies a frame of 64 bytes; it arrives behind a header of four. */
  copy(from: number, to: number): this {
    this.script
      .out8(IO + 0x37, 0x10)
      .out8(IO + 0x37, 0x0c)
      .out32(IO + 0x30, to)
      .out32(IO + 0x44, 0x81)
      .out32(IO + 0x40, 0x6_0000)
      .out32(IO + 0x20, from)
      .out32(IO + 0x10, 64);
    return this;
  }

  /** What was recorded; what QEMU says of PASIDs where there are none is no fault's. */
  fault(): this {
    this.get(REG.FSTS).get(REG.FECTL);
    this.get(REG.FRCD)
      .get(REG.FRCD + 4)
      .get(REG.FRCD + 8)
      .get(REG.FRCD + 12, 0xff00_00ff);
    return this.set(REG.FRCD + 12, 0x8000_0000)
      .set(REG.FSTS, 0x11)
      .get(REG.FSTS)
      .get(REG.FECTL);
  }

  descriptor(index: number, ...words: readonly number[]): this {
    for (let at = 0; at < 4; at++) this.script.write32(QUEUE + 16 * index + 4 * at, words[at] ?? 0);
    return this;
  }

  /** What the queue has come to. */
  queue(): this {
    return this.get(REG.IQH).get(REG.IQT).get(REG.FSTS).get(REG.ICS).get(REG.IECTL).get(0x1c);
  }

  pattern(at: number, seed: number): this {
    this.script.writeBytes(at, Buffer.from(Array.from({ length: 64 }, (_, index) => (seed + 7 * index) & 0xff)));
    return this;
  }

  see(at: number, length = 72): this {
    this.script.readBytes(at, length);
    return this;
  }
}
