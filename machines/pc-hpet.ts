/** The HPET of a PC, between the older timers and the interrupt inputs that it can take from them. */
import type { IsaBus } from '../core/bus/isa.ts';
import type { IrqLine } from '../core/irq/line.ts';
import type { Machine } from '../core/machine/machine.ts';
import { type Hpet, hpet } from '../devices/hpet.ts';
import type { I8254 } from '../devices/i8254.ts';
import type { PcInterrupts } from './pc-interrupts.ts';

const ISA_IRQS = 16;
const PIT_SOURCE = 0;
const RTC_SOURCE = 1;

export class PcHpet {
  readonly device: Hpet;

  constructor(device: Hpet) {
    this.device = device;
  }

  /** Has the interval timer interrupt through the HPET, which silences it in legacy mode. */
  takePit(pit: I8254): void {
    const { legacy, legacyReplacement } = this.device;
    pit.interrupt.connect(level => legacy[PIT_SOURCE]?.set(level));
    legacyReplacement.connect(level => pit.disable[0]?.set(level));
  }

  /** The same for the real-time clock. */
  takeRtc(interrupt: IrqLine): void {
    interrupt.connect(level => this.device.legacy[RTC_SOURCE]?.set(level));
  }
}

/** @param routes interrupt inputs that the comparators can be routed to, as bits */
export function plugHpet(machine: Machine, isa: IsaBus, interrupts: PcInterrupts, routes: number): PcHpet {
  const device = machine.system.plug(hpet, { 'hpet-intcap': routes });
  device.interrupts.forEach((line, irq) => {
    const input = irq < ISA_IRQS ? isa.irq(irq, 'hpet') : interrupts.lines[irq];
    if (input !== undefined) line.connect(level => input.set(level));
  });
  return new PcHpet(device);
}
