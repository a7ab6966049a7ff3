import { Packet, PROTOCOL } from '../../core/net/packet.ts';
import { type HashInput, ToeplitzHash } from '../../core/net/rss.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import type { VirtqueueElement } from '../../core/virtio/element.ts';
import { COMMAND_HEADER, RSS_CONFIG } from './protocol.ts';

/** Hash types (virtio 1.2, section 5.1.6.4.3.1). */
const TYPE = {
  IPV4: 0x001,
  TCPV4: 0x002,
  UDPV4: 0x004,
  IPV6: 0x008,
  TCPV6: 0x010,
  UDPV6: 0x020,
  IPV6_EX: 0x040,
  TCPV6_EX: 0x080,
  UDPV6_EX: 0x100,
} as const;
export const HASH_TYPES = 0x1ff;

/** What a frame's header reports of its hash (section 5.1.6.4.3.5). */
const REPORT = {
  NONE: 0,
  IPV4: 1,
  TCPV4: 2,
  UDPV4: 3,
  IPV6: 4,
  TCPV6: 5,
  UDPV6: 6,
  IPV6_EX: 7,
  TCPV6_EX: 8,
  UDPV6_EX: 9,
} as const;

/** What is hashed, by what is reported. */
const INPUTS: readonly HashInput[] = [
  'addresses',
  'addresses',
  'addresses-and-ports',
  'addresses-and-ports',
  'addresses',
  'addresses-and-ports',
  'addresses-and-ports',
  'extended-addresses',
  'extended-addresses-and-ports',
  'extended-addresses-and-ports',
];

const ENTRY = 2;

export const steeringFields = {
  enabled: field.bool(),
  types: field.u32(),
  tableLength: field.u16(1),
  unclassified: field.u16(),
  table: field.bytes(RSS_CONFIG.MAX_TABLE * ENTRY),
  key: field.bytes(RSS_CONFIG.MAX_KEY),
} as const;

/** Which pair of queues a frame goes to, and the hash that the driver is told (virtio 1.2, sections 5.1.6.4.3 and 5.1.6.5.7). */
export class Steering {
  /** Whether the driver has configured it. */
  enabled = false;
  /** Whether the hash chooses the pair: the driver has accepted VIRTIO_NET_F_RSS. */
  redirects = false;
  /** Of the last frame: what {@link steer} has found. */
  hash = 0;
  report = 0;
  readonly #config = new Uint8Array(RSS_CONFIG.TABLE);
  readonly #table = new Uint8Array(RSS_CONFIG.MAX_TABLE * ENTRY);
  readonly #key = new Uint8Array(RSS_CONFIG.MAX_KEY);
  readonly #toeplitz = new ToeplitzHash(this.#key);
  readonly #packet = new Packet();
  #types = 0;
  #tableLength = 1;
  #unclassified = 0;

  disable(): void {
    this.enabled = false;
    this.report = REPORT.NONE;
    this.hash = 0;
  }

