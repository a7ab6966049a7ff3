/**
 * A register script: what software would do to a machine's registers, written down once and played on any machine that
 * speaks the qtest protocol. Steps never depend on answers, so both sides see exactly the same accesses.
 */
export interface Step {
  /** The qtest command, without its newline. */
  readonly command: string;
  /** Bits of a numeric answer that must agree; undefined compares the answer as text. */
  readonly mask: bigint | undefined;
  /** What the step is about, for the report. */
  readonly note: string;
  /** What follows comes only when this has been answered, and the machine has done what it put off. */
  readonly settles?: true;
  /** {@link command} is for the QMP monitor; its answer is what that returns. */
  readonly monitor?: true;
}

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** Where a PCI function sits. */
export interface PciPlace {
  readonly bus?: number;
  readonly device: number;
  readonly fn?: number;
}

export class RegisterScript {
  readonly name: string;
  /** Command-line arguments that describe the machine; the same for both sides. */
  readonly machine: readonly string[];
  /** True once the script steps the virtual clock, which only the qtest accelerator can do. */
  stepsClock = false;
  readonly steps: Step[] = [];
  #note = '';

  constructor(name: string, machine: readonly string[]) {
    this.name = name;
    this.machine = machine;
  }

  /** Names the steps that follow. */
  about(note: string): this {
    this.#note = note;
    return this;
  }

  out8(port: number, ...values: readonly number[]): this {
    for (const value of values) this.#plain(`outb ${hex(port)} ${hex(value)}`);
    return this;
  }
  out16(port: number, value: number): this {
    return this.#plain(`outw ${hex(port)} ${hex(value)}`);
  }
  out32(port: number, value: number): this {
    return this.#plain(`outl ${hex(port)} ${hex(value >>> 0)}`);
  }
  in8(port: number, mask = 0xff): this {
    return this.#masked(`inb ${hex(port)}`, mask);
  }
  in16(port: number, mask = 0xffff): this {
    return this.#masked(`inw ${hex(port)}`, mask);
  }
  in32(port: number, mask = 0xffff_ffff): this {
    return this.#masked(`inl ${hex(port)}`, mask);
  }
  /** Writes `value` to an index port and reads the data port: CMOS, VGA, Super I/O. */
  indexed8(index: number, value: number, data: number, mask = 0xff): this {
    return this.out8(index, value).in8(data, mask);
  }

  write8(address: number, value: number): this {
    return this.#plain(`writeb ${hex(address)} ${hex(value)}`);
  }
  write16(address: number, value: number): this {
    return this.#plain(`writew ${hex(address)} ${hex(value)}`);
  }
  write32(address: number, value: number): this {
    return this.#plain(`writel ${hex(address)} ${hex(value >>> 0)}`);
  }
  write64(address: number, value: bigint): this {
    return this.#plain(`writeq ${hex(address)} ${hex(value)}`);
  }
  read8(address: number, mask = 0xff): this {
    return this.#masked(`readb ${hex(address)}`, mask);
  }
  read16(address: number, mask = 0xffff): this {
    return this.#masked(`readw ${hex(address)}`, mask);
  }
  read32(address: number, mask = 0xffff_ffff): this {
    return this.#masked(`readl ${hex(address)}`, mask);
  }
  /** Compares `length` bytes of memory as they are. */
  readBytes(address: number, length: number): this {
    return this.#plain(`read ${hex(address)} ${hex(length)}`);
  }
  writeBytes(address: number, bytes: Uint8Array): this {
    return this.#plain(`write ${hex(address)} ${hex(bytes.length)} 0x${Buffer.from(bytes).toString('hex')}`);
  }

  /** Steps virtual time. */
  clockStep(ns: number): this {
    this.stepsClock = true;
    return this.#plain(`clock_step ${ns}`);
  }

  /** Reads a dword of PCI configuration space through mechanism #1. */
  pciRead(place: PciPlace, register: number, mask = 0xffff_ffff): this {
    return this.#select(place, register).in32(0xcfc, mask);
  }
  pciWrite(place: PciPlace, register: number, value: number): this {
    return this.#select(place, register).out32(0xcfc, value);
  }
  pciWrite16(place: PciPlace, register: number, value: number): this {
    return this.#select(place, register & ~3).out16(0xcfc + (register & 2), value);
  }
  pciWrite8(place: PciPlace, register: number, value: number): this {
    return this.#select(place, register & ~3).out8(0xcfc + (register & 3), value);
  }

  /** Runs a QMP command. */
  ask(execute: string, parameters: object = {}): this {
    const command = JSON.stringify({ execute, arguments: parameters });
    this.steps.push({ command, mask: undefined, note: this.#note, monitor: true });
    return this;
  }

  /** Lets the machine do what it has put off until after the last access. */
  settle(): this {
    const last = this.steps.pop();
    if (last !== undefined) this.steps.push({ ...last, settles: true });
    return this;
  }

  #select(place: PciPlace, register: number): this {
    const { bus = 0, device, fn = 0 } = place;
    return this.out32(0xcf8, 0x8000_0000 | (bus << 16) | (device << 11) | (fn << 8) | register);
  }

  #plain(command: string): this {
    this.steps.push({ command, mask: undefined, note: this.#note });
    return this;
  }
  #masked(command: string, mask: number): this {
    this.steps.push({ command, mask: BigInt(mask >>> 0), note: this.#note });
    return this;
  }
}
