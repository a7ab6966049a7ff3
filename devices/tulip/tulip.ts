import { ms } from '../../core/clock/units.ts';
import { deviceType } from '../../core/device/device-type.ts';
import {
  addressHash,
  copyFrame,
  ETHERNET,
  frameChecksum,
  isBroadcast,
  isGroup,
  padFrame,
} from '../../core/net/ethernet.ts';
import { type CardReceiver, cardProperties, NetCard } from '../../core/net/net-cards.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { RegisterBank } from '../../core/register/register.ts';
import { field } from '../../core/state/fields.ts';
import { MicrowireEeprom, microwireState } from '../microwire-eeprom.ts';
import { ManagedTransceiver, miiState } from './mii.ts';
import {
  ABNORMAL,
  ABNORMAL_SUMMARY,
  BUS,
  CAUSE,
  CLEARED_BY_ONES,
  DES1,
  MII,
  MODE,
  NORMAL,
  NORMAL_SUMMARY,
  OWN,
  RDES0,
  RECEIVE,
  ROM,
  SIA,
  TDES1,
  TRANSMIT,
  tulipRegisters,
} from './registers.ts';
import { programSerialRom } from './serial-rom.ts';

const BAR_SIZE = 0x80;
const SUBSYSTEM = { vendor: 0x103c, device: 0x104f } as const;
const DESCRIPTOR = 16;
/** The longest frame that goes out before the jabber timer cuts it (section 3.2.2.14), and the longest that is taken. */
const LARGEST = 2560;
const SETUP_FRAME = 192;
/** A setup frame has 16 addresses, or a hash table and one address behind it; in the low halves of words. */
const PERFECT_ADDRESSES = 16;
const HASH_ADDRESS = 156;
/** Descriptors after which others have their turn: a list may have no end. */
const MOST_DESCRIPTORS = 256;
/** How often lists are looked at again that had nothing. */
const POLL_NS = ms(1);
/** Nanoseconds of a count of the general-purpose timer, at 100 Mbit/s on the MII. */
const TIMER_UNIT_NS = 81_920;

