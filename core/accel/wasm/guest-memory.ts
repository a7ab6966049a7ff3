import { SouthbridgeError } from '../../errors.ts';
import { preferHugePages } from '../../host/files.ts';
import type { GuestRam } from '../../memory/guest-ram.ts';
import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';

const PAGE_SHIFT = 12;
const PAGE = 1 << PAGE_SHIFT;
const SHADOW_PAGES = (abi.SHADOW_END - abi.VIDEO_WINDOW_END) / PAGE;
/** Bytes of RAM that something else may be shown over. */
export const SHADOW_SIZE = SHADOW_PAGES * PAGE;
const TOP = 2 ** 32;
/** How much of the address space's top the guest can execute from, in bytes. */
const TOP_WINDOW = 2 ** 20;
/** Guest-physical address of two pages below it that nothing is mapped to, for code of ours. */
export const SCRATCH = TOP - TOP_WINDOW - 2 * PAGE;
const WINDOW = TOP - SCRATCH;
/** The allocator's own words just below guest RAM, which stand for the last bytes below 4 GiB. */
const ALLOCATOR_WORDS = 8;
/** From the end of one block to a page-aligned one behind it. */
const BLOCK_GAP = 12;
const NOTHING = 0xff;

interface Mapping {
  readonly gpa: number;
  readonly size: number;
  readonly ram: GuestRam;
  readonly offset: number;
}

/** Guest RAM inside the module's memory. */
export class WasmRam implements GuestRam {
  readonly name: string;
  readonly size: number;
  readonly readonly = false;
  #memory: CoreMemory;
  #base: number;
  #bytes: Uint8Array = new Uint8Array(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  #moves = 0;

  constructor(name: string, size: number, memory: CoreMemory, base: number) {
    this.name = name;
    this.size = size;
    this.#memory = memory;
    this.#base = base;
  }

  get generation(): number {
    return this.#moves + this.#memory.generation;
  }

  get anchor(): object | undefined {
    return this.#memory.anchor;
  }

  get bytes(): Uint8Array {
    if (this.#bytes.length === 0) this.#replace();
    return this.#bytes;
  }

  get view(): DataView {
    if (this.#bytes.length === 0) this.#replace();
    return this.#view;
  }

  /** The RAM is at `base` of another instance from now on. */
  move(memory: CoreMemory, base: number): void {
    this.#moves += this.#memory.generation + 1;
    this.#memory = memory;
    this.#base = base;
    this.#bytes = new Uint8Array(0);
  }

  #replace(): void {
    const { buffer } = this.#memory.memory;
    this.#bytes = new Uint8Array(buffer, this.#base, this.size);
    this.#view = new DataView(buffer, this.#base, this.size);
  }
}

/**
 * The guest's physical memory as the module sees it: `size` bytes of RAM, in which C0000 to FFFFF shows whatever was mapped
 * there last. Everything else reaches the bus. The module fetches instructions above RAM from the bytes before it, modulo
 * 4 GiB, so a copy of the ROM that ends at 4 GiB is kept there.
 */
export class GuestMemory {
  readonly size: number;
  #memory: CoreMemory;
  #core: abi.Core;
  #base = 0;
  #ram: WasmRam | undefined;
  readonly #mappings: Mapping[] = [];
  /** What RAM holds under the shadow pages that show something else. */
  readonly #underneath = new Uint8Array(SHADOW_SIZE);
  readonly #covered = new Uint8Array(SHADOW_PAGES);
  /** Pages that the module has been told of and has compiled nothing since: telling it takes longer than writing a short frame. */
  readonly #codeless: Uint8Array;

  /** @throws SouthbridgeError ERR_RAM_ALLOCATION where the host has too little memory */
  constructor(instance: abi.Instance, memory: CoreMemory, size: number) {
    this.size = size;
    this.#codeless = new Uint8Array(Math.ceil(size / PAGE));
    this.#core = instance.core;
    this.#memory = memory;
    this.#base = this.#reserve();
  }

  /** Byte offset of guest-physical 0 in the module's memory. */
  get base(): number {
    return this.#base;
  }

