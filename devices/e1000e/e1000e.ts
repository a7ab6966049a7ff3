import type { Timer } from '../../core/clock/timer-queue.ts';
import { ms } from '../../core/clock/units.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { copyUntagged, ETHERNET, get16, padFrame } from '../../core/net/ethernet.ts';
import { LARGEST_FRAME } from '../../core/net/frame-stream.ts';
import { type CardReceiver, cardProperties, NetCard } from '../../core/net/net-cards.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { RegisterBank, Registers } from '../../core/register/register.ts';
import { field } from '../../core/state/fields.ts';
import { accepts } from '../e1000/receive-filter.ts';
import { increment, Statistics } from '../e1000/statistics.ts';
import { PROCESSED, type TransmitHost, Transmitter, TURN, TURN_GAP_NS, transmitState } from '../e1000/transmit.ts';
import { addCapabilities } from './capabilities.ts';
import { type InterruptHost, Interrupts, interruptState, type SignalMode } from './interrupts.ts';
import { Nvm, nvmState } from './nvm.ts';
import { Phy, phyState } from './phy.ts';
import { type ReceiveHost, Receiver } from './receive.ts';
import { CTRL, CTRL_EXT, e1000eRegisters, INT, MMIO_SIZE, RCTL, TCTL_EN, VECTORS, withoutAlias } from './registers.ts';

const FLASH_SIZE = 0x2_0000;
const IO_SIZE = 0x20;
const MSIX_SIZE = 0x4000;
const MSIX_PENDING = 0x2000;
const QUEUES = 2;
const DESCRIPTOR = 16;
const MAX_ETHERNET = 1522;
const MAX_JUMBO = 16_384;
const RING_BYTES = 0xfff80;
/** IVAR: an interrupt with every transmit descriptor that is written back (82574 datasheet, section 10.2.4.9). */
const INT_ON_ALL_WB = 1 << 31;
const FLUSH = 1 << 31;
/** GCR's bits that software cannot change. */
const GCR_FIXED = 0x0680_0000;
const EECD_FIXED = 0x7b00;
const MDIC_INTERRUPT = 1 << 29;

const properties = {
  ...cardProperties,
  disable_vnet_hdr: prop.u8({ default: 0, help: 'Do not use virtio headers, perform SW offloads emulation instead' }),
  subsys_ven: prop.u16({ default: 0x8086, help: 'PCI device Subsystem Vendor ID' }),
  subsys: prop.u16({ default: 0, help: 'PCI device Subsystem ID' }),
  'init-vet': prop.bool({ default: true }),
};

