import { Device } from '../core/device/device.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SystemBus } from '../core/device/system-bus.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { transaction } from '../core/memory/transaction.ts';
import { ConfigMechanism, enhancedConfiguration } from '../core/pci/config-mechanism.ts';
import { type IntxRouter, PciBus } from '../core/pci/pci-bus.ts';
import { PciDevice } from '../core/pci/pci-device.ts';
import { field, type SavedRecord } from '../core/state/fields.ts';
import { PamWindows } from './pam.ts';

/** Section numbers are those of Intel's 3 Series Express Chipset datasheet (316966), chapter 5, "DRAM Controller Registers". */

const MIB = 2 ** 20;
/** 5.1.12 to 5.1.35. */
const PCIEXBAR = 0x60;
const PCIEXBAR_DEFAULT = 0xb000_0000;
const PAM0 = 0x90;
const SMRAM = 0x9d;
const ESMRAMC = 0x9e;
/** QEMU's own: the size of an extended TSEG in MiB, once software asked for it; and SMRAM at the default SMBASE. */
const EXT_TSEG = 0x50;
const EXT_TSEG_QUERY = 0xffff;
const MAX_EXT_TSEG = 0xfff;
const F_SMBASE = 0x9c;
const F_SMBASE_QUERY = 0xff;
const F_SMBASE_IN_RAM = 0x01;
const F_SMBASE_LOCK = 0x02;
const SMBASE = 0x3_0000;
const SMBASE_SIZE = 0x2_0000;

const SMRAM_BITS = {
  OPEN: 0x40,
  LOCK: 0x10,
  ENABLE: 0x08,
  WRITABLE: 0x7a,
  LOCKED_WRITABLE: 0x20,
  DEFAULT: 0x02,
} as const;
const ESMRAMC_BITS = {
  HIGH: 0x80,
  TSEG_SIZE: 0x06,
  TSEG_ENABLE: 0x01,
  WRITABLE: 0x87,
  LOCKED_WRITABLE: 0x00,
  DEFAULT: 0x38,
} as const;
const SMRAM_BASE = 0xa_0000;
const SMRAM_SIZE = 0x2_0000;
const HIGH_SMRAM = 0xfeda_0000;
const PCI_PRIORITY = -1;
const ABOVE_RAM = 1;
/** Lengths of the memory-mapped configuration space by PCIEXBAR.LENGTH, and the address bits that go with them. */
const MMCONFIG_LENGTHS = [256 * MIB, 128 * MIB, 64 * MIB] as const;

const hostProperties = {
  MCFG: prop.u64({ default: BigInt(PCIEXBAR_DEFAULT) }),
  'pci-hole64-size': prop.size({ default: 2 ** 35 }),
  short_root_bus: prop.u32({ default: 0 }),
  'below-4g-mem-size': prop.size({ default: 0 }),
  'above-4g-mem-size': prop.size({ default: 0 }),
  'x-pci-hole64-fix': prop.bool({ default: true }),
  'x-config-reg-migration-enabled': prop.bool({ default: true }),
  'bypass-iommu': prop.bool({ default: false }),
} as const;

/** The memory controller hub as a host: both configuration mechanisms and the root bus. */
export class Q35Host extends Device<typeof hostProperties> {
  readonly pciMemory = MemoryRegion.container('pci', 2 ** 52);
  readonly #saved = this.state(1, { configAddress: field.u32() });
  #mechanism: ConfigMechanism | undefined;
  #mmconfig: MemoryRegion | undefined;

