import type { Timer } from '../../core/clock/timer-queue.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { StandbyCard } from '../../core/net/failover.ts';
import { type CardReceiver, NetCard, type ReceiveFilterInfo } from '../../core/net/net-cards.ts';
import type { NetBackend } from '../../core/net/net-client.ts';
import type { VhostBackend } from '../../core/net/vhost.ts';
import { field } from '../../core/state/fields.ts';
import {
  bit,
  has,
  QUEUE_SIZE_MAX,
  QUEUES_MAX,
  VIRTIO_F,
  VIRTIO_ID,
  STATUS as VIRTIO_STATUS,
} from '../../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../../core/virtio/virtio-device.ts';
import { virtioPciTypes } from '../../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';
import { type Controlled, ControlQueue } from './control-queue.ts';
import { CONFIG, DUPLEX, F, HEADER, MAC, RSS_CONFIG, STATUS } from './protocol.ts';
import { type PairOwner, QueuePair } from './queue-pair.ts';
import { MAC_TABLE_SIZE, ReceiveFilter } from './receive-filter.ts';
import { HASH_TYPES, Steering, steeringFields } from './steering.ts';
import { type VhostOwner, VhostRings } from './vhost-rings.ts';

const CONTROL_QUEUE_SIZE = 64;
/** A transmit queue of its own size only goes with a backend that serves it itself. */
const TX_QUEUE_SIZE = 256;
const SPEED_UNKNOWN = -1;
const { DRIVER_OK } = VIRTIO_STATUS;

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

/** Features whose bit is a property's. */
const SWITCHED = [
  ['csum', F.CSUM],
  ['guest_csum', F.GUEST_CSUM],
  ['gso', F.GSO],
  ['guest_tso4', F.GUEST_TSO4],
  ['guest_tso6', F.GUEST_TSO6],
  ['guest_ecn', F.GUEST_ECN],
  ['guest_ufo', F.GUEST_UFO],
  ['guest_announce', F.GUEST_ANNOUNCE],
  ['host_tso4', F.HOST_TSO4],
  ['host_tso6', F.HOST_TSO6],
  ['host_ecn', F.HOST_ECN],
  ['host_ufo', F.HOST_UFO],
  ['mrg_rxbuf', F.MRG_RXBUF],
  ['status', F.STATUS],
  ['ctrl_vq', F.CTRL_VQ],
  ['ctrl_rx', F.CTRL_RX],
  ['ctrl_vlan', F.CTRL_VLAN],
  ['ctrl_rx_extra', F.CTRL_RX_EXTRA],
  ['ctrl_mac_addr', F.CTRL_MAC_ADDR],
  ['ctrl_guest_offloads', F.CTRL_GUEST_OFFLOADS],
  ['mq', F.MQ],
  ['rss', F.RSS],
  ['hash', F.HASH_REPORT],
  ['guest_rsc_ext', F.RSC_EXT],
  ['failover', F.STANDBY],
] as const satisfies readonly (readonly [keyof typeof properties, number])[];

const maskOf = (features: readonly number[]): bigint => features.reduce((mask, feature) => mask | bit(feature), 0n);

/** Work that the driver takes from its card, which needs a backend whose frames say so. */
const GUEST_WORK = [F.GUEST_CSUM, F.GUEST_TSO4, F.GUEST_TSO6, F.GUEST_ECN, F.GUEST_UFO] as const;
const NEEDS_HEADERS = maskOf([...GUEST_WORK, F.CSUM, F.HOST_TSO4, F.HOST_TSO6, F.HOST_ECN, F.HOST_UFO, F.HASH_REPORT]);
const NEEDS_UFO = maskOf([F.GUEST_UFO, F.HOST_UFO]);
const GUEST_WORK_MASK = Number(maskOf(GUEST_WORK));
/** RSC_EXT's bit in the high word of the offloads: whether segments are put together again, which a card need not do. */
const RSC_EXT_HIGH = 1 << (F.RSC_EXT - 32);

const state = {
  mac: field.bytes(MAC.BYTES),
  status: field.u16(STATUS.LINK_UP),
  flags: field.u8(1),
  table: field.bytes(MAC_TABLE_SIZE * MAC.BYTES),
  firstMulticast: field.u8(),
  used: field.u8(),
  vlans: field.words(128),
  pairs: field.u16(1),
  offloads: field.u32(),
  steering: field.record(steeringFields),
  /** What the backend could do that the driver may have been promised. */
  vnetHeaders: field.bool(),
  ufo: field.bool(),
} as const;

