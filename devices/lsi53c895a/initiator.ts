import type { ScsiBus } from '../../core/scsi/scsi-bus.ts';
import type { ScsiRequest, ScsiTask } from '../../core/scsi/scsi-request.ts';
import { field, initialValues, type StateValues } from '../../core/state/fields.ts';
import type { LsiChip } from './lsi53c895a.ts';
import { CCNTL0, CCNTL1, DCNTL, ISTAT0, PHASE, SBCL, SCID_RRE, SCNTL1, SCNTL2, SIST0, SIST1 } from './registers.ts';

/** Messages (SCSI-2, section 6.6). */
const MESSAGE = {
  COMMAND_COMPLETE: 0x00,
  EXTENDED: 0x01,
  SAVE_DATA_POINTER: 0x02,
  DISCONNECT: 0x04,
  ABORT: 0x06,
  REJECT: 0x07,
  NO_OPERATION: 0x08,
  BUS_DEVICE_RESET: 0x0c,
  ABORT_TAG: 0x0d,
  CLEAR_QUEUE: 0x0e,
  SIMPLE_QUEUE_TAG: 0x20,
  HEAD_OF_QUEUE_TAG: 0x21,
  ORDERED_QUEUE_TAG: 0x22,
  IDENTIFY: 0x80,
} as const;
/** Extended messages that are taken note of only, with the bytes of their arguments. */
const EXTENDED_ARGUMENTS: ReadonlyMap<number, number> = new Map([
  [0x01, 2], // SYNCHRONOUS DATA TRANSFER REQUEST
  [0x03, 1], // WIDE DATA TRANSFER REQUEST
  [0x04, 5], // PARALLEL PROTOCOL REQUEST
]);
const MESSAGE_IN_MAX = 8;
const CDB_MAX = 16;

/** A select tag: the target's id, the command's tag, and whether it has one. */
const TAG_VALID = 0x1_0000;
const targetOf = (tag: number): number => (tag >>> 8) & 0xf;

/** What the processor waits for. */
export const WAITING = ['nothing', 'reselection', 'data-started', 'data'] as const;
/** The phase after the last byte of a message from the target; `disconnect` is the end of the connection. */
const AFTER_MESSAGE = ['command', 'disconnect', 'data-out', 'data-in', 'status'] as const;

export const initiatorFields = {
  waiting: field.oneOf(WAITING, 'nothing'),
  afterMessage: field.oneOf(AFTER_MESSAGE, 'command'),
  message: field.list(field.u8(), MESSAGE_IN_MAX),
  /** Of the last command that has ended. */
  status: field.u8(),
  /** The command under way has data or a status to be moved, or has ended. */
  answered: field.bool(),
  lun: field.u8(),
  selectTag: field.u32(),
  /** Commands that ended while their target was disconnected: it has still to reselect for the status. */
  ended: field.list(field.record({ tag: field.u32(), status: field.u8() }), 256),
} as const;

export const taskFields = {
  tag: field.u32(),
  connected: field.bool(),
  length: field.u32(),
  at: field.u32(),
  pending: field.u32(),
  out: field.bool(),
} as const;

/** A command of the chip: where its data is, and whether its target waits to reselect. */
export class LsiTask implements ScsiTask {
  readonly initiator: LsiInitiator;
  readonly tag: number;
  request: ScsiRequest | undefined;
  /** Bytes that wait in the request's buffer, from `at` on, while the target is connected. */
  length = 0;
  at = 0;
  /** Bytes that the target would reselect for. */
  pending = 0;
  out = false;
  /** The target would reselect for the status. */
  status: number | undefined;

  constructor(initiator: LsiInitiator, tag: number) {
    this.initiator = initiator;
    this.tag = tag;
  }

  get waitsToReselect(): boolean {
    return this.pending > 0 || this.status !== undefined;
  }

  transfer(_request: ScsiRequest, length: number): void {
    this.initiator.transfer(this, length);
  }

  complete(request: ScsiRequest): void {
    this.initiator.complete(this, request.status);
  }

