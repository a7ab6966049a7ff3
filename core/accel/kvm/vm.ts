import { SouthbridgeError } from '../../errors.ts';
import type { GuestRam } from '../../memory/guest-ram.ts';
import type { InterruptSource, Vcpu, Vm, VmOptions, VmStop } from '../accelerator.ts';
import { codeReport, registersReport } from '../registers-report.ts';
import * as abi from './abi.ts';
import { type Addon, isSystemError, loadAddon, type NativeScheduler, type NativeVm } from './addon.ts';
import { type CpuidEntry, cpuidTable, cpuModel, decodeCpuid } from './cpuid.ts';
import { ExitServer } from './exits.ts';
import { KvmVcpu, type VcpuHost } from './vcpu.ts';

const PAGE = 4096;
/** Three pages for a task state segment and one for an identity map, just below the BIOS: where QEMU has them too. */
const IDENTITY_MAP = 0xfeff_c000;
const TSS = 0xfeff_d000;
const CPUID_ROOM = 256;
/** CPU 0 and the event loop share this thread: see DESIGN.md, section 5. */
export interface RamSlot {
  readonly slot: number;
  readonly gpa: number;
  readonly size: number;
  readonly ram: GuestRam;
  readonly offset: number;
  readonly readonly: boolean;
}

/** A KVM virtual machine with one vCPU, which runs on the thread that owns the devices. */
export class KvmVm implements Vm, VcpuHost {
  readonly addon: Addon = loadAddon();
  readonly native: NativeVm;
  readonly irqchip: boolean;
  readonly msrs: readonly number[];
  readonly vcpus: readonly Vcpu[];
  readonly #options: VmOptions;
  readonly #cpus: readonly KvmVcpu[];
  readonly #scheduler: NativeScheduler;
  readonly #boot: KvmVcpu;
  readonly #exits: ExitServer;
  readonly #run: () => void;
  readonly #interrupts: InterruptSource | undefined;
  readonly #slots = new Map<number, RamSlot>();
  readonly #irqLine = new Uint32Array(2);
  readonly #msi = new DataView(new ArrayBuffer(32));
  readonly #vector = new Uint32Array(1);
  #running = false;
  #inSlice = false;
  #sliceWanted = false;
  #deadlineMoved = true;
  #unfinished = false;
  #resetWanted = false;
  #disposed = false;

