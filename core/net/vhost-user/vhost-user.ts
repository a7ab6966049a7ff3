import { closeSync } from 'node:fs';
import type { Chardev, CharEvent } from '../../char/chardev.ts';
import { SouthbridgeError } from '../../errors.ts';
import { EventFd } from '../../host/event-fd.ts';
import { createMemfd } from '../../host/files.ts';
import { isSystemError } from '../../host/native.ts';
import type { SharedMemory, SharedRange } from '../../memory/shared-memory.ts';
import { bit, VIRTIO_F } from '../../virtio/features.ts';
import { type NetBackend, NetClient, type NetReceiver } from '../net-client.ts';
import type { VhostBackend, VhostRing } from '../vhost.ts';
import { F_LOG_ALL, F_PROTOCOL_FEATURES, PROTOCOL_F, REGIONS_MAX, REQUEST, VhostUserMessages } from './messages.ts';

const QUEUES_MAX = 1024;
const OUR_PROTOCOL_FEATURES = PROTOCOL_F.MQ | PROTOCOL_F.LOG_SHMFD | PROTOCOL_F.RARP | PROTOCOL_F.NET_MTU;
/** Pages of 4 KiB that a byte of the log stands for; back ends write it in words of 64 bits. */
const LOGGED_BY_BYTE = 8 * 4096;
const LOG_WORD = 8;

/** Features that are the back end's: those of rings, and of virtio-net (virtio 1.2, section 5.1.3) what is done to packets. */
const GOVERNED = [
  ...[VIRTIO_F.NOTIFY_ON_EMPTY, VIRTIO_F.ANY_LAYOUT, VIRTIO_F.INDIRECT_DESC, VIRTIO_F.EVENT_IDX],
  ...[VIRTIO_F.VERSION_1, VIRTIO_F.IOMMU_PLATFORM, VIRTIO_F.RING_PACKED, VIRTIO_F.RING_RESET],
  // CSUM, GUEST_CSUM, MTU, GSO and what follows it up to MRG_RXBUF, GUEST_ANNOUNCE, MQ, HASH_REPORT, RSS
  ...[0, 1, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 21, 22, 57, 60],
].reduce((mask, feature) => mask | bit(feature), 0n);

/** A reverse ARP request as the announcer sends it: where the card's address is. */
const RARP_LENGTH = 60;
const SENDER = 6;
const MAC = 6;

/** A ring that is being served: how either side tells the other of it. */
interface ServedRing {
  readonly ring: VhostRing;
  readonly kick: EventFd;
  readonly call: EventFd;
}

/** What the backend needs of the program. */
export interface VhostUserHost {
  readonly memory: () => SharedMemory;
  /** Tells the user what keeps the card from working. */
  warn(message: string): void;
}

/**
 * `-netdev vhost-user`: a switch in another process (DPDK, VPP, passt) serves the card's queues. It gets the guest's memory as
 * descriptors over a unix socket, and two eventfds a queue; frames never come by here. While nobody is connected, the link is down.
 */
export class VhostUserNet implements NetBackend, NetReceiver, VhostBackend {
  readonly id: string;
  readonly client: NetClient;
  readonly queues: readonly NetClient[];
  readonly governed = GOVERNED;
  readonly #chardev: Chardev;
  readonly #host: VhostUserHost;
  #messages: VhostUserMessages | undefined;
  #features = 0n;
  #protocol = 0n;
  /** What the driver has accepted: another back end must have it too. */
  #accepted = 0n;
  #rings: (ServedRing | undefined)[] = [];
  #pairs = 1;
  #warned = false;
  #ranges: readonly SharedRange[] = [];
  #unwatchMemory: (() => void) | undefined;
  #unwatchLog: (() => void) | undefined;
  #connected: (() => void) | undefined;
  #lost: ((error: Error) => void) | undefined;

  get vhost(): VhostBackend {
    return this;
  }

