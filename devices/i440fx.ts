import { Device } from '../core/device/device.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SystemBus } from '../core/device/system-bus.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { transaction } from '../core/memory/transaction.ts';
import { ConfigMechanism } from '../core/pci/config-mechanism.ts';
import { type IntxRouter, PciBus } from '../core/pci/pci-bus.ts';
import { PciDevice } from '../core/pci/pci-device.ts';
import { field, type SavedRecord } from '../core/state/fields.ts';
import { PamWindows } from './pam.ts';

/** Offsets in the 82441FX's configuration space (82441FX datasheet, section 3.2). */
const PAM0 = 0x59;
const SMRAM = 0x72;
const SMRAM_OPEN = 0x40;
const SMRAM_CLOSED = 0x20;
const SMRAM_LOCK = 0x10;
const COREBOOT_RAM_SIZE = 0x57;
const SMRAM_BASE = 0xa0000;
const SMRAM_SIZE = 0x20000;
/** The whole address space that PCI BARs can be in; RAM and chipset regions lie above it in priority. */
const PCI_PRIORITY = -1;
const SMRAM_PRIORITY = 1;

const hostProperties = {
  'pci-hole64-size': prop.size({ default: 2 ** 31 }),
  short_root_bus: prop.u32({ default: 0 }),
  'below-4g-mem-size': prop.size({ default: 0, listed: 'no' }),
  'above-4g-mem-size': prop.size({ default: 0, listed: 'no' }),
  'x-pci-hole64-fix': prop.bool({ default: true }),
  'x-config-reg-migration-enabled': prop.bool({ default: true }),
  'bypass-iommu': prop.bool({ default: false }),
};

/** The 82441FX PCI and memory controller as a host: the configuration mechanism and the root bus. */
export class I440fxHost extends Device<typeof hostProperties> {
  /** Set by {@link wire}. */
  pci: PciBus | undefined;
  /** PCI memory, 2^52 bytes, behind everything else. */
  readonly pciMemory = MemoryRegion.container('pci', 2 ** 52);

  /** Makes the root bus; the machine calls it once the router of PCI interrupts is known. */
  wire(router: IntxRouter): PciBus {
    const system = this.#systemBus;
    system.memory.add(this.pciMemory, 0, PCI_PRIORITY);
    const pci = this.addBus(
      new PciBus('pci.0', {
        services: this.services,
        home: system.home,
        owner: this,
        memory: this.pciMemory,
        io: system.io,
        dmaSpace: system.dmaSpace,
        router,
        bypassIommu: this.props['bypass-iommu'],
      }),
    );
    const mechanism = new ConfigMechanism(pci);
    system.io.add(
      MemoryRegion.io('pci-conf-idx', 4, mechanism.addressPort, { valid: { max: 4 }, impl: { unaligned: true } }),
      0xcf8,
      0,
    );
    system.io.add(MemoryRegion.io('pci-conf-data', 4, mechanism.dataPort, { impl: { unaligned: true } }), 0xcfc, 0);
    this.#mechanism = mechanism;
    this.pci = pci;
    return pci;
  }

  #mechanism: ConfigMechanism | undefined;
  readonly #saved = this.state(1, { configAddress: field.u32() });

  override save(): SavedRecord {
    this.#saved.configAddress = this.#mechanism?.address ?? 0;
    return super.save();
  }

  protected override restored(): void {
    if (this.#mechanism !== undefined) this.#mechanism.address = this.#saved.configAddress;
  }

  protected override resetHold(): void {
    if (this.#mechanism !== undefined) this.#mechanism.address = 0;
  }

  override get firmwareName(): string {
    return 'pci@i0cf8';
  }

  get #systemBus(): SystemBus {
    if (this.bus instanceof SystemBus) return this.bus;
    throw new TypeError('a host bridge is on the system bus');
  }
}

/** The host bridge's own function, 00.0: PAM and SMRAM (82441FX datasheet, sections 3.2.18 and 3.2.26). */
export class I440fx extends PciDevice {
  #pam: PamWindows | undefined;
  #smramWindow: MemoryRegion | undefined;

  /** Gives the function the memory that its registers steer. */
  wire(systemMemory: MemoryRegion, ramRegion: MemoryRegion, pciMemory: MemoryRegion): void {
    this.#pam = new PamWindows(systemMemory, ramRegion, pciMemory);
    // With SMRAM closed, A0000-BFFFF belongs to PCI (VGA); D_OPEN gives it to RAM.
    this.#smramWindow = MemoryRegion.alias('smram-region', pciMemory, SMRAM_BASE, SMRAM_SIZE);
    systemMemory.add(this.#smramWindow, SMRAM_BASE, SMRAM_PRIORITY);
    this.onUnrealize(() => this.#smramWindow?.dispose());
    this.#update();
  }

  /** What firmware for QEMU reads the RAM size from: units of 8 MiB. */
  setCorebootRamSize(bytes: number): void {
    this.config.set8(COREBOOT_RAM_SIZE, Math.min(255, Math.floor(bytes / (8 * 2 ** 20))));
  }

  protected override realize(): void {
    this.config.writable[SMRAM] = 0x7f;
  }

  protected override configWritten(offset: number, size: number): void {
    if (offset <= SMRAM && offset + size > PAM0) this.#update();
  }

  protected override resetHold(): void {
    const { config } = this;
    config.bytes.fill(0, PAM0, PAM0 + 7);
    config.set8(SMRAM, 0x02);
    this.#update();
  }

  protected override restored(): void {
    this.#update();
  }

  #update(): void {
    const { config } = this;
    const smram = config.get8(SMRAM);
    if ((smram & SMRAM_LOCK) !== 0) {
      // D_LCK makes D_OPEN 0 and everything but itself read-only (section 3.2.26).
      config.set8(SMRAM, smram & ~SMRAM_OPEN);
      config.writable[SMRAM] = SMRAM_CLOSED;
    } else {
      config.writable[SMRAM] = 0x7f;
    }
    transaction(() => {
      this.#pam?.update(config.bytes, PAM0);
      this.#smramWindow?.setEnabled((config.get8(SMRAM) & SMRAM_OPEN) === 0);
    });
  }
}

export const i440fxHost = deviceType({
  type: 'i440FX-pcihost',
  summary: 'Intel 82441FX host bridge',
  parents: ['pci-host-bridge', 'sys-bus-device', 'device'],
  category: 'bridge',
  userCreatable: false,
  properties: hostProperties,
  create: I440fxHost,
});

export const i440fx = deviceType({
  type: 'i440FX',
  summary: 'Host bridge',
  parents: ['pci-device', 'device'],
  category: 'bridge',
  userCreatable: false,
  hotpluggable: false,
  pci: { vendor: 0x8086, device: 0x1237, revision: 2, class: 0x060000 },
  create: I440fx,
});
