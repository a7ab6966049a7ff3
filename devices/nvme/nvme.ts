import type { IoResult } from '../../core/block/backend.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { CFG } from '../../core/pci/config-space.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { RegisterBank } from '../../core/register/register.ts';
import type { SavedRecord } from '../../core/state/fields.ts';
import { type AdminHost, executeAdmin } from './admin-commands.ts';
import { AttachedNamespaces, attachedFields } from './attached-namespaces.ts';
import { CMB_BAR, ControllerMemoryBuffer, PersistentMemoryRegion, PMR_BAR } from './controller-memory.ts';
import { type EngineHost, engineFields, QueueEngine } from './engine.ts';
import { AsyncEvents, eventFields } from './events.ts';
import { featureFields, smartEvent } from './features.ts';
import { IDENTIFY_SIZE } from './identify.ts';
import { IoCommands } from './io-commands.ts';
import { logFields, logNamespaceChange } from './log-pages.ts';
import { ControllerMemory } from './memory.ts';
import { Namespace } from './namespace.ts';
import { type NamespaceHost, NvmeBus, nvmeBusName } from './nvme-bus.ts';
import { checkParameters, nvmeProperties, queuePairs, subsystemOf } from './parameters.ts';
import type { CompletionQueue, Request } from './queues.ts';
import {
  CQES,
  CSS,
  DOORBELLS_SIZE,
  EVENT,
  LOG,
  MPSMAX,
  NOTIFY_NAMESPACE,
  nvmeRegisters,
  REGISTERS_SIZE,
  SHUTDOWN_COMPLETE,
  SQES,
  STATUS,
  WARNING,
} from './registers.ts';

const PAGE = 4096;
const MSIX_ENTRY = 16;
const POWER_AT = 0x60;
const NO_SOFT_RESET = 8;
const EXPRESS_AT = 0x80;
const INTEL = { VENDOR: 0x8086, DEVICE: 0x5845, OUI: 0x0002b3 } as const;
const QEMU_OUI = 0x525400;

const alignUp = (value: number, to: number): number => Math.ceil(value / to) * to;