  private constructor(id: string, chardev: Chardev, queues: number, host: VhostUserHost) {
    this.id = id;
    this.#chardev = chardev;
    this.#host = host;
    this.queues = Array.from({ length: queues }, (_, index) => {
      const client = new NetClient(id, 'vhost-user', this);
      client.description = `vhost-user${index} to ${chardev.label}`;
      client.vnetHeaders = { ufo: true, use: () => {}, offload: () => {} };
      return client;
    });
    const [first] = this.queues;
    if (first === undefined) throw new SouthbridgeError('ERR_NETDEV', 'a card has a queue');
    this.client = first;
  }

  /**
   * Waits until a back end has connected and said what it can.
   * @throws SouthbridgeError ERR_NETDEV with QEMU's text
   */
  static async open(id: string, chardev: Chardev, queues: number, host: VhostUserHost): Promise<VhostUserNet> {
    if (queues < 1 || queues > QUEUES_MAX) {
      throw new SouthbridgeError('ERR_NETDEV', `vhost-user number of queues must be in range [1, ${QUEUES_MAX}]`);
    }
    const net = new VhostUserNet(id, chardev, queues, host);
    const connected = new Promise<void>((resolve, reject) => {
      net.#connected = resolve;
      net.#lost = reject;
      chardev.attach({ canReceive: () => 1024, receive: () => {}, event: event => net.#event(event) });
      if (!chardev.isOpen && !chardev.reconnects) net.#fail(`chardev "${chardev.label}" is not reconnectable`);
    });
    try {
      await connected;
    } catch (error) {
      net.dispose();
      throw error;
    }
    return net;
  }

  get features(): bigint {
    return this.#features;
  }

  dispose(): void {
    this.stop();
    for (const client of this.queues) client.disconnect();
    this.#chardev.detach();
    this.#chardev.hangUp();
  }

  // Frames: only those that this process makes itself

  canReceive(): boolean {
    return true;
  }

  /** A driver that cannot announce the card has the back end do it. */
  receive(frame: Uint8Array, length: number): boolean {
    const start = this.client.headerLength;
    const isAnnouncement = length - start === RARP_LENGTH && (this.#accepted & bit(21)) === 0n;
    if (isAnnouncement && (this.#protocol & PROTOCOL_F.RARP) !== 0n) {
      let mac = 0n;
      for (let at = MAC - 1; at >= 0; at--) mac = (mac << 8n) | BigInt(frame[start + SENDER + at] ?? 0);
      this.#messages?.setNumber(REQUEST.SEND_RARP, mac);
    }
    return true;
  }

  // The connection

  #event(event: CharEvent): void {
    if (event === 'opened') this.#opened();
    else if (event === 'closed') this.#closed();
  }

  #opened(): void {
    const { exchange } = this.#chardev;
    if (exchange === undefined) {
      this.#fail(`chardev "${this.#chardev.label}" does not support FD passing`);
      return;
    }
    const messages = new VhostUserMessages(exchange);
    if (!this.#greet(messages)) {
      this.#chardev.hangUp();
      if (!this.#chardev.reconnects) this.#fail();
      return;
    }
    this.#messages = messages;
    this.#setLink(true);
    this.#connected?.();
    this.#connected = undefined;
    this.#lost = undefined;
  }

  #fail(message = `chardev "${this.#chardev.label}" is no vhost-user back end that answers`): void {
    const lost = this.#lost;
    this.#lost = undefined;
    if (lost === undefined) this.#host.warn(message);
    else lost(new SouthbridgeError('ERR_NETDEV', message));
  }

  /** Finds out what the back end can. False where it is not enough, or it has gone. */
  #greet(messages: VhostUserMessages): boolean {
    const features = messages.getNumber(REQUEST.GET_FEATURES);
    if (features === undefined) return false;
    let protocol = 0n;
    let queues = 1n;
    if ((features & F_PROTOCOL_FEATURES) !== 0n) {
      const offered = messages.getNumber(REQUEST.GET_PROTOCOL_FEATURES);
      if (offered === undefined) return false;
      protocol = offered & OUR_PROTOCOL_FEATURES;
      if (!messages.setNumber(REQUEST.SET_PROTOCOL_FEATURES, protocol)) return false;
      if ((protocol & PROTOCOL_F.MQ) !== 0n) {
        const most = messages.getNumber(REQUEST.GET_QUEUE_NUM);
        if (most === undefined) return false;
        queues = most;
      }
    }
    if (BigInt(this.queues.length) > queues) {
      this.#host.warn(`you are asking more queues than supported: ${queues}`);
      return false;
    }
    const lacking = this.#accepted & ~features;
    if (lacking !== 0n) {
      this.#host.warn(`vhost lacks feature mask 0x${lacking.toString(16)} for backend`);
      return false;
    }
    this.#features = features;
    this.#protocol = protocol;
    return messages.plain(REQUEST.SET_OWNER);
  }

  #closed(): void {
    this.#messages = undefined;
    this.#setLink(false);
  }

