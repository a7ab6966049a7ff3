import { IpackBus, type IpackCarrier, type IpackSpace } from '../../core/bus/ipack.ts';
import { countedBusName } from '../../core/device/bus.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import type { PropSet } from '../../core/device/property.ts';
import type { IoHandler } from '../../core/memory/memory-region.ts';
import { CFG, STATUS } from '../../core/pci/config-space.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { RegisterBank } from '../../core/register/register.ts';
import { pci9030Registers, tpci200Registers } from './registers.ts';

const SLOTS = 4;
const REQUESTS = 2;
const MIB = 2 ** 20;

/** Base address registers: those of the PCI 9030 itself in memory and in ports, then its four local spaces. */
const BAR = { MEMORY: 0, PORTS: 1, REGISTERS: 2, SPACES: 3, WORDS: 4, BYTES: 5 } as const;
const BYTEWISE = { valid: { unaligned: false }, impl: { max: 1 } } as const;
const WORDWISE = { valid: { max: 2, unaligned: false } } as const;

/** What the serial EEPROM makes of the PCI 9030's configuration space: power management and hot swap, chained by hand. */
const CAPABILITIES = {
  FIRST: 0x40,
  POWER: 0x4801_4801,
  HOT_SWAP_AT: 0x48,
  HOT_SWAP: 0x0002_4c06,
  VPD_AT: 0x4c,
  VPD: 3,
};

/** Local space 1: in each module's 256 bytes, 128 of I/O, 64 of identification, 64 of interrupt acknowledge. */
const MODULE = { SHIFT: 8, ID: 0x80, INTERRUPT: 0xc0, IO_MASK: 0x7f, MASK: 0x3f } as const;
/** Local spaces 2 and 3: the modules' memory, by words and by bytes. */
const WORDS = { SHIFT: 23, MASK: 0x7f_ffff } as const;
const BYTES = { SHIFT: 22, MASK: 0x3f_ffff } as const;

const swap16 = (value: number): number => ((value & 0xff) << 8) | ((value >>> 8) & 0xff);
const statusBit = (slot: number, request: number): number => 1 << (REQUESTS * slot + request);

