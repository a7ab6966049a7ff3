import { Bus, countedBusName } from '../device/bus.ts';
import type { Device } from '../device/device.ts';
import type { DeviceInput, DeviceType } from '../device/device-type.ts';
import { SouthbridgeError } from '../errors.ts';
import type { SavedValue } from '../state/fields.ts';
import { ScsiDevice } from './scsi-device.ts';
import type { ScsiRequest, ScsiTask } from './scsi-request.ts';
import { attentionPrecedence, SENSE, SENSE_KEY, type Sense } from './sense.ts';

/** What a host adapter says of itself, and what it does with the devices behind it. */
export interface ScsiHostAdapter {
  /** The highest numbers that it can address. */
  readonly maxChannel: number;
  readonly maxTarget: number;
  readonly maxLun: number;
  /** Devices may have several commands at once (tagged queuing). */
  readonly taggedQueuing: boolean;
  /** Something about a device has changed that its driver wants to know: its capacity. */
  changed?(device: ScsiDevice, sense: Sense): void;
  /** A device has come while the machine runs. */
  plugged?(device: ScsiDevice): void;
  /** A device is about to go while the machine runs. */
  unplugging?(device: ScsiDevice): void;
  /** What the adapter knows of a command that is under way. */
  saveTask(request: ScsiRequest): SavedValue;
  /** Takes such a command on again; undefined where it is not there any more. The device has its state back then. */
  loadTask(saved: SavedValue, request: ScsiRequest): ScsiTask | undefined;
}

/** A SCSI domain: an initiator, and the logical units that it can address (SAM-4, section 4). */
export class ScsiBus extends Bus {
  readonly adapter: ScsiHostAdapter;
  /** A unit attention of every device at once. */
  attention: Sense = SENSE.NONE;

  /** @param place the device that users see it behind, whose id names it */
  constructor(adapter: Device & ScsiHostAdapter, place: Device = adapter) {
    const { id, bus } = place;
    const name = id === undefined ? countedBusName('SCSI', bus) : `${id}.0`;
    super('SCSI', name, { services: bus.services, home: bus.home, owner: adapter });
    this.adapter = adapter;
  }

  /** The logical units, the one that was plugged in last first: the order in which they are reported. */
  *units(): Generator<ScsiDevice> {
    for (let index = this.devices.length - 1; index >= 0; index--) {
      const device = this.devices[index];
      if (device instanceof ScsiDevice) yield device;
    }
  }

  /** The logical unit at the address; where there is none, another one of the target, which answers for it. */
  find(channel: number, target: number, lun: number): ScsiDevice | undefined {
    let other: ScsiDevice | undefined;
    for (const unit of this.units()) {
      if (unit.channel !== channel || unit.target !== target || !unit.realized) continue;
      if (unit.lun === lun) return unit;
      other ??= unit;
    }
    return other;
  }

  /** Makes the logical unit that comes with its adapter, at QEMU's place for it in the object tree: below the bus. */
  plugOwn<S extends DeviceType>(type: S, unit: number, props: DeviceInput<S>): void {
    const device = type.make(this, this.services, undefined, { ...this.services.globals?.(type), ...props });
    this.addChild(`legacy[${unit}]`, device);
    this.insert(device);
  }

  setAttention(sense: Sense): void {
    if (sense.key !== SENSE_KEY.UNIT_ATTENTION) return;
    if (attentionPrecedence(sense) < attentionPrecedence(this.attention)) this.attention = sense;
  }

  override insert(device: Device, byUser = false): void {
    super.insert(device, byUser);
    if (this.hotplugging && device instanceof ScsiDevice) this.adapter.plugged?.(device);
  }

  override unplug(device: Device): void {
    if (this.hotplugging && device instanceof ScsiDevice) this.adapter.unplugging?.(device);
    super.unplug(device);
  }

  /** @throws SouthbridgeError ERR_BUS_ADDRESS, in QEMU's words */
  override addressOf(device: Device): string | undefined {
    return device instanceof ScsiDevice ? `${device.channel}:${device.target}:${device.lun}` : undefined;
  }

  protected override attached(device: Device): void {
    if (!(device instanceof ScsiDevice)) return;
    const { maxChannel, maxTarget, maxLun } = this.adapter;
    const { channel, target, lun } = device.requested;
    if (channel > maxChannel) refuse(`bad scsi channel id: ${channel | 0}`);
    if (target !== undefined && target > maxTarget) refuse(`bad scsi device id: ${target | 0}`);
    if (lun !== undefined && lun > maxLun) refuse(`bad scsi device lun: ${lun | 0}`);
    const taken = (id: number, unit: number): ScsiDevice | undefined => this.#at(channel, id, unit);
    if (target !== undefined && lun !== undefined) {
      const other = taken(target, lun);
      if (other !== undefined) refuse(`lun already used by '${other.id ?? '(null)'}'`);
      device.place(channel, target, lun);
    } else if (target === undefined) {
      const free = firstFree(maxTarget, id => taken(id, lun ?? 0) === undefined);
      if (free === undefined) refuse('no free target');
      device.place(channel, free, lun ?? 0);
    } else {
      const free = firstFree(maxLun, unit => taken(target, unit) === undefined);
      if (free === undefined) refuse('no free lun');
      device.place(channel, target, free);
    }
  }

  #at(channel: number, target: number, lun: number): ScsiDevice | undefined {
    for (const unit of this.units()) {
      if (unit.channel === channel && unit.target === target && unit.lun === lun) return unit;
    }
    return undefined;
  }
}

function firstFree(max: number, free: (number: number) => boolean): number | undefined {
  for (let number = 0; number <= max; number++) if (free(number)) return number;
  return undefined;
}

function refuse(message: string): never {
  throw new SouthbridgeError('ERR_BUS_ADDRESS', message);
}
