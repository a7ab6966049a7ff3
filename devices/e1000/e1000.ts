import { ms } from '../../core/clock/units.ts';
import type { DeviceContext } from '../../core/device/device-type.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { copyUntagged, ETHERNET, get16, padFrame } from '../../core/net/ethernet.ts';
import { LARGEST_FRAME } from '../../core/net/frame-stream.ts';
import { type CardReceiver, NetCard } from '../../core/net/net-cards.ts';
import type { NetBackend, NetClient } from '../../core/net/net-client.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { Registers } from '../../core/register/register.ts';
import { field } from '../../core/state/fields.ts';
import { Eeprom, eepromState } from './eeprom.ts';
import { Phy, phyState } from './phy.ts';
import { accepts } from './receive-filter.ts';
import { CTRL, e1000Registers, INT, MDIC, RCTL, TCTL_EN } from './registers.ts';
import { increment, Statistics } from './statistics.ts';
import { PROCESSED, type TransmitHost, Transmitter, TURN, TURN_GAP_NS, transmitState } from './transmit.ts';

const MMIO_SIZE = 0x2_0000;
const IO_SIZE = 0x40;
const DESCRIPTOR = 16;
const CRC = 4;
const MAX_ETHERNET = 1522;
const MAX_JUMBO = 16_384;
/** Receive descriptor status (Intel 8254x software developer's manual, section 3.2.3.1). */
const RXD = { DD: 0x01, EOP: 0x02, IXSM: 0x04, VP: 0x08 } as const;
/** Interrupt delays count 256 ns, absolute transmit and receive delays 1.024 us (sections 13.4.18, 13.4.31). */
const DELAY_UNIT_NS = 256;
const MIN_DELAY = 500;

const properties = {
  mac: prop.mac(),
  netdev: prop.backend<NetBackend>('netdev'),
  bootindex: prop.bootIndex({ default: -1 }),
  autonegotiation: prop.bit({ default: true }),
  mitigation: prop.bit({ default: true }),
  extra_mac_registers: prop.bit({ default: true }),
  migrate_tso_props: prop.bit({ default: true }),
  'init-vet': prop.bit({ default: true }),
};
type Properties = typeof properties;