  cancelled(): void {
    this.initiator.forget(this);
  }
}

/** The chip on the SCSI bus as an initiator: selection, phases, messages, reselection (SCSI-2, section 5). */
export class LsiInitiator {
  readonly #chip: LsiChip;
  readonly #bus: ScsiBus;
  readonly s: StateValues<typeof initiatorFields>;
  readonly #queue = new Set<LsiTask>();
  readonly #cdb = new Uint8Array(CDB_MAX);
  readonly #byte = new Uint8Array(MESSAGE_IN_MAX);
  /** The command whose target is connected. */
  current: LsiTask | undefined;

  constructor(chip: LsiChip, bus: ScsiBus, state: StateValues<typeof initiatorFields>) {
    this.#chip = chip;
    this.#bus = bus;
    this.s = state;
  }

  get phase(): number {
    return this.#chip.regs.SSTAT1.value & PHASE.MASK;
  }

  setPhase(phase: number): void {
    const { regs } = this.#chip;
    regs.SBCL.value = (regs.SBCL.value & ~PHASE.MASK) | phase | SBCL.REQ;
    regs.SSTAT1.value = (regs.SSTAT1.value & ~PHASE.MASK) | phase;
  }

  get connected(): boolean {
    return (this.#chip.regs.SCNTL1.value & SCNTL1.CON) !== 0;
  }

  disconnect(): void {
    const { regs } = this.#chip;
    regs.SCNTL1.value &= ~SCNTL1.CON;
    regs.SSTAT1.value &= ~PHASE.MASK;
    regs.SBCL.value = 0;
  }

  /** The first byte of a message that waits, for those who look at the bus itself. */
  get messageByte(): number {
    return this.phase === PHASE.MESSAGE_IN ? (this.s.message[0] ?? 0) : 0;
  }

  /** All commands are gone: a reset of the chip or of the bus. */
  clear(): void {
    this.dropTasks();
    this.s.ended = [];
  }

  /** As after power-on; the commands are gone already. */
  reset(): void {
    Object.assign(this.s, initialValues(initiatorFields));
  }

  /** Commands that the devices have no more. */
  dropTasks(): void {
    this.#queue.clear();
    this.current = undefined;
  }

  forget(task: LsiTask): void {
    if (this.current === task) this.current = undefined;
    this.#queue.delete(task);
  }

  // Selection and reselection

  /** SELECT (section 5.3.3 of the manual). False where no target answers. */
  select(id: number, attention: boolean): boolean {
    const { regs } = this.#chip;
    if (this.#bus.find(0, id, 0) === undefined) {
      this.#selectionTimeout();
      return false;
    }
    this.s.selectTag = id << 8;
    regs.SCNTL1.value |= SCNTL1.CON;
    if (attention) this.raiseAttention();
    regs.SBCL.value |= SBCL.BSY;
    this.setPhase(PHASE.MESSAGE_OUT);
    this.s.waiting = 'nothing';
    return true;
  }

  raiseAttention(): void {
    const { regs } = this.#chip;
    regs.SOCL.value |= SBCL.ATN;
    regs.SBCL.value |= SBCL.ATN;
  }

  #selectionTimeout(): void {
    this.#chip.scsiInterrupt(0, SIST1.STO);
    this.disconnect();
  }

  /** Whether a reselection interrupts, rather than that the processor waits for it. */
  get interruptsOnReselection(): boolean {
    const { regs } = this.#chip;
    return (regs.SIEN0.value & SIST0.RSL) !== 0 && (regs.SCID.value & SCID_RRE) !== 0;
  }

  /** WAIT RESELECT. */
  waitForReselection(): void {
    if (this.current !== undefined) return;
    this.reselectPending();
    if (this.current === undefined) this.s.waiting = 'reselection';
  }

  /** Lets the first target that waits for it reselect. */
  reselectPending(): void {
    for (const task of this.#queue) {
      if (!task.waitsToReselect) continue;
      this.#reselect(task);
      return;
    }
    const [ended] = this.s.ended.splice(0, 1);
    if (ended === undefined) return;
    const task = new LsiTask(this, ended.tag);
    task.status = ended.status;
    this.#reselect(task);
  }

