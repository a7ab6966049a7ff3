import { AudioBackend } from '../audio/backend.ts';
import type { Drives } from '../block/drives.ts';
import { NullChardev } from '../char/simple.ts';
import type { CryptoBackend } from '../crypto/cryptodev.ts';
import type { BackendLookup } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';
import { SharedRam } from '../memory/guest-ram.ts';
import type { MemoryBackend } from '../memory/memory-backend.ts';
import { Hub } from '../net/hub.ts';
import type { RngBackend } from '../rng/rng.ts';
import { StandInTpm } from './stand-in-tpm.ts';

/** Bytes of a stand-in disk. */
const DISK_SIZE = 2 ** 20;
/** Bytes of a stand-in memory backend. */
const MEMORY_SIZE = 2 ** 20;

/** Numbers that look random and are the same in each run (Lehmer's generator, modulus 2^31 - 1). */
export class SeededRandom {
  #state: number;

  /** @param seed 1 to 2^31 - 2 */
  constructor(seed = 1) {
    this.#state = seed;
  }

  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number {
    this.#state = (this.#state * 48271) % 0x7fff_ffff;
    return this.#state % limit;
  }

  pick<T>(list: readonly T[]): T | undefined {
    return list[this.below(list.length)];
  }

  /** 32 bits. */
  word(): number {
    return ((this.below(0x1_0000) << 16) | this.below(0x1_0000)) >>> 0;
  }
}

class SeededRng implements RngBackend {
  readonly id: string;
  readonly #random = new SeededRandom(7);

  constructor(id: string) {
    this.id = id;
  }

  request(target: Uint8Array, done: () => void): void {
    for (let at = 0; at < target.length; at++) target[at] = this.#random.below(256);
    done();
  }
}

/** Memory that is nobody else's. */
function standInMemory(id: string): MemoryBackend {
  let users = 0;
  const ram = new SharedRam(id, MEMORY_SIZE);
  return {
    id,
    size: MEMORY_SIZE,
    alignment: 4096,
    path: `/objects/${id}`,
    get mapped() {
      return users > 0;
    },
    claim: () => {
      users++;
      return () => {
        users--;
      };
    },
    contents: () => [ram],
    sync: done => done(false),
    discard: (offset, length) => ram.bytes.fill(0, offset, offset + length),
  };
}

/**
 * Backends that stand in for the host's: a chardev that takes all, a wire with nobody at the other end, an empty disk of 1 MiB,
 * 1 MiB of memory, random numbers that repeat. Each id makes one of its own.
 */
export class StandIns implements BackendLookup {
  readonly #drives: Drives;
  readonly #disks: readonly string[];

  private constructor(drives: Drives, disks: readonly string[]) {
    this.#drives = drives;
    this.#disks = disks;
  }

  /** @param disks ids of disks, which have to be made beforehand */
  static async make(disks: readonly string[] = ['disk']): Promise<StandIns> {
    const [{ Drives: Made }, { blockGraph }] = await Promise.all([
      import('../block/drives.ts'),
      import('../block/block.ts'),
    ]);
    const standIns = new StandIns(new Made(blockGraph()), disks);
    await standIns.refill();
    return standIns;
  }

  /** Makes the disks again that went with the device that had them. */
  async refill(): Promise<void> {
    for (const id of this.#disks) {
      if (this.#drives.graph.backend(id) !== undefined) continue;
      const options = { id, driver: 'null-co', size: String(DISK_SIZE), 'read-zeroes': 'on', if: 'none' };
      await this.#drives.add(Object.entries(options), { interface: 'none', snapshot: false, isDefault: false });
    }
  }

  find(kind: string, id: string): unknown {
    switch (kind) {
      case 'chardev':
        return new NullChardev(id);
      case 'netdev':
        return new Hub(0).addPort(id);
      case 'drive':
        return this.#drives.graph.backend(id);
      case 'rng':
        return new SeededRng(id);
      case 'memory-backend':
        return standInMemory(id);
      case 'cryptodev':
        return { id, used: false, claim: () => () => {} } satisfies CryptoBackend;
      case 'tpmdev':
        return new StandInTpm(id);
      case 'audiodev':
        return new AudioBackend(id, 'none');
      default:
        throw new SouthbridgeError('ERR_BACKEND', `nothing stands in for a ${kind}`, 'pass backends of your own');
    }
  }
}
