import type { DeviceContext } from '../../core/device/device-type.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { addressHashHighFirst, ETHERNET, isBroadcast, isFor, isGroup, padFrame } from '../../core/net/ethernet.ts';
import { type CardReceiver, cardProperties, NetCard } from '../../core/net/net-cards.ts';
import { CFG, STATUS } from '../../core/pci/config-space.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { RegisterBank } from '../../core/register/register.ts';
import { field } from '../../core/state/fields.ts';
import { MicrowireEeprom, microwireState } from '../microwire-eeprom.ts';
import { Phy, phyState } from './phy.ts';
import { CAUSE, CU, CU_COMMAND, eepro100Registers, PORT, RU, RU_COMMAND } from './registers.ts';

const MEMORY_SIZE = 0x1000;
const IO_SIZE = 0x40;
const FLASH_SIZE = 0x2_0000;
const POWER_MANAGEMENT = 0xdc;
const PMC = 0x7e21;
/** Contents of the EEPROM (section 4): the address, what the card is, where its PHY is, and a sum. */
const EEPROM = { ADDRESS: 0, CONTROLLER: 5, PHY: 6, ID: 10, SUM: 63, CONTROLLER_82557: 0x0100, VALID: 0x4000 } as const;
const EEPROM_SUM = 0xbaba;
const MDI_INTERRUPT = 1 << 29;
const LAST_BYTE = 0xff00_0000;
/** A command block (section 6.4.2): status, command, link. */
const BLOCK = { COMMAND: 2, LINK: 4, DATA: 8, TBD: 8, TCB_BYTES: 12, TBD_COUNT: 15, IMMEDIATE: 16 } as const;
const COMMAND = { EL: 1 << 15, S: 1 << 14, I: 1 << 13, NC: 1 << 4, FLEXIBLE: 1 << 3, MASK: 7 } as const;
const ACTION = {
  NOP: 0,
  ADDRESS: 1,
  CONFIGURE: 2,
  MULTICAST: 3,
  TRANSMIT: 4,
  MICROCODE: 5,
  DUMP: 6,
  DIAGNOSE: 7,
} as const;
const DONE = 0x8000;
const OK = 0x2000;
/** A list that never ends keeps the unit busy for this many blocks at a time. */
const MAX_BLOCKS = 256;
const LARGEST_SENT = 2600;
const NO_ARRAY = 0xffff_ffff;
/** A receive frame descriptor (section 6.4.3.1). */
const RFD = { COMMAND: 2, LINK: 4, COUNT: 12, SIZE: 14, DATA: 16 } as const;
const RFD_STATUS = { DONE_OK: 0xa000, NOT_ADDRESS: 0x0002, PROMISCUOUS: 0x0004 } as const;
/** Bytes and bits of the configuration (section 6.4.2.3). */
const CONFIG_BYTES = 22;
const MAX_FRAME = 1518;
/** Dumps of statistics end in these (section 6.3.3.3). */
const DUMPED = 0xa005;
const DUMPED_AND_RESET = 0xa007;

/** What distinguishes one of the family from the others. */
interface Model {
  readonly statisticsSize: 64 | 76 | 80;
  /** Has the extended transmit blocks of the 82558 and later. */
  readonly extended: boolean;
  /** The 82557 says so in its EEPROM. */
  readonly is82557: boolean;
}

