import { Device } from '../device/device.ts';
import type { DeviceContext } from '../device/device-type.ts';
import { type PropSet, type PropValues, prop } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';
import { scsiNodes } from '../firmware/boot-order.ts';
import {
  asRecord,
  badState,
  field,
  loadValues,
  type SavedRecord,
  type SavedValue,
  saveValues,
} from '../state/fields.ts';
import { type LogicalUnit, OP, ScsiCommand } from './command.ts';
import { ScsiBus } from './scsi-bus.ts';
import { CHUNK, RefusedRequest, requestFields, type ScsiRequest, type ScsiTask } from './scsi-request.ts';
import { attentionPrecedence, SENSE, SENSE_KEY, type Sense } from './sense.ts';
import { TargetRequest } from './target-request.ts';

const UNSET = 0xffff_ffff;

/** Where a device is, on every adapter. */
export const scsiProperties = {
  channel: prop.u32({ default: 0 }),
  'scsi-id': prop.u32({ default: UNSET }),
  lun: prop.u32({ default: UNSET }),
  bootindex: prop.bootIndex({ default: -1 }),
} as const;

const senseField = field.record({ key: field.u8(), asc: field.u8(), ascq: field.u8() });
/** Requests that a saved device may have. */
const REQUESTS_MAX = 0x1_0000;
/** Buffers that are kept for the next command. */
const SPARE_BUFFERS = 8;
const EMPTY = new Uint8Array(0);

/** Commands that a unit attention does not keep from being carried out (SAM-4, section 5.14). */
const UNDER_ATTENTION: ReadonlySet<number> = new Set([
  OP.INQUIRY,
  OP.REPORT_LUNS,
  OP.GET_CONFIGURATION,
  OP.GET_EVENT_STATUS,
]);

