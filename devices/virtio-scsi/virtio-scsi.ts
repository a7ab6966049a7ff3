import { settleTransfers } from '../../core/block/host-transfer.ts';
import type { DeviceContext } from '../../core/device/device-type.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { ScsiBus, type ScsiHostAdapter } from '../../core/scsi/scsi-bus.ts';
import type { ScsiDevice } from '../../core/scsi/scsi-device.ts';
import type { ScsiRequest, ScsiTask } from '../../core/scsi/scsi-request.ts';
import { SENSE, type Sense } from '../../core/scsi/sense.ts';
import { asRecord, field, loadValues, type SavedValue, saveValues } from '../../core/state/fields.ts';
import type { VirtqueueElement } from '../../core/virtio/element.ts';
import { bit, QUEUE_SIZE_MAX, QUEUES_MAX, STATUS, VIRTIO_F, VIRTIO_ID } from '../../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../../core/virtio/virtio-device.ts';
import { virtioPciTypes } from '../../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';
import { VirtioScsiCommand } from './command.ts';
import {
  AN,
  addressAt,
  CDB_SIZE_LIMIT,
  COMMAND,
  CONFIG,
  CONTROL,
  DEFAULT_CDB_SIZE,
  DEFAULT_SENSE_SIZE,
  EVENT,
  EVENT_TYPE,
  F,
  FIXED_QUEUES,
  MAX_LUN,
  MAX_TARGET,
  putAddress,
  RESET_REASON,
  RESPONSE,
  RESULT,
  SENSE_SIZE_LIMIT,
  TMF,
} from './layout.ts';
import { manageTasks } from './task-management.ts';

const AUTO = 0xffff_ffff;
/** Segments of a request where the queue's size does not say. */
const SEG_MAX_FIXED = 128;

const properties = {
  ...virtioProperties,
  num_queues: prop.u32({ default: AUTO }),
  virtqueue_size: prop.u32({ default: 256 }),
  seg_max_adjust: prop.bool({ default: true }),
  max_sectors: prop.u32({ default: 0xffff }),
  cmd_per_lun: prop.u32({ default: 128 }),
  hotplug: prop.bit({ default: true }),
  param_change: prop.bit({ default: true }),
  iothread: prop.string({ typeName: 'link<iothread>' }),
} as const;

const taskFields = { queue: field.u16(), key: field.u16(), moved: field.number() } as const;

