import { createHash } from 'node:crypto';
import t from 'tap';
import { DEFAULT_OEM, type TableContent, tableBytes } from '../../../core/firmware/acpi-blob.ts';
import { fadt, hpet, madt, mcfg, memoryAffinities, slit, srat, waet } from '../../../core/firmware/acpi-tables.ts';
import { cedt } from '../../../core/firmware/cedt.ts';
import { dsdt } from '../../../core/firmware/dsdt.ts';
import { appleSmc, pvpanic, realTimeClock, serialPort } from '../../../core/firmware/dsdt-isa.ts';
import { microvmDsdt } from '../../../core/firmware/dsdt-microvm.ts';
import type { AcpiPciBus, AcpiPciDevice } from '../../../core/firmware/dsdt-pci.ts';
import { nfit } from '../../../core/firmware/nfit.ts';
import { type TpmFacts, tpmDevice } from '../../../core/firmware/tpm.ts';
import { emptyBus, GIB, MIB, microvmFadt, pc, pcBus, pcFadt, q35, q35Bus, q35Fadt } from './platforms.ts';

/** The first 64 bits of the SHA-256 of the tables that QEMU 7.2 shows a guest, unlinked. */
const KNOWN = {
  'pc DSDT': '1e3994163b13db39',
  'pc DSDT without HPET': 'e1c455e8e7757486',
  'pc DSDT with a NUMA node': 'baa2657d43cec8df',
  'pc DSDT with DIMM slots': '13833573d6fdedd3',
  'pc DSDT with a bridge': '99450ebe4a3c26bf',
  'pc DSDT, hotplug only behind the bridge': 'f4519cc558eec3f1',
  'pc DSDT, hotplug only on the root bus': '99eee6e3850243a9',
  'pc DSDT without PCI hotplug': 'e5a47db136a47c9e',
  'pc DSDT with 6 possible CPUs': '348393c30d397c65',
  'q35 DSDT': 'd367519370c1a64c',
  'q35 DSDT without HPET': '6d709d8543f4bb09',
  'q35 DSDT with a bridge': 'e1117f82709a413b',
  'q35 DSDT with pvpanic': '9c36ba1c3ecb7855',
  'q35 DSDT with an SMC': '4944fc1585106a60',
  'q35 DSDT with a TPM 2.0': 'a2ebba96a73dd8ee',
  'q35 DSDT with a TPM 1.2': 'dbd891c18b1df7fd',
  'microvm DSDT': '22441f8a9d03e652',
  'microvm DSDT with RTC': '82e411e11a6f9524',
  'microvm DSDT with USB': '5080eef0009bcd41',
  'microvm DSDT with two IOAPICs': '9c41cd6659a143f8',
  'microvm DSDT with PCIe': 'dbf69137c773d9b5',
  'pc FADT': '9a34f093145375b8',
  'q35 FADT': 'ffb46ef7584e57c6',
  'microvm FADT': '2c55995925d27e71',
  'pc MADT': '20444dd69127fbe9',
  'pc MADT with 6 possible CPUs': '681cae7fed00f646',
  'q35 MADT with 288 CPUs': '02ec7625520cb5c7',
  'microvm MADT': '286bb44621dc74d8',
  'microvm MADT with PCIe': '10ad42dbce378de9',
  'microvm MADT with two IOAPICs': 'aa33ee27971cf255',
  HPET: '8a486edc412b6e5f',
  WAET: '21cf099f063f6422',
  MCFG: '5274632ea7572e49',
  'CEDT with two host bridges and two windows': 'e1455b0429ca85ae',
  'NFIT with a module': '6a2f220396b93616',
  SLIT: '74c9e266d6b9c8b6',
  'SRAT with an empty node': '599489b3baf6a131',
  'SRAT with DIMM slots': '92a03df1ba45ac3c',
  'SRAT with two nodes': '61214c7c2b4de76f',
  'SRAT with 288 CPUs': '91c43be2cb9ce566',
} as const;

function digest(content: TableContent): string {
  return createHash('sha256').update(tableBytes(content, DEFAULT_OEM)).digest('hex').slice(0, 16);
}

