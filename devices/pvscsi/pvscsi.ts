import { settleTransfers } from '../../core/block/host-transfer.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { CFG } from '../../core/pci/config-space.ts';
import type { MsiDeclaration } from '../../core/pci/identity.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { STATUS } from '../../core/scsi/command.ts';
import { ScsiBus, type ScsiHostAdapter } from '../../core/scsi/scsi-bus.ts';
import type { ScsiDevice } from '../../core/scsi/scsi-device.ts';
import type { ScsiRequest, ScsiTask } from '../../core/scsi/scsi-request.ts';
import { asRecord, field, loadValues, type SavedValue, saveValues } from '../../core/state/fields.ts';
import {
  ABORT,
  COMMAND,
  COMMAND_STATUS,
  COMMAND_WORDS,
  DATA_WORDS,
  HOST_STATUS,
  MESSAGE_TYPE,
  pvscsiRegisters,
  REQUEST,
  RESET_DEVICE,
  SPACE_SIZE,
  TARGET_MAX,
} from './registers.ts';
import { Rings, ringsFields } from './rings.ts';
import { descriptorIn, PvscsiTask, type TaskOwner, taskFields } from './task.ts';

const VENDOR_VMWARE = 0x15ad;
const DEVICE_ID = 0x07c0;
const REVISION = 2;
/** What it was before QEMU 2.6: revision 0 of nobody's, with its messages elsewhere. */
const OLD = { subsystem: 0x1000, msi: 0x50 } as const;
const MSI_AT = 0x7c;
const EXPRESS_AT = 0x40;
const LATENCY = 0xff;

const properties = {
  use_msg: prop.u8({ default: 1 }),
  'x-old-pci-configuration': prop.bit({ default: false }),
  'x-disable-pcie': prop.bit({ default: false }),
} as const;

const commandFields = {
  command: field.u8(),
  words: field.u16(),
  data: field.words(DATA_WORDS),
} as const;

/** VMware's paravirtual SCSI adapter. */
export class Pvscsi extends PciDevice<typeof properties> implements ScsiHostAdapter, TaskOwner {
  readonly maxChannel = 0;
  readonly maxTarget = TARGET_MAX;
  readonly maxLun = 0;
  readonly taggedQueuing = true;
  readonly scsiBus: ScsiBus;
  readonly #regs = this.bind(pvscsiRegisters, {
    COMMAND: { wrote: command => this.#command(command) },
    COMMAND_DATA: { wrote: word => this.#commandData(word) },
    INTR_STATUS: { wrote: () => this.#updateInterrupt() },
    INTR_MASK: { wrote: () => this.#updateInterrupt() },
    KICK_NON_RW_IO: { wrote: () => this.#takeRequests() },
    KICK_RW_IO: { wrote: () => this.#takeRequests() },
  });
  readonly #s = this.state(1, commandFields, { name: 'command' });
  readonly #rings = new Rings(this.dma, this.state(1, ringsFields, { name: 'rings' }));
  readonly #tasks = new Set<PvscsiTask>();
  cancelStatus: number = HOST_STATUS.ABORT_QUEUE;
  /** Requests end that the driver is to hear of all at once. */
  #gathering = false;
  #completed = false;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    this.scsiBus = this.addBus(new ScsiBus(this));
  }

  protected override realize(): void {
    const { config, props } = this;
    if (props['x-old-pci-configuration']) {
      config.set16(CFG.SUBSYSTEM_VENDOR_ID, 0);
      config.set16(CFG.SUBSYSTEM_ID, OLD.subsystem);
      config.set8(CFG.REVISION_ID, 0);
    }
    config.set8(CFG.LATENCY_TIMER, LATENCY);
    if (!props['x-disable-pcie']) this.addExpress();
  }

  protected override get msiDeclaration(): MsiDeclaration {
    return { vectors: 1, offset: this.props['x-old-pci-configuration'] ? OLD.msi : MSI_AT };
  }

  // Interrupts

  /** Each time that there is a cause is a message of its own; the pin is a level. */
  #updateInterrupt(): void {
    const raised = (this.#regs.INTR_STATUS.value & this.#regs.INTR_MASK.value) !== 0;
    this.irq.set(raised && !this.messageSignalled);
    if (raised && this.messageSignalled) this.notify(0);
  }

  // Commands

  #command(command: number): void {
    const s = this.#s;
    s.words = 0;
    s.command = command < COMMAND_WORDS.length ? command : COMMAND.NONE;
    // Drivers ask so whether there are messages, before they give any data (SETUP_MSG_RING's description).
    if (command === COMMAND.SETUP_MSG_RING && this.props.use_msg === 0) s.command = COMMAND.NONE;
    this.#regs.COMMAND_STATUS.value = COMMAND_STATUS.NOT_ENOUGH_DATA;
    this.#executeIfWhole();
  }

  #commandData(word: number): void {
    const s = this.#s;
    s.data[s.words] = word;
    s.words++;
    this.#executeIfWhole();
  }

  #executeIfWhole(): void {
    const s = this.#s;
    if (s.words < (COMMAND_WORDS[s.command] ?? 0)) return;
    this.#regs.COMMAND_STATUS.value = this.#execute(s.command);
    s.command = COMMAND.NONE;
    s.words = 0;
  }

