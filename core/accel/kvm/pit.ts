import type { SpeakerChannel } from '../accelerator.ts';
import { KVM_GET_PIT2, KVM_SET_PIT2 } from './abi.ts';
import type { NativeVm } from './addon.ts';

const PIT_HZ = 1_193_182n;
const NS_PER_SECOND = 1_000_000_000n;

/** struct kvm_pit_channel_state of channel 2. */
const CHANNEL_2 = 48;
const COUNT = CHANNEL_2;
const MODE = CHANNEL_2 + 13;
const GATE = CHANNEL_2 + 15;
const COUNT_LOAD_TIME = CHANNEL_2 + 16;

/** Channel 2 of the kernel's i8254: its gate and output are wired to port 61h and the speaker. */
export class KvmSpeaker implements SpeakerChannel {
  readonly #native: NativeVm;
  readonly #state = new DataView(new ArrayBuffer(112));

  constructor(native: NativeVm) {
    this.#native = native;
  }

  get gate(): boolean {
    return this.#read().getUint8(GATE) !== 0;
  }

  set gate(on: boolean) {
    const state = this.#read();
    const was = state.getUint8(GATE) !== 0;
    if (was === on) return;
    const mode = state.getUint8(MODE);
    // In modes 1, 2, 3 and 5 a rising gate starts the count again (8254 datasheet, "Gate").
    if (on && mode !== 0 && mode !== 4) state.setBigInt64(COUNT_LOAD_TIME, process.hrtime.bigint(), true);
    state.setUint8(GATE, on ? 1 : 0);
    this.#native.ioctl(KVM_SET_PIT2, state);
  }

  /** The output as each mode defines it (8254 datasheet, "Mode definitions"), from when the count was loaded. */
  get out(): boolean {
    const state = this.#read();
    const count = BigInt(state.getUint32(COUNT, true) || 0x1_0000);
    const elapsedNs = process.hrtime.bigint() - state.getBigInt64(COUNT_LOAD_TIME, true);
    const ticks = elapsedNs > 0n ? (elapsedNs * PIT_HZ) / NS_PER_SECOND : 0n;
    switch (state.getUint8(MODE)) {
      case 0:
        return ticks >= count;
      case 1:
        return ticks < count;
      case 2:
      case 6:
        return ticks === 0n || ticks % count !== 0n;
      case 3:
      case 7:
        return ticks % count < (count + 1n) / 2n;
      default:
        return ticks !== count;
    }
  }

  get frequency(): number {
    const state = this.#read();
    if (state.getUint8(GATE) === 0 || (state.getUint8(MODE) & 3) !== 3) return 0;
    return Number(PIT_HZ) / (state.getUint32(COUNT, true) || 0x1_0000);
  }

  #read(): DataView {
    this.#native.ioctl(KVM_GET_PIT2, this.#state);
    return this.#state;
  }
}
