import { deviceType } from '../../core/device/device-type.ts';
import { addressHash, ETHERNET, frameChecksum, isBroadcast, isGroup, padFrame } from '../../core/net/ethernet.ts';
import { type CardReceiver, cardProperties, NetCard } from '../../core/net/net-cards.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { field } from '../../core/state/fields.ts';
import { RingDescriptor } from './descriptors.ts';
import {
  APROMWE,
  BCR,
  BCR_COUNT,
  BCR_RESET,
  BCR_WRITABLE,
  CSR,
  CSR_RESET,
  DESCRIPTOR,
  DWIO,
  DXSUFLO,
  EXTENDED,
  FAILED,
  FEATURE,
  FEATURE_CAUSES,
  isPlain,
  LED,
  MODE,
  PROM_SIZE,
  STATUS,
  STYLE,
  WINDOW,
} from './registers.ts';

const BAR_SIZE = 0x20;
const CSR_COUNT = 128;
/** What the address PROM has beside the address (section "Address PROM space"): who reads it, a sum, and two letters. */
const PROM = { HARDWARE_ID: 9, PCI: 0x11, SUM: 12, LETTERS: 14, W: 0x57 } as const;
/** The largest frame, which the counts of descriptors can still tell. */
const LARGEST = 4092;
/** Nanoseconds of a count of the polling interval. */
const POLL_UNIT_NS = 30;
const LONGEST_RING = 512;
/** Bytes of the initialization block with short and with long descriptors. */
const BLOCK = { SHORT: 24, LONG: 28 } as const;

