import { ms } from '../../core/clock/units.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { type CardReceiver, cardProperties, NetCard } from '../../core/net/net-cards.ts';
import type { MsiDeclaration } from '../../core/pci/identity.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { field } from '../../core/state/fields.ts';
import { type InterruptHost, Interrupts, interruptState } from './interrupts.ts';
import { FEATURE, GUEST, LONGEST_RECEIVE_COMPLETIONS, LONGEST_RING, MAGIC, MTU, QUEUE, SHARED } from './layout.ts';
import { type ReceiveHost, type ReceiveQueue, Receiver, receiveState } from './receive.ts';
import { filterState, ReceiveFilter } from './receive-filter.ts';
import {
  COMMAND,
  DISABLE_ADAPTIVE_RING,
  deviceRegisters,
  EVENT,
  LINK,
  QUEUES,
  queueRegisters,
  VECTORS,
  WINDOW_SIZE,
} from './registers.ts';
import { Ring, ringState } from './ring.ts';
import { showCounters } from './statistics.ts';
import { Steering, steeringState } from './steering.ts';
import { Assembly, type TransmitHost, TransmitQueue, transmitState } from './transmit.ts';

const DEVICE_ID = 0x07b0;
const REVISION = 1;
const MSIX_BAR = 2;
const MSIX_SIZE = 0x2000;
/** Where capabilities and the pending bits are; and where they were before QEMU 2.6. */
const PLACE = { msi: 0x84, msix: 0x9c, pending: 0x1000 } as const;
const OLD_PLACE = { msi: 0x50, msix: undefined, pending: 0x800 } as const;
const EXPRESS_AT = 0x48;
/** The device serial number. */
const SERIAL_AT = 0x100;
/** How often a receive queue without buffers is looked at whose driver does not say when it has brought some. */
const POLL_NS = ms(10);
const TURN_GAP_NS = 1000;
const MAC = 6;

const properties = {
  ...cardProperties,
  'x-old-msi-offsets': prop.bit({ default: false }),
  'x-disable-pcie': prop.bit({ default: false }),
};

