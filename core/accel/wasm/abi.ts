import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { SouthbridgeError } from '../../errors.ts';
import { correct } from './corrections.ts';
import { INTERRUPT_PENDING, withoutChips } from './own-chips.ts';

export { ASK_CPUID, ASK_INTERRUPT, ASK_RDMSR, INTERRUPT_PENDING } from './own-chips.ts';

/**
 * The undocumented interface of `v86.wasm`, all of it: what the module imports and exports, where its CPU keeps which
 * register, and the layout of its interrupt controllers. It belongs to exactly one version, which {@link load} checks.
 */
export const VERSION = '0.5.462';

// --- guest-physical addresses that the module decodes itself

/** The legacy video window: never RAM, whatever is behind it. */
export const VIDEO_WINDOW = 0xa_0000;
export const VIDEO_WINDOW_END = 0xc_0000;
/** Option ROMs and BIOS: plain RAM to the module. */
export const SHADOW_END = 0x10_0000;
/** RAM ends below 2 GiB: the module computes host pointers in 31 bits. */
export const MAX_RAM = 2 ** 31 - 0x2_0000;

// --- the CPU's state, as byte offsets into the module's memory

export const GPR = 64;
export const LAST_OP_SIZE = 96;
/** Bitmap of arithmetic flags that are to be computed from the last operation. */
export const FLAGS_CHANGED = 100;
export const LAST_OP1 = 104;
export const LAST_RESULT = 112;
export const FLAGS = 120;
export const SEGMENT_ACCESS = 512;
/** The guest's IA32_APIC_BASE.EN. */
export const APIC_ENABLED = 548;
/** Whether there are a local APIC and an IOAPIC at all. */
export const APIC_PRESENT = 552;
/** Linear, not relative to CS. */
export const INSTRUCTION_POINTER = 556;
export const PREVIOUS_IP = 560;
export const IDTR_LIMIT = 564;
export const IDTR_BASE = 568;
export const GDTR_LIMIT = 572;
export const GDTR_BASE = 576;
export const CR = 580;
export const CPL = 612;
export const HALTED = 616;
/** The page that instructions come from, and what its linear and physical address differ by; -1 for unknown. */
export const CODE_PAGE = 620;
export const CODE_DISTANCE = 624;
export const PREFIXES = 648;
/** Instructions retired, modulo 2^32; compiled code adds its share when it returns. */
export const INSTRUCTION_COUNTER = 664;
export const SELECTORS = 668;
export const DR = 684;
export const SEGMENT_IS_NULL = 724;
export const SEGMENT_BASE = 736;
export const SEGMENT_LIMIT = 768;
export const PROTECTED_MODE = 800;
export const CODE_32 = 804;
export const STACK_32 = 808;
export const RAM_SIZE = 812;
/** One bit for each physical x87 register. */
export const FPU_EMPTY = 816;
export const MXCSR = 824;
export const XMM = 832;
export const TSC = 960;
export const PDPTE = 968;
export const FPU_TOP = 1032;
export const FPU_CONTROL = 1036;
export const FPU_STATUS = 1040;
export const FPU_OPCODE = 1044;
export const FPU_IP = 1048;
export const FPU_IP_SELECTOR = 1052;
export const FPU_DP = 1056;
export const FPU_DP_SELECTOR = 1060;
export const TSS_32 = 1128;
/** Eight registers of 16 bytes: mantissa, then sign and exponent. */
export const FPU_ST = 1152;
export const FPU_ST_STRIDE = 16;

/** All of the above, as one stretch. */
export const STATE_START = 64;
export const STATE_END = 1280;

/** What the TSC has over it: outside of that stretch, 64 bits. */
export const TSC_OFFSET = 37352;

/** The order of the segment arrays. */
export const ES = 0;
export const CS = 1;
export const SS = 2;
export const DS = 3;
export const FS = 4;
export const GS = 5;
export const TR = 6;
export const LDTR = 7;

// --- interrupt controllers: byte offsets into what get_pic_addr_* and so on point at

export const PIC_SIZE = 13;
/** Inverted: set bits are enabled. */
export const PIC_ENABLED = 0;
export const PIC_VECTOR = 1;
export const PIC_ISR = 2;
export const PIC_IRR = 3;
export const PIC_ICW_STATE = 7;
export const PIC_AUTO_EOI = 9;
export const PIC_ELCR = 10;
export const PIC_LEVELS = 11;

export const LAPIC_SIZE = 4 * 46;
/** A double: milliseconds of the module's clock. */
export const LAPIC_TIMER_LAST_TICK = 24;
export const LAPIC_IRR = 4 * 16;
export const LAPIC_TMR = 4 * 32;

export const IOAPIC_SIZE = 4 * 52;
export const IOAPIC_PINS = 24;
/** Low halves of the redirection table; the high halves follow. */
export const IOAPIC_REDIRECTION = 0;
export const IOAPIC_IRR = 4 * 50;
export const IOAPIC_LEVELS = 4 * 51;

// --- run loop

