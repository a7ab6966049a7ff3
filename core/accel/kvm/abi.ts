/** The parts of Linux's KVM API in use (Documentation/virt/kvm/api.rst; `<linux/kvm.h>`): x86 only. */

const KVMIO = 0xae;
const io = (number: number): number => (KVMIO << 8) | number;
const iow = (number: number, size: number): number => 2 ** 30 + (size << 16) + io(number);
const ior = (number: number, size: number): number => 2 ** 31 + (size << 16) + io(number);
const iowr = (number: number, size: number): number => 3 * 2 ** 30 + (size << 16) + io(number);

export const KVM_API_VERSION = 12;

export const KVM_GET_API_VERSION = io(0x00);
export const KVM_GET_MSR_INDEX_LIST = iowr(0x02, 4);
export const KVM_CHECK_EXTENSION = io(0x03);
export const KVM_GET_SUPPORTED_CPUID = iowr(0x05, 8);
export const KVM_SET_TSS_ADDR = io(0x47);
export const KVM_SET_IDENTITY_MAP_ADDR = iow(0x48, 8);
export const KVM_CREATE_IRQCHIP = io(0x60);
export const KVM_IRQ_LINE = iow(0x61, 8);
export const KVM_GET_IRQCHIP = iowr(0x62, 520);
export const KVM_SET_IRQCHIP = ior(0x63, 520);
export const KVM_REGISTER_COALESCED_MMIO = iow(0x67, 16);
export const KVM_UNREGISTER_COALESCED_MMIO = iow(0x68, 16);
export const KVM_SET_GSI_ROUTING = iow(0x6a, 8);
export const KVM_IRQFD = iow(0x76, 32);
export const KVM_CREATE_PIT2 = iow(0x77, 64);
export const KVM_IOEVENTFD = iow(0x79, 64);
export const KVM_SET_CLOCK = iow(0x7b, 48);
export const KVM_GET_CLOCK = ior(0x7c, 48);
export const KVM_GET_REGS = ior(0x81, 144);
export const KVM_SET_REGS = iow(0x82, 144);
export const KVM_GET_SREGS = ior(0x83, 312);
export const KVM_SET_SREGS = iow(0x84, 312);
export const KVM_TRANSLATE = iowr(0x85, 24);
export const KVM_INTERRUPT = iow(0x86, 4);
export const KVM_GET_MSRS = iowr(0x88, 8);
export const KVM_SET_MSRS = iow(0x89, 8);
export const KVM_GET_FPU = ior(0x8c, 416);
export const KVM_SET_FPU = iow(0x8d, 416);
export const KVM_GET_LAPIC = ior(0x8e, 1024);
export const KVM_SET_LAPIC = iow(0x8f, 1024);
export const KVM_SET_CPUID2 = iow(0x90, 8);
export const KVM_GET_MP_STATE = ior(0x98, 4);
export const KVM_SET_MP_STATE = iow(0x99, 4);
export const KVM_NMI = io(0x9a);
export const KVM_SET_GUEST_DEBUG = iow(0x9b, 72);
export const KVM_GET_PIT2 = ior(0x9f, 112);
export const KVM_GET_VCPU_EVENTS = ior(0x9f, 64);
export const KVM_SET_PIT2 = iow(0xa0, 112);
export const KVM_SET_VCPU_EVENTS = iow(0xa0, 64);
export const KVM_GET_DEBUGREGS = ior(0xa1, 128);
export const KVM_SET_DEBUGREGS = iow(0xa2, 128);
export const KVM_GET_XSAVE = ior(0xa4, 4096);
export const KVM_SET_XSAVE = iow(0xa5, 4096);
export const KVM_SIGNAL_MSI = iow(0xa5, 32);
export const KVM_GET_XCRS = ior(0xa6, 392);
export const KVM_SET_XCRS = iow(0xa7, 392);
export const KVM_KVMCLOCK_CTRL = io(0xad);

export const KVM_CAP_READONLY_MEM = 81;
export const KVM_CAP_MAX_VCPUS = 66;
export const KVM_CAP_NR_MEMSLOTS = 10;
export const KVM_CAP_IRQFD = 32;
export const KVM_CAP_IOEVENTFD = 36;
export const KVM_CAP_XSAVE = 55;
export const KVM_CAP_SIGNAL_MSI = 77;
export const KVM_CAP_ADJUST_CLOCK = 39;

export const KVM_MEM_LOG_DIRTY_PAGES = 1;
export const KVM_MEM_READONLY = 2;

/** struct kvm_run, as indices of 32-bit words where not said otherwise. */
export const RUN_REQUEST_INTERRUPT_WINDOW_BYTE = 0;
/** Padding to the kernel: what the addon's vCPU thread is doing. */
export const RUN_THREAD_STATE = 1;
export const THREAD_EXITED = 2;
export const RUN_EXIT_REASON = 2;
export const RUN_READY_FOR_INTERRUPT_BYTE = 12;
export const RUN_IF_FLAG_BYTE = 13;
export const RUN_CR8 = 4;
export const RUN_APIC_BASE = 6;
/** The union of what each exit says. */
export const RUN_UNION = 8;

export const EXIT_UNKNOWN = 0;
export const EXIT_EXCEPTION = 1;
export const EXIT_IO = 2;
export const EXIT_HYPERCALL = 3;
export const EXIT_DEBUG = 4;
export const EXIT_HLT = 5;
export const EXIT_MMIO = 6;
export const EXIT_IRQ_WINDOW_OPEN = 7;
export const EXIT_SHUTDOWN = 8;
export const EXIT_FAIL_ENTRY = 9;
export const EXIT_INTR = 10;
export const EXIT_SET_TPR = 11;
export const EXIT_NMI = 16;
export const EXIT_INTERNAL_ERROR = 17;
export const EXIT_SYSTEM_EVENT = 24;
export const EXIT_IOAPIC_EOI = 26;
/** The addon's own: the event loop has work, a timer is due, KVM_RUN failed (the union holds errno), another vCPU exited. */
export const EXIT_SLICE = 0x100;
export const EXIT_TIMER = 0x101;
export const EXIT_ERROR = 0x102;
export const EXIT_OTHERS = 0x103;

export const INTERNAL_ERROR_EMULATION = 1;
export const SYSTEM_EVENT_SHUTDOWN = 1;
export const SYSTEM_EVENT_RESET = 2;

/** The PIO data and the coalesced ring follow kvm_run in the mapping, a page each. */
export const PIO_DATA_BYTE = 0x1000;
export const COALESCED_RING_BYTE = 0x2000;

export const MP_STATE_RUNNABLE = 0;
export const MP_STATE_UNINITIALIZED = 1;
export const MP_STATE_HALTED = 3;

export const GUESTDBG_ENABLE = 1;
export const GUESTDBG_SINGLESTEP = 2;
export const GUESTDBG_USE_SW_BP = 0x1_0000;
export const GUESTDBG_USE_HW_BP = 0x2_0000;
export const GUESTDBG_INJECT_DB = 0x4_0000;
export const GUESTDBG_INJECT_BP = 0x8_0000;
