import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { PciDevice } from '../core/pci/pci-device.ts';
import { field } from '../core/state/fields.ts';

/** Offsets of the header that the selected test shows (QEMU docs/specs/pci-testdev). */
const HEADER_TEST = 0;
const HEADER_WIDTH = 1;
const HEADER_OFFSET = 4;
const HEADER_DATA = 8;
const HEADER_COUNT = 12;
const HEADER_NAME = 16;

/** Half of each BAR is the header, the other half is there to be written. */
const MEMORY_HALF = 2048;
const PORTS_HALF = 128;

/** The byte that counts, and one that must not, where every byte does. */
const MATCH = 0xfa;
const NO_MATCH = 0xce;

const KINDS = ['no-eventfd', 'wildcard-eventfd', 'datamatch-eventfd'] as const;
const NO_TEST = -1;

interface Test {
  readonly header: Uint8Array;
  readonly offset: number;
  /** The only value that counts; undefined where all do. */
  readonly match: number | undefined;
}

/** Six tests: three ways to hear of a write, through memory and through ports. */
const TESTS: readonly Test[] = (['mmio', 'portio'] as const).flatMap((space, spaceIndex) =>
  KINDS.map((kind, kindIndex) => {
    const index = spaceIndex * KINDS.length + kindIndex;
    const name = Buffer.from(`${space}-${kind}\0`);
    const header = Buffer.alloc(HEADER_NAME + name.length);
    const offset = (space === 'mmio' ? MEMORY_HALF : PORTS_HALF) + index;
    const match = kind === 'wildcard-eventfd' ? undefined : MATCH;
    header[HEADER_TEST] = index;
    header[HEADER_WIDTH] = 1;
    header.writeUInt32LE(offset, HEADER_OFFSET);
    header[HEADER_DATA] = match ?? NO_MATCH;
    header.set(name, HEADER_NAME);
    return { header, offset, match };
  }),
);

const properties = { membar: prop.size({ default: 0, help: 'size of an empty 64-bit BAR' }) } as const;

/** Counts writes of a chosen kind, to measure how fast a hypervisor delivers them. */
class PciTestDevice extends PciDevice<typeof properties> {
  readonly #state = this.state(1, { current: field.number(NO_TEST), count: field.u32() });

  protected override realize(): void {
    const bytes = { impl: { max: 1 } } as const;
    const handler = (
      first: number,
    ): { read(offset: number): number; write(offset: number, size: number, value: number): void } => ({
      read: offset => this.#read(offset),
      write: (offset, _size, value) => this.#write(first, offset, value),
    });
    this.bar(0, handler(0), { size: 2 * MEMORY_HALF }, bytes);
    this.bar(1, handler(KINDS.length), { size: 2 * PORTS_HALF, space: 'io' }, bytes);
    const { membar } = this.props;
    if (membar > 0)
      this.bar(2, MemoryRegion.container('pci-testdev-membar', membar), {
        size: membar,
        wide: true,
        prefetchable: true,
      });
  }

  #read(offset: number): number {
    const test = TESTS[this.#state.current];
    // The last byte of the name, its terminator, is out of reach.
    if (test === undefined || offset + 1 >= test.header.length) return 0;
    if (offset >= HEADER_COUNT && offset < HEADER_COUNT + 4)
      return (this.#state.count >>> (8 * (offset - HEADER_COUNT))) & 0xff;
    return test.header[offset] ?? 0;
  }

  #write(first: number, offset: number, value: number): void {
    const state = this.#state;
    if (offset === HEADER_TEST) {
      state.current = value < KINDS.length ? first + value : NO_TEST;
      state.count = 0;
      return;
    }
    const test = TESTS[state.current];
    if (test === undefined || offset !== test.offset || (test.match !== undefined && value !== test.match)) return;
    state.count = (state.count + 1) >>> 0;
  }
}

export const pciTestdev = deviceType({
  type: 'pci-testdev',
  summary: 'PCI Test Device',
  properties,
  pci: { vendor: 0x1b36, device: 0x0005, class: 0x00ff00 },
  create: PciTestDevice,
});