  constructor(options: VmOptions) {
    this.#options = options;
    this.irqchip = options.irqchip;
    this.#interrupts = options.irqchip ? undefined : options.interrupts;
    const model = cpuModel(options.cpuModel ?? 'qemu64');
    this.native = new this.addon.KvmVm();
    this.native.ioctl(abi.KVM_SET_IDENTITY_MAP_ADDR, BigUint64Array.of(BigInt(IDENTITY_MAP)));
    this.native.ioctl(abi.KVM_SET_TSS_ADDR, TSS);
    if (options.irqchip) this.native.ioctl(abi.KVM_CREATE_IRQCHIP);
    if (options.irqchip && options.pit !== false) this.native.ioctl(abi.KVM_CREATE_PIT2, new Uint8Array(64));
    this.msrs = readMsrIndices(this.native);
    const supported = readSupportedCpuid(this.native);
    this.#cpus = Array.from({ length: options.cpus }, (_, index) => new KvmVcpu(this, index));
    this.vcpus = this.#cpus;
    for (const cpu of this.#cpus) cpu.powerUp(model, supported, options.cpus);
    const boot = this.#cpus[0];
    if (boot === undefined) throw new SouthbridgeError('ERR_VM_CPUS', 'a VM needs a CPU');
    this.#boot = boot;
    this.#exits = new ExitServer(boot.native.page, options.bus);
    this.#scheduler = new this.addon.Scheduler(() => this.#slice());
    this.#run = this.#scheduler.bind(boot.native);
    options.clock.onDeadline(() => {
      this.#deadlineMoved = true;
      if (!this.#inSlice && this.#running) this.#armDeadline();
    });
    options.interrupts?.onPending(() => {
      if (!this.#inSlice && this.#boot.waiting) this.#scheduler.wake();
    });
  }

  // --- memory

  mapRam(gpa: number, ram: GuestRam, offset: number, size: number, readonly: boolean): void {
    if ((gpa | offset | size) % PAGE !== 0 || size <= 0 || offset + size > ram.bytes.length) {
      throw new SouthbridgeError(
        'ERR_RAM_ALIGNMENT',
        `RAM '${ram.name}' at 0x${gpa.toString(16)} is not made of whole pages`,
      );
    }
    const slot = this.#freeSlot();
    try {
      this.native.setMemory(
        slot,
        readonly ? abi.KVM_MEM_READONLY : 0,
        gpa,
        ram.bytes.subarray(offset, offset + size),
        size,
      );
    } catch (cause) {
      const why = isSystemError(cause) ? cause.code : String(cause);
      throw new SouthbridgeError(
        'ERR_RAM_MAP',
        `KVM cannot map ${size} bytes of '${ram.name}' at 0x${gpa.toString(16)}: ${why}`,
        undefined,
        { cause },
      );
    }
    this.#slots.set(gpa, { slot, gpa, size, ram, offset, readonly });
  }

  unmapRam(gpa: number, size: number): void {
    const slot = this.#slots.get(gpa);
    if (slot === undefined || slot.size !== size) {
      throw new SouthbridgeError('ERR_RAM_MAP', `there is no RAM of ${size} bytes at 0x${gpa.toString(16)} to unmap`);
    }
    this.native.setMemory(slot.slot, 0, gpa, undefined, 0);
    this.#slots.delete(gpa);
  }

  dmaWritten(): void {}

  #freeSlot(): number {
    const used = new Set([...this.#slots.values()].map(slot => slot.slot));
    let slot = 0;
    while (used.has(slot)) slot++;
    return slot;
  }

  // --- interrupts

  setIrq(gsi: number, level: boolean): void {
    if (this.#disposed) return;
    this.#irqLine[0] = gsi;
    this.#irqLine[1] = level ? 1 : 0;
    this.native.ioctl(abi.KVM_IRQ_LINE, this.#irqLine);
  }

  injectMsi(address: number, data: number): void {
    this.#msi.setUint32(0, address % 2 ** 32, true);
    this.#msi.setUint32(4, Math.floor(address / 2 ** 32), true);
    this.#msi.setUint32(8, data, true);
    this.native.ioctl(abi.KVM_SIGNAL_MSI, this.#msi);
  }

  injectNmi(): void {
    for (const cpu of this.#cpus) {
      cpu.native.ioctl(abi.KVM_NMI);
      cpu.waiting = false;
    }
    this.kick();
  }

  // --- running

  start(): void {
    if (this.#running || this.#disposed) return;
    this.#running = true;
    this.#scheduler.setRef(true);
    this.#scheduler.wake();
  }

  pause(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#scheduler.setRef(false);
    if (!this.#inSlice) this.#finishInstruction();
  }

  kick(): void {
    this.#sliceWanted = true;
    if (!this.#inSlice && this.#running) this.#scheduler.wake();
  }

  reset(): void {
    if (this.#inSlice) {
      this.#resetWanted = true;
      this.#sliceWanted = true;
      return;
    }
    this.#finishInstruction();
    this.#resetNow();
  }

  dispose(): void {
    if (this.#disposed) return;
    this.pause();
    this.#disposed = true;
    this.#scheduler.close();
    for (const cpu of this.#cpus) cpu.native.close();
    this.native.close();
    this.#slots.clear();
  }

  settled<T>(_cpu: KvmVcpu, action: () => T): T {
    if (!this.#inSlice) this.#finishInstruction();
    return action();
  }

  #slice(): void {
    if (!this.#running) return;
    this.#inSlice = true;
    this.#sliceWanted = false;
    try {
      this.#expireTimers();
      if (this.#interrupts === undefined) this.#enterRepeatedly();
      else this.#enterWithInterrupts(this.#interrupts);
    } finally {
      this.#inSlice = false;
      this.#endSlice();
    }
  }

  #endSlice(): void {
    if (this.#disposed) return;
    if (this.#resetWanted || !this.#running) this.#finishInstruction();
    if (this.#resetWanted) this.#resetNow();
    if (this.#running && !this.#boot.waiting) this.#scheduler.wake();
  }

  /** The hot loop where interrupts are the kernel's. */
  #enterRepeatedly(): void {
    const run = this.#run;
    const exits = this.#exits;
    const words = exits.words;
    while (!this.#sliceWanted && this.#running) {
      if (this.#deadlineMoved) this.#armDeadline();
      run();
      const reason = words[abi.RUN_EXIT_REASON];
      if (reason === abi.EXIT_IO) exits.io();
      else if (reason === abi.EXIT_MMIO) exits.mmio();
      else if (!this.#otherExit(reason ?? 0)) break;
    }
    this.#unfinished = true;
  }

  /** The same where they are ours: one may be injected before each entry (KVM API, section 4.16). */
  #enterWithInterrupts(interrupts: InterruptSource): void {
    const run = this.#run;
    const { words, bytes } = this.#exits;
    while (!this.#sliceWanted && this.#running) {
      if (this.#deadlineMoved) this.#armDeadline();
      if (this.#boot.waiting) {
        if (!interrupts.pending || bytes[abi.RUN_IF_FLAG_BYTE] === 0) break;
        this.#boot.waiting = false;
      }
      if (interrupts.pending) {
        if (bytes[abi.RUN_READY_FOR_INTERRUPT_BYTE] !== 0) this.#inject(interrupts.acknowledge());
        bytes[abi.RUN_REQUEST_INTERRUPT_WINDOW_BYTE] = interrupts.pending ? 1 : 0;
      } else {
        bytes[abi.RUN_REQUEST_INTERRUPT_WINDOW_BYTE] = 0;
      }
      run();
      const reason = words[abi.RUN_EXIT_REASON];
      if (reason === abi.EXIT_IO) this.#exits.io();
      else if (reason === abi.EXIT_MMIO) this.#exits.mmio();
      else if (!this.#otherExit(reason ?? 0)) break;
    }
    this.#unfinished = true;
  }

  #inject(vector: number): void {
    this.#vector[0] = vector;
    this.#boot.native.ioctl(abi.KVM_INTERRUPT, this.#vector);
  }

  /** Everything but port and memory accesses. True where the guest goes on at once. */
  #otherExit(reason: number): boolean {
    switch (reason) {
      case abi.EXIT_SLICE:
        this.#expireTimers();
        return false;
      case abi.EXIT_TIMER:
      case abi.EXIT_INTR:
        this.#expireTimers();
        return true;
      case abi.EXIT_IRQ_WINDOW_OPEN:
      case abi.EXIT_SET_TPR:
        return true;
      case abi.EXIT_HLT:
        this.#boot.waiting = true;
        return this.#interrupts?.pending === true;
      case abi.EXIT_SHUTDOWN:
        this.#stop({ reason: 'shutdown', cpu: 0, report: this.#report('the CPU shut down: a triple fault') });
        return false;
      case abi.EXIT_SYSTEM_EVENT: {
        const type = this.#exits.words[abi.RUN_UNION];
        const event =
          type === abi.SYSTEM_EVENT_SHUTDOWN ? 'shutdown' : type === abi.SYSTEM_EVENT_RESET ? 'reset' : 'crash';
        this.#stop({ reason: 'system-event', cpu: 0, event });
        return false;
      }
      case abi.EXIT_DEBUG:
        this.#stop({ reason: 'debug', cpu: 0, address: 0 });
        return false;
      default:
        this.#stop({
          reason: 'internal-error',
          cpu: 0,
          report: this.#report(describeFailure(reason, this.#exits.words)),
        });
        return false;
    }
  }

  #stop(stop: VmStop): void {
    this.#running = false;
    this.#scheduler.setRef(false);
    this.#options.stopped(stop);
  }

  #expireTimers(): void {
    const { clock } = this.#options;
    if (clock.untilDeadline() <= 0) clock.expire();
    this.#deadlineMoved = true;
  }

  #armDeadline(): void {
    this.#deadlineMoved = false;
    this.#scheduler.setDeadline(this.#options.clock.untilDeadline());
  }

  /** An answered exit is complete only once KVM_RUN has taken the answer (KVM API, section 5, at the end). */
  #finishInstruction(): void {
    if (!this.#unfinished) return;
    this.#unfinished = false;
    while (this.#boot.native.complete()) {
      const reason = this.#exits.words[abi.RUN_EXIT_REASON];
      if (reason === abi.EXIT_IO) this.#exits.io();
      else if (reason === abi.EXIT_MMIO) this.#exits.mmio();
      else break;
    }
  }

  #resetNow(): void {
    this.#resetWanted = false;
    for (const cpu of this.#cpus) cpu.reset();
  }

  #report(headline: string): string {
    const state = this.#boot.readState();
    return `${headline}\n${registersReport(state)}${codeReport(state, linear => this.#byteAt(linear))}`;
  }

  #byteAt(linear: bigint): number | undefined {
    const gpa = this.#boot.translate(linear);
    if (gpa === undefined) return undefined;
    for (const { gpa: start, size, ram, offset } of this.#slots.values()) {
      if (gpa >= start && gpa < start + size) return ram.bytes[offset + gpa - start];
    }
    return undefined;
  }
}

function describeFailure(reason: number, words: Int32Array): string {
  const word = (index: number): string => ((words[abi.RUN_UNION + index] ?? 0) >>> 0).toString(16);
  switch (reason) {
    case abi.EXIT_INTERNAL_ERROR: {
      const emulation = words[abi.RUN_UNION] === abi.INTERNAL_ERROR_EMULATION ? '\nemulation failure' : '';
      return `KVM internal error. Suberror: ${words[abi.RUN_UNION] ?? 0}${emulation}`;
    }
    case abi.EXIT_FAIL_ENTRY:
      return `KVM: entry failed, hardware error 0x${word(0)}`;
    case abi.EXIT_UNKNOWN:
      return `KVM: unknown exit, hardware reason ${word(0)}`;
    case abi.EXIT_ERROR:
      return `error: kvm run failed: errno ${words[abi.RUN_UNION] ?? 0}`;
    default:
      return `KVM: unhandled exit ${reason}`;
  }
}

function readMsrIndices(vm: NativeVm): number[] {
  const list = new Uint32Array(1 + 1024);
  list[0] = 1024;
  vm.systemIoctl(abi.KVM_GET_MSR_INDEX_LIST, list);
  return [...list.subarray(1, 1 + (list[0] ?? 0))];
}

function readSupportedCpuid(vm: NativeVm): CpuidEntry[] {
  const table = cpuidTable(CPUID_ROOM);
  vm.systemIoctl(abi.KVM_GET_SUPPORTED_CPUID, table);
  return decodeCpuid(table);
}
