import { Device } from '../device/device.ts';
import type { DeviceContext } from '../device/device-type.ts';
import type { PropSet, PropValues } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';
import { pciNode } from '../firmware/boot-order.ts';
import { IrqLine } from '../irq/line.ts';
import { Dma, shielded } from '../memory/dma.ts';
import { SharedRam } from '../memory/guest-ram.ts';
import { type IoHandler, type IoOptions, MemoryRegion } from '../memory/memory-region.ts';
import { transaction } from '../memory/transaction.ts';
import type { RegisterBank, RegisterHooks, RegisterMap, Registers } from '../register/register.ts';
import { asRecord, badState, field, type SavedRecord, type SavedValue } from '../state/fields.ts';
import { CFG, COMMAND, CONFIG_SIZE, ConfigSpace, EXPRESS_CONFIG_SIZE, STATUS } from './config-space.ts';
import type { BarDeclaration, MsiDeclaration, MsixDeclaration, PciIdentity, pciProperties } from './identity.ts';
import { Msi } from './msi.ts';
import { Msix } from './msix.ts';
import { patchRomIdentity } from './option-rom.ts';
import { PciBus } from './pci-bus.ts';

const UNMAPPED = -1;
const ROM_BAR = 6;
const BAR_IO = 1;
const BAR_WIDE = 0b100;
const BAR_PREFETCH = 0b1000;
const ROM_ENABLE = 1;
const MULTIFUNCTION = 0x80;
const CAP_PM = 0x01;
const CAP_EXPRESS = 0x10;
/** In the capability's device capabilities and control. */
const DEVCAP_FLR = 1 << 28;
const DEVCTL_FLR = 0x8000;

/** A base address register of a function that is in use. */
export interface Bar {
  readonly index: number;
  readonly declaration: BarDeclaration;
  readonly region: MemoryRegion;
  /** Where it is mapped, or -1. */
  address: number;
}

type PciProps<S extends PropSet> = PropValues<S> & PropValues<typeof pciProperties>;

/**
 * A PCI function: configuration space, base address registers, interrupts and bus mastering (PCI Local Bus 3.0). A subclass
 * binds register maps to the BARs that its type declares, drives {@link irq}, and reaches memory through {@link dma}.
 */
export abstract class PciDevice<S extends PropSet = PropSet> extends Device<S> {
  readonly pciBus: PciBus;
  readonly config: ConfigSpace;
  readonly identity: PciIdentity;
  readonly dma: Dma;
  /** The function's one interrupt: INTx, or message 0 where software has enabled MSI or MSI-X. */
  protected readonly irq: IrqLine;
  readonly msi: Msi | undefined;
  #msix: Msix | undefined;
  readonly #bars: (Bar | undefined)[] = [];
  readonly #unboundMaps = new Map<RegisterMap, number>();
  #devfn = UNMAPPED;
  #intx = false;
  #expressAt: number | undefined;
  /** Where software asks for a reset of the function, where it may. */
  #resetControl: number | undefined;
  /** What reached us of {@link irq}. */
  #asserted = false;
  /** The card has been torn out: configuration space answers nothing (for fault injection). */
  absent = false;