  #setLink(up: boolean): void {
    for (const client of this.queues) {
      client.setLink(up);
      client.peer?.setLink(up);
    }
  }

  // The rings

  start(rings: readonly (VhostRing | undefined)[], features: bigint, pairs: number, mtu: number): boolean {
    const messages = this.#messages;
    if (messages === undefined || this.#rings.length > 0) return false;
    this.#accepted = (features & GOVERNED & this.#features) | (this.#features & F_PROTOCOL_FEATURES);
    this.#pairs = pairs;
    const served = (): boolean =>
      this.#sendLog(messages) &&
      messages.setNumber(REQUEST.SET_FEATURES, this.#spoken()) &&
      this.#sendMemory(messages) &&
      (mtu === 0 ||
        (this.#protocol & PROTOCOL_F.NET_MTU) === 0n ||
        messages.setNumber(REQUEST.NET_SET_MTU, BigInt(mtu))) &&
      rings.every((ring, index) => this.#startRing(messages, ring, index)) &&
      this.#enable(messages);
    try {
      if (!served()) {
        this.stop();
        return false;
      }
    } catch (error) {
      if (!isSystemError(error)) throw error;
      this.#warnOnce(`vhost-user: the host has no more eventfds: ${error.message}`);
      this.stop();
      return false;
    }
    const memory = this.#host.memory();
    this.#unwatchMemory = memory.onChange(() => this.#memoryChanged());
    this.#unwatchLog = memory.onLogged(() => this.#logChanged());
    return true;
  }

  #startRing(messages: VhostUserMessages, ring: VhostRing | undefined, index: number): boolean {
    if (ring === undefined) {
      this.#rings.push(undefined);
      return true;
    }
    // What a driver says may be anything; beyond the memory that is shared there is nothing to serve.
    const places = [ring.desc, ring.avail, ring.used];
    const within = ({ address, size }: SharedRange, at: number): boolean => at >= address && at < address + size;
    if (!places.every(place => this.#ranges.some(range => within(range, place)))) return false;
    const served = { ring, kick: new EventFd(), call: new EventFd() };
    this.#rings.push(served);
    served.call.onSignal(() => ring.interrupt());
    const started =
      messages.setRing(REQUEST.SET_VRING_NUM, index, ring.size) &&
      messages.setRing(REQUEST.SET_VRING_BASE, index, ring.base) &&
      messages.setRingAddresses(index, ring, this.#logs()) &&
      messages.setNumber(REQUEST.SET_VRING_CALL, BigInt(index), [served.call.fd]) &&
      messages.setNumber(REQUEST.SET_VRING_KICK, BigInt(index), [served.kick.fd]);
    // What the driver had put in before it was said to whom.
    if (started) served.kick.signal();
    return started;
  }

  #enable(messages: VhostUserMessages): boolean {
    // Without protocol features rings are on from the beginning.
    if ((this.#features & F_PROTOCOL_FEATURES) === 0n) return true;
    return this.#rings.every(
      (ring, index) =>
        ring === undefined || messages.setRing(REQUEST.SET_VRING_ENABLE, index, index >> 1 < this.#pairs ? 1 : 0),
    );
  }

  #sendMemory(messages: VhostUserMessages): boolean {
    const { ranges } = this.#host.memory();
    if (ranges.length === 0 || ranges.length > REGIONS_MAX) {
      this.#warnOnce(
        ranges.length === 0
          ? 'Failed initializing vhost-user memory map, consider using -object memory-backend-file share=on'
          : `vhost-user: the guest's memory is in more than ${REGIONS_MAX} pieces`,
      );
      return false;
    }
    this.#ranges = ranges;
    return messages.setMemory(ranges);
  }

  // The log of a migration: ours compares memory with what was sent, but the back end is told of it as the protocol has it

  #logs(): boolean {
    const able = (this.#features & F_LOG_ALL) !== 0n && (this.#protocol & PROTOCOL_F.LOG_SHMFD) !== 0n;
    return able && this.#host.memory().logged;
  }

  /** What the back end is to do. */
  #spoken(): bigint {
    return this.#accepted | (this.#logs() ? F_LOG_ALL : 0n);
  }

  #sendLog(messages: VhostUserMessages): boolean {
    if (!this.#logs()) return true;
    const last = this.#host.memory().ranges.at(-1);
    if (last === undefined) return true;
    const size = Math.ceil((last.address + last.size) / LOGGED_BY_BYTE / LOG_WORD) * LOG_WORD;
    const fd = createMemfd('vhost-log', size);
    try {
      return messages.setLog(fd, size);
    } finally {
      closeSync(fd);
    }
  }

  #logChanged(): void {
    const messages = this.#messages;
    if (messages === undefined || (this.#features & F_LOG_ALL) === 0n) return;
    const logged = this.#logs();
    const told = (): boolean =>
      this.#sendLog(messages) &&
      messages.setNumber(REQUEST.SET_FEATURES, this.#spoken()) &&
      this.#rings.every(
        (served, index) => served === undefined || messages.setRingAddresses(index, served.ring, logged),
      );
    try {
      told();
    } catch (error) {
      if (!isSystemError(error)) throw error;
      this.#warnOnce(`vhost-user: there is no log: ${error.message}`);
    }
  }

  /** What a driver can bring about again and again is said once. */
  #warnOnce(message: string): void {
    if (!this.#warned) this.#host.warn(message);
    this.#warned = true;
  }

  /** A memory module has come or gone. */
  #memoryChanged(): void {
    const { ranges } = this.#host.memory();
    const same =
      ranges.length === this.#ranges.length &&
      ranges.every((range, index) => {
        const before = this.#ranges[index];
        return before?.address === range.address && before.size === range.size && before.fd === range.fd;
      });
    if (!same && this.#messages !== undefined) this.#sendMemory(this.#messages);
  }

  kick(index: number): void {
    this.#rings[index]?.kick.signal();
  }

  usePairs(pairs: number): void {
    this.#pairs = pairs;
    if (this.#messages !== undefined) this.#enable(this.#messages);
  }

  stop(): readonly (number | undefined)[] {
    const messages = this.#messages;
    const bases = this.#rings.map((ring, index) => (ring === undefined ? undefined : messages?.getRingBase(index)));
    this.#closeRings();
    return bases;
  }

  #closeRings(): void {
    this.#unwatchMemory?.();
    this.#unwatchMemory = undefined;
    this.#unwatchLog?.();
    this.#unwatchLog = undefined;
    for (const ring of this.#rings.splice(0)) {
      ring?.kick.close();
      ring?.call.close();
    }
  }
}