/** Intel's (Digital's) 21143 Fast Ethernet controller. */
export class Tulip extends PciDevice<typeof cardProperties> implements CardReceiver {
  readonly #bank: RegisterBank<typeof tulipRegisters> = this.bank(tulipRegisters, {
    CSR0: {
      write: value => (value & ~BUS.SWR) >>> 0,
      wrote: (_value, _previous, _index, written) => {
        if ((written & BUS.SWR) !== 0) this.#softwareReset();
      },
    },
    CSR1: { write: (_value, previous) => previous, wrote: () => this.#transmit() },
    CSR2: { write: (_value, previous) => previous, wrote: () => this.#net.receiverReady() },
    CSR3: {
      write: value => (value & ~3) >>> 0,
      wrote: value => {
        this.#s.receiveAt = value;
        this.#net.receiverReady();
      },
    },
    CSR4: {
      write: value => (value & ~3) >>> 0,
      wrote: value => {
        this.#s.transmitAt = value;
        this.#transmit();
      },
    },
    CSR5: {
      write: (_value, previous, _index, written) => (previous & ~(written & CLEARED_BY_ONES)) >>> 0,
      wrote: () => this.#update(),
    },
    CSR6: { wrote: value => this.#modeWritten(value) },
    CSR7: { wrote: () => this.#update() },
    CSR8: { read: stored => this.#missedRead(stored) },
    CSR9: {
      read: stored => this.#pinsRead(stored),
      write: value => (value & ~(ROM.DO | MII.MDI)) >>> 0,
      wrote: value => this.#pinsWritten(value),
    },
    CSR11: { wrote: () => this.#startTimer() },
    CSR12: {
      read: () => SIA.NEGOTIATED | (this.#net.linkUp ? 0 : SIA.NO_LINK),
      write: (_value, previous, _index, written) => previous & ~(written & SIA.CLEARED_BY_ONES),
    },
  });
  readonly #regs = this.#bank.regs;
  readonly #s = this.state(1, {
    receiveAt: field.u32(),
    transmitAt: field.u32(),
    frame: field.bytes(LARGEST),
    length: field.u16(),
    /** A frame that grew too long is lost up to its end. */
    tooLong: field.bool(),
  });
  readonly #filter = this.state(
    1,
    { setup: field.bytes(SETUP_FRAME), hashed: field.bool(), inverse: field.bool() },
    { name: 'filter' },
  );
  readonly #rom = new MicrowireEeprom(this.state(1, microwireState, { name: 'srom', onReset: 'keep' }));
  readonly #transceiver = new ManagedTransceiver(this.state(1, miiState, { name: 'mii' }));
  readonly #poll = this.clock.timer('poll', () => this.#pollLists());
  readonly #timer = this.clock.timer('timer', () => this.#timedOut());
  readonly #card = new NetCard(this, { owner: this, mac: this.props.mac, backend: this.props.netdev });
  readonly #net = this.#card.client;
  readonly #descriptor = new Uint32Array(DESCRIPTOR / 4);
  readonly #received = new Uint8Array(LARGEST + ETHERNET.CHECKSUM);
  readonly #padded = new Uint8Array(ETHERNET.SHORTEST);
  #looping = false;

  protected override realize(): void {
    this.bar(1, this.shielded(this.#bank));
    this.onUnrealize(this.#card.plug(this.services.netCards));
    programSerialRom(this.#rom, this.#card.mac, [SUBSYSTEM.vendor, SUBSYSTEM.device]);
    this.#transceiver.reset(this.#net.linkUp);
  }

  protected override resetHold(): void {
    this.#transceiver.reset(this.#net.linkUp);
    this.#net.purge();
  }

  /** Registers are as after power-on (section 3.2.2.1); the address filter stays. */
  #softwareReset(): void {
    this.#bank.reset();
    this.#timer.cancel();
    this.#s.length = 0;
    this.#update();
  }

  // Interrupts (section 3.2.2.5)

  #raise(causes: number): void {
    this.#regs.CSR5.value |= causes;
    this.#update();
  }

  #update(): void {
    const { CSR5, CSR7 } = this.#regs;
    const enabled = CSR5.value & CSR7.value;
    let status = CSR5.value & ~(NORMAL_SUMMARY | ABNORMAL_SUMMARY);
    if ((enabled & NORMAL) !== 0) status |= NORMAL_SUMMARY;
    if ((enabled & ABNORMAL) !== 0) status |= ABNORMAL_SUMMARY;
    CSR5.value = status >>> 0;
    this.irq.set((status & CSR7.value & (NORMAL_SUMMARY | ABNORMAL_SUMMARY)) !== 0);
  }

  // The general-purpose timer (section 3.2.2.11)

  #startTimer(): void {
    const { TIMER } = this.#regs.CSR11;
    if (TIMER === 0) this.#timer.cancel();
    else this.#timer.arm(TIMER * TIMER_UNIT_NS);
  }

  #timedOut(): void {
    this.#raise(CAUSE.GTE);
    if (this.#regs.CSR11.CON) this.#startTimer();
  }

  // Serial ROM and MII management (section 3.2.2.9)

  #pinsWritten(value: number): void {
    if ((value & ROM.SELECT) !== 0) {
      this.#rom.setPins((value & ROM.CS) !== 0, (value & ROM.SK) !== 0, (value & ROM.DI) !== 0);
    }
    this.#transceiver.setPins((value & MII.MDC) !== 0, (value & (MII.INPUT | MII.MDO)) !== 0);
  }

  #pinsRead(stored: number): number {
    const data = (stored & ROM.SELECT) !== 0 && this.#rom.output ? ROM.DO : 0;
    return (stored | data | (this.#transceiver.output ? MII.MDI : 0)) >>> 0;
  }

  /** Software finds out from the transceiver: changes that CSR5 tells of are those of the chip's own ports (section 3.2.2.5). */
  linkChanged(up: boolean): void {
    this.#transceiver.setLink(up);
  }

  // Processes (section 4.3)

  #modeWritten(value: number): void {
    const { CSR5 } = this.#regs;
    CSR5.RS = (value & MODE.SR) === 0 ? RECEIVE.STOPPED : RECEIVE.WAITING;
    CSR5.TS = (value & MODE.ST) === 0 ? TRANSMIT.STOPPED : TRANSMIT.SUSPENDED;
    this.#net.receiverReady();
    this.#transmit();
  }

  #pollLists(): void {
    this.#transmit();
    this.#net.receiverReady();
  }

  #load(address: number): boolean {
    const words = this.#descriptor;
    if (!this.dma.readWords(address, words)) return false;
    if ((this.#regs.CSR0.value & BUS.DBO) !== 0) {
      for (let index = 0; index < words.length; index++) words[index] = swapped(words[index] ?? 0);
    }
    return true;
  }

