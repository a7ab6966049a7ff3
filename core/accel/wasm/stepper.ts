import type { GuestBus } from '../accelerator.ts';
import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';
import type { WasmCpu } from './cpu.ts';
import { type GuestMemory, SCRATCH } from './guest-memory.ts';
import { type Instruction, MAX_LENGTH, measure } from './instruction-length.ts';

const PAGE = 4096;
/** Scratch pages: the one with the instruction, and the one behind it. */
const HERE = SCRATCH;
const BEHIND = SCRATCH + PAGE;
const SCRATCH_END = SCRATCH + 2 * PAGE;
/** Where the guest's page tables seem to be; nothing on a PC is at these addresses. */
const DIRECTORY = 0xfee0_1000;
const TABLE = 0xfee0_2000;
/** Present, writable, user, accessed, dirty. */
const MAPPED = 0x67;
const LARGE = 0x80;
const CR0_PG = 1 << 31;
const CR4_PSE = 1 << 4;
const CR4_PAE = 1 << 5;
const EVERYTHING = 0xffc0_0000;

/** A page of E9h is a page of jumps, wherever one enters it, and where they lead tells where it was entered. */
const JUMP = 0xe9;
const JUMP_IMMEDIATE = 4;
const JUMP_32 = 5 + 0xe9e9_e9e9;
const JUMP_16 = 3 + 0xe9e9;

const STI = 0xfb;
const FLAG_IF = 1 << 9;
const FLAG_VM = 1 << 17;
const IOPL_SHIFT = 12;
const MOV_FROM_CR = 0x0f20;
const MOV_TO_CR = 0x0f22;
const JUMPS_TO_SELF = /^(?:7.|e[0-3b])$/;

/** A range of guest-physical addresses that a step is watched for touching. */
export interface Watch {
  readonly address: number;
  readonly length: number;
  readonly writesOnly: boolean;
}

/**
 * Executes one instruction. The module cannot: it runs blocks of them, and blocks end where the page ends. So the CPU sees no
 * RAM but through the bus, which is this object; and the page tables lead it, for code, to a page of jumps away with nothing
 * but the instruction in it. Its first fetch is when the module is told that this block is the last one.
 */
export class Stepper implements Pick<GuestBus, 'memoryRead' | 'memoryWrite'> {
  readonly #core: abi.Core;
  readonly #memory: CoreMemory;
  readonly #cpu: WasmCpu;
  readonly #ram: GuestMemory;
  readonly #bus: GuestBus;
  readonly #onStop: () => void;
  #instruction: Instruction = { length: 0, opcodeAt: 0, opcode: 0, repeated: false, operand32: false };
  #start = 0;
  #counterAtStart = 0;
  #executed = 0;
  /** Which page the walk under way is to end in: 0 for what the guest's own tables say. */
  #walkTo = 0;
  #highHalfAt = -1;
  #fetched = false;
  #fetchedBehind = false;
  #pageHere = -1;
  #pageBehind = -1;
  /** Where the two pages are in truth, or -1 where nothing is mapped. */
  readonly #true: [number, number] = [-1, -1];
  #paging = false;
  #watches: readonly Watch[] = [];
  #touched = -1;
  /** Whether no interrupt may come before the next instruction (Intel SDM volume 3, section 6.8.3). */
  shadow = false;

  /** @param onStop makes the module's next check come at once, and end the slice */
  constructor(
    instance: abi.Instance,
    memory: CoreMemory,
    cpu: WasmCpu,
    ram: GuestMemory,
    bus: GuestBus,
    onStop: () => void,
  ) {
    this.#core = instance.core;
    this.#memory = memory;
    this.#cpu = cpu;
    this.#ram = ram;
    this.#bus = bus;
    this.#onStop = onStop;
  }