  #execute(command: number): number {
    const { data } = this.#s;
    const result = (done: boolean): number => (done ? COMMAND_STATUS.SUCCEEDED : COMMAND_STATUS.FAILED);
    switch (command) {
      case COMMAND.ADAPTER_RESET:
        this.#resetAdapter();
        return COMMAND_STATUS.SUCCEEDED;
      case COMMAND.SETUP_RINGS:
        return result(this.#rings.setup(data));
      case COMMAND.RESET_BUS:
        this.#resetUnits();
        return COMMAND_STATUS.SUCCEEDED;
      case COMMAND.RESET_DEVICE:
        return result(this.#resetDevice(data));
      case COMMAND.ABORT_CMD:
        this.#abort(data[ABORT.CONTEXT] ?? 0, data[ABORT.CONTEXT + 1] ?? 0);
        return COMMAND_STATUS.SUCCEEDED;
      case COMMAND.SETUP_MSG_RING:
        return this.#rings.setupMessages(data) ? (COMMAND_WORDS[command] ?? 0) : COMMAND_STATUS.FAILED;
      default:
        // CONFIG, ISSUE_SCSI and DEVICE_UNPLUG are names without a description.
        this.log.unimplemented(`command ${command}`);
        return COMMAND_STATUS.FAILED;
    }
  }

  // Requests

  #takeRequests(): void {
    const rings = this.#rings;
    if (!rings.valid) return;
    this.#gathering = true;
    for (let left = rings.waiting; left > 0; left--) {
      rings.take();
      this.#begin(rings.request);
    }
    rings.taken();
    this.#tellCompletions();
  }

  #begin(request: DataView): void {
    const task = new PvscsiTask(this, descriptorIn(request));
    this.#tasks.add(task);
    const lun = lunAt(request, REQUEST.LUN);
    const target = request.getUint8(REQUEST.TARGET);
    const device = lun < 0 ? undefined : this.scsiBus.find(request.getUint8(REQUEST.BUS), target, lun);
    if (device === undefined) {
      this.finish(task, HOST_STATUS.SELECTION_TIMEOUT, STATUS.GOOD, 0);
      return;
    }
    const available = Math.min(REQUEST.CDB_MAX, request.getUint8(REQUEST.CDB_LENGTH));
    const command = device.request(task, task.descriptor.contextLow, lun, this.#rings.cdb, available);
    if (task.contradicts(command)) this.finish(task, HOST_STATUS.BAD_MESSAGE, STATUS.GOOD, 0);
    else task.start(command);
  }

