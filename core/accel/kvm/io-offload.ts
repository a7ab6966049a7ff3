import type { Doorbell, GuestBus } from '../accelerator.ts';
import {
  COALESCED_RING_BYTE,
  KVM_IOEVENTFD,
  KVM_REGISTER_COALESCED_MMIO,
  KVM_UNREGISTER_COALESCED_MMIO,
} from './abi.ts';
import type { NativeVm } from './addon.ts';

const IOEVENTFD_DATAMATCH = 1;
const IOEVENTFD_PIO = 2;
const IOEVENTFD_DEASSIGN = 4;

/** Has the kernel signal an eventfd in place of an exit (KVM API, section 4.59). Returns what undoes it. */
export function registerIoeventfd(native: NativeVm, fd: number, doorbell: Doorbell): () => void {
  const { space, address, size, value } = doorbell;
  const flags = (space === 'pio' ? IOEVENTFD_PIO : 0) | (value === undefined ? 0 : IOEVENTFD_DATAMATCH);
  const request = new DataView(new ArrayBuffer(64));
  request.setBigUint64(0, BigInt(value ?? 0), true);
  request.setBigUint64(8, BigInt(address), true);
  request.setUint32(16, size, true);
  request.setInt32(20, fd, true);
  request.setUint32(24, flags, true);
  native.ioctl(KVM_IOEVENTFD, request);
  return () => {
    request.setUint32(24, flags | IOEVENTFD_DEASSIGN, true);
    native.ioctl(KVM_IOEVENTFD, request);
  };
}

/** struct kvm_coalesced_mmio_ring: first, last, then entries of address, length, is-pio, data; words but for the data. */
const RING_FIRST = COALESCED_RING_BYTE / 4;
const RING_LAST = RING_FIRST + 1;
const RING_ENTRIES = RING_FIRST + 2;
const ENTRY_WORDS = 6;
const RING_CAPACITY = Math.floor((4096 - 8) / (4 * ENTRY_WORDS));

/** Writes that the kernel gathers in a ring (KVM API, section 4.116) until someone takes them to the bus. */
export class CoalescedWrites {
  readonly #native: NativeVm;
  readonly #words: Int32Array;
  readonly #bus: GuestBus;
  #flushing = false;
  /** Whether there are zones at all: without them nobody looks at the ring. */
  active = false;
  #zones = 0;

  /** @param page of any vCPU: there is one ring for the VM */
  constructor(native: NativeVm, page: ArrayBuffer, bus: GuestBus) {
    this.#native = native;
    this.#words = new Int32Array(page);
    this.#bus = bus;
  }

  register(space: 'pio' | 'mmio', address: number, size: number): () => void {
    const zone = new DataView(new ArrayBuffer(16));
    zone.setBigUint64(0, BigInt(address), true);
    zone.setUint32(8, size, true);
    zone.setUint32(12, space === 'pio' ? 1 : 0, true);
    this.#native.ioctl(KVM_REGISTER_COALESCED_MMIO, zone);
    this.active = ++this.#zones > 0;
    return () => {
      this.flush();
      this.#native.ioctl(KVM_UNREGISTER_COALESCED_MMIO, zone);
      this.active = --this.#zones > 0;
    };
  }

  /** Takes the gathered writes to the bus in order; a handler that flushes again does nothing. */
  flush(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    const words = this.#words;
    try {
      let first = words[RING_FIRST] ?? 0;
      while (first !== Atomics.load(words, RING_LAST)) {
        const entry = RING_ENTRIES + first * ENTRY_WORDS;
        const low = words[entry] ?? 0;
        const size = words[entry + 2] ?? 0;
        const data = words[entry + 4] ?? 0;
        const value = size === 1 ? data & 0xff : size === 2 ? data & 0xffff : data >>> 0;
        if (words[entry + 3] !== 0) {
          this.#bus.portWrite(low & 0xffff, size, value);
        } else {
          const address = (words[entry + 1] ?? 0) * 2 ** 32 + (low >>> 0);
          this.#bus.memoryWrite(address, size === 8 ? 4 : size, value);
          if (size === 8) this.#bus.memoryWrite(address + 4, 4, (words[entry + 5] ?? 0) >>> 0);
        }
        first = (first + 1) % RING_CAPACITY;
        Atomics.store(words, RING_FIRST, first);
      }
    } finally {
      this.#flushing = false;
    }
  }
}
