import { Device } from '../../core/device/device.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SystemBus } from '../../core/device/system-bus.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { Dma, type DmaTranslator, shielded } from '../../core/memory/dma.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { type Iommu, PciBus } from '../../core/pci/pci-bus.ts';
import type { PciDevice } from '../../core/pci/pci-device.ts';
import { Requester } from '../../core/pci/requester.ts';
import { field } from '../../core/state/fields.ts';
import { IoApic } from '../ioapic.ts';
import { Q35Host } from '../q35.ts';
import { Events } from './faults.ts';
import { InterruptTable, interruptState } from './interrupts.ts';
import { Iotlb } from './iotlb.ts';
import { InvalidationQueue, type InvalidationTarget, MAX_PAGES_ORDER, queueState } from './queue.ts';
import { GRANULARITY, IOMMU_BASE, intelIommuRegisters, REGISTERS_SIZE } from './registers.ts';
import { ContextEntry, FAULT, type Fault, INTERRUPT_RANGE, LEVEL_SIZE, pageAt, READ, Tables, WRITE } from './tables.ts';

const WIDTHS = [39, 48] as const;
/** How far a translation holds where nothing is translated. */
const EVERYTHING = 2 ** 53;
const REFUSED = -1;
const MESSAGE_MASK = 0xf_ffff;
/** The I/O APIC as a requester, as DMAR tells. */
export const IO_APIC_SOURCE = 0xff00;

/** CAP and ECAP (sections 11.4.2 and 11.4.3). */
const FRO = 0x220 >> 4;
const IRO = 0xf0 >> 4;
const ND_64K = 6;
const DEPTHS = { 39: 0b00010, 48: 0b00110 } as const;
const PAGES_2M_1G = 3;
const MASKABLE_HANDLES = 15;

const properties = {
  version: prop.u32({ default: 0 }),
  eim: prop.onOffAuto({ default: 'auto' }),
  'x-buggy-eim': prop.bool({ default: false }),
  'aw-bits': prop.u8({ default: 39 }),
  'caching-mode': prop.bool({ default: false }),
  'x-scalable-mode': prop.bool({ default: false }),
  'snoop-control': prop.bool({ default: false }),
  'x-pasid-mode': prop.bool({ default: false }),
  'dma-drain': prop.bool({ default: true }),
  'dma-translation': prop.bool({ default: true }),
  intremap: prop.onOffAuto({ default: 'auto' }),
  'device-iotlb': prop.bool({ default: false }),
  pt: prop.bool({ default: true }),
} as const;

