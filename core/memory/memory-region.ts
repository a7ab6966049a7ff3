import { SouthbridgeError } from '../errors.ts';
import type { GuestRam } from './guest-ram.ts';
import { changed } from './transaction.ts';

/**
 * What serves guest accesses to an `io` region. Values are unsigned little-endian numbers of at most 32 bits; a 64-bit access
 * arrives as two of 32 bits, the low half first. Implementations never throw.
 */
export interface IoHandler {
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
}

/** Wraps what serves a region. */
export type IoLayer = (inner: IoHandler) => IoHandler;

/** The access sizes, in bytes, that something takes. */
export interface AccessSizes {
  readonly min: number;
  readonly max: number;
  /** Whether an access may start at an offset that is not a multiple of its size. */
  readonly unaligned: boolean;
}

export interface IoOptions {
  /** What the hardware decodes; wider accesses arrive as several, narrower ones are not decoded. Default: 1 to 4 bytes. */
  readonly valid?: Partial<AccessSizes>;
  /** What the handler implements; the core splits wider accesses and widens narrower ones. Default: 1 to 4 bytes. */
  readonly impl?: Partial<AccessSizes>;
}

export type RegionKind = 'container' | 'ram' | 'rom' | 'rom-device' | 'io' | 'alias';

const NO_HANDLER: IoHandler = { read: () => 0, write: () => {} };
const ANY_SIZE: AccessSizes = { min: 1, max: 4, unaligned: true };
const DEFAULT_IMPL: AccessSizes = { min: 1, max: 4, unaligned: false };

/** What a memory region tells when its place or contents change: the address spaces that show it. */
export interface RegionObserver {
  topologyChanged(): void;
}

/**
 * A stretch of an address space: RAM, ROM, registers, a container of others, or a window onto another region. Regions form
 * a tree; where siblings overlap, the higher priority is seen, and among equals the one added last.
 */
export class MemoryRegion {
  readonly name: string;
  readonly kind: RegionKind;
  readonly ram: GuestRam | undefined;
  /** What serves accesses, with all that was put before it. */
  #handler: IoHandler;
  readonly #served: IoHandler;
  readonly #layers: IoLayer[] = [];
  readonly valid: AccessSizes;
  readonly impl: AccessSizes;
  readonly aliasOf: MemoryRegion | undefined;
  /** Offset in the target of an alias, in bytes. */
  #aliasOffset = 0;
  #size: number;
  #offset = 0;
  #priority = 0;
  #enabled = true;
  #readonly: boolean;
  #romdMode = true;
  #parent: MemoryRegion | undefined;
  /** Seen first to seen last. */
  readonly #children: MemoryRegion[] = [];
  readonly #aliases = new Set<MemoryRegion>();
  readonly #observers = new Set<RegionObserver>();

  private constructor(
    name: string,
    kind: RegionKind,
    size: number,
    parts: { ram?: GuestRam; handler?: IoHandler; io?: IoOptions; aliasOf?: MemoryRegion; aliasOffset?: number } = {},
  ) {
    this.name = name;
    this.kind = kind;
    this.#size = size;
    this.ram = parts.ram;
    this.#served = parts.handler ?? NO_HANDLER;
    this.#handler = this.#served;
    // Most regions share one object, which then is in the processor's cache at each access.
    this.valid = parts.io?.valid === undefined ? ANY_SIZE : { ...ANY_SIZE, ...parts.io.valid };
    this.impl = parts.io?.impl === undefined ? DEFAULT_IMPL : { ...DEFAULT_IMPL, ...parts.io.impl };
    this.aliasOf = parts.aliasOf;
    this.#aliasOffset = parts.aliasOffset ?? 0;
    this.#readonly = kind === 'rom';
  }

  /** A region that only holds others. `size` in bytes. */
  static container(name: string, size: number): MemoryRegion {
    return new MemoryRegion(name, 'container', size);
  }

  static ram(ram: GuestRam, name: string = ram.name): MemoryRegion {
    return new MemoryRegion(name, 'ram', ram.size, { ram });
  }

  /** RAM to the host, read-only to the guest, whose writes are ignored. */
  static rom(ram: GuestRam, name: string = ram.name): MemoryRegion {
    return new MemoryRegion(name, 'rom', ram.size, { ram });
  }

  /** Read directly like ROM while in ROM mode; writes, and reads in the other mode, go to the handler: flash. */
  static romDevice(ram: GuestRam, handler: IoHandler, io?: IoOptions, name: string = ram.name): MemoryRegion {
    return new MemoryRegion(name, 'rom-device', ram.size, { ram, handler, ...(io && { io }) });
  }

  static io(name: string, size: number, handler: IoHandler, io?: IoOptions): MemoryRegion {
    return new MemoryRegion(name, 'io', size, { handler, ...(io && { io }) });
  }

  /** A window of `size` bytes onto `target` from `offset`. */
  static alias(name: string, target: MemoryRegion, offset: number, size: number): MemoryRegion {
    const region = new MemoryRegion(name, 'alias', size, { aliasOf: target, aliasOffset: offset });
    target.#aliases.add(region);
    return region;
  }

  get size(): number {
    return this.#size;
  }

  /** Offset in the parent, in bytes. */
  get offset(): number {
    return this.#offset;
  }

  get priority(): number {
    return this.#priority;
  }

  get enabled(): boolean {
    return this.#enabled;
  }

  get readonly(): boolean {
    return this.#readonly;
  }

  get aliasOffset(): number {
    return this.#aliasOffset;
  }

  get parent(): MemoryRegion | undefined {
    return this.#parent;
  }