/** A logical unit: its task set, its unit attention and its sense data. What its commands do is the subclass's. */
export abstract class ScsiDevice<S extends PropSet = PropSet> extends Device<S> implements LogicalUnit {
  abstract readonly kind: 'disk' | 'cd';
  /** Bytes of a logical block. */
  blockSize = 512;
  readonly scsiBus: ScsiBus;
  channel = 0;
  target = 0;
  lun = 0;
  /** Commands that have not ended, in the order in which they came. */
  readonly requests = new Set<ScsiRequest>();
  readonly #saved = this.state(
    1,
    { attention: senseField, sense: senseField, hasSense: field.bool(), senseIsAttention: field.bool() },
    { name: 'scsi', onReset: 'keep' },
  );
  readonly #spare: Uint8Array[] = [];

  constructor(context: DeviceContext<S>) {
    super(context);
    if (!(context.bus instanceof ScsiBus)) {
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' is a SCSI device; its type must say so`);
    }
    this.scsiBus = context.bus;
    this.defineProperty({ name: 'channel', type: 'uint32', get: () => this.channel });
    this.defineProperty({ name: 'scsi-id', type: 'uint32', get: () => this.target });
    this.defineProperty({ name: 'lun', type: 'uint32', get: () => this.lun });
  }

  get #place(): PropValues<typeof scsiProperties> {
    // Every type of SCSI device has these among its properties.
    return this.props as PropValues<S> & PropValues<typeof scsiProperties>;
  }

  /** The address that was asked for. */
  get requested(): { readonly channel: number; readonly target: number | undefined; readonly lun: number | undefined } {
    const { channel, 'scsi-id': target, lun } = this.#place;
    return {
      channel,
      target: target === UNSET ? undefined : target,
      lun: lun === UNSET ? undefined : lun,
    };
  }

  place(channel: number, target: number, lun: number): void {
    this.channel = channel;
    this.target = target;
    this.lun = lun;
  }

  override get firmwareName(): string {
    return scsiNodes(this.channel, this.target, this.lun).join('/');
  }

  /** A command of the kind of device, once its block is known to be one. */
  protected abstract newCommand(tag: number, command: ScsiCommand, task: ScsiTask): ScsiRequest;

  /** The initiator has heard of the unit attention that was pending. */
  protected attentionReported(): void {}

  // Commands

  /**
   * A command for the target of this device; `lun` need not be the device's own. `cdb` is copied.
   *
   * @param available bytes of `cdb` that are there
   */
  request(task: ScsiTask, tag: number, lun: number, cdb: Uint8Array, available: number = cdb.length): ScsiRequest {
    const opcode = cdb[0] ?? 0;
    const command = new ScsiCommand();
    const valid = command.parse(cdb, available, this);
    if (this.#attentionPending && available > 0 && !this.#allowedUnderAttention(opcode)) {
      const attention = this.attention.key === SENSE_KEY.UNIT_ATTENTION ? this.attention : this.scsiBus.attention;
      if (valid) return new RefusedRequest(attention, true, this, tag, lun, command, task);
    }
    if (!valid) return new RefusedRequest(SENSE.INVALID_OPCODE, false, this, tag, lun, command, task);
    if (command.tooLong) return new RefusedRequest(SENSE.INVALID_FIELD, false, this, tag, lun, command, task);
    return this.#create(tag, lun, command, task);
  }

  #create(tag: number, lun: number, command: ScsiCommand, task: ScsiTask): ScsiRequest {
    const { opcode } = command;
    const forTarget = lun !== this.lun || opcode === OP.REPORT_LUNS;
    if (forTarget || (opcode === OP.REQUEST_SENSE && this.#saved.hasSense)) {
      return new TargetRequest(this, tag, lun, command, task);
    }
    return this.newCommand(tag, command, task);
  }

  get #attentionPending(): boolean {
    return this.attention.key === SENSE_KEY.UNIT_ATTENTION || this.scsiBus.attention.key === SENSE_KEY.UNIT_ATTENTION;
  }

  /** One unit attention after the other: that which REQUEST SENSE has still to tell is told first. */
  #allowedUnderAttention(opcode: number): boolean {
    return UNDER_ATTENTION.has(opcode) || (opcode === OP.REQUEST_SENSE && this.#saved.senseIsAttention);
  }

  enqueued(request: ScsiRequest): void {
    request.enqueued = true;
    this.requests.add(request);
  }

  dequeued(request: ScsiRequest): void {
    request.enqueued = false;
    this.requests.delete(request);
  }

  /** A command has its status: its sense data is the device's now, and perhaps a unit attention is no longer pending. */
  completed(request: ScsiRequest): void {
    const saved = this.#saved;
    const { sense } = request;
    saved.hasSense = sense !== undefined;
    if (sense !== undefined) saved.sense = sense;
    saved.senseIsAttention = sense !== undefined && request.reportsAttention;
    this.#clearAttention(request.command.opcode);
    this.dequeued(request);
  }

  /** SAM-4, section 5.14: what has been told is no longer pending; some commands clear nothing. */
  #clearAttention(opcode: number): void {
    if (!this.#attentionPending) return;
    if (opcode === OP.INQUIRY || opcode === OP.GET_CONFIGURATION || opcode === OP.GET_EVENT_STATUS) return;
    const own = this.attention.key === SENSE_KEY.UNIT_ATTENTION;
    const { asc, ascq } = own ? this.attention : this.scsiBus.attention;
    const lunsChanged = asc === SENSE.REPORTED_LUNS_CHANGED.asc && ascq === SENSE.REPORTED_LUNS_CHANGED.ascq;
    if (opcode === OP.REPORT_LUNS && !lunsChanged) return;
    if (own) this.#saved.attention = SENSE.NONE;
    else this.scsiBus.attention = SENSE.NONE;
  }

  /** What REQUEST SENSE tells. */
  get pendingSense(): Sense {
    return this.#saved.hasSense ? this.#saved.sense : SENSE.NONE;
  }

  /** The sense data has reached the initiator, with a status or by REQUEST SENSE. */
  senseTaken(): void {
    const saved = this.#saved;
    if (!saved.senseIsAttention) return;
    this.attentionReported();
    saved.hasSense = false;
    saved.senseIsAttention = false;
  }

  get attention(): Sense {
    return this.#saved.attention;
  }

  /** A unit attention for the next command, unless a more important one is pending. */
  setAttention(sense: Sense): void {
    if (sense.key !== SENSE_KEY.UNIT_ATTENTION) return;
    if (attentionPrecedence(sense) < attentionPrecedence(this.attention)) this.#saved.attention = sense;
  }

  /** Nobody is to hear of the unit attention that is pending. */
  forgetAttention(): void {
    this.#saved.attention = SENSE.NONE;
    this.attentionReported();
  }

  /** Something has changed by itself. */
  reportChange(sense: Sense): void {
    this.setAttention(sense);
    this.scsiBus.adapter.changed?.(this, sense);
  }

  /** Takes all commands away. `done` is called when nothing of them goes on any more. */
  cancelAll(done?: () => void): void {
    let left = 1;
    const gone = (): void => {
      left--;
      if (left === 0) done?.();
    };
    for (const request of [...this.requests]) {
      left++;
      request.cancel(gone);
    }
    gone();
  }

  // Buffers

  takeBuffer(request: ScsiRequest): void {
    if (request.buffer.length === 0) request.buffer = this.#spare.pop() ?? new Uint8Array(CHUNK);
  }

  releaseBuffer(request: ScsiRequest): void {
    if (request.buffer.length === CHUNK && this.#spare.length < SPARE_BUFFERS) this.#spare.push(request.buffer);
    request.buffer = EMPTY;
  }

  // The life cycle

  /** The machine goes on after it stopped for an error, or for somebody who asked it to. */
  protected restartRequests(): void {
    for (const request of [...this.requests]) if (request.retry) request.restart();
  }

  protected override resetHold(): void {
    this.cancelAll();
    this.setAttention(SENSE.POWER_ON_OR_RESET);
  }

  override detach(): void {
    this.cancelAll();
    super.detach();
  }

  override save(): SavedRecord {
    const requests = [...this.requests].map(request => ({
      request: saveValues(requestFields, request.save()),
      task: this.scsiBus.adapter.saveTask(request),
    }));
    return { ...super.save(), requests };
  }

  override restore(saved: SavedValue): void {
    const where = `${this.path}.requests`;
    const list = asRecord(saved, this.path)['requests'];
    if (!Array.isArray(list) || list.length > REQUESTS_MAX) badState(where, 'a list of requests');
    const requests = list.map((item: SavedValue) => {
      const record = asRecord(item, where);
      return { values: loadValues(requestFields, record['request'], where), task: record['task'] ?? null };
    });
    this.cancelAll();
    super.restore(saved);
    for (const { values, task } of requests) {
      const command = new ScsiCommand();
      if (!command.parse(values.cdb, values.cdb.length, this)) badState(where, 'a command');
      const request = this.#create(values.tag, values.lun, command, NO_TASK);
      request.restoreProgress(values);
      const owner = this.scsiBus.adapter.loadTask(task, request);
      if (owner === undefined) continue;
      request.task = owner;
      this.enqueued(request);
    }
  }
}

/** Of a command whose adapter is about to be found. */
const NO_TASK: ScsiTask = { transfer: () => {}, complete: () => {}, cancelled: () => {} };
