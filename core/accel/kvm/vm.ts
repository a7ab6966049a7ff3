import { SouthbridgeError } from '../../errors.ts';
import type { GuestRam } from '../../memory/guest-ram.ts';
import type { DeadlineSource, GuestBus, InterruptSource, Vcpu, Vm, VmOptions, VmStop } from '../accelerator.ts';
import { codeReport, registersReport } from '../registers-report.ts';
import * as abi from './abi.ts';
import { type Addon, isSystemError, loadAddon, type NativeVm } from './addon.ts';
import { type CpuidEntry, cpuidTable, cpuModel, decodeCpuid } from './cpuid.ts';
import { InlineLoop } from './inline-loop.ts';
import type { RunLoop, RunLoopHost } from './run-loop.ts';
import { ThreadedLoop } from './threaded-loop.ts';
import { KvmVcpu, type VcpuHost } from './vcpu.ts';

const PAGE = 4096;
/** Three pages for a task state segment and one for an identity map, just below the BIOS: where QEMU has them too. */
const IDENTITY_MAP = 0xfeff_c000;
const TSS = 0xfeff_d000;
const CPUID_ROOM = 256;
/** struct kvm_pit_config with KVM_PIT_SPEAKER_DUMMY: the kernel answers port 61h from the counters that it has. */
const PIT_CONFIG = Uint8Array.of(1, ...new Uint8Array(63));
export interface RamSlot {
  readonly slot: number;
  readonly gpa: number;
  readonly size: number;
  readonly ram: GuestRam;
  readonly offset: number;
  readonly readonly: boolean;
}

/** A KVM virtual machine: memory slots, interrupts, vCPUs and the loop that runs them. */
export class KvmVm implements Vm, VcpuHost, RunLoopHost {
  readonly addon: Addon = loadAddon();
  readonly native: NativeVm;
  readonly irqchip: boolean;
  readonly msrs: readonly number[];
  readonly vcpus: readonly Vcpu[];
  readonly bus: GuestBus;
  readonly clock: DeadlineSource;
  readonly interrupts: InterruptSource | undefined;
  readonly stopped: (stop: VmStop) => void;
  readonly #cpus: readonly KvmVcpu[];
  readonly #loop: RunLoop;
  readonly #slots = new Map<number, RamSlot>();
  readonly #irqLine = new Uint32Array(2);
  readonly #msi = new DataView(new ArrayBuffer(32));
  #resetWanted = false;
  #disposed = false;

  /** @throws SouthbridgeError ERR_CPU_MODEL, ERR_VM_CPUS, ERR_KVM_CREATE: the options, or what this KVM cannot do */
  constructor(options: VmOptions) {
    this.bus = options.bus;
    this.clock = options.clock;
    this.irqchip = options.irqchip;
    this.interrupts = options.irqchip ? undefined : options.interrupts;
    this.stopped = stop => options.stopped(stop);
    checkOptions(options);
    const model = cpuModel(options.cpuModel ?? 'qemu64');
    this.native = this.#create(options);
    this.msrs = readMsrIndices(this.native);
    const supported = readSupportedCpuid(this.native);
    this.#cpus = Array.from({ length: options.cpus }, (_, index) => new KvmVcpu(this, index));
    this.vcpus = this.#cpus;
    for (const cpu of this.#cpus) cpu.powerUp(model, supported, options.cpus);
    const [boot] = this.#cpus;
    this.#loop =
      this.#cpus.length === 1 && boot !== undefined
        ? new InlineLoop(this.addon, boot, this)
        : new ThreadedLoop(this.addon, this.#cpus, this);
  }

  #create(options: VmOptions): NativeVm {
    try {
      const native = new this.addon.KvmVm();
      native.ioctl(abi.KVM_SET_IDENTITY_MAP_ADDR, BigUint64Array.of(BigInt(IDENTITY_MAP)));
      native.ioctl(abi.KVM_SET_TSS_ADDR, TSS);
      if (options.irqchip) native.ioctl(abi.KVM_CREATE_IRQCHIP);
      if (options.irqchip && options.pit !== false) native.ioctl(abi.KVM_CREATE_PIT2, PIT_CONFIG);
      return native;
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new SouthbridgeError('ERR_KVM_CREATE', `KVM cannot create the VM: ${why}`, undefined, { cause });
    }
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
      this.settled(cpu, () => cpu.native.ioctl(abi.KVM_NMI));
      cpu.waiting = false;
    }
    this.kick();
  }

