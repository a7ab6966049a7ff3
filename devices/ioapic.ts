import { Device } from '../core/device/device.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SystemBus } from '../core/device/system-bus.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { field } from '../core/state/fields.ts';

/** 82093AA datasheet, section 3. */
export const IOAPIC_BASE = 0xfec0_0000;
/** Where a PC's second chip is. */
export const IOAPIC2_BASE = 0xfec1_0000;
export const IOAPIC_PINS = 24;
const SIZE = 0x1000;
const IOREGSEL = 0x00;
const IOWIN = 0x10;
/** Version 0x20 parts take directed end-of-interrupt messages here. */
const EOI = 0x40;
const REG_ID = 0x00;
const REG_VERSION = 0x01;
const REG_ARBITRATION = 0x02;
const REG_REDIRECTION = 0x10;

/** Low half of a redirection entry (section 3.2.4). */
const ENTRY = {
  VECTOR: 0xff,
  DELIVERY_SHIFT: 8,
  LOGICAL: 1 << 11,
  PENDING: 1 << 12,
  ACTIVE_LOW: 1 << 13,
  REMOTE_IRR: 1 << 14,
  LEVEL: 1 << 15,
  MASKED: 1 << 16,
} as const;
const READ_ONLY = ENTRY.PENDING | ENTRY.REMOTE_IRR;
const DELIVERY_NAMES = ['fixed', 'lowpri', 'SMI', '...', 'NMI', 'INIT', '...', 'extINT'] as const;
const EXTINT = 7;
/** Interrupt messages to local APICs (Intel SDM volume 3, section 11.11). */
const MESSAGE_BASE = 0xfee0_0000;

const properties = { version: prop.u8({ default: 0x20 }) };

