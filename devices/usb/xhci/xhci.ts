import { type DeviceContext, deviceType } from '../../../core/device/device-type.ts';
import { type PropSet, type PropValues, prop } from '../../../core/device/property.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import { MemoryRegion } from '../../../core/memory/memory-region.ts';
import type { MsiDeclaration } from '../../../core/pci/identity.ts';
import { PciDevice } from '../../../core/pci/pci-device.ts';
import type { Registers } from '../../../core/register/register.ts';
import { field, type SavedRecord } from '../../../core/state/fields.ts';
import { UsbBus, usbBusName } from '../../../core/usb/bus.ts';
import { usbHub } from '../hub.ts';
import { MICROFRAME_NS } from './endpoint.ts';
import { Interrupter, interrupterState } from './interrupter.ts';
import { necAnswer } from './nec.ts';
import {
  CC,
  ENDPOINTS,
  EP_STATE,
  MAX_INTERRUPTERS,
  MAX_SLOTS,
  MEMORY_SIZE,
  MSIX_PENDING,
  MSIX_TABLE,
  pointer,
  TRB,
  xhciRegisters,
} from './registers.ts';
import { Ring, TrbList } from './ring.ts';
import { RootHub, type RootHubHost } from './root-hub.ts';
import { MAX_STREAMS, Slots } from './slots.ts';

const MAX_PORTS_OF_A_KIND = 15;
/** Commands of one doorbell. */
const MAX_COMMANDS = 256;
const INDEX_COUNT = 0x4000;
/** In configuration space: MSI, MSI-X and PCI Express capabilities, cache line size, release number. */
const MSI_AT = 0x70;
const MSIX_AT = 0x90;
const EXPRESS_AT = 0xa0;
const CACHE_LINE_SIZE = 0x0c;
const SBRN = 0x60;
/** Raw bits of registers. */
const COMMAND = { RUN: 1 << 0, RESET: 1 << 1, SAVE: 1 << 8, RESTORE: 1 << 9 } as const;
const RING_STOP = 0b110;
const HANDLER_BUSY = 1 << 3;
const NEC_FIRMWARE = 0x3034;

const commonProperties = {
  streams: prop.bit({ default: true }),
  p2: prop.u32({ default: 4 }),
  p3: prop.u32({ default: 4 }),
} as const;

const necProperties = {
  ...commonProperties,
  // QEMU's has none either, unless they are asked for.
  streams: prop.bit({ default: false }),
  msi: prop.onOffAuto({ default: 'auto' }),
  msix: prop.onOffAuto({ default: 'auto' }),
  'superspeed-ports-first': prop.bit({ default: true }),
  'force-pcie-endcap': prop.bit({ default: false }),
  intrs: prop.u32({ default: MAX_INTERRUPTERS }),
  slots: prop.u32({ default: MAX_SLOTS }),
} as const;

const savedEndpoint = field.record({
  slotId: field.u8(),
  id: field.u8(),
  type: field.u8(),
  context: field.number(),
  state: field.u8(),
  interval: field.number(1),
  last: field.number(),
  dequeue: field.number(),
  cycle: field.bool(),
  streams: field.u16(),
  streamBase: field.number(),
});
const savedSlot = field.record({
  id: field.u8(),
  context: field.number(),
  interrupter: field.u16(),
  port: field.string(),
});