/** Intel's 8255x family of Fast Ethernet controllers. */
export class Eepro100 extends PciDevice<typeof cardProperties> implements CardReceiver {
  readonly #model: Model = MODELS[this.typeName] ?? { statisticsSize: 64, extended: false, is82557: true };
  readonly #bank: RegisterBank<typeof eepro100Registers> = this.bank(eepro100Registers, {
    ACK: { wrote: () => this.#update() },
    COMMAND: { write: value => this.#command(value) },
    MASK: {
      wrote: value => {
        if ((value & 2) !== 0) this.#raise(CAUSE.SWI);
        else this.#update();
      },
    },
    PORT: {
      read: () => 0,
      wrote: (value, _previous, _index, _written, touched) => {
        if ((touched & LAST_BYTE) !== 0) this.#port(value);
      },
    },
    EEPROM: {
      read: stored => (this.#eeprom.output ? stored | 8 : stored),
      wrote: value => this.#eeprom.setPins((value & 2) !== 0, (value & 1) !== 0, (value & 4) !== 0),
    },
    MDI: {
      write: (value, _previous, _index, _written, touched) =>
        (touched & LAST_BYTE) !== 0 ? this.#phy.access(value) : value,
      wrote: (value, _previous, _index, _written, touched) => {
        if ((touched & LAST_BYTE) !== 0 && (value & MDI_INTERRUPT) !== 0) this.#raise(CAUSE.MDI);
      },
    },
  });
  readonly #regs = this.#bank.regs;
  readonly #s = this.state(1, {
    address: field.bytes(ETHERNET.ADDRESS),
    multicast: field.words(2),
    configuration: field.bytes(CONFIG_BYTES),
    commandBase: field.u32(),
    commandOffset: field.u32(),
    receiveBase: field.u32(),
    receiveOffset: field.u32(),
    statisticsAddress: field.u32(),
    sent: field.u32(),
    received: field.u32(),
    withoutBuffer: field.u32(),
  });
  readonly #eeprom = new MicrowireEeprom(this.state(1, microwireState, { name: 'eeprom', onReset: 'keep' }));
  readonly #phy = new Phy(this.state(1, phyState, { name: 'phy' }));
  readonly #card = new NetCard(this, {
    owner: this,
    mac: this.props.mac,
    backend: this.props.netdev,
  });
  readonly #net = this.#card.client;
  readonly #frame = new Uint8Array(LARGEST_SENT);
  readonly #padded = new Uint8Array(ETHERNET.SHORTEST);
  readonly #statistics = new Uint8Array(80);
  #working = false;

  protected override realize(): void {
    this.onUnrealize(this.#card.plug(this.services.netCards));
    this.bar(1, this.shielded(this.#bank));
    this.bar(2, MemoryRegion.container('eepro100-flash', FLASH_SIZE));
    if (this.identity.powerManagement !== undefined) this.config.set16(POWER_MANAGEMENT + 2, PMC);
    this.config.setStatus(STATUS.FAST_BACK | STATUS.DEVSEL_MEDIUM);
    this.config.set8(CFG.LATENCY_TIMER, 0x20);
    this.config.set8(CFG.MIN_GNT, 0x08);
    this.config.set8(CFG.MAX_LAT, 0x18);
    this.#programEeprom();
    this.#reset();
  }

  protected override resetHold(): void {
    this.#reset();
    this.#net.purge();
  }

  protected override restored(): void {
    this.#card.showAddress(this.#s.address);
  }

  #programEeprom(): void {
    const { mac } = this.#card;
    for (let word = 0; word < 3; word++) {
      this.#eeprom.program(EEPROM.ADDRESS + word, (mac[word * 2] ?? 0) | ((mac[word * 2 + 1] ?? 0) << 8));
    }
    if (this.#model.is82557) this.#eeprom.program(EEPROM.CONTROLLER, EEPROM.CONTROLLER_82557);
    this.#eeprom.program(EEPROM.PHY, 1);
    this.#eeprom.program(EEPROM.ID, EEPROM.VALID);
    let sum = 0;
    for (let word = 0; word < EEPROM.SUM; word++) sum += this.#eeprom.read(word);
    this.#eeprom.program(EEPROM.SUM, EEPROM_SUM - sum);
  }

  #reset(): void {
    this.#s.address.set(this.#card.mac);
    this.#card.showAddress(this.#card.mac);
    this.#phy.reset(this.#net.linkUp);
    // Standard transmit blocks and statistics, until software configures others.
    this.#s.configuration[6] = 0x30;
    this.#update();
  }

  #port(value: number): void {
    const selection = value & 3;
    if (selection === PORT.SOFTWARE_RESET || selection === PORT.SELECTIVE_RESET) {
      const { multicast } = this.#s;
      if (selection === PORT.SOFTWARE_RESET) multicast.fill(0);
      this.#bank.reset();
      this.#reset();
    } else if (selection === PORT.SELF_TEST) {
      const address = (value & ~0xf) >>> 0;
      // A signature, and no failures.
      this.dma.write32(address, 0xffff_ffff);
      this.dma.write32(address + 4, 0);
    } else this.log.unimplemented('PORT: dump');
  }

  linkChanged(up: boolean): void {
    this.#phy.setLink(up);
  }

  // Interrupts (section 6.3.3.1): bit M holds all back, the others their cause

  #raise(cause: number): void {
    this.#regs.ACK.value |= cause;
    this.#update();
  }

  #update(): void {
    const { ACK, MASK } = this.#regs;
    this.irq.set(!MASK.M && (ACK.value & (~MASK.value | 0x0f)) !== 0);
  }

  // The system control block's command word

  #command(value: number): number {
    this.#receiveCommand(value & 0x0f);
    this.#commandUnit(value & 0xf0);
    return 0;
  }

  #receiveCommand(command: number): void {
    const { STATUS, POINTER } = this.#regs;
    switch (command) {
      case RU_COMMAND.START:
        STATUS.RUS = RU.READY;
        this.#s.receiveOffset = POINTER.value;
        this.#net.receiverReady();
        break;
      case RU_COMMAND.RESUME:
        STATUS.RUS = RU.READY;
        this.#net.receiverReady();
        break;
      case RU_COMMAND.ABORT:
        if (STATUS.RUS === RU.READY) this.#raise(CAUSE.RNR);
        STATUS.RUS = RU.IDLE;
        break;
      case RU_COMMAND.BASE:
        this.#s.receiveBase = POINTER.value;
        break;
      case RU_COMMAND.NOP:
        break;
      default:
        this.log.unimplemented(`receive unit command ${command}`);
    }
  }

  #commandUnit(command: number): void {
    const { STATUS, POINTER } = this.#regs;
    switch (command) {
      case CU_COMMAND.START:
        this.#s.commandOffset = POINTER.value;
        this.#run();
        break;
      case CU_COMMAND.RESUME:
        if (STATUS.CUS !== CU.ACTIVE) this.#run();
        break;
      case CU_COMMAND.STATISTICS_ADDRESS:
        this.#s.statisticsAddress = (POINTER.value & ~3) >>> 0;
        break;
      case CU_COMMAND.DUMP:
        this.#dumpStatistics(DUMPED);
        break;
      case CU_COMMAND.BASE:
        this.#s.commandBase = POINTER.value;
        break;
      case CU_COMMAND.DUMP_AND_RESET:
        this.#dumpStatistics(DUMPED_AND_RESET);
        Object.assign(this.#s, { sent: 0, received: 0, withoutBuffer: 0 });
        break;
      case CU_COMMAND.NOP:
        break;
      default:
        this.log.unimplemented(`command unit command 0x${command.toString(16)}`);
    }
  }

  /** Software chooses how much it wants to see (section 6.4.2.3, byte 6). */
  get #statisticsSize(): number {
    const choice = this.#s.configuration[6] ?? 0;
    const { statisticsSize } = this.#model;
    if ((choice & 0x20) !== 0) return 64;
    return (choice & 4) !== 0 ? statisticsSize : Math.min(76, statisticsSize);
  }

  #dumpStatistics(mark: number): void {
    const view = new DataView(this.#statistics.buffer);
    this.#statistics.fill(0);
    view.setUint32(0, this.#s.sent, true);
    view.setUint32(36, this.#s.received, true);
    view.setUint32(48, this.#s.withoutBuffer, true);
    const size = this.#statisticsSize;
    this.dma.write(this.#s.statisticsAddress, this.#statistics, 0, size);
    this.dma.write32(this.#s.statisticsAddress + size, mark);
  }

  // The command unit (section 6.4.2)

  #run(): void {
    const { STATUS } = this.#regs;
    STATUS.CUS = CU.ACTIVE;
    if (this.#working) return;
    this.#working = true;
    for (let blocks = 0; blocks < MAX_BLOCKS; blocks++) {
      const block = (this.#s.commandBase + this.#s.commandOffset) >>> 0;
      const command = this.dma.read16(block + BLOCK.COMMAND);
      this.#s.commandOffset = this.dma.read32(block + BLOCK.LINK);
      const good = this.#act(block, command);
      this.dma.write16(block, DONE | (good ? OK : 0));
      if ((command & COMMAND.I) !== 0) this.#raise(CAUSE.CX);
      if ((command & (COMMAND.EL | COMMAND.S)) === 0) continue;
      STATUS.CUS = (command & COMMAND.EL) !== 0 ? CU.IDLE : CU.SUSPENDED;
      this.#raise(CAUSE.CNA);
      break;
    }
    this.#working = false;
    if (STATUS.CUS === CU.ACTIVE) STATUS.CUS = CU.SUSPENDED;
  }

  #act(block: number, command: number): boolean {
    switch (command & COMMAND.MASK) {
      case ACTION.NOP:
      case ACTION.MICROCODE:
      case ACTION.DIAGNOSE:
        return true;
      case ACTION.ADDRESS:
        this.dma.read(block + BLOCK.DATA, this.#s.address);
        this.#card.showAddress(this.#s.address);
        return true;
      case ACTION.CONFIGURE:
        this.dma.read(block + BLOCK.DATA, this.#s.configuration);
        return true;
      case ACTION.MULTICAST:
        this.#takeMulticast(block);
        return true;
      case ACTION.TRANSMIT:
        if ((command & COMMAND.NC) !== 0) return false;
        this.#transmit(block);
        return true;
      default:
        this.log.unimplemented('command block: dump');
        return false;
    }
  }

  #takeMulticast(block: number): void {
    const count = this.dma.read16(block + BLOCK.DATA) & 0x3fff;
    this.#s.multicast.fill(0);
    for (let at = 0; at + ETHERNET.ADDRESS <= count; at += ETHERNET.ADDRESS) {
      this.dma.read(block + BLOCK.DATA + 2 + at, this.#padded, 0, ETHERNET.ADDRESS);
      const hash = (addressHashHighFirst(this.#padded) >>> 2) & 63;
      this.#s.multicast[hash >>> 5] = (this.#s.multicast[hash >>> 5] ?? 0) | (1 << (hash & 31));
    }
  }

  /** A frame in the block itself, then in buffers of its array; extended blocks have two of these at hand (section 6.4.2.5). */
  #transmit(block: number): void {
    const array = this.dma.read32(block + BLOCK.TBD);
    const immediate = Math.min(this.dma.read16(block + BLOCK.TCB_BYTES) & 0x3fff, LARGEST_SENT);
    const buffers = this.dma.read8(block + BLOCK.TBD_COUNT);
    this.dma.read(block + BLOCK.IMMEDIATE, this.#frame, 0, immediate);
    let size = immediate;
    if (array !== NO_ARRAY) {
      const extended = this.#model.extended && ((this.#s.configuration[6] ?? 0) & 0x10) === 0;
      let taken = 0;
      let last = false;
      for (const [from, until] of [
        [block + BLOCK.IMMEDIATE, extended ? 2 : 0],
        [array, buffers],
      ] as const) {
        for (let at = from; taken < until && !last; taken++, at += 8) {
          const address = this.dma.read32(at);
          const length = Math.min(this.dma.read16(at + 4), LARGEST_SENT - size);
          last = (this.dma.read16(at + 6) & 1) !== 0;
          this.dma.read(address, this.#frame, size, length);
          size += length;
        }
      }
    }
    if (size > 0) this.#net.send(this.#frame, size);
    this.#s.sent = (this.#s.sent + 1) >>> 0;
  }

  // The receive unit (section 6.4.3)

  canReceive(): boolean {
    return true;
  }

  receive(frame: Uint8Array, length: number): boolean {
    const { configuration } = this.#s;
    const tooLong = length > MAX_FRAME && ((configuration[18] ?? 0) & 8) === 0;
    if (((configuration[8] ?? 0) & 0x80) !== 0 || tooLong) return true;
    const match = this.#match(frame);
    if (match < 0) return true;
    const { STATUS } = this.#regs;
    if (STATUS.RUS !== RU.READY) {
      this.#s.withoutBuffer = (this.#s.withoutBuffer + 1) >>> 0;
      this.#raise(CAUSE.RNR);
      return true;
    }
    let bytes = frame;
    if (length < ETHERNET.SHORTEST) {
      padFrame(frame, length, this.#padded);
      bytes = this.#padded;
    }
    this.#store(bytes, Math.max(length, ETHERNET.SHORTEST), match);
    return true;
  }

  /** The status bits of a destination that is ours; -1 for any other. */
  #match(frame: Uint8Array): number {
    const { address, configuration, multicast } = this.#s;
    const promiscuous = ((configuration[15] ?? 0) & 1) !== 0;
    if (isFor(frame, address)) return 0;
    if (isBroadcast(frame)) return RFD_STATUS.NOT_ADDRESS;
    const hashed = addressHashHighFirst(frame);
    if (isGroup(frame)) {
      const hash = (hashed >>> 2) & 63;
      const listed = (((multicast[hash >>> 5] ?? 0) >>> (hash & 31)) & 1) !== 0;
      if (((configuration[21] ?? 0) & 8) !== 0 || listed) return RFD_STATUS.NOT_ADDRESS;
      return promiscuous ? RFD_STATUS.NOT_ADDRESS | RFD_STATUS.PROMISCUOUS : -1;
    }
    if (promiscuous) return RFD_STATUS.PROMISCUOUS;
    const hash = hashed >>> 26;
    const several = ((configuration[20] ?? 0) & 0x40) !== 0;
    return several && (((multicast[hash >>> 5] ?? 0) >>> (hash & 31)) & 1) !== 0 ? 0 : -1;
  }

  #store(bytes: Uint8Array, length: number, match: number): void {
    const { STATUS } = this.#regs;
    const descriptor = (this.#s.receiveBase + this.#s.receiveOffset) >>> 0;
    const command = this.dma.read16(descriptor + RFD.COMMAND);
    const size = Math.min(length, this.dma.read16(descriptor + RFD.SIZE));
    this.#s.receiveOffset = this.dma.read32(descriptor + RFD.LINK);
    this.dma.write(descriptor + RFD.DATA, bytes, 0, size);
    this.dma.write16(descriptor + RFD.COUNT, size);
    this.dma.write16(descriptor, RFD_STATUS.DONE_OK | match);
    this.#s.received = (this.#s.received + 1) >>> 0;
    this.#raise(CAUSE.FR);
    if ((command & COMMAND.EL) !== 0) {
      STATUS.RUS = RU.NO_RESOURCES;
      this.#raise(CAUSE.RNR);
    }
    if ((command & COMMAND.S) !== 0) STATUS.RUS = RU.SUSPENDED;
  }
}

const MODELS: Readonly<Record<string, Model>> = {
  i82550: { statisticsSize: 80, extended: true, is82557: false },
  i82551: { statisticsSize: 80, extended: true, is82557: false },
  i82557a: { statisticsSize: 64, extended: false, is82557: false },
  i82557b: { statisticsSize: 64, extended: false, is82557: true },
  i82557c: { statisticsSize: 64, extended: false, is82557: true },
  i82558a: { statisticsSize: 76, extended: true, is82557: false },
  i82558b: { statisticsSize: 76, extended: true, is82557: false },
  i82559a: { statisticsSize: 80, extended: true, is82557: false },
  i82559b: { statisticsSize: 80, extended: true, is82557: false },
  i82559c: { statisticsSize: 80, extended: true, is82557: false },
  i82559er: { statisticsSize: 80, extended: true, is82557: false },
  i82562: { statisticsSize: 80, extended: true, is82557: false },
  i82801: { statisticsSize: 80, extended: true, is82557: false },
};

function model(type: string, device: number, revision: number, summary: string, subsystem?: number) {
  const managed = MODELS[type]?.extended === true && { powerManagement: POWER_MANAGEMENT };
  const own = subsystem !== undefined && { subsystemVendor: 0x8086, subsystem };
  return deviceType({
    type,
    summary: `Intel ${summary}`,
    category: 'network',
    properties: cardProperties,
    pci: { vendor: 0x8086, device, revision, class: 0x020000, pin: 'A', ...managed, ...own, rom: 'pxe-eepro100.rom' },
    bars: {
      0: { size: MEMORY_SIZE, prefetchable: true, map: eepro100Registers },
      1: { size: IO_SIZE, space: 'io' },
      2: { size: FLASH_SIZE },
    },
    create: Eepro100 as new (context: DeviceContext<typeof cardProperties>) => Eepro100,
  });
}

export const i82550 = model('i82550', 0x1209, 0x0e, 'i82550 Ethernet');
export const i82551 = model('i82551', 0x1209, 0x0f, 'i82551 Ethernet');
export const i82557a = model('i82557a', 0x1229, 0x01, 'i82557A Ethernet');
export const i82557b = model('i82557b', 0x1229, 0x02, 'i82557B Ethernet');
export const i82557c = model('i82557c', 0x1229, 0x03, 'i82557C Ethernet');
export const i82558a = model('i82558a', 0x1229, 0x04, 'i82558A Ethernet');
export const i82558b = model('i82558b', 0x1229, 0x05, 'i82558B Ethernet');
export const i82559a = model('i82559a', 0x1229, 0x06, 'i82559A Ethernet');
export const i82559b = model('i82559b', 0x1229, 0x07, 'i82559B Ethernet');
export const i82559c = model('i82559c', 0x1229, 0x0c, 'i82559C Ethernet', 0x0040);
export const i82559er = model('i82559er', 0x1209, 0x09, 'i82559ER Ethernet');
export const i82562 = model('i82562', 0x1209, 0x0e, 'i82562 Ethernet');
export const i82801 = model('i82801', 0x2449, 0x03, 'i82801 Ethernet');