  constructor(context: DeviceContext<S>) {
    super(context);
    if (!(context.bus instanceof PciBus) || context.type.pci === undefined) {
      throw new SouthbridgeError(
        'ERR_DEVICE_TYPE',
        `'${context.type.type}' is a PCI function, but its type declares no 'pci' identity`,
      );
    }
    this.pciBus = context.bus;
    this.identity = context.type.pci;
    this.dma = new Dma(context.bus.dmaSpace);
    this.dma.enabled = false;
    const { express, expressOnly } = this.identity;
    const extended = expressOnly === true || (context.bus.express && express !== undefined);
    this.config = new ConfigSpace(extended ? EXPRESS_CONFIG_SIZE : CONFIG_SIZE);
    this.#identify();
    const send = (address: number, data: number): void => this.#sendMessage(address, data);
    for (const [index, bar] of Object.entries(context.type.bars))
      if (bar.map !== undefined) this.#unboundMaps.set(bar.map, Number(index));
    if (this.identity.msix !== undefined) this.addMsix(this.identity.msix);
    const { expressCapability } = this.identity;
    const expressFirst = expressCapability !== undefined && expressCapability.after === undefined;
    if (expressFirst) this.addExpress();
    const msi = this.msiDeclaration;
    this.msi = msi === undefined ? undefined : new Msi(this.config, msi, send);
    if (this.identity.powerManagement !== undefined && this.identity.powerManagement !== false)
      this.addPowerManagement(this.identity.powerManagement);
    if (!expressFirst && expressCapability?.after !== 'device') this.addExpress();
    this.irq = new IrqLine('irq', level => this.#irqChanged(level));
    this.defineProperty({ name: 'addr', type: 'int32', get: () => this.#devfn });
    const { romfile, romsize } = this.#pciProps;
    const rom = romfile ?? this.identity.rom ?? null;
    this.defineProperty({ name: 'romfile', type: 'str', get: () => rom });
    this.defineProperty({
      name: 'romsize',
      type: 'uint32',
      get: () => this.#bars[ROM_BAR]?.declaration.size ?? romsize,
    });
  }

  get msix(): Msix | undefined {
    return this.#msix;
  }

  // Where it is

  /** Device number * 8 + function; -1 before it is on its bus. */
  get devfn(): number {
    return this.#devfn;
  }

  get #pciProps(): PciProps<S> {
    // deviceType() gives every type with a PCI identity the PCI properties.
    return this.props as PciProps<S>;
  }

  get requestedAddress(): number {
    return this.#pciProps.addr;
  }

  get multifunction(): boolean {
    return this.#pciProps.multifunction;
  }

  setAddress(devfn: number): void {
    this.#devfn = devfn;
    if (this.multifunction) {
      this.config.set8(CFG.HEADER_TYPE, this.config.get8(CFG.HEADER_TYPE) | MULTIFUNCTION);
    }
  }

  override get firmwareName(): string | undefined {
    const { class: classCode, vendor, device } = this.identity;
    return pciNode({ devfn: this.#devfn, classCode: classCode >>> 8, vendor, device });
  }

  // Bridges override these

  get secondaryBus(): PciBus | undefined {
    return undefined;
  }

  get secondaryBusNumber(): number {
    return 0;
  }

  get subordinateBusNumber(): number {
    return 0;
  }

  // BARs

  /** The base address registers in use, by index; 6 is the expansion ROM. */
  get bars(): readonly (Bar | undefined)[] {
    return this.#bars;
  }

  protected override bank<M extends RegisterMap>(map: M, hooks: RegisterHooks<M> = {}): RegisterBank<M> {
    const bank = super.bank(map, hooks);
    const index = this.#unboundMaps.get(map);
    if (index !== undefined) this.bar(index, this.shielded(bank));
    return bank;
  }

  protected override bind<M extends RegisterMap>(map: M, hooks: RegisterHooks<M> = {}): Registers<M> {
    return this.bank(map, hooks).regs;
  }

  /**
   * Shows `contents` in base address register `index`.
   * @param declaration where the type does not declare the BAR
   * @throws SouthbridgeError ERR_PCI_BAR where nothing declares it
   */
  protected bar(
    index: number,
    contents: MemoryRegion | IoHandler,
    declaration = this.type.bars[index],
    io: IoOptions | undefined = declaration?.access,
  ): Bar {
    if (declaration === undefined)
      throw new SouthbridgeError('ERR_PCI_BAR', `'${this.typeName}' has no base address register ${index}`);
    const region =
      contents instanceof MemoryRegion
        ? contents
        : MemoryRegion.io(`${this.typeName}-bar${index}`, declaration.size, contents, io);
    const bar: Bar = { index, declaration, region, address: UNMAPPED };
    this.#bars[index] = bar;
    const { config } = this;
    const at = barOffset(index, this.identity.bridge ?? false);
    config.set32(at, barFlags(declaration));
    const sizeMask = 2 ** 32 - declaration.size;
    const flagBits = index === ROM_BAR ? 0xffff_f800 : declaration.space === 'io' ? 0xffff_fffc : 0xffff_fff0;
    config.mask32(config.writable, at, (Math.max(0, sizeMask) & flagBits) | (index === ROM_BAR ? ROM_ENABLE : 0));
    if (declaration.wide)
      config.mask32(config.writable, at + 4, declaration.size > 2 ** 32 ? -(declaration.size / 2 ** 32) : 0xffff_ffff);
    return bar;
  }

  /** Registers that ignore what this function's own DMA would do to them. */
  protected shielded(handler: IoHandler): IoHandler {
    return shielded(this.dma, handler);
  }

  /** Moves BARs to where configuration space says, or takes them out. */
  updateMappings(): void {
    transaction(() => {
      for (const bar of this.#bars) if (bar !== undefined) this.#updateBar(bar);
    });
  }

  // Configuration space, as software sees it

  configRead(offset: number, size: number): number {
    if (this.absent) return size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
    return this.config.read(offset, size);
  }

  configWrite(offset: number, size: number, value: number): void {
    if (this.absent) return;
    const { config } = this;
    const before = config.command;
    config.write(offset, size, value);
    if (
      touches(offset, size, CFG.BAR0, 24) ||
      touches(offset, size, CFG.ROM_ADDRESS, 4) ||
      touches(offset, size, 0x38, 4) ||
      touches(offset, size, CFG.COMMAND, 2)
    ) {
      this.dma.enabled = (config.command & COMMAND.MASTER) !== 0;
      this.updateMappings();
      if ((before ^ config.command) & COMMAND.INTX_DISABLE) this.#driveIntx();
    }
    if (offset >= 0x40) {
      this.msi?.configWritten();
      this.msix?.configWritten();
      if (this.#irqLevelChangedMode()) this.#driveIntx();
    }
    this.configWritten(offset, size);
    this.#resetRequested(offset, size);
  }

  /** Function level reset (PCI Express 3.0, section 6.6.2); the bit that asks for it always reads 0. */
  #resetRequested(offset: number, size: number): void {
    const at = this.#resetControl;
    const { config } = this;
    if (at === undefined || !touches(offset, size, at, 2) || (config.get16(at) & DEVCTL_FLR) === 0) return;
    config.set16(at, config.get16(at) & ~DEVCTL_FLR);
    this.reset();
  }

  /** After software wrote configuration space. */
  protected configWritten(offset: number, size: number): void {
    void offset;
    void size;
  }

  // Interrupts

  /** 0 to 3 for INTA# to INTD#, -1 for none. */
  get intxPin(): number {
    return this.config.get8(CFG.INTERRUPT_PIN) - 1;
  }

  get intxLevel(): boolean {
    return this.#intx;
  }

  /** The MSI capability, where not the type but the properties say whether there is one. Asked once, on construction. */
  protected get msiDeclaration(): MsiDeclaration | undefined {
    return this.identity.msi;
  }

  /** What a test probes. */
  get interruptLine(): IrqLine {
    return this.irq;
  }

  get messageSignalled(): boolean {
    return (this.msi?.enabled ?? false) || (this.msix?.enabled ?? false);
  }

  /** Sends message `vector` of MSI-X or MSI, whichever is enabled. */
  protected notify(vector: number): void {
    if (this.msix?.enabled) this.msix.notify(vector);
    else this.msi?.notify(vector);
  }

  #irqChanged(level: boolean): void {
    this.#asserted = level;
    if (this.messageSignalled) {
      if (level) this.notify(0);
      return;
    }
    this.#driveIntx();
  }

  #driveIntx(): void {
    const pending = this.#asserted;
    if (pending) this.config.setStatus(STATUS.INTERRUPT);
    else this.config.clearStatus(STATUS.INTERRUPT);
    const level = pending && !this.messageSignalled && (this.config.command & COMMAND.INTX_DISABLE) === 0;
    if (level === this.#intx) return;
    this.#intx = level;
    const pin = this.intxPin;
    if (pin >= 0) this.pciBus.setIntx(this.#devfn, pin, level);
  }

  #irqLevelChangedMode(): boolean {
    return this.#intx && this.messageSignalled;
  }

  /** A message is a memory write of the function's own, so it needs bus mastering (PCI 3.0, section 6.8.3). */
  #sendMessage(address: number, data: number): void {
    if ((this.config.command & COMMAND.MASTER) !== 0) this.dma.message(address, data);
  }

  // Life cycle

  override attach(): void {
    this.#loadOptionRom();
    super.attach();
    this.#placeVectors();
  }

  /** Shows the MSI-X table and pending bits in a BAR of their own, unless the device has put something there. */
  #placeVectors(): void {
    const { msix } = this.identity;
    if (msix === undefined || this.msix === undefined || this.#bars[msix.bar] !== undefined) return;
    const contents = this.msix.exclusiveBar(msix);
    this.bar(msix.bar, contents, { size: contents.size });
  }

  override redrive(): void {
    super.redrive();
    if (this.#intx && this.intxPin >= 0) this.pciBus.setIntx(this.#devfn, this.intxPin, true);
  }

  override detach(): void {
    this.irq.lower();
    transaction(() => {
      for (const bar of this.#bars) if (bar !== undefined) this.#place(bar, UNMAPPED);
    });
    super.detach();
  }

  override resetPhase(phase: 'enter' | 'hold' | 'exit'): void {
    if (phase === 'hold') this.#resetConfig();
    super.resetPhase(phase);
  }

  override save(): SavedRecord {
    return {
      ...super.save(),
      config: this.config.bytes.slice(),
      irq: this.irq.level,
      ...(this.msix && { msix: field.words(this.msix.savedLength).save(this.msix.save()) }),
    };
  }

  override restore(saved: SavedValue): void {
    const record = asRecord(saved, this.path);
    const config = field.bytes(this.config.size).load(record['config'] ?? null, `${this.path}.config`);
    const level = record['irq'];
    if (typeof level !== 'boolean') badState(`${this.path}.irq`, 'a level');
    if (config.subarray(0, 4).some((byte, index) => byte !== this.config.bytes[index]))
      badState(`${this.path}.config`, 'of this device');
    const msix = this.msix && field.words(this.msix.savedLength).load(record['msix'] ?? null, `${this.path}.msix`);
    this.config.bytes.set(config);
    if (msix !== undefined) this.msix?.restore(msix);
    this.dma.enabled = (this.config.command & COMMAND.MASTER) !== 0;
    this.irq.restore(level);
    this.#asserted = level;
    this.#intx = level && !this.messageSignalled && (this.config.command & COMMAND.INTX_DISABLE) === 0;
    this.updateMappings();
    super.restore(saved);
  }

  /** Adds the PCI Express capability of its identity, on a bus of PCI Express. */
  protected addExpress(): void {
    const { express, expressCapability } = this.identity;
    const bus = this.pciBus;
    if (!bus.express || express === undefined) return;
    // A part with a place of its own for it says whether it is on the root complex itself.
    const root = expressCapability !== undefined && !(bus.owner instanceof PciDevice);
    const type = express === 'endpoint' && !root ? 0 : express === 'legacy-endpoint' ? 1 : 9;
    this.addExpressCapability(type, expressCapability?.offset, expressCapability?.version);
  }

  /** Adds a PCI Express capability (PCI Express 3.0, section 7.8). `portType` is its device/port type. */
  protected addExpressCapability(portType: number, at?: number, version: 1 | 2 = 2): number {
    const { config } = this;
    const offset = config.addCapability(CAP_EXPRESS, version === 1 ? 0x14 : 0x3c, at);
    this.#expressAt = offset;
    config.set16(offset + 2, version | (portType << 4));
    if (version === 1) {
      config.set32(offset + 4, 0x8000); // role-based error reporting
      config.set32(offset + 0x0c, 0x11 | (0b01 << 10)); // 2.5 GT/s, x1; ASPM L0s
      config.set16(offset + 0x12, 0x11);
      return offset;
    }
    config.set32(offset + 4, 0x8000); // role-based error reporting
    config.mask16(config.writable, offset + 8, 0x000f | 0x10 | 0x800 | 0x7000);
    config.mask16(config.writeOneToClear, offset + 10, 0x0f);
    config.set32(offset + 0x0c, 0x11 | (0b01 << 10)); // 2.5 GT/s, x1; ASPM L0s
    config.set16(offset + 0x12, 0x11);
    if (portType !== 9) config.mask16(config.writable, offset + 0x10, 0x00f3);
    config.set32(offset + 0x24, 0x30_0000); // TLPs with up to four end-to-end prefixes, and a longer format field
    config.mask16(config.writable, offset + 0x28, 0x8000); // which may be blocked
    return offset;
  }

  /** Lets software reset the function alone. @param at its PCI Express capability */
  protected addFunctionLevelReset(at = this.#expressAt): void {
    const { config } = this;
    if (at === undefined) return;
    config.set32(at + 4, config.get32(at + 4) | DEVCAP_FLR);
    config.mask16(config.writable, at + 8, config.read16Mask(config.writable, at + 8) | DEVCTL_FLR);
    this.#resetControl = at + 8;
  }

  #identify(): void {
    const { config, identity } = this;
    config.set16(CFG.VENDOR_ID, identity.vendor);
    config.set16(CFG.DEVICE_ID, identity.device);
    config.set8(CFG.REVISION_ID, identity.revision ?? 0);
    config.set8(CFG.CLASS_CODE, identity.class);
    config.set16(CFG.CLASS_CODE + 1, identity.class >>> 8);
    if (!identity.bridge) {
      config.set16(CFG.SUBSYSTEM_VENDOR_ID, identity.subsystemVendor ?? 0x1af4);
      config.set16(CFG.SUBSYSTEM_ID, identity.subsystem ?? 0x1100);
    } else {
      config.set8(CFG.HEADER_TYPE, 1);
    }
    if (identity.pin !== undefined) config.set8(CFG.INTERRUPT_PIN, identity.pin.charCodeAt(0) - 0x40);
  }

  /** Adds an MSI-X capability whose size only the device's properties tell, or which must come after others. */
  protected addMsix(declaration: MsixDeclaration): Msix {
    this.#msix = new Msix(this.typeName, this.config, declaration, (address, data) => this.#sendMessage(address, data));
    return this.#msix;
  }

  /** Adds a power management capability; `where` is its offset, or true for anywhere. */
  protected addPowerManagement(where: number | true): void {
    const { config } = this;
    const offset = config.addCapability(CAP_PM, 8, where === true ? undefined : where);
    config.set16(offset + 2, 3); // version 1.2
    config.mask16(config.writable, offset + 4, 0x0003 | 0x0100);
    config.mask16(config.writeOneToClear, offset + 4, 0x8000);
  }

  #resetConfig(): void {
    const { config } = this;
    config.set16(CFG.COMMAND, config.command & ~config.read16Mask(config.writable, CFG.COMMAND));
    config.set16(
      CFG.STATUS,
      config.get16(CFG.STATUS) &
        ~(config.read16Mask(config.writable, CFG.STATUS) | config.read16Mask(config.writeOneToClear, CFG.STATUS)),
    );
    config.set8(CFG.CACHE_LINE_SIZE, 0);
    config.set8(CFG.INTERRUPT_LINE, 0);
    for (const bar of this.#bars) {
      if (bar === undefined) continue;
      const at = barOffset(bar.index, this.identity.bridge ?? false);
      config.set32(at, barFlags(bar.declaration));
      if (bar.declaration.wide) config.set32(at + 4, 0);
    }
    this.irq.lower();
    config.clearStatus(STATUS.INTERRUPT);
    this.msi?.reset();
    this.msix?.reset();
    this.dma.enabled = false;
    this.updateMappings();
    this.#driveIntx();
  }

  #updateBar(bar: Bar): void {
    this.#place(bar, this.#barAddress(bar));
  }

  #place(bar: Bar, address: number): void {
    if (address === bar.address) return;
    const space = bar.declaration.space === 'io' ? this.pciBus.io : this.pciBus.memory;
    if (bar.address !== UNMAPPED) space.remove(bar.region);
    bar.address = address;
    if (address !== UNMAPPED) space.add(bar.region, address, 1);
  }

  /** Where configuration space puts the BAR; -1 where decoding is off or the address is not usable yet. */
  #barAddress(bar: Bar): number {
    const { config } = this;
    const at = barOffset(bar.index, this.identity.bridge ?? false);
    const { size } = bar.declaration;
    if (bar.declaration.space === 'io') {
      if ((config.command & COMMAND.IO) === 0) return UNMAPPED;
      const address = (config.get32(at) & ~(size - 1)) >>> 0;
      return address === 0 || address + size > 0x1_0000 ? UNMAPPED : address;
    }
    if ((config.command & COMMAND.MEMORY) === 0) return UNMAPPED;
    const low = config.get32(at);
    if (bar.index === ROM_BAR && (low & ROM_ENABLE) === 0) return UNMAPPED;
    const whole =
      (bar.declaration.wide ? config.get32(at + 4) * 2 ** 32 : 0) +
      ((low & (bar.index === ROM_BAR ? 0xffff_f800 : 0xffff_fff0)) >>> 0);
    const address = Math.floor(whole / size) * size;
    const last = address + size - 1;
    // All ones is software finding the size, not an address.
    if (address === 0 || last >= 2 ** 52 || (!bar.declaration.wide && last >= 0xffff_ffff)) return UNMAPPED;
    return address;
  }

