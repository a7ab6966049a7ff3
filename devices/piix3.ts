import { ISA_IRQS, IsaBus } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import type { IrqLine } from '../core/irq/line.ts';
import type { AddressSpace } from '../core/memory/address-space.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { CFG } from '../core/pci/config-space.ts';
import type { IntxRouter } from '../core/pci/pci-bus.ts';
import { PciDevice } from '../core/pci/pci-device.ts';
import { field } from '../core/state/fields.ts';

/** Offsets in configuration space (82371SB datasheet, section 2.2). */
const PIRQRC = 0x60;
const PIRQ_DISABLED = 0x80;
const PIRQ_INPUTS = 4;
const RESET_CONTROL = 0xcf9;
const RCR_SYSTEM_RESET = 0x02;
const RCR_RESET_CPU = 0x04;
/** The reset control register is in the middle of the configuration ports. */
const RESET_CONTROL_PRIORITY = 1;

/** What the bridge connects: memory, ports and the 16 interrupt requests. */
export interface IsaWiring {
  readonly memory: MemoryRegion;
  readonly io: MemoryRegion;
  readonly dmaSpace: AddressSpace;
  readonly irqs: readonly IrqLine[];
}

/** The PCI-to-ISA bridge function of the 82371SB: PIRQ routing, reset control, the ISA bus. */
export class Piix3 extends PciDevice implements IntxRouter {
  /** Levels of the four PIRQ inputs; the ISA side is derived from them. */
  readonly #s = this.state(1, { pirqLevels: field.u8(), resetControl: field.u8() });
  readonly #isaLevels = new Uint8Array(ISA_IRQS);
  #irqs: readonly ((level: boolean) => void)[] = [];
  isa: IsaBus | undefined;

  /** Makes the ISA bus; the machine calls it once the interrupt controllers' inputs are there. */
  wire({ memory, io, dmaSpace, irqs }: IsaWiring): IsaBus {
    const isa = this.addBus(
      new IsaBus('isa.0', { services: this.services, home: this.pciBus.home, owner: this, memory, io, dmaSpace, irqs }),
    );
    this.#irqs = irqs.map((_, irq) => {
      const input = isa.irq(irq, `pirq${irq}`);
      return level => input.set(level);
    });
    const region = MemoryRegion.io(
      'piix3-reset-control',
      1,
      {
        read: () => this.#s.resetControl,
        write: (_offset, _size, value) => this.#writeResetControl(value),
      },
      { impl: { min: 1, max: 1 } },
    );
    io.add(region, RESET_CONTROL, RESET_CONTROL_PRIORITY);
    this.onUnrealize(() => io.remove(region));
    this.isa = isa;
    return isa;
  }

  /** PCI interrupt pin to PIRQ: device 1's INTA is PIRQA, and each device number rotates by one. */
  route(devfn: number, pin: number): number {
    return (pin + (devfn >> 3) - 1) & (PIRQ_INPUTS - 1);
  }

  setIrq(input: number, level: boolean): void {
    const mask = 1 << input;
    this.#s.pirqLevels = level ? this.#s.pirqLevels | mask : this.#s.pirqLevels & ~mask;
    this.#update();
  }

  /** The ISA interrupt that PIRQ `input` is routed to, or -1. */
  routing(input: number): number {
    const route = this.config.get8(PIRQRC + input);
    return (route & PIRQ_DISABLED) !== 0 || (route & 0x0f) >= ISA_IRQS ? -1 : route & 0x0f;
  }

  protected override configWritten(offset: number, size: number): void {
    if (offset < PIRQRC + PIRQ_INPUTS && offset + size > PIRQRC) this.#update();
  }

  protected override resetHold(): void {
    const { config } = this;
    config.set16(CFG.STATUS, 0x0200);
    // Power-on values of the 82371SB, as PC firmware expects to find them.
    const defaults: [number, number][] = [
      [0x4c, 0x4d],
      [0x4e, 0x03],
      [0x4f, 0x00],
      [0x60, 0x80],
      [0x61, 0x80],
      [0x62, 0x80],
      [0x63, 0x80],
      [0x69, 0x02],
      [0x70, 0x80],
      [0x76, 0x0c],
      [0x77, 0x0c],
      [0x78, 0x02],
      [0x79, 0x00],
      [0x80, 0x00],
      [0x82, 0x00],
      [0xa0, 0x08],
      [0xa2, 0x00],
      [0xa3, 0x00],
      [0xa4, 0x00],
      [0xa5, 0x00],
      [0xa6, 0x00],
      [0xa7, 0x00],
      [0xa8, 0x0f],
      [0xaa, 0x00],
      [0xab, 0x00],
      [0xac, 0x00],
      [0xae, 0x00],
    ];
    for (const [offset, value] of defaults) config.set8(offset, value);
    this.#update();
  }

  protected override restored(): void {
    this.#isaLevels.fill(0);
    for (let input = 0; input < PIRQ_INPUTS; input++) {
      const irq = this.routing(input);
      if (irq >= 0 && (this.#s.pirqLevels & (1 << input)) !== 0) this.#isaLevels[irq] = 1;
    }
  }

  #update(): void {
    const levels = new Array<boolean>(ISA_IRQS).fill(false);
    for (let input = 0; input < PIRQ_INPUTS; input++) {
      const irq = this.routing(input);
      if (irq >= 0 && (this.#s.pirqLevels & (1 << input)) !== 0) levels[irq] = true;
    }
    levels.forEach((level, irq) => {
      if ((this.#isaLevels[irq] !== 0) === level) return;
      this.#isaLevels[irq] = level ? 1 : 0;
      this.#irqs[irq]?.(level);
    });
  }

  /** 82371SB datasheet, section 2.5.6: bit 2 going high resets; bit 1 chooses a hard reset. */
  #writeResetControl(value: number): void {
    if ((value & RCR_RESET_CPU) !== 0) {
      this.services.system.requestReset('guest-reset');
      return;
    }
    this.#s.resetControl = value & RCR_SYSTEM_RESET;
  }
}

export const piix3 = deviceType({
  type: 'PIIX3',
  summary: 'ISA bridge',
  parents: ['pci-piix3', 'pci-device', 'device'],
  category: 'bridge',
  userCreatable: false,
  hotpluggable: false,
  pci: { vendor: 0x8086, device: 0x7000, class: 0x060100 },
  create: Piix3,
});
