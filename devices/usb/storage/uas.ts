import { deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { STATUS } from '../../../core/scsi/command.ts';
import { ScsiBus, type ScsiHostAdapter } from '../../../core/scsi/scsi-bus.ts';
import type { ScsiDevice } from '../../../core/scsi/scsi-device.ts';
import type { ScsiRequest, ScsiTask } from '../../../core/scsi/scsi-request.ts';
import { putSense, SENSE as REASON, SENSE_BYTES, SENSE_KEY, type Sense } from '../../../core/scsi/sense.ts';
import { asRecord, field, loadValues, type SavedValue, saveValues } from '../../../core/state/fields.ts';
import { ATTRIBUTE, ENDPOINT_IN, type SpeedDescription, type UsbDescription } from '../../../core/usb/descriptors.ts';
import { UsbDevice, usbProperties } from '../../../core/usb/device.ts';
import { TRANSFER } from '../../../core/usb/endpoint.ts';
import { PID, type UsbPacket } from '../../../core/usb/packet.ts';
import { endpointOut, REQUEST, STALL } from '../../../core/usb/request.ts';
import {
  CODE,
  COMMAND,
  FUNCTION,
  HEADER,
  IU,
  lunAt,
  MAX_STREAM,
  PIPE,
  RESPONSE,
  SENSE,
  STREAM_EXPONENT,
  TASK,
} from './uas-units.ts';

const MASS_STORAGE = 0x08;
const SCSI_TRANSPARENT = 0x06;
const UAS = 0x62;
const PIPE_USAGE = 0x24;
/** Units that wait for the host to fetch them; at high speed the host may send commands without asking for their ends. */
const MAX_RESULTS = 1024;
const MAX_COMMANDS = 256;
/** OVERLAPPED COMMANDS ATTEMPTED (SPC-3, annex D). */
const OVERLAPPED: Sense = { key: SENSE_KEY.ABORTED_COMMAND, asc: 0x4e, ascq: 0 };

const STRING = { MANUFACTURER: 1, PRODUCT: 2, SERIAL: 3, HIGH: 4, SUPER: 5 } as const;

function at(
  usb: number,
  name: number,
  maxPacketSize0: number,
  maxPacketSize: number,
  streams: number,
): SpeedDescription {
  const endpoint = (pipe: number, direction: number) => ({
    address: pipe | direction,
    type: TRANSFER.BULK,
    maxPacketSize,
    ...(streams > 0 && { maxBurst: 15, streams: pipe === PIPE.COMMAND ? 0 : streams }),
    extra: [4, PIPE_USAGE, pipe, 0],
  });
  return {
    usb,
    maxPacketSize0,
    configurations: [
      {
        value: 1,
        name,
        attributes: ATTRIBUTE.ALWAYS | ATTRIBUTE.SELF_POWERED,
        interfaceCount: 1,
        interfaces: [
          {
            number: 0,
            class: MASS_STORAGE,
            subclass: SCSI_TRANSPARENT,
            protocol: UAS,
            endpoints: [
              endpoint(PIPE.COMMAND, 0),
              endpoint(PIPE.STATUS, ENDPOINT_IN),
              endpoint(PIPE.DATA_IN, ENDPOINT_IN),
              endpoint(PIPE.DATA_OUT, 0),
            ],
          },
        ],
      },
    ],
  };
}

const description: UsbDescription = {
  vendor: 0x46f4,
  product: 0x0003,
  release: 0,
  manufacturerName: STRING.MANUFACTURER,
  productName: STRING.PRODUCT,
  serialNumber: STRING.SERIAL,
  strings: {
    [STRING.MANUFACTURER]: 'QEMU',
    [STRING.PRODUCT]: 'USB Attached SCSI HBA',
    [STRING.SERIAL]: '27842',
    [STRING.HIGH]: 'High speed config (usb 2.0)',
    [STRING.SUPER]: 'Super speed config (usb 3.0)',
  },
  high: at(0x0200, STRING.HIGH, 64, 512, 0),
  super: at(0x0300, STRING.SUPER, 9, 1024, STREAM_EXPONENT),
};

const taskFields = { tag: field.u16(), active: field.bool(), offset: field.u32(), size: field.u32() } as const;

/** A command of the host, until its status is queued. */
class UasCommand {
  readonly tag: number;
  request: ScsiRequest | undefined;
  /** The data packet that waits for it. */
  packet: UsbPacket | undefined;
  /** At high speed: the host has been told that the data pipe is this command's now. */
  active = false;
  ended = false;
  /** The device's piece of data. */
  offset = 0;
  size = 0;

  constructor(tag: number) {
    this.tag = tag;
  }
}

const properties = { ...usbProperties, 'log-scsi-req': prop.u32({ default: 0 }) } as const;

/** A SCSI host adapter on USB: commands, data and status on pipes of their own, with streams at SuperSpeed (UAS). */
class UsbUas extends UsbDevice<typeof properties> implements ScsiHostAdapter {
  readonly productName = 'USB Attached SCSI HBA';
  protected readonly description = description;
  readonly maxChannel = 0;
  readonly maxTarget = 0;
  readonly maxLun = 255;
  readonly taggedQueuing = true;
  readonly #s = this.state(
    1,
    {
      /** Units for the status pipe, and the streams that they are for, 0 at high speed. */
      results: field.list(field.buffer(SENSE.DATA + SENSE_BYTES), MAX_RESULTS),
      streams: field.list(field.u8(), MAX_RESULTS),
    },
    { name: 'uas', onReset: 'keep' },
  );
  /** Status goes after the data packet at hand has been finished. */
  readonly #statusTimer = this.clock.timer('status', () => this.#sendStatus(), { onReset: 'keep' });
  readonly #unit = new Uint8Array(COMMAND.BYTES);
  readonly #words = new DataView(this.#unit.buffer);
  readonly #commands = new Map<number, UasCommand>();
  /** By stream; 0 at high speed. Packets that wait for a status, and for a command. */
  readonly #statusPackets: (UsbPacket | undefined)[] = new Array(MAX_STREAM + 1).fill(undefined);
  readonly #dataPackets: (UsbPacket | undefined)[] = new Array(MAX_STREAM + 1).fill(undefined);
  #dataIn: UasCommand | undefined;
  #dataOut: UasCommand | undefined;
  #scsi: ScsiBus | undefined;

  protected override get firmwareKind(): string {
    return 'storage';
  }

  /** What is plugged in while the guest runs waits for its logical units, until `attached` is set. */
  protected override get attachesItself(): boolean {
    return !this.usbBus.hotplugging;
  }

  protected override get attachedSettable(): boolean {
    return true;
  }

  protected override setUp(): void {
    this.#scsi = this.addBus(new ScsiBus(this));
    this.#scsi.hotplugging = this.usbBus.hotplugging;
  }

  get #streaming(): boolean {
    return this.speed === 'super';
  }

  // Status pipe

  #queue(tag: number, bytes: Uint8Array): void {
    const s = this.#s;
    const stream = this.#streaming ? tag : 0;
    if (s.results.length >= MAX_RESULTS) return;
    s.results.push(bytes);
    s.streams.push(stream);
    if (this.#statusPackets[stream] !== undefined) this.#statusTimer.arm(0);
    else this.wake(this.endpoint(PID.IN, PIPE.STATUS), stream);
  }

  #header(id: number, tag: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    bytes[HEADER.ID] = id;
    bytes[HEADER.TAG] = tag >> 8;
    bytes[HEADER.TAG + 1] = tag;
    return bytes;
  }

  #sense(tag: number, status: number, sense: Sense | undefined): void {
    const bytes = this.#header(IU.SENSE, tag, SENSE.DATA + (sense === undefined ? 0 : SENSE_BYTES));
    bytes[SENSE.STATUS] = status;
    if (sense !== undefined) {
      bytes[SENSE.LENGTH + 1] = SENSE_BYTES;
      putSense(bytes.subarray(SENSE.DATA), SENSE_BYTES, sense);
    }
    this.#queue(tag, bytes);
  }

  #refuse(tag: number, sense: Sense): void {
    this.#sense(tag, STATUS.CHECK_CONDITION, sense);
  }

  #respond(tag: number, code: number): void {
    const bytes = this.#header(IU.RESPONSE, tag, RESPONSE.BYTES);
    bytes[RESPONSE.CODE] = code;
    this.#queue(tag, bytes);
  }

  /** Results meet the packets that wait for them. */
  #sendStatus(): void {
    const s = this.#s;
    for (let index = 0; index < s.results.length; ) {
      const stream = s.streams[index] ?? 0;
      const packet = this.#statusPackets[stream];
      if (packet === undefined) {
        index++;
        continue;
      }
      this.#statusPackets[stream] = undefined;
      this.#takeResult(index, packet);
      packet.status = 'success';
      this.complete(packet);
      index = 0;
    }
  }

  #takeResult(index: number, packet: UsbPacket): void {
    const [bytes] = this.#s.results.splice(index, 1);
    this.#s.streams.splice(index, 1);
    if (bytes !== undefined) packet.put(bytes, 0, bytes.length);
  }

  // Data pipes

  readonly #task: ScsiTask = {
    transfer: (request, length) => {
      const command = this.#commands.get(request.tag);
      if (command === undefined) return;
      command.offset = 0;
      command.size = length;
      if (command.packet !== undefined) this.#move(command, command.packet);
      else this.#startTransfer();
    },
    complete: request => this.#ended(request),
    cancelled: request => {
      const command = this.#commands.get(request.tag);
      if (command !== undefined) this.#forget(command);
    },
  };

  #ended(request: ScsiRequest): void {
    const command = this.#commands.get(request.tag);
    if (command === undefined) return;
    command.ended = true;
    this.#finish(command);
    this.#sense(command.tag, request.status, request.status === STATUS.GOOD ? undefined : request.takeSense());
    this.#forget(command);
  }

  #forget(command: UasCommand): void {
    this.#finish(command);
    this.#commands.delete(command.tag);
    if (this.#dataIn === command) this.#dataIn = undefined;
    if (this.#dataOut === command) this.#dataOut = undefined;
    this.#startTransfer();
  }

  /** Gives back the data packet that waits. */
  #finish(command: UasCommand): void {
    const { packet } = command;
    command.packet = undefined;
    if (packet === undefined || !packet.inFlight) return;
    packet.status = 'success';
    this.complete(packet);
  }

  #move(command: UasCommand, packet: UsbPacket): void {
    const { request } = command;
    if (request === undefined) return;
    const count = Math.min(command.size - command.offset, packet.left);
    if (packet.pid === PID.IN) packet.put(request.buffer, command.offset, count);
    else packet.take(request.buffer, command.offset, count);
    command.offset += count;
    if (packet.left === 0) this.#finish(command);
    if (command.size === 0 || command.offset < command.size) return;
    command.offset = 0;
    command.size = 0;
    request.continue();
  }

  /** At high speed each data pipe serves one command after the other, and the host is told which (section 4.3). */
  #startTransfer(): void {
    if (this.#streaming) return;
    for (const command of this.#commands.values()) {
      const direction = command.request?.command.direction;
      if (command.active || command.ended || direction === undefined || direction === 'none') continue;
      if (direction === 'in' && this.#dataIn === undefined) this.#dataIn = command;
      else if (direction === 'out' && this.#dataOut === undefined) this.#dataOut = command;
      else continue;
      command.active = true;
      this.#queue(
        command.tag,
        this.#header(direction === 'in' ? IU.READ_READY : IU.WRITE_READY, command.tag, HEADER.BYTES),
      );
      return;
    }
  }

  // Commands

  #unitFor(lun: number): ScsiDevice | undefined {
    return lun < 0 ? undefined : this.#scsi?.find(0, 0, lun);
  }

  #command(tag: number): void {
    const lun = lunAt(this.#unit, COMMAND.LUN);
    const unit = this.#unitFor(lun);
    if ((this.#unit[COMMAND.MORE_CDB] ?? 0) !== 0) this.#refuse(tag, REASON.INVALID_PARAMETER);
    else if (this.#streaming && (tag === 0 || tag > MAX_STREAM)) this.#refuse(tag & MAX_STREAM, REASON.INVALID_FIELD);
    else if (this.#commands.has(tag) || this.#commands.size >= MAX_COMMANDS) this.#refuse(tag, OVERLAPPED);
    else if (unit === undefined) this.#refuse(tag, REASON.LUN_NOT_SUPPORTED);
    else {
      const command = new UasCommand(tag);
      this.#commands.set(tag, command);
      if (this.#streaming) {
        command.packet = this.#dataPackets[tag];
        this.#dataPackets[tag] = undefined;
      }
      const cdb = this.#unit.subarray(COMMAND.CDB, COMMAND.CDB + COMMAND.CDB_BYTES);
      const request = unit.request(this.#task, tag, lun, cdb, COMMAND.CDB_BYTES);
      command.request = request;
      if (request.enqueue() !== 0) request.continue();
    }
  }

  #manage(tag: number): void {
    const unit = this.#unitFor(lunAt(this.#unit, TASK.LUN));
    if (this.#streaming && (tag === 0 || tag > MAX_STREAM)) this.#respond(tag & MAX_STREAM, CODE.INVALID_UNIT);
    else if (this.#commands.has(tag)) this.#respond(tag, CODE.OVERLAPPED_TAG);
    else if (unit === undefined) this.#respond(tag, CODE.INCORRECT_LUN);
    else if (this.#unit[TASK.FUNCTION] === FUNCTION.ABORT_TASK) {
      const { request } = this.#commands.get(this.#words.getUint16(TASK.TAG)) ?? {};
      const done = (): void => this.#respond(tag, CODE.COMPLETE);
      if (request?.device === unit) request.cancel(done);
      else done();
    } else if (this.#unit[TASK.FUNCTION] === FUNCTION.LOGICAL_UNIT_RESET) {
      unit.reset();
      this.#respond(tag, CODE.COMPLETE);
    } else this.#respond(tag, CODE.NOT_SUPPORTED);
  }

  // Packets

  protected override handleData(packet: UsbPacket): void {
    const number = packet.endpoint?.number;
    if (packet.stream > MAX_STREAM) packet.status = 'stall';
    else if (packet.pid === PID.OUT && number === PIPE.COMMAND) this.#commandPacket(packet);
    else if (packet.pid === PID.IN && number === PIPE.STATUS) this.#statusPacket(packet);
    else if (number === PIPE.DATA_IN || number === PIPE.DATA_OUT) this.#dataPacket(packet);
    else packet.status = 'stall';
  }

  #commandPacket(packet: UsbPacket): void {
    this.#unit.fill(0);
    const length = packet.take(this.#unit, 0, COMMAND.BYTES);
    packet.transferred = packet.size;
    const tag = this.#words.getUint16(HEADER.TAG);
    const id = this.#unit[HEADER.ID];
    if (id === IU.COMMAND && length >= COMMAND.BYTES) this.#command(tag);
    else if (id === IU.TASK && length >= TASK.BYTES) this.#manage(tag);
    else packet.status = 'stall';
  }

  #statusPacket(packet: UsbPacket): void {
    const index = this.#s.streams.indexOf(packet.stream);
    if (index >= 0) {
      this.#takeResult(index, packet);
      return;
    }
    this.#statusPackets[packet.stream] = packet;
    packet.status = 'async';
  }

  #dataPacket(packet: UsbPacket): void {
    const waiting = packet.pid === PID.IN ? this.#dataIn : this.#dataOut;
    const command = packet.stream > 0 ? this.#commands.get(packet.stream) : waiting;
    if (command === undefined) {
      if (packet.stream === 0) packet.status = 'stall';
      else {
        this.#dataPackets[packet.stream] = packet;
        packet.status = 'async';
      }
      return;
    }
    this.#move(command, packet);
    if (packet.left === 0 || command.ended) return;
    command.packet = packet;
    packet.status = 'async';
  }

  protected override cancelled(packet: UsbPacket): void {
    for (const packets of [this.#statusPackets, this.#dataPackets]) {
      const index = packets.indexOf(packet);
      if (index >= 0) packets[index] = undefined;
    }
    for (const command of this.#commands.values()) if (command.packet === packet) command.packet = undefined;
  }

  protected override controlRequest(request: number): number {
    return request === endpointOut(REQUEST.CLEAR_FEATURE) ? 0 : STALL;
  }

  protected override busReset(): void {
    for (const { request } of [...this.#commands.values()]) request?.cancel();
    this.#commands.clear();
    this.#dataIn = undefined;
    this.#dataOut = undefined;
    this.#s.results = [];
    this.#s.streams = [];
    this.#statusTimer.cancel();
  }

  // Snapshots: packets come again from the controller's schedule, commands from the SCSI devices

  saveTask({ tag }: ScsiRequest): SavedValue {
    const command = this.#commands.get(tag);
    if (command === undefined) return null;
    const { active, offset, size } = command;
    return saveValues(taskFields, { tag, active, offset, size });
  }

  loadTask(saved: SavedValue, request: ScsiRequest): ScsiTask | undefined {
    if (saved === null) return undefined;
    const values = loadValues(taskFields, asRecord(saved, this.path), this.path);
    const command = new UasCommand(values.tag);
    Object.assign(command, { request, active: values.active, offset: values.offset, size: values.size });
    this.#commands.set(command.tag, command);
    if (command.active && request.command.direction === 'in') this.#dataIn = command;
    if (command.active && request.command.direction === 'out') this.#dataOut = command;
    return this.#task;
  }
}

export const usbUas = deviceType({
  type: 'usb-uas',
  summary: 'SCSI host adapter on USB',
  bus: 'usb-bus',
  category: 'storage',
  parents: ['usb-device', 'device'],
  hotpluggable: true,
  properties,
  create: UsbUas,
});
