import { ms } from '../clock/units.ts';
import type { DeviceClock } from '../device/device.ts';
import type { AudioBackend } from './backend.ts';
import { type AudioFormat, fillSilence, frameBytes } from './format.ts';

/** How often samples move, in the guest's time. */
const PERIOD_NS = ms(10);
/** After a pause of the guest's clock as long as this the rest is left out. */
const MAX_CATCH_UP_NS = ms(100);
const SECOND_NS = 1_000_000_000;

/** One stream of sound between a device and a backend, at the pace of the guest's clock. Nothing runs while it is stopped. */
abstract class Voice {
  readonly backend: AudioBackend | undefined;
  readonly #clock: DeviceClock;
  readonly #timer: ReturnType<DeviceClock['timer']>;
  #format: AudioFormat = { format: 's16', channels: 2, frequency: 48_000 };
  #running = false;
  #lastNs = 0;
  /** Parts of a frame that are due, in nanoseconds times frequency. */
  #remainder = 0;

  /** @param name unique within the device */
  constructor(backend: AudioBackend | undefined, clock: DeviceClock, name: string) {
    this.backend = backend;
    this.#clock = clock;
    this.#timer = clock.timer(name, () => this.#tick());
  }

  get format(): AudioFormat {
    return this.#format;
  }

  /** A new format counts from now on. */
  set format(format: AudioFormat) {
    const { running } = this;
    this.stop();
    this.#format = format;
    if (running) this.start();
  }

  get running(): boolean {
    return this.#running;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#lastNs = this.#clock.now();
    this.#remainder = 0;
    this.started();
    this.#timer.arm(PERIOD_NS);
  }

  stop(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#timer.cancel();
    this.stopped();
  }

  /** After a restore, which has put its timer back already: in the state that was saved. */
  resume(format: AudioFormat, running: boolean): void {
    if (this.#running) this.stopped();
    this.#format = format;
    this.#running = running;
    this.#lastNs = this.#clock.now();
    this.#remainder = 0;
    if (!running) {
      this.#timer.cancel();
      return;
    }
    this.started();
    if (!this.#timer.pending) this.#timer.arm(PERIOD_NS);
  }

  protected started(): void {}
  protected stopped(): void {}
  /** Moves so many bytes, whole frames. */
  protected abstract move(bytes: Uint8Array): void;

  #tick(): void {
    const now = this.#clock.now();
    const elapsed = Math.min(MAX_CATCH_UP_NS, now - this.#lastNs);
    this.#lastNs = now;
    const due = elapsed * this.#format.frequency + this.#remainder;
    const frames = Math.floor(due / SECOND_NS);
    this.#remainder = due - frames * SECOND_NS;
    if (frames > 0) this.move(new Uint8Array(frames * frameBytes(this.#format)));
    if (this.#running) this.#timer.arm(PERIOD_NS);
  }
}

/** Sound of a device's: `fill` puts as many bytes as it has to the beginning, and says how many. */
export class PlayedVoice extends Voice {
  readonly #fill: (bytes: Uint8Array) => number;

  constructor(
    backend: AudioBackend | undefined,
    clock: DeviceClock,
    name: string,
    fill: (bytes: Uint8Array) => number,
  ) {
    super(backend, clock, name);
    this.#fill = fill;
  }

  protected override started(): void {
    this.backend?.start(this);
  }

  protected override stopped(): void {
    this.backend?.stop(this);
  }

  protected override move(bytes: Uint8Array): void {
    const filled = this.#fill(bytes);
    const whole = filled - (filled % frameBytes(this.format));
    if (whole > 0) this.backend?.play(this, whole === bytes.length ? bytes : bytes.subarray(0, whole));
  }
}

/** Sound for a device, which takes it. No backend here has a microphone: it is silence. */
export class RecordedVoice extends Voice {
  readonly #take: (bytes: Uint8Array) => void;

  constructor(backend: AudioBackend | undefined, clock: DeviceClock, name: string, take: (bytes: Uint8Array) => void) {
    super(backend, clock, name);
    this.#take = take;
  }

  protected override move(bytes: Uint8Array): void {
    fillSilence(bytes, this.format);
    this.#take(bytes);
  }
}
