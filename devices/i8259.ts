import type { InterruptSource } from '../core/accel/accelerator.ts';
import { IsaDevice } from '../core/bus/isa.ts';

import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import type { IoHandler } from '../core/memory/memory-region.ts';
import { field } from '../core/state/fields.ts';

/** Initialization and operation command words (8259A datasheet). */
const ICW1 = { SELECT: 0x10, ICW4: 0x01, SINGLE: 0x02, LEVEL: 0x08 } as const;
const ICW4 = { AUTO_EOI: 0x02, SPECIAL_FULLY_NESTED: 0x10 } as const;
const OCW3 = {
  SELECT: 0x08,
  POLL: 0x04,
  READ: 0x02,
  READ_ISR: 0x01,
  SPECIAL_MASK: 0x40,
  SPECIAL_MASK_VALUE: 0x20,
} as const;
const CASCADE = 2;
const SPURIOUS = 7;
const NONE = 8;

const properties = {
  iobase: prop.u32({ default: 0xffff_ffff }),
  elcr_addr: prop.u32({ default: 0xffff_ffff }),
  elcr_mask: prop.u8({ default: 0xff }),
  master: prop.bit({ default: false }),
};

/** One 8259A programmable interrupt controller, with its edge/level control register (82371SB datasheet, section 2.5.7). */
class I8259 extends IsaDevice<typeof properties> {
  /** INTR: to the CPU, or to the master's input 2. */
  readonly interrupt = this.output('int');
  readonly requests = this.inputs('', 8, (index, level) => this.#requestChanged(index, level));
  /** Set on the master: whoever answers the second interrupt-acknowledge cycle. */
  slave: I8259 | undefined;

  readonly #s = this.state(1, {
    irr: field.u8(),
    imr: field.u8(),
    isr: field.u8(),
    lastLevels: field.u8(),
    priority: field.u8(),
    vectorBase: field.u8(),
    readIsr: field.bool(),
    poll: field.bool(),
    specialMask: field.bool(),
    initStep: field.u8(),
    autoEoi: field.bool(),
    rotateOnAutoEoi: field.bool(),
    specialFullyNested: field.bool(),
    needsIcw4: field.bool(),
    single: field.bool(),
    ltim: field.bool(),
  });
  /** Which inputs are level-triggered; survives reset of the controller by ICW1. */
  readonly #elcr = this.state(1, { mode: field.u8() }, { name: 'elcr' });

  protected override realize(): void {
    const { iobase, elcr_addr: elcr } = this.props;
    if (iobase !== 0xffff_ffff) this.ports(iobase, 2, this.registers, { impl: { min: 1, max: 1 } }, 'pic');
    if (elcr !== 0xffff_ffff) this.ports(elcr, 1, this.#elcrPort, { impl: { min: 1, max: 1 } }, 'elcr');
  }

  readonly registers: IoHandler = {
    read: offset => this.#read(offset),
    write: (offset, _size, value) => {
      if (offset === 0) this.#writeCommand(value);
      else this.#writeData(value);
    },
  };

  readonly #elcrPort: IoHandler = {
    read: () => this.#elcr.mode,
    write: (_offset, _size, value) => {
      this.#elcr.mode = value & this.props.elcr_mask;
    },
  };

  /** Interrupts in service, requested and masked, for `info pic`. */
  get report(): string {
    const hex = (value: number): string => value.toString(16).padStart(2, '0');
    const s = this.#s;
    return `pic${this.props.master ? 0 : 1}: irr=${hex(s.irr)} imr=${hex(s.imr)} isr=${hex(s.isr)} hprio=${s.priority} irq_base=${hex(s.vectorBase)} rr_sel=${Number(s.readIsr)} elcr=${hex(this.#elcr.mode)} fnm=${Number(s.specialFullyNested)}`;
  }

  /** Priority of a set of inputs: 0 is the highest, 8 is none (rotation moves which input that is). */
  #priorityOf(mask: number): number {
    if (mask === 0) return NONE;
    let priority = 0;
    while ((mask & (1 << ((priority + this.#s.priority) & 7))) === 0) priority++;
    return priority;
  }

  /** The input that interrupts now, or -1. */
  #pendingInput(): number {
    const s = this.#s;
    const priority = this.#priorityOf(s.irr & ~s.imr);
    if (priority === NONE) return -1;
    let inService = s.isr;
    if (s.specialMask) inService &= ~s.imr;
    // A slave whose input is in service may interrupt again in special fully nested mode (datasheet, "Special Fully Nest Mode").
    if (s.specialFullyNested && this.props.master) inService &= ~(1 << CASCADE);
    return priority < this.#priorityOf(inService) ? (priority + s.priority) & 7 : -1;
  }

  #update(): void {
    this.interrupt.set(this.#pendingInput() >= 0);
  }

  #requestChanged(index: number, level: boolean): void {
    const s = this.#s;
    const mask = 1 << index;
    if ((this.#elcr.mode & mask) !== 0 || s.ltim) {
      if (level) {
        s.irr |= mask;
        s.lastLevels |= mask;
      } else {
        s.irr &= ~mask;
        s.lastLevels &= ~mask;
      }
    } else if (level) {
      if ((s.lastLevels & mask) === 0) s.irr |= mask;
      s.lastLevels |= mask;
    } else {
      s.lastLevels &= ~mask;
    }
    this.#update();
  }

  #acknowledgeInput(input: number): void {
    const s = this.#s;
    const mask = 1 << input;
    if (s.autoEoi) {
      if (s.rotateOnAutoEoi) s.priority = (input + 1) & 7;
    } else {
      s.isr |= mask;
    }
    if ((this.#elcr.mode & mask) === 0 && !s.ltim) s.irr &= ~mask;
    this.#update();
  }

  /** The interrupt-acknowledge cycle: the vector. With nothing pending any more it is the spurious one. */
  acknowledge(): number {
    const input = this.#pendingInput();
    if (input < 0) return this.#s.vectorBase + SPURIOUS;
    let vector = this.#s.vectorBase + input;
    if (this.slave !== undefined && input === CASCADE) vector = this.slave.acknowledge();
    this.#acknowledgeInput(input);
    return vector;
  }

  #writeCommand(value: number): void {
    const s = this.#s;
    if ((value & ICW1.SELECT) !== 0) {
      this.#initialize();
      s.initStep = 1;
      s.needsIcw4 = (value & ICW1.ICW4) !== 0;
      s.single = (value & ICW1.SINGLE) !== 0;
      s.ltim = (value & ICW1.LEVEL) !== 0;
      return;
    }
    if ((value & OCW3.SELECT) !== 0) {
      if ((value & OCW3.POLL) !== 0) s.poll = true;
      if ((value & OCW3.READ) !== 0) s.readIsr = (value & OCW3.READ_ISR) !== 0;
      if ((value & OCW3.SPECIAL_MASK) !== 0) s.specialMask = (value & OCW3.SPECIAL_MASK_VALUE) !== 0;
      return;
    }
    this.#endOfInterrupt(value >>> 5, value & 7);
  }

  /** OCW2: end of interrupt and rotation (datasheet, "Operation Command Word 2"). */
  #endOfInterrupt(command: number, input: number): void {
    const s = this.#s;
    switch (command) {
      case 0: // rotate in automatic EOI mode, clear
      case 4: // and set
        s.rotateOnAutoEoi = command === 4;
        break;
      case 1: // non-specific EOI
      case 5: {
        // and rotate
        const priority = this.#priorityOf(s.isr);
        if (priority === NONE) break;
        const highest = (priority + s.priority) & 7;
        s.isr &= ~(1 << highest);
        if (command === 5) s.priority = (highest + 1) & 7;
        this.#update();
        break;
      }
      case 3: // specific EOI
        s.isr &= ~(1 << input);
        this.#update();
        break;
      case 6: // set priority
        s.priority = (input + 1) & 7;
        this.#update();
        break;
      case 7: // rotate on specific EOI
        s.isr &= ~(1 << input);
        s.priority = (input + 1) & 7;
        this.#update();
        break;
      default: // no operation
        break;
    }
  }

  #writeData(value: number): void {
    const s = this.#s;
    switch (s.initStep) {
      case 1:
        s.vectorBase = value & 0xf8;
        s.initStep = s.single ? (s.needsIcw4 ? 3 : 0) : 2;
        break;
      case 2:
        s.initStep = s.needsIcw4 ? 3 : 0;
        break;
      case 3:
        s.specialFullyNested = (value & ICW4.SPECIAL_FULLY_NESTED) !== 0;
        s.autoEoi = (value & ICW4.AUTO_EOI) !== 0;
        s.initStep = 0;
        break;
      default:
        s.imr = value;
        this.#update();
    }
  }

  #read(offset: number): number {
    const s = this.#s;
    if (s.poll) return this.#pollRead();
    if (offset === 1) return s.imr;
    return s.readIsr ? s.isr : s.irr;
  }

  /** The read after a poll command is an interrupt acknowledge (datasheet, "Poll Command"). */
  #pollRead(): number {
    this.#s.poll = false;
    const input = this.#pendingInput();
    if (input < 0) return 0;
    this.#acknowledgeInput(input);
    return input | 0x80;
  }

  /** ICW1 clears all but the ELCR; level-triggered inputs keep requesting. */
  #initialize(): void {
    const s = this.#s;
    Object.assign(s, {
      irr: s.irr & this.#elcr.mode,
      imr: 0,
      isr: 0,
      lastLevels: s.lastLevels & this.#elcr.mode,
      priority: 0,
      vectorBase: 0,
      readIsr: false,
      poll: false,
      specialMask: false,
      initStep: 0,
      autoEoi: false,
      rotateOnAutoEoi: false,
      specialFullyNested: false,
      needsIcw4: false,
      single: false,
      ltim: false,
    });
    this.#update();
  }
}

export type { I8259 };

export const i8259 = deviceType({
  type: 'isa-i8259',
  summary: '8259A programmable interrupt controller',
  bus: 'ISA',
  parents: ['pic-common', 'isa-device', 'device'],
  userCreatable: false,
  properties,
  create: I8259,
});

/** The master and slave as the CPU sees them. */
export function interruptSource(master: I8259): InterruptSource {
  return {
    get pending() {
      return master.interrupt.level;
    },
    acknowledge: () => master.acknowledge(),
    onPending(changed) {
      master.interrupt.connect(level => {
        if (level) changed();
      });
    },
  };
}