  #storeStatus(address: number, status: number): void {
    this.dma.write32(address, (this.#regs.CSR0.value & BUS.DBO) !== 0 ? swapped(status) : status >>> 0);
  }

  /** Where the next descriptor is: lists are chains, or rings with a gap between their entries (section 4.2). */
  #next(address: number, base: number): number {
    const control = this.#descriptor[1] ?? 0;
    const gap = ((this.#regs.CSR0.value >>> BUS.SKIP_SHIFT) & BUS.SKIP_MASK) * 4;
    const next =
      (control & DES1.END_OF_RING) !== 0
        ? base
        : (control & DES1.CHAINED) !== 0
          ? (this.#descriptor[3] ?? 0)
          : address + DESCRIPTOR + gap;
    return (next & ~3) >>> 0;
  }

  // Transmitting (section 4.2.2)

  #transmit(): void {
    const { CSR4, CSR5 } = this.#regs;
    if (CSR5.TS === TRANSMIT.STOPPED || this.#looping || !this.dma.enabled) return;
    this.#looping = true;
    this.#net.burst(true);
    let count = 0;
    let owned = true;
    for (; owned && count < MOST_DESCRIPTORS; count++) {
      const at = this.#s.transmitAt;
      owned = this.#load(at) && ((this.#descriptor[0] ?? 0) & OWN) !== 0;
      if (!owned) break;
      const control = this.#descriptor[1] ?? 0;
      // What is sent to the card itself uses the descriptor's place.
      const next = this.#next(at, CSR4.value);
      const status = (control & TDES1.SET) !== 0 ? this.#setUp(control) : this.#gather(control);
      this.#storeStatus(at, status);
      this.#s.transmitAt = next;
      if ((control & TDES1.IC) !== 0) this.#raise(CAUSE.TI);
    }
    this.#net.burst(false);
    this.#looping = false;
    if (owned) this.#poll.arm(POLL_NS);
    else this.#raise(CAUSE.TU);
  }

  /** Adds a descriptor's two buffers to the frame, and sends it with the last. Returns the descriptor's status. */
  #gather(control: number): number {
    const s = this.#s;
    if ((control & TDES1.FS) !== 0) {
      s.length = 0;
      s.tooLong = false;
    }
    const first = control & DES1.SIZE;
    // The second buffer's address is the next descriptor's in a chain.
    const second = (control & DES1.CHAINED) !== 0 ? 0 : (control >>> DES1.SECOND_SHIFT) & DES1.SIZE;
    this.#append(this.#descriptor[2] ?? 0, first);
    this.#append(this.#descriptor[3] ?? 0, second);
    if ((control & TDES1.LS) !== 0) {
      if (s.tooLong) this.log.guestError('a frame is longer than the jabber timer allows');
      else if (s.length > 0) this.#send();
      s.length = 0;
    }
    return 0;
  }

  #append(address: number, length: number): void {
    const s = this.#s;
    if (s.length + length > LARGEST) s.tooLong = true;
    else if (length > 0) {
      this.dma.read(address, s.frame, s.length, length);
      s.length += length;
    }
  }

  #send(): void {
    const { frame, length } = this.#s;
    if ((this.#regs.CSR6.value & MODE.LOOPBACK) !== 0) this.receive(frame, length);
    else this.#net.send(frame, length);
  }

  /** A setup frame says which addresses are received (section 4.2.3). */
  #setUp(control: number): number {
    if ((control & DES1.SIZE) === SETUP_FRAME) {
      this.dma.read(this.#descriptor[2] ?? 0, this.#filter.setup);
      this.#filter.hashed = (control & TDES1.FT0) !== 0;
      this.#filter.inverse = (control & TDES1.FT1) !== 0 && !this.#filter.hashed;
    }
    return 0x7fff_ffff;
  }

  // Receiving (section 4.2.1)

  canReceive(): boolean {
    return this.#regs.CSR5.RS !== RECEIVE.STOPPED && this.dma.enabled;
  }

  receive(frame: Uint8Array, length: number): boolean {
    if (!this.canReceive() || length < ETHERNET.HEADER || length > LARGEST) return true;
    const match = this.#accept(frame);
    if (match < 0) return true;
    const size = Math.max(length, ETHERNET.SHORTEST);
    if (length < ETHERNET.SHORTEST) {
      padFrame(frame, length, this.#padded);
      copyFrame(this.#padded, 0, this.#received, 0, size);
    } else copyFrame(frame, 0, this.#received, 0, size);
    const checksum = frameChecksum(this.#received, 0, size);
    for (let byte = 0; byte < ETHERNET.CHECKSUM; byte++) this.#received[size + byte] = checksum >>> (8 * byte);
    return this.#store(size + ETHERNET.CHECKSUM, match);
  }

  #store(total: number, match: number): boolean {
    const { CSR3, CSR5 } = this.#regs;
    const s = this.#s;
    let done = 0;
    for (let count = 0; count < MOST_DESCRIPTORS; count++) {
      const at = s.receiveAt;
      if (!this.#load(at) || ((this.#descriptor[0] ?? 0) & OWN) === 0) return this.#outOfDescriptors(done > 0);
      CSR5.RS = RECEIVE.WAITING;
      const first = done === 0 ? RDES0.FS : 0;
      const control = this.#descriptor[1] ?? 0;
      const second = (control & DES1.CHAINED) !== 0 ? 0 : (control >>> DES1.SECOND_SHIFT) & DES1.SIZE;
      done += this.#put(this.#descriptor[2] ?? 0, control & DES1.SIZE, done, total);
      done += this.#put(this.#descriptor[3] ?? 0, second, done, total);
      const last = done === total;
      s.receiveAt = this.#next(at, CSR3.value);
      this.#storeStatus(at, first | (last ? RDES0.LS | match | (total << RDES0.LENGTH_SHIFT) : 0));
      if (last) {
        this.#raise(CAUSE.RI);
        return true;
      }
    }
    // Descriptors without buffers: the frame has no place.
    return true;
  }

  #put(address: number, room: number, done: number, total: number): number {
    const length = Math.min(room, total - done);
    if (length > 0) this.dma.write(address, this.#received, done, length);
    return length;
  }

  /** A frame that has begun is lost, as the manual's descriptor error says; one that has not waits. */
  #outOfDescriptors(begun: boolean): boolean {
    this.#regs.CSR5.RS = RECEIVE.SUSPENDED;
    if (begun) this.#missed();
    else this.#poll.arm(POLL_NS);
    this.#raise(CAUSE.RU);
    return begun;
  }

  #missed(): void {
    const { CSR8 } = this.#regs;
    if ((CSR8.value & 0xffff) < 0xffff) CSR8.value++;
  }

  #missedRead(stored: number): number {
    this.#regs.CSR8.value = (stored & 0xffff_0000) >>> 0;
    return stored;
  }

  /** Bits of the status word for a frame that is taken; -1 for one that is not. */
  #accept(frame: Uint8Array): number {
    const mode = this.#regs.CSR6.value;
    const group = isGroup(frame) ? RDES0.MF : 0;
    if (isBroadcast(frame) || (mode & (MODE.PR | MODE.RA)) !== 0) return group;
    if (group !== 0 && (mode & MODE.PM) !== 0) return group;
    const { hashed, inverse } = this.#filter;
    if (hashed) return (group !== 0 ? this.#inHashTable(frame) : this.#isAddress(frame, HASH_ADDRESS)) ? group : -1;
    let found = false;
    for (let index = 0; index < PERFECT_ADDRESSES && !found; index++) found = this.#isAddress(frame, 12 * index);
    return found !== inverse ? group : -1;
  }

  #isAddress(frame: Uint8Array, at: number): boolean {
    const { setup } = this.#filter;
    for (let byte = 0; byte < ETHERNET.ADDRESS; byte++) {
      if (frame[byte] !== setup[at + (byte >> 1) * 4 + (byte & 1)]) return false;
    }
    return true;
  }

  #inHashTable(frame: Uint8Array): boolean {
    const index = addressHash(frame) & 0x1ff;
    const byte = this.#filter.setup[(index >> 4) * 4 + ((index >> 3) & 1)] ?? 0;
    return ((byte >> (index & 7)) & 1) !== 0;
  }
}

function swapped(word: number): number {
  return (((word & 0xff) << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0;
}

export const tulip = deviceType({
  type: 'tulip',
  summary: 'Digital 21143 Fast Ethernet',
  category: 'network',
  properties: cardProperties,
  pci: {
    vendor: 0x1011,
    device: 0x0019,
    subsystemVendor: SUBSYSTEM.vendor,
    subsystem: SUBSYSTEM.device,
    class: 0x020000,
    pin: 'A',
  },
  bars: { 0: { size: BAR_SIZE, space: 'io', map: tulipRegisters }, 1: { size: BAR_SIZE } },
  create: Tulip,
});
