import { cpuModelNamed } from '../../cpu/model.ts';
import { type CpuHost, resolveCpu } from '../../cpu/resolve.ts';
import { SouthbridgeError } from '../../errors.ts';
import type { GuestRam } from '../../memory/guest-ram.ts';
import type {
  AccessRegisters,
  DeadlineSource,
  Doorbell,
  GuestBus,
  InterruptSource,
  MsiRoute,
  SpeakerChannel,
  Vcpu,
  Vm,
  VmOptions,
  VmStop,
} from '../accelerator.ts';
import { codeReport, registersReport } from '../registers-report.ts';
import * as abi from './abi.ts';
import { type Addon, loadAddon, type NativeVm } from './addon.ts';
import { ignoringSystemErrors, KernelChips } from './chips.ts';
import { type CpuidEntry, cpuHostOf, cpuidTable, decodeCpuid } from './cpuid.ts';
import { decodeDebugExit } from './guest-debug.ts';
import { CoalescedWrites, registerIoeventfd } from './io-offload.ts';
import { IrqRoutes } from './irq-routes.ts';
import { MemorySlots } from './memory-slots.ts';
import { KvmSpeaker } from './pit.ts';
import { RunLoop } from './run-loop.ts';
import type { RunLoopHost } from './run-loop-host.ts';
import { decodeSections, encodeSections, malformed, takeSection } from './snapshot.ts';
import { KvmVcpu, RAW_SIZES, type VcpuHost } from './vcpu.ts';

/** Three pages for a task state segment and one for an identity map, just below the BIOS: where QEMU has them too. */
const IDENTITY_MAP = 0xfeff_c000;
const TSS = 0xfeff_d000;
const CPUID_ROOM = 256;
/** Of a physical address, where nobody says it: QEMU's default. */
const PHYSICAL_BITS = 40;
/** struct kvm_pit_config with KVM_PIT_SPEAKER_DUMMY: the kernel answers port 61h from the counters that it has. */
const PIT_CONFIG = Uint8Array.of(1, ...new Uint8Array(63));

