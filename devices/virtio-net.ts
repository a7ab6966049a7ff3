import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { StandbyCard } from '../core/net/failover.ts';
import { type CardReceiver, NetCard, type ReceiveFilterInfo } from '../core/net/net-cards.ts';
import type { NetBackend, NetClient } from '../core/net/net-client.ts';
import { field } from '../core/state/fields.ts';
import type { VirtqueueElement } from '../core/virtio/element.ts';
import { bit, has, QUEUE_SIZE_MAX, VIRTIO_F, VIRTIO_ID } from '../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../core/virtio/virtio-device.ts';
import { virtioPciTypes } from '../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../core/virtio/virtqueue.ts';
import { MAC_TABLE_SIZE, ReceiveFilter } from './virtio-net-filter.ts';

/** Feature bits (virtio 1.2, section 5.1.3). */
const F = {
  CTRL_GUEST_OFFLOADS: 2,
  MTU: 3,
  MAC: 5,
  MRG_RXBUF: 15,
  STATUS: 16,
  CTRL_VQ: 17,
  CTRL_RX: 18,
  CTRL_VLAN: 19,
  CTRL_RX_EXTRA: 20,
  GUEST_ANNOUNCE: 21,
  MQ: 22,
  CTRL_MAC_ADDR: 23,
  STANDBY: 62,
  SPEED_DUPLEX: 63,
} as const;

/** Offsets in the configuration space (section 5.1.4). */
const CONFIG = { MAC: 0, STATUS: 6, MAX_PAIRS: 8, MTU: 10, SPEED: 12, DUPLEX: 16 } as const;
const LINK_UP = 1;
const ANNOUNCE = 2;

/** Commands of the control queue (section 5.1.6.5). */
const CLASS = { RX: 0, MAC: 1, VLAN: 2, ANNOUNCE: 3, MQ: 4, GUEST_OFFLOADS: 5 } as const;
const RX = { PROMISC: 0, ALLMULTI: 1, ALLUNI: 2, NOMULTI: 3, NOUNI: 4, NOBCAST: 5 } as const;
const MAC_COMMAND = { TABLE_SET: 0, ADDR_SET: 1 } as const;
const VLAN = { ADD: 0, DEL: 1 } as const;
const ACK = { OK: 0, ERR: 1 } as const;
const COMMAND_HEADER = 2;

const MAC = 6;
/** The header before each frame: without and with the count of merged buffers (section 5.1.6). */
const HEADER = 10;
const MERGEABLE_HEADER = 12;
const NUM_BUFFERS = 10;
/** The longest frame, with room for segments that nobody should send. */
const FRAME_MAX = 0x1_1000;
const CONTROL_QUEUE_SIZE = 64;
const SPEED_UNKNOWN = -1;

const properties = {
  ...virtioProperties,
  csum: prop.bit({ default: true }),
  guest_csum: prop.bit({ default: true }),
  gso: prop.bit({ default: true }),
  guest_tso4: prop.bit({ default: true }),
  guest_tso6: prop.bit({ default: true }),
  guest_ecn: prop.bit({ default: true }),
  guest_ufo: prop.bit({ default: true }),
  guest_announce: prop.bit({ default: true }),
  host_tso4: prop.bit({ default: true }),
  host_tso6: prop.bit({ default: true }),
  host_ecn: prop.bit({ default: true }),
  host_ufo: prop.bit({ default: true }),
  mrg_rxbuf: prop.bit({ default: true }),
  status: prop.bit({ default: true }),
  ctrl_vq: prop.bit({ default: true }),
  ctrl_rx: prop.bit({ default: true }),
  ctrl_vlan: prop.bit({ default: true }),
  ctrl_rx_extra: prop.bit({ default: true }),
  ctrl_mac_addr: prop.bit({ default: true }),
  ctrl_guest_offloads: prop.bit({ default: true }),
  mq: prop.bit({ default: false }),
  rss: prop.bit({ default: false }),
  hash: prop.bit({ default: false }),
  guest_rsc_ext: prop.bit({ default: false }),
  rsc_interval: prop.u32({ default: 300_000 }),
  mac: prop.mac(),
  netdev: prop.backend<NetBackend>('netdev'),
  'x-txtimer': prop.u32({ default: 150_000 }),
  'x-txburst': prop.i32({ default: 256 }),
  tx: prop.string(),
  rx_queue_size: prop.u16({ default: 256 }),
  tx_queue_size: prop.u16({ default: 256 }),
  host_mtu: prop.u16({ default: 0 }),
  'x-mtu-bypass-backend': prop.bool({ default: true }),
  speed: prop.i32({ default: SPEED_UNKNOWN }),
  duplex: prop.string(),
  failover: prop.bool({ default: false }),
  bootindex: prop.bootIndex({ default: -1 }),
} as const;

