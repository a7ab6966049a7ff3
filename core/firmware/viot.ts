/** Virtual I/O Translation Table (ACPI 6.4, section 5.2.33): which functions are behind a virtio-iommu that is one itself. */
import type { TableContent } from './acpi-blob.ts';
import { concat, u8, u16, u32 } from './aml.ts';

const NODE = { PCI_RANGE: 1, VIRTIO_PCI_IOMMU: 3 } as const;
const HEADER_SIZE = 48;
const RANGE_SIZE = 24;
const IOMMU_SIZE = 16;

export interface ViotFacts {
  /** Bus number * 256 + devfn of the virtio-iommu. */
  readonly iommu: number;
  /** The root buses that it translates for, each with the last bus below it. */
  readonly ranges: readonly { readonly first: number; readonly last: number }[];
}

export function viot({ iommu, ranges }: ViotFacts): TableContent {
  const body = concat(
    u16(1 + ranges.length),
    u16(HEADER_SIZE),
    u32(0),
    u32(0),
    concat(u8(NODE.VIRTIO_PCI_IOMMU), u8(0), u16(IOMMU_SIZE), u16(0), u16(iommu), u32(0), u32(0)),
    // Endpoints, segments, functions from and to; the node that they go through.
    ...ranges.map(({ first, last }) =>
      concat(
        concat(u8(NODE.PCI_RANGE), u8(0), u16(RANGE_SIZE), u32(first * 256), u16(0), u16(0)),
        concat(u16(first * 256), u16(last * 256 + 0xff), u16(HEADER_SIZE), u16(0), u32(0)),
      ),
    ),
  );
  return { signature: 'VIOT', revision: 0, body };
}