/** Network card (virtio 1.2, section 5.1). What a backend can leave unfinished, and take so, is offered to the driver. */
class VirtioNet extends VirtioDevice<typeof properties> implements CardReceiver, PairOwner, Controlled, VhostOwner {
  readonly filter = new ReceiveFilter();
  readonly steering = new Steering();
  readonly mac = new Uint8Array(MAC.BYTES);
  readonly #saved = this.state(2, state, { onReset: 'keep' });
  readonly #pairs: QueuePair[] = [];
  readonly #control = new ControlQueue(this);
  #vhost: VhostRings | undefined;
  #card: NetCard | undefined;
  #standby: StandbyCard | undefined;
  #filterWatched = true;
  #linkUp = true;
  #announcing = false;
  /** Pairs of queues that the driver uses. */
  #used = 1;
  /** Bits of GUEST_WORK that the driver has left switched on. */
  #offloads = 0;
  headerLength: number = HEADER.SHORT;
  mergeable = false;

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
    const pairs = pairsOf(props.netdev);
    if (2 * pairs + 1 > QUEUES_MAX) {
      throw refused(
        `Invalid number of queue pairs (= ${pairs}), must be a positive integer less than ${(QUEUES_MAX - 1) >> 1}.`,
      );
    }
    const owner = this.bus.owner ?? this;
    this.begin({ id: VIRTIO_ID.NET, configSize: this.#configSize, legacyFeatures: bit(F.GSO) });
    for (let index = 0; index < pairs; index++) this.#pairs.push(new QueuePair(this, index, this.#delay(index)));
    this.#makeQueues(1);
    const card = new NetCard(this, {
      owner,
      mac: props.mac,
      backend: props.netdev,
      vhost: true,
      queue: index => this.#pairs[index] ?? this,
    });
    this.onUnrealize(card.plug(this.services.netCards));
    this.#card = card;
    for (const [index, pair] of this.#pairs.entries()) pair.port = card.queues[index];
    if (props.failover) this.#standBy(owner.id ?? owner.typeName);
    this.mac.set(card.mac);
    const vhost = props.netdev?.vhost;
    if (vhost !== undefined) this.#vhost = new VhostRings(this, vhost);
    this.onUnrealize(() => this.#vhost?.serve([], 0));
    this.onUnrealize(this.services.system.onRunning(() => this.#resumed()));
    this.onUnrealize(this.services.system.onStopped(() => this.#vhost?.serve([], 0)));
  }

  /** `tx=timer` waits for more frames after the first; anything else sends at once. */
  #delay(index: number): { readonly timer: Timer; readonly ns: number } | undefined {
    if (this.props.tx !== 'timer') return undefined;
    const timer = this.clock.timer(`tx${index}`, () => {
      const pair = this.#pairs[index];
      if (pair?.transmitQueue?.ready) pair.transmit(pair.transmitQueue);
    });
    return { timer, ns: this.props['x-txtimer'] };
  }

  #standBy(id: string): void {
    const { standbys } = this.services.netCards;
    const standby = new StandbyCard(id);
    this.#standby = standby;
    standbys.set(id, standby);
    this.onUnrealize(() => standbys.delete(id));
  }

  get pairs(): number {
    return this.#pairs.length;
  }

  pair(index: number): QueuePair | undefined {
    return index < this.#used ? this.#pairs[index] : undefined;
  }

  get live(): boolean {
    return this.running && this.services.system.running;
  }

  get #transmitQueueSize(): number {
    const { tx_queue_size: size, netdev } = this.props;
    return netdev?.vhost === undefined ? Math.min(size, TX_QUEUE_SIZE) : size;
  }

  /** Two queues for each of `pairs` pairs, then the control queue: where the control queue is depends on MQ (section 5.1.2). */
  #makeQueues(pairs: number): void {
    const { props, queues } = this;
    if (queues.length === 2 * pairs + 1) return;
    const kept = Math.min(pairs, queues.length >> 1);
    for (const queue of queues.splice(2 * kept)) queue.reset();
    for (const [index, pair] of this.#pairs.entries()) {
      if (index >= pairs) {
        pair.receiveQueue = undefined;
        pair.transmitQueue = undefined;
      } else if (index >= kept) {
        pair.receiveQueue = this.addQueue(props.rx_queue_size, queue => {
          if (!this.#vhost?.kick(queue)) this.#receiveAgain();
        });
        pair.transmitQueue = this.addQueue(
          this.#transmitQueueSize,
          queue => this.#vhost?.kick(queue) || pair.transmitSoon(queue),
        );
      }
    }
    this.addQueue(CONTROL_QUEUE_SIZE, queue => this.#control.serve(queue));
  }

  /** A frame that waits at one port may be for any pair: the hash decides. */
  #receiveAgain(): void {
    for (const { port } of this.#pairs) port?.receiverReady();
  }

  #resumed(): void {
    this.#handOver(this.status);
    if (this.#vhost?.serves !== true) for (const pair of this.#pairs) pair.resumed();
  }

  // Queues that the backend serves itself

  protected override statusChanging(status: number): void {
    this.#handOver(status);
  }

  /** The backend has the queues while there is a driver with the device status `status`, the machine runs and the link is up. */
  #handOver(status: number): void {
    const vhost = this.#vhost;
    if (vhost === undefined) return;
    const wanted = (status & DRIVER_OK) !== 0 && this.services.system.running && this.#linkUp;
    vhost.serve(wanted ? this.queues.slice(0, -1) : [], this.#used);
  }

  notServed(): void {
    this.log.guestError('virtio-net: the backend does not serve the queues as they are set up');
  }

  get mtu(): number {
    return this.accepted(F.MTU) ? this.props.host_mtu : 0;
  }

  get #speedKnown(): boolean {
    return this.props.speed !== SPEED_UNKNOWN || this.props.duplex !== undefined;
  }

  /** As much of the structure as the features of the card need. */
  get #configSize(): number {
    const { props } = this;
    if (props.rss || props.hash) return CONFIG.BYTES;
    if (this.#speedKnown) return CONFIG.RSS_MAX_KEY_SIZE;
    if (props.host_mtu > 0) return CONFIG.SPEED;
    if (props.mq) return CONFIG.MTU;
    return props.status ? CONFIG.MAX_PAIRS : CONFIG.STATUS;
  }

  // Features and configuration

  protected override offeredFeatures(common: bigint): bigint {
    const { props } = this;
    let features = common | bit(F.MAC);
    for (const [name, feature] of SWITCHED) if (props[name]) features |= bit(feature);
    if (props.host_mtu > 0) features |= bit(F.MTU);
    if (this.#speedKnown) features |= bit(F.SPEED_DUPLEX);
    const headers = props.netdev?.client.vnetHeaders;
    if (headers === undefined) features &= ~NEEDS_HEADERS;
    else if (!headers.ufo) features &= ~NEEDS_UFO;
    const vhost = props.netdev?.vhost;
    return vhost === undefined ? features : this.#serveable(features, vhost);
  }

  /** Neither hashes that steer nor the reset of one queue are part of what a backend is told; the MTU is the user's to say. */
  #serveable(features: bigint, vhost: VhostBackend): bigint {
    const served = features & (vhost.features | ~vhost.governed) & ~(bit(F.RSS) | bit(VIRTIO_F.RING_RESET));
    return this.props.host_mtu > 0 && this.props['x-mtu-bypass-backend'] ? served | bit(F.MTU) : served;
  }

  protected override shapeQueues(count: number): void {
    this.#makeQueues(count === 3 ? 1 : this.#pairs.length);
  }

  protected override featuresAccepted(features: bigint): void {
    this.#begin(features);
    this.filter.passAllVlans(!has(features, F.CTRL_VLAN));
    this.#tellStandby();
  }

  /** What goes by the features: queues, the look of frames, what the driver takes unfinished. */
  #begin(features: bigint): void {
    this.#makeQueues(has(features, F.MQ) || has(features, F.RSS) ? this.#pairs.length : 1);
    this.#used = 1;
    this.#attachUsed();
    this.#takeLayout(features);
    this.#offloads = Number(features & 0xffff_ffffn) & GUEST_WORK_MASK;
    this.#applyOffloads();
  }

  /** What the driver's buffers look like, and with them the frames of a backend that can (section 5.1.6). */
  #takeLayout(features: bigint): void {
    this.mergeable = has(features, F.MRG_RXBUF);
    const modern = has(features, VIRTIO_F.VERSION_1);
    const hashed = modern && has(features, F.HASH_REPORT);
    this.headerLength = hashed ? HEADER.HASHED : modern || this.mergeable ? HEADER.USUAL : HEADER.SHORT;
    this.steering.redirects = has(features, F.RSS);
    for (const { port } of this.#pairs) port?.useHeaders(this.headerLength);
  }

  #applyOffloads(): void {
    const on = (feature: number): boolean => (this.#offloads & (1 << feature)) !== 0;
    this.#card?.client.peer?.vnetHeaders?.offload({
      csum: on(F.GUEST_CSUM),
      tso4: on(F.GUEST_TSO4),
      tso6: on(F.GUEST_TSO6),
      ecn: on(F.GUEST_ECN),
      ufo: on(F.GUEST_UFO),
    });
  }

  #attachUsed(): void {
    for (const [index, { port }] of this.#pairs.entries()) port?.peer?.attachQueue?.(index < this.#used);
  }

  #tellStandby(): void {
    if (this.#standby === undefined || !this.accepted(F.STANDBY)) return;
    this.services.system.emit('FAILOVER_NEGOTIATED', { 'device-id': this.#standby.id });
    this.#standby.negotiated();
  }

  #status(): number {
    return (this.#linkUp ? STATUS.LINK_UP : 0) | (this.#announcing ? STATUS.ANNOUNCE : 0);
  }

  protected override readConfig(config: DataView): void {
    const { props } = this;
    for (let index = 0; index < MAC.BYTES; index++) config.setUint8(CONFIG.MAC + index, this.mac[index] ?? 0);
    if (config.byteLength > CONFIG.STATUS) config.setUint16(CONFIG.STATUS, this.#status(), true);
    if (config.byteLength > CONFIG.MAX_PAIRS) config.setUint16(CONFIG.MAX_PAIRS, this.#pairs.length, true);
    if (config.byteLength > CONFIG.MTU) config.setUint16(CONFIG.MTU, props.host_mtu, true);
    if (config.byteLength > CONFIG.SPEED) {
      config.setInt32(CONFIG.SPEED, props.speed, true);
      config.setUint8(
        CONFIG.DUPLEX,
        DUPLEX[props.duplex === 'full' || props.duplex === 'half' ? props.duplex : 'unknown'],
      );
    }
    if (config.byteLength > CONFIG.RSS_MAX_KEY_SIZE) {
      config.setUint8(CONFIG.RSS_MAX_KEY_SIZE, RSS_CONFIG.MAX_KEY);
      config.setUint16(CONFIG.RSS_MAX_TABLE_LENGTH, props.rss ? RSS_CONFIG.MAX_TABLE : 1, true);
      config.setUint32(CONFIG.HASH_TYPES, HASH_TYPES, true);
    }
  }

  /** Legacy drivers set the address in the configuration space (section 5.1.4.2). */
  protected override configWritten(config: DataView): void {
    if (this.accepted(F.CTRL_MAC_ADDR) || this.accepted(VIRTIO_F.VERSION_1)) return;
    for (let index = 0; index < MAC.BYTES; index++) this.mac[index] = config.getUint8(CONFIG.MAC + index);
    this.addressChanged();
  }

  protected override virtioReset(): void {
    this.filter.reset();
    this.steering.disable();
    this.#announcing = false;
    if (this.#card !== undefined) this.#setMac(this.#card.mac);
    for (const pair of this.#pairs) pair.reset();
    // A legacy driver need not accept anything.
    this.#begin(0n);
  }

  protected override queueReset(queue: Virtqueue): void {
    this.#pairs[queue.index >> 1]?.reset();
  }

  #setMac(mac: Uint8Array): void {
    this.mac.set(mac);
    this.addressChanged();
  }

  // From the wire

  takes(frame: Uint8Array, at: number): boolean {
    return this.filter.passes(frame, at, this.mac);
  }

  canReceive(): boolean {
    return this.#pairs[0]?.canReceive() ?? false;
  }

  receive(frame: Uint8Array, length: number): boolean {
    return this.#pairs[0]?.receive(frame, length) ?? false;
  }

  linkChanged(up: boolean): void {
    this.#linkUp = up;
    this.#handOver(this.status);
    this.configChanged();
  }

  /** Asks the driver to tell the network where it is now (section 5.1.6.5.4). */
  announce(): void {
    if (!this.accepted(F.GUEST_ANNOUNCE) || !this.accepted(F.CTRL_VQ)) return;
    this.#announcing = true;
    this.configChanged();
  }

  // What the control queue's commands do

  addressChanged(): void {
    this.#card?.showAddress(this.mac);
  }

  announced(): boolean {
    const asked = this.#announcing;
    this.#announcing = false;
    return asked;
  }

  usePairs(pairs: number): boolean {
    const multiqueue = this.accepted(F.MQ) || this.accepted(F.RSS);
    if (!multiqueue || pairs < 1 || pairs > this.#pairs.length) return false;
    this.#used = pairs;
    this.#attachUsed();
    this.#vhost?.usePairs(pairs);
    return true;
  }

  setOffloads(low: number, high: number): boolean {
    if (this.#card?.client.peer?.vnetHeaders === undefined) return false;
    const allowed = Number(this.guestFeatures & 0xffff_ffffn) & GUEST_WORK_MASK;
    if ((low & ~allowed) !== 0 || (high & ~RSC_EXT_HIGH) !== 0) return false;
    this.#offloads = low;
    this.#applyOffloads();
    return true;
  }

  /** Tells management of the first change since it last asked. */
  filterChanged(): void {
    if (!this.#filterWatched) return;
    this.#filterWatched = false;
    const name = this.bus.owner?.id;
    this.services.system.emit('NIC_RX_FILTER_CHANGED', { ...(name !== undefined && { name }), path: this.path });
  }

  /** What QMP `query-rx-filter` shows. */
  receiveFilter(): ReceiveFilterInfo {
    this.#filterWatched = true;
    const { filter } = this;
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
      mainMac: this.mac,
      vlanTable,
      unicastTable: filter.addresses(0, filter.firstMulticast),
      multicastTable: filter.addresses(filter.firstMulticast, filter.used),
    };
  }

  // State

  override save(): ReturnType<VirtioDevice['save']> {
    const { filter } = this;
    const headers = this.#card?.client.peer?.vnetHeaders;
    Object.assign(this.#saved, {
      mac: this.mac.slice(),
      status: this.#status(),
      flags: filter.flags,
      table: filter.table.slice(),
      firstMulticast: filter.firstMulticast,
      used: filter.used,
      vlans: filter.vlans.slice(),
      pairs: this.#used,
      offloads: this.#offloads,
      steering: this.steering.save(),
      vnetHeaders: headers !== undefined,
      ufo: headers?.ufo ?? false,
    });
    return super.save();
  }

  protected override restored(): void {
    const { mac, status, flags, table, firstMulticast, used, vlans, pairs, offloads, steering } = this.#saved;
    const headers = this.#card?.client.peer?.vnetHeaders;
    if (this.#saved.vnetHeaders && headers === undefined) throw unfit('saved image requires vnet_hdr=on');
    if (this.#saved.ufo && headers?.ufo !== true) throw unfit('saved image requires TUN_F_UFO support');
    const { filter } = this;
    this.#setMac(mac);
    this.#linkUp = (status & STATUS.LINK_UP) !== 0;
    this.#announcing = (status & STATUS.ANNOUNCE) !== 0;
    filter.flags = flags;
    filter.table.set(table);
    filter.used = Math.min(used, MAC_TABLE_SIZE);
    filter.firstMulticast = Math.min(firstMulticast, filter.used);
    filter.vlans.set(vlans);
    this.#used = Math.max(1, Math.min(pairs, this.queues.length >> 1));
    this.#takeLayout(this.guestFeatures);
    this.#attachUsed();
    this.#offloads = offloads & Number(this.guestFeatures & 0xffff_ffffn) & GUEST_WORK_MASK;
    this.#applyOffloads();
    this.steering.restore(steering);
    this.#tellStandby();
  }
}

/** Pairs of queues that a backend has. */
const pairsOf = (netdev: NetBackend | undefined): number => netdev?.queues?.length ?? 1;

const isBackend = (value: unknown): value is NetBackend =>
  typeof value === 'object' && value !== null && 'client' in value;

function refused(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_PROPERTY_VALUE', message);
}

function unfit(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_STATE_VALUE', `virtio-net: ${message}`);
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
  // A configuration change, the control queue, and two for each pair of queues.
  vectors: ({ netdev }) => 2 * (isBackend(netdev) ? pairsOf(netdev) : 1) + 2,
});
