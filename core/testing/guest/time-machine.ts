import { SouthbridgeError } from '../../errors.ts';
import type { MemoryRegion } from '../../memory/memory-region.ts';
import { TrafficRecorder } from '../traffic/recorder.ts';
import type { Access } from '../traffic/traffic.ts';
import type { Guest, GuestSnapshot } from './guest.ts';
import type { InputLog } from './inputs.ts';

/** From a request to stop until the CPU stands, it may make a few more accesses: so many are gone step by step. */
const FIRST_MARGIN = 2;
const MOST_STEPS = 1_000_000;

/** A moment to go back to: the state, and how many accesses there had been. */
interface Checkpoint {
  readonly snapshot: GuestSnapshot;
  readonly accesses: number;
}

/**
 * Goes to and fro in the life of a deterministic guest, by the number of accesses to the registers that it watches. Going back is
 * going forward from a checkpoint: with the same inputs at the same instructions, the guest does the same again.
 */
export class TimeMachine {
  readonly guest: Guest;
  readonly #region: MemoryRegion;
  readonly #checkpoints: Checkpoint[] = [];
  #recorder: TrafficRecorder;
  /** Accesses before the recorder began. */
  #before = 0;
  /** The longest history so far: what was seen once. */
  #history: readonly Access[] = [];
  #inputs: InputLog = [];
  #stopAt = Number.POSITIVE_INFINITY;

  /**
   * @param guest made with `deterministic: true`
   * @param region whose accesses count: `card.bars[0].region`, for instance
   */
  constructor(guest: Guest, region: MemoryRegion) {
    this.guest = guest;
    this.#region = region;
    this.#recorder = this.#record();
    region.interpose(inner => ({
      read: (offset, size) => {
        const value = inner.read(offset, size);
        this.#counted();
        return value;
      },
      write: (offset, size, value) => {
        inner.write(offset, size, value);
        this.#counted();
      },
    }));
    this.checkpoint();
  }

  /** How many accesses there have been at this moment of the guest's life. */
  get position(): number {
    return this.#before + this.#recorder.accesses.length;
  }

  /** The accesses that were seen, the first one at 0. */
  get history(): readonly Access[] {
    this.#remember();
    return this.#history;
  }

  /** Keeps this moment, so that going back to a later one takes less. */
  checkpoint(): void {
    this.#checkpoints.push({ snapshot: this.guest.snapshot(), accesses: this.position });
  }

  /**
   * Brings the guest to the moment right after access number `count`, counted from 1; it is stopped there. Accesses that have not
   * been yet are waited for.
   * @throws SouthbridgeError ERR_TIME_MACHINE where the guest does not get there
   */
  async to(count: number): Promise<void> {
    this.#remember();
    for (let margin = FIRST_MARGIN; ; margin *= 4) {
      if (count < this.position || margin > FIRST_MARGIN) this.#back(count, margin);
      if (this.position < count - margin) await this.#runTo(count - margin);
      if (this.position <= count) return this.#stepTo(count);
      if (margin > this.position)
        throw new SouthbridgeError('ERR_TIME_MACHINE', `the guest does not stop before access ${count}`);
    }
  }

  /** Back by so many accesses, from here. */
  back(accesses = 1): Promise<void> {
    return this.to(Math.max(0, this.position - accesses));
  }

  #record(): TrafficRecorder {
    return new TrafficRecorder(this.#region, this.guest.machine.clocks.virtual);
  }

  #counted(): void {
    if (this.position >= this.#stopAt) this.guest.pause();
  }

  #remember(): void {
    if (this.position > this.#history.length)
      this.#history = [...this.#history.slice(0, this.#before), ...this.#recorder.accesses];
    if (this.guest.inputs.length > this.#inputs.length) this.#inputs = [...this.guest.inputs];
  }

  /** To the last checkpoint that is early enough to stop in time. */
  #back(count: number, margin: number): void {
    const first = this.#checkpoints[0];
    const early = this.#checkpoints.findLast(each => each.accesses <= count - margin);
    const checkpoint = early ?? this.#checkpoints.findLast(each => each.accesses <= count) ?? first;
    if (checkpoint === undefined || checkpoint.accesses > count)
      throw new SouthbridgeError('ERR_TIME_MACHINE', `access ${count} was before the first checkpoint`);
    const { snapshot } = checkpoint;
    this.guest.restore(snapshot);
    this.#recorder.stop();
    this.#recorder = this.#record();
    this.#before = checkpoint.accesses;
    this.guest.replay(this.#inputs.slice(snapshot.inputs));
  }

  async #runTo(count: number): Promise<void> {
    this.#stopAt = count;
    this.guest.resume();
    await this.#stopped();
    this.#stopAt = Number.POSITIVE_INFINITY;
  }

  /** Instruction by instruction. */
  async #stepTo(count: number): Promise<void> {
    const { vm, power } = this.guest.machine;
    const [vcpu] = vm.vcpus;
    if (vcpu?.setDebug === undefined)
      throw new SouthbridgeError('ERR_TIME_MACHINE', 'this accelerator does not single-step');
    vcpu.setDebug({ singleStep: true, softwareBreakpoints: false, hardware: [] });
    try {
      for (let steps = 0; this.position < count; steps++) {
        if (steps === MOST_STEPS)
          throw new SouthbridgeError('ERR_TIME_MACHINE', `the guest does not get to access ${count}`);
        power.start();
        await this.#stopped();
      }
    } finally {
      vcpu.setDebug(undefined);
    }
  }

  #stopped(): Promise<void> {
    const { machine } = this.guest;
    if (!machine.power.running) return Promise.resolve();
    return new Promise(resolve => {
      const remove = machine.listen(event => {
        if (event !== 'STOP') return;
        remove();
        // The slice that the CPU is in ends first.
        setImmediate(resolve);
      });
    });
  }
}