/** The I/O APIC: 24 inputs, each with a redirection entry that says which CPU gets which vector. */
export class IoApic extends Device<typeof properties> {
  readonly pins = this.inputs('', IOAPIC_PINS, (pin, level) => this.#pinChanged(pin, level));
  readonly #s = this.state(1, {
    id: field.u8(),
    select: field.u8(),
    irr: field.u32(),
    low: field.words(IOAPIC_PINS),
    high: field.words(IOAPIC_PINS),
  });
  /** The registers, for the machine to place. */
  readonly region = MemoryRegion.io(
    'ioapic',
    SIZE,
    { read: offset => this.#read(offset), write: (offset, _size, value) => this.#write(offset, value) },
    { impl: { min: 4, max: 4 } },
  );
  /** Who answers an interrupt that is to come from the i8259 pair. */
  acknowledgeExternal: () => number = () => 0xff;
  /** Sends an interrupt message. */
  sendMessage: (address: number, data: number) => void = (address, data) => {
    if (this.bus instanceof SystemBus) this.bus.dmaSpace.write(address, 4, data);
  };
  /** The pin of input 0: IRQ 0 of the ISA bus arrives at pin 2 of the first chip, as every PC's tables say. */
  pinOfInput0 = 2;
  /** Ends of interrupts do not come here, since the local APICs are an accelerator's: a line that falls ends its interrupt. */
  endsWithLine = false;

  /** Each input with its redirection entry (82093AA, 3.2.4), for `info pic`. */
  get report(): string {
    const s = this.#s;
    const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
    const rows = Array.from({ length: IOAPIC_PINS }, (_, pin) => {
      const [low = 0, high = 0] = [s.low[pin], s.high[pin]];
      const words = [
        (low & ENTRY.ACTIVE_LOW) !== 0 ? 'active-lo' : 'active-hi',
        (low & ENTRY.LEVEL) !== 0 ? 'level' : 'edge ',
        (low & ENTRY.MASKED) !== 0 ? 'masked' : '      ',
        (DELIVERY_NAMES[(low >>> ENTRY.DELIVERY_SHIFT) & 7] ?? '').padEnd(6),
        (low & ENTRY.LOGICAL) !== 0 ? 'logical' : 'physical',
      ];
      const entry = `0x${hex(high >>> 0, 8)}${hex(low >>> 0, 8)}`;
      return `  pin ${String(pin).padEnd(2)} ${entry} dest=${(high >>> 24).toString(16)} vec=${String(low & ENTRY.VECTOR).padEnd(3)} ${words.join(' ')}`;
    });
    const pins = (set: (pin: number) => boolean): string => {
      const list = Array.from({ length: IOAPIC_PINS }, (_, pin) => pin).filter(set);
      return list.length === 0 ? '(none)' : list.join(' ');
    };
    return [
      `ioapic0: ver=0x${hex(this.props.version, 2)} id=0x${hex(s.id, 2)} sel=0x${hex(s.select, 2)}`,
      ...rows,
      `  IRR      ${pins(pin => (s.irr & (1 << pin)) !== 0)}`,
      `  Remote IRR ${pins(pin => ((s.low[pin] ?? 0) & ENTRY.REMOTE_IRR) !== 0)}`,
    ].join('\n');
  }

  override get mappedRegions(): readonly { readonly offset: number; readonly size: number }[] {
    return this.region.parent === undefined ? [] : [{ offset: this.region.offset, size: SIZE }];
  }

  protected override realize(): void {
    this.onUnrealize(() => this.region.parent?.remove(this.region));
    this.resetHold();
  }

  protected override resetHold(): void {
    this.#s.low.fill(ENTRY.MASKED);
  }

  /** A CPU has finished with `vector`: level-triggered entries may interrupt again. */
  endOfInterrupt(vector: number): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const entry = this.#s.low[pin] ?? 0;
      if ((entry & ENTRY.VECTOR) !== vector || (entry & ENTRY.LEVEL) === 0) continue;
      this.#s.low[pin] = entry & ~ENTRY.REMOTE_IRR;
      if ((this.#s.irr & (1 << pin)) !== 0) this.#service();
    }
  }

  #pinChanged(input: number, level: boolean): void {
    const pin = input === 0 ? this.pinOfInput0 : input;
    const mask = 1 << pin;
    const entry = this.#s.low[pin] ?? 0;
    if ((entry & ENTRY.LEVEL) !== 0) {
      if (level) {
        this.#s.irr = (this.#s.irr | mask) >>> 0;
        if ((entry & ENTRY.REMOTE_IRR) === 0) this.#service();
      } else {
        this.#s.irr = (this.#s.irr & ~mask) >>> 0;
        if (this.endsWithLine) this.#s.low[pin] = entry & ~ENTRY.REMOTE_IRR;
      }
    } else if (level && (entry & ENTRY.MASKED) === 0) {
      this.#s.irr = (this.#s.irr | mask) >>> 0;
      this.#service();
    }
  }

  #service(): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const mask = 1 << pin;
      const entry = this.#s.low[pin] ?? 0;
      if ((this.#s.irr & mask) === 0 || (entry & ENTRY.MASKED) !== 0) continue;
      const level = (entry & ENTRY.LEVEL) !== 0;
      if (level && (entry & ENTRY.REMOTE_IRR) !== 0) continue;
      if (level) this.#s.low[pin] = entry | ENTRY.REMOTE_IRR;
      else this.#s.irr = (this.#s.irr & ~mask) >>> 0;
      this.#send(pin, entry);
    }
  }

  #send(pin: number, entry: number): void {
    const delivery = (entry >>> ENTRY.DELIVERY_SHIFT) & 7;
    const vector = delivery === EXTINT ? this.acknowledgeExternal() : entry & ENTRY.VECTOR;
    // Below the destination is what remapping hardware makes of it (VT-d 3.4, section 5.1.2.1).
    const destination = (this.#s.high[pin] ?? 0) >>> 16;
    const address = MESSAGE_BASE | (destination << 4) | ((entry & ENTRY.LOGICAL) !== 0 ? 1 << 2 : 0);
    const data = vector | (delivery << 8) | ((entry & ENTRY.LEVEL) !== 0 ? (1 << 15) | (1 << 14) : 0);
    this.sendMessage(address >>> 0, data);
  }

  #read(offset: number): number {
    const s = this.#s;
    if (offset === IOREGSEL) return s.select;
    if (offset !== IOWIN) return 0;
    if (s.select === REG_ID || s.select === REG_ARBITRATION) return s.id << 24;
    if (s.select === REG_VERSION) return this.props.version | ((IOAPIC_PINS - 1) << 16);
    const pin = (s.select - REG_REDIRECTION) >> 1;
    if (pin < 0 || pin >= IOAPIC_PINS) return 0;
    return ((s.select & 1) === 0 ? s.low[pin] : s.high[pin]) ?? 0;
  }

  #write(offset: number, value: number): void {
    const s = this.#s;
    if (offset === IOREGSEL) {
      s.select = value & 0xff;
    } else if (offset === EOI && this.props.version >= 0x20) {
      this.endOfInterrupt(value & 0xff);
    } else if (offset === IOWIN) {
      if (s.select === REG_ID) {
        s.id = (value >>> 24) & 0x0f;
        return;
      }
      const pin = (s.select - REG_REDIRECTION) >> 1;
      if (pin < 0 || pin >= IOAPIC_PINS) return;
      if ((s.select & 1) !== 0) s.high[pin] = value;
      else this.#writeEntry(pin, value);
      this.#service();
    }
  }

  #writeEntry(pin: number, value: number): void {
    const old = this.#s.low[pin] ?? 0;
    let entry = ((value & ~READ_ONLY) | (old & READ_ONLY)) & 0x1_ffff;
    // An edge-triggered entry has no remote IRR (section 3.2.4, bit 14).
    if ((entry & ENTRY.LEVEL) === 0) entry &= ~ENTRY.REMOTE_IRR;
    this.#s.low[pin] = entry;
  }
}

export const ioapic = deviceType({
  type: 'ioapic',
  summary: 'I/O APIC (82093AA)',
  parents: ['ioapic-common', 'sys-bus-device', 'device'],
  userCreatable: false,
  properties,
  create: IoApic,
});
