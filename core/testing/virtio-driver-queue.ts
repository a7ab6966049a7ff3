import type { GuestRam } from '../memory/guest-ram.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const AVAIL = 1 << 7;
const USED = 1 << 15;

/** A stretch of memory that the driver gives to the device. */
export interface DriverBuffer {
  readonly address: number;
  readonly length: number;
  /** The device writes it; otherwise it reads it. */
  readonly writable?: boolean;
}

/** A chain that the device has returned: its id from {@link DriverQueue.add}, and how much it has written. */
export interface UsedBuffer {
  readonly id: number;
  readonly length: number;
}

export interface DriverQueueParts {
  readonly ram: GuestRam;
  readonly size: number;
  readonly desc: number;
  readonly driver: number;
  readonly device: number;
  kick(): void;
}

/** The driver's side of a virtqueue. */
export abstract class DriverQueue {
  readonly parts: DriverQueueParts;

  constructor(parts: DriverQueueParts) {
    this.parts = parts;
  }

  /** Makes a chain available; `table` is where an indirect table may go. Returns its id. */
  abstract add(buffers: readonly DriverBuffer[], table?: number): number;

  /** The next chain that the device has returned, if there is one. */
  abstract used(): UsedBuffer | undefined;

  /** Tells the device that there is something. */
  kick(): void {
    this.parts.kick();
  }

  protected put(at: number, buffer: DriverBuffer): void {
    const { view } = this.parts.ram;
    view.setUint32(at, buffer.address, true);
    view.setUint32(at + 4, 0, true);
    view.setUint32(at + 8, buffer.length, true);
  }
}

/** Virtio 1.2, section 2.7. Descriptors are taken in turn, so a test that keeps chains must not go round on itself. */
export class SplitDriverQueue extends DriverQueue {
  #next = 0;
  #avail = 0;
  #seen = 0;

  override add(buffers: readonly DriverBuffer[], table?: number): number {
    const { ram, size, desc, driver } = this.parts;
    const { view } = ram;
    const head = this.#next;
    const last = buffers.length - 1;
    for (const [index, buffer] of buffers.entries()) {
      const slot = table === undefined ? desc + ((head + index) % size) * 16 : table + index * 16;
      this.put(slot, buffer);
      view.setUint16(slot + 12, (buffer.writable ? WRITE : 0) | (index < last ? NEXT : 0), true);
      view.setUint16(slot + 14, table === undefined ? (head + index + 1) % size : index + 1, true);
    }
    if (table !== undefined) {
      this.put(desc + head * 16, { address: table, length: buffers.length * 16 });
      view.setUint16(desc + head * 16 + 12, INDIRECT, true);
    }
    this.#next = (head + (table === undefined ? buffers.length : 1)) % size;
    view.setUint16(driver + 4 + (this.#avail % size) * 2, head, true);
    this.#avail = (this.#avail + 1) & 0xffff;
    view.setUint16(driver + 2, this.#avail, true);
    return head;
  }

  override used(): UsedBuffer | undefined {
    const { ram, size, device } = this.parts;
    if (ram.view.getUint16(device + 2, true) === this.#seen) return undefined;
    const at = device + 4 + (this.#seen % size) * 8;
    this.#seen = (this.#seen + 1) & 0xffff;
    return { id: ram.view.getUint32(at, true), length: ram.view.getUint32(at + 4, true) };
  }
}

/** Virtio 1.2, section 2.8. */
export class PackedDriverQueue extends DriverQueue {
  #next = 0;
  #wrap = true;
  #seen = 0;
  #seenWrap = true;
  #id = 0;
  readonly #lengths = new Map<number, number>();

  override add(buffers: readonly DriverBuffer[], table?: number): number {
    const { ram, size, desc } = this.parts;
    const { view } = ram;
    const id = this.#id;
    this.#id = (id + 1) & 0x7fff;
    const slots: readonly DriverBuffer[] =
      table === undefined ? buffers : [{ address: table, length: buffers.length * 16 }];
    if (table !== undefined) {
      for (const [index, buffer] of buffers.entries()) {
        this.put(table + index * 16, buffer);
        view.setUint16(table + index * 16 + 14, buffer.writable ? WRITE : 0, true);
      }
    }
    this.#lengths.set(id, slots.length);
    const pending: [at: number, flags: number][] = [];
    for (const [index, buffer] of slots.entries()) {
      const at = desc + this.#next * 16;
      this.put(at, buffer);
      view.setUint16(at + 12, id, true);
      const own =
        table !== undefined ? INDIRECT : (buffer.writable ? WRITE : 0) | (index < slots.length - 1 ? NEXT : 0);
      pending.push([at, own | (this.#wrap ? AVAIL : USED)]);
      this.#next++;
      if (this.#next === size) {
        this.#next = 0;
        this.#wrap = !this.#wrap;
      }
    }
    // The first descriptor's flags make the whole chain available.
    for (const [at, flags] of pending.reverse()) view.setUint16(at + 14, flags, true);
    return id;
  }

  override used(): UsedBuffer | undefined {
    const { ram, size, desc } = this.parts;
    const at = desc + this.#seen * 16;
    const flags = ram.view.getUint16(at + 14, true);
    if (((flags & AVAIL) !== 0) !== this.#seenWrap || ((flags & USED) !== 0) !== this.#seenWrap) return undefined;
    const id = ram.view.getUint16(at + 12, true);
    this.#seen += this.#lengths.get(id) ?? 1;
    if (this.#seen >= size) {
      this.#seen -= size;
      this.#seenWrap = !this.#seenWrap;
    }
    return { id, length: ram.view.getUint32(at + 8, true) };
  }
}