  /**
   * Steps.
   * @param translate the guest's own translation
   * @param run runs the module's main loop once
   * @returns the index of the watch that was touched, or -1
   */
  step(translate: (linear: number) => number | undefined, watches: readonly Watch[], run: () => void): number {
    const memory = this.#memory;
    this.#start = memory.word(abi.INSTRUCTION_POINTER) >>> 0;
    const bits32 = memory.byte(abi.CODE_32) !== 0;
    const code = this.#copyCode(translate);
    this.#instruction = measure(code, bits32);
    this.#watches = watches;
    this.#touched = -1;
    this.shadow = this.#setInterruptFlag();
    if (this.shadow || this.#moveControlRegister(code)) return -1;
    this.#prepare(code, translate);
    const selfJump = this.#divertSelfJump(code);
    const saved = { cr0: memory.word(abi.CR), cr3: memory.word(abi.CR + 12), cr4: memory.word(abi.CR + 16) };
    const ramSize = memory.word(abi.RAM_SIZE);
    this.#paging = (saved.cr0 & CR0_PG) !== 0;
    if (!this.#paging) {
      memory.setWord(abi.CR, saved.cr0 | CR0_PG);
      memory.setWord(abi.CR + 12, DIRECTORY);
      memory.setWord(abi.CR + 16, (saved.cr4 & ~CR4_PAE) | CR4_PSE);
    }
    memory.setWord(abi.RAM_SIZE, 0);
    this.#core.set_jit_config(abi.JIT_CONFIG_DISABLED, 1);
    this.#cpu.forgetTranslations();
    this.#counterAtStart = memory.word(abi.INSTRUCTION_COUNTER);
    try {
      run();
    } finally {
      // The counter has 32 bits, and each step may take it a whole check further.
      const counted = (memory.word(abi.INSTRUCTION_COUNTER) - this.#counterAtStart) >>> 0;
      this.#executed = counted % abi.INSTRUCTIONS_PER_CHECK;
      memory.setWord(abi.RAM_SIZE, ramSize);
      if (!this.#paging) {
        memory.setWord(abi.CR, memory.word(abi.CR) & ~CR0_PG);
        memory.setWord(abi.CR + 12, saved.cr3);
        memory.setWord(abi.CR + 16, saved.cr4);
      }
      this.#core.set_jit_config(abi.JIT_CONFIG_DISABLED, 0);
    }
    const landing = this.#landing(selfJump);
    memory.setWord(abi.INSTRUCTION_POINTER, landing);
    memory.setWord(abi.PREVIOUS_IP, landing);
    this.#cpu.forgetTranslations();
    return this.#touched;
  }

  // --- what the module reads and writes meanwhile

  memoryRead(address: number, size: number): number {
    const walk = this.#walk(address, size);
    if (walk !== undefined) return walk;
    const data = this.#behindScratch(address);
    if (data === undefined) return this.#load(address - 2 ** 32, size);
    this.#watch(data, size, false);
    return this.#isRam(data, size) ? this.#load(data, size) : this.#bus.memoryRead(data, size);
  }

  memoryWrite(address: number, size: number, value: number): void {
    this.#watch(address, size, true);
    if (!this.#isRam(address, size)) {
      this.#bus.memoryWrite(address, size, value);
      return;
    }
    const { view } = this.#memory;
    const at = this.#ram.base + address;
    if (size === 1) view.setUint8(at, value);
    else if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    this.#core.jit_dirty_cache(address, address + size);
  }

  /** Answers reads of page tables on behalf of instruction fetches, and all where paging is off; else undefined. */
  #walk(address: number, size: number): number | undefined {
    if (size !== 4) return undefined;
    if (address === this.#highHalfAt) {
      this.#highHalfAt = -1;
      return 0;
    }
    if (address >= TABLE && address < TABLE + PAGE) {
      if ((address & 4) !== 0 && this.#pae) return 0;
      return (this.#walkTo & ~0xfff) | MAPPED;
    }
    if (!this.#isDirectoryOf(address)) return undefined;
    const page = this.#fetchTarget();
    if (page === 0) {
      if (this.#paging) return undefined;
      return ((((address - DIRECTORY) / 4) << 22) & EVERYTHING) | MAPPED | LARGE;
    }
    this.#walkTo = page;
    if (this.#pae) this.#highHalfAt = address + 4;
    return TABLE | MAPPED;
  }

  get #pae(): boolean {
    return this.#paging && (this.#memory.word(abi.CR + 16) & CR4_PAE) !== 0;
  }

  /** Whether `address` is the page directory's entry for the code at the instruction pointer, or any without paging. */
  #isDirectoryOf(address: number): boolean {
    if (!this.#paging) return address >= DIRECTORY && address < DIRECTORY + PAGE;
    const linear = this.#memory.word(abi.INSTRUCTION_POINTER) >>> 0;
    if (!this.#pae) return address === ((this.#memory.word(abi.CR + 12) & ~0xfff) >>> 0) + 4 * (linear >>> 22);
    const directory = (this.#memory.word(abi.PDPTE + 8 * (linear >>> 30)) & ~0xfff) >>> 0;
    return address === directory + 8 * ((linear >>> 21) & 0x1ff);
  }

  /** Which page an instruction is being fetched from, if that is what the walk is for, and 0 if it is not. */
  #fetchTarget(): number {
    const memory = this.#memory;
    const ip = memory.word(abi.INSTRUCTION_POINTER) >>> 0;
    const page = ip >>> 12;
    if (memory.word(abi.CODE_PAGE) === (ip & ~0xfff)) return 0;
    const opcode = memory.word(abi.PREVIOUS_IP) >>> 0 === ip;
    if (page === this.#pageHere) {
      if (this.#fetched || !opcode) return 0;
      this.#fetched = true;
      this.#onStop();
      return this.#true[0] < 0 ? 0 : HERE;
    }
    if (page !== this.#pageBehind || opcode || this.#fetchedBehind) return 0;
    this.#fetchedBehind = true;
    const crosses = (this.#start & 0xfff) + this.#instruction.length > PAGE;
    return crosses && this.#true[1] < 0 ? 0 : BEHIND;
  }

  /** The module has stopped where the instruction led, or one jump further. */
  #landing(selfJump: number | undefined): number {
    const memory = this.#memory;
    const ip = memory.word(abi.INSTRUCTION_POINTER) >>> 0;
    const behind = (this.#start + this.#instruction.length) >>> 0;
    const entered = this.#entrance(ip);
    // A repeated string instruction counts once for each page that it works on.
    const jumped = this.#instruction.repeated ? entered === behind : this.#executed > 1;
    const landing = jumped ? entered : ip;
    return landing === selfJump ? this.#start : landing;
  }

  /** Where on the pages of jumps the path that ended at `ip` began: just before the instruction, whose bytes it took, or else. */
  #entrance(ip: number): number {
    const memory = this.#memory;
    const base = memory.word(abi.SEGMENT_BASE + 4 * abi.CS);
    const bits32 = memory.byte(abi.CODE_32) !== 0;
    for (let distance = 1; distance <= JUMP_IMMEDIATE; distance++) {
      const from = (this.#start - distance) >>> 0;
      if (from >>> 12 === this.#pageHere && this.#follow(from, base, bits32) === ip) return from;
    }
    const offset = ip - base;
    return (base + (bits32 ? (offset - JUMP_32) | 0 : (offset - JUMP_16) & 0xffff)) >>> 0;
  }

  /** Follows jumps from `linear` until they leave the page. */
  #follow(linear: number, base: number, bits32: boolean): number {
    const { view } = this.#memory;
    const page = this.#ram.base + HERE - 2 ** 32;
    for (let count = 1; count < this.#executed; count++) {
      const at = page + (linear & 0xfff) + 1;
      if (bits32) linear = (linear + 5 + view.getInt32(at, true)) >>> 0;
      else linear = (base + ((linear - base + 3 + view.getInt16(at, true)) & 0xffff)) >>> 0;
    }
    return linear;
  }

  // --- scratch pages

  #copyCode(translate: (linear: number) => number | undefined): Uint8Array {
    const code = new Uint8Array(MAX_LENGTH + 1);
    for (let index = 0; index < MAX_LENGTH; index++) {
      const gpa = translate((this.#start + index) >>> 0);
      if (gpa === undefined) break;
      code[index] = this.#ram.byteAt(gpa) ?? this.#bus.memoryRead(gpa, 1);
    }
    return code;
  }

  #prepare(code: Uint8Array, translate: (linear: number) => number | undefined): void {
    this.#fetched = false;
    this.#fetchedBehind = false;
    this.#walkTo = 0;
    this.#highHalfAt = -1;
    this.#pageHere = this.#start >>> 12;
    this.#pageBehind = ((this.#start >>> 12) + 1) & 0xf_ffff;
    const { bytes } = this.#memory;
    const at = this.#ram.base + HERE - 2 ** 32;
    bytes.fill(JUMP, at, at + 2 * PAGE);
    // The two pages are neighbours, as in the guest.
    bytes.set(code.subarray(0, this.#instruction.length), at + (this.#start & 0xfff));
    this.#true[0] = translate((this.#pageHere << 12) >>> 0) ?? -1;
    this.#true[1] = translate((this.#pageBehind << 12) >>> 0) ?? -1;
  }

  /** A short jump to itself would go on forever: it is made to land further on. Returns where. */
  #divertSelfJump(code: Uint8Array): number | undefined {
    const { opcode, opcodeAt, length } = this.#instruction;
    if (!JUMPS_TO_SELF.test(opcode.toString(16)) || code[opcodeAt + 1] !== 256 - length) return undefined;
    const onward = (this.#start & 0xfff) < PAGE / 2 ? 0x40 : 0xc0;
    const at = this.#ram.base + HERE - 2 ** 32 + (this.#start & 0xfff);
    this.#memory.setByte(at + opcodeAt + 1, onward);
    return (this.#start + length + ((onward << 24) >> 24)) >>> 0;
  }

  /** The true address of data on a page that code is fetched from; undefined for the rest of an instruction itself. */
  #behindScratch(address: number): number | undefined {
    if (address < HERE || address >= SCRATCH_END) return address;
    const ip = this.#memory.word(abi.INSTRUCTION_POINTER) >>> 0;
    const executing = this.#memory.word(abi.PREVIOUS_IP) >>> 0 === this.#start;
    if (!executing || ip < this.#start + this.#instruction.length) return undefined;
    const page = this.#true[address >= BEHIND ? 1 : 0];
    return page < 0 ? undefined : page + (address & 0xfff);
  }

  #isRam(address: number, size: number): boolean {
    if (address >= abi.VIDEO_WINDOW && address < abi.VIDEO_WINDOW_END) return false;
    return address + size <= this.#ram.size;
  }

  #load(address: number, size: number): number {
    const { view } = this.#memory;
    const at = this.#ram.base + address;
    return size === 1 ? view.getUint8(at) : size === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
  }

  #watch(address: number, size: number, write: boolean): void {
    for (const [index, watch] of this.#watches.entries()) {
      if (watch.writesOnly && !write) continue;
      if (address < watch.address + watch.length && watch.address < address + size) this.#touched = index;
    }
  }

  /**
   * Opens the CPU for interrupts, as STI does, whose shadow is the module's own: it executes the next instruction with it.
   * False where the instruction is another one, or changes nothing, or faults.
   */
  #setInterruptFlag(): boolean {
    const memory = this.#memory;
    const flags = memory.word(abi.FLAGS);
    const allowed = memory.byte(abi.PROTECTED_MODE) === 0 || memory.byte(abi.CPL) <= ((flags >>> IOPL_SHIFT) & 3);
    if (this.#instruction.opcode !== STI || (flags & (FLAG_IF | FLAG_VM)) !== 0 || !allowed) return false;
    memory.setWord(abi.FLAGS, flags | FLAG_IF);
    this.#goOn();
    return true;
  }

  #goOn(): void {
    const next = this.#start + this.#instruction.length;
    this.#memory.setWord(abi.INSTRUCTION_POINTER, next);
    this.#memory.setWord(abi.PREVIOUS_IP, next);
    this.#cpu.forgetTranslations();
  }

  // --- instructions that would see through it

  /** MOV to and from control registers (Intel SDM volume 2, MOV-Move to/from Control Registers). */
  #moveControlRegister(code: Uint8Array): boolean {
    const { opcode, opcodeAt } = this.#instruction;
    const memory = this.#memory;
    if ((opcode !== MOV_FROM_CR && opcode !== MOV_TO_CR) || memory.byte(abi.CPL) !== 0) return false;
    const modRm = code[opcodeAt + 1] ?? 0;
    const register = abi.GPR + 4 * (modRm & 7);
    const number = (modRm >> 3) & 7;
    if (opcode === MOV_FROM_CR) memory.setWord(register, memory.word(abi.CR + 4 * number));
    else this.#cpu.setControlRegister(number, memory.word(register));
    this.#goOn();
    return true;
  }
}