  #loadOptionRom(): void {
    const { romfile, rombar } = this.#pciProps;
    const name = romfile ?? this.identity.rom;
    if (name === undefined || name === '' || rombar === 0) return;
    const image = romfile === undefined ? this.#defaultRom(name) : this.services.romImage(name);
    if (image === undefined) return;
    const size = Math.max(2048, 2 ** Math.ceil(Math.log2(Math.max(1, image.length))));
    const ram = new SharedRam(`${this.typeName}.rom`, size, { readonly: true });
    ram.bytes.set(image);
    if (romfile === undefined)
      patchRomIdentity(ram.bytes.subarray(0, image.length), this.identity.vendor, this.identity.device);
    this.bar(ROM_BAR, MemoryRegion.rom(ram), { size });
  }

  /** A host without network boot ROMs has machines that cannot boot from the network, and nothing worse. */
  #defaultRom(name: string): Uint8Array | undefined {
    try {
      return this.services.romImage(name);
    } catch (error) {
      if (!(error instanceof SouthbridgeError) || error.code !== 'ERR_ROM_MISSING') throw error;
      this.log.unimplemented(`no boot ROM: ${error.message}`);
      return undefined;
    }
  }
}

function touches(offset: number, size: number, start: number, length: number): boolean {
  return offset < start + length && start < offset + size;
}

function barOffset(index: number, bridge: boolean): number {
  if (index === ROM_BAR) return bridge ? 0x38 : CFG.ROM_ADDRESS;
  return CFG.BAR0 + index * 4;
}

function barFlags(bar: BarDeclaration): number {
  if (bar.space === 'io') return BAR_IO;
  return (bar.wide ? BAR_WIDE : 0) | (bar.prefetchable ? BAR_PREFETCH : 0);
}