/** AMD's PCnet-PCI II. */
export class Pcnet extends PciDevice<typeof cardProperties> implements CardReceiver {
  readonly #s = this.state(1, {
    csr: field.words(CSR_COUNT),
    bcr: field.words(BCR_COUNT),
    rap: field.u8(),
    receiveRing: field.u32(),
    transmitRing: field.u32(),
    /** The frame that is being put together; -1 while there is none. */
    frame: field.bytes(LARGEST + ETHERNET.CHECKSUM),
    sent: field.number(-1),
  });
  readonly #prom = this.state(1, { bytes: field.bytes(PROM_SIZE) }, { name: 'prom', onReset: 'keep' });
  readonly #poll = this.clock.timer('poll', () => this.#polled());
  readonly #card = new NetCard(this, { owner: this, mac: this.props.mac, backend: this.props.netdev });
  readonly #net = this.#card.client;
  readonly #descriptor = new RingDescriptor(this.dma);
  readonly #ahead = new RingDescriptor(this.dma);
  readonly #received = new Uint8Array(LARGEST + ETHERNET.CHECKSUM);
  readonly #padded = new Uint8Array(ETHERNET.SHORTEST);
  readonly #block = new Uint8Array(BLOCK.LONG);
  #transmitting = false;

  protected override realize(): void {
    const handler = this.shielded({
      read: (offset, size) => this.#read(offset, size),
      write: (offset, size, value) => this.#write(offset, size, value),
    });
    for (const bar of [0, 1]) this.bar(bar, handler);
    this.onUnrealize(this.#card.plug(this.services.netCards));
    const { bytes } = this.#prom;
    bytes.set(this.#card.mac);
    bytes[PROM.HARDWARE_ID] = PROM.PCI;
    bytes.fill(PROM.W, PROM.LETTERS);
    const sum = bytes.reduce((total, byte) => total + byte, 0);
    bytes[PROM.SUM] = sum;
    bytes[PROM.SUM + 1] = sum >>> 8;
    this.#hardwareReset();
  }

  protected override resetHold(): void {
    this.#hardwareReset();
    this.#net.purge();
  }

  #hardwareReset(): void {
    const { bcr } = this.#s;
    bcr.fill(0);
    for (const [number, value] of BCR_RESET) bcr[number] = value;
    this.#softwareReset();
  }

  /** What a read of the reset register does (section "Software reset"). */
  #softwareReset(): void {
    const s = this.#s;
    const { csr } = s;
    Object.assign(s, { receiveRing: 0, transmitRing: 0, rap: 0, sent: -1 });
    s.bcr[BCR.BSBC] = (s.bcr[BCR.BSBC] ?? 0) & ~DWIO;
    for (const [number, value] of CSR_RESET) csr[number] = value;
    csr.fill(0, CSR.LADRF, CSR.PADR);
    for (let word = 0; word < 3; word++) {
      const { bytes } = this.#prom;
      csr[CSR.PADR + word] = (bytes[2 * word] ?? 0) | ((bytes[2 * word + 1] ?? 0) << 8);
    }
    csr[CSR.MODE] = (csr[CSR.MODE] ?? 0) & MODE.KEPT_BY_RESET;
    this.#poll.cancel();
    this.#update();
  }

  // The window (section "I/O resources")

  get #dword(): boolean {
    return (this.#bcr(BCR.BSBC) & DWIO) !== 0;
  }

  #read(offset: number, size: number): number {
    const nothing = 2 ** (8 * size) - 1;
    const dword = this.#dword;
    if (offset < PROM_SIZE) {
      if (dword ? size !== 4 : size === 4) return nothing;
      let value = 0;
      for (let byte = 0; byte < size; byte++) value |= (this.#prom.bytes[(offset + byte) & 15] ?? 0) << (8 * byte);
      return value >>> 0;
    }
    if (size !== (dword ? 4 : 2)) return nothing;
    switch ((offset - PROM_SIZE) / size) {
      case WINDOW.RDP:
        return this.#readCsr(this.#s.rap);
      case WINDOW.RAP:
        return this.#s.rap;
      case WINDOW.RESET:
        this.#softwareReset();
        return 0;
      case WINDOW.BDP:
        return this.#readBcr(this.#s.rap);
      default:
        return nothing;
    }
  }

  #write(offset: number, size: number, value: number): void {
    const dword = this.#dword;
    if (offset < PROM_SIZE) {
      if ((this.#bcr(BCR.MC) & APROMWE) === 0 || (dword ? size !== 4 : size === 4)) return;
      for (let byte = 0; byte < size; byte++) this.#prom.bytes[(offset + byte) & 15] = value >>> (8 * byte);
      return;
    }
    if (size === 4 && !dword) {
      // A double word to RDP switches the window to double words.
      if (offset === PROM_SIZE) this.#s.bcr[BCR.BSBC] = this.#bcr(BCR.BSBC) | DWIO;
      return;
    }
    if (size !== (dword ? 4 : 2)) return;
    switch ((offset - PROM_SIZE) / size) {
      case WINDOW.RDP:
        this.#writeCsr(this.#s.rap, value & 0xffff);
        break;
      case WINDOW.RAP:
        this.#s.rap = value & (CSR_COUNT - 1);
        break;
      case WINDOW.BDP:
        this.#writeBcr(this.#s.rap, value & 0xffff);
        break;
    }
    this.#update();
  }

  #csr(number: number): number {
    return this.#s.csr[number] ?? 0;
  }

  #bcr(number: number): number {
    return this.#s.bcr[number] ?? 0;
  }

  #set(number: number, bits: number): void {
    this.#s.csr[number] = this.#csr(number) | bits;
  }

  #clear(number: number, bits: number): void {
    this.#s.csr[number] = this.#csr(number) & ~bits;
  }

  #readCsr(number: number): number {
    switch (number) {
      case CSR.STATUS: {
        const status = this.#csr(CSR.STATUS);
        return (status & STATUS.ERRORS) !== 0 ? status | STATUS.ERR : status;
      }
      case CSR.IADR_LOW_ALIAS:
        return this.#csr(CSR.IADR_LOW);
      case CSR.IADR_HIGH_ALIAS:
        return this.#csr(CSR.IADR_HIGH);
      case CSR.SOFTWARE_STYLE:
        return this.#readBcr(BCR.SWS);
      case CSR.CHIP_ID_LOW:
        // A double word has the whole identity.
        return (this.#csr(CSR.CHIP_ID_LOW) | (this.#dword ? this.#csr(CSR.CHIP_ID_HIGH) << 16 : 0)) >>> 0;
      default:
        return this.#csr(number);
    }
  }

  #writeCsr(number: number, value: number): void {
    const { csr } = this.#s;
    if (isPlain(number)) {
      csr[number] = value;
      return;
    }
    switch (number) {
      case CSR.STATUS:
        this.#command(value);
        return;
      case CSR.FEATURES:
        csr[number] = mixed(value, this.#csr(number), FEATURE_CAUSES.CLEARED_BY_ONES);
        return;
      case CSR.EXTENDED:
        csr[number] = mixed(value, this.#csr(number), EXTENDED.CLEARED_BY_ONES);
        this.#net.receiverReady();
        return;
      case CSR.IADR_LOW_ALIAS:
      case CSR.IADR_HIGH_ALIAS:
        csr[number - CSR.IADR_LOW_ALIAS + CSR.IADR_LOW] = value;
        return;
      case CSR.SOFTWARE_STYLE:
        this.#writeBcr(BCR.SWS, value);
        return;
      case CSR.RCVRL:
      case CSR.XMTRL:
        csr[number] = value === 0 ? LONGEST_RING : value;
        return;
      case CSR.MISSED:
        if (this.#idle) csr[number] = value;
    }
  }

  #readBcr(number: number): number {
    if (number >= BCR_COUNT) return 0;
    const stored = this.#bcr(number);
    if (number < BCR.LNKST || number > BCR.LED3) return stored;
    const lit = this.#net.linkUp && (stored & LED.LINK) !== 0;
    return lit ? stored | LED.OUTPUT : stored & ~LED.OUTPUT;
  }

  #writeBcr(number: number, value: number): void {
    if (!BCR_WRITABLE.has(number)) return;
    if (number !== BCR.SWS) {
      this.#s.bcr[number] = value;
      return;
    }
    if (!this.#idle) return;
    const style = value & STYLE.MASK;
    if (style > 3) this.log.guestError(`software style ${style} is not one of 0 to 3`);
    const long = style === 1 || style === 2 || style === 3 ? STYLE.SSIZE32 : 0;
    const pcnet = style === 1 ? 0 : STYLE.CSRPCNET;
    this.#s.bcr[BCR.SWS] = (value & ~(STYLE.SSIZE32 | STYLE.CSRPCNET)) | long | pcnet;
  }

  // Interrupts (CSR0 to CSR5)

  #update(): void {
    const { csr } = this.#s;
    const [status, features, extended] = [this.#csr(CSR.STATUS), this.#csr(CSR.FEATURES), this.#csr(CSR.EXTENDED)];
    const enabled = (status & STATUS.IENA) !== 0;
    let pending =
      (status & ~this.#csr(CSR.MASKS) & STATUS.CAUSES) !== 0 ||
      ((features >> 1) & ~features & FEATURE_CAUSES.MASKS) !== 0 ||
      ((extended >> 1) & extended & EXTENDED.MASKED) !== 0;
    let asserted = pending && enabled;
    if ((features & FEATURE.UINTCMD) !== 0 && enabled) {
      csr[CSR.FEATURES] = (features & ~FEATURE.UINTCMD) | FEATURE.UINT;
      pending = true;
      asserted = true;
    }
    if (((extended >> 1) & extended & EXTENDED.ALWAYS) !== 0) {
      pending = true;
      asserted = true;
    }
    csr[CSR.STATUS] = pending ? status | STATUS.INTR : status & ~STATUS.INTR;
    this.irq.set(asserted);
  }

  // Commands (CSR0)

  get #idle(): boolean {
    return (this.#csr(CSR.STATUS) & STATUS.STOP) !== 0 || this.#suspended;
  }

  get #suspended(): boolean {
    return (this.#csr(CSR.EXTENDED) & EXTENDED.SPND) !== 0;
  }

  #command(value: number): void {
    const { csr } = this.#s;
    const kept = this.#csr(CSR.STATUS) & ~(value & STATUS.CLEARED_BY_ONES) & ~STATUS.IENA;
    csr[CSR.STATUS] = kept | (value & (STATUS.IENA | STATUS.TDMD));
    const stop = (value & STATUS.STOP) !== 0;
    if (stop) {
      if ((kept & STATUS.STOP) === 0) this.#stop();
    } else {
      if ((value & STATUS.INIT) !== 0 && (kept & STATUS.INIT) === 0) this.#initialize();
      if ((value & STATUS.STRT) !== 0 && (kept & STATUS.STRT) === 0) this.#start();
    }
    if ((this.#csr(CSR.STATUS) & STATUS.TDMD) !== 0) this.#transmit();
    this.#net.receiverReady();
  }

  #stop(): void {
    this.#s.csr[CSR.STATUS] = STATUS.STOP;
    this.#clear(CSR.FEATURES, 0x02c2);
    this.#clear(CSR.EXTENDED, 0x0011);
    this.#s.sent = -1;
    this.#poll.cancel();
  }

  #start(): void {
    const mode = this.#csr(CSR.MODE);
    this.#clear(CSR.STATUS, STATUS.STOP);
    this.#set(CSR.STATUS, STATUS.STRT);
    if ((mode & MODE.DTX) === 0) this.#set(CSR.STATUS, STATUS.TXON);
    if ((mode & MODE.DRX) === 0) this.#set(CSR.STATUS, STATUS.RXON);
    this.#armPoll();
  }

  /** Reads the initialization block (section "Initialization"). */
  #initialize(): void {
    const { csr } = this.#s;
    const long = (this.#bcr(BCR.SWS) & STYLE.SSIZE32) !== 0;
    const block = this.#block;
    const address = this.#address(this.#csr(CSR.IADR_LOW) | (this.#csr(CSR.IADR_HIGH) << 16));
    this.dma.read(address, block, 0, long ? BLOCK.LONG : BLOCK.SHORT);
    const half = (at: number): number => (block[at] ?? 0) | ((block[at + 1] ?? 0) << 8);
    const word = (at: number): number => (half(at) | (half(at + 2) << 16)) >>> 0;
    const [padr, ladrf, rings] = long ? [4, 12, 20] : [2, 8, 16];
    csr[CSR.MODE] = half(0);
    for (let index = 0; index < 3; index++) csr[CSR.PADR + index] = half(padr + 2 * index);
    for (let index = 0; index < 4; index++) csr[CSR.LADRF + index] = half(ladrf + 2 * index);
    const [receive, transmit] = [word(rings), word(rings + 4)];
    const receiveLength = long ? (block[2] ?? 0) >> 4 : receive >>> 29;
    const transmitLength = long ? (block[3] ?? 0) >> 4 : transmit >>> 29;
    csr[CSR.RING_LENGTHS] = (transmitLength << 12) | (receiveLength << 8);
    csr[CSR.RCVRL] = Math.min(1 << receiveLength, LONGEST_RING);
    csr[CSR.XMTRL] = Math.min(1 << transmitLength, LONGEST_RING);
    csr[CSR.RCVRC] = this.#csr(CSR.RCVRL);
    csr[CSR.XMTRC] = this.#csr(CSR.XMTRL);
    this.#s.receiveRing = this.#address(long ? receive : receive & 0xff_ffff);
    this.#s.transmitRing = this.#address(long ? transmit : transmit & 0xff_ffff);
    this.#place(CSR.BADR, this.#s.receiveRing);
    this.#place(CSR.BADX, this.#s.transmitRing);
    this.#set(CSR.STATUS, STATUS.INIT | STATUS.IDON);
    this.#clear(CSR.STATUS, STATUS.STOP);
    this.#card.showAddress(
      Uint8Array.from({ length: 6 }, (_, at) => this.#csr(CSR.PADR + (at >> 1)) >> (8 * (at & 1))),
    );
  }

  /** Short addresses have their highest byte in CSR2. */
  #address(address: number): number {
    const long = (this.#bcr(BCR.SWS) & STYLE.SSIZE32) !== 0;
    return (long ? address : (address & 0xff_ffff) | ((this.#csr(CSR.IADR_HIGH) & 0xff00) << 16)) >>> 0;
  }

  #place(number: number, address: number): void {
    this.#s.csr[number] = address & 0xffff;
    this.#s.csr[number + 1] = address >>> 16;
  }

  // Polling (section "Polling")

  #armPoll(): void {
    const running = !this.#idle && (this.#csr(CSR.FEATURES) & FEATURE.DPOLL) === 0;
    if (running) this.#poll.arm((0x1_0000 - this.#csr(CSR.PINT)) * POLL_UNIT_NS);
  }

  #polled(): void {
    this.#transmit();
    this.#net.receiverReady();
    this.#update();
    this.#armPoll();
  }

  /** Loads the current descriptor of a ring, whose counter counts down. False where there is none, or it is software's. */
  #current(descriptor: RingDescriptor, ring: number, lengthAt: number, counterAt: number, shownAt: number): boolean {
    if (ring === 0) return false;
    const style = this.#bcr(BCR.SWS) & STYLE.MASK;
    const length = this.#csr(lengthAt);
    const index = Math.max(0, length - this.#csr(counterAt));
    const address = ring + index * RingDescriptor.size(style);
    this.#place(shownAt, address >>> 0);
    return descriptor.load(address, style) && (descriptor.status & DESCRIPTOR.OWN) !== 0;
  }

  #advance(lengthAt: number, counterAt: number): void {
    const left = this.#csr(counterAt);
    this.#s.csr[counterAt] = left <= 1 ? this.#csr(lengthAt) : left - 1;
  }

  // Transmitting (section "Transmit operation")

  #transmit(): void {
    if ((this.#csr(CSR.STATUS) & STATUS.TXON) === 0 || this.#suspended || this.#transmitting || !this.dma.enabled) {
      this.#clear(CSR.STATUS, STATUS.TDMD);
      return;
    }
    this.#transmitting = true;
    this.#net.burst(true);
    let owned = true;
    for (let left = this.#csr(CSR.XMTRL); left > 0 && owned; left--) {
      owned = this.#current(this.#descriptor, this.#s.transmitRing, CSR.XMTRL, CSR.XMTRC, CSR.CXDA);
      if (owned) this.#takeDescriptor();
    }
    this.#net.burst(false);
    this.#transmitting = false;
    this.#clear(CSR.STATUS, STATUS.TDMD);
    if (!owned && this.#s.sent >= 0) this.#underflow();
    this.#update();
  }

  #takeDescriptor(): void {
    const s = this.#s;
    const descriptor = this.#descriptor;
    const { status } = descriptor;
    descriptor.status = status & ~DESCRIPTOR.OWN;
    let misc = 0;
    if ((status & DESCRIPTOR.STP) !== 0) s.sent = 0;
    if (!this.#net.linkUp && (this.#csr(CSR.MODE) & MODE.LOOP) === 0) {
      misc = FAILED.LCAR;
      descriptor.status |= DESCRIPTOR.ERR;
      this.#set(CSR.STATUS, STATUS.CERR);
      s.sent = -1;
    } else if (s.sent + descriptor.length > LARGEST) s.sent = -1;
    const length = s.sent < 0 ? 0 : descriptor.length;
    if (length > 0) {
      this.dma.read(this.#address(descriptor.address), s.frame, s.sent, length);
      s.sent += length;
    }
    descriptor.store(misc, 'upper');
    this.#advance(CSR.XMTRL, CSR.XMTRC);
    const extended = this.#csr(CSR.EXTENDED);
    const asked = (extended & EXTENDED.LTINTEN) !== 0 && (status & DESCRIPTOR.LTINT) !== 0;
    if ((extended & EXTENDED.TOKINTD) === 0 || asked) this.#set(CSR.STATUS, STATUS.TINT);
    // What a card sends to itself uses the descriptor's place, so this comes last.
    if (length > 0 && (status & DESCRIPTOR.ENP) !== 0) this.#send();
  }

  #send(): void {
    const s = this.#s;
    const length = s.sent;
    s.sent = -1;
    this.#set(CSR.FEATURES, FEATURE.TXSTRT);
    if ((this.#csr(CSR.MODE) & MODE.LOOP) !== 0) this.#take(s.frame, length);
    else this.#net.send(s.frame, length);
  }

  /** A packet whose next descriptor is not there. */
  #underflow(): void {
    this.#s.sent = -1;
    this.#set(CSR.STATUS, STATUS.TINT);
    if ((this.#csr(CSR.MASKS) & DXSUFLO) === 0) this.#clear(CSR.STATUS, STATUS.TXON);
  }

  linkChanged(): void {
    this.#update();
  }

  // Receiving (section "Receive operation")

  canReceive(): boolean {
    const running = (this.#csr(CSR.STATUS) & STATUS.RXON) !== 0 && !this.#suspended && this.dma.enabled;
    return running && this.#receiveDescriptor(this.#ahead);
  }

  receive(frame: Uint8Array, length: number): boolean {
    if ((this.#csr(CSR.MODE) & MODE.LOOP) === 0) this.#take(frame, length);
    return true;
  }

  #take(frame: Uint8Array, length: number): void {
    const match = this.#match(frame);
    if ((this.#csr(CSR.STATUS) & STATUS.RXON) === 0 || length === 0 || match < 0) return;
    const size = Math.min(Math.max(length, ETHERNET.SHORTEST), LARGEST);
    if (length < ETHERNET.SHORTEST) padFrame(frame, length, this.#padded);
    this.#received.set(length < ETHERNET.SHORTEST ? this.#padded : frame.subarray(0, size));
    const checksum = frameChecksum(this.#received, 0, size);
    for (let byte = 0; byte < ETHERNET.CHECKSUM; byte++) this.#received[size + byte] = checksum >>> (8 * byte);
    this.#store(size + ETHERNET.CHECKSUM, match);
    this.#update();
  }

  #store(total: number, match: number): void {
    if (!this.#receiveDescriptor(this.#descriptor)) {
      this.#set(CSR.STATUS, STATUS.MISS);
      this.#s.csr[CSR.MISSED] = (this.#csr(CSR.MISSED) + 1) & 0xffff;
      return;
    }
    let current = this.#descriptor;
    let ahead = this.#ahead;
    let done = 0;
    for (let left = this.#csr(CSR.RCVRL); left > 0; left--) {
      const first = done === 0 ? DESCRIPTOR.STP : 0;
      const part = Math.min(current.length, total - done);
      this.dma.write(this.#address(current.address), this.#received, done, part);
      done += part;
      this.#advance(CSR.RCVRL, CSR.RCVRC);
      const last = done === total;
      const more = !last && left > 1 && this.#receiveDescriptor(ahead);
      const ending = last ? DESCRIPTOR.ENP | match : more ? 0 : DESCRIPTOR.ERR | DESCRIPTOR.OFLO | DESCRIPTOR.BUFF;
      current.status = first | ending;
      current.store(last ? total : 0, 'lower');
      if (!more) break;
      [current, ahead] = [ahead, current];
    }
    this.#set(CSR.STATUS, STATUS.RINT);
  }

  #receiveDescriptor(descriptor: RingDescriptor): boolean {
    return this.#current(descriptor, this.#s.receiveRing, CSR.RCVRL, CSR.RCVRC, CSR.CRDA);
  }

  /** Bits of a descriptor's status for a frame that is taken; -1 for one that is not. */
  #match(frame: Uint8Array): number {
    const mode = this.#csr(CSR.MODE);
    if ((mode & MODE.PROM) !== 0) return 0;
    if (isBroadcast(frame) && (mode & MODE.DRCVBC) === 0) return DESCRIPTOR.BAM;
    if (isGroup(frame)) {
      const index = addressHash(frame) >>> 26;
      return ((this.#csr(CSR.LADRF + (index >> 4)) >> (index & 15)) & 1) !== 0 ? DESCRIPTOR.LAFM : -1;
    }
    if ((mode & MODE.DRCVPA) !== 0) return -1;
    for (let at = 0; at < ETHERNET.ADDRESS; at++) {
      if (frame[at] !== ((this.#csr(CSR.PADR + (at >> 1)) >> (8 * (at & 1))) & 0xff)) return -1;
    }
    return DESCRIPTOR.PAM;
  }
}

/** Bits of `cleared` that are written as ones are cleared; the others are stored. */
function mixed(value: number, stored: number, cleared: number): number {
  return (value & ~cleared) | (stored & cleared & ~value);
}

export const pcnet = deviceType({
  type: 'pcnet',
  summary: 'AMD PCnet-PCI II Ethernet',
  category: 'network',
  properties: cardProperties,
  pci: {
    vendor: 0x1022,
    device: 0x2000,
    revision: 0x10,
    subsystemVendor: 0,
    subsystem: 0,
    class: 0x020000,
    pin: 'A',
    rom: 'efi-pcnet.rom',
  },
  bars: { 0: { size: BAR_SIZE, space: 'io' }, 1: { size: BAR_SIZE } },
  create: Pcnet,
});