/** SCSI host device (virtio 1.2, section 5.6). */
export class VirtioScsi extends VirtioDevice<typeof properties> implements ScsiHostAdapter {
  readonly maxChannel = 0;
  readonly maxTarget = MAX_TARGET;
  readonly maxLun = MAX_LUN;
  readonly taggedQueuing = true;
  readonly scsiBus: ScsiBus;
  readonly #saved = this.state(
    1,
    { senseSize: field.u32(DEFAULT_SENSE_SIZE), cdbSize: field.u32(DEFAULT_CDB_SIZE), eventsMissed: field.bool() },
    { onReset: 'keep' },
  );
  readonly #header = new Uint8Array(COMMAND.CDB + CDB_SIZE_LIMIT);
  readonly #headerView = new DataView(this.#header.buffer);
  readonly #reply = new Uint8Array(EVENT.BYTES);
  readonly #replyView = new DataView(this.#reply.buffer);
  /** Commands that the devices have. */
  readonly #commands = new Set<VirtioScsiCommand>();
  #events: Virtqueue | undefined;
  /** Grows with each reset: what a task management function has still to answer then is not for the driver any more. */
  #epoch = 0;
  /** The queue whose requests are being taken: the driver is told of those that end meanwhile all at once. */
  #serving: Virtqueue | undefined;
  #completed = false;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    // Devices are where users put them: beside the function, not inside of it.
    const place = context.bus.owner ?? this;
    this.scsiBus = this.addBus(new ScsiBus(this, place));
  }

  protected override realize(): void {
    const { num_queues: given, virtqueue_size: size } = this.props;
    const queues = given === AUTO ? 1 : given;
    const refuse = (message: string): never => {
      throw new SouthbridgeError('ERR_PROPERTY_VALUE', message);
    };
    if (queues === 0 || queues > QUEUES_MAX - FIXED_QUEUES) {
      const limit = QUEUES_MAX - FIXED_QUEUES;
      refuse(`Invalid number of queues (= ${queues}), must be a positive integer less than ${limit}.`);
    }
    if (size <= 2) refuse(`invalid virtqueue_size property (= ${size}), must be > 2`);
    if (size > QUEUE_SIZE_MAX) refuse(`invalid virtqueue_size property (= ${size}), must be at most ${QUEUE_SIZE_MAX}`);
    this.begin({ id: VIRTIO_ID.SCSI, configSize: CONFIG.BYTES });
    this.addQueue(size, queue => this.#control(queue));
    this.#events = this.addQueue(size, () => this.#eventBuffers());
    for (let index = 0; index < queues; index++) this.addQueue(size, queue => this.#serve(queue));
  }

  // Features and configuration

  protected override offeredFeatures(common: bigint): bigint {
    const { hotplug, param_change: change } = this.props;
    return common | (hotplug ? bit(F.HOTPLUG) : 0n) | (change ? bit(F.CHANGE) : 0n);
  }

  protected override readConfig(config: DataView): void {
    const { props } = this;
    config.setUint32(CONFIG.NUM_QUEUES, this.queues.length - FIXED_QUEUES, true);
    config.setUint32(CONFIG.SEG_MAX, (props.seg_max_adjust ? props.virtqueue_size : SEG_MAX_FIXED) - 2, true);
    config.setUint32(CONFIG.MAX_SECTORS, props.max_sectors, true);
    config.setUint32(CONFIG.CMD_PER_LUN, props.cmd_per_lun, true);
    config.setUint32(CONFIG.EVENT_INFO_SIZE, EVENT.BYTES, true);
    config.setUint32(CONFIG.SENSE_SIZE, this.#saved.senseSize, true);
    config.setUint32(CONFIG.CDB_SIZE, this.#saved.cdbSize, true);
    config.setUint16(CONFIG.MAX_CHANNEL, this.maxChannel, true);
    config.setUint16(CONFIG.MAX_TARGET, this.maxTarget, true);
    config.setUint32(CONFIG.MAX_LUN, this.maxLun, true);
  }

  protected override configWritten(config: DataView): void {
    const senseSize = config.getUint32(CONFIG.SENSE_SIZE, true);
    const cdbSize = config.getUint32(CONFIG.CDB_SIZE, true);
    if (senseSize >= SENSE_SIZE_LIMIT || cdbSize >= CDB_SIZE_LIMIT) {
      this.broken('bad data written to virtio-scsi configuration space');
      return;
    }
    this.#saved.senseSize = senseSize;
    this.#saved.cdbSize = cdbSize;
  }

  protected override virtioReset(): void {
    this.#abandonAll();
    for (const phase of ['enter', 'hold', 'exit'] as const) this.scsiBus.resetPhase(phase);
    this.#saved.senseSize = DEFAULT_SENSE_SIZE;
    this.#saved.cdbSize = DEFAULT_CDB_SIZE;
    this.#saved.eventsMissed = false;
  }

  /** Nobody waits for what is under way any more. */
  #abandonAll(): void {
    this.#epoch++;
    for (const command of this.#commands) command.abandon();
    if (this.#commands.size > 0) settleTransfers();
    this.#commands.clear();
  }

  protected override queueReset(queue: Virtqueue): void {
    for (const unit of this.scsiBus.units()) {
      for (const request of [...unit.requests]) {
        const { task } = request;
        if (!(task instanceof VirtioScsiCommand) || task.queue !== queue) continue;
        task.abandon();
        request.cancel();
      }
    }
    settleTransfers();
  }

  // Requests (section 5.6.6.1)

  #serve(queue: Virtqueue): void {
    if (this.#serving !== undefined) return;
    this.#serving = queue;
    this.#completed = false;
    do {
      queue.setNotification(false);
      for (let element = queue.pop(); element !== undefined; element = queue.pop()) this.#begin(queue, element);
      queue.setNotification(true);
    } while (!queue.empty);
    this.#serving = undefined;
    if (this.#completed) queue.notify();
  }

  /** The driver's buffer as a command; undefined, and said, where it is too short. */
  #command(queue: Virtqueue, element: VirtqueueElement): VirtioScsiCommand | undefined {
    const command = COMMAND.CDB + this.#saved.cdbSize;
    const result = RESULT.BYTES + this.#saved.senseSize;
    if (element.read(this.#header, 0, command) < command || element.in.length < result) {
      this.#refuse(queue, element);
      return undefined;
    }
    const view = this.#headerView;
    const sizes = { command, result, anyLayout: this.accepted(VIRTIO_F.ANY_LAYOUT) };
    const tag = { low: view.getUint32(COMMAND.TAG, true), high: view.getUint32(COMMAND.TAG + 4, true) };
    return new VirtioScsiCommand(this, queue, element, sizes, tag);
  }

  #refuse(queue: Virtqueue, element: VirtqueueElement): void {
    this.broken('wrong size for virtio-scsi headers');
    queue.detach(element);
  }

  #begin(queue: Virtqueue, element: VirtqueueElement): void {
    const command = this.#command(queue, element);
    if (command === undefined) return;
    if (command.both) {
      command.respond(RESPONSE.FAILURE);
      return;
    }
    const address = addressAt(this.#headerView, COMMAND.LUN);
    const device = address === undefined ? undefined : this.scsiBus.find(0, address.target, address.lun);
    if (address === undefined || device === undefined) {
      command.respond(RESPONSE.BAD_TARGET);
      return;
    }
    const cdb = this.#header.subarray(COMMAND.CDB);
    const request = device.request(command, command.tagLow, address.lun, cdb, this.#saved.cdbSize);
    if (!command.fits(request)) {
      command.respond(RESPONSE.OVERRUN);
      return;
    }
    this.#commands.add(command);
    if (request.enqueue() !== 0) request.continue();
  }

  /** The driver gets a buffer back. */
  finished(command: VirtioScsiCommand, written: number): void {
    const { queue, element } = command;
    this.#commands.delete(command);
    queue.push(element, written);
    if (queue === this.#serving) this.#completed = true;
    else queue.notify();
  }

  forget(command: VirtioScsiCommand): void {
    this.#commands.delete(command);
  }

  override restore(saved: SavedValue): void {
    this.#abandonAll();
    super.restore(saved);
  }

  saveTask(request: ScsiRequest): SavedValue {
    const { task } = request;
    if (!(task instanceof VirtioScsiCommand)) return null;
    const { queue, element, moved } = task;
    return saveValues(taskFields, { queue: queue.index, key: queue.keyOf(element), moved });
  }

  loadTask(saved: SavedValue): ScsiTask | undefined {
    const { queue: index, key, moved } = loadValues(taskFields, asRecord(saved, this.path), this.path);
    const queue = index >= FIXED_QUEUES ? this.queues[index] : undefined;
    const element = queue?.retake(key);
    if (queue === undefined || element === undefined) return undefined;
    const command = this.#command(queue, element);
    if (command === undefined) return undefined;
    command.moved = moved;
    this.#commands.add(command);
    return command;
  }

  // Control (section 5.6.6.2)

  #control(queue: Virtqueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) this.#manage(queue, element);
  }

  #manage(queue: Virtqueue, element: VirtqueueElement): void {
    const given = element.read(this.#header, 0, TMF.BYTES);
    const type = given < 4 ? -1 : this.#headerView.getUint32(0, true);
    const [needed, answer] =
      type === CONTROL.TMF
        ? [TMF.BYTES, TMF.RESULT_BYTES]
        : type === CONTROL.AN_QUERY || type === CONTROL.AN_SUBSCRIBE
          ? [AN.BYTES, AN.RESULT_BYTES]
          : [4, 0];
    if (given < needed || element.in.length < answer) {
      this.#refuse(queue, element);
      return;
    }
    this.#reply.fill(0);
    if (type !== CONTROL.TMF) {
      // No device has events to subscribe to, and a type that is not known gets an empty answer.
      this.#answer(queue, element, answer);
      return;
    }
    const epoch = this.#epoch;
    manageTasks(this.scsiBus, this.#headerView, response => {
      if (epoch !== this.#epoch) return;
      this.#reply[0] = response;
      this.#answer(queue, element, answer);
    });
  }

  #answer(queue: Virtqueue, element: VirtqueueElement, length: number): void {
    element.in.scatter(0, this.#reply, 0, length);
    queue.push(element, length);
    queue.notify();
  }

  // Events (section 5.6.6.3)

  /** The driver has room for events again. */
  #eventBuffers(): void {
    if (this.#saved.eventsMissed) this.#report(EVENT_TYPE.NO_EVENT, undefined, 0);
  }

  #report(event: number, device: ScsiDevice | undefined, reason: number): void {
    const queue = this.#events;
    if (queue === undefined || (this.status & STATUS.DRIVER_OK) === 0) return;
    const element = queue.pop();
    if (element === undefined) {
      this.#saved.eventsMissed = true;
      return;
    }
    if (element.in.length < EVENT.BYTES) {
      this.#refuse(queue, element);
      return;
    }
    this.#reply.fill(0);
    const missed = this.#saved.eventsMissed ? EVENT_TYPE.EVENTS_MISSED : 0;
    this.#saved.eventsMissed = false;
    this.#replyView.setUint32(EVENT.EVENT, (event | missed) >>> 0, true);
    this.#replyView.setUint32(EVENT.REASON, reason, true);
    if (device !== undefined) putAddress(this.#reply, EVENT.LUN, device);
    this.#answer(queue, element, EVENT.BYTES);
  }

  changed(device: ScsiDevice, { asc, ascq }: Sense): void {
    if (this.accepted(F.CHANGE) && device.kind !== 'cd') {
      this.#report(EVENT_TYPE.PARAM_CHANGE, device, asc | (ascq << 8));
    }
  }

  plugged(device: ScsiDevice): void {
    this.#unitsChanged(device, RESET_REASON.RESCAN);
  }

  unplugging(device: ScsiDevice): void {
    this.#unitsChanged(device, RESET_REASON.REMOVED);
  }

  #unitsChanged(device: ScsiDevice, reason: number): void {
    if (!this.accepted(F.HOTPLUG)) return;
    this.#report(EVENT_TYPE.TRANSPORT_RESET, device, reason);
    this.scsiBus.setAttention(SENSE.REPORTED_LUNS_CHANGED);
  }
}

export const virtioScsiDevice = deviceType({
  type: 'virtio-scsi-device',
  summary: 'SCSI host adapter (virtio)',
  bus: 'virtio-bus',
  category: 'storage',
  parents: ['virtio-scsi-common', 'virtio-device', 'device'],
  properties,
  create: VirtioScsi,
});

export const [virtioScsiPci, virtioScsiPciTransitional, virtioScsiPciNonTransitional] = virtioPciTypes({
  name: 'virtio-scsi',
  summary: 'SCSI host adapter (virtio, PCI)',
  category: 'storage',
  backend: virtioScsiDevice,
  virtioId: VIRTIO_ID.SCSI,
  legacyId: 0x1004,
  class: 0x01_0000,
  queues: { property: 'num_queues', auto: AUTO, fixed: FIXED_QUEUES },
  vectors: props => Number(props['num_queues']) + FIXED_QUEUES + 1,
});