/** Intel's 82574L gigabit controller. */
export class E1000e
  extends PciDevice<typeof properties>
  implements CardReceiver, TransmitHost, ReceiveHost, InterruptHost
{
  readonly #bank: RegisterBank<typeof e1000eRegisters> = this.bank(e1000eRegisters, {
    CTRL: { write: value => this.#control(value) },
    CTRL_DUP: { read: () => this.#regs.CTRL.value, wrote: value => this.#copyControl(value) },
    STATUS: { read: stored => this.#status(stored) },
    EECD: { write: (value, previous) => ((value & ~EECD_FIXED) | (previous & EECD_FIXED)) >>> 0 },
    EERD: { write: value => this.#nvm.read(value) },
    EEWR: { write: value => this.#nvm.write(value) },
    CTRL_EXT: { write: value => (value & ~(CTRL_EXT.ASDCHK | CTRL_EXT.EE_RST)) >>> 0 },
    MDIC: { write: (value, previous) => this.#mdi(value, previous) },
    FCAH: { write: low16 },
    FCT: { write: low16 },
    FCTTV: { write: low16 },
    FCRTV: { write: low16 },
    FCRTL: { write: value => (value & 0x8000_fff8) >>> 0 },
    FCRTH: { write: value => value & 0xfff8 },
    VET: { write: low16 },
    ICR: {
      read: stored => this.#interrupts.read(stored),
      write: (_value, previous, _index, written) => this.#interrupts.acknowledge(previous, written),
      wrote: () => this.#interrupts.update(),
    },
    ICS: { write: (_value, previous) => previous, wrote: (_v, _p, _i, written) => this.#interrupts.raise(written) },
    IMS: { write: (_value, previous) => previous, wrote: (_v, _p, _i, written) => this.#interrupts.unmask(written) },
    IMC: { wrote: (_value, _previous, _index, written) => this.#interrupts.mask(written) },
    ITR: { read: () => this.#interrupts.interval, write: value => this.#interrupts.throttle(value) },
    EITR: {
      read: (_stored, vector) => this.#interrupts.intervalOf(vector),
      write: (value, _previous, vector) => this.#interrupts.throttleVector(vector, value),
    },
    RCTL: { wrote: () => this.#receiverReady() },
    TCTL: { wrote: () => this.#transmitAll() },
    PSRCTL: { write: (value, previous) => this.#splitControl(value, previous) },
    RDBAL: { write: value => (value & ~0xf) >>> 0 },
    RDLEN: { write: value => value & RING_BYTES },
    RDH: { write: low16 },
    RDT: { write: low16, wrote: () => this.#receiverReady() },
    RDTR: { wrote: value => this.#delay('RDTR', 'receive', value) },
    RXDCTL: { wrote: value => this.#regs.RXDCTL.values.fill(value) },
    RADV: { write: low16 },
    RAID: { write: low16 },
    TDBAL: { write: value => (value & ~0xf) >>> 0 },
    TDLEN: { write: value => value & RING_BYTES },
    TDH: { write: low16 },
    TDT: { write: low16, wrote: (_value, _previous, queue) => this.#transmit(queue) },
    TIDV: { wrote: value => this.#delay('TIDV', 'transmit', value) },
    TADV: { write: low16 },
    GORCH: { read: stored => this.#clearWith('GORCL', stored) },
    GOTCH: { read: stored => this.#clearWith('GOTCL', stored) },
    TORH: { read: stored => this.#clearWith('TORL', stored) },
    TOTH: { read: stored => this.#clearWith('TOTL', stored) },
    RA: { wrote: (_value, _previous, index) => this.#addressWritten(index) },
    GCR: { write: (value, previous) => ((value & ~GCR_FIXED) | (previous & GCR_FIXED)) >>> 0 },
    SWSM: { read: stored => this.#semaphore(stored) },
    PBACLR: { wrote: value => this.#clearVectors(value) },
  });
  readonly #regs: Registers<typeof e1000eRegisters> = this.#bank.regs;
  readonly #s = this.state(1, { io: field.u32() });
  readonly #nvm = new Nvm(this.state(1, nvmState, { name: 'nvm', onReset: 'keep' }));
  readonly #phy = new Phy(this.state(1, phyState, { name: 'phy' }), () => this.#restartNegotiation());
  readonly #interrupts = new Interrupts(this.#regs, this.state(1, interruptState, { name: 'interrupts' }), this);
  readonly #transmitters = Array.from(
    { length: QUEUES },
    (_, queue) => new Transmitter(this.state(1, transmitState, { name: `transmit${queue}` }), this),
  );
  readonly #receiver = new Receiver(this.#regs, this);
  readonly #statistics = new Statistics(this.#regs);
  readonly #nextTurn = this.clock.deferred('transmit', () => this.#transmitAll());
  readonly #negotiation = this.clock.timer('autonegotiation', () => this.#negotiated());
  readonly #card = new NetCard(this, {
    owner: this,
    mac: this.props.mac,
    backend: this.props.netdev,
  });
  readonly #net = this.#card.client;
  readonly #padded = new Uint8Array(ETHERNET.SHORTEST);
  readonly #untagged = new Uint8Array(LARGEST_FRAME);
  readonly #addresses = this.#regs.RA.values;
  readonly #multicast = this.#regs.MTA.values;
  readonly #vlans = this.#regs.VFTA.values;
  #transmitting = false;

  protected override realize(): void {
    this.onUnrealize(this.#card.plug(this.services.netCards));
    const { mac } = this.#card;
    addCapabilities(this.config, mac, { vendor: this.props.subsys_ven, device: this.props.subsys });
    this.#nvm.program(mac, this.identity.device);
    const registers = this.#bank;
    this.bar(
      0,
      this.shielded({
        read: (offset, size) => registers.read(withoutAlias(offset), size),
        write: (offset, size, value) => registers.write(withoutAlias(offset), size, value),
      }),
    );
    this.bar(1, MemoryRegion.container('e1000e-flash', FLASH_SIZE));
    this.bar(
      2,
      this.shielded({
        read: offset => this.#readIo(offset),
        write: (offset, _size, value) => this.#writeIo(offset, value),
      }),
    );
    const { msix } = this;
    if (msix !== undefined) {
      const vectors = MemoryRegion.container('e1000e-msix', MSIX_SIZE);
      vectors.add(msix.table, 0);
      vectors.add(msix.pending, MSIX_PENDING);
      this.bar(3, vectors);
    }
    this.#reset();
  }

  protected override resetHold(): void {
    this.#phy.reset();
    this.#interrupts.reset();
    if (!this.props['init-vet']) this.#regs.VET.value = 0;
    this.#reset();
    if (!this.#net.linkUp) this.#linkDown();
    this.#net.purge();
  }

  protected override restored(): void {
    this.#addressWritten(1);
  }

  /** A function that may not master the bus takes no frames. */
  protected override configWritten(offset: number, size: number): void {
    if (offset <= 4 && offset + size > 4 && this.dma.enabled) this.#receiverReady();
  }

  // Control (section 10.2.2)

  #reset(): void {
    const { RA } = this.#regs;
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = this.#card.mac;
    RA.at(0).value = (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
    RA.at(1).value = (e | (f << 8) | 0x8000_0000) >>> 0;
    this.#card.showAddress(this.#card.mac);
  }

  #control(value: number): number {
    const { STATUS } = this.#regs;
    if ((value & CTRL.RST) !== 0) {
      const { RCTL: receive, TCTL, IMS, ICR, RDH, RDT, TDH, TDT } = this.#regs;
      for (const register of [receive, TCTL, IMS, ICR]) register.value = 0;
      for (const registers of [RDH, RDT, TDH, TDT]) registers.values.fill(0);
      this.#interrupts.reset();
      this.#interrupts.update();
      this.#reset();
    }
    if ((value & CTRL.PHY_RST) !== 0) STATUS.PHYRA = true;
    return (value & ~(CTRL.RST | CTRL.PHY_RST)) >>> 0;
  }

  #copyControl(value: number): void {
    this.#regs.CTRL.value = this.#control(value);
  }

  /** Speed and duplex are forced, or what the partner and we agreed on. */
  #status(stored: number): number {
    const { CTRL: control, CTRL_EXT: extended } = this.#regs;
    const value = control.value;
    const forced = (value & CTRL.FRCSPD) !== 0 || (extended.value & CTRL_EXT.SPD_BYPS) !== 0;
    const speed = forced ? Math.min(2, (value >>> CTRL.SPEED_SHIFT) & 3) : 2;
    const duplex = (value & CTRL.FRCDPX) === 0 || (value & CTRL.FD) !== 0;
    const master = (value & CTRL.GIO_MASTER_DISABLE) === 0;
    return stored | (duplex ? 1 : 0) | (speed << 6) | (master ? 1 << 19 : 0);
  }

  #mdi(value: number, previous: number): number {
    const result = this.#phy.access(value, previous);
    if ((value & MDIC_INTERRUPT) !== 0) this.#interrupts.raise(INT.MDAC);
    return result;
  }

  #splitControl(value: number, previous: number): number {
    if ((this.#regs.RCTL.value & RCTL.DTYP_PS) === 0) return value;
    if ((value & 0x7f) !== 0 && (value & 0x3f00) !== 0) return value;
    this.log.guestError('PSRCTL: the first two buffers of a split packet cannot be empty');
    return previous;
  }

  #delay(name: 'RDTR' | 'TIDV', direction: 'receive' | 'transmit', value: number): void {
    this.#regs[name].value = value & 0xffff;
    if ((value & FLUSH) !== 0) this.#interrupts.flush(direction);
  }

  #clearWith(low: 'GORCL' | 'GOTCL' | 'TORL' | 'TOTL', stored: number): number {
    this.#regs[low].value = 0;
    return stored;
  }

  #addressWritten(index: number): void {
    if (index !== 1) return;
    const [low = 0, high = 0] = this.#addresses;
    this.#card.showAddress(Uint8Array.of(low, low >>> 8, low >>> 16, low >>> 24, high, high >>> 8));
  }

  /** Reading takes the semaphore (section 10.2.8.16). */
  #semaphore(stored: number): number {
    this.#regs.SWSM.value = (stored | 1) >>> 0;
    return stored;
  }

  #clearVectors(vectors: number): void {
    for (let vector = 0; vector < VECTORS; vector++) if ((vectors & (1 << vector)) !== 0) this.clearPending(vector);
  }

  // Interrupts

  get signalMode(): SignalMode {
    if (this.msix?.enabled) return 'msi-x';
    return this.msi?.enabled ? 'msi' : 'pin';
  }

  setPin(level: boolean): void {
    this.irq.set(level);
  }

  signal(vector: number): void {
    this.notify(vector);
  }

  clearPending(vector: number): void {
    this.msix?.clearPending(vector);
  }

  timer(name: string, callback: () => void): Timer {
    return this.clock.timer(name, callback);
  }

  // Link

  linkChanged(up: boolean): void {
    const { STATUS } = this.#regs;
    const before = STATUS.LU;
    if (!up) this.#linkDown();
    else if (this.#phy.autonegotiates && !this.#phy.negotiated) this.#restartNegotiation();
    else {
      this.#linkUp();
      this.#receiverReady();
    }
    if (STATUS.LU !== before) this.#interrupts.raise(INT.LSC);
  }

  #restartNegotiation(): void {
    this.#linkDown();
    this.#negotiation.arm(ms(500));
  }

  #negotiated(): void {
    if (!this.#net.linkUp) return;
    this.#phy.finishNegotiation();
    this.#linkUp();
    // Pause frames are what partners agree on.
    this.#regs.CTRL.value |= CTRL.TFCE | CTRL.RFCE;
    this.#receiverReady();
    this.#interrupts.raise(INT.LSC);
  }

  #linkUp(): void {
    this.#regs.STATUS.LU = true;
    this.#phy.setLink(true);
  }

  #linkDown(): void {
    this.#regs.STATUS.LU = false;
    this.#phy.setLink(false);
  }

  // Transmitting (section 7.2)

  get vlanEnabled(): boolean {
    return (this.#regs.CTRL.value & CTRL.VME) !== 0;
  }

  get vlanType(): number {
    return this.#regs.VET.value & 0xffff;
  }

  get reportsAll(): boolean {
    return (this.#regs.IVAR.value & INT_ON_ALL_WB) !== 0;
  }

  #transmitAll(): void {
    for (let queue = 0; queue < QUEUES; queue++) this.#transmit(queue);
  }

  #transmit(queue: number): void {
    const { TCTL, TARC, TDBAL, TDBAH, TDLEN, TDH, TDT } = this.#regs;
    const transmitter = this.#transmitters[queue];
    if ((TCTL.value & TCTL_EN) === 0 || !TARC.at(queue).ENABLE || this.#transmitting || transmitter === undefined)
      return;
    const base = TDBAH.at(queue).value * 2 ** 32 + TDBAL.at(queue).value;
    const ring = Math.floor(TDLEN.at(queue).value / DESCRIPTOR);
    const head = TDH.at(queue);
    const tail = TDT.at(queue).value;
    let causes: number = INT.TXQE;
    let delayed = false;
    this.#transmitting = true;
    this.#net.burst(true);
    // A tail beyond the ring is none; and no run is longer than the ring.
    transmitter.moved = 0;
    for (let count = 0; count < ring && head.value !== tail && tail < ring; count++) {
      if (transmitter.moved > TURN) {
        this.#nextTurn.arm(TURN_GAP_NS);
        break;
      }
      const wanted = transmitter.process(base + head.value * DESCRIPTOR);
      if ((wanted & PROCESSED.REPORTED) !== 0) {
        causes |= this.signalMode !== 'msi-x' ? INT.TXDW : queue === 0 ? INT.TXQ0 : INT.TXQ1;
        delayed = (wanted & PROCESSED.DELAYED) !== 0;
      }
      head.value = head.value + 1 >= ring ? 0 : head.value + 1;
    }
    this.#net.burst(false);
    this.#transmitting = false;
    this.#interrupts.sent(causes, delayed);
  }

  send(frame: Uint8Array, length: number): void {
    this.#statistics.sent(frame, length + ETHERNET.CHECKSUM);
    if (this.#phy.loopback || (this.#regs.RCTL.value & RCTL.LBM) !== 0) this.receive(frame, length);
    else this.#net.send(frame, length);
  }

  segmented(failed: boolean): void {
    increment(failed ? this.#regs.TSCTFC : this.#regs.TSCTC);
  }

  // Receiving (section 7.1)

  canReceive(): boolean {
    const { STATUS, RCTL: control } = this.#regs;
    return STATUS.LU && (control.value & RCTL.EN) !== 0 && this.dma.enabled && this.#receiver.hasRoom;
  }

  receive(frame: Uint8Array, length: number): boolean {
    const { STATUS, RCTL: control, RUC, ROC } = this.#regs;
    if (!STATUS.LU || (control.value & RCTL.EN) === 0) return true;
    let bytes = frame;
    let size = length;
    if (length < ETHERNET.SHORTEST) {
      padFrame(frame, length, this.#padded);
      bytes = this.#padded;
      size = ETHERNET.SHORTEST;
      increment(RUC);
    }
    const limit = (control.value & RCTL.LPE) !== 0 ? MAX_JUMBO : MAX_ETHERNET;
    if (size > limit && (control.value & RCTL.SBP) === 0) {
      increment(ROC);
      return true;
    }
    if (!accepts(bytes, control.value, this.#addresses, this.#multicast, this.#vlans, this.vlanType)) return true;
    let tag = -1;
    if (this.vlanEnabled && get16(bytes, ETHERNET.TYPE) === this.vlanType) {
      tag = get16(bytes, ETHERNET.HEADER);
      size = copyUntagged(bytes, size, this.#untagged);
      bytes = this.#untagged;
    }
    const causes = this.#receiver.store(bytes, size, tag, this.signalMode === 'msi-x');
    if (causes < 0) {
      this.#interrupts.received(INT.RXO);
      return false;
    }
    this.#statistics.received(bytes, size + ETHERNET.CHECKSUM);
    this.#interrupts.received(causes);
    return true;
  }

  #receiverReady(): void {
    if (this.canReceive()) this.#net.receiverReady();
  }

  // The I/O window: an address, and the register there (section 10.2.1.3)

  #readIo(offset: number): number {
    if (offset === 0) return this.#s.io;
    return offset === 4 && this.#s.io < MMIO_SIZE ? this.#bank.read(withoutAlias(this.#s.io & ~3), 4) : 0;
  }

  #writeIo(offset: number, value: number): void {
    if (offset === 0) this.#s.io = value >>> 0;
    else if (offset === 4 && this.#s.io < MMIO_SIZE) this.#bank.write(withoutAlias(this.#s.io & ~3), 4, value);
  }
}

const low16 = (value: number): number => value & 0xffff;

const words = { impl: { min: 4, max: 4 } } as const;

export const e1000e = deviceType({
  type: 'e1000e',
  summary: 'Intel 82574L GbE Controller',
  category: 'network',
  properties,
  pci: {
    vendor: 0x8086,
    device: 0x10d3,
    class: 0x020000,
    pin: 'A',
    msix: { vectors: VECTORS, bar: 3, pba: MSIX_PENDING, offset: 0xa0 },
    express: 'endpoint',
    expressCapability: { version: 1, offset: 0xe0 },
    msi: { vectors: 1, offset: 0xd0 },
    powerManagement: 0xc8,
    rom: 'efi-e1000e.rom',
  },
  bars: {
    0: { size: MMIO_SIZE, map: e1000eRegisters, access: words },
    1: { size: FLASH_SIZE },
    2: { size: IO_SIZE, space: 'io', access: words },
    3: { size: MSIX_SIZE },
  },
  create: E1000e,
});
