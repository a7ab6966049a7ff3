import type { AudioBackend } from '../core/audio/backend.ts';
import { PlayedVoice } from '../core/audio/voice.ts';
import { IsaDevice } from '../core/bus/isa.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { field } from '../core/state/fields.ts';
import type { I8254 } from './i8254.ts';

const FORMAT = { format: 'u8', channels: 1, frequency: 32_000 } as const;
const HIGH = 0xff;
const LOW = 0x00;

const properties = {
  iobase: prop.u32({ default: 0x61 }),
  audiodev: prop.backend<AudioBackend>('audiodev'),
  migrate: prop.bool({ default: true }),
};

/** Port 61h of a PC: the gate and output of the timer's counter 2, and the refresh clock (82371SB datasheet, section 2.5.5). */
class PcSpeaker extends IsaDevice<typeof properties> {
  readonly #s = this.state(1, { dataOn: field.bool(), refresh: field.bool() });
  readonly #voice = new PlayedVoice(this.props.audiodev, this.clock, 'tone', bytes => this.#fill(bytes));
  /** Where in a period of the tone the next sample is, from 0 to 1. */
  #phase = 0;
  /** Wired by the machine. */
  pit: I8254 | undefined;

  protected override realize(): void {
    this.#voice.format = FORMAT;
    this.onUnrealize(() => this.#voice.stop());
    this.ports(
      this.props.iobase,
      1,
      { read: () => this.#read(), write: (_offset, _size, value) => this.#write(value) },
      { impl: { min: 1, max: 1 } },
      'pcspk',
    );
  }

  protected override resetHold(): void {
    this.#voice.stop();
  }

  protected override restored(): void {
    this.#sound();
  }

  #read(): number {
    // Bit 4 toggles with each memory refresh; software only waits for it to change.
    this.#s.refresh = !this.#s.refresh;
    const { pit } = this;
    return (
      (pit?.gate2 ? 0x01 : 0) | (this.#s.dataOn ? 0x02 : 0) | (this.#s.refresh ? 0x10 : 0) | (pit?.output2() ? 0x20 : 0)
    );
  }

  #write(value: number): void {
    this.#s.dataOn = (value & 2) !== 0;
    this.pit?.setGate2((value & 1) !== 0);
    this.#sound();
  }

  /** The speaker is heard while the counter may count and its output comes through. */
  #sound(): void {
    if (this.props.audiodev === undefined) return;
    if (this.#s.dataOn && this.pit?.gate2) this.#voice.start();
    else this.#voice.stop();
  }

  /** A square wave of the counter's frequency; one that is beyond hearing is none. */
  #fill(bytes: Uint8Array): number {
    const step = (this.pit?.tone2 ?? 0) / FORMAT.frequency;
    if (step <= 0 || step >= 0.5) bytes.fill(HIGH / 2 + 1);
    else {
      for (let index = 0; index < bytes.length; index++) {
        bytes[index] = this.#phase < 0.5 ? HIGH : LOW;
        this.#phase = (this.#phase + step) % 1;
      }
    }
    return bytes.length;
  }
}

export const pcSpeaker = deviceType({
  type: 'isa-pcspk',
  summary: 'PC speaker',
  bus: 'ISA',
  parents: ['isa-device', 'device'],
  userCreatable: false,
  properties,
  create: PcSpeaker,
});
