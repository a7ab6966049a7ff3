import { IoVector } from '../../core/block/io-vector.ts';
import type { ControllerMemory } from './memory.ts';
import { COMMAND, DNR, PSDT_SHIFT, STATUS } from './registers.ts';

/** Pieces of one transfer; more are refused. */
const MAX_PIECES = 1024;
const PRP_SIZE = 8;
const SGL_SIZE = 16;
const SGL = { ADDRESS: 0, LENGTH: 8, TYPE: 15 } as const;
/** Kinds of SGL descriptors (section 4.4). */
const SGL_TYPE = { DATA: 0, SEGMENT: 2, LAST_SEGMENT: 3 } as const;
/** Descriptors that are read at a time, and segments of one list: a list that goes in circles has an end. */
const SGL_BATCH = 256;
const MAX_SEGMENTS = 256;
const LIST_SIZE = 0x1_0000;

const addressAt = (view: DataView, offset: number): number =>
  view.getUint32(offset + 4, true) * 2 ** 32 + view.getUint32(offset, true);

/** What was read of a list: no two transfers are being mapped at once. */
const list = new Uint8Array(LIST_SIZE);
const listView = new DataView(list.buffer);

/** The memory that a command's data is in: the pieces that its PRPs (NVMe 1.4, section 4.3) or SGL (section 4.4) name. */
export class Transfer {
  readonly #memory: ControllerMemory;
  readonly #addresses: number[] = [];
  readonly #lengths: number[] = [];
  #pieces = 0;
  #own = new Uint8Array(0);
  #direct = false;
  /** In bytes. */
  length = 0;
  /** Where the disk reads and writes: memory itself, or a buffer where that is not RAM. */
  readonly vector = new IoVector();

  constructor(memory: ControllerMemory) {
    this.#memory = memory;
  }

  /** Takes the data pointer of `command` for `length` bytes. Returns a status. */
  map(command: DataView, length: number, pageSize: number): number {
    this.#pieces = 0;
    this.length = 0;
    switch (command.getUint8(COMMAND.FLAGS) >>> PSDT_SHIFT) {
      case 0:
        return this.#mapPrps(command, length, pageSize);
      case 1:
      case 2:
        return this.#mapSgl(command, length);
      default:
        return STATUS.INVALID_FIELD;
    }
  }

  // Physical region pages

