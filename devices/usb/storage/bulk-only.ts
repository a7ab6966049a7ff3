import type { PropSet } from '../../../core/device/property.ts';
import { ScsiBus, type ScsiHostAdapter } from '../../../core/scsi/scsi-bus.ts';
import type { ScsiRequest, ScsiTask } from '../../../core/scsi/scsi-request.ts';
import { field, type SavedValue } from '../../../core/state/fields.ts';
import { UsbDevice } from '../../../core/usb/device.ts';
import { PID, type UsbPacket } from '../../../core/usb/packet.ts';
import { classInterfaceIn, classInterfaceOut, endpointOut, REQUEST, STALL } from '../../../core/usb/request.ts';
import { ENDPOINT, storageDescription } from './description.ts';

/** Class requests (Bulk-Only Transport 1.0, section 3). */
const RESET = classInterfaceOut(0xff);
const GET_MAX_LUN = classInterfaceIn(0xfe);

/** Command block wrapper (section 5.1). */
const CBW = {
  SIZE: 31,
  SIGNATURE: 0x4342_5355,
  TAG: 4,
  LENGTH: 8,
  FLAGS: 12,
  LUN: 13,
  CDB_LENGTH: 14,
  CDB: 15,
} as const;
const DATA_IN = 0x80;
const CDB_MAX = 16;
/** Command status wrapper (section 5.2). */
const CSW = { SIZE: 13, SIGNATURE: 0x5342_5355, TAG: 4, RESIDUE: 8, STATUS: 12 } as const;
const COMMAND_FAILED = 1;