/** An xHCI host controller (eXtensible Host Controller Interface 1.1, with the register set of 1.0). */
abstract class Xhci<S extends PropSet> extends PciDevice<S> {
  readonly #regs: Registers<typeof xhciRegisters>;
  readonly #s = this.state(1, {
    /** When MFINDEX was 0. */
    startNs: field.number(),
    commandDequeue: field.number(),
    commandCycle: field.bool(true),
  });
  /** Filled when a snapshot is made. */
  readonly #saved = this.state(
    1,
    { slots: field.list(savedSlot, MAX_SLOTS), endpoints: field.list(savedEndpoint, MAX_SLOTS * ENDPOINTS) },
    { name: 'slots' },
  );
  readonly #timer = this.clock.timer('microframe', () => this.#due());
  readonly #wrapTimer = this.clock.timer('mfindex-wrap', () => this.#wrapped());
  readonly #interrupters: readonly Interrupter[];
  readonly #rootHub: RootHub;
  readonly #slots: Slots;
  readonly #commands = new Ring();
  readonly #command = new TrbList();
  readonly #usbBus: UsbBus;

  constructor(context: DeviceContext<S>) {
    super(context);
    const { config } = this;
    config.set8(CACHE_LINE_SIZE, 0x10);
    config.set8(SBRN, 0x30);
    const bank = this.bank(xhciRegisters, {
      USBCMD: { wrote: (_value, previous, _index, written) => this.#commandWritten(previous, written) },
      USBSTS: { wrote: () => this.#updateLine() },
      CRCR_HIGH: { wrote: () => this.#ringWritten() },
      CRCR_LOW: {
        wrote: (_value, _previous, _index, written) => {
          if ((written & RING_STOP) !== 0) this.#stopCommands();
        },
      },
      PORTSC: { wrote: (_value, previous, index, written) => this.#rootHub.written(index, previous, written) },
      MFINDEX: { read: () => this.#microframe() % INDEX_COUNT },
      IMAN: { wrote: () => this.#updateLine() },
      ERSTBA_HIGH: { wrote: (_value, _previous, index) => this.#interrupters[index]?.tableWritten() },
      ERDP_LOW: { wrote: (_value, _previous, index, written) => this.#dequeueWritten(index, written) },
      DOORBELL: { write: (value, _previous, index) => this.#doorbell(value, index) },
    });
    this.#regs = bank.regs;
    const host = {
      dma: this.dma,
      regs: bank.regs,
      die: () => this.#die(),
      raise: (index: number) => this.#raise(index),
    };
    this.#interrupters = Array.from(
      { length: MAX_INTERRUPTERS },
      (_, index) =>
        new Interrupter(index, this.state(1, interrupterState, { name: `interrupter${index}`, onReset: 'keep' }), host),
    );
    this.#usbBus = new UsbBus(usbBusName(this), {
      services: this.services,
      home: this.pciBus.home,
      owner: this,
      hub: usbHub,
    });
    this.#checkPorts();
    this.#slots = this.#makeSlots();
    this.#rootHub = this.#makeRootHub();
    this.#mapRegisters(
      MemoryRegion.io('xhci-registers', MSIX_TABLE, this.shielded(bank), { impl: { min: 4, max: 4 } }),
    );
  }

  // What the types differ in

  protected abstract get hasMsix(): boolean;
  protected abstract get interrupterCount(): number;
  protected abstract get slotCount(): number;
  protected abstract get superSpeedFirst(): boolean;
  protected abstract get forceExpress(): boolean;
  /** Answers NEC's own commands. */
  protected abstract get nec(): boolean;

  protected get xhciProps(): PropValues<typeof commonProperties> {
    // Both types declare these.
    return this.props as PropValues<S> & PropValues<typeof commonProperties>;
  }

  #makeRootHub(): RootHub {
    const { p2, p3 } = this.xhciProps;
    const host: RootHubHost = {
      regs: this.#regs,
      slots: this.#slots,
      event: (interrupter, type, parameter, status, control) =>
        this.#event(interrupter, type, parameter, status, control),
    };
    return new RootHub(host, p2, p3, this.superSpeedFirst);
  }

  /** Before anything is made of the numbers. */
  #checkPorts(): void {
    const { p2, p3 } = this.xhciProps;
    if (p2 > MAX_PORTS_OF_A_KIND || p3 > MAX_PORTS_OF_A_KIND || p2 + p3 === 0) {
      throw new SouthbridgeError(
        'ERR_PROPERTY_RANGE',
        `'${this.typeName}' has ${p2} USB 2 and ${p3} USB 3 ports; there may be up to ${MAX_PORTS_OF_A_KIND} of each`,
      );
    }
  }

  #makeSlots(): Slots {
    const regs = this.#regs;
    const slots: Slots = new Slots(
      {
        dma: this.dma,
        bus: this.#usbBus,
        portCount: this.xhciProps.p2 + this.xhciProps.p3,
        maxStreams: this.xhciProps.streams ? MAX_STREAMS : 0,
        rootPort: number => this.#rootHub.connector(number),
        contextArray: () => pointer(regs.DCBAAP_LOW.value, regs.DCBAAP_HIGH.value),
        microframe: () => this.#microframe(),
        usbEndpoint: pipe => slots.usbEndpoint(pipe),
        event: (interrupter, type, parameter, status, control) =>
          this.#event(interrupter, type, parameter, status, control),
        die: () => this.#die(),
        wait: () => this.#armTimer(),
        interrupter: slotId => slots.slot(slotId)?.interrupter ?? 0,
      },
      this.slotCount,
    );
    return slots;
  }

  #mapRegisters(registers: MemoryRegion): void {
    const memory = MemoryRegion.container('xhci', MEMORY_SIZE);
    memory.add(registers, 0);
    if (!this.pciBus.express && this.forceExpress) this.addExpressCapability(0, EXPRESS_AT);
    if (this.hasMsix) {
      const msix = this.addMsix({
        vectors: this.interrupterCount,
        bar: 0,
        table: MSIX_TABLE,
        pba: MSIX_PENDING,
        offset: MSIX_AT,
      });
      memory.add(msix.table, MSIX_TABLE);
      memory.add(msix.pending, MSIX_PENDING);
    }
    this.bar(0, memory, { size: MEMORY_SIZE, wide: true });
  }

  protected override realize(): void {
    const { p2, p3 } = this.xhciProps;
    const regs = this.#regs;
    const { HCSPARAMS1, USB2_PORTS, USB3_PORTS } = regs;
    HCSPARAMS1.MAX_SLOTS = this.slotCount;
    HCSPARAMS1.MAX_INTRS = this.interrupterCount;
    HCSPARAMS1.MAX_PORTS = p2 + p3;
    regs.HCCPARAMS1.MAX_PSA_SIZE = this.xhciProps.streams ? MAX_STREAMS : 0;
    USB2_PORTS.OFFSET = this.superSpeedFirst ? p3 + 1 : 1;
    USB2_PORTS.COUNT = p2;
    USB3_PORTS.OFFSET = this.superSpeedFirst ? 1 : p2 + 1;
    USB3_PORTS.COUNT = p3;
    for (const port of this.#rootHub.connectors) this.#usbBus.addPort(port);
    this.addBus(this.#usbBus);
    // Transfers that were under way when a snapshot was made are begun again.
    this.onUnrealize(this.services.system.onRunning(() => this.#resume()));
    this.onUnrealize(() => this.#slots.disableAll(true));
  }

  // Operational registers (section 5.4)

  get #running(): boolean {
    return !this.#regs.USBSTS.HCH;
  }

  #commandWritten(previous: number, written: number): void {
    const { USBCMD, USBSTS, CRCR_LOW } = this.#regs;
    const wasRunning = (previous & COMMAND.RUN) !== 0;
    if (USBCMD.RS && !wasRunning) {
      USBSTS.HCH = false;
      this.#s.startNs = this.clock.now();
    } else if (!USBCMD.RS && wasRunning) {
      USBSTS.HCH = true;
      CRCR_LOW.CRR = false;
    }
    if ((written & COMMAND.SAVE) !== 0) USBSTS.SRE = false;
    // What was saved is not kept: the driver sets everything up again (section 4.23.2).
    if ((written & COMMAND.RESTORE) !== 0) USBSTS.SRE = true;
    if ((written & COMMAND.RESET) !== 0) this.#resetController();
    this.#armWrap();
    this.#updateLine();
  }

  #die(): void {
    this.#regs.USBSTS.HCE = true;
  }

  #ringWritten(): void {
    const { CRCR_LOW, CRCR_HIGH } = this.#regs;
    // While commands run, only stopping them is possible (section 5.4.5).
    if (CRCR_LOW.CRR) return;
    this.#commands.start(pointer(CRCR_LOW.value & ~0x3f, CRCR_HIGH.value), CRCR_LOW.RCS);
  }

  #stopCommands(): void {
    const { CRCR_LOW } = this.#regs;
    if (!CRCR_LOW.CRR) return;
    CRCR_LOW.CRR = false;
    this.#event(0, TRB.COMMAND_COMPLETION, this.#commands.dequeue, CC.COMMAND_RING_STOPPED << 24, 0);
  }

  // Interrupts (section 4.17)

  /** INTx follows interrupter 0, unless messages are in use. */
  #updateLine(): void {
    const { IMAN, USBCMD } = this.#regs;
    const first = IMAN.at(0);
    const level = first.IP && first.IE && USBCMD.INTE;
    if (!this.messageSignalled) this.irq.set(level);
    else if (level) this.#send(0);
  }

  #raise(index: number): void {
    const { IMAN, ERDP_LOW, USBSTS, USBCMD } = this.#regs;
    const interrupter = IMAN.at(index);
    const busy = ERDP_LOW.at(index).EHB;
    ERDP_LOW.at(index).EHB = true;
    interrupter.IP = true;
    USBSTS.EINT = true;
    if (busy || !interrupter.IE || !USBCMD.INTE) return;
    if (this.messageSignalled) this.#send(index);
    else if (index === 0) this.irq.set(true);
  }

  /** A message clears the interrupt pending bit (section 4.17.5). */
  #send(index: number): void {
    this.notify(index);
    this.#regs.IMAN.at(index).IP = false;
  }

  #dequeueWritten(index: number, written: number): void {
    if ((written & HANDLER_BUSY) !== 0 && this.#interrupters[index]?.waiting) this.#raise(index);
  }

  #event(index: number, type: number, parameter: number, status: number, control: number): void {
    if (index < this.interrupterCount) this.#interrupters[index]?.event(type, parameter, status >>> 0, control);
  }

  // Time

  #microframe(): number {
    return Math.floor((this.clock.now() - this.#s.startNs) / MICROFRAME_NS);
  }

  #armWrap(): void {
    const { USBCMD } = this.#regs;
    if (USBCMD.RS && USBCMD.EWE)
      this.#wrapTimer.arm((INDEX_COUNT - (this.#microframe() % INDEX_COUNT)) * MICROFRAME_NS);
    else this.#wrapTimer.cancel();
  }

  #wrapped(): void {
    this.#event(0, TRB.MFINDEX_WRAP, 0, CC.SUCCESS << 24, 0);
    this.#armWrap();
  }

  /** The earliest microframe that an endpoint waits for. */
  #armTimer(): void {
    let due = Number.POSITIVE_INFINITY;
    for (const { retry } of this.#slots.pipes())
      if (retry !== undefined && retry.due > 0) due = Math.min(due, retry.due);
    if (Number.isFinite(due)) this.#timer.armAt(this.#s.startNs + due * MICROFRAME_NS);
  }

  #due(): void {
    const now = this.#microframe();
    for (const pipe of [...this.#slots.pipes()])
      if (pipe.retry !== undefined && pipe.retry.due > 0 && pipe.retry.due <= now) pipe.kick(pipe.retry.streamId);
    this.#armTimer();
  }

  // Doorbells (section 5.6)

  #doorbell(value: number, index: number): number {
    if (!this.#running) {
      this.log.guestError(`doorbell ${index} while the controller is halted`);
      return 0;
    }
    if (index === 0) this.#runCommands();
    else this.#slots.slot(index)?.endpoints[value & 0xff]?.kick(value >>> 16);
    return 0;
  }

  #runCommands(): void {
    const { CRCR_LOW } = this.#regs;
    CRCR_LOW.CRR = true;
    for (let count = 0; count < MAX_COMMANDS && this.#commands.take(this.dma, this.#command, false); count++) {
      this.#execute(this.#command);
      if (!this.#running) return;
    }
  }

  #execute(list: TrbList): void {
    const type = list.type(0);
    let slotId = 0;
    let code: number = CC.SUCCESS;
    switch (type) {
      case TRB.ENABLE_SLOT:
        slotId = this.#slots.enable()?.id ?? 0;
        if (slotId === 0) code = CC.NO_SLOTS;
        break;
      case TRB.NO_OP_COMMAND:
        break;
      case TRB.GET_PORT_BANDWIDTH:
        code = this.#slots.portBandwidth(list.parameter(0));
        break;
      case TRB.NEC_FIRMWARE_REVISION:
      case TRB.NEC_CHALLENGE_RESPONSE:
        if (this.nec) {
          this.#necReply(list);
          return;
        }
        code = CC.TRB_ERROR;
        break;
      default: {
        const slot =
          type >= TRB.DISABLE_SLOT && type <= TRB.RESET_DEVICE ? this.#slots.find(list.control(0)) : CC.TRB_ERROR;
        if (typeof slot === 'number') code = slot;
        else {
          slotId = slot.id;
          code = this.#slots.command(slot, list);
        }
      }
    }
    this.#event(0, TRB.COMMAND_COMPLETION, list.address(0), code << 24, slotId << 24);
  }

  #necReply(list: TrbList): void {
    if (list.type(0) === TRB.NEC_FIRMWARE_REVISION) {
      this.#event(0, TRB.NEC_REPLY, list.address(0), NEC_FIRMWARE | (CC.SUCCESS << 24), 0);
      return;
    }
    const answer = necAnswer(list.high(0), list.low(0));
    const control = ((answer >>> 24) << 24) | (((answer >>> 16) & 0xff) << 16);
    this.#event(0, TRB.NEC_REPLY, list.address(0), (answer & 0xffff) | (CC.SUCCESS << 24), control);
  }

  // Reset and snapshots

  #resetController(): void {
    for (const bank of this.banks) bank.reset();
    this.resetHold();
  }

  protected override resetHold(): void {
    this.#timer.cancel();
    this.#wrapTimer.cancel();
    // Contexts in memory are not touched: whose they are is forgotten.
    this.#slots.disableAll(true);
    for (const interrupter of this.#interrupters) interrupter.reset();
    this.#commands.start(0, true);
    this.#s.startNs = this.clock.now();
    this.#rootHub.reset();
    this.#updateLine();
  }

  override save(): SavedRecord {
    this.#s.commandDequeue = this.#commands.dequeue;
    this.#s.commandCycle = this.#commands.cycle;
    this.#saved.slots = this.#slots.all
      .filter(({ enabled }) => enabled)
      .map(({ id, context, interrupter, port }) => ({ id, context, interrupter, port: port?.path ?? '' }));
    this.#saved.endpoints = [...this.#slots.pipes()].map(pipe => pipe.save());
    return super.save();
  }

  protected override restored(): void {
    super.restored();
    this.#slots.disableAll(true);
    this.#commands.start(this.#s.commandDequeue, this.#s.commandCycle);
    for (const saved of this.#saved.slots) {
      const slot = this.#slots.slot(saved.id);
      if (slot === undefined) continue;
      slot.enabled = true;
      slot.context = saved.context;
      slot.interrupter = saved.interrupter;
      slot.port = this.#usbBus.usedPorts.find(({ path }) => path === saved.port);
    }
    for (const saved of this.#saved.endpoints) {
      const slot = this.#slots.slot(saved.slotId);
      if (slot === undefined || saved.id < 1 || saved.id > ENDPOINTS) continue;
      this.#slots.newEndpoint(slot, saved.id).load(saved);
    }
  }

  #resume(): void {
    if (!this.#running) return;
    for (const pipe of [...this.#slots.pipes()])
      if (pipe.state === EP_STATE.RUNNING && pipe.idle && pipe.streamCount === 0) pipe.kick(0);
  }
}

class NecXhci extends Xhci<typeof necProperties> {
  protected get nec(): boolean {
    return true;
  }

  protected get interrupterCount(): number {
    return 2 ** Math.ceil(Math.log2(Math.min(MAX_INTERRUPTERS, Math.max(1, this.props.intrs))));
  }

  protected get slotCount(): number {
    return Math.min(MAX_SLOTS, Math.max(1, this.props.slots));
  }

  protected get superSpeedFirst(): boolean {
    return this.props['superspeed-ports-first'];
  }

  protected get forceExpress(): boolean {
    return this.props['force-pcie-endcap'];
  }

  protected get hasMsix(): boolean {
    return this.props.msix !== 'off';
  }

  protected override get msiDeclaration(): MsiDeclaration | undefined {
    return this.props.msi === 'off' ? undefined : { vectors: this.interrupterCount, offset: MSI_AT };
  }
}

class QemuXhci extends Xhci<typeof commonProperties> {
  protected get nec(): boolean {
    return false;
  }

  protected get interrupterCount(): number {
    return MAX_INTERRUPTERS;
  }

  protected get slotCount(): number {
    return MAX_SLOTS;
  }

  protected get superSpeedFirst(): boolean {
    return true;
  }

  protected get forceExpress(): boolean {
    return false;
  }

  protected get hasMsix(): boolean {
    return true;
  }
}

const common = {
  summary: 'xHCI USB controller',
  category: 'usb',
  parents: ['pci-xhci', 'pci-device', 'device'],
} as const;
const express = {
  pin: 'A',
  express: 'endpoint',
  expressCapability: { version: 2, offset: EXPRESS_AT, after: 'msi' },
} as const;

export const necUsbXhci = deviceType({
  ...common,
  type: 'nec-usb-xhci',
  properties: necProperties,
  pci: { vendor: 0x1033, device: 0x0194, revision: 0x03, class: 0x0c0330, ...express },
  create: NecXhci,
});

export const qemuXhci = deviceType({
  ...common,
  type: 'qemu-xhci',
  properties: commonProperties,
  pci: { vendor: 0x1b36, device: 0x000d, revision: 0x01, class: 0x0c0330, ...express },
  create: QemuXhci,
});