/** TEWS TPCI200: a carrier of four IndustryPack modules, behind a PLX PCI 9030 (TPCI200 User Manual). */
class Tpci200 extends PciDevice implements IpackCarrier {
  readonly #bridge: RegisterBank<typeof pci9030Registers> = this.bank(pci9030Registers);
  readonly #control: RegisterBank<typeof tpci200Registers> = this.bank(tpci200Registers, {
    IP_STATUS: { write: (_value, _previous, _index, written) => this.#acknowledge(written) },
  });
  readonly #regs = this.#control.regs;
  readonly #modules: IpackBus;

  constructor(context: DeviceContext<PropSet>) {
    super(context);
    const { config } = this;
    config.set16(CFG.STATUS, STATUS.FAST_BACK | STATUS.DEVSEL_MEDIUM);
    config.set8(CFG.CAPABILITIES, CAPABILITIES.FIRST);
    config.set32(CAPABILITIES.FIRST, CAPABILITIES.POWER);
    config.set32(CAPABILITIES.HOT_SWAP_AT, CAPABILITIES.HOT_SWAP);
    config.set32(CAPABILITIES.VPD_AT, CAPABILITIES.VPD);
    const { id, bus, services } = context;
    const name = id === undefined ? countedBusName('IndustryPack', bus) : `${id}.0`;
    this.#modules = this.addBus(new IpackBus(name, SLOTS, this, { services, home: bus.home, owner: this }));
  }

  protected override realize(): void {
    const bridge = this.shielded(this.#bridge);
    this.bar(BAR.MEMORY, bridge);
    this.bar(BAR.PORTS, bridge);
    this.bar(BAR.REGISTERS, this.shielded(this.#registers()));
    this.bar(BAR.SPACES, this.shielded(this.#spaces()));
    this.bar(BAR.WORDS, this.shielded(this.#memory()));
    this.bar(BAR.BYTES, this.shielded(this.#byteMemory()));
  }

  // The local spaces, each of which may be big-endian (PCI 9030 data book, section 4.2.5)

  #registers(): IoHandler {
    const bank = this.#control;
    const { LAS0BRD } = this.#bridge.regs;
    return {
      read: (offset, size) => this.#value(LAS0BRD.BIG_ENDIAN, size, bank.read(offset, size)),
      write: (offset, size, value) => bank.write(offset, size, this.#value(LAS0BRD.BIG_ENDIAN, size, value)),
    };
  }

  #spaces(): IoHandler {
    const { LAS1BRD } = this.#bridge.regs;
    return {
      read: (offset, size) => {
        const address = this.#address(LAS1BRD.BIG_ENDIAN, size, offset);
        return this.#value(LAS1BRD.BIG_ENDIAN, size, this.#readSpace(address));
      },
      write: (offset, size, value) => {
        const address = this.#address(LAS1BRD.BIG_ENDIAN, size, offset);
        const space = spaceOf(address);
        const within = address & (space === 'io' ? MODULE.IO_MASK : MODULE.MASK);
        const module = this.#modules.at(address >>> MODULE.SHIFT);
        module?.write(space, within, this.#value(LAS1BRD.BIG_ENDIAN, size, value));
      },
    };
  }

  #memory(): IoHandler {
    const { LAS2BRD } = this.#bridge.regs;
    return {
      read: (offset, size) => {
        const address = this.#address(LAS2BRD.BIG_ENDIAN, size, offset);
        const module = this.#modules.at(address >>> WORDS.SHIFT);
        return this.#value(LAS2BRD.BIG_ENDIAN, size, module?.read('memory', address & WORDS.MASK) ?? 0);
      },
      write: (offset, size, value) => {
        const address = this.#address(LAS2BRD.BIG_ENDIAN, size, offset);
        const written = this.#value(LAS2BRD.BIG_ENDIAN, size, value);
        this.#modules.at(address >>> WORDS.SHIFT)?.write('memory', address & WORDS.MASK, written);
      },
    };
  }

  #byteMemory(): IoHandler {
    return {
      read: offset => this.#modules.at(offset >>> BYTES.SHIFT)?.read('byte-memory', offset & BYTES.MASK) ?? 0,
      write: (offset, _size, value) =>
        this.#modules.at(offset >>> BYTES.SHIFT)?.write('byte-memory', offset & BYTES.MASK, value),
    };
  }

  /** In a big-endian space the bytes of a word change places: a byte by its address, a word in itself. */
  #address(bigEndian: boolean, size: number, offset: number): number {
    return bigEndian && size === 1 ? offset ^ 1 : offset;
  }

  #value(bigEndian: boolean, size: number, value: number): number {
    return bigEndian && size === 2 ? swap16(value) : value;
  }

  #readSpace(address: number): number {
    const slot = address >>> MODULE.SHIFT;
    const module = this.#modules.at(slot);
    if (module === undefined) return 0;
    const space = spaceOf(address);
    if (space === 'io') return module.read(space, address & MODULE.IO_MASK);
    const within = address & MODULE.MASK;
    if (space === 'interrupt' && (within === 0 || within === 2)) this.#acknowledgeCycle(slot, within / 2);
    return module.read(space, within);
  }

  // Interrupts

  interrupt(slot: number, request: number, level: boolean): void {
    const control = this.#regs.IP_CONTROL.at(slot);
    if (!(request === 0 ? control.INT0_ENABLE : control.INT1_ENABLE)) return;
    const { IP_STATUS } = this.#regs;
    const before = IP_STATUS.value;
    const bit = statusBit(slot, request);
    IP_STATUS.value = level ? before | bit : before & ~bit;
    if (IP_STATUS.value === before) return;
    if (this.#edge(slot, request)) {
      if (level) this.#pulse();
      return;
    }
    this.irq.set((IP_STATUS.value & ~this.#edges()) !== 0);
  }

  #edge(slot: number, request: number): boolean {
    const control = this.#regs.IP_CONTROL.at(slot);
    return request === 0 ? control.INT0_EDGE : control.INT1_EDGE;
  }

  /** The requests that are sensitive to edges, as in the status register. */
  #edges(): number {
    let edges = 0;
    for (let slot = 0; slot < SLOTS; slot++)
      for (let request = 0; request < REQUESTS; request++)
        if (this.#edge(slot, request)) edges |= statusBit(slot, request);
    return edges;
  }

  /** The one line to the host leaves the level that it has, and comes back. */
  #pulse(): void {
    const { level } = this.irq;
    this.irq.set(!level);
    this.irq.set(level);
  }

  /** An acknowledge cycle takes a level-sensitive request back; the module may make it again at once. */
  #acknowledgeCycle(slot: number, request: number): void {
    const pending = (this.#regs.IP_STATUS.value & statusBit(slot, request)) !== 0;
    if (pending && !this.#edge(slot, request)) this.interrupt(slot, request, false);
  }

  /** Requests that software writes 1 for go away, where there is a module. */
  #acknowledge(written: number): number {
    for (let slot = 0; slot < SLOTS; slot++) {
      if (this.#modules.at(slot) === undefined) continue;
      for (let request = 0; request < REQUESTS; request++)
        if ((written & statusBit(slot, request)) !== 0) this.interrupt(slot, request, false);
    }
    return this.#regs.IP_STATUS.value;
  }
}

function spaceOf(address: number): IpackSpace {
  const at = address & 0xff;
  return at >= MODULE.INTERRUPT ? 'interrupt' : at >= MODULE.ID ? 'id' : 'io';
}

export const tpci200 = deviceType({
  type: 'tpci200',
  summary: 'TEWS TPCI200 IndustryPack carrier',
  category: 'input',
  pci: {
    vendor: 0x1498,
    device: 0x30c8,
    class: 0x06_8000,
    subsystemVendor: 0x1498,
    subsystem: 0x300a,
    pin: 'A',
  },
  bars: {
    [BAR.MEMORY]: { size: 128, access: BYTEWISE },
    [BAR.PORTS]: { size: 128, space: 'io', access: BYTEWISE },
    [BAR.REGISTERS]: { size: 256, access: { valid: { min: 2, max: 2, unaligned: false } } },
    [BAR.SPACES]: { size: 1024, access: WORDWISE },
    [BAR.WORDS]: { size: 32 * MIB, access: WORDWISE },
    [BAR.BYTES]: { size: 16 * MIB, access: { valid: { max: 1 } } },
  },
  create: Tpci200,
});