  #mapPrps(command: DataView, length: number, pageSize: number): number {
    const mask = pageSize - 1;
    const first = Math.min(length, pageSize - (command.getUint32(COMMAND.PRP1, true) & mask));
    const status = this.#add(addressAt(command, COMMAND.PRP1), first);
    const left = length - first;
    if (status !== STATUS.SUCCESS || left === 0) return status;
    const second = addressAt(command, COMMAND.PRP2);
    const offset = command.getUint32(COMMAND.PRP2, true) & mask;
    if (left > pageSize) return this.#mapPrpList(second, offset, left, pageSize);
    return offset === 0 ? this.#add(second, left) : STATUS.INVALID_PRP_OFFSET | DNR;
  }

  /** The first list may begin anywhere in its page; the last entry of a full one names the next. */
  #mapPrpList(address: number, offset: number, length: number, pageSize: number): number {
    const mask = pageSize - 1;
    if (offset % PRP_SIZE !== 0) return STATUS.INVALID_PRP_OFFSET | DNR;
    let room = (pageSize - offset) / PRP_SIZE;
    for (let left = length; left > 0; ) {
      const entries = Math.min(room, Math.ceil(left / pageSize));
      const chained = Math.ceil(left / pageSize) > room;
      if (!this.#memory.read(address, list, 0, entries * PRP_SIZE)) return STATUS.DATA_TRANSFER_ERROR;
      for (let entry = 0; entry < entries; entry++) {
        if ((listView.getUint32(entry * PRP_SIZE, true) & mask) !== 0) return STATUS.INVALID_PRP_OFFSET | DNR;
        const named = addressAt(listView, entry * PRP_SIZE);
        if (chained && entry === entries - 1) {
          address = named;
          break;
        }
        const piece = Math.min(left, pageSize);
        const status = this.#add(named, piece);
        if (status !== STATUS.SUCCESS) return status;
        left -= piece;
      }
      room = pageSize / PRP_SIZE;
    }
    return STATUS.SUCCESS;
  }

  // Scatter gather lists

  #mapSgl(command: DataView, length: number): number {
    let type = command.getUint8(COMMAND.PRP1 + SGL.TYPE) >>> 4;
    let address = addressAt(command, COMMAND.PRP1);
    let size = command.getUint32(COMMAND.PRP1 + SGL.LENGTH, true);
    if (type === SGL_TYPE.DATA) {
      const status = this.#addDescriptor(type, address, size, length);
      return status !== STATUS.SUCCESS ? status : this.#complete(length);
    }
    for (let segment = 0; segment < MAX_SEGMENTS; segment++) {
      if (type !== SGL_TYPE.SEGMENT && type !== SGL_TYPE.LAST_SEGMENT) return STATUS.INVALID_SGL_SEGMENT | DNR;
      if (size === 0 || size % SGL_SIZE !== 0) return STATUS.INVALID_SGL_SEGMENT | DNR;
      const count = size / SGL_SIZE;
      if (count > MAX_PIECES) return STATUS.INTERNAL_ERROR | DNR;
      let at = 0;
      for (let done = 0; done < count; done++) {
        if (done % SGL_BATCH === 0) {
          const batch = Math.min(SGL_BATCH, count - done) * SGL_SIZE;
          if (!this.#memory.read(address + done * SGL_SIZE, list, 0, batch)) return STATUS.DATA_TRANSFER_ERROR;
        }
        at = (done % SGL_BATCH) * SGL_SIZE;
        const kind = listView.getUint8(at + SGL.TYPE) >>> 4;
        if (done === count - 1 && kind !== SGL_TYPE.DATA) break;
        const status = this.#addDescriptor(
          kind,
          addressAt(listView, at),
          listView.getUint32(at + SGL.LENGTH, true),
          length,
        );
        if (status !== STATUS.SUCCESS) return status;
      }
      const last = listView.getUint8(at + SGL.TYPE) >>> 4;
      if (last === SGL_TYPE.DATA) return this.#complete(length);
      if (type === SGL_TYPE.LAST_SEGMENT) return STATUS.INVALID_SGL_SEGMENT | DNR;
      type = last;
      address = addressAt(listView, at);
      size = listView.getUint32(at + SGL.LENGTH, true);
    }
    return STATUS.INTERNAL_ERROR | DNR;
  }

  #addDescriptor(type: number, address: number, size: number, length: number): number {
    if (type === SGL_TYPE.SEGMENT || type === SGL_TYPE.LAST_SEGMENT) return STATUS.INVALID_SGL_COUNT | DNR;
    if (type !== SGL_TYPE.DATA) return STATUS.INVALID_SGL_TYPE | DNR;
    if (size === 0) return STATUS.SUCCESS;
    const left = length - this.length;
    if (left === 0) return STATUS.INVALID_SGL_LENGTH | DNR;
    return this.#add(address, Math.min(left, size));
  }

  #complete(length: number): number {
    return this.length === length ? STATUS.SUCCESS : STATUS.INVALID_SGL_LENGTH | DNR;
  }

  #add(address: number, length: number): number {
    if (!Number.isSafeInteger(address + length)) return STATUS.DATA_TRANSFER_ERROR;
    if (this.#pieces === MAX_PIECES) return STATUS.INTERNAL_ERROR | DNR;
    this.#addresses[this.#pieces] = address;
    this.#lengths[this.#pieces] = length;
    this.#pieces++;
    this.length += length;
    return STATUS.SUCCESS;
  }

  // Data

  /** Makes {@link vector} ready for a read of the disk, which {@link deliver} ends. */
  prepareRead(): void {
    this.#direct = this.#resolve(true);
    if (!this.#direct) this.#useBuffer();
  }

  /** Makes {@link vector} what is to be written. False where it cannot be read. */
  prepareWrite(): boolean {
    this.#direct = this.#resolve(false);
    if (this.#direct) return true;
    this.#useBuffer();
    return this.take(this.#own, 0, this.length);
  }

  /** What was read is in memory. Returns a status. */
  deliver(): number {
    if (!this.#direct) {
      return this.put(this.#own, 0, this.length) ? STATUS.SUCCESS : STATUS.DATA_TRANSFER_ERROR;
    }
    for (let piece = 0; piece < this.#pieces; piece++) {
      this.#memory.written(this.#addresses[piece] ?? 0, this.#lengths[piece] ?? 0);
    }
    return STATUS.SUCCESS;
  }

  /** Copies `length` bytes of the command's data to `target`. */
  take(target: Uint8Array, at: number, length: number): boolean {
    for (let piece = 0, done = 0; piece < this.#pieces && done < length; piece++) {
      const size = Math.min(this.#lengths[piece] ?? 0, length - done);
      if (!this.#memory.read(this.#addresses[piece] ?? 0, target, at + done, size)) return false;
      done += size;
    }
    return true;
  }

  /** Copies `length` bytes of `source` to the command's data. */
  put(source: Uint8Array, at: number, length: number): boolean {
    for (let piece = 0, done = 0; piece < this.#pieces && done < length; piece++) {
      const size = Math.min(this.#lengths[piece] ?? 0, length - done);
      if (!this.#memory.write(this.#addresses[piece] ?? 0, source, at + done, size)) return false;
      done += size;
    }
    return true;
  }

  /** Finds the pieces in RAM. False where they are not all there. */
  #resolve(write: boolean): boolean {
    const { vector } = this;
    vector.clear();
    for (let piece = 0; piece < this.#pieces; piece++) {
      let address = this.#addresses[piece] ?? 0;
      for (let left = this.#lengths[piece] ?? 0; left > 0; ) {
        const ram = this.#memory.ramAt(address, left, write);
        if (ram === undefined) return false;
        const stretch = this.#memory.ramLength;
        vector.add(ram, this.#memory.ramOffset, stretch);
        address += stretch;
        left -= stretch;
      }
    }
    return true;
  }

  #useBuffer(): void {
    if (this.#own.length < this.length) this.#own = new Uint8Array(this.length);
    this.vector.clear().add(this.#own, 0, this.length);
  }
}