/** NVM Express controller (NVM Express 1.4) with the NVM command set. */
export class Nvme extends PciDevice<typeof nvmeProperties> implements AdminHost, EngineHost, NamespaceHost {
  readonly #bank: RegisterBank<typeof nvmeRegisters> = this.bank(nvmeRegisters, {
    INTMS: { write: (value, previous) => (previous | value) >>> 0, wrote: () => this.#updateInterrupt() },
    INTMC: {
      read: () => this.#regs.INTMS.value,
      write: value => {
        this.#regs.INTMS.value &= ~value;
        return 0;
      },
      wrote: () => this.#updateInterrupt(),
    },
    CC: { wrote: (_value, previous) => this.#configured(previous) },
    CMBMSC: { wrote: () => this.#cmb?.update(this.#regs) },
    PMRCTL: { wrote: () => this.#pmr?.update(this.#regs) },
    PMRMSCL: { wrote: () => this.#pmr?.update(this.#regs) },
    PMRMSCU: { wrote: () => this.#pmr?.update(this.#regs) },
  });
  readonly #regs = this.#bank.regs;
  readonly features = this.state(1, featureFields, { name: 'features' });
  readonly logs = this.state(1, logFields, { name: 'logs', onReset: 'keep' });
  readonly #saved = this.state(1, engineFields, { name: 'queues' });
  readonly events = new AsyncEvents(
    this.state(1, eventFields, { name: 'events' }),
    { requests: this.props.aerl, events: this.props.aer_max_queued },
    request => this.engine.complete(request),
  );
  readonly #memory = new ControllerMemory(this.dma);
  readonly engine = new QueueEngine(this.#memory, this);
  readonly #io = new IoCommands(this);
  readonly data = new DataView(new ArrayBuffer(IDENTIFY_SIZE));
  readonly #namespaces = new AttachedNamespaces(this.state(1, attachedFields, { name: 'namespaces', onReset: 'keep' }));
  #cmb: ControllerMemoryBuffer | undefined;
  #pmr: PersistentMemoryRegion | undefined;

  readonly mdts = this.props.mdts;
  readonly vsl = this.props.vsl;
  readonly aerl = this.props.aerl;
  readonly vectors = this.props.msix_qsize;
  readonly serial = this.props.serial ?? '';
  readonly maxQueues = queuePairs(this.props);
  readonly subsystem = subsystemOf(this.props);
  #id = 0;
  readonly oui = this.props['use-intel-id'] ? INTEL.OUI : QEMU_OUI;

  constructor(context: DeviceContext<typeof nvmeProperties>) {
    super(context);
    const { config } = this;
    if (this.props['use-intel-id']) {
      config.set16(CFG.VENDOR_ID, INTEL.VENDOR);
      config.set16(CFG.DEVICE_ID, INTEL.DEVICE);
    }
    config.set16(POWER_AT + 4, NO_SOFT_RESET);
    config.mask16(config.writable, POWER_AT + 4, 0b11);
    config.mask16(config.writeOneToClear, POWER_AT + 4, 0);
    // It has the capability on a conventional bus too.
    if (!this.pciBus.express) this.addExpressCapability(0, EXPRESS_AT);
    this.addFunctionLevelReset();
    this.addBus(
      new NvmeBus(nvmeBusName(this.id, this.pciBus), this, this.subsystem?.namespaceBus, {
        services: this.services,
        home: this.pciBus.home,
        owner: this,
      }),
    );
  }

  protected override realize(): void {
    checkParameters(this.props);
    const { subsystem } = this;
    if (subsystem !== undefined) {
      this.#id = subsystem.join(this);
      this.onUnrealize(() => subsystem.leave(this.#id));
    }
    this.#showMemory();
    this.#showRegisters();
    this.logs.poweredOnNs = this.clock.now();
    this.defineProperty({
      name: 'smart_critical_warning',
      type: 'uint8',
      get: () => this.features.smartWarning,
      set: value => this.#warn(Number(value)),
    });
    this.onUnrealize(this.services.system.onRunning(() => this.engine.resume()));
    this.onUnrealize(() => this.engine.clear());
    const { props } = this;
    if (props.drive === undefined) return;
    const resized = (): void => this.namespaceChanged(1);
    const namespace = new Namespace({ nsid: 1, props, path: () => this.path, resized });
    this.onUnrealize(() => namespace.close());
    this.attachNamespace(namespace);
    this.onUnrealize(() => this.detachNamespace(namespace.nsid));
  }

  /** Registers, doorbells, and MSI-X's table and pending bits, each in pages of their own. */
  #showRegisters(): void {
    const table = alignUp(REGISTERS_SIZE + DOORBELLS_SIZE * (this.maxQueues + 1), PAGE);
    const pba = table + alignUp(MSIX_ENTRY * this.vectors, PAGE);
    const msix = this.addMsix({ vectors: this.vectors, bar: 0, table, pba });
    const size = 2 ** Math.ceil(Math.log2(pba + msix.pending.size));
    const contents = MemoryRegion.container('nvme-bar0', size);
    contents.add(MemoryRegion.io('nvme', REGISTERS_SIZE, this.shielded(this.#bank)), 0);
    const doorbells = this.shielded({
      read: () => 0,
      write: (offset, _size, value) => this.#doorbell(offset, value & 0xffff),
    });
    contents.add(MemoryRegion.io('nvme-doorbells', table - REGISTERS_SIZE, doorbells), REGISTERS_SIZE);
    contents.add(msix.table, table);
    contents.add(msix.pending, pba);
    this.bar(0, contents, { size, wide: true });
  }

  /** The controller memory buffer and the persistent memory region. */
  #showMemory(): void {
    const { cmb_size_mb: megabytes, pmrdev, 'legacy-cmb': legacy } = this.props;
    if (megabytes !== 0) {
      this.#cmb = new ControllerMemoryBuffer(megabytes, legacy);
      this.#regs.CAP.CMBS = true;
      this.#showExposed(CMB_BAR, this.#cmb);
    }
    if (pmrdev !== undefined) {
      this.#pmr = new PersistentMemoryRegion(pmrdev);
      this.onUnrealize(pmrdev.claim());
      this.#regs.CAP.PMRS = true;
      this.#pmr.declare(this.#regs);
      this.#showExposed(PMR_BAR, this.#pmr);
    }
    this.#updateMemory();
  }

  #showExposed(bar: number, { exposed }: ControllerMemoryBuffer | PersistentMemoryRegion): void {
    this.#memory.addAperture(exposed);
    this.onUnrealize(this.services.guestRam(exposed.ram));
    this.bar(bar, exposed.region, { size: exposed.region.size, wide: true, prefetchable: true });
  }

  #updateMemory(): void {
    this.#cmb?.update(this.#regs);
    this.#pmr?.update(this.#regs);
  }

  // What commands need of the controller

  get vendor(): number {
    return this.config.get16(CFG.VENDOR_ID);
  }

  get subsystemVendor(): number {
    return this.config.get16(CFG.SUBSYSTEM_VENDOR_ID);
  }

  get pageSize(): number {
    return PAGE << this.#regs.CC.MPS;
  }

  get commandSet(): number {
    return this.#regs.CC.CSS;
  }

  get adminOnly(): boolean {
    return this.commandSet === CSS.ADMIN_ONLY;
  }

  get messages(): boolean {
    return this.msix?.enabled ?? false;
  }

  now(): number {
    return this.clock.now();
  }

  await(request: Request, result: IoResult, finish: (request: Request, error: number) => number): number {
    return this.engine.await(request, result, finish);
  }

  send(request: Request, offset: number, length: number): number {
    const { transfer } = request;
    const status = transfer.map(request.command, length, this.pageSize);
    if (status !== STATUS.SUCCESS) return status;
    return transfer.put(new Uint8Array(this.data.buffer), offset, length) ? status : STATUS.DATA_TRANSFER_ERROR;
  }

  receive(request: Request, length: number): number {
    const { transfer } = request;
    const status = transfer.map(request.command, length, this.pageSize);
    if (status !== STATUS.SUCCESS) return status;
    return transfer.take(new Uint8Array(this.data.buffer), 0, length) ? status : STATUS.DATA_TRANSFER_ERROR;
  }

  // Namespaces

  namespace(nsid: number): Namespace | undefined {
    return this.#namespaces.get(nsid);
  }

  namespaces(): Iterable<Namespace> {
    return this.#namespaces;
  }

  attachNamespace(namespace: Namespace): void {
    this.#namespaces.attach(namespace);
  }

  detachNamespace(nsid: number): void {
    this.#namespaces.detach(nsid);
  }

  namespaceChanged(nsid: number): void {
    if (!logNamespaceChange(this, nsid)) return;
    if ((this.features.asyncEvents & NOTIFY_NAMESPACE) === 0) return;
    this.events.post(EVENT.NOTICE, EVENT.NAMESPACE_CHANGED, LOG.CHANGED_NAMESPACES);
  }

  /** Its number in the subsystem (section 7.10); 0 where it is alone. */
  get controllerId(): number {
    return this.#id;
  }

  /** Only warnings that were not there before are reported. */
  #warn(value: number): void {
    const { SPARE, TEMPERATURE, RELIABILITY, READ_ONLY, VOLATILE, PMR } = WARNING;
    const known = [SPARE, TEMPERATURE, RELIABILITY, READ_ONLY, VOLATILE, ...(this.#pmr === undefined ? [] : [PMR])];
    const unknown = known.reduce((left, bit) => left & ~bit, value);
    if (unknown !== 0) {
      const text = unknown.toString(16);
      throw new SouthbridgeError('ERR_PROPERTY_VALUE', `unsupported smart critical warning bits: 0x${text}`);
    }
    const before = this.features.smartWarning;
    this.features.smartWarning = value;
    for (const bit of known) if ((value & ~before & bit) !== 0) smartEvent(this, bit);
  }

  // Controller configuration (section 3.1.5)

  #configured(previous: number): void {
    const { CC, CSTS } = this.#regs;
    const shutDownBefore = (previous & 0xc000) !== 0;
    const enabledBefore = (previous & 1) !== 0;
    if (CC.SHN !== 0 && !shutDownBefore) {
      for (const { backend } of this.#namespaces) void backend.flush();
      CSTS.SHST = SHUTDOWN_COMPLETE;
    } else if (CC.SHN === 0 && shutDownBefore) {
      CSTS.SHST = 0;
    }
    if (this.engine.stopping) return;
    if (CC.EN && !enabledBefore) this.#enable();
    else if (!CC.EN && enabledBefore) this.#disable();
  }

  #enable(): void {
    const { CC, CSTS, AQA, ASQ, ACQ } = this.#regs;
    CSTS.value = 0;
    const mask = BigInt(PAGE << CC.MPS) - 1n;
    const fits =
      CC.MPS <= MPSMAX &&
      (CC.CSS === CSS.NVM || CC.CSS === CSS.ALL || CC.CSS === CSS.ADMIN_ONLY) &&
      CC.IOSQES === SQES &&
      CC.IOCQES === CQES &&
      AQA.ASQS !== 0 &&
      AQA.ACQS !== 0 &&
      ((ASQ.value | ACQ.value) & mask) === 0n;
    if (!fits) {
      this.log.guestError('the controller cannot be enabled as it is configured');
      CSTS.CFS = true;
      return;
    }
    this.engine.createCompletionQueue(0, Number(ACQ.value), AQA.ACQS + 1, 0, true);
    const completions = this.engine.completionQueues[0];
    if (completions !== undefined) this.engine.createSubmissionQueue(0, Number(ASQ.value), AQA.ASQS + 1, completions);
    this.features.timestamp = 0;
    this.features.timestampSetNs = this.clock.now();
    CSTS.RDY = true;
  }

  /** The controller is ready until the disk has none of its commands any more (section 7.3). */
  #disable(): void {
    this.events.reset();
    this.engine.stop();
  }

  stopped(): void {
    const { CC, CSTS, INTMS } = this.#regs;
    const again = CC.EN;
    INTMS.value = 0;
    CSTS.value = 0;
    this.features.queuesCreated = false;
    this.#updateInterrupt();
    if (again) this.#enable();
    else CC.value = 0;
  }

  failed(): void {
    this.#regs.CSTS.value = 0;
    this.#regs.CSTS.CFS = true;
  }

  execute(request: Request): number {
    return request.queue.id === 0 ? executeAdmin(this, request) : this.#io.execute(request);
  }

  // Doorbells (sections 3.1.24 and 3.1.25)

  #doorbell(offset: number, value: number): void {
    if (offset % 4 !== 0) return;
    const id = Math.floor(offset / DOORBELLS_SIZE);
    const { engine } = this;
    let known: boolean;
    let valid = false;
    if (offset % DOORBELLS_SIZE === 0) {
      const queue = engine.submissionQueues[id];
      known = queue !== undefined;
      if (queue !== undefined) valid = engine.submitted(queue, value);
    } else {
      const queue = engine.completionQueues[id];
      known = queue !== undefined;
      if (queue !== undefined) valid = engine.taken(queue, value);
    }
    if (valid) return;
    this.log.guestError(`doorbell ${offset} is written ${value}, which is no place in a queue`);
    const information = known ? EVENT.INVALID_DOORBELL_VALUE : EVENT.INVALID_DOORBELL;
    if (this.events.awaited) this.events.post(EVENT.ERROR, information, LOG.ERROR);
  }

  // Interrupts (section 7.5)

  posted(queue: CompletionQueue): void {
    if (!queue.interrupts) return;
    if (this.messages) this.notify(queue.vector);
    else this.#updateInterrupt();
  }

  emptied(): void {
    if (!this.messages) this.#updateInterrupt();
  }

  #updateInterrupt(): void {
    let pending = 0;
    if (!this.messages) {
      for (const queue of this.engine.completionQueues) {
        if (queue?.interrupts && !queue.empty) pending |= 1 << (queue.vector & 31);
      }
    }
    this.irq.set((pending & ~this.#regs.INTMS.value) !== 0);
  }

  // Reset and state

  protected override resetHold(): void {
    this.engine.clear();
    this.events.reset();
    this.#updateMemory();
  }

  override save(): SavedRecord {
    this.engine.save(this.#saved);
    return super.save();
  }

  protected override restored(): void {
    const { subsystem } = this;
    if (subsystem !== undefined) this.#namespaces.restored(nsid => subsystem.namespace(nsid));
    this.engine.restore(this.#saved);
    this.events.forgetRequests();
    this.#updateMemory();
  }
}

export const nvme = deviceType({
  type: 'nvme',
  summary: 'Non-Volatile Memory Express',
  category: 'storage',
  properties: nvmeProperties,
  pci: {
    vendor: 0x1b36,
    device: 0x0010,
    revision: 2,
    class: 0x01_0802,
    pin: 'A',
    express: 'endpoint',
    expressCapability: { version: 2, offset: EXPRESS_AT, after: 'msi' },
    powerManagement: POWER_AT,
  },
  create: Nvme,
});
