import { SouthbridgeError } from '../../errors.ts';
import type { MsiRoute } from '../accelerator.ts';
import { KVM_IRQFD, KVM_SET_GSI_ROUTING } from './abi.ts';
import type { NativeVm } from './addon.ts';

/** struct kvm_irq_routing_entry: gsi, type, flags, padding, then a union of 32 bytes. */
const ENTRY_SIZE = 48;
const ROUTE_IRQCHIP = 1;
const ROUTE_MSI = 2;
const PIC_MASTER = 0;
const PIC_SLAVE = 1;
const IOAPIC = 2;

const ISA_IRQS = 16;
const IOAPIC_PINS = 24;
/** KVM_MAX_IRQ_ROUTES on x86. */
const MAX_GSI = 4096;

const IRQFD_DEASSIGN = 1;
const IRQFD_RESAMPLE = 2;

type Words = readonly [gsi: number, type: number, a: number, b: number, c: number];

/**
 * Which controller inputs each GSI reaches (KVM API, section 4.52). A PC's interrupt 0 comes in on the IOAPIC's pin 2,
 * as its ACPI tables say (interrupt source override; 82093AA datasheet, section 2.4); GSIs from 24 on are messages.
 */
export class IrqRoutes {
  readonly #native: NativeVm;
  readonly #messages = new Map<number, { address: number; data: number }>();

  constructor(native: NativeVm) {
    this.#native = native;
    this.#commit();
  }

  /** @throws SouthbridgeError ERR_MSI_ROUTES where the kernel's table is full */
  addMsi(address: number, data: number): MsiRoute {
    let gsi = IOAPIC_PINS;
    while (this.#messages.has(gsi)) gsi++;
    if (gsi >= MAX_GSI) throw new SouthbridgeError('ERR_MSI_ROUTES', `KVM routes no more than ${MAX_GSI} interrupts`);
    const set = (newAddress: number, newData: number): void => {
      this.#messages.set(gsi, { address: newAddress, data: newData });
      this.#commit();
    };
    set(address, data);
    return {
      gsi,
      update: set,
      release: () => {
        if (this.#messages.delete(gsi)) this.#commit();
      },
    };
  }

  /** Ties an eventfd to a GSI (KVM API, section 4.75). */
  irqfd(fd: number, gsi: number, resampleFd: number | undefined): () => void {
    const flags = resampleFd === undefined ? 0 : IRQFD_RESAMPLE;
    const words = new Uint32Array(8);
    words.set([fd, gsi, flags, resampleFd ?? 0]);
    this.#native.ioctl(KVM_IRQFD, words);
    return () => {
      words[2] = flags | IRQFD_DEASSIGN;
      this.#native.ioctl(KVM_IRQFD, words);
    };
  }

  #commit(): void {
    const entries: Words[] = [];
    for (let irq = 0; irq < ISA_IRQS; irq++) {
      entries.push([irq, ROUTE_IRQCHIP, irq < 8 ? PIC_MASTER : PIC_SLAVE, irq & 7, 0]);
    }
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      if (pin === 0) entries.push([0, ROUTE_IRQCHIP, IOAPIC, 2, 0]);
      else if (pin !== 2) entries.push([pin, ROUTE_IRQCHIP, IOAPIC, pin, 0]);
    }
    for (const [gsi, { address, data }] of this.#messages) {
      entries.push([gsi, ROUTE_MSI, address % 2 ** 32, Math.floor(address / 2 ** 32), data]);
    }
    const table = new Uint32Array((8 + ENTRY_SIZE * entries.length) / 4);
    table[0] = entries.length;
    for (const [index, [gsi, type, a, b, c]] of entries.entries()) {
      table.set([gsi, type, 0, 0, a, b, c], 2 + (index * ENTRY_SIZE) / 4);
    }
    this.#native.ioctl(KVM_SET_GSI_ROUTING, table);
  }
}