  /** Makes the root bus; the machine calls it once the router of PCI interrupts is known. */
  wire(router: IntxRouter): PciBus {
    const system = this.#systemBus;
    system.memory.add(this.pciMemory, 0, PCI_PRIORITY);
    const pci = this.addBus(
      new PciBus('pcie.0', {
        ...{ services: this.services, home: system.home, owner: this, memory: this.pciMemory, io: system.io },
        ...{ dmaSpace: system.dmaSpace, router, express: true, bypassIommu: this.props['bypass-iommu'] },
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
    const mmconfig = MemoryRegion.io('pcie-mmcfg-mmio', MMCONFIG_LENGTHS[0], enhancedConfiguration(pci));
    mmconfig.setEnabled(false);
    system.memory.add(mmconfig, 0, 0);
    this.#mmconfig = mmconfig;
    return pci;
  }

  /** Where configuration space is memory-mapped, if it is. */
  get mmconfig(): { readonly base: number; readonly size: number } | undefined {
    const region = this.#mmconfig;
    return region === undefined || !region.enabled ? undefined : { base: region.offset, size: region.size };
  }

  placeMmconfig(base: number, size: number, enabled: boolean): void {
    const region = this.#mmconfig;
    if (region === undefined) return;
    region.setEnabled(false);
    if (!enabled) return;
    region.setSize(size);
    region.setOffset(base);
    region.setEnabled(true);
  }

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

const mchProperties = {
  'extended-tseg-mbytes': prop.u16({ default: 16 }),
  'smbase-smram': prop.bool({ default: true }),
} as const;

/** The hub's own function, 00.0: where RAM shows, system management memory, memory-mapped configuration. */
export class Mch extends PciDevice<typeof mchProperties> {
  #host: Q35Host | undefined;
  #pam: PamWindows | undefined;
  #lowRam = 0;
  #smramWindow: MemoryRegion | undefined;
  #highSmram: MemoryRegion | undefined;
  readonly #nothing = {
    read: (_offset: number, size: number) => (size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff),
    write: () => {},
  };
  readonly #tseg = MemoryRegion.io('tseg-blackhole', MIB, this.#nothing);
  readonly #smbase = MemoryRegion.io('smbase-blackhole', SMBASE_SIZE, this.#nothing);

  /** Gives the function the memory that its registers steer. */
  wire(host: Q35Host, systemMemory: MemoryRegion, ram: MemoryRegion, lowRam: number): void {
    this.#host = host;
    this.#lowRam = lowRam;
    this.#pam = new PamWindows(systemMemory, ram, host.pciMemory);
    this.#smramWindow = MemoryRegion.alias('smram-region', host.pciMemory, SMRAM_BASE, SMRAM_SIZE);
    this.#highSmram = MemoryRegion.alias('smram-open-high', ram, SMRAM_BASE, SMRAM_SIZE);
    for (const region of [this.#highSmram, this.#tseg, this.#smbase]) region.setEnabled(false);
    systemMemory.add(this.#smramWindow, SMRAM_BASE, ABOVE_RAM);
    systemMemory.add(this.#highSmram, HIGH_SMRAM, ABOVE_RAM);
    systemMemory.add(this.#tseg, lowRam, ABOVE_RAM);
    systemMemory.add(this.#smbase, SMBASE, ABOVE_RAM);
    this.#update();
  }

  protected override realize(): void {
    const size = this.props['extended-tseg-mbytes'];
    if (size > MAX_EXT_TSEG)
      throw new SouthbridgeError('ERR_PROPERTY_VALUE', `invalid extended-tseg-mbytes value: ${size}`);
  }

  protected override configWritten(offset: number, size: number): void {
    const touched = (at: number, length: number): boolean => offset < at + length && offset + size > at;
    if (touched(EXT_TSEG, 2)) this.#answerTseg();
    if (touched(F_SMBASE, 1)) this.#updateSmbase();
    if (touched(PAM0, 7) || touched(PCIEXBAR, 8) || touched(SMRAM, 2)) this.#update();
  }

  protected override resetHold(): void {
    const { config } = this;
    config.set32(PCIEXBAR, PCIEXBAR_DEFAULT);
    config.set32(PCIEXBAR + 4, 0);
    config.bytes.fill(0, PAM0, PAM0 + 7);
    config.set8(SMRAM, SMRAM_BITS.DEFAULT);
    config.set8(ESMRAMC, ESMRAMC_BITS.DEFAULT);
    config.writable[SMRAM] = SMRAM_BITS.WRITABLE;
    config.writable[ESMRAMC] = ESMRAMC_BITS.WRITABLE;
    if (this.props['extended-tseg-mbytes'] > 0) config.set16(EXT_TSEG, EXT_TSEG_QUERY);
    config.set8(F_SMBASE, 0);
    config.writable[F_SMBASE] = 0xff;
    this.#answerTseg();
    this.#smbase.setEnabled(false);
    this.#update();
  }

  protected override restored(): void {
    this.#smbase.setEnabled((this.config.get8(F_SMBASE) & F_SMBASE_LOCK) !== 0);
    this.#update();
  }

  /** Software writes all ones and reads the size. */
  #answerTseg(): void {
    const size = this.props['extended-tseg-mbytes'];
    if (size > 0 && this.config.get16(EXT_TSEG) === EXT_TSEG_QUERY) this.config.set16(EXT_TSEG, size);
  }

  /** All ones asks whether there may be SMRAM at the default SMBASE; the lock bit then takes it away from everyone else. */
  #updateSmbase(): void {
    if (!this.props['smbase-smram']) return;
    const { config } = this;
    const value = config.get8(F_SMBASE);
    if (value === F_SMBASE_QUERY) {
      config.writable[F_SMBASE] = F_SMBASE_LOCK;
      config.set8(F_SMBASE, F_SMBASE_IN_RAM);
      return;
    }
    if (config.writable[F_SMBASE] === 0xff) config.set8(F_SMBASE, 0);
    const locked = (config.get8(F_SMBASE) & F_SMBASE_LOCK) !== 0;
    if (locked) {
      config.writable[F_SMBASE] = (config.writable[F_SMBASE] ?? 0) & ~F_SMBASE_LOCK;
      config.set8(F_SMBASE, F_SMBASE_LOCK);
    }
    this.#smbase.setEnabled(locked);
  }

  #update(): void {
    const { config } = this;
    if ((config.get8(SMRAM) & SMRAM_BITS.LOCK) !== 0) {
      // D_LCK makes D_OPEN 0 and everything that it covers read-only (5.1.33).
      config.set8(SMRAM, config.get8(SMRAM) & ~SMRAM_BITS.OPEN);
      config.writable[SMRAM] = SMRAM_BITS.LOCKED_WRITABLE;
      config.writable[ESMRAMC] = ESMRAMC_BITS.LOCKED_WRITABLE;
    }
    transaction(() => {
      this.#pam?.update(config.bytes, PAM0);
      this.#updateMmconfig();
      const smram = config.get8(SMRAM);
      const extended = config.get8(ESMRAMC);
      const high = (extended & ESMRAMC_BITS.HIGH) !== 0;
      const open = (smram & SMRAM_BITS.OPEN) !== 0;
      this.#smramWindow?.setEnabled(!open || high);
      this.#highSmram?.setEnabled(open && high);
      const size =
        (extended & ESMRAMC_BITS.TSEG_ENABLE) !== 0 && (smram & SMRAM_BITS.ENABLE) !== 0 ? this.#tsegSize(extended) : 0;
      this.#tseg.setEnabled(false);
      if (size > 0 && size <= this.#lowRam) {
        this.#tseg.setSize(size);
        this.#tseg.setOffset(this.#lowRam - size);
        this.#tseg.setEnabled(true);
      }
    });
  }

  #tsegSize(extended: number): number {
    const sizes = [1, 2, 8, this.props['extended-tseg-mbytes']];
    return (sizes[(extended & ESMRAMC_BITS.TSEG_SIZE) >> 1] ?? 0) * MIB;
  }

  #updateMmconfig(): void {
    const low = this.config.get32(PCIEXBAR);
    const length = MMCONFIG_LENGTHS[(low >> 1) & 3];
    if (length === undefined) {
      this.log.guestError('reserved PCIEXBAR length');
      return;
    }
    const base = (this.config.get32(PCIEXBAR + 4) & 0x0f) * 2 ** 32 + Math.floor(low / length) * length;
    this.#host?.placeMmconfig(base, length, (low & 1) !== 0);
  }
}

export const mch = deviceType({
  type: 'mch',
  summary: 'Host bridge',
  category: 'bridge',
  userCreatable: false,
  hotpluggable: false,
  properties: mchProperties,
  pci: { vendor: 0x8086, device: 0x29c0, class: 0x060000 },
  create: Mch,
});

export const q35Host = deviceType({
  type: 'q35-pcihost',
  summary: 'Host of the Q35 chipset',
  category: 'bridge',
  userCreatable: false,
  hotpluggable: false,
  parents: ['pcie-host-bridge', 'pci-host-bridge', 'sys-bus-device', 'device'],
  properties: hostProperties,
  create: Q35Host,
});