  get children(): readonly MemoryRegion[] {
    return this.#children;
  }

  /** Whether reads come straight from memory. */
  get readsDirectly(): boolean {
    return this.ram !== undefined && (this.kind !== 'rom-device' || this.#romdMode);
  }

  /** Whether writes go straight to memory. */
  get writesDirectly(): boolean {
    return this.kind === 'ram' && !this.#readonly;
  }

  /**
   * Places `region` at `offset`.
   * @param priority where given, the region may overlap others; the higher is seen
   * @throws SouthbridgeError ERR_BUS_OVERLAP, naming both, where two regions without a priority overlap
   */
  add(region: MemoryRegion, offset: number, priority?: number): void {
    if (region.#parent !== undefined) {
      throw new SouthbridgeError('ERR_REGION_MAPPED', `'${region.name}' is already mapped in '${region.#parent.name}'`);
    }
    if (priority === undefined) this.#refuseOverlap(region, offset);
    region.#parent = this;
    region.#offset = offset;
    region.#priority = priority ?? 0;
    this.#insert(region);
    region.#changed();
  }

  remove(region: MemoryRegion): void {
    const index = this.#children.indexOf(region);
    if (index < 0) return;
    this.#children.splice(index, 1);
    region.#parent = undefined;
    this.#changed();
  }

  setEnabled(enabled: boolean): void {
    if (enabled === this.#enabled) return;
    this.#enabled = enabled;
    this.#changed();
  }

  /** Moves this region within its parent. */
  setOffset(offset: number): void {
    if (offset === this.#offset) return;
    this.#offset = offset;
    this.#changed();
  }

  setSize(size: number): void {
    if (size === this.#size) return;
    this.#size = size;
    this.#changed();
  }

  /** Makes guest writes to this stretch of RAM, or through this alias, ignored. */
  setReadonly(readonly: boolean): void {
    if (readonly === this.#readonly) return;
    this.#readonly = readonly;
    this.#changed();
  }

  setAliasOffset(offset: number): void {
    if (offset === this.#aliasOffset) return;
    this.#aliasOffset = offset;
    this.#changed();
  }

  /** Switches a ROM device between reading memory and reading its handler. */
  setRomdMode(direct: boolean): void {
    if (direct === this.#romdMode) return;
    this.#romdMode = direct;
    this.#changed();
  }

  observe(observer: RegionObserver): () => void {
    this.#observers.add(observer);
    return () => this.#observers.delete(observer);
  }

  get handler(): IoHandler {
    return this.#handler;
  }

  /** Puts `layer` between accesses and what serves them: recorders, injected faults. Returns how to take it out. */
  interpose(layer: IoLayer): () => void {
    this.#layers.push(layer);
    this.#stack();
    return () => {
      const index = this.#layers.indexOf(layer);
      if (index >= 0) this.#layers.splice(index, 1);
      this.#stack();
    };
  }

  #stack(): void {
    this.#handler = this.#layers.reduce((inner, layer) => layer(inner), this.#served);
  }

  /** Reads registers: splits and widens to what the handler implements. `size` is at most 4 bytes. */
  read(offset: number, size: number): number {
    const { impl, valid } = this;
    if (size < valid.min) return 0;
    if (size >= impl.min && size <= impl.max) return this.#handler.read(offset, size);
    const step = Math.max(Math.min(size, impl.max), impl.min);
    if (step >= size) {
      const value = this.#handler.read(offset, step);
      return size === 4 ? value >>> 0 : value & (size === 1 ? 0xff : 0xffff);
    }
    let value = 0;
    for (let at = 0; at < size; at += step) value |= this.#handler.read(offset + at, step) << (8 * at);
    return value >>> 0;
  }

  /** Writes registers; see {@link read}. */
  write(offset: number, size: number, value: number): void {
    const { impl, valid } = this;
    if (size < valid.min) return;
    if (size >= impl.min && size <= impl.max) return this.#handler.write(offset, size, value);
    const step = Math.max(Math.min(size, impl.max), impl.min);
    if (step >= size) return this.#handler.write(offset, step, value);
    const mask = step === 1 ? 0xff : 0xffff;
    for (let at = 0; at < size; at += step) this.#handler.write(offset + at, step, (value >>> (8 * at)) & mask);
  }

  /** Drops an alias for good, so that its target no longer tells it of changes. */
  dispose(): void {
    this.#parent?.remove(this);
    if (this.aliasOf !== undefined) this.aliasOf.#aliases.delete(this);
  }

  #insert(region: MemoryRegion): void {
    const index = this.#children.findIndex(sibling => sibling.#priority <= region.#priority);
    this.#children.splice(index < 0 ? this.#children.length : index, 0, region);
  }

  #refuseOverlap(region: MemoryRegion, offset: number): void {
    for (const sibling of this.#children) {
      if (sibling.#priority !== 0 || !sibling.#enabled) continue;
      if (offset >= sibling.#offset + sibling.#size || sibling.#offset >= offset + region.#size) continue;
      throw new SouthbridgeError(
        'ERR_BUS_OVERLAP',
        `'${region.name}' at ${range(offset, region.#size)} overlaps '${sibling.name}' at ${range(sibling.#offset, sibling.#size)} in '${this.name}'`,
        'move one of them, or map one with a priority',
      );
    }
  }

  #changed(): void {
    for (const observer of this.#observers) changed(observer);
    if (this.#parent !== undefined) this.#parent.#changed();
    for (const alias of this.#aliases) alias.#changed();
  }
}

function range(start: number, size: number): string {
  return `0x${start.toString(16)}-0x${(start + size - 1).toString(16)}`;
}