/** A KVM virtual machine: memory slots, interrupts, vCPUs and the loop that runs them. */
export class KvmVm implements Vm, VcpuHost, RunLoopHost {
  /** What the host's CPU has, and KVM passes on. */
  readonly cpuHost: CpuHost;
  readonly supportedCpuid: readonly CpuidEntry[];
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
  readonly #memory: MemorySlots;
  readonly #chips: KernelChips;
  readonly #routes: IrqRoutes | undefined;
  readonly coalesced: CoalescedWrites;
  readonly speaker?: SpeakerChannel;
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
    this.stopped = stop => {
      this.#chips.stopClock();
      options.stopped(stop);
    };
    checkOptions(options);
    const { model } = cpuModelNamed(options.cpuModel ?? 'qemu64');
    const pit = options.irqchip && options.pit !== false;
    this.native = this.#create(pit);
    this.#memory = new MemorySlots(this.native);
    this.#chips = new KernelChips(this.native, options.irqchip, pit);
    this.#routes = options.irqchip ? new IrqRoutes(this.native) : undefined;
    if (pit) this.speaker = new KvmSpeaker(this.native);
    this.msrs = readMsrIndices(this.native);
    this.supportedCpuid = readSupportedCpuid(this.native);
    this.cpuHost = cpuHostOf(this.supportedCpuid, options.irqchip);
    this.#cpus = Array.from(
      { length: options.cpus },
      (_, index) => new KvmVcpu(this, index, options.apicIds?.[index] ?? index),
    );
    this.vcpus = this.#cpus;
    const cpu = resolveCpu({ model, features: new Map() }, this.cpuHost);
    const topology = { dies: 1, cores: options.cpus, threads: 1 };
    for (const vcpu of this.#cpus) {
      const apicId = options.apicIds?.[vcpu.index] ?? vcpu.index;
      vcpu.powerUp({ cpu, apicId, topology, physicalBits: PHYSICAL_BITS, hostPmu: false });
    }
    const [boot, ...others] = this.#cpus;
    if (boot === undefined) throw new SouthbridgeError('ERR_VM_CPUS', 'a machine needs at least one CPU');
    this.coalesced = new CoalescedWrites(this.native, boot.native.page, options.bus);
    this.#loop = new RunLoop(this.addon, boot, others, this);
  }

  #create(pit: boolean): NativeVm {
    try {
      const native = new this.addon.KvmVm();
      native.ioctl(abi.KVM_SET_IDENTITY_MAP_ADDR, BigUint64Array.of(BigInt(IDENTITY_MAP)));
      native.ioctl(abi.KVM_SET_TSS_ADDR, TSS);
      if (this.irqchip) native.ioctl(abi.KVM_CREATE_IRQCHIP);
      if (pit) native.ioctl(abi.KVM_CREATE_PIT2, PIT_CONFIG);
      return native;
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new SouthbridgeError('ERR_KVM_CREATE', `KVM cannot create the VM: ${why}`, undefined, { cause });
    }
  }

  get accessRegisters(): AccessRegisters | undefined {
    return this.#loop.answered?.accessRegisters;
  }

  // --- memory

  mapRam(gpa: number, ram: GuestRam, offset: number, size: number, readonly: boolean): void {
    this.#memory.map(gpa, ram, offset, size, readonly);
  }

  unmapRam(gpa: number, size: number): void {
    this.#memory.unmap(gpa, size);
  }

  dmaWritten(): void {}

  logDirty(gpa: number, on: boolean): void {
    this.#memory.logDirty(gpa, on);
  }

  readDirty(gpa: number): Uint8Array {
    return this.#memory.readDirty(gpa);
  }

  // --- interrupts

  setIrq(gsi: number, level: boolean): void {
    if (this.#disposed) return;
    this.#irqLine[0] = gsi;
    this.#irqLine[1] = level ? 1 : 0;
    this.native.ioctl(abi.KVM_IRQ_LINE, this.#irqLine);
  }

  injectMsi(address: number, data: number): void {
    if (this.#disposed) return;
    this.#msi.setUint32(0, address % 2 ** 32, true);
    this.#msi.setUint32(4, Math.floor(address / 2 ** 32), true);
    this.#msi.setUint32(8, data, true);
    // A message that no LAPIC takes is lost on a real bus too.
    ignoringSystemErrors(() => this.native.ioctl(abi.KVM_SIGNAL_MSI, this.#msi));
  }

  injectNmi(): void {
    for (const cpu of this.#cpus) {
      this.settled(cpu, () => cpu.native.ioctl(abi.KVM_NMI));
      cpu.waiting = false;
    }
    this.kick();
  }

  irqfd(fd: number, gsi: number, resampleFd?: number): () => void {
    return this.#routed().irqfd(fd, gsi, resampleFd);
  }

  msiRoute(address: number, data: number): MsiRoute {
    return this.#routed().addMsi(address, data);
  }

  #routed(): IrqRoutes {
    if (this.#routes === undefined)
      throw new SouthbridgeError('ERR_KVM_IRQCHIP', 'irqfd needs the interrupt controllers of the kernel');
    return this.#routes;
  }

  // --- accesses that do not exit

  ioeventfd(fd: number, doorbell: Doorbell): () => void {
    return registerIoeventfd(this.native, fd, doorbell);
  }

  coalesce(space: 'pio' | 'mmio', address: number, size: number): () => void {
    return this.coalesced.register(space, address, size);
  }

  flushCoalesced(): void {
    if (this.coalesced.active) this.coalesced.flush();
  }

  // --- snapshots

  saveState(): Uint8Array {
    const { irqchips, pit } = this.#chips.read();
    const sections = new Map<string, Uint8Array>([
      ['irqchips', irqchips],
      ['pit', pit],
      ['clock', this.#chips.savedClock],
    ]);
    for (const cpu of this.#cpus) {
      const state = this.settled(cpu, () => cpu.readRaw());
      for (const [name, bytes] of Object.entries(state)) sections.set(`cpu${cpu.index}.${name}`, bytes);
    }
    return encodeSections(sections);
  }

  restoreState(state: Uint8Array): void {
    const sections = decodeSections(state);
    const chips = this.#chips.read();
    const irqchips = takeSection(sections, 'irqchips', chips.irqchips.length);
    const pit = takeSection(sections, 'pit', chips.pit.length);
    const clock = takeSection(sections, 'clock', this.#chips.savedClock.length);
    const take = (cpu: KvmVcpu, name: keyof typeof RAW_SIZES): Uint8Array => {
      const size = name === 'lapic' && !this.irqchip ? 0 : RAW_SIZES[name];
      return takeSection(sections, `cpu${cpu.index}.${name}`, size);
    };
    const states = this.#cpus.map(cpu => ({
      regs: take(cpu, 'regs'),
      sregs: take(cpu, 'sregs'),
      xsave: take(cpu, 'xsave'),
      xcrs: take(cpu, 'xcrs'),
      debugregs: take(cpu, 'debugregs'),
      events: take(cpu, 'events'),
      mpState: take(cpu, 'mpState'),
      lapic: take(cpu, 'lapic'),
      msrs: take(cpu, 'msrs'),
    }));
    const [extra] = sections.keys();
    if (extra !== undefined) throw malformed(`section '${extra}' belongs to no part of this VM`);
    this.#chips.write({ irqchips, pit });
    this.#chips.restoreClock(clock);
    for (const [index, raw] of states.entries()) {
      const cpu = this.#cpus[index];
      if (cpu !== undefined) this.settled(cpu, () => cpu.writeRaw(raw));
    }
  }

  // --- running

  start(): void {
    if (this.#disposed || this.#loop.running) return;
    this.#chips.startClock();
    // Tells a guest that counts its watchdogs in kvmclock's time that it was paused.
    for (const cpu of this.#cpus) ignoringSystemErrors(() => cpu.native.ioctl(abi.KVM_KVMCLOCK_CTRL));
    this.#loop.start();
  }

  pause(): void {
    if (this.#disposed || !this.#loop.running) return;
    this.#loop.pause();
    this.#chips.stopClock();
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
    if (!this.#disposed) this.#chips.reset();
    for (const cpu of this.#cpus) cpu.reset();
    if (running) this.#loop.start();
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#loop.close();
    for (const cpu of this.#cpus) cpu.native.close();
    this.native.close();
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
        return { reason: 'debug', cpu: cpu.index, ...decodeDebugExit(words) };
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
    return gpa === undefined ? undefined : this.#memory.byteAt(gpa);
  }
}

function checkOptions(options: VmOptions): void {
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

/** struct kvm_run's `internal` member, in words: suberror, how many values, and the values of 64 bits. */
const INTERNAL_DATA_COUNT = abi.RUN_UNION + 1;
const INTERNAL_DATA = abi.RUN_UNION + 2;
const INTERNAL_DATA_MAX = 16;

function describeFailure(reason: number, words: Int32Array): string {
  const word = (index: number): string => ((words[abi.RUN_UNION + index] ?? 0) >>> 0).toString(16);
  switch (reason) {
    case abi.EXIT_INTERNAL_ERROR: {
      const suberror = words[abi.RUN_UNION] ?? 0;
      const extra = Array.from({ length: Math.min(INTERNAL_DATA_MAX, words[INTERNAL_DATA_COUNT] ?? 0) }, (_, index) => {
        const half = (at: number): string =>
          ((words[INTERNAL_DATA + 2 * index + at] ?? 0) >>> 0).toString(16).padStart(8, '0');
        return `\nextra data[${index}]: 0x${half(1)}${half(0)}`;
      });
      const emulation = suberror === abi.INTERNAL_ERROR_EMULATION ? '\nemulation failure' : '';
      return `KVM internal error. Suberror: ${suberror}${extra.join('')}${emulation}`;
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