  /** The one RAM block that the module runs from, or undefined where it is taken or `size` is another. */
  allocate(name: string, size: number): GuestRam | undefined {
    if (this.#ram !== undefined || size !== this.size) return undefined;
    this.#ram = new WasmRam(name, size, this.#memory, this.#base);
    return this.#ram;
  }

  map(gpa: number, ram: GuestRam, offset: number, size: number, readonly: boolean): void {
    if ((gpa | offset | size) % PAGE !== 0 || size <= 0 || offset + size > ram.size) {
      throw new SouthbridgeError(
        'ERR_RAM_ALIGNMENT',
        `RAM '${ram.name}' at 0x${gpa.toString(16)} is not made of whole pages`,
      );
    }
    const own = ram === this.#ram && offset === gpa;
    if (!own && !readonly && this.#inFixedRam(gpa, size)) {
      throw new SouthbridgeError(
        'ERR_RAM_MAP',
        `the wasm accelerator cannot map '${ram.name}' at 0x${gpa.toString(16)}: its own RAM is there`,
        'guest RAM starts at address 0 and comes from allocateRam',
      );
    }
    const mapping = { gpa, size, ram, offset };
    this.#mappings.push(mapping);
    this.#show(mapping);
  }

  unmap(gpa: number, size: number): void {
    const index = this.#mappings.findIndex(mapping => mapping.gpa === gpa && mapping.size === size);
    if (index < 0) {
      throw new SouthbridgeError('ERR_RAM_MAP', `there is no RAM of ${size} bytes at 0x${gpa.toString(16)} to unmap`);
    }
    this.#mappings.splice(index, 1);
    this.#eachShadowPage(gpa, size, (page, at) => {
      this.#cover(page);
      this.#memory.bytes.fill(NOTHING, this.#base + at, this.#base + at + PAGE);
    });
    this.dirty(gpa, size);
  }

  /** Undoes what the guest wrote into pages that are ROM: the module protects none. */
  restoreRoms(): void {
    for (const mapping of this.#mappings) if (mapping.ram !== this.#ram) this.#show(mapping);
  }

  /** Translated code of the stretch is stale. */
  dirty(gpa: number, length: number): void {
    if (gpa >= this.size || length <= 0) return;
    const end = Math.min(this.size, gpa + length);
    const last = (end - 1) >>> PAGE_SHIFT;
    for (let page = gpa >>> PAGE_SHIFT; page <= last; page++) {
      if (this.#codeless[page] !== 0) continue;
      this.#core.jit_dirty_cache(gpa, end);
      this.#codeless.fill(1, gpa >>> PAGE_SHIFT, last + 1);
      return;
    }
  }

  /** The module has compiled code: of what pages, it does not say. */
  codeCompiled(): void {
    this.#codeless.fill(0);
  }

  /** The byte at `gpa`, or undefined above RAM. */
  byteAt(gpa: number): number | undefined {
    return gpa < this.size ? this.#memory.bytes[this.#base + gpa] : this.#topByte(gpa);
  }

  /** RAM from C0000 to FFFFF, whatever is shown there. */
  saveShadowed(): Uint8Array {
    const saved = this.#underneath.slice();
    this.#eachShadowPage(0, this.size, (page, at) => {
      if (this.#covered[page] !== 0) return;
      saved.set(this.#memory.bytes.subarray(this.#base + at, this.#base + at + PAGE), page * PAGE);
    });
    return saved;
  }

  restoreShadowed(saved: Uint8Array): void {
    this.#underneath.set(saved);
    this.#eachShadowPage(0, this.size, (page, at) => {
      if (this.#covered[page] !== 0) return;
      this.#memory.bytes.set(saved.subarray(page * PAGE, (page + 1) * PAGE), this.#base + at);
    });
    this.restoreRoms();
  }

  /** Takes all of guest memory to a new instance, because the old one is broken. */
  moveTo(instance: abi.Instance, memory: CoreMemory): void {
    const old = this.#memory.bytes.subarray(this.#base - TOP_WINDOW, this.#base + this.size);
    this.#core = instance.core;
    this.#memory = memory;
    this.#base = this.#reserve();
    this.#codeless.fill(0);
    memory.bytes.set(old.subarray(0, TOP_WINDOW - ALLOCATOR_WORDS), this.#base - TOP_WINDOW);
    memory.bytes.set(old.subarray(TOP_WINDOW), this.#base);
    this.#ram?.move(memory, this.#base);
  }

  #show({ gpa, size, ram, offset }: Mapping): void {
    const own = ram === this.#ram && offset === gpa;
    this.#eachShadowPage(gpa, size, (page, at) => {
      if (own) this.#uncover(page);
      else {
        this.#cover(page);
        const from = offset + at - gpa;
        this.#memory.bytes.set(ram.bytes.subarray(from, from + PAGE), this.#base + at);
      }
    });
    this.#dirtyShadow(gpa, size);
    if (gpa + size === TOP && !own) {
      const shown = Math.min(size, TOP_WINDOW);
      const end = offset + size;
      this.#memory.bytes.set(ram.bytes.subarray(end - shown, end - ALLOCATOR_WORDS), this.#base - shown);
    }
  }