  #reselect(task: LsiTask): void {
    const { regs } = this.#chip;
    this.#queue.delete(task);
    const id = targetOf(task.tag);
    regs.SSID.value = id | 0x80;
    // Compatibility with the 53C700 family: the id as a bit.
    if ((regs.DCNTL.value & DCNTL.COM) === 0) regs.SFBR.value = 1 << (id & 7);
    regs.SCNTL1.value |= SCNTL1.CON;
    this.setPhase(PHASE.MESSAGE_IN);
    if (task.status === undefined) {
      this.current = task;
      this.s.afterMessage = task.out ? 'data-out' : 'data-in';
      task.length = task.pending;
      task.pending = 0;
    } else {
      this.s.status = task.status;
      this.s.answered = true;
      this.s.afterMessage = 'status';
    }
    this.#addMessage(MESSAGE.IDENTIFY);
    if ((task.tag & TAG_VALID) !== 0) {
      this.#addMessage(MESSAGE.SIMPLE_QUEUE_TAG);
      this.#addMessage(task.tag & 0xff);
    }
    if (this.interruptsOnReselection) this.#chip.scsiInterrupt(SIST0.RSL, 0);
  }

  /** Whether the bus is free and somebody waits for a target: the processor, or software that no interrupt is pending for. */
  get #mayReselect(): boolean {
    if (this.s.waiting === 'reselection') return true;
    const pending = this.#chip.regs.ISTAT0.value & (ISTAT0.SIP | ISTAT0.DIP);
    return this.interruptsOnReselection && !this.connected && pending === 0;
  }

  // What the device has to say

  /** `length` bytes are in the buffer of the command, or there is room for them. */
  transfer(task: LsiTask, length: number): void {
    const apart = this.current !== task || (this.interruptsOnReselection && !this.connected);
    if (this.s.waiting === 'reselection' || apart) {
      task.pending = length;
      task.at = 0;
      if (this.current !== undefined && this.current !== task) return;
      if (!this.#mayReselect) return;
      this.#reselect(task);
    }
    task.length = length;
    task.at = 0;
    this.s.answered = true;
    const { waiting } = this.s;
    if (waiting === 'nothing') return;
    if (waiting === 'reselection' || this.#chip.regs.DBC.COUNT === 0) this.#chip.resume();
    else this.moveData(this.phase === PHASE.DATA_OUT);
  }

  complete(task: LsiTask, status: number): void {
    if (this.current !== task) {
      this.#queue.delete(task);
      this.s.ended.push({ tag: task.tag, status });
      if (this.current === undefined && this.#mayReselect) {
        this.reselectPending();
        if (this.s.waiting === 'reselection') this.#chip.resume();
      }
      return;
    }
    this.current = undefined;
    this.s.status = status;
    this.s.answered = true;
    if (this.s.waiting !== 'nothing' && this.#chip.regs.DBC.COUNT !== 0) {
      // The transfer is shorter than the move.
      this.#phaseMismatch(this.phase === PHASE.DATA_OUT, PHASE.STATUS);
    } else {
      this.setPhase(PHASE.STATUS);
    }
    this.#chip.resume();
  }

  #phaseMismatch(out: boolean, phase: number): void {
    const { regs } = this.#chip;
    const control = regs.CCNTL0.value;
    if ((control & CCNTL0.ENPMJ) === 0) {
      this.#chip.scsiInterrupt(SIST0.MA, 0);
      this.#chip.stop();
    } else {
      const second = (control & CCNTL0.PMJCTL) !== 0 ? !out : (regs.SCNTL2.value & SCNTL2.WSR) !== 0;
      regs.DSP.value = second ? regs.PMJAD2.value : regs.PMJAD1.value;
    }
    this.setPhase(phase);
  }

  // Information transfer phases, as block moves run them: DNAD and DBC say what is moved

  /** Data between memory and the buffer of the command, as much as there is of both. */
  moveData(out: boolean): void {
    const chip = this.#chip;
    const { regs } = chip;
    const task = this.current;
    const request = task?.request;
    if (task === undefined || request === undefined || task.length === 0) return;
    const count = Math.min(regs.DBC.COUNT, task.length, request.buffer.length - task.at);
    const address = this.#dataAddress();
    regs.CSBC.value = regs.CSBC.value + count;
    regs.DNAD.value = regs.DNAD.value + count;
    regs.DBC.COUNT -= count;
    chip.spend(count);
    if (out) chip.readMemory(address, request.buffer, task.at, count);
    else chip.writeMemory(address, request.buffer, task.at, count);
    task.at += count;
    task.length -= count;
    if (task.length === 0) request.continue();
    else chip.resume();
  }

  #dataAddress(): number {
    const { regs } = this.#chip;
    const mode = regs.CCNTL1.value;
    const tables = (mode & CCNTL1.EN64TIBMV) !== 0;
    const high = tables ? regs.DNAD64.value : regs.DBMS.value || regs.SBMS.value;
    return high * 2 ** 32 + regs.DNAD.value;
  }

  sendCommand(): void {
    const chip = this.#chip;
    const { regs } = chip;
    const length = Math.min(CDB_MAX, regs.DBC.COUNT);
    regs.DBC.COUNT = length;
    this.#cdb.fill(0);
    chip.dma.read(regs.DNAD.value, this.#cdb, 0, length);
    regs.SFBR.value = this.#cdb[0] ?? 0;
    this.s.answered = false;
    const device = this.#bus.find(0, targetOf(this.s.selectTag), this.s.lun);
    if (device === undefined) {
      this.#selectionTimeout();
      return;
    }
    // A command that software has left behind while it was connected.
    this.current?.request?.cancel();
    const task = new LsiTask(this, this.s.selectTag);
    const request = device.request(task, task.tag, this.s.lun, this.#cdb, length);
    task.request = request;
    this.current = task;
    const expected = request.enqueue();
    if (expected !== 0) {
      this.setPhase(expected > 0 ? PHASE.DATA_IN : PHASE.DATA_OUT);
      request.continue();
    }
    if (this.s.answered) return;
    if (expected === 0) {
      this.setPhase(PHASE.DATA_IN);
      return;
    }
    // It takes a while: the target leaves the bus to others.
    this.#addMessage(MESSAGE.SAVE_DATA_POINTER);
    this.#addMessage(MESSAGE.DISCONNECT);
    this.setPhase(PHASE.MESSAGE_IN);
    this.s.afterMessage = 'disconnect';
    task.pending = 0;
    task.out = expected < 0;
    this.#queue.add(task);
    this.current = undefined;
  }

  receiveStatus(): void {
    const { regs, dma } = this.#chip;
    regs.DBC.COUNT = 1;
    regs.SFBR.value = this.s.status;
    dma.write8(regs.DNAD.value, this.s.status);
    this.setPhase(PHASE.MESSAGE_IN);
    this.s.afterMessage = 'disconnect';
    this.#addMessage(MESSAGE.COMMAND_COMPLETE);
  }

  #addMessage(byte: number): void {
    if (this.s.message.length < MESSAGE_IN_MAX) this.s.message.push(byte);
  }

  receiveMessage(): void {
    const { regs, dma } = this.#chip;
    const { message } = this.s;
    regs.SFBR.value = message[0] ?? 0;
    const length = Math.min(message.length, regs.DBC.COUNT);
    for (let index = 0; index < length; index++) this.#byte[index] = message[index] ?? 0;
    dma.write(regs.DNAD.value, this.#byte, 0, length);
    // Drivers rely on the last byte here.
    if (length > 0) regs.SIDL.value = this.#byte[length - 1] ?? 0;
    message.splice(0, length);
    if (message.length > 0) return;
    switch (this.s.afterMessage) {
      case 'command':
        this.setPhase(PHASE.COMMAND);
        break;
      case 'disconnect':
        this.disconnect();
        break;
      case 'data-out':
        this.setPhase(PHASE.DATA_OUT);
        break;
      case 'data-in':
        this.setPhase(PHASE.DATA_IN);
        break;
      case 'status':
        this.setPhase(PHASE.STATUS);
        break;
    }
  }

  #nextMessageByte(): number {
    const { regs, dma } = this.#chip;
    if (regs.DBC.COUNT === 0) return 0;
    const byte = dma.read8(regs.DNAD.value);
    this.#skipMessage(1);
    return byte;
  }

  #skipMessage(bytes: number): void {
    const { regs } = this.#chip;
    const count = Math.min(bytes, regs.DBC.COUNT);
    regs.DNAD.value = regs.DNAD.value + count;
    regs.DBC.COUNT -= count;
  }

  sendMessage(): void {
    const { regs } = this.#chip;
    const tag = this.current?.tag ?? this.s.selectTag;
    while (regs.DBC.COUNT > 0) {
      this.#chip.spend(1);
      const message = this.#nextMessageByte();
      regs.SFBR.value = message;
      if (this.#takeMessage(message, tag)) continue;
      this.setPhase(PHASE.MESSAGE_IN);
      this.#addMessage(MESSAGE.REJECT);
      this.s.afterMessage = 'command';
      return;
    }
  }

  /** False where the target does not know the message. */
  #takeMessage(message: number, tag: number): boolean {
    switch (message) {
      case MESSAGE.DISCONNECT:
        this.disconnect();
        return true;
      case MESSAGE.NO_OPERATION:
        this.setPhase(PHASE.COMMAND);
        return true;
      case MESSAGE.EXTENDED: {
        this.#nextMessageByte();
        const bytes = EXTENDED_ARGUMENTS.get(this.#nextMessageByte());
        if (bytes !== undefined) this.#skipMessage(bytes);
        return bytes !== undefined;
      }
      case MESSAGE.SIMPLE_QUEUE_TAG:
      case MESSAGE.HEAD_OF_QUEUE_TAG:
      case MESSAGE.ORDERED_QUEUE_TAG:
        this.s.selectTag |= this.#nextMessageByte() | TAG_VALID;
        return true;
      case MESSAGE.ABORT_TAG:
        this.#taskWith(tag)?.request?.cancel();
        this.s.ended = this.s.ended.filter(ended => ended.tag !== tag);
        this.disconnect();
        return true;
      case MESSAGE.ABORT:
      case MESSAGE.CLEAR_QUEUE:
      case MESSAGE.BUS_DEVICE_RESET:
        this.#abortTarget(targetOf(tag));
        this.disconnect();
        return true;
      default:
        if ((message & MESSAGE.IDENTIFY) === 0) return false;
        this.s.lun = message & 7;
        this.setPhase(PHASE.COMMAND);
        return true;
    }
  }

  #taskWith(tag: number): LsiTask | undefined {
    if (this.current !== undefined) return this.current;
    for (const task of this.#queue) if (task.tag === tag) return task;
    return undefined;
  }

  #abortTarget(target: number): void {
    this.current?.request?.cancel();
    this.current = undefined;
    for (const task of [...this.#queue]) if (targetOf(task.tag) === target) task.request?.cancel();
    this.s.ended = this.s.ended.filter(ended => targetOf(ended.tag) !== target);
  }

  // State

  saveTask(task: LsiTask): StateValues<typeof taskFields> {
    const { tag, length, at, pending, out } = task;
    return { tag, connected: this.current === task, length, at, pending, out };
  }

  loadTask(saved: StateValues<typeof taskFields>, request: ScsiRequest): LsiTask | undefined {
    if (saved.connected && this.current !== undefined) return undefined;
    const task = new LsiTask(this, saved.tag);
    task.request = request;
    task.at = Math.min(saved.at, request.buffer.length);
    task.length = Math.min(saved.length, request.buffer.length - task.at);
    task.pending = Math.min(saved.pending, request.buffer.length);
    task.out = saved.out;
    if (saved.connected) this.current = task;
    else this.#queue.add(task);
    return task;
  }
}
