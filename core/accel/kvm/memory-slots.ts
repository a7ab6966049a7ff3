import { SouthbridgeError } from '../../errors.ts';
import { isSystemError } from '../../host/native.ts';
import type { GuestRam } from '../../memory/guest-ram.ts';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from './abi.ts';
import type { NativeVm } from './addon.ts';

const PAGE = 4096;

interface Slot {
  readonly number: number;
  readonly gpa: number;
  readonly size: number;
  readonly ram: GuestRam;
  readonly offset: number;
  readonly readonly: boolean;
  logged: boolean;
}

/** Guest RAM as KVM knows it (KVM API, section 4.35): numbered slots that do not overlap. */
export class MemorySlots {
  readonly #native: NativeVm;
  readonly #slots = new Map<number, Slot>();

  constructor(native: NativeVm) {
    this.#native = native;
  }

  /** @throws SouthbridgeError ERR_RAM_ALIGNMENT, ERR_RAM_OVERLAP, or ERR_RAM_MAP where the kernel refuses */
  map(gpa: number, ram: GuestRam, offset: number, size: number, readonly: boolean): void {
    const aligned = gpa % PAGE === 0 && offset % PAGE === 0 && size % PAGE === 0;
    if (!aligned || size <= 0 || offset + size > ram.bytes.length) {
      throw new SouthbridgeError('ERR_RAM_ALIGNMENT', `RAM '${ram.name}' at ${hex(gpa)} is not made of whole pages`);
    }
    for (const other of this.#slots.values()) {
      if (gpa >= other.gpa + other.size || other.gpa >= gpa + size) continue;
      throw new SouthbridgeError(
        'ERR_RAM_OVERLAP',
        `RAM '${ram.name}' at ${hex(gpa)} overlaps '${other.ram.name}' at ${hex(other.gpa)}`,
      );
    }
    const slot = { number: this.#freeNumber(), gpa, size, ram, offset, readonly, logged: false };
    this.#set(slot);
    this.#slots.set(gpa, slot);
  }

  /** @throws SouthbridgeError ERR_RAM_MAP where exactly that was not mapped */
  unmap(gpa: number, size: number): void {
    const slot = this.#at(gpa);
    if (slot.size !== size)
      throw new SouthbridgeError('ERR_RAM_MAP', `the RAM at ${hex(gpa)} has ${slot.size} bytes, not ${size}`);
    this.#native.setMemory(slot.number, 0, gpa, undefined, 0);
    this.#slots.delete(gpa);
  }

  logDirty(gpa: number, on: boolean): void {
    const slot = this.#at(gpa);
    if (slot.logged === on) return;
    slot.logged = on;
    this.#set(slot);
  }

  readDirty(gpa: number): Uint8Array {
    const slot = this.#at(gpa);
    if (!slot.logged) throw new SouthbridgeError('ERR_DIRTY_LOG', `writes to the RAM at ${hex(gpa)} are not logged`);
    const pages = slot.size / PAGE;
    const bitmap = new Uint8Array(Math.ceil(pages / 64) * 8);
    this.#native.dirtyLog(slot.number, bitmap);
    return bitmap.subarray(0, Math.ceil(pages / 8));
  }

  /** The byte at `gpa`, or undefined where no RAM is mapped. */
  byteAt(gpa: number): number | undefined {
    for (const { gpa: start, size, ram, offset } of this.#slots.values()) {
      if (gpa >= start && gpa < start + size) return ram.bytes[offset + gpa - start];
    }
    return undefined;
  }

  #at(gpa: number): Slot {
    const slot = this.#slots.get(gpa);
    if (slot === undefined) throw new SouthbridgeError('ERR_RAM_MAP', `no RAM is mapped at ${hex(gpa)}`);
    return slot;
  }

  #set({ number, gpa, size, ram, offset, readonly, logged }: Slot): void {
    const flags = (readonly ? KVM_MEM_READONLY : 0) | (logged ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    try {
      this.#native.setMemory(number, flags, gpa, ram.bytes.subarray(offset, offset + size), size);
    } catch (cause) {
      const why = isSystemError(cause) ? cause.code : String(cause);
      throw new SouthbridgeError(
        'ERR_RAM_MAP',
        `KVM cannot map ${size} bytes of '${ram.name}' at ${hex(gpa)}: ${why}`,
        undefined,
        { cause },
      );
    }
  }

  #freeNumber(): number {
    const used = new Set([...this.#slots.values()].map(slot => slot.number));
    let number = 0;
    while (used.has(number)) number++;
    return number;
  }
}

const hex = (value: number): string => `0x${value.toString(16)}`;
