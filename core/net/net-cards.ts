import type { Device } from '../device/device.ts';
import { type MacAddress, prop } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';
import type { StandbyCard } from './failover.ts';
import { type NetBackend, NetClient, type NetReceiver } from './net-client.ts';

/** Which of a kind of addresses a card takes (QAPI RxState). */
export type ReceiveMode = 'normal' | 'none' | 'all';

/** A card's receive filter as management tools see it (QAPI RxFilterInfo, without the card's name). Addresses have 6 bytes. */
export interface ReceiveFilterInfo {
  readonly promiscuous: boolean;
  readonly multicast: ReceiveMode;
  readonly unicast: ReceiveMode;
  readonly vlan: ReceiveMode;
  readonly broadcastAllowed: boolean;
  readonly multicastOverflow: boolean;
  readonly unicastOverflow: boolean;
  readonly mainMac: Uint8Array;
  readonly vlanTable: readonly number[];
  readonly unicastTable: readonly Uint8Array[];
  readonly multicastTable: readonly Uint8Array[];
}

/** What a network card does with its port. */
export interface CardReceiver extends NetReceiver {
  /** For QMP `query-rx-filter`, where the card can tell. */
  receiveFilter?(): ReceiveFilterInfo;
  /** Asks the guest's driver to tell the network where it is now. */
  announce?(): void;
}

export interface CardOptions {
  /** The device that clients know, whose `mac` shows the address; without an id it is called by its type and a number. */
  readonly owner: Device;
  /** The user's choice; the next free one of QEMU's where absent. */
  readonly mac: MacAddress | undefined;
  readonly backend: NetBackend | undefined;
  /** Whether the card's queues can be served by the backend itself. */
  readonly vhost?: boolean;
  /** What takes the frames of the backend's queue `index`, from 1 on, where the card has more than one. */
  readonly queue?: (index: number) => NetReceiver;
}

/** QEMU's properties of every network card. */
export const cardProperties = {
  mac: prop.mac(),
  netdev: prop.backend<NetBackend>('netdev'),
  bootindex: prop.bootIndex({ default: -1 }),
} as const;

const ADDRESS_LENGTH = 6;
/** QEMU's addresses for cards whose user gave none: the last byte counts from 0x56. */
const FIRST_ADDRESS = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56] as const;
const LAST = 5;

/** A card's port, and its address. */
export class NetCard {
  readonly client: NetClient;
  /** A port for each queue of the backend that the card has one for; `client` first. */
  readonly queues: readonly NetClient[];
  /** The address that the card is delivered with; set once it is plugged in. */
  readonly mac = new Uint8Array(ADDRESS_LENGTH);
  readonly receiver: CardReceiver;
  readonly #options: CardOptions;

  constructor(receiver: CardReceiver, options: CardOptions) {
    this.receiver = receiver;
    this.#options = options;
    this.mac.set(options.mac ?? FIRST_ADDRESS);
    const { id, typeName } = options.owner;
    this.client = new NetClient(id ?? typeName, typeName, receiver);
    const { queue, backend } = options;
    const queues = [this.client];
    if (queue !== undefined) {
      const count = backend?.queues?.length ?? 1;
      for (let index = 1; index < count; index++) queues.push(new NetClient(this.client.name, typeName, queue(index)));
    }
    this.queues = queues;
  }

  /** Plugs the cable in and joins the machine's cards. Returns how to undo both. */
  plug(cards: NetCards): () => void {
    const { owner, mac, backend } = this.#options;
    if (owner.id === undefined) {
      const name = cards.nameFor(owner.typeName);
      for (const client of this.queues) client.name = name;
    }
    if (mac === undefined) this.mac[LAST] = cards.freeAddress();
    owner.defineProperty({ name: 'mac', type: 'str', get: () => formatMac(this.mac) });
    this.showAddress(this.mac);
    if (backend?.vhost !== undefined && this.#options.vhost !== true) {
      throw new SouthbridgeError('ERR_BACKEND', `${backend.client.model} requires frontend driver virtio-net-*`);
    }
    if (backend !== undefined) {
      for (const [index, client] of this.queues.entries()) client.connect(backend.queues?.[index] ?? backend.client);
      for (const idle of backend.queues?.slice(this.queues.length) ?? []) idle.attachQueue?.(false);
    }
    const leave = cards.add(this);
    return () => {
      leave();
      for (const client of this.queues) client.disconnect();
    };
  }

  /** Tells `info network` the address that the guest has given the card. */
  showAddress(mac: Uint8Array): void {
    this.client.description = `model=${this.client.model},macaddr=${formatMac(mac)}`;
  }
}

/** A machine's network cards. */
export class NetCards {
  readonly #cards = new Set<NetCard>();
  readonly #used = new Map<string, number>();

  /** Cards that stand by for others, by their ids. */
  readonly standbys = new Map<string, StandbyCard>();

  /** In the order in which they were plugged in. */
  get all(): ReadonlySet<NetCard> {
    return this.#cards;
  }

  /** Returns a function that takes it out. */
  add(card: NetCard): () => void {
    this.#cards.add(card);
    return () => this.#cards.delete(card);
  }

  /** The last byte of the next free address of QEMU's. */
  freeAddress(): number {
    const used = new Set<number>();
    for (const { mac } of this.#cards)
      if (FIRST_ADDRESS.slice(0, LAST).every((byte, at) => mac[at] === byte)) used.add(mac[LAST] ?? 0);
    for (let last: number = FIRST_ADDRESS[LAST]; last < 0xff; last++) if (!used.has(last)) return last;
    return FIRST_ADDRESS[LAST];
  }

  /** `e1000.0`, `e1000.1`: as QEMU names cards without an id. */
  nameFor(model: string): string {
    const number = this.#used.get(model) ?? 0;
    this.#used.set(model, number + 1);
    return `${model}.${number}`;
  }
}

export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, byte => byte.toString(16).padStart(2, '0')).join(':');
}