const fifo = (version: TpmFacts['version']): TpmFacts => ({ model: 'tpm-tis', version, ppi: true });
const oneCpu = [{ apicId: 0, present: true }];
const nodeCpu = [{ apicId: 0, present: true, node: 0 }];
const sixCpus = [0, 1, 2, 4, 5, 6].map((apicId, uid) => ({ apicId, present: uid < 2, node: uid < 3 ? 0 : 1 }));
const manyCpus = Array.from({ length: 288 }, (_, apicId) => ({ apicId, present: apicId === 0, node: 0 }));
const bridge = (devfn: number, secondary: AcpiPciBus): AcpiPciDevice => ({ devfn, hotpluggable: true, secondary });
const hotplug = (root: boolean, bridges: boolean) => ({ base: 0xae00, length: 0x18, root, bridges });
const silent: AcpiPciBus = { express: false, devices: [] };
const low128 = { below4g: 128 * MIB, above4gStart: 4 * GIB };
const ioApic = { id: 0, address: 0xfec0_0000, gsiBase: 0 };
const pcMadt = { cpus: oneCpu, ioApics: [ioApic], timerOnGsi2: true, pciIrqMask: 0xe20 };
const microvmMadt = { ...pcMadt, timerOnGsi2: false, pciIrqMask: 0 };
const com1 = serialPort({ index: 0, iobase: 0x3f8, irq: 4 });
const microvm = {
  fwCfg: { iobase: 0x510, dma: true },
  isaDevices: [com1],
  ged: { base: 0xfea0_0000, gsi: 9 },
  virtio: [{ index: 7, base: 0xfeb0_0e00, gsi: 0x17 }],
};