  /**
   * Takes RSS_CONFIG or, without `redirect`, HASH_CONFIG. No hash types and no key switch it off.
   * @param pairs how many pairs there are
   * @returns how many the driver wants to use, 1 without `redirect`; undefined where the command is wrong
   */
  configure(element: VirtqueueElement, redirect: boolean, pairs: number): number | undefined {
    const config = this.#config;
    if (element.read(config, COMMAND_HEADER, RSS_CONFIG.TABLE) !== RSS_CONFIG.TABLE) return undefined;
    const types = word(config, RSS_CONFIG.HASH_TYPES) + word(config, RSS_CONFIG.HASH_TYPES + 2) * 0x1_0000;
    const length = redirect ? word(config, RSS_CONFIG.TABLE_MASK) + 1 : 1;
    const unclassified = redirect ? word(config, RSS_CONFIG.UNCLASSIFIED) : 0;
    if ((length & (length - 1)) !== 0 || length > RSS_CONFIG.MAX_TABLE || unclassified >= pairs) return undefined;
    let at = COMMAND_HEADER + RSS_CONFIG.TABLE;
    if (element.read(this.#table, at, length * ENTRY) !== length * ENTRY) return undefined;
    at += length * ENTRY;
    if (element.read(config, at, RSS_CONFIG.TAIL) !== RSS_CONFIG.TAIL) return undefined;
    const wanted = redirect ? word(config, 0) : 1;
    const keyLength = config[2] ?? 0;
    if (wanted === 0 || wanted > pairs || keyLength > RSS_CONFIG.MAX_KEY) return undefined;
    if (keyLength === 0) return types === 0 ? wanted : undefined;
    if (element.read(this.#key, at + RSS_CONFIG.TAIL, keyLength) !== keyLength) return undefined;
    this.#types = types;
    this.#tableLength = length;
    this.#unclassified = unclassified;
    this.enabled = true;
    return wanted;
  }

  /**
   * Hashes the frame in the bytes of `frame` from `start` to before `end`. Nothing is allocated.
   * @returns the pair that it goes to; undefined where that is not for the hash to say
   */
  steer(frame: Uint8Array, start: number, end: number): number | undefined {
    const packet = this.#packet;
    packet.parse(frame, end, start);
    this.report = this.#kind(packet);
    this.hash = this.report === REPORT.NONE ? 0 : this.#toeplitz.of(packet, frame, INPUTS[this.report] ?? 'addresses');
    if (!this.redirects) return undefined;
    if (this.report === REPORT.NONE) return this.#unclassified;
    return word(this.#table, (this.hash & (this.#tableLength - 1)) * ENTRY);
  }

  /** The most of a packet that the driver lets be hashed; ports only where the packet has them (section 5.1.6.4.3.2). */
  #kind(packet: Packet): number {
    const { version, protocol } = packet;
    const types = this.#types;
    if (version === 4) {
      if (protocol === PROTOCOL.TCP && (types & TYPE.TCPV4) !== 0) return REPORT.TCPV4;
      if (protocol === PROTOCOL.UDP && (types & TYPE.UDPV4) !== 0) return REPORT.UDPV4;
      return (types & TYPE.IPV4) !== 0 ? REPORT.IPV4 : REPORT.NONE;
    }
    if (version !== 6) return REPORT.NONE;
    if (protocol === PROTOCOL.TCP) {
      if ((types & TYPE.TCPV6_EX) !== 0) return REPORT.TCPV6_EX;
      if ((types & TYPE.TCPV6) !== 0) return REPORT.TCPV6;
    }
    if (protocol === PROTOCOL.UDP) {
      if ((types & TYPE.UDPV6_EX) !== 0) return REPORT.UDPV6_EX;
      if ((types & TYPE.UDPV6) !== 0) return REPORT.UDPV6;
    }
    if ((types & TYPE.IPV6_EX) !== 0) return REPORT.IPV6_EX;
    return (types & TYPE.IPV6) !== 0 ? REPORT.IPV6 : REPORT.NONE;
  }

  save(): StateValues<typeof steeringFields> {
    return {
      enabled: this.enabled,
      types: this.#types,
      tableLength: this.#tableLength,
      unclassified: this.#unclassified,
      table: this.#table.slice(),
      key: this.#key.slice(),
    };
  }

  restore(saved: StateValues<typeof steeringFields>): void {
    const { enabled, types, tableLength, unclassified, table, key } = saved;
    this.enabled = enabled;
    this.#types = types;
    // What is not a power of two within the table is not of our making: one entry always is.
    const good = tableLength > 0 && tableLength <= RSS_CONFIG.MAX_TABLE && (tableLength & (tableLength - 1)) === 0;
    this.#tableLength = good ? tableLength : 1;
    this.#unclassified = unclassified;
    this.#table.set(table);
    this.#key.set(key);
  }
}

const word = (bytes: Uint8Array, at: number): number => (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8);
