import type { IsaBus } from '../core/bus/isa.ts';
import type { ObjectNode } from '../core/device/object.ts';
import { IrqLine } from '../core/irq/line.ts';
import type { Machine } from '../core/machine/machine.ts';
import { type I8259, i8259, interruptSource } from '../devices/i8259.ts';
import { IOAPIC_BASE, IOAPIC_PINS, IOAPIC2_BASE, type IoApic, ioapic } from '../devices/ioapic.ts';

const ISA_IRQS = 16;
const CASCADE = 2;

/** The interrupt inputs of a PC: 0 to 15 are the ISA bus's, the rest the I/O APICs' only, 24 each. */
export class PcInterrupts {
  readonly lines: readonly IrqLine[];
  #sinks: ((level: boolean) => void)[][] = [];
  readonly #machine: Machine;
  /** The i8259 pair, where it is ours. */
  master: I8259 | undefined;
  slave: I8259 | undefined;

  constructor(machine: Machine, ioApics: 1 | 2 = 1) {
    this.#machine = machine;
    this.#sinks = Array.from({ length: ioApics * IOAPIC_PINS }, () => []);
    this.lines = this.#sinks.map((sinks, gsi) => {
      const line = new IrqLine(`gsi${gsi}`, level => {
        for (const sink of sinks) sink(level);
      });
      if (machine.acceleratorIrqchip) sinks.push(level => machine.vm.setIrq(gsi, level));
      return line;
    });
  }

  /** The i8259 pair on the ISA bus and the I/O APIC, unless the accelerator has them. */
  plugControllers(isa: IsaBus): void {
    if (this.#machine.acceleratorIrqchip) return;
    const master = isa.plug(i8259, { iobase: 0x20, elcr_addr: 0x4d0, elcr_mask: 0xf8, master: true });
    const slave = isa.plug(i8259, { iobase: 0xa0, elcr_addr: 0x4d1, elcr_mask: 0xde, master: false });
    const cascade = master.requests[CASCADE];
    slave.interrupt.connect(level => cascade?.set(level));
    master.slave = slave;
    this.#machine.setInterruptSource(interruptSource(master));
    for (let irq = 0; irq < ISA_IRQS; irq++) {
      const pin = irq < 8 ? master.requests[irq] : slave.requests[irq - 8];
      if (irq !== CASCADE) this.#sinks[irq]?.push(level => pin?.set(level));
    }
    this.master = master;
    this.slave = slave;
  }

  /** @param parent whose child `ioapic` it becomes in the object tree */
  plugIoApic(parent: ObjectNode): void {
    if (this.#machine.acceleratorIrqchip) return;
    const chip = this.#plugChip(IOAPIC_BASE, 0);
    chip.parent?.removeChild(chip);
    parent.addChild('ioapic', chip);
    chip.acknowledgeExternal = () => this.master?.acknowledge() ?? 0xff;
  }

  /** The second chip, for inputs 24 to 47. */
  plugSecondIoApic(): void {
    const chip = this.#plugChip(IOAPIC2_BASE, IOAPIC_PINS);
    chip.pinOfInput0 = 0;
    chip.endsWithLine = this.#machine.acceleratorIrqchip;
  }

  #plugChip(base: number, firstInput: number): IoApic {
    const chip = this.#machine.system.plug(ioapic);
    this.#machine.memoryRoot.add(chip.region, base);
    if (!this.#machine.acceleratorIrqchip) this.#machine.onEndOfInterrupt(vector => chip.endOfInterrupt(vector));
    chip.pins.forEach((pin, index) => this.#sinks[firstInput + index]?.push(level => pin.set(level)));
    return chip;
  }
}