const tables: Record<keyof typeof KNOWN, TableContent> = {
  'pc DSDT': dsdt(pc()),
  'pc DSDT without HPET': dsdt(pc({ hasHpet: false })),
  'pc DSDT with a NUMA node': dsdt(pc({ cpuHotplug: { cpus: nodeCpu, base: 0xaf00 } })),
  'pc DSDT with DIMM slots': dsdt(
    pc({
      cpuHotplug: { cpus: nodeCpu, base: 0xaf00 },
      memoryHotplug: { base: 0xa00, slots: 3 },
      pciHole64: { min: 8 * GIB, max: 10 * GIB - 1 },
    }),
  ),
  'pc DSDT with a bridge': dsdt(pc({ rootBus: pcBus(0, [bridge(0x18, emptyBus(1))]) })),
  'pc DSDT, hotplug only behind the bridge': dsdt(
    pc({ pciHotplug: hotplug(false, true), rootBus: pcBus(undefined, [bridge(0x18, emptyBus(0))]) }),
  ),
  'pc DSDT, hotplug only on the root bus': dsdt(
    pc({ pciHotplug: hotplug(true, false), rootBus: pcBus(0, [bridge(0x18, silent)]) }),
  ),
  'pc DSDT without PCI hotplug': dsdt(
    pc({ pciHotplug: hotplug(false, false), rootBus: pcBus(undefined, [bridge(0x18, silent)]) }),
  ),
  'pc DSDT with 6 possible CPUs': dsdt(pc({ cpuHotplug: { cpus: sixCpus, base: 0xaf00 } })),
  'q35 DSDT': dsdt(q35()),
  'q35 DSDT without HPET': dsdt(q35({ hasHpet: false })),
  'q35 DSDT with a bridge': dsdt(q35({ rootBus: q35Bus([bridge(0x10, emptyBus(0))]) })),
  'q35 DSDT with pvpanic': dsdt(q35({ rootBus: q35Bus([], [pvpanic(0x505)]) })),
  'q35 DSDT with an SMC': dsdt(q35({ rootBus: q35Bus([], [appleSmc(0x300)]) })),
  'q35 DSDT with a TPM 2.0': dsdt(q35({ tpm: fifo('2.0'), rootBus: q35Bus([], [tpmDevice(fifo('2.0'))]) })),
  'q35 DSDT with a TPM 1.2': dsdt(q35({ tpm: fifo('1.2'), rootBus: q35Bus([], [tpmDevice(fifo('1.2'))]) })),
  'microvm DSDT': microvmDsdt(microvm),
  'microvm DSDT with RTC': microvmDsdt({ ...microvm, isaDevices: [com1, realTimeClock({ iobase: 0x70, irq: 8 })] }),
  'microvm DSDT with USB': microvmDsdt({ ...microvm, xhci: { base: 0xfe90_0000, gsi: 10 } }),
  'microvm DSDT with two IOAPICs': microvmDsdt({
    ...microvm,
    virtio: [{ index: 23, base: 0xfeb0_2e00, gsi: 0x2f }],
  }),
  'microvm DSDT with PCIe': microvmDsdt({
    ...microvm,
    pcie: {
      ecam: { base: 0xe000_0000, size: 256 * MIB },
      mmio32: { min: 0xc000_0000, max: 0xdfff_ffff },
      mmio64: { min: 768 * GIB, max: 1024 * GIB - 1 },
      gsi: 12,
    },
  }),
  'pc FADT': fadt(pcFadt, 0, 0),
  'q35 FADT': fadt(q35Fadt, 0, 0),
  'microvm FADT': fadt(microvmFadt, 0),
  'pc MADT': madt(pcMadt),
  'pc MADT with 6 possible CPUs': madt({ ...pcMadt, cpus: sixCpus }),
  'q35 MADT with 288 CPUs': madt({ ...pcMadt, cpus: manyCpus }),
  'microvm MADT': madt(microvmMadt),
  'microvm MADT with PCIe': madt({ ...microvmMadt, pciIrqMask: 0xf000 }),
  'microvm MADT with two IOAPICs': madt({
    ...microvmMadt,
    ioApics: [ioApic, { id: 1, address: 0xfec1_0000, gsiBase: 24 }],
  }),
  HPET: hpet({ blockId: 0x8086_a201, base: 0xfed0_0000 }),
  WAET: waet(),
  MCFG: mcfg({ base: 0xb000_0000, size: 256 * MIB }),
  SLIT: slit([
    [10, 21],
    [21, 10],
  ]),
  'CEDT with two host bridges and two windows': cedt({
    hosts: [
      { uid: 0xde, base: 4 * GIB, size: 0x1_0000 },
      { uid: 0x0c, base: 4 * GIB + 0x1_0000, size: 0x1_0000 },
    ],
    windows: [
      { base: 4 * GIB + 256 * MIB, size: 4 * GIB, granularity: 8192, targets: [0x0c] },
      { base: 8 * GIB + 256 * MIB, size: 4 * GIB, granularity: 8192, targets: [0x0c, 0xde] },
    ],
  }),
  'NFIT with a module': nfit([{ slot: 1, base: 0x1_0800_0000, length: 128 * MIB, node: 2, unarmed: false }], 'cpu'),
  'SRAT with an empty node': srat(nodeCpu, memoryAffinities({ nodes: [0, 128 * MIB], ...low128 })),
  'SRAT with DIMM slots': srat(
    nodeCpu,
    memoryAffinities({
      nodes: [64 * MIB, 64 * MIB],
      ...low128,
      hotplug: { base: 4 * GIB, size: 4 * GIB - 128 * MIB },
    }),
  ),
  'SRAT with two nodes': srat(sixCpus, memoryAffinities({ nodes: [64 * MIB, 64 * MIB], ...low128 })),
  'SRAT with 288 CPUs': srat(manyCpus, memoryAffinities({ nodes: [0, 128 * MIB], ...low128 })),
};

for (const [what, known] of Object.entries(KNOWN)) {
  const content = tables[what as keyof typeof KNOWN];
  t.equal(digest(content), known, what);
}

t.test('node memory is cut at both holes', async t => {
  const ranges = memoryAffinities({ nodes: [4 * GIB, GIB], below4g: 3 * GIB, above4gStart: 4 * GIB });
  t.match(ranges, [
    { base: 0, length: 640 * 1024, node: 0, flags: 1 },
    { base: MIB, length: 3 * GIB - MIB, node: 0, flags: 1 },
    { base: 4 * GIB, length: GIB, node: 0, flags: 1 },
    { base: 5 * GIB, length: GIB, node: 1, flags: 1 },
  ]);
  t.equal(ranges.length, 4);
});
