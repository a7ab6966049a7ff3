import type { Dma } from '../../core/memory/dma.ts';
import { type Packet, PROTOCOL } from '../../core/net/packet.ts';
import { ToeplitzHash } from '../../core/net/rss.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { HASH_TYPE, HASHED, RSS, SHARED } from './layout.ts';

export const steeringState = {
  types: field.u16(),
  tableLength: field.u8(),
  table: field.bytes(RSS.MAX_TABLE),
  key: field.bytes(RSS.MAX_KEY),
};

/** Receive-side scaling: which queue a frame goes to, by a hash of whom it is from and for. */
export class Steering {
  readonly #s: StateValues<typeof steeringState>;
  readonly #dma: Dma;
  readonly #key = new Uint8Array(RSS.MAX_KEY);
  readonly #toeplitz = new ToeplitzHash(this.#key);
  readonly #config = new Uint8Array(RSS.BYTES);
  /** Of the last frame: what was hashed of it, and the hash. */
  kind: number = HASHED.NONE;
  hash = 0;

  constructor(state: StateValues<typeof steeringState>, dma: Dma) {
    this.#s = state;
    this.#dma = dma;
  }

  disable(): void {
    this.#s.types = 0;
    this.#s.tableLength = 0;
  }

  /** Copies what the driver wants. What makes no sense switches it off. */
  configure(shared: number): void {
    const dma = this.#dma;
    const config = this.#config;
    this.disable();
    const address = dma.readAddress(shared + SHARED.RSS);
    if (dma.read32(shared + SHARED.RSS_LENGTH) < RSS.BYTES || !dma.read(address, config)) return;
    const word = (at: number): number => (config[at] ?? 0) | ((config[at + 1] ?? 0) << 8);
    const [keyLength, tableLength] = [word(RSS.KEY_LENGTH), word(RSS.TABLE_LENGTH)];
    if (word(RSS.FUNCTION) !== RSS.TOEPLITZ || keyLength > RSS.MAX_KEY || tableLength > RSS.MAX_TABLE) return;
    const s = this.#s;
    s.types = word(RSS.TYPES);
    s.tableLength = tableLength;
    s.key.fill(0);
    s.key.set(config.subarray(RSS.KEY, RSS.KEY + keyLength));
    s.table.set(config.subarray(RSS.TABLE, RSS.TABLE + RSS.MAX_TABLE));
    this.restored();
  }

  /** The state has been put back. */
  restored(): void {
    this.#key.set(this.#s.key);
  }

  /** The queue that `packet` goes to, of `queues`. Nothing is allocated. */
  steer(packet: Packet, frame: Uint8Array, queues: number): number {
    const { tableLength, table } = this.#s;
    this.kind = tableLength === 0 ? HASHED.NONE : this.#kindOf(packet);
    if (this.kind === HASHED.NONE) return 0;
    const withPorts = this.kind === HASHED.TCP_IPV4 || this.kind === HASHED.TCP_IPV6;
    this.hash = this.#toeplitz.of(packet, frame, withPorts ? 'addresses-and-ports' : 'addresses');
    const queue = table[this.hash % tableLength] ?? 0;
    return queue < queues ? queue : 0;
  }

  #kindOf({ version, protocol, l4 }: Packet): number {
    const { types } = this.#s;
    const tcp = l4 !== 0 && protocol === PROTOCOL.TCP;
    if (version === 4) {
      if (tcp && (types & HASH_TYPE.TCP_IPV4) !== 0) return HASHED.TCP_IPV4;
      return (types & HASH_TYPE.IPV4) !== 0 ? HASHED.IPV4 : HASHED.NONE;
    }
    if (version !== 6) return HASHED.NONE;
    if (tcp && (types & HASH_TYPE.TCP_IPV6) !== 0) return HASHED.TCP_IPV6;
    return (types & HASH_TYPE.IPV6) !== 0 ? HASHED.IPV6 : HASHED.NONE;
  }
}