const state = {
  mac: field.bytes(MAC),
  status: field.u16(LINK_UP),
  flags: field.u8(1),
  table: field.bytes(MAC_TABLE_SIZE * MAC),
  firstMulticast: field.u8(),
  used: field.u8(),
  vlans: field.words(128),
} as const;

/** Network card (virtio 1.2, section 5.1), with one pair of queues. Wires carry plain frames, so nothing is offloaded. */
class VirtioNet extends VirtioDevice<typeof properties> implements CardReceiver {
  readonly #saved = this.state(1, state, { onReset: 'keep' });
  readonly #filter = new ReceiveFilter();
  readonly #mac = new Uint8Array(MAC);
  readonly #frame = new Uint8Array(FRAME_MAX);
  readonly #header = new Uint8Array(MERGEABLE_HEADER);
  readonly #command = new Uint8Array(8 + MAC_TABLE_SIZE * MAC);
  /** The buffers of the frame that is being received, and how many bytes each got. */
  readonly #merged: VirtqueueElement[] = [];
  readonly #lengths: number[] = [];
  #card: NetCard | undefined;
  #standby: StandbyCard | undefined;
  #port: NetClient | undefined;
  #filterWatched = true;
  #receiveQueue: Virtqueue | undefined;
  #transmitQueue: Virtqueue | undefined;
  #linkUp = true;
  #announcing = false;
  #held = false;