  #cover(page: number): void {
    if (this.#covered[page] !== 0) return;
    const at = this.#base + abi.VIDEO_WINDOW_END + page * PAGE;
    this.#underneath.set(this.#memory.bytes.subarray(at, at + PAGE), page * PAGE);
    this.#covered[page] = 1;
  }

  #uncover(page: number): void {
    if (this.#covered[page] === 0) return;
    const at = this.#base + abi.VIDEO_WINDOW_END + page * PAGE;
    this.#memory.bytes.set(this.#underneath.subarray(page * PAGE, (page + 1) * PAGE), at);
    this.#covered[page] = 0;
  }

  #eachShadowPage(gpa: number, size: number, action: (page: number, address: number) => void): void {
    const end = Math.min(gpa + size, abi.SHADOW_END, this.size);
    for (let at = Math.max(gpa, abi.VIDEO_WINDOW_END); at < end; at += PAGE) {
      action((at - abi.VIDEO_WINDOW_END) / PAGE, at);
    }
  }

  #dirtyShadow(gpa: number, size: number): void {
    const start = Math.max(gpa, abi.VIDEO_WINDOW_END);
    this.dirty(start, Math.min(gpa + size, abi.SHADOW_END) - start);
  }

  #inFixedRam(gpa: number, size: number): boolean {
    const end = Math.min(gpa + size, this.size);
    return gpa < end && (gpa < abi.VIDEO_WINDOW || end > abi.SHADOW_END);
  }

  #topByte(gpa: number): number | undefined {
    for (const { gpa: start, size, ram, offset } of this.#mappings) {
      if (gpa >= start && gpa < start + size) return ram.bytes[offset + gpa - start];
    }
    return undefined;
  }

  /** Allocates the window and RAM right behind it. */
  #reserve(): number {
    const probe = this.#core.v86_malloc(16);
    this.#core.v86_free(probe);
    const base = Math.ceil((probe + WINDOW + BLOCK_GAP) / PAGE) * PAGE;
    let found = 0;
    try {
      const window = this.#core.v86_malloc(base - BLOCK_GAP - probe);
      found = window === probe ? this.#core.allocate_memory(this.size) >>> 0 : 0;
    } catch (cause) {
      throw new SouthbridgeError(
        'ERR_RAM_ALLOCATION',
        `the host cannot set aside ${(this.size / 2 ** 20).toFixed(0)} MiB for guest RAM`,
        'ask for less with -m',
        { cause },
      );
    }
    if (found !== base) {
      throw new SouthbridgeError('ERR_WASM_ABI', 'guest RAM is not where the allocator of v86.wasm used to put it');
    }
    // A disk takes a long segment in half the time of the many short ones that small pages make of it.
    preferHugePages(this.#memory.bytes.subarray(base, base + this.size));
    this.#memory.setWord(abi.RAM_SIZE, this.size);
    this.#memory.bytes.fill(NOTHING, base - WINDOW, base - ALLOCATOR_WORDS);
    return base;
  }
}