/** VMware's paravirtual card, revision 1. */
export class Vmxnet3
  extends PciDevice<typeof properties>
  implements CardReceiver, TransmitHost, ReceiveHost, InterruptHost
{
  readonly #queueBank = this.bank(queueRegisters, {
    IMR: {
      read: (_stored, vector) => (this.#interrupts.masked(vector) ? 1 : 0),
      wrote: (value, _previous, vector) => {
        if (this.#s.active) this.#interrupts.mask(vector, value !== 0);
      },
    },
    TXPROD: { wrote: (_value, _previous, queue) => this.#transmit(queue) },
    RXPROD: { wrote: () => this.#receiverReady() },
    RXPROD2: { wrote: () => this.#receiverReady() },
  });
  readonly #deviceBank = this.bank(deviceRegisters, {
    VRRS: { read: () => REVISION },
    UVRS: { read: () => REVISION },
    DSAL: { wrote: value => this.#shareLow(value) },
    DSAH: {
      wrote: value => {
        this.#s.shared = value * 2 ** 32 + this.#deviceBank.regs.DSAL.value;
      },
    },
    CMD: { read: command => this.#result(command), wrote: command => this.#command(command) },
    MACL: { read: () => macLow(this.#s.mac) },
    MACH: { read: () => macHigh(this.#s.mac), wrote: value => this.#setMac(this.#deviceBank.regs.MACL.value, value) },
    ICR: { read: () => (this.#interrupts.take() ? 1 : 0) },
    ECR: { wrote: value => this.#acknowledge(value) },
  });
  readonly #s = this.state(1, {
    active: field.bool(),
    /** Where the memory is that is shared with the driver. */
    shared: field.number(),
    mac: field.bytes(MAC),
    features: field.u32(),
    transmitQueues: field.u8(),
    receiveQueues: field.u8(),
    maxFragments: field.u16(),
    compound: field.bool(),
    autoMask: field.bool(),
    eventVector: field.u8(),
  });
  readonly #interrupts = new Interrupts(this.state(1, interruptState, { name: 'interrupts' }), this);
  readonly #filter = new ReceiveFilter(this.state(1, filterState, { name: 'filter' }), this.dma);
  readonly #steering = new Steering(this.state(1, steeringState, { name: 'steering' }), this.dma);
  readonly #assembly = new Assembly();
  readonly #transmitters = Array.from({ length: QUEUES }, (_, index) => this.#transmitQueue(index));
  readonly #receiver = new Receiver(
    Array.from({ length: QUEUES }, (_, index) => this.#receiveQueue(index)),
    this,
    this.#steering,
  );
  readonly #nextTurn = this.clock.deferred('transmit', () => this.#transmitAll());
  readonly #poll = this.clock.timer('poll', () => this.#receiverReady());
  readonly #card = new NetCard(this, { owner: this, mac: this.props.mac, backend: this.props.netdev });
  readonly #net = this.#card.client;
  #transmitting = false;

  protected override get msiDeclaration(): MsiDeclaration {
    return { vectors: 1, offset: placeIn(this.props['x-old-msi-offsets']).msi };
  }

  protected override realize(): void {
    this.onUnrealize(this.#card.plug(this.services.netCards));
    this.bar(0, this.shielded(this.#queueBank));
    this.bar(1, this.shielded(this.#deviceBank));
    const { msix: offset, pending } = placeIn(this.props['x-old-msi-offsets']);
    const msix = this.addMsix({
      ...{ vectors: VECTORS, bar: MSIX_BAR, pba: pending },
      ...(offset !== undefined && { offset }),
    });
    const vectors = MemoryRegion.container('vmxnet3-msix', MSIX_SIZE);
    vectors.add(msix.table, 0);
    vectors.add(msix.pending, pending);
    this.bar(MSIX_BAR, vectors);
    if (!this.props['x-disable-pcie']) {
      this.addExpress();
      if (this.pciBus.express) this.#addSerialNumber();
    }
    this.#s.mac.set(this.#card.mac);
  }

  #addSerialNumber(): void {
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = this.#card.mac;
    this.config.addSerialNumber(SERIAL_AT, [0xfe, d, e, f, a, b, c, 0xff]);
  }

  protected override resetHold(): void {
    this.#s.mac.set(this.#card.mac);
    this.#card.showAddress(this.#card.mac);
    this.#net.purge();
  }

  protected override restored(): void {
    this.#steering.restored();
    this.#card.showAddress(this.#s.mac);
  }

  /** A function that may not master the bus moves nothing. */
  protected override configWritten(offset: number, size: number): void {
    if (offset > 4 || offset + size <= 4 || !this.dma.enabled) return;
    this.#transmitAll();
    this.#receiverReady();
  }

  // Queues

  #ring(name: string): Ring {
    return new Ring(this.state(1, ringState, { name }));
  }

  #transmitQueue(index: number): TransmitQueue {
    const name = `transmit${index}`;
    const state = this.state(1, transmitState, { name });
    return new TransmitQueue(
      this.#ring(`${name}.ring`),
      this.#ring(`${name}.completions`),
      state,
      this,
      this.#assembly,
    );
  }

  #receiveQueue(index: number): ReceiveQueue {
    const name = `receive${index}`;
    return {
      rings: [this.#ring(`${name}.ring0`), this.#ring(`${name}.ring1`)],
      completions: this.#ring(`${name}.completions`),
      state: this.state(1, receiveState, { name }),
    };
  }

  get #transmitQueues(): readonly TransmitQueue[] {
    return this.#transmitters.slice(0, this.#s.transmitQueues);
  }

  get #receiveQueues(): readonly ReceiveQueue[] {
    return this.#receiver.queues.slice(0, this.#s.receiveQueues);
  }

  // Commands

  #shareLow(value: number): void {
    if (value === 0) this.#quiesce();
    this.#s.shared = 0;
  }

  #command(command: number): void {
    const { shared } = this.#s;
    switch (command) {
      case COMMAND.ACTIVATE_DEV:
        this.#activate();
        break;
      case COMMAND.QUIESCE_DEV:
        this.#quiesce();
        break;
      case COMMAND.RESET_DEV:
        this.#quiesce();
        this.#interrupts.reset();
        this.#s.shared = 0;
        break;
      case COMMAND.UPDATE_RX_MODE:
        this.#filter.readMode(shared);
        break;
      case COMMAND.UPDATE_MAC_FILTERS:
        this.#filter.readGroups(shared);
        break;
      case COMMAND.UPDATE_VLAN_FILTERS:
        this.#filter.readVlans(shared);
        break;
      case COMMAND.UPDATE_RSSIDT:
      case COMMAND.UPDATE_FEATURE:
        this.#readFeatures();
        break;
      case COMMAND.GET_STATS:
        this.#showStatistics();
        break;
      case COMMAND.GET_QUEUE_STATUS:
        this.#showStatus();
    }
  }

  /** What CMD reads as after `command`. */
  #result(command: number): number {
    switch (command) {
      case COMMAND.ACTIVATE_DEV:
        return this.#s.active ? 0 : 1;
      case COMMAND.GET_LINK:
        return LINK.SPEED | (this.#net.linkUp ? LINK.UP : 0);
      case COMMAND.GET_PERM_MAC_LO:
        return macLow(this.#card.mac);
      case COMMAND.GET_PERM_MAC_HI:
        return macHigh(this.#card.mac);
      case COMMAND.GET_DID_LO:
        return DEVICE_ID;
      case COMMAND.GET_DID_HI:
        return REVISION;
      case COMMAND.GET_ADAPTIVE_RING_INFO:
        return DISABLE_ADAPTIVE_RING;
      default:
        // GET_CONF_INTR among others: the driver chooses kind and masking of interrupts.
        return 0;
    }
  }

  #quiesce(): void {
    this.#s.active = false;
    this.#nextTurn.cancel();
    this.#poll.cancel();
    for (const { state } of this.#receiver.queues) state.waits = false;
    this.#net.purge();
  }

  /** Copies what the driver has set up. What makes no sense is refused as a whole. */
  #activate(): void {
    const s = this.#s;
    const { dma } = this;
    const { shared } = s;
    if (dma.read32(shared + SHARED.MAGIC) !== MAGIC || s.active) return;
    s.transmitQueues = dma.read8(shared + SHARED.TX_QUEUES);
    s.receiveQueues = dma.read8(shared + SHARED.RX_QUEUES);
    s.maxFragments = dma.read16(shared + SHARED.MAX_RX_FRAGMENTS);
    s.eventVector = dma.read8(shared + SHARED.EVENT_VECTOR);
    s.autoMask = dma.read8(shared + SHARED.AUTO_MASK) !== 0;
    s.compound = ((dma.read32(shared + SHARED.GUEST) >>> GUEST.SHIFT) & GUEST.MASK) !== GUEST.WINDOWS;
    const mtu = dma.read32(shared + SHARED.MTU);
    if (s.transmitQueues > QUEUES || s.receiveQueues > QUEUES || mtu < MTU.LEAST || mtu > MTU.MOST) {
      this.log.guestError(`${s.transmitQueues} and ${s.receiveQueues} queues with an MTU of ${mtu} are not possible`);
      Object.assign(s, { transmitQueues: 0, receiveQueues: 0 });
      return;
    }
    this.#readFeatures();
    this.#filter.readMode(shared);
    this.#filter.readVlans(shared);
    this.#filter.readGroups(shared);
    let description = this.dma.readAddress(shared + SHARED.QUEUES);
    for (const queue of this.#transmitQueues) {
      this.#setUpTransmit(queue, description);
      description += QUEUE.SIZE;
    }
    for (const queue of this.#receiveQueues) {
      this.#setUpReceive(queue, description);
      description += QUEUE.SIZE;
    }
    const users = [
      s.eventVector,
      ...[...this.#transmitQueues, ...this.#receiveQueues].map(({ state }) => state.vector),
    ];
    if (users.some(vector => vector >= VECTORS)) {
      this.log.guestError(`there are no vectors ${users.join(', ')}`);
      return;
    }
    s.mac.set(this.#card.mac);
    this.#card.showAddress(s.mac);
    s.active = true;
  }

  #setUpTransmit({ ring, completions, state }: TransmitQueue, description: number): void {
    this.#describe(state, description);
    this.#startRing(ring, description, QUEUE.RINGS, QUEUE.RING_SIZES, LONGEST_RING);
    this.#startRing(completions, description, QUEUE.COMPLETIONS, QUEUE.COMPLETIONS_SIZE, LONGEST_RING);
    completions.clear(this.dma);
    // Each packet is to be rung for.
    this.dma.write32(description + QUEUE.CONTROL + QUEUE.THRESHOLD, 1);
  }

  #setUpReceive({ rings, completions, state }: ReceiveQueue, description: number): void {
    this.#describe(state, description);
    state.waits = false;
    for (const [index, ring] of rings.entries())
      this.#startRing(ring, description, QUEUE.RINGS + 8 * index, QUEUE.RING_SIZES + 4 * index, LONGEST_RING);
    const longest = LONGEST_RECEIVE_COMPLETIONS;
    this.#startRing(completions, description, QUEUE.COMPLETIONS, QUEUE.COMPLETIONS_SIZE, longest);
    completions.clear(this.dma);
  }

  #describe(state: TransmitQueue['state'] | ReceiveQueue['state'], description: number): void {
    state.description = description;
    state.vector = this.dma.read8(description + QUEUE.VECTOR);
    state.counters.fill(0);
  }

  #startRing(ring: Ring, description: number, addressAt: number, sizeAt: number, longest: number): void {
    ring.start(this.dma.readAddress(description + addressAt), Math.min(this.dma.read32(description + sizeAt), longest));
  }

  #readFeatures(): void {
    const s = this.#s;
    s.features = this.dma.read32(s.shared + SHARED.FEATURES);
    if ((s.features & FEATURE.RSS) !== 0) this.#steering.configure(s.shared);
    else this.#steering.disable();
  }

  #showStatistics(): void {
    if (!this.#s.active) return;
    for (const { state } of [...this.#transmitQueues, ...this.#receiveQueues])
      showCounters(this.dma, state.description + QUEUE.STATISTICS, state.counters);
  }

  /** No queue stops: what is wrong with a packet is counted. */
  #showStatus(): void {
    if (!this.#s.active) return;
    for (const { state } of [...this.#transmitQueues, ...this.#receiveQueues]) {
      this.dma.write32(state.description + QUEUE.STATUS, 0);
      this.dma.write32(state.description + QUEUE.STATUS + 4, 0);
    }
  }

  #setMac(low: number, high: number): void {
    this.#s.mac.set([low, low >>> 8, low >>> 16, low >>> 24, high, high >>> 8]);
    this.#card.showAddress(this.#s.mac);
  }

  // Interrupts and events

  get messages(): boolean {
    return this.messageSignalled;
  }

  get autoMask(): boolean {
    return this.#s.autoMask;
  }

  setPin(level: boolean): void {
    this.irq.set(level);
  }

  signal(vector: number): void {
    this.notify(vector);
  }

  #acknowledge(events: number): void {
    if (!this.#s.active) return;
    const at = this.#s.shared + SHARED.EVENTS;
    this.dma.write32(at, (this.dma.read32(at) & ~events) >>> 0);
  }

  linkChanged(up: boolean): void {
    if (!this.#s.active) return;
    const at = this.#s.shared + SHARED.EVENTS;
    this.dma.write32(at, (this.dma.read32(at) | EVENT.LINK) >>> 0);
    this.#interrupts.raise(this.#s.eventVector);
    if (up) this.#receiverReady();
  }

  // Transmitting

  #transmitAll(): void {
    for (let queue = 0; queue < this.#s.transmitQueues; queue++) this.#transmit(queue);
  }

  #transmit(index: number): void {
    const queue = this.#transmitters[index];
    if (!this.#s.active || index >= this.#s.transmitQueues || queue === undefined || this.#transmitting) return;
    this.#transmitting = true;
    this.#net.burst(true);
    const outcome = queue.process();
    this.#net.burst(false);
    this.#transmitting = false;
    if (outcome === 'rest') this.#nextTurn.arm(TURN_GAP_NS);
    if (outcome !== 'none') this.#interrupts.raise(queue.state.vector);
  }

  send(frame: Uint8Array, length: number): void {
    this.#net.send(frame, length);
  }

  // Receiving

  get features(): number {
    return this.#s.features;
  }

  get receiveQueues(): number {
    return this.#s.receiveQueues;
  }

  get maxFragments(): number {
    return this.#s.maxFragments;
  }

  get compound(): boolean {
    return this.#s.compound;
  }

  canReceive(): boolean {
    return true;
  }

  /** Frames that come while the card is not active are lost; those for which there are no buffers wait. */
  receive(frame: Uint8Array, length: number): boolean {
    if (!this.#s.active || !this.dma.enabled || this.#s.receiveQueues === 0) return true;
    if (!this.#filter.passes(frame, this.#s.mac)) return true;
    const queue = this.#receiver.store(frame, length);
    if (queue === undefined) {
      this.#poll.arm(POLL_NS);
      return false;
    }
    this.#interrupts.raise(queue.state.vector);
    return true;
  }

  #receiverReady(): void {
    if (this.#s.active) this.#net.receiverReady();
  }
}

const placeIn = (old: boolean): typeof PLACE | typeof OLD_PLACE => (old ? OLD_PLACE : PLACE);
const macLow = ([a = 0, b = 0, c = 0, d = 0]: Uint8Array): number => (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
const macHigh = ([, , , , e = 0, f = 0]: Uint8Array): number => e | (f << 8);

const words = { impl: { min: 4, max: 4 } } as const;

export const vmxnet3 = deviceType({
  type: 'vmxnet3',
  summary: 'VMWare Paravirtualized Ethernet v3',
  category: 'network',
  properties,
  pci: {
    vendor: 0x15ad,
    device: DEVICE_ID,
    revision: REVISION,
    class: 0x020000,
    subsystemVendor: 0x15ad,
    subsystem: DEVICE_ID,
    pin: 'A',
    msi: { vectors: 1, offset: PLACE.msi },
    express: 'endpoint',
    expressCapability: { version: 2, offset: EXPRESS_AT, after: 'device' },
    rom: 'efi-vmxnet3.rom',
  },
  bars: {
    0: { size: WINDOW_SIZE, map: queueRegisters, access: words },
    1: { size: WINDOW_SIZE, map: deviceRegisters, access: words },
    2: { size: MSIX_SIZE },
  },
  create: Vmxnet3,
});
