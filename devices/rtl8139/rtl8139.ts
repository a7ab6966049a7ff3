import { deviceType } from '../../core/device/device-type.ts';
import {
  addressHashHighFirst,
  copyUntagged,
  ETHER_TYPE,
  ETHERNET,
  frameChecksum,
  get16,
  isBroadcast,
  isFor,
  isGroup,
  padFrame,
} from '../../core/net/ethernet.ts';
import { LARGEST_FRAME } from '../../core/net/frame-stream.ts';
import { type CardReceiver, cardProperties, NetCard } from '../../core/net/net-cards.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { RegisterBank } from '../../core/register/register.ts';
import { field } from '../../core/state/fields.ts';
import { MicrowireEeprom, microwireState } from '../microwire-eeprom.ts';
import { DescriptorRings, type Match, type RingHost, ringState } from './descriptors.ts';
import { BMCR, BMSR_LINK, EEM, ISR, RCR, rtl8139Registers, TCR_LBK, WRITABLE } from './registers.ts';

const BAR_SIZE = 0x100;
const DESCRIPTORS = 4;
/** Nanoseconds of a PCI clock, which TCTR counts. */
const PCI_CLOCK_NS = 30;
const COUNTER_NS = 2 ** 32 * PCI_CLOCK_NS;
const LARGEST_TRANSMIT = 0x2000;
const SMALLEST_BUFFER = 8192;
/** CAPR stands this far behind what has been read. */
const CAPR_LAG = 16;
/** The status word before each packet in the receive buffer (RTL8139C+ data sheet, section 6.1.2). */
const RECEIVED = { ROK: 1, BAR: 1 << 13, PAM: 1 << 14, MAR: 1 << 15 } as const;
const STATUS_WORD = 4;
const TALLY_DUMP = 8;
const TALLY_SIZE = 64;
/** Contents of the EEPROM (section 7): signature, then vendor and device; the address from word 7. */
const EEPROM = { SIGNATURE: 0x8129, ADDRESS: 7 } as const;
const IDENTITY = { vendor: 0x10ec, device: 0x8139 } as const;
/** What software writes to HLTCLK. */
const CLOCK = { RUN: 0x52, HALT: 0x48 } as const;

/** The tally counters (section 5.3). */
const tallyState = {
  txOk: field.number(),
  rxOk: field.number(),
  txError: field.number(),
  rxError: field.u32(),
  missed: field.u16(),
  rxOkPhysical: field.number(),
  rxOkBroadcast: field.number(),
  rxOkMulticast: field.u32(),
};