/** A SCSI target behind the bulk-only transport: a command block, data, a status, one after the other. */
export abstract class BulkOnly<S extends PropSet> extends UsbDevice<S> implements ScsiHostAdapter {
  readonly productName = 'QEMU USB MSD';
  protected readonly description = storageDescription;
  readonly maxChannel = 0;
  readonly maxTarget = 0;
  readonly taggedQueuing = false;
  readonly #s = this.state(
    1,
    {
      /** What the host is to do next. */
      stage: field.oneOf(['command', 'out', 'in', 'status'], 'command'),
      tag: field.u32(),
      /** Bytes of the data stage that are left. */
      dataLeft: field.u32(),
      /** The device's piece of data: where in it the transfer is, and how much of it is left. */
      offset: field.u32(),
      offered: field.u32(),
      /** The command has ended, with this status; `residue` bytes were not moved. */
      ended: field.bool(),
      residue: field.u32(),
      failed: field.bool(),
      /** The host did what makes no sense: everything stalls until it resets the device. */
      lost: field.bool(),
    },
    { name: 'bulk-only', onReset: 'keep' },
  );
  readonly #wrapper = new Uint8Array(CBW.SIZE);
  readonly #words = new DataView(this.#wrapper.buffer);
  readonly #cdb = new Uint8Array(CDB_MAX);
  readonly #task: ScsiTask = {
    transfer: (request, length) => this.#transfer(request, length),
    complete: request => this.#ended(request),
    cancelled: request => this.#takenAway(request),
  };
  #request: ScsiRequest | undefined;
  /** Waits for the command. */
  #packet: UsbPacket | undefined;
  #scsi: ScsiBus | undefined;

  abstract readonly maxLun: number;

  protected override get firmwareKind(): string {
    return 'storage';
  }

  get scsiBus(): ScsiBus | undefined {
    return this.#scsi;
  }

  protected override setUp(): void {
    this.#scsi = this.addBus(new ScsiBus(this));
    this.#scsi.hotplugging = this.usbBus.hotplugging;
  }

  // Commands and their data

  #transfer(request: ScsiRequest, length: number): void {
    const s = this.#s;
    if (request !== this.#request) return;
    if ((s.stage === 'out') !== (request.command.direction === 'out')) {
      this.#loseTrack();
      return;
    }
    s.offset = 0;
    s.offered = length;
    const packet = this.#packet;
    if (packet === undefined) return;
    this.#move(packet);
    if (this.#packet === packet && packet.left === 0) this.#finish(packet);
  }

  /** Moves what there is, and has the device go on where the piece, or all of the data, is through. */
  #move(packet: UsbPacket): void {
    const s = this.#s;
    const request = this.#request;
    if (request === undefined) return;
    const count = Math.min(packet.left, s.offered);
    if (packet.pid === PID.IN) packet.put(request.buffer, s.offset, count);
    else packet.take(request.buffer, s.offset, count);
    s.offset += count;
    s.offered -= count;
    s.dataLeft -= Math.min(count, s.dataLeft);
    if (s.offered === 0 || s.dataLeft === 0) request.continue();
  }

  /** What is left of the data stage once the command has ended: zeros come, and nobody takes what goes. */
  #skip(packet: UsbPacket): void {
    const s = this.#s;
    s.dataLeft -= Math.min(packet.pad(), s.dataLeft);
    if (s.dataLeft === 0) s.stage = 'status';
  }

  #finish(packet: UsbPacket): void {
    this.#packet = undefined;
    packet.status = 'success';
    this.complete(packet);
  }

  #loseTrack(): void {
    const packet = this.#packet;
    this.#s.lost = true;
    this.#packet = undefined;
    if (packet === undefined) return;
    packet.status = 'stall';
    this.complete(packet);
  }

  #ended(request: ScsiRequest): void {
    if (request !== this.#request) return;
    const s = this.#s;
    this.#request = undefined;
    s.ended = true;
    s.residue = s.dataLeft;
    s.failed = request.status !== 0;
    s.offered = 0;
    const packet = this.#packet;
    if (packet === undefined) {
      if (s.dataLeft === 0) s.stage = 'status';
      return;
    }
    const waitsForStatus = s.stage === 'status' || (s.stage === 'out' && s.dataLeft === 0);
    if (waitsForStatus) this.#sendStatus(packet);
    else if (s.dataLeft > 0) this.#skip(packet);
    else s.stage = 'status';
    this.#finish(packet);
  }

  #takenAway(request: ScsiRequest): void {
    if (request !== this.#request) return;
    this.#request = undefined;
    Object.assign(this.#s, { ended: true, failed: true, residue: 0, offered: 0 });
  }

  saveTask(): SavedValue {
    return null;
  }

  loadTask(_saved: SavedValue, request: ScsiRequest): ScsiTask {
    this.#request = request;
    return this.#task;
  }

  // Transfers

  protected override handleData(packet: UsbPacket): void {
    const number = packet.endpoint?.number;
    if (this.#s.lost) packet.status = 'stall';
    else if (packet.pid === PID.OUT && number === ENDPOINT.OUT) this.#out(packet);
    else if (packet.pid === PID.IN && number === ENDPOINT.IN) this.#in(packet);
    else packet.status = 'stall';
  }

  #wait(packet: UsbPacket): void {
    this.#packet = packet;
    packet.status = 'async';
  }

  #out(packet: UsbPacket): void {
    const s = this.#s;
    if (s.stage === 'command') {
      if (!this.#command(packet)) packet.status = 'stall';
      return;
    }
    if (s.stage !== 'out' || packet.size > s.dataLeft) {
      packet.status = 'stall';
      return;
    }
    if (s.offered > 0) this.#move(packet);
    if (s.ended && packet.left > 0) this.#skip(packet);
    if (packet.left > 0) this.#wait(packet);
  }

  #in(packet: UsbPacket): void {
    const s = this.#s;
    const status = s.stage === 'status' || (s.stage === 'out' && s.dataLeft === 0);
    if (status) {
      if (packet.size < CSW.SIZE) packet.status = 'stall';
      else if (s.ended) this.#sendStatus(packet);
      else this.#wait(packet);
      return;
    }
    if (s.stage !== 'in') {
      packet.status = 'stall';
      return;
    }
    if (s.offered > 0) this.#move(packet);
    if (s.ended && packet.left > 0) this.#skip(packet);
    if (packet.left > 0 && s.dataLeft > 0) this.#wait(packet);
  }

  /** A command block (section 6.2). False where it is not valid or not meaningful. */
  #command(packet: UsbPacket): boolean {
    const s = this.#s;
    if (packet.size !== CBW.SIZE) {
      this.log.guestError(`a command block of ${packet.size} bytes`);
      return false;
    }
    packet.take(this.#wrapper, 0, CBW.SIZE);
    const lun = this.#wrapper[CBW.LUN] ?? 0;
    const unit = this.#scsi?.find(0, 0, lun);
    if (this.#words.getUint32(0, true) !== CBW.SIGNATURE || unit === undefined) {
      this.log.guestError(unit === undefined ? `no logical unit ${lun}` : 'a command block with a wrong signature');
      return false;
    }
    s.tag = this.#words.getUint32(CBW.TAG, true);
    s.dataLeft = this.#words.getUint32(CBW.LENGTH, true);
    s.stage = s.dataLeft === 0 ? 'status' : ((this.#wrapper[CBW.FLAGS] ?? 0) & DATA_IN) !== 0 ? 'in' : 'out';
    Object.assign(s, { ended: false, failed: false, residue: 0, offset: 0, offered: 0 });
    const length = Math.min(this.#wrapper[CBW.CDB_LENGTH] ?? 0, CDB_MAX);
    this.#cdb.set(this.#wrapper.subarray(CBW.CDB, CBW.CDB + CDB_MAX));
    const request = unit.request(this.#task, s.tag, lun, this.#cdb, length);
    this.#request = request;
    if (request.enqueue() !== 0) request.continue();
    return true;
  }

  #sendStatus(packet: UsbPacket): void {
    const s = this.#s;
    this.#words.setUint32(0, CSW.SIGNATURE, true);
    this.#words.setUint32(CSW.TAG, s.tag, true);
    this.#words.setUint32(CSW.RESIDUE, s.residue, true);
    this.#words.setUint8(CSW.STATUS, s.failed ? COMMAND_FAILED : 0);
    packet.put(this.#wrapper, 0, CSW.SIZE);
    s.stage = 'command';
  }

  protected override cancelled(packet: UsbPacket): void {
    if (packet !== this.#packet) return;
    this.#packet = undefined;
    this.#request?.cancel();
  }

  protected override controlRequest(
    request: number,
    _value: number,
    _index: number,
    _length: number,
    data: Uint8Array,
  ): number {
    switch (request) {
      case endpointOut(REQUEST.CLEAR_FEATURE):
        return 0;
      case RESET:
        // Section 3.1: ready for the next command block.
        this.#s.stage = 'command';
        return 0;
      case GET_MAX_LUN:
        data[0] = this.#highestLun();
        return 1;
      default:
        return STALL;
    }
  }

  /** Logical units are numbered without a gap (section 3.2). */
  #highestLun(): number {
    let lun = 0;
    while (this.#scsi?.find(0, 0, lun + 1)?.lun === lun + 1) lun++;
    return lun;
  }

  protected override busReset(): void {
    this.#request?.cancel();
    this.#request = undefined;
    const packet = this.#packet;
    this.#packet = undefined;
    if (packet !== undefined) {
      packet.status = 'stall';
      this.complete(packet);
    }
    Object.assign(this.#s, { stage: 'command', dataLeft: 0, offered: 0, ended: false, lost: false, residue: 0 });
  }
}