/** `main_loop` looks at the clock, timers and interrupts after this many instructions. */
export const INSTRUCTIONS_PER_CHECK = 100_003;
/** TSC ticks, and local APIC timer ticks, per millisecond of `microtick`. */
export const TICKS_PER_MS = 1_000_000;
/** `main_loop` returns after this much of `microtick`, in milliseconds. */
export const SLICE_MS = 1;

// --- compiled code

/** Compiled code lives in the function table from here on. */
export const TABLE_OFFSET = 1024;
export const TABLE_SIZE = 900;
/** What a compiled module imports, and the function that it exports. */
export const JIT_NAMESPACE = 'e';
export const JIT_MEMORY = 'm';
export const JIT_ENTRY = 'f';
/** `set_jit_config(JIT_CONFIG_DISABLED, 1)` leaves the interpreter only. */
export const JIT_CONFIG_DISABLED = 0;

/** What the module calls. Addresses, values and pointers arrive as signed 32-bit numbers. */
export interface Imports {
  /** Milliseconds, monotonic, with a fraction: feeds TSC and local APIC timer, and ends slices. */
  microtick(): number;
  /** Timers may fire and interrupts be raised here, and nowhere else. Returns milliseconds until the next timer. */
  run_hardware_timers(apic: number, now: number): number;
  cpu_event_halt(): void;
  stop_idling(): void;
  get_rand_int(): number;
  io_port_read8(port: number): number;
  io_port_read16(port: number): number;
  io_port_read32(port: number): number;
  io_port_write8(port: number, value: number): void;
  io_port_write16(port: number, value: number): void;
  io_port_write32(port: number, value: number): void;
  mmap_read8(address: number): number;
  mmap_read32(address: number): number;
  mmap_write8(address: number, value: number): void;
  mmap_write16(address: number, value: number): void;
  mmap_write32(address: number, value: number): void;
  mmap_write64(address: number, low: number, high: number): void;
  mmap_write128(address: number, a: number, b: number, c: number, d: number): void;
  /** A module is ready to be compiled. The JIT is locked: `codegen_finalize_finished` must wait. */
  codegen_finalize(index: number, start: number, stateFlags: number, pointer: number, length: number): void;
  jit_clear_func(index: number): void;
  console_log_from_wasm(pointer: number, length: number): void;
}

const IMPORTED = [
  'microtick',
  'run_hardware_timers',
  'cpu_event_halt',
  'stop_idling',
  'get_rand_int',
  'io_port_read8',
  'io_port_read16',
  'io_port_read32',
  'io_port_write8',
  'io_port_write16',
  'io_port_write32',
  'mmap_read8',
  'mmap_read32',
  'mmap_write8',
  'mmap_write16',
  'mmap_write32',
  'mmap_write64',
  'mmap_write128',
  'codegen_finalize',
  'jit_clear_func',
  'console_log_from_wasm',
] as const satisfies readonly (keyof Imports)[];
const TABLE = '__indirect_function_table';

const EXPORTED = [
  'rust_init',
  'v86_malloc',
  'v86_free',
  'allocate_memory',
  'reset_cpu',
  'main_loop',
  'handle_irqs',
  'device_raise_irq',
  'device_lower_irq',
  'apic_timer',
  'get_pic_addr_master',
  'get_pic_addr_slave',
  'get_apic_addr',
  'get_ioapic_addr',
  'read32s',
  'get_eflags',
  'get_real_eip',
  'update_state_flags',
  'full_clear_tlb',
  'set_tsc',
  'store_current_tsc',
  'jit_dirty_cache',
  'jit_clear_cache_js',
  'codegen_finalize_finished',
  'set_jit_config',
  'instr_0FA2',
  'instr_0F32',
  'safe_read8_slow_jit',
  'safe_read16_slow_jit',
  'safe_read_write8_slow_jit',
  'safe_read_write16_slow_jit',
] as const;

/** What compiled code calls to read where it cannot read directly, and how many bytes. */
export const JIT_READS = [
  ['safe_read8_slow_jit', 1],
  ['safe_read16_slow_jit', 2],
  ['safe_read_write8_slow_jit', 1],
  ['safe_read_write16_slow_jit', 2],
] as const;

/** The exported functions in use here. */
export type Core = Readonly<Record<(typeof EXPORTED)[number], (...args: number[]) => number>>;

/** One instance of the module. */
export interface Instance {
  readonly core: Core;
  readonly memory: WebAssembly.Memory;
  readonly table: WebAssembly.Table;
  /** What compiled code may import. */
  readonly forCompiledCode: Record<string, WebAssembly.ImportValue>;
}

/** The module with and without its interrupt controllers. */
const compiled = new Map<boolean, WebAssembly.Module>();

/**
 * Compiles the module, once for the process.
 * @param chips whether it is to have interrupt controllers
 * @throws SouthbridgeError ERR_WASM_MISSING where the package is not installed, ERR_WASM_VERSION where it is not the version
 *   that this file describes, ERR_WASM_ABI where it imports or exports something else
 */