/** Intel's 8254x gigabit controllers with a copper PHY. */
export class E1000 extends PciDevice<Properties> implements CardReceiver, TransmitHost {
  readonly #regs: Registers<typeof e1000Registers> = this.bind(e1000Registers, {
    CTRL: { write: value => this.#control(value) },
    EECD: { read: () => this.#eeprom.control, wrote: value => this.#eeprom.writeControl(value) },
    EERD: { read: stored => this.#eeprom.readWord(stored) },
    MDIC: { write: value => this.#mdi(value) },
    ICR: {
      read: stored => this.#readCauses(stored),
      write: (_value, previous, _index, written) => (previous & ~written) >>> 0,
      wrote: () => this.#updateInterrupt(),
    },
    ICS: { wrote: (_value, _previous, _index, written) => this.#raise(written) },
    IMS: {
      write: (_value, previous, _index, written) => (previous | written) >>> 0,
      wrote: () => this.#updateInterrupt(),
    },
    IMC: { wrote: (_value, _previous, _index, written) => this.#mask(written) },
    RCTL: { wrote: () => this.#receiverReady() },
    TCTL: { wrote: () => this.#transmit() },
    RDT: { write: value => value & 0xffff, wrote: () => this.#receiverReady() },
    RDH: { write: value => value & 0xffff },
    RDLEN: { write: value => value & 0xfff80 },
    TDH: { write: value => value & 0xffff },
    TDLEN: { write: value => value & 0xfff80 },
    TDT: { write: value => value & 0xffff, wrote: () => this.#transmit() },
    RDTR: { write: value => value & 0xffff },
    RADV: { write: value => value & 0xffff },
    TADV: { write: value => value & 0xffff },
    ITR: { write: value => value & 0xffff },
  });
  readonly #s = this.state(
    1,
    { delayed: field.bool(), io: field.u32(), delayedByDescriptor: field.bool(), asserted: field.bool() },
    { name: 'interrupts' },
  );
  readonly #eeprom = new Eeprom(this.state(1, eepromState, { name: 'eeprom' }));
  readonly #phy = new Phy(
    this.state(1, phyState, { name: 'phy' }),
    this.identity.device === 0x1004 ? 0x0c30 : this.identity.device === 0x100f ? 0x0c50 : 0x0c20,
    () => this.#restartNegotiation(),
  );
  readonly #transmitter = new Transmitter(this.state(1, transmitState, { name: 'transmit' }), this);
  readonly #nextTurn = this.clock.deferred('transmit', () => this.#transmit());
  readonly #negotiation = this.clock.timer('autonegotiation', () => this.#negotiated());
  readonly #mitigation = this.clock.timer('mitigation', () => this.#mitigated());
  readonly #descriptor = new Uint32Array(DESCRIPTOR / 4);
  readonly #padded = new Uint8Array(ETHERNET.SHORTEST);
  readonly #untagged = new Uint8Array(LARGEST_FRAME);
  readonly #statistics = new Statistics(this.#regs);
  readonly #addresses = this.#regs.RA.values;
  readonly #multicast = this.#regs.MTA.values;
  readonly #vlans = this.#regs.VFTA.values;
  readonly #card = new NetCard(this, {
    owner: this,
    mac: this.props.mac,
    backend: this.props.netdev,
  });
  readonly #net: NetClient = this.#card.client;
  #transmitting = false;

  protected override realize(): void {
    this.bar(
      1,
      {
        read: (offset, size) => this.#readIo(offset, size),
        write: (offset, size, value) => this.#writeIo(offset, size, value),
      },
      undefined,
      { impl: { min: 1, max: 4 } },
    );
    this.onUnrealize(this.#card.plug(this.services.netCards));
    this.#eeprom.program(this.#card.mac, this.identity.device);
    this.#resetMac();
  }

  protected override resetHold(): void {
    this.#resetMac();
    this.#phy.reset();
    this.#net.purge();
    if (!this.#net.linkUp) this.#linkDown();
  }

  /** A function that may not master the bus takes no frames. */
  protected override configWritten(offset: number, size: number): void {
    if (offset <= 4 && offset + size > 4 && this.dma.enabled) {
      this.#transmit();
      this.#receiverReady();
    }
  }

  // Control

  #resetMac(): void {
    const { RA } = this.#regs;
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = this.#card.mac;
    RA.at(0).value = (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
    RA.at(1).value = (e | (f << 8) | 0x8000_0000) >>> 0;
    this.#card.showAddress(this.#card.mac);
  }

  #control(value: number): number {
    if ((value & CTRL.RST) !== 0) {
      const { RCTL: receive, TCTL, IMS, ICR, RDH, RDT, TDH, TDT } = this.#regs;
      for (const register of [receive, TCTL, IMS, ICR, RDH, RDT, TDH, TDT]) register.value = 0;
      this.#mitigation.cancel();
      this.#s.delayed = false;
      this.#updateInterrupt();
    }
    return (value & ~CTRL.RST) >>> 0;
  }

  #mdi(value: number): number {
    const result = this.#phy.access(value);
    if ((value & MDIC.INT_ENABLE) !== 0) this.#raise(INT.MDAC);
    return result;
  }

  get vlanEnabled(): boolean {
    return (this.#regs.CTRL.value & CTRL.VME) !== 0;
  }

  get vlanType(): number {
    return this.#regs.VET.value & 0xffff;
  }

  // Link

  linkChanged(up: boolean): void {
    if (!up) {
      this.#linkDown();
    } else if (this.props.autonegotiation && this.#phy.autonegotiates && !this.#phy.negotiated) {
      this.#restartNegotiation();
      return;
    } else {
      this.#linkUp();
    }
    this.#raise(INT.LSC);
  }

  #restartNegotiation(): void {
    this.#linkDown();
    this.#negotiation.arm(ms(500));
  }

  #negotiated(): void {
    if (!this.#net.linkUp) return;
    this.#phy.finishNegotiation();
    this.#regs.STATUS.LU = true;
    this.#raise(INT.LSC);
    this.#receiverReady();
  }

  #linkUp(): void {
    this.#regs.STATUS.LU = true;
    this.#phy.setLink(true);
    this.#receiverReady();
  }

  #linkDown(): void {
    this.#regs.STATUS.LU = false;
    this.#phy.setLink(false);
  }

  // Interrupts

  #readCauses(stored: number): number {
    this.#regs.ICR.value = 0;
    this.#updateInterrupt();
    return stored;
  }

  #mask(bits: number): void {
    this.#regs.IMS.value &= ~bits;
    this.#updateInterrupt();
  }