/** Realtek's RTL8139C+, with the receive buffer and four transmit descriptors of its ancestors and the rings of C+ mode. */
export class Rtl8139 extends PciDevice<typeof cardProperties> implements CardReceiver, RingHost {
  readonly #bank: RegisterBank<typeof rtl8139Registers> = this.bank(rtl8139Registers, {
    TSD: {
      read: stored => stored,
      write: (value, previous) => this.#transmitStatus(value, previous),
      wrote: (_value, _previous, index) => this.#transmitWritten(index),
    },
    CR: {
      read: stored => stored | (this.#bufferEmpty() ? 1 : 0),
      write: value => this.#command(value),
      wrote: () => this.#net.receiverReady(),
    },
    CAPR: {
      write: value => (((value + CAPR_LAG) & (this.#bufferSize() - 1)) - CAPR_LAG) & 0xffff,
      wrote: () => this.#net.receiverReady(),
    },
    IMR: { write: (value, previous) => masked(value, previous, WRITABLE.IMR), wrote: () => this.#updateInterrupt() },
    ISR: { wrote: () => this.#acknowledged() },
    TCR: { write: (value, previous) => (this.#regs.CR.TE ? masked(value, previous, WRITABLE.TCR) : previous) },
    RCR: { write: (value, previous) => masked(value, previous, WRITABLE.RCR), wrote: () => this.#emptyBuffer() },
    TCTR: { read: () => this.#timerCount, write: (_value, previous) => previous, wrote: () => this.#restartTimer() },
    MPC: { write: () => 0 },
    CR9346: { read: stored => stored | this.#eepromOutput, write: value => this.#eepromControl(value) },
    CONFIG0: { write: (value, previous) => this.#configure(value, previous, WRITABLE.CONFIG0) },
    CONFIG1: { write: (value, previous) => this.#configure(value, previous, WRITABLE.CONFIG1) },
    TIMERINT: {
      wrote: (value, previous) => {
        if (value !== previous) this.#armTimer();
      },
    },
    MSR: { read: () => 0xd0 | (~this.#regs.BMSR.value & BMSR_LINK) },
    CONFIG3: { write: (value, previous) => this.#configure(value, previous, WRITABLE.CONFIG3) },
    CONFIG4: { write: (value, previous) => this.#configure(value, previous, WRITABLE.CONFIG4) },
    HLTCLK: { read: () => (this.#s.clockHalted ? 0 : 1), write: value => this.#clockControl(value) },
    MULINT: { write: (value, previous) => masked(value, previous, WRITABLE.MULINT) },
    TSALL: { read: () => this.#allTransmitStatus },
    BMCR: { write: (value, previous) => this.#phyControl(value, previous) },
    BMSR: { write: (value, previous) => masked(value, previous, WRITABLE.BMSR) },
    CONFIG5: { write: (value, previous) => masked(value, previous, WRITABLE.CONFIG5) },
    TPPOLL: {
      wrote: value => {
        if ((value & 0x40) !== 0) this.#transmitRing();
      },
    },
    CPCR: {
      write: (value, previous) => masked(value, previous, WRITABLE.CPCR),
      wrote: () => {
        this.#s.cPlus = true;
      },
    },
  });
  readonly #regs = this.#bank.regs;
  readonly #s = this.state(1, {
    nextTransmit: field.u8(),
    cPlus: field.bool(),
    clockHalted: field.bool(),
    timerBase: field.number(),
  });
  readonly #tally = this.state(1, tallyState, { name: 'tally' });
  readonly #rings = new DescriptorRings(this.state(1, ringState, { name: 'rings' }), this);
  readonly #eeprom = new MicrowireEeprom(this.state(1, microwireState, { name: 'eeprom', onReset: 'keep' }));
  readonly #timer = this.clock.timer('timer', () => this.#timedOut());
  readonly #card = new NetCard(this, {
    owner: this,
    mac: this.props.mac,
    backend: this.props.netdev,
  });
  readonly #net = this.#card.client;
  readonly #frame = new Uint8Array(LARGEST_TRANSMIT);
  readonly #padded = new Uint8Array(ETHERNET.SHORTEST + ETHERNET.VLAN_HEADER);
  readonly #untagged = new Uint8Array(LARGEST_FRAME);
  readonly #tallies = new Uint8Array(TALLY_SIZE);
  readonly #address = this.#regs.IDR.values;

  protected override realize(): void {
    this.bar(1, this.shielded(this.#bank));
    this.onUnrealize(this.#card.plug(this.services.netCards));
    const { mac } = this.#card;
    this.#eeprom.program(0, EEPROM.SIGNATURE);
    this.#eeprom.program(1, IDENTITY.vendor);
    this.#eeprom.program(2, IDENTITY.device);
    for (let word = 0; word < 3; word++) {
      this.#eeprom.program(EEPROM.ADDRESS + word, (mac[word * 2] ?? 0) | ((mac[word * 2 + 1] ?? 0) << 8));
    }
    this.#loadAddress();
    this.#showLink(this.#net.linkUp);
  }

  protected override resetHold(): void {
    this.#loadAddress();
    this.#showLink(this.#net.linkUp);
    this.#s.timerBase = this.clock.now();
    this.#net.purge();
  }

  protected override restored(): void {
    this.#card.showAddress(Uint8Array.from(this.#address));
  }

  // Control (sections 5.4 and 5.11)

  #loadAddress(): void {
    this.#address.set(this.#card.mac);
    this.#card.showAddress(this.#card.mac);
  }

  #command(value: number): number {
    if ((value & 0x10) !== 0) this.#softwareReset();
    if ((value & 0x08) !== 0) this.#rings.restartReceive();
    if ((value & 0x04) !== 0) this.#rings.restartTransmit();
    return value & 0x0c;
  }

  /** The configuration and the multicast filter outlive it. */
  #softwareReset(): void {
    const { RCR: receive, CR9346, MPC, HLTCLK } = this.#regs;
    const kept = [receive.value, CR9346.value, MPC.value, HLTCLK.value] as const;
    this.#bank.reset();
    [receive.value, CR9346.value, MPC.value, HLTCLK.value] = kept;
    this.#loadAddress();
    this.#showLink(this.#net.linkUp);
    Object.assign(this.#s, { nextTransmit: 0, cPlus: false, clockHalted: false });
    for (const name of TALLIES) this.#tally[name] = 0;
    this.#rings.restartReceive();
    this.#rings.restartTransmit();
    this.#restartTimer();
    this.#updateInterrupt();
  }

  get #eepromOutput(): number {
    return this.#regs.CR9346.EEM === EEM.PROGRAMMING && this.#regs.CR9346.EECS && this.#eeprom.output ? 1 : 0;
  }

  #eepromControl(value: number): number {
    const mode = value >> 6;
    if (mode === EEM.AUTO_LOAD) {
      this.#softwareReset();
      return 0;
    }
    const attached = mode === EEM.PROGRAMMING;
    this.#eeprom.setPins(attached && (value & 8) !== 0, (value & 4) !== 0, (value & 2) !== 0);
    return value;
  }

  #configure(value: number, previous: number, writable: number): number {
    return this.#regs.CR9346.EEM === EEM.CONFIG_WRITE ? masked(value, previous, writable) : previous;
  }

  #clockControl(value: number): number {
    if (value === CLOCK.RUN) this.#s.clockHalted = false;
    else if (value === CLOCK.HALT) this.#s.clockHalted = true;
    return value;
  }

  // The transceiver (sections 5.21 to 5.25)

  #phyControl(value: number, previous: number): number {
    if ((value & BMCR.RESET) !== 0) {
      const { BMSR, ANAR, ANER } = this.#regs;
      BMSR.value = 0x7829;
      ANAR.value = 0x05e1;
      ANER.value = 0x0001;
      this.#showLink(this.#net.linkUp);
    }
    // Speed, duplex and autonegotiation are the partner's choice; reset and restart are over at once.
    return previous;
  }

  #showLink(up: boolean): void {
    const { BMSR } = this.#regs;
    BMSR.value = up ? BMSR.value | BMSR_LINK : BMSR.value & ~BMSR_LINK;
  }

  linkChanged(up: boolean): void {
    this.#showLink(up);
    this.#raise(ISR.PUN);
  }

  // Interrupts (sections 5.6 and 5.7)

  #raise(causes: number): void {
    this.#regs.ISR.value |= causes;
    this.#updateInterrupt();
  }

  #updateInterrupt(): void {
    this.irq.set((this.#regs.ISR.value & this.#regs.IMR.value) !== 0);
  }

  #acknowledged(): void {
    // What is still pending is a new edge to a message-signalled interrupt.
    this.irq.lower();
    this.#updateInterrupt();
  }

  // The timer (sections 5.10 and 5.13)

  get #timerCount(): number {
    return Math.floor((this.clock.now() - this.#s.timerBase) / PCI_CLOCK_NS) % 2 ** 32;
  }

  #restartTimer(): void {
    this.#s.timerBase = this.clock.now();
    this.#armTimer();
  }

  #armTimer(): void {
    const now = this.clock.now();
    const s = this.#s;
    s.timerBase += Math.floor((now - s.timerBase) / COUNTER_NS) * COUNTER_NS;
    const wait = this.#regs.TIMERINT.value * PCI_CLOCK_NS;
    if (wait === 0) this.#timer.cancel();
    else this.#timer.armAt(s.timerBase + wait + (s.timerBase + wait <= now ? COUNTER_NS : 0));
  }

  #timedOut(): void {
    if (this.#s.clockHalted) return;
    this.#raise(ISR.TIMEOUT);
    this.#armTimer();
  }

  // Transmitting: four descriptors (section 6.1.1)

  #transmitStatus(value: number, previous: number): number {
    if (this.#s.cPlus) return value;
    return ((value & WRITABLE.TSD) | (previous & 0x00c0_0000)) >>> 0;
  }

  #transmitWritten(index: number): void {
    if (!this.#s.cPlus) this.#transmitNext();
    else if (index === 0 && (this.#regs.TSD.at(0).value & TALLY_DUMP) !== 0) this.#dumpTallies();
  }

  #transmitNext(): void {
    const descriptor = this.#regs.TSD.at(this.#s.nextTransmit);
    if (!this.#regs.CR.TE || descriptor.OWN) return;
    const length = descriptor.SIZE;
    this.dma.read(this.#regs.TSAD.at(this.#s.nextTransmit).value, this.#frame, 0, length);
    descriptor.OWN = true;
    descriptor.TOK = true;
    this.#s.nextTransmit = (this.#s.nextTransmit + 1) % DESCRIPTORS;
    if (length > 0) this.send(this.#frame, length);
    this.#raise(ISR.TOK);
  }

  get #allTransmitStatus(): number {
    let status = 0;
    for (let index = 0; index < DESCRIPTORS; index++) {
      const { OWN, TABT, TUN, TOK } = this.#regs.TSD.at(index);
      if (OWN) status |= 1 << index;
      if (TABT) status |= 0x10 << index;
      if (TUN) status |= 0x100 << index;
      if (TOK) status |= 0x1000 << index;
    }
    return status;
  }

  #transmitRing(): void {
    const { CR, CPCR, TSAD } = this.#regs;
    if (!CR.TE || !CPCR.TE) return;
    if (this.#rings.transmit(TSAD.at(1).value * 2 ** 32 + TSAD.at(0).value) > 0) this.#raise(ISR.TOK);
  }

  send(frame: Uint8Array, length: number): void {
    this.#tally.txOk++;
    if ((this.#regs.TCR.value & TCR_LBK) === TCR_LBK) this.receive(frame, length);
    else this.#net.send(frame, length);
  }

  // Receiving

  canReceive(): boolean {
    const { CR, CPCR, IMR } = this.#regs;
    if (this.#s.clockHalted || !CR.RE || (CPCR.RE && this.#receiveRing() !== 0)) return true;
    const free = this.#freeBytes();
    return free === 0 || free >= 1514 || (IMR.value & ISR.RXOVW) !== 0;
  }

  receive(frame: Uint8Array, length: number): boolean {
    const { CR, CPCR } = this.#regs;
    if (this.#s.clockHalted || !CR.RE) return true;
    const match = this.#accept(frame);
    if (match === undefined) {
      this.#tally.rxError++;
      return true;
    }
    let bytes = frame;
    if (length < this.#padded.length) {
      padFrame(frame, length, this.#padded);
      bytes = this.#padded;
    }
    const size = Math.max(length, ETHERNET.SHORTEST);
    if (!CPCR.RE) return this.#storeInBuffer(bytes, size, match);
    if (this.#receiveRing() !== 0) this.#storeInRing(bytes, size, match);
    return true;
  }

  #accept(frame: Uint8Array): Match | undefined {
    const accepted = this.#regs.RCR.value;
    if ((accepted & RCR.AAP) !== 0) return 'promiscuous';
    if (isBroadcast(frame)) {
      if ((accepted & RCR.AB) === 0) return undefined;
      this.#tally.rxOkBroadcast++;
      return 'broadcast';
    }
    if (isGroup(frame)) {
      const hash = addressHashHighFirst(frame) >>> 26;
      if ((accepted & RCR.AM) === 0 || ((this.#regs.MAR.at(hash >>> 3).value >>> (hash & 7)) & 1) === 0)
        return undefined;
      this.#tally.rxOkMulticast = (this.#tally.rxOkMulticast + 1) >>> 0;
      return 'group';
    }
    if ((accepted & RCR.APM) === 0 || !isFor(frame, this.#address)) return undefined;
    this.#tally.rxOkPhysical++;
    return 'own';
  }

  #missed(): void {
    const { MPC } = this.#regs;
    MPC.value = (MPC.value + 1) & 0xff_ffff;
    this.#raise(ISR.RXOVW);
  }

  // Into descriptors (section 6.2.2)

  #receiveRing(): number {
    return this.#regs.RDSARH.value * 2 ** 32 + this.#regs.RDSARL.value;
  }

  #storeInRing(bytes: Uint8Array, length: number, match: Match): void {
    const { CPCR } = this.#regs;
    const checksum = frameChecksum(bytes, 0, length);
    let tag = -1;
    if (CPCR.RXVLAN && get16(bytes, ETHERNET.TYPE) === ETHER_TYPE.VLAN) {
      tag = get16(bytes, ETHERNET.HEADER);
      length = copyUntagged(bytes, Math.max(length, this.#padded.length), this.#untagged);
      bytes = this.#untagged;
    }
    if (!this.#rings.receive(this.#receiveRing(), bytes, length, checksum, match, tag, CPCR.RXCHKSUM)) {
      this.#tally.rxError++;
      this.#tally.missed = (this.#tally.missed + 1) & 0xffff;
      this.#missed();
      return;
    }
    this.#tally.rxOk++;
    this.#raise(ISR.ROK);
  }

  // Into the receive buffer (section 6.1.2)

  #bufferSize(): number {
    return SMALLEST_BUFFER << ((this.#regs.RCR.value >>> RCR.RBLEN_SHIFT) & 3);
  }

  #readAt(): number {
    return (this.#regs.CAPR.value + CAPR_LAG) & (this.#bufferSize() - 1);
  }

  #freeBytes(): number {
    return (this.#bufferSize() + this.#readAt() - this.#regs.CBR.value) & (this.#bufferSize() - 1);
  }

  #bufferEmpty(): boolean {
    return this.#readAt() === this.#regs.CBR.value;
  }

  #emptyBuffer(): void {
    this.#regs.CAPR.value = 0x1_0000 - CAPR_LAG;
    this.#regs.CBR.value = 0;
    this.#net.receiverReady();
  }

  #storeInBuffer(bytes: Uint8Array, length: number, match: Match): boolean {
    const free = this.#freeBytes();
    const needed = (STATUS_WORD + length + ETHERNET.CHECKSUM + 3) & ~3;
    if (free !== 0 && needed >= free) {
      this.#missed();
      return false;
    }
    const { CBR, RBSTART } = this.#regs;
    const size = this.#bufferSize();
    let at = CBR.value;
    this.dma.write32(RBSTART.value + at, (MATCHED[match] | RECEIVED.ROK | ((length + ETHERNET.CHECKSUM) << 16)) >>> 0);
    at = (at + STATUS_WORD) & (size - 1);
    // A buffer that wraps ends at its size; one that does not has room behind it for the packet's rest.
    const wraps = size === 0x1_0000 || (this.#regs.RCR.value & RCR.WRAP) === 0;
    const first = wraps ? Math.min(length, size - at) : length;
    this.dma.write(RBSTART.value + at, bytes, 0, first);
    if (first < length) this.dma.write(RBSTART.value, bytes, first, length - first);
    at = wraps ? (at + length) & (size - 1) : at + length;
    this.#storeChecksum(frameChecksum(bytes, 0, length), at, wraps ? size : Number.POSITIVE_INFINITY);
    CBR.value = (at + ETHERNET.CHECKSUM + 3) & ~3 & (size - 1);
    this.#raise(ISR.ROK);
    return true;
  }

  #storeChecksum(checksum: number, at: number, end: number): void {
    const start = this.#regs.RBSTART.value;
    for (let byte = 0; byte < ETHERNET.CHECKSUM; byte++) {
      const place = at + byte < end ? at + byte : at + byte - end;
      this.dma.write8(start + place, (checksum >>> (8 * byte)) & 0xff);
    }
  }

  // Tally counters (section 5.3)

  #dumpTallies(): void {
    const { TSD } = this.#regs;
    const view = new DataView(this.#tallies.buffer);
    const put64 = (at: number, value: number): void => {
      view.setUint32(at, value % 2 ** 32, true);
      view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
    };
    const tally = this.#tally;
    put64(0, tally.txOk);
    put64(8, tally.rxOk);
    put64(16, tally.txError);
    view.setUint32(24, tally.rxError, true);
    view.setUint16(28, tally.missed, true);
    put64(40, tally.rxOkPhysical);
    put64(48, tally.rxOkBroadcast);
    view.setUint32(56, tally.rxOkMulticast, true);
    this.dma.write(TSD.at(1).value * 2 ** 32 + ((TSD.at(0).value & ~0x3f) >>> 0), this.#tallies);
    TSD.at(0).value = (TSD.at(0).value & ~TALLY_DUMP) >>> 0;
  }
}

const TALLIES = [
  'txOk',
  'rxOk',
  'txError',
  'rxError',
  'missed',
  'rxOkPhysical',
  'rxOkBroadcast',
  'rxOkMulticast',
] as const;
const MATCHED: Readonly<Record<Match, number>> = {
  group: RECEIVED.MAR,
  own: RECEIVED.PAM,
  broadcast: RECEIVED.BAR,
  promiscuous: 0,
};

function masked(value: number, previous: number, writable: number): number {
  return ((value & writable) | (previous & ~writable)) >>> 0;
}

export const rtl8139 = deviceType({
  type: 'rtl8139',
  summary: 'Realtek RTL8139C+ Fast Ethernet',
  category: 'network',
  properties: cardProperties,
  pci: { ...IDENTITY, revision: 0x20, class: 0x020000, pin: 'A', rom: 'efi-rtl8139.rom' },
  bars: { 0: { size: BAR_SIZE, space: 'io', map: rtl8139Registers }, 1: { size: BAR_SIZE } },
  create: Rtl8139,
});
