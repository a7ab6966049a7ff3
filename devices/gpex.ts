import { Device } from '../core/device/device.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SystemBus } from '../core/device/system-bus.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { ECAM_BUS_SHIFT, enhancedConfiguration } from '../core/pci/config-mechanism.ts';
import { rotatedPin } from '../core/pci/intx.ts';
import { PciBus } from '../core/pci/pci-bus.ts';
import { PciDevice } from '../core/pci/pci-device.ts';

const ECAM_SIZE = 256 << ECAM_BUS_SHIFT;
const PORTS = 0x1_0000;
export const GPEX_INTERRUPTS = 4;

const properties = {
  'allow-unmapped-accesses': prop.bool({ default: true }),
  'x-config-reg-migration-enabled': prop.bool({ default: true }),
  'bypass-iommu': prop.bool({ default: false }),
} as const;

/** Where a machine shows the host's address spaces: bytes, in the system's memory. */
export interface GpexWindows {
  readonly ecam: { readonly base: number; readonly size: number };
  readonly mmio: readonly { readonly base: number; readonly size: number }[];
}

/** The generic PCI Express host: configuration space in memory, windows onto the bus, four interrupts. */
export class GpexHost extends Device<typeof properties> {
  readonly interrupts = Array.from({ length: GPEX_INTERRUPTS }, (_, index) => this.output(`irq${index}`, 'sysbus-irq'));
  readonly #memory = MemoryRegion.container('gpex_mmio', 2 ** 52);
  readonly #ports = MemoryRegion.container('gpex_ioport', PORTS);

  /** Makes the root bus with its root device. */
  wire(windows: GpexWindows): PciBus {
    const { memory, dmaSpace, home } = this.#systemBus;
    const pci = this.addBus(
      new PciBus('pcie.0', {
        ...{ services: this.services, home, owner: this, memory: this.#memory, io: this.#ports, dmaSpace },
        bypassIommu: this.props['bypass-iommu'],
        express: true,
        router: {
          route: rotatedPin,
          setIrq: (input, level) => this.interrupts[input]?.set(level),
        },
      }),
    );
    const ecam = MemoryRegion.io('pcie-mmcfg-mmio', ECAM_SIZE, enhancedConfiguration(pci));
    this.#show(memory, MemoryRegion.alias('pcie-ecam', ecam, 0, windows.ecam.size), windows.ecam.base);
    for (const { base, size } of windows.mmio)
      this.#show(memory, MemoryRegion.alias('pcie-mmio', this.#memory, base, size), base);
    pci.plug(gpexRoot, { addr: '00.0' });
    return pci;
  }

  override get firmwareName(): string {
    return 'pci';
  }

  #show(memory: MemoryRegion, window: MemoryRegion, base: number): void {
    memory.add(window, base);
    this.onUnrealize(() => window.dispose());
  }

  get #systemBus(): SystemBus {
    if (this.bus instanceof SystemBus) return this.bus;
    throw new TypeError('a host bridge is on the system bus');
  }
}

/** Function 00.0: an identity, and nothing to program. */
class GpexRoot extends PciDevice {}

export const gpexHost = deviceType({
  type: 'gpex-pcihost',
  summary: 'Generic PCI Express host',
  bus: 'System',
  category: 'bridge',
  parents: ['pcie-host-bridge', 'pci-host-bridge', 'sys-bus-device', 'device'],
  userCreatable: false,
  properties,
  create: GpexHost,
});

export const gpexRoot = deviceType({
  type: 'gpex-root',
  summary: 'QEMU generic PCIe host bridge',
  category: 'bridge',
  parents: ['pci-device', 'device'],
  userCreatable: false,
  hotpluggable: false,
  properties: {},
  pci: { vendor: 0x1b36, device: 0x0008, class: 0x060000 },
  create: GpexRoot,
});