export function load(chips = true): WebAssembly.Module {
  const known = compiled.get(chips);
  if (known !== undefined) return known;
  const require = createRequire(import.meta.url);
  let path: string;
  let version: string;
  try {
    path = require.resolve('v86/build/v86.wasm');
    version = packageVersion(readFileSync(require.resolve('v86/package.json'), 'utf8'));
  } catch (cause) {
    throw new SouthbridgeError(
      'ERR_WASM_MISSING',
      "the npm package 'v86' is not installed",
      `npm install v86@${VERSION}`,
      {
        cause,
      },
    );
  }
  if (version.split('+')[0] !== VERSION) {
    throw new SouthbridgeError(
      'ERR_WASM_VERSION',
      `v86 is version ${version}, and its memory layout is known for ${VERSION} only`,
      `npm install v86@${VERSION}`,
    );
  }
  const bytes = readFileSync(path);
  const wrong = correct(bytes);
  if (wrong !== undefined) throw shapeError(wrong);
  const changed = chips ? bytes : withoutChips(bytes);
  if (typeof changed === 'string') throw shapeError(changed);
  const module = new WebAssembly.Module(changed);
  checkShape(module);
  compiled.set(chips, module);
  return module;
}

/** Makes an instance; its function table is its own. */
export function instantiate(module: WebAssembly.Module, imports: Imports): Instance {
  const table = new WebAssembly.Table({ element: 'anyfunc', initial: TABLE_OFFSET + TABLE_SIZE });
  const env: Record<string, WebAssembly.ImportValue> = { [TABLE]: table };
  for (const name of IMPORTED) env[name] = imports[name].bind(imports);
  const { exports } = new WebAssembly.Instance(module, { env });
  const { memory } = exports;
  if (!(memory instanceof WebAssembly.Memory)) throw shapeError("'memory' is not a memory");
  const forCompiledCode: Record<string, WebAssembly.ImportValue> = { [JIT_MEMORY]: memory };
  for (const [name, value] of Object.entries(exports)) if (typeof value === 'function') forCompiledCode[name] = value;
  const core = Object.fromEntries(EXPORTED.map(name => [name, exports[name]]));
  if (!isCore(core)) throw shapeError('an export is not a function');
  core.rust_init();
  return { core, memory, table, forCompiledCode };
}

/**
 * Resets a new CPU and looks for values that every reset leaves behind, each where this file says that it is.
 * @throws SouthbridgeError ERR_WASM_ABI where one is not there
 */
export function checkLayout({ core, memory }: Instance): void {
  core.reset_cpu();
  const view = new DataView(memory.buffer);
  const expected: readonly (readonly [name: string, offset: number, value: number])[] = [
    ['EIP', INSTRUCTION_POINTER, 0xf_fff0],
    ['CR0', CR, 0x6000_0010],
    ['DR6', DR + 4 * 6, 0xffff_0ff0],
    ['DR7', DR + 4 * 7, 0x400],
    ['ESP', GPR + 4 * 4, 0x100],
    ['base of CS', SEGMENT_BASE + 4 * CS, 0xf_0000],
    ['CS and SS', SELECTORS + 2 * CS, 0x30_f000],
    ['EFLAGS', FLAGS, 2],
    ['MXCSR', MXCSR, 0x1f80],
    ['FCW', FPU_CONTROL, 0x37f],
    ['the x87 tags', FPU_EMPTY, 0xff],
    ['the code page', CODE_PAGE, 0xffff_ffff],
    ['the IOAPIC', core.get_ioapic_addr() + IOAPIC_REDIRECTION, 0x1_0000],
  ];
  if (core.get_pic_addr_master() + PIC_IRR !== INTERRUPT_PENDING) throw shapeError('its 8259A is somewhere else');
  for (const [name, offset, value] of expected) {
    const found = view.getUint32(offset, true);
    if (found !== value)
      throw shapeError(`${name} reads 0x${found.toString(16)} after a reset, not 0x${value.toString(16)}`);
  }
}

function checkShape(module: WebAssembly.Module): void {
  const imported = WebAssembly.Module.imports(module).map(({ name }) => name);
  const unknown = imported.filter(name => name !== TABLE && !IMPORTED.some(known => known === name));
  if (unknown.length > 0) throw shapeError(`it imports ${unknown.join(', ')}`);
  const exported = new Set(WebAssembly.Module.exports(module).map(({ name }) => name));
  const missing = EXPORTED.filter(name => !exported.has(name));
  if (missing.length > 0) throw shapeError(`it does not export ${missing.join(', ')}`);
}

function isCore(exports: Record<string, unknown>): exports is Record<string, unknown> & Core {
  return EXPORTED.every(name => typeof exports[name] === 'function');
}

function packageVersion(json: string): string {
  const parsed: unknown = JSON.parse(json);
  return typeof parsed === 'object' && parsed !== null && 'version' in parsed ? String(parsed.version) : 'unknown';
}

function shapeError(what: string): SouthbridgeError {
  return new SouthbridgeError(
    'ERR_WASM_ABI',
    `v86.wasm is not the one described here: ${what}`,
    `npm install v86@${VERSION}`,
  );
}