  finish(task: PvscsiTask, hostStatus: number, scsiStatus: number, senseLength: number): void {
    // A reset may have come in between.
    if (!this.#tasks.delete(task) || !this.#rings.valid) return;
    this.#rings.complete(task, hostStatus, scsiStatus, senseLength);
    this.#completed = true;
    if (!this.#gathering) this.#tellCompletions();
  }

  #tellCompletions(): void {
    this.#gathering = false;
    if (!this.#completed) return;
    this.#completed = false;
    this.#rings.completed();
    this.#regs.INTR_STATUS.CMPL_0 = true;
    this.#updateInterrupt();
  }

  // Aborts and resets

  #abort(contextLow: number, contextHigh: number): void {
    for (const task of this.#tasks) {
      const { descriptor } = task;
      if (descriptor.contextLow !== contextLow || descriptor.contextHigh !== contextHigh) continue;
      task.request?.cancel();
      return;
    }
  }

  /** Resets one device, or all; drivers take it that nothing goes on there any more. */
  #resetUnits(only?: ScsiDevice): void {
    this.cancelStatus = HOST_STATUS.BUS_RESET;
    this.#gathering = true;
    for (const phase of ['enter', 'hold', 'exit'] as const) (only ?? this.scsiBus).resetPhase(phase);
    if (this.#tasks.size > 0) settleTransfers();
    for (const task of this.#tasks) {
      if (only === undefined || task.request?.device === only) task.cancelled();
    }
    this.#tellCompletions();
    this.cancelStatus = HOST_STATUS.ABORT_QUEUE;
  }

  #resetDevice(data: Uint32Array): boolean {
    const lun = lunAt(new DataView(data.buffer, data.byteOffset), 4 * RESET_DEVICE.LUN);
    const device = lun < 0 ? undefined : this.scsiBus.find(0, data[RESET_DEVICE.TARGET] ?? 0, lun);
    if (device === undefined) return false;
    this.#resetUnits(device);
    return true;
  }

  #resetAdapter(): void {
    this.#resetUnits();
    this.#rings.reset();
    this.#regs.INTR_STATUS.value = 0;
    this.irq.lower();
  }

  protected override resetHold(): void {
    super.resetHold();
    this.#tasks.clear();
  }

  // Messages

  plugged(device: ScsiDevice): void {
    this.#send(MESSAGE_TYPE.DEVICE_ADDED, device);
  }

  unplugging(device: ScsiDevice): void {
    this.#send(MESSAGE_TYPE.DEVICE_REMOVED, device);
  }

  #send(type: number, { target, lun }: ScsiDevice): void {
    if (!this.#rings.send(type, target, lun)) return;
    this.#regs.INTR_STATUS.MSG_0 = true;
    this.#updateInterrupt();
  }

  // State

  saveTask({ task }: ScsiRequest): SavedValue {
    if (!(task instanceof PvscsiTask)) return null;
    return saveValues(taskFields, { descriptor: task.descriptor, moved: task.moved });
  }

  loadTask(saved: SavedValue, request: ScsiRequest): ScsiTask {
    const { descriptor, moved } = loadValues(taskFields, asRecord(saved, this.path), this.path);
    const task = new PvscsiTask(this, descriptor, moved);
    task.resume(request);
    this.#tasks.add(task);
    return task;
  }

  override restore(saved: SavedValue): void {
    this.#tasks.clear();
    super.restore(saved);
  }
}

/** A logical unit's number; -1 where it is none of the first level. */
function lunAt(view: DataView, at: number): number {
  const high = view.getUint8(at) | view.getUint16(at + 2) | view.getUint32(at + 4);
  return high === 0 ? view.getUint8(at + 1) : -1;
}

export const pvscsi = deviceType({
  type: 'pvscsi',
  summary: 'VMware paravirtual SCSI adapter',
  category: 'storage',
  properties,
  pci: {
    vendor: VENDOR_VMWARE,
    device: DEVICE_ID,
    revision: REVISION,
    class: 0x01_0000,
    subsystemVendor: VENDOR_VMWARE,
    subsystem: DEVICE_ID,
    pin: 'A',
    express: 'endpoint',
    expressCapability: { version: 2, offset: EXPRESS_AT, after: 'device' },
  },
  bars: { 0: { size: SPACE_SIZE, map: pvscsiRegisters } },
  create: Pvscsi,
});