  #raise(causes: number): void {
    this.#regs.ICR.value = (this.#regs.ICR.value | causes) >>> 0;
    this.#updateInterrupt();
  }

  /** Interrupt moderation holds back a rising interrupt until its delay is over (section 13.4.18). */
  #updateInterrupt(): void {
    const s = this.#s;
    const pending = (this.#regs.ICR.value & this.#regs.IMS.value) !== 0;
    if (pending && !s.asserted) {
      if (s.delayed) return;
      const delay = this.props.mitigation ? this.#delay() : 0;
      if (delay > 0) {
        s.delayed = true;
        this.#mitigation.arm(Math.max(delay, MIN_DELAY) * DELAY_UNIT_NS);
      }
      s.delayedByDescriptor = false;
    }
    s.asserted = pending;
    this.irq.set(pending);
  }

  #delay(): number {
    const { TADV, RADV, RDTR, ITR, ICR } = this.#regs;
    let delay = 0;
    const shorter = (value: number): void => {
      if (value !== 0 && (delay === 0 || value < delay)) delay = value;
    };
    if (this.#s.delayedByDescriptor && TADV.value !== 0) shorter(TADV.value * 4);
    if (RDTR.value !== 0 && (ICR.value & INT.RXT0) !== 0) shorter(RADV.value * 4);
    shorter(ITR.value);
    return delay;
  }

  #mitigated(): void {
    this.#s.delayed = false;
    this.#updateInterrupt();
  }

  // Transmitting

  #transmit(): void {
    const { TCTL, TDH, TDT, TDBAL, TDBAH, TDLEN } = this.#regs;
    if ((TCTL.value & TCTL_EN) === 0 || !this.dma.enabled || this.#transmitting) return;
    this.#transmitting = true;
    const ring = Math.floor(TDLEN.value / DESCRIPTOR);
    const base = TDBAH.value * 2 ** 32 + unsigned(TDBAL.value & ~0xf);
    const start = TDH.value;
    let causes: number = INT.TXQE;
    let moved = false;
    this.#net.burst(true);
    this.#transmitter.moved = 0;
    while (TDH.value !== TDT.value) {
      if (this.#transmitter.moved > TURN) {
        this.#nextTurn.arm(TURN_GAP_NS);
        break;
      }
      const wanted = this.#transmitter.process(base + TDH.value * DESCRIPTOR);
      moved = true;
      if ((wanted & PROCESSED.REPORTED) !== 0) causes |= INT.TXDW;
      if ((wanted & PROCESSED.DELAYED) !== 0) this.#s.delayedByDescriptor = true;
      TDH.value = TDH.value + 1 >= ring ? 0 : TDH.value + 1;
      // A tail beyond the ring would go round for ever.
      if (TDH.value === start || start >= ring) break;
    }
    this.#net.burst(false);
    this.#transmitting = false;
    if (moved) this.#raise(causes);
  }

  send(frame: Uint8Array, length: number): void {
    this.#statistics.sent(frame, length + CRC);
    if (this.#phy.loopback || (this.#regs.RCTL.value & RCTL.LBM) !== 0) this.receive(frame, length);
    else this.#net.send(frame, length);
  }

  segmented(failed: boolean): void {
    increment(failed ? this.#regs.TSCTFC : this.#regs.TSCTC);
  }

  // Receiving

  canReceive(): boolean {
    const { STATUS, RCTL: control } = this.#regs;
    return STATUS.LU && (control.value & RCTL.EN) !== 0 && this.dma.enabled && this.#hasRoom(1);
  }

  /** Puts a frame into the guest's buffers (section 3.2). What the filters refuse counts as taken. */
  receive(frame: Uint8Array, length: number): boolean {
    const { STATUS, RCTL: control } = this.#regs;
    if (!STATUS.LU || (control.value & RCTL.EN) === 0 || !this.dma.enabled) return true;
    let bytes = frame;
    let size = length;
    if (length < ETHERNET.SHORTEST) {
      padFrame(frame, length, this.#padded);
      bytes = this.#padded;
      size = ETHERNET.SHORTEST;
    }
    if (
      (size > MAX_JUMBO || (size > MAX_ETHERNET && (control.value & RCTL.LPE) === 0)) &&
      (control.value & RCTL.SBP) === 0
    ) {
      increment(this.#regs.ROC);
      return true;
    }
    if (!accepts(bytes, control.value, this.#addresses, this.#multicast, this.#vlans, this.vlanType)) return true;
    const tagged = this.vlanEnabled && get16(bytes, ETHERNET.TYPE) === this.vlanType;
    const tag = tagged ? get16(bytes, ETHERNET.HEADER) : 0;
    const payload = size - (tagged ? ETHERNET.VLAN_HEADER : 0);
    const total = payload + ((control.value & RCTL.SECRC) !== 0 ? 0 : CRC);
    if (!this.#hasRoom(total)) {
      increment(this.#regs.RNBC);
      this.#raise(INT.RXO);
      return false;
    }
    if (tagged) {
      copyUntagged(bytes, size, this.#untagged);
      bytes = this.#untagged;
    }
    this.#store(bytes, payload, total, tagged, tag);
    this.#statistics.received(bytes, payload + CRC);
    this.#raise(INT.RXT0 | (this.#runsLow() ? INT.RXDMT0 : 0));
    return true;
  }

  #bufferSize(): number {
    const control = this.#regs.RCTL.value;
    const size = (control >>> RCTL.BSIZE_SHIFT) & 3;
    if ((control & RCTL.BSEX) !== 0 && size !== 0) return 32_768 >> size;
    return 2048 >> size;
  }

  #hasRoom(total: number): boolean {
    const { RDH, RDT, RDLEN } = this.#regs;
    if (total <= this.#bufferSize()) return RDH.value !== RDT.value && RDLEN.value !== 0;
    const ring = Math.floor(RDLEN.value / DESCRIPTOR);
    const free = RDH.value <= RDT.value ? RDT.value - RDH.value : ring + RDT.value - RDH.value;
    return total <= free * this.#bufferSize();
  }

  /** Fewer descriptors are left than the threshold (section 13.4.22, RDMTS). */
  #runsLow(): boolean {
    const { RDH, RDT, RDLEN, RCTL: control } = this.#regs;
    const tail = RDT.value < RDH.value ? RDT.value + RDLEN.value / DESCRIPTOR : RDT.value;
    const shift = ((control.value >>> RCTL.RDMTS_SHIFT) & 3) + 1;
    return (tail - RDH.value) * DESCRIPTOR <= RDLEN.value >> shift;
  }

  #store(bytes: Uint8Array, payload: number, total: number, tagged: boolean, tag: number): void {
    const { RDH, RDLEN, RDBAL, RDBAH } = this.#regs;
    const ring = Math.floor(RDLEN.value / DESCRIPTOR);
    const base = RDBAH.value * 2 ** 32 + unsigned(RDBAL.value & ~0xf);
    const start = RDH.value;
    const room = this.#bufferSize();
    for (let done = 0; done < total; ) {
      const address = base + RDH.value * DESCRIPTOR;
      if (!this.dma.readWords(address, this.#descriptor)) return;
      const buffer = (this.#descriptor[1] ?? 0) * 2 ** 32 + (this.#descriptor[0] ?? 0);
      const part = Math.min(total - done, room);
      if (buffer !== 0 && done < payload) this.dma.write(buffer, bytes, done, Math.min(part, payload - done));
      done += part;
      const status = RXD.DD | (tagged ? RXD.VP : 0) | (done >= total ? RXD.EOP | RXD.IXSM : 0);
      this.dma.write32(address + 8, part);
      // The status goes last, so that software never sees a descriptor done before its length.
      this.dma.write32(address + 12, ((tag << 16) | status) >>> 0);
      RDH.value = RDH.value + 1 >= ring ? 0 : RDH.value + 1;
      if (RDH.value === start) {
        this.#raise(INT.RXO);
        return;
      }
    }
  }

  #receiverReady(): void {
    if (this.canReceive()) this.#net.receiverReady();
  }

  // The I/O window: an address, and the register there (section 13.3)

  #readIo(offset: number, size: number): number {
    if (size !== 4) return 0;
    if (offset === 0) return this.#s.io;
    return offset === 4 && this.#s.io < MMIO_SIZE ? (this.bars[0]?.region.read(this.#s.io, 4) ?? 0) : 0;
  }

  #writeIo(offset: number, size: number, value: number): void {
    if (size !== 4) return;
    if (offset === 0) this.#s.io = value & (MMIO_SIZE - 1) & ~3;
    else if (offset === 4) this.bars[0]?.region.write(this.#s.io, 4, value);
  }
}

function unsigned(value: number): number {
  return value < 0 ? value + 2 ** 32 : value;
}

function model(type: string, device: number, summary: string, aliases: readonly string[] = []) {
  return deviceType({
    type,
    summary,
    aliases,
    category: 'network',
    parents: ['e1000-base', 'pci-device', 'device'],
    properties,
    pci: { vendor: 0x8086, device, revision: 3, class: 0x020000, pin: 'A', rom: 'efi-e1000.rom' },
    bars: { 0: { size: MMIO_SIZE, map: e1000Registers }, 1: { size: IO_SIZE, space: 'io' } },
    create: E1000 as new (context: DeviceContext<Properties>) => E1000,
  });
}

export const e1000 = model('e1000', 0x100e, 'Intel Gigabit Ethernet', ['e1000-82540em']);
export const e1000_82544gc = model('e1000-82544gc', 0x1004, 'Intel Gigabit Ethernet');
export const e1000_82545em = model('e1000-82545em', 0x100f, 'Intel Gigabit Ethernet');
