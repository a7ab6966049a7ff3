import type { TableContent } from '../../core/firmware/acpi-blob.ts';
import { dmar } from '../../core/firmware/dmar.ts';
import { viot } from '../../core/firmware/viot.ts';
import type { PciBus } from '../../core/pci/pci-bus.ts';
import { IntelIommu, IO_APIC_SOURCE } from '../../devices/intel-iommu/intel-iommu.ts';
import { IOMMU_BASE } from '../../devices/intel-iommu/registers.ts';
import { lastBusOf } from './acpi-description.ts';

/** What translates for the root buses, and how far they go. */
export function iommuTables(root: PciBus, ioApicId: number): readonly TableContent[] {
  const { iommu } = root;
  if (iommu === undefined) return [];
  const buses = [root, ...root.expanders].filter(bus => !bus.bypassIommu);
  if (iommu.function !== undefined) {
    const ranges = buses.map(bus => ({ first: bus.number, last: lastBusOf(bus) })).sort((a, b) => a.first - b.first);
    return [viot({ iommu: iommu.function.devfn, ranges })];
  }
  if (!(iommu instanceof IntelIommu)) return [];
  const functions = buses.flatMap(bus =>
    bus.functions.map(({ devfn, secondaryBus }) => ({ bus: bus.number, devfn, bridge: secondaryBus !== undefined })),
  );
  return [
    dmar({
      addressWidth: iommu.addressWidth,
      interruptRemapping: iommu.interruptRemapping,
      deviceTlb: iommu.deviceTlb,
      base: IOMMU_BASE,
      ioApic: { id: ioApicId, bus: IO_APIC_SOURCE >> 8, devfn: IO_APIC_SOURCE & 0xff },
      functions,
    }),
  ];
}