  protected override realize(): void {
    const { props } = this;
    for (const name of ['rx_queue_size', 'tx_queue_size'] as const) {
      const size = props[name];
      if (size < 256 || size > QUEUE_SIZE_MAX || (size & (size - 1)) !== 0) {
        throw refused(`Invalid ${name} (= ${size}), must be a power of 2 between 256 and ${QUEUE_SIZE_MAX}.`);
      }
    }
    if (props.duplex !== undefined && props.duplex !== 'half' && props.duplex !== 'full') {
      throw refused("'duplex' must be 'half' or 'full'");
    }
    if (props.speed < SPEED_UNKNOWN) throw refused("'speed' must be between 0 and INT_MAX");
    const owner = this.bus.owner ?? this;
    this.begin({ id: VIRTIO_ID.NET, configSize: this.#configSize });
    this.#receiveQueue = this.addQueue(props.rx_queue_size, () => this.#port?.receiverReady());
    this.#transmitQueue = this.addQueue(props.tx_queue_size, queue => this.#transmit(queue));
    this.addQueue(CONTROL_QUEUE_SIZE, queue => this.#control(queue));
    const card = new NetCard(this, { owner, mac: props.mac, backend: props.netdev });
    this.onUnrealize(card.plug(this.services.netCards));
    this.#card = card;
    this.#port = card.client;
    if (props.failover) this.#standBy(owner.id ?? owner.typeName);
    this.#mac.set(card.mac);
    this.onUnrealize(this.services.system.onRunning(() => this.#resumed()));
  }

  #standBy(id: string): void {
    const { standbys } = this.services.netCards;
    const standby = new StandbyCard(id);
    this.#standby = standby;
    standbys.set(id, standby);
    this.onUnrealize(() => standbys.delete(id));
  }

  get #speedKnown(): boolean {
    return this.props.speed !== SPEED_UNKNOWN || this.props.duplex !== undefined;
  }

  get #configSize(): number {
    const { props } = this;
    if (this.#speedKnown) return 17;
    if (props.host_mtu > 0) return 12;
    if (props.mq) return 10;
    return props.status ? 8 : 6;
  }

  // Features and configuration

  protected override offeredFeatures(common: bigint): bigint {
    const { props } = this;
    const wanted: readonly (readonly [boolean, number])[] = [
      [true, F.MAC],
      [props.mrg_rxbuf, F.MRG_RXBUF],
      [props.status, F.STATUS],
      [props.ctrl_vq, F.CTRL_VQ],
      [props.ctrl_rx, F.CTRL_RX],
      [props.ctrl_vlan, F.CTRL_VLAN],
      [props.ctrl_rx_extra, F.CTRL_RX_EXTRA],
      [props.guest_announce, F.GUEST_ANNOUNCE],
      [props.ctrl_mac_addr, F.CTRL_MAC_ADDR],
      [props.ctrl_guest_offloads, F.CTRL_GUEST_OFFLOADS],
      [props.mq, F.MQ],
      [props.host_mtu > 0, F.MTU],
      [this.#speedKnown, F.SPEED_DUPLEX],
      [props.failover, F.STANDBY],
    ];
    return wanted.reduce((features, [on, feature]) => (on ? features | bit(feature) : features), common);
  }

  protected override featuresAccepted(features: bigint): void {
    this.#filter.passAllVlans(!has(features, F.CTRL_VLAN));
    this.#tellStandby();
  }

  #tellStandby(): void {
    if (this.#standby === undefined || !this.accepted(F.STANDBY)) return;
    this.services.system.emit('FAILOVER_NEGOTIATED', { 'device-id': this.#standby.id });
    this.#standby.negotiated();
  }

  protected override readConfig(config: DataView): void {
    const { props } = this;
    for (let index = 0; index < MAC; index++) config.setUint8(CONFIG.MAC + index, this.#mac[index] ?? 0);
    if (config.byteLength > CONFIG.STATUS) {
      config.setUint16(CONFIG.STATUS, (this.#linkUp ? LINK_UP : 0) | (this.#announcing ? ANNOUNCE : 0), true);
    }
    if (config.byteLength > CONFIG.MAX_PAIRS) config.setUint16(CONFIG.MAX_PAIRS, 1, true);
    if (config.byteLength > CONFIG.MTU) config.setUint16(CONFIG.MTU, props.host_mtu, true);
    if (config.byteLength > CONFIG.SPEED) {
      config.setInt32(CONFIG.SPEED, props.speed, true);
      config.setUint8(CONFIG.DUPLEX, props.duplex === 'full' ? 1 : props.duplex === 'half' ? 0 : 0xff);
    }
  }

  /** Legacy drivers set the address in the configuration space (section 5.1.4.2). */
  protected override configWritten(config: DataView): void {
    if (this.accepted(F.CTRL_MAC_ADDR) || this.accepted(VIRTIO_F.VERSION_1)) return;
    for (let index = 0; index < MAC; index++) this.#mac[index] = config.getUint8(CONFIG.MAC + index);
    this.#card?.showAddress(this.#mac);
  }

  protected override virtioReset(): void {
    this.#filter.reset();
    if (this.#card !== undefined) this.#setMac(this.#card.mac);
    this.#announcing = false;
    this.#held = false;
    this.#port?.purge();
  }

  #setMac(mac: Uint8Array): void {
    this.#mac.set(mac);
    this.#card?.showAddress(this.#mac);
  }

  get #headerLength(): number {
    return this.accepted(VIRTIO_F.VERSION_1) || this.accepted(F.MRG_RXBUF) ? MERGEABLE_HEADER : HEADER;
  }

  /** Asks the driver to tell the network where it is now (section 5.1.6.5.4). */
  announce(): void {
    if (!this.accepted(F.GUEST_ANNOUNCE) || !this.accepted(F.CTRL_VQ)) return;
    this.#announcing = true;
    this.configChanged();
  }

  // From the wire (section 5.1.6.4)

  linkChanged(up: boolean): void {
    this.#linkUp = up;
    this.configChanged();
  }

  canReceive(): boolean {
    return this.running && this.services.system.running && (this.#receiveQueue?.ready ?? false) && !this.disabled;
  }

  receive(frame: Uint8Array, length: number): boolean {
    const queue = this.#receiveQueue;
    if (queue === undefined || !this.canReceive()) return false;
    if (!this.#filter.passes(frame, this.#mac)) return true;
    const mergeable = this.accepted(F.MRG_RXBUF);
    const header = this.#headerLength;
    let done = 0;
    let count = 0;
    while (done < length) {
      const element = count < queue.size && count < QUEUE_SIZE_MAX ? queue.pop() : undefined;
      if (element === undefined) {
        this.#giveBack(queue, count);
        if (this.disabled) return true;
        queue.setNotification(true);
        return false;
      }
      if (element.inCount < 1) {
        this.broken('virtio-net receive queue contains no in buffers');
        queue.detach(element);
        this.#drop(queue, count);
        return true;
      }
      const start = count === 0 ? header : 0;
      const written = element.write(frame, start, done, length - done);
      this.#merged[count] = element;
      this.#lengths[count] = start + written;
      count++;
      done += written;
      if (!mergeable && done < length) {
        // It does not fit, and it would not fit any other time.
        this.#giveBack(queue, count);
        return true;
      }
    }
    this.#writeHeader(header, count);
    for (let index = 0; index < count; index++) {
      const element = this.#merged[index];
      if (element !== undefined) queue.push(element, this.#lengths[index] ?? 0);
    }
    queue.notify();
    return true;
  }

  #writeHeader(length: number, buffers: number): void {
    this.#header.fill(0);
    this.#header[NUM_BUFFERS] = buffers;
    this.#header[NUM_BUFFERS + 1] = buffers >>> 8;
    this.#merged[0]?.write(this.#header, 0, 0, length);
  }

  #giveBack(queue: Virtqueue, count: number): void {
    for (let index = count - 1; index >= 0; index--) {
      const element = this.#merged[index];
      if (element !== undefined) queue.unpop(element);
    }
  }

  #drop(queue: Virtqueue, count: number): void {
    for (let index = 0; index < count; index++) {
      const element = this.#merged[index];
      if (element !== undefined) queue.detach(element);
    }
  }

  // To the wire (section 5.1.6.2)

  #resumed(): void {
    if (this.#transmitQueue?.ready) this.#transmit(this.#transmitQueue);
    this.#port?.receiverReady();
  }

  #transmit(queue: Virtqueue): void {
    if (!this.running || this.#held || !this.services.system.running) return;
    let sent = false;
    do {
      queue.setNotification(false);
      for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
        if (!this.#send(queue, element)) return;
        sent = true;
        if (this.#held) break;
      }
      if (!this.#held) queue.setNotification(true);
    } while (!this.#held && !queue.empty);
    if (sent) queue.notify();
  }

  #send(queue: Virtqueue, element: VirtqueueElement): boolean {
    if (element.outCount < 1) {
      this.broken('virtio-net header not in first element');
      queue.detach(element);
      return false;
    }
    const length = element.read(this.#frame, this.#headerLength);
    const port = this.#port;
    if (port !== undefined && length > 0 && !port.send(this.#frame, length)) {
      this.#held = true;
      port.onDrained(() => this.#release());
    }
    queue.push(element, 0);
    return true;
  }

  #release(): void {
    if (!this.#held) return;
    this.#held = false;
    if (this.#transmitQueue?.ready) this.#transmit(this.#transmitQueue);
  }

  // The control queue (section 5.1.6.5)

  #control(queue: Virtqueue): void {
    let done = false;
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      if (element.in.length < 1 || element.out.length < COMMAND_HEADER) {
        this.broken('virtio-net ctrl missing headers');
        queue.detach(element);
        return;
      }
      const length = element.read(this.#command, 0, COMMAND_HEADER);
      const ok = length === COMMAND_HEADER && this.#execute(this.#command[0] ?? 0, this.#command[1] ?? 0, element);
      this.#header[0] = ok ? ACK.OK : ACK.ERR;
      element.write(this.#header, 0, 0, 1);
      queue.push(element, 1);
      done = true;
    }
    if (done) queue.notify();
  }

  #execute(kind: number, command: number, element: VirtqueueElement): boolean {
    switch (kind) {
      case CLASS.RX:
        return this.#filterChanged(this.#setMode(command, element));
      case CLASS.MAC:
        return this.#filterChanged(this.#setAddresses(command, element));
      case CLASS.VLAN:
        return this.#filterChanged(this.#setVlan(command, element));
      case CLASS.ANNOUNCE:
        if (command !== 0 || !this.#announcing) return false;
        this.#announcing = false;
        return true;
      case CLASS.MQ:
        // One pair is all there is.
        return command === 0 && this.accepted(F.MQ) && this.#argument(element, 2) === 2 && this.#word(0, 2) === 1;
      case CLASS.GUEST_OFFLOADS:
        // The empty set is all that can be chosen.
        return (
          command === 0 &&
          this.accepted(F.CTRL_GUEST_OFFLOADS) &&
          this.#argument(element, 8) === 8 &&
          this.#word(0, 4) === 0 &&
          this.#word(4, 4) === 0
        );
      default:
        return false;
    }
  }

  /** Tells management of the first change since it last asked. */
  #filterChanged(done: boolean): boolean {
    if (!done || !this.#filterWatched) return done;
    this.#filterWatched = false;
    const name = this.bus.owner?.id;
    this.services.system.emit('NIC_RX_FILTER_CHANGED', { ...(name !== undefined && { name }), path: this.path });
    return done;
  }

  /** What QMP `query-rx-filter` shows. */
  receiveFilter(): ReceiveFilterInfo {
    this.#filterWatched = true;
    const filter = this.#filter;
    const { allMulticast, noMulticast, allUnicast, noUnicast } = filter;
    const vlanTable = filter.passedVlans();
    const filtersVlans = this.accepted(F.CTRL_VLAN);
    return {
      promiscuous: filter.promiscuous,
      multicast: noMulticast ? 'none' : allMulticast ? 'all' : 'normal',
      unicast: noUnicast ? 'none' : allUnicast ? 'all' : 'normal',
      vlan: !filtersVlans ? 'all' : vlanTable.length === 0 ? 'none' : 'normal',
      broadcastAllowed: !filter.noBroadcast,
      multicastOverflow: filter.multicastOverflow,
      unicastOverflow: filter.unicastOverflow,
      mainMac: this.#mac,
      vlanTable,
      unicastTable: filter.addresses(0, filter.firstMulticast),
      multicastTable: filter.addresses(filter.firstMulticast, filter.used),
    };
  }

  /** Copies up to `length` bytes of a command's argument, from its byte `from`. */
  #argument(element: VirtqueueElement, length: number, from = 0): number {
    return element.read(this.#command, COMMAND_HEADER + from, length);
  }

  #word(at: number, size: number): number {
    let value = 0;
    for (let index = 0; index < size; index++) value |= (this.#command[at + index] ?? 0) << (8 * index);
    return value >>> 0;
  }

  #setMode(command: number, element: VirtqueueElement): boolean {
    if (this.#argument(element, 1) !== 1) return false;
    const on = this.#command[0] !== 0;
    const filter = this.#filter;
    switch (command) {
      case RX.PROMISC:
        filter.promiscuous = on;
        return true;
      case RX.ALLMULTI:
        filter.allMulticast = on;
        return true;
      case RX.ALLUNI:
        filter.allUnicast = on;
        return true;
      case RX.NOMULTI:
        filter.noMulticast = on;
        return true;
      case RX.NOUNI:
        filter.noUnicast = on;
        return true;
      case RX.NOBCAST:
        filter.noBroadcast = on;
        return true;
      default:
        return false;
    }
  }

  #setAddresses(command: number, element: VirtqueueElement): boolean {
    const length = element.out.length - COMMAND_HEADER;
    if (command === MAC_COMMAND.ADDR_SET) {
      if (length !== MAC) return false;
      element.out.gather(COMMAND_HEADER, this.#mac, 0, MAC);
      this.#card?.showAddress(this.#mac);
      return true;
    }
    return command === MAC_COMMAND.TABLE_SET && this.#setTable(element, length);
  }

  /** Two lists, each with its count: unicast, then multicast (section 5.1.6.5.2). */
  #setTable(element: VirtqueueElement, length: number): boolean {
    if (this.#argument(element, 4) !== 4) return false;
    const unicast = this.#word(0, 4);
    const second = 4 + unicast * MAC;
    if (second > length || this.#argument(element, 4, second) !== 4) return false;
    const multicast = this.#word(0, 4);
    if (second + 4 + multicast * MAC !== length) return false;
    const filter = this.#filter;
    filter.unicastOverflow = unicast > MAC_TABLE_SIZE;
    const kept = filter.unicastOverflow ? 0 : unicast;
    filter.multicastOverflow = multicast > MAC_TABLE_SIZE - kept;
    const added = filter.multicastOverflow ? 0 : multicast;
    filter.table.fill(0);
    element.read(filter.table, COMMAND_HEADER + 4, kept * MAC);
    element.out.gather(COMMAND_HEADER + second + 4, filter.table, kept * MAC, added * MAC);
    filter.firstMulticast = kept;
    filter.used = kept + added;
    return true;
  }

  #setVlan(command: number, element: VirtqueueElement): boolean {
    if (this.#argument(element, 2) !== 2 || (command !== VLAN.ADD && command !== VLAN.DEL)) return false;
    const vlan = this.#word(0, 2);
    if (vlan >= 4096) return false;
    this.#filter.setVlan(vlan, command === VLAN.ADD);
    return true;
  }

  // State

  override save(): ReturnType<VirtioDevice['save']> {
    const filter = this.#filter;
    Object.assign(this.#saved, {
      mac: this.#mac.slice(),
      status: (this.#linkUp ? LINK_UP : 0) | (this.#announcing ? ANNOUNCE : 0),
      flags: FLAGS.reduce((flags, name, index) => flags | (filter[name] ? 1 << index : 0), 0),
      table: filter.table.slice(),
      firstMulticast: filter.firstMulticast,
      used: filter.used,
      vlans: filter.vlans.slice(),
    });
    return super.save();
  }

  protected override restored(): void {
    const { mac, status, flags, table, firstMulticast, used, vlans } = this.#saved;
    const filter = this.#filter;
    this.#setMac(mac);
    this.#linkUp = (status & LINK_UP) !== 0;
    this.#announcing = (status & ANNOUNCE) !== 0;
    for (const [index, name] of FLAGS.entries()) filter[name] = (flags & (1 << index)) !== 0;
    filter.table.set(table);
    filter.used = Math.min(used, MAC_TABLE_SIZE);
    filter.firstMulticast = Math.min(firstMulticast, filter.used);
    filter.vlans.set(vlans);
    this.#tellStandby();
  }
}

const FLAGS = [
  'promiscuous',
  'allMulticast',
  'allUnicast',
  'noMulticast',
  'noUnicast',
  'noBroadcast',
  'unicastOverflow',
  'multicastOverflow',
] as const;

function refused(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_PROPERTY_VALUE', message);
}

export const virtioNetDevice = deviceType({
  type: 'virtio-net-device',
  summary: 'Network card (virtio)',
  bus: 'virtio-bus',
  category: 'network',
  parents: ['virtio-device', 'device'],
  properties,
  create: VirtioNet,
});

export const [virtioNetPci, virtioNetPciTransitional, virtioNetPciNonTransitional] = virtioPciTypes({
  name: 'virtio-net',
  aliases: ['virtio-net'],
  summary: 'Network card (virtio, PCI)',
  category: 'network',
  backend: virtioNetDevice,
  virtioId: VIRTIO_ID.NET,
  legacyId: 0x1000,
  class: 0x02_0000,
  rom: 'efi-virtio.rom',
  vectors: () => 4,
});
