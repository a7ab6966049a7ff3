import { field, type StateField, type StateValues } from '../state/fields.ts';
import { QUEUES_MAX } from './features.ts';
import type { VirtioDevice } from './virtio-device.ts';

/** What a driver writes about one queue before it enables it (virtio 1.2, section 4.1.4.3). */
export interface QueueSetup {
  size: number;
  enabled: boolean;
  /** Address words: descriptor area, driver area, device area; low, then high. */
  readonly words: Uint32Array;
}

const fields = { size: field.u16(), enabled: field.bool(), words: field.words(6) } as const;
const queues = field.list(field.record(fields), QUEUES_MAX);

/** The registers of all queues, made as the driver selects them. */
export class QueueSetups {
  #setups: QueueSetup[] = [];

  /** Of queue `index`, which need not exist. */
  at(index: number): QueueSetup {
    let setup = this.#setups[index];
    if (setup !== undefined) return setup;
    while (this.#setups.length <= index && index < QUEUES_MAX) this.#setups.push(empty());
    setup = this.#setups[index];
    return setup ?? empty();
  }

  reset(): void {
    this.#setups.length = 0;
  }

  /** Tells the device's queue what was written. */
  apply(device: VirtioDevice, index: number): void {
    const { words } = this.at(index);
    device.queue(index)?.setAddresses(address(words, 0), address(words, 2), address(words, 4));
  }

  static readonly state: StateField<StateValues<typeof fields>[]> = queues;

  save(): QueueSetup[] {
    return this.#setups;
  }

  restore(saved: readonly QueueSetup[]): void {
    this.#setups = [...saved];
  }
}

function empty(): QueueSetup {
  return { size: 0, enabled: false, words: new Uint32Array(6) };
}

function address(words: Uint32Array, at: number): number {
  return (words[at + 1] ?? 0) * 0x1_0000_0000 + (words[at] ?? 0);
}