/** DMA remapping hardware: what a function's addresses mean is in tables of the system's (VT-d). */
export class IntelIommu extends Device<typeof properties> implements Iommu, InvalidationTarget {
  readonly function = undefined;
  readonly #bank = this.bank(intelIommuRegisters, {
    GCMD: { wrote: () => this.#command() },
    CCMD: { wrote: (_value, _previous, _index, _written, touched) => this.#contextCommand(touched) },
    FSTS: { wrote: (_value, previous) => this.#statusWritten(previous) },
    FECTL: { wrote: () => this.#events.faultControlWritten() },
    ICS: { wrote: () => this.#events.completionStatusWritten() },
    IECTL: { wrote: () => this.#events.completionControlWritten() },
    IQH: { read: () => this.#queued.head << 4 },
    IQT: { wrote: () => this.#tailWritten() },
    IQA: { read: stored => (stored & 7n) | BigInt(this.#queued.base) },
    IOTLB: { wrote: (_value, _previous, _index, _written, touched) => this.#tlbCommand(touched) },
    FRCD_HIGH: { wrote: () => this.#events.recordsChanged() },
  });
  readonly #regs = this.#bank.regs;
  readonly #saved = this.state(1, { root: field.number(), translating: field.bool() });
  readonly #queued = this.state(1, queueState, { name: 'queue' });
  readonly #interruptState = this.state(1, interruptState, { name: 'interrupts' });
  readonly #dma: Dma;
  readonly #interrupts: InterruptTable;
  /** The I/O APIC, where it is not the accelerator's. */
  #ioApic: IoApic | undefined;
  readonly #tables: Tables;
  readonly #tlb = new Iotlb();
  readonly #queue: InvalidationQueue;
  readonly #events = new Events(this.#regs, (address, data) => this.#sendEvent(address, data));
  readonly #faults = this.log.event('fault');
  /** The contexts that were fetched since the last invalidation are of this generation. */
  #generation = 1;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    if (!(context.bus instanceof SystemBus))
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' goes onto the system bus`);
    this.#dma = new Dma(context.bus.dmaSpace);
    this.#interrupts = new InterruptTable(this.#dma, this.#interruptState);
    this.#queue = new InvalidationQueue(this.#dma, this.#queued, this);
    this.#tables = new Tables(this.#dma, {
      width: this.addressWidth,
      depths: this.#depths,
      passThrough: this.props.pt,
      deviceTlb: this.deviceTlb,
      snoopControl: this.props['snoop-control'],
    });
    // What `auto` has come to.
    const remapping = (): string => (this.interruptRemapping ? 'on' : 'off');
    this.defineProperty({ name: 'intremap', type: 'OnOffAuto', get: remapping });
    this.defineProperty({ name: 'eim', type: 'OnOffAuto', get: () => 'off' });
  }

  /** Bits of an address. */
  get addressWidth(): number {
    return this.props['aw-bits'];
  }

  /** Whether functions may keep translations of their own (address translation services). */
  get deviceTlb(): boolean {
    return this.props['device-iotlb'];
  }

  /** Whether messages go through tables too. */
  get interruptRemapping(): boolean {
    const { intremap } = this.props;
    return intremap === 'on' || (intremap === 'auto' && this.#ioApic !== undefined);
  }

  override get mappedRegions(): readonly { readonly offset: number; readonly size: number }[] {
    return [{ offset: IOMMU_BASE, size: REGISTERS_SIZE }];
  }

  get #depths(): number {
    if (!this.props['dma-translation']) return 0;
    return this.addressWidth === 48 ? DEPTHS[48] : DEPTHS[39];
  }

  protected override realize(): void {
    const { bus } = this;
    if (!(bus instanceof SystemBus)) return;
    const boards = boardsOf(bus);
    const root = rootOf(boards);
    this.#ioApic = boards.flatMap(board => board.devices).find(each => each instanceof IoApic);
    this.#checkProperties();
    if (root === undefined)
      throw new SouthbridgeError(
        'ERR_DEVICE_TYPE',
        "Parameter 'driver' expects a dynamic sysbus device type for the machine",
        'only a q35 machine has a place for it',
      );
    if (root.iommu !== undefined)
      throw new SouthbridgeError('ERR_DEVICE_TYPE', 'QEMU does not support multiple vIOMMUs for x86 yet.');
    const region = MemoryRegion.io('intel_iommu', REGISTERS_SIZE, shielded(this.#dma, this.#bank), {
      valid: { min: 4, max: 4 },
      impl: { min: 4, max: 4 },
    });
    bus.memory.add(region, IOMMU_BASE);
    root.iommu = this;
    const ioApic = this.#ioApic;
    if (ioApic !== undefined) this.#takeMessages(ioApic);
    this.onUnrealize(() => {
      root.iommu = undefined;
      bus.memory.remove(region);
    });
  }

  #checkProperties(): void {
    const { props } = this;
    const refuse = (message: string, hint?: string): never => {
      throw new SouthbridgeError('ERR_PROPERTY_VALUE', message, hint);
    };
    if (props.intremap === 'on' && this.#ioApic === undefined)
      refuse("Interrupt Remapping cannot work with kernel-irqchip=on, please use 'split|off'.");
    if (props.eim === 'on' && !this.interruptRemapping) refuse('eim=on cannot be selected without intremap=on');
    if (props.eim === 'on' && !props['x-buggy-eim']) refuse('eim=on requires accel=kvm,kernel-irqchip=split');
    if (props['x-buggy-eim'] && props.eim !== 'off' && this.interruptRemapping)
      refuse('intel-iommu: extended interrupt mode is not supported', 'leave x-buggy-eim=on out');
    if (!WIDTHS.some(width => width === props['aw-bits']))
      refuse(`Supported values for aw-bits are: ${WIDTHS.join(', ')}`);
    if (props['x-scalable-mode'] && !props['dma-drain']) refuse('Need to set dma_drain for scalable mode');
    if (props['x-pasid-mode'] && !props['x-scalable-mode']) refuse('Need to set scalable mode for PASID');
    if (props['x-scalable-mode']) refuse('intel-iommu: scalable mode is not supported', 'leave x-scalable-mode=on out');
  }

  #takeMessages(ioApic: IoApic): void {
    const direct = ioApic.sendMessage;
    ioApic.sendMessage = (address, data) => {
      if (!this.#message(IO_APIC_SOURCE, address, data)) direct(address, data);
    };
    this.onUnrealize(() => {
      ioApic.sendMessage = direct;
    });
  }

  protected override resetEnter(): void {
    const { props } = this;
    const { CAP, ECAP } = this.#regs;
    Object.assign(CAP, { ND: ND_64K, CM: props['caching-mode'], SAGAW: this.#depths, MGAW: this.addressWidth - 1 });
    Object.assign(CAP, { FRO_LOW: FRO, SLLPS: PAGES_2M_1G, PSI: true, MAMV: MAX_PAGES_ORDER });
    Object.assign(CAP, { DWD: props['dma-drain'], DRD: props['dma-drain'] });
    Object.assign(ECAP, { QI: true, DT: this.deviceTlb, PT: props.pt, SC: props['snoop-control'], IRO });
    if (this.interruptRemapping) Object.assign(ECAP, { IR: true, MHMV: MASKABLE_HANDLES });
    this.#forget();
  }

  protected override restored(): void {
    this.#forget();
  }

  #forget(): void {
    this.#generation++;
    this.#tlb.clear();
  }

  // Commands (section 11.4.4)

  #command(): void {
    const { GSTS, GCMD, RTADDR, IQA, IRTA } = this.#regs;
    const { TE, SRTP, QIE, SIRTP, IRE } = GCMD;
    if (TE !== GSTS.TES && this.props['dma-translation']) {
      this.#saved.translating = TE;
      GSTS.TES = TE;
      this.#forget();
    }
    if (SRTP) {
      this.#saved.root = this.#tableAddress(RTADDR.low, RTADDR.high);
      GSTS.RTPS = true;
      this.#forget();
    }
    if (QIE !== GSTS.QIES) {
      if (!QIE) GSTS.QIES = !this.#queue.disable();
      else {
        GSTS.QIES = true;
        this.#queue.enable(this.#tableAddress(IQA.low, IQA.high), IQA.QS);
        if (this.#queued.tail !== 0) this.#runQueue();
      }
    }
    if (SIRTP) {
      this.#interrupts.place(this.#tableAddress(IRTA.low, IRTA.high), IRTA.S);
      GSTS.IRTPS = true;
    }
    if (this.interruptRemapping) GSTS.IRES = IRE;
  }

  #tableAddress(low: number, high: number): number {
    return pageAt(low, high % 2 ** (this.addressWidth - 32));
  }

  // Invalidation by register (section 6.5.1)

  /** What was asked for begins with the upper half. */
  #contextCommand(touched: bigint): void {
    const { CCMD, GSTS } = this.#regs;
    if (touched >> 63n === 0n || !CCMD.ICC || GSTS.QIES) return;
    const known = this.invalidateContexts(CCMD.CIRG);
    const { GLOBAL, DEVICE } = GRANULARITY;
    CCMD.CAIG = !known ? 0 : CCMD.CIRG === DEVICE ? DEVICE : GLOBAL;
    CCMD.ICC = false;
  }

  #tlbCommand(touched: bigint): void {
    const { IOTLB, IVA, GSTS } = this.#regs;
    if (touched >> 63n === 0n || !IOTLB.IVT || GSTS.QIES) return;
    const address = pageAt(IVA.low, IVA.high);
    const known = this.invalidateTlb(IOTLB.IIRG, IOTLB.DID, address, IVA.AM);
    IOTLB.IAIG = known ? IOTLB.IIRG : 0;
    IOTLB.IVT = false;
  }

  /** Whichever are meant, all are forgotten: there are few, and they are soon fetched again. */
  invalidateContexts(granularity: number): boolean {
    if (granularity === 0) return false;
    this.#generation++;
    return true;
  }

  invalidateTlb(granularity: number, domain: number, address: number, order: number): boolean {
    if (granularity === GRANULARITY.GLOBAL) this.#tlb.clear();
    else if (granularity === GRANULARITY.DOMAIN) this.#tlb.clearDomain(domain);
    else if (granularity !== GRANULARITY.PAGE || order > MAX_PAGES_ORDER) return false;
    else this.#tlb.clearPages(domain, address, order);
    return true;
  }

  // Queued invalidation (section 6.5.2)

  #tailWritten(): void {
    this.#queued.tail = this.#regs.IQT.QT;
    this.#runQueue();
  }

  #runQueue(): void {
    if (this.#regs.GSTS.QIES && !this.#regs.FSTS.IQE) this.#queue.run();
  }

  completed(): void {
    this.#events.completed();
  }

  failed(): void {
    this.#events.queueError();
  }

  /** The queue goes on once software has cleared its error (section 6.5.2.10). */
  #statusWritten(previous: number): void {
    const { FSTS } = this.#regs;
    this.#events.statusWritten();
    if (!FSTS.IQE && (previous & (1 << 4)) !== 0 && this.#queued.head !== this.#queued.tail) this.#runQueue();
  }

  #sendEvent(address: number, data: number): void {
    this.#dma.write32(INTERRUPT_RANGE.start + (address & MESSAGE_MASK), data);
  }

  // Interrupt remapping (section 5)

  /** Answers whether it has seen to a message. */
  #message(source: number, address: number, data: number): boolean {
    if (!this.#regs.GSTS.IRES || address < INTERRUPT_RANGE.start || address > INTERRUPT_RANGE.end) return false;
    const table = this.#interrupts;
    const fault = table.remap(source, address, data);
    if (fault === FAULT.NONE) this.#dma.write32(table.address, table.data);
    else this.#record(fault, source, table.index * 2 ** 48, true, table.faultsDisabled);
    return true;
  }

  // Translation (section 3)

  translatorFor(device: PciDevice): DmaTranslator {
    const requester = new Requester(device);
    const context = new ContextEntry();
    const translate = (address: number, write: boolean): number => {
      if (this.#saved.translating) return this.#translate(requester.id, context, address, write, translator);
      translator.span = EVERYTHING;
      return address;
    };
    const message = (address: number, data: number): boolean => this.#message(requester.id, address, data);
    const translator = { span: EVERYTHING, translate, message };
    return translator;
  }

  #translate(source: number, context: ContextEntry, address: number, write: boolean, result: { span: number }): number {
    if (address >= INTERRUPT_RANGE.start && address <= INTERRUPT_RANGE.end) {
      result.span = INTERRUPT_RANGE.end - address + 1;
      // Messages are words; what else is written there is none.
      return this.#regs.GSTS.IRES && write ? REFUSED : address;
    }
    const slot = this.#tlb.find(source, address);
    // Where a kept translation would refuse, the tables say why, and whether they still do.
    if (slot >= 0 && (this.#tlb.access(slot) & (write ? WRITE : READ)) !== 0)
      return within(this.#tlb.base(slot), this.#tlb.size(slot), address, result);
    const tables = this.#tables;
    let fault: Fault = FAULT.NONE;
    if (context.generation !== this.#generation) fault = tables.context(this.#saved.root, source, context);
    if (fault === FAULT.NONE) {
      context.generation = this.#generation;
      if (context.passThrough) {
        result.span = address < INTERRUPT_RANGE.start ? INTERRUPT_RANGE.start - address : EVERYTHING;
        return address;
      }
      fault = tables.walk(context, address, write);
    }
    if (fault !== FAULT.NONE) {
      this.#record(fault, source, address, write, context.faultsDisabled);
      return REFUSED;
    }
    const { base, level } = tables;
    this.#tlb.add(source, address, context.domain, base, level, tables.access);
    return within(base, LEVEL_SIZE[level] ?? 0, address, result);
  }

  #record(fault: Fault, source: number, address: number, write: boolean, disabled: boolean): void {
    if (this.#faults.enabled) {
      const what = write ? 'write' : 'read';
      this.#faults.emit(`reason ${fault} source 0x${source.toString(16)} ${what} 0x${address.toString(16)}`);
    }
    this.#events.record(fault, source, address, write, disabled);
  }
}

/** Where `address` is in memory, given the page that it is in. */
function within(base: number, size: number, address: number, result: { span: number }): number {
  const offset = address % size;
  result.span = size - offset;
  return base + offset;
}

/** The system bus with the chips of the machine: that of a card's own is on another. */
const boardsOf = (bus: SystemBus): readonly SystemBus[] =>
  bus.parent instanceof SystemBus ? [bus, bus.parent] : [bus];

/** The root bus of the machine's host bridge. */
function rootOf(boards: readonly SystemBus[]): PciBus | undefined {
  for (const board of boards)
    for (const bus of [...board.owned, ...board.devices.flatMap(each => (each instanceof Q35Host ? each.buses : []))])
      if (bus instanceof PciBus) return bus;
  return undefined;
}

export const intelIommu = deviceType({
  type: 'intel-iommu',
  summary: 'Intel IOMMU (VT-d) DMA Remapping device',
  bus: 'System',
  category: 'misc',
  parents: ['x86-iommu', 'sys-bus-device', 'device'],
  hotpluggable: false,
  properties,
  create: IntelIommu,
});