  // --- running

  start(): void {
    if (!this.#disposed) this.#loop.start();
  }

  pause(): void {
    this.#loop.pause();
  }

  kick(): void {
    this.#loop.kick();
  }

  /** From inside an exit, it takes effect once that exit has been answered. */
  reset(): void {
    if (this.#loop.answering) {
      this.#resetWanted = true;
      this.#loop.kick();
      return;
    }
    const { running } = this.#loop;
    this.#loop.pause();
    this.#resetWanted = false;
    for (const cpu of this.#cpus) cpu.reset();
    if (running) this.#loop.start();
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#loop.close();
    for (const cpu of this.#cpus) cpu.native.close();
    this.native.close();
    this.#slots.clear();
  }

  settled<T>(cpu: KvmVcpu, action: () => T): T {
    if (this.#disposed)
      throw new SouthbridgeError('ERR_VM_DISPOSED', `CPU ${cpu.index} is gone: its VM has been disposed of`);
    return this.#loop.settled(cpu, action);
  }

  afterSlice(): void {
    if (this.#resetWanted) this.reset();
  }

  stopFor(cpu: KvmVcpu, words: Int32Array): VmStop | undefined {
    const reason = words[abi.RUN_EXIT_REASON] ?? 0;
    switch (reason) {
      case abi.EXIT_SLICE:
      case abi.EXIT_TIMER:
      case abi.EXIT_INTR:
      case abi.EXIT_IRQ_WINDOW_OPEN:
      case abi.EXIT_SET_TPR:
        return undefined;
      case abi.EXIT_HLT:
        cpu.waiting = true;
        return undefined;
      case abi.EXIT_SHUTDOWN:
        return { reason: 'shutdown', cpu: cpu.index, report: this.#report(cpu, 'the CPU shut down: a triple fault') };
      case abi.EXIT_SYSTEM_EVENT: {
        const type = words[abi.RUN_UNION];
        const event =
          type === abi.SYSTEM_EVENT_SHUTDOWN ? 'shutdown' : type === abi.SYSTEM_EVENT_RESET ? 'reset' : 'crash';
        return { reason: 'system-event', cpu: cpu.index, event };
      }
      case abi.EXIT_DEBUG:
        return { reason: 'debug', cpu: cpu.index, address: 0 };
      default:
        return { reason: 'internal-error', cpu: cpu.index, report: this.#report(cpu, describeFailure(reason, words)) };
    }
  }

  #report(cpu: KvmVcpu, headline: string): string {
    const state = cpu.readState();
    return `${headline}\n${registersReport(state)}${codeReport(state, linear => this.#byteAt(cpu, linear))}`;
  }

  #byteAt(cpu: KvmVcpu, linear: bigint): number | undefined {
    const gpa = cpu.translate(linear);
    if (gpa === undefined) return undefined;
    for (const { gpa: start, size, ram, offset } of this.#slots.values()) {
      if (gpa >= start && gpa < start + size) return ram.bytes[offset + gpa - start];
    }
    return undefined;
  }
}

function checkOptions(options: VmOptions): void {
  if (options.cpus < 1) throw new SouthbridgeError('ERR_VM_CPUS', 'a machine needs at least one CPU');
  if (options.irqchip) return;
  if (options.cpus > 1) {
    throw new SouthbridgeError(
      'ERR_VM_CPUS',
      'several CPUs need the interrupt controllers of the kernel',
      'use -accel kvm with kernel-irqchip=on (the default), or -smp 1',
    );
  }
  if (options.interrupts === undefined) {
    throw new SouthbridgeError(
      'ERR_VM_INTERRUPTS',
      'without the irqchip of the kernel, a VM needs an interrupt source',
    );
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
