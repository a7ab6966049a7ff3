import type { VirtqueueElement } from '../../core/virtio/element.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';
import { ACK, ANNOUNCE, CLASS, COMMAND_HEADER, F, GUEST_OFFLOADS, MAC, MQ, RX, VLAN } from './protocol.ts';
import { MAC_TABLE_SIZE, type ReceiveFilter } from './receive-filter.ts';
import type { Steering } from './steering.ts';

/** What the commands of a driver are about. */
export interface Controlled {
  readonly filter: ReceiveFilter;
  readonly steering: Steering;
  /** The card's address, which ADDR_SET overwrites. */
  readonly mac: Uint8Array;
  /** Pairs of queues that there are. */
  readonly pairs: number;
  accepted(feature: number): boolean;
  broken(message: string): void;
  /** The receive filter is another one now. */
  filterChanged(): void;
  addressChanged(): void;
  /** The driver has announced itself; false where nobody had asked it to. */
  announced(): boolean;
  /** The driver uses `pairs` pairs of queues; false where it cannot. */
  usePairs(pairs: number): boolean;
  /** Takes exactly these GUEST_* features' packets unfinished: bits of the low and of the high word; false where it cannot. */
  setOffloads(low: number, high: number): boolean;
}

/** The control queue (virtio 1.2, section 5.1.6.5). */
export class ControlQueue {
  readonly #card: Controlled;
  readonly #argument = new Uint8Array(8);
  readonly #ack = new Uint8Array(1);

  constructor(card: Controlled) {
    this.#card = card;
  }

  serve(queue: Virtqueue): void {
    let done = false;
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      if (element.in.length < 1 || element.out.length < COMMAND_HEADER) {
        this.#card.broken('virtio-net ctrl missing headers');
        queue.detach(element);
        return;
      }
      element.read(this.#argument, 0, COMMAND_HEADER);
      const ok = this.#execute(this.#argument[0] ?? 0, this.#argument[1] ?? 0, element);
      this.#ack[0] = ok ? ACK.OK : ACK.ERR;
      element.write(this.#ack, 0, 0, 1);
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
        return command === ANNOUNCE.ACK && this.#card.announced();
      case CLASS.MQ:
        return this.#setPairs(command, element);
      case CLASS.GUEST_OFFLOADS:
        return (
          command === GUEST_OFFLOADS.SET &&
          this.#card.accepted(F.CTRL_GUEST_OFFLOADS) &&
          this.#read(element, 8) &&
          this.#card.setOffloads(this.#word(0, 4), this.#word(4, 4))
        );
      default:
        return false;
    }
  }

  #filterChanged(done: boolean): boolean {
    if (done) this.#card.filterChanged();
    return done;
  }

  /** Copies `length` bytes of a command's argument, from its byte `from`. False where it is shorter. */
  #read(element: VirtqueueElement, length: number, from = 0): boolean {
    return element.read(this.#argument, COMMAND_HEADER + from, length) === length;
  }

  #word(at: number, size: number): number {
    let value = 0;
    for (let index = 0; index < size; index++) value |= (this.#argument[at + index] ?? 0) << (8 * index);
    return value >>> 0;
  }

  #setMode(command: number, element: VirtqueueElement): boolean {
    if (!this.#read(element, 1)) return false;
    const on = this.#argument[0] !== 0;
    const { filter } = this.#card;
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
    if (command === MAC.ADDR_SET) {
      if (length !== MAC.BYTES) return false;
      element.read(this.#card.mac, COMMAND_HEADER, MAC.BYTES);
      this.#card.addressChanged();
      return true;
    }
    return command === MAC.TABLE_SET && this.#setTable(element, length);
  }

  /** Two lists, each with its count: unicast, then multicast (section 5.1.6.5.2). */
  #setTable(element: VirtqueueElement, length: number): boolean {
    if (!this.#read(element, 4)) return false;
    const unicast = this.#word(0, 4);
    const second = 4 + unicast * MAC.BYTES;
    if (second > length || !this.#read(element, 4, second)) return false;
    const multicast = this.#word(0, 4);
    if (second + 4 + multicast * MAC.BYTES !== length) return false;
    const { filter } = this.#card;
    filter.unicastOverflow = unicast > MAC_TABLE_SIZE;
    const kept = filter.unicastOverflow ? 0 : unicast;
    filter.multicastOverflow = multicast > MAC_TABLE_SIZE - kept;
    const added = filter.multicastOverflow ? 0 : multicast;
    filter.table.fill(0);
    element.read(filter.table, COMMAND_HEADER + 4, kept * MAC.BYTES);
    element.out.gather(COMMAND_HEADER + second + 4, filter.table, kept * MAC.BYTES, added * MAC.BYTES);
    filter.firstMulticast = kept;
    filter.used = kept + added;
    return true;
  }

  #setVlan(command: number, element: VirtqueueElement): boolean {
    if (!this.#read(element, 2) || (command !== VLAN.ADD && command !== VLAN.DEL)) return false;
    const vlan = this.#word(0, 2);
    if (vlan >= 4096) return false;
    this.#card.filter.setVlan(vlan, command === VLAN.ADD);
    return true;
  }

  /** How many pairs are used, and how frames are spread over them (section 5.1.6.5.5); each command ends what the last one began. */
  #setPairs(command: number, element: VirtqueueElement): boolean {
    const { steering, pairs } = this.#card;
    steering.disable();
    switch (command) {
      case MQ.VQ_PAIRS_SET:
        return this.#card.accepted(F.MQ) && this.#read(element, 2) && this.#card.usePairs(this.#word(0, 2));
      case MQ.RSS_CONFIG: {
        if (!this.#card.accepted(F.RSS)) return false;
        const wanted = steering.configure(element, true, pairs);
        if (wanted !== undefined && this.#card.usePairs(wanted)) return true;
        steering.disable();
        return false;
      }
      case MQ.HASH_CONFIG:
        return this.#card.accepted(F.HASH_REPORT) && steering.configure(element, false, pairs) !== undefined;
      default:
        return false;
    }
  }
}
