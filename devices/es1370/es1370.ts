import type { AudioBackend } from '../../core/audio/backend.ts';
import type { AudioFormat } from '../../core/audio/format.ts';
import { PlayedVoice, RecordedVoice } from '../../core/audio/voice.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { CFG } from '../../core/pci/config-space.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { field } from '../../core/state/fields.ts';
import { CHANNEL, CHANNELS, es1370Registers } from './registers.ts';

const DAC1_RATES = { hz5512: 5512, hz11025: 11_025, hz22050: 22_050, hz44100: 44_100 } as const;
const CLOCK_HZ = 1_411_200;
const FORMATS = {
  mono8: { format: 'u8', channels: 1 },
  stereo8: { format: 'u8', channels: 2 },
  mono16: { format: 's16', channels: 1 },
  stereo16: { format: 's16', channels: 2 },
} as const;
/** Frames are counted in words of the memory that the card shares with the converters. */
const WORD = 4;
/** Slow DEVSEL# timing, and how long the card wants the bus (specification, chapter 4). */
const STATUS_DEVSEL_SLOW = 0x0400;
const MIN_GRANT = 0x0c;
const MAX_LATENCY = 0x80;

const properties = { audiodev: prop.backend<AudioBackend>('audiodev') } as const;

/** Ensoniq AudioPCI: two converters for output and one for input, each with a ring of frames and a count of samples. */
class Es1370 extends PciDevice<typeof properties> {
  readonly #regs = this.bind(es1370Registers, {
    CONTROL: { wrote: (_value, previous) => this.#follow(previous) },
    SERIAL_CONTROL: { wrote: (_value, _previous, _index, written) => this.#serialControl(written) },
    DAC1_FRAME_COUNT: { wrote: () => this.#frames(CHANNEL.DAC1) },
    DAC2_FRAME_COUNT: { wrote: () => this.#frames(CHANNEL.DAC2) },
    ADC_FRAME_COUNT: { wrote: () => this.#frames(CHANNEL.ADC) },
  });
  /** Bytes of the current word that have been moved, and whether a channel that does not loop has come to its end. */
  readonly #channels = Array.from({ length: CHANNELS }, (_, channel) =>
    this.state(1, { leftover: field.u8(), ended: field.bool() }, { name: `channel${channel}` }),
  );
  readonly #voices = [
    new PlayedVoice(this.props.audiodev, this.clock, 'dac1', bytes => this.#move(CHANNEL.DAC1, bytes)),
    new PlayedVoice(this.props.audiodev, this.clock, 'dac2', bytes => this.#move(CHANNEL.DAC2, bytes)),
    new RecordedVoice(this.props.audiodev, this.clock, 'adc', bytes => void this.#move(CHANNEL.ADC, bytes)),
  ] as const;

  protected override realize(): void {
    this.config.set16(CFG.STATUS, STATUS_DEVSEL_SLOW);
    this.config.set8(CFG.MIN_GNT, MIN_GRANT);
    this.config.set8(CFG.MAX_LAT, MAX_LATENCY);
    this.onUnrealize(() => this.#stopAll());
  }

  protected override resetHold(): void {
    this.#stopAll();
    this.#setFormats();
  }

  protected override restored(): void {
    for (const [channel, voice] of this.#voices.entries()) voice.resume(this.#formatOf(channel), this.#runs(channel));
  }

  #stopAll(): void {
    for (const voice of this.#voices) voice.stop();
  }

  // Formats and rates (sections 5.1, 5.5)

  #formatOf(channel: number): AudioFormat {
    const { CONTROL, SERIAL_CONTROL } = this.#regs;
    const frequency =
      channel === CHANNEL.DAC1 ? DAC1_RATES[CONTROL.WTSRSEL] : Math.floor(CLOCK_HZ / (CONTROL.PCLKDIV + 2));
    const name = [SERIAL_CONTROL.P1_FORMAT, SERIAL_CONTROL.P2_FORMAT, SERIAL_CONTROL.R1_FORMAT][channel] ?? 'mono8';
    return { ...FORMATS[name], frequency };
  }

  #setFormats(): void {
    for (const [channel, voice] of this.#voices.entries()) {
      const { format, channels, frequency } = this.#formatOf(channel);
      const now = voice.format;
      if (now.format !== format || now.channels !== channels || now.frequency !== frequency)
        voice.format = { format, channels, frequency };
    }
  }

  /** Bytes of a sample on all sides. */
  #sampleBytes(channel: number): number {
    const { format, channels } = this.#formatOf(channel);
    return (format === 's16' ? 2 : 1) * channels;
  }

  // Running

  #enabled(channel: number): boolean {
    const { DAC1_EN, DAC2_EN, ADC_EN } = this.#regs.CONTROL;
    return [DAC1_EN, DAC2_EN, ADC_EN][channel] ?? false;
  }

  #paused(channel: number): boolean {
    const { P1PAUSE, P2PAUSE } = this.#regs.SERIAL_CONTROL;
    return [P1PAUSE, P2PAUSE, false][channel] ?? false;
  }

  #stopsAtEnd(channel: number): boolean {
    const { P1LOOPSEL, P2LOOPSEL, R1LOOPSEL } = this.#regs.SERIAL_CONTROL;
    return [P1LOOPSEL, P2LOOPSEL, R1LOOPSEL][channel] ?? false;
  }

  /** A channel that is enabled now and was not begins with its whole sample count. */
  #follow(previous: number): void {
    const enables = [1 << 6, 1 << 5, 1 << 4];
    for (let channel = 0; channel < CHANNELS; channel++) {
      if (!this.#enabled(channel) || (previous & (enables[channel] ?? 0)) !== 0) continue;
      this.#reload(channel);
      const state = this.#channels[channel];
      if (state !== undefined) state.ended = false;
    }
    this.#setFormats();
    this.#run();
  }

  #reload(channel: number): void {
    const count = this.#regs.SAMPLE_COUNT.at(channel);
    count.CURRENT = count.COUNT;
  }

  #serialControl(written: number): void {
    const { SERIAL_CONTROL, STATUS } = this.#regs;
    if ((written & RELOAD_DAC1) !== 0) this.#reload(CHANNEL.DAC1);
    // Disabling an interrupt is how software acknowledges it.
    if (!SERIAL_CONTROL.P1INTEN) STATUS.DAC1 = false;
    if (!SERIAL_CONTROL.P2INTEN) STATUS.DAC2 = false;
    if (!SERIAL_CONTROL.R1INTEN) STATUS.ADC = false;
    this.#update();
    this.#setFormats();
    this.#run();
  }

  #run(): void {
    for (const [channel, voice] of this.#voices.entries()) {
      if (this.#runs(channel)) voice.start();
      else voice.stop();
    }
  }

  #runs(channel: number): boolean {
    const ended = this.#channels[channel]?.ended ?? false;
    return this.#enabled(channel) && !this.#paused(channel) && !ended;
  }

  // Frames and samples (sections 5.6, 5.7)

  #frames(channel: number): void {
    const state = this.#channels[channel];
    if (state !== undefined) state.leftover = 0;
  }

  #ring(channel: number): { address: number; count: { SIZE: number; CURRENT: number } } {
    const regs = this.#regs;
    if (channel === CHANNEL.DAC1) return { address: regs.DAC1_FRAME_ADDRESS.value, count: regs.DAC1_FRAME_COUNT };
    if (channel === CHANNEL.DAC2) return { address: regs.DAC2_FRAME_ADDRESS.value, count: regs.DAC2_FRAME_COUNT };
    return { address: regs.ADC_FRAME_ADDRESS.value, count: regs.ADC_FRAME_COUNT };
  }

  /** Moves samples between a channel's ring and `bytes`; interrupts whenever its sample count has run down. */
  #move(channel: number, bytes: Uint8Array): number {
    const state = this.#channels[channel];
    const samples = this.#regs.SAMPLE_COUNT.at(channel);
    const { address, count } = this.#ring(channel);
    const sample = this.#sampleBytes(channel);
    if (state === undefined) return 0;
    let done = 0;
    while (done < bytes.length && !state.ended) {
      if (count.CURRENT > count.SIZE) return done;
      const left = (count.SIZE - count.CURRENT + 1) * WORD - state.leftover;
      const untilInterrupt = (samples.CURRENT + 1) * sample;
      const step = Math.min(bytes.length - done, left, untilInterrupt);
      const at = address + count.CURRENT * WORD + state.leftover;
      if (channel === CHANNEL.ADC) this.dma.write(at, bytes, done, step);
      else this.dma.read(at, bytes, done, step);
      done += step;
      const moved = state.leftover + step;
      const next = count.CURRENT + Math.floor(moved / WORD);
      state.leftover = moved % WORD;
      count.CURRENT = next > count.SIZE ? 0 : next;
      if (step === untilInterrupt) this.#counted(channel);
      else samples.CURRENT = Math.max(0, Math.floor((untilInterrupt - step) / sample) - 1);
    }
    return done;
  }

  #counted(channel: number): void {
    const { SERIAL_CONTROL, STATUS } = this.#regs;
    this.#reload(channel);
    if (channel === CHANNEL.DAC1 && SERIAL_CONTROL.P1INTEN) STATUS.DAC1 = true;
    if (channel === CHANNEL.DAC2 && SERIAL_CONTROL.P2INTEN) STATUS.DAC2 = true;
    if (channel === CHANNEL.ADC && SERIAL_CONTROL.R1INTEN) STATUS.ADC = true;
    this.#update();
    const state = this.#channels[channel];
    if (state === undefined || !this.#stopsAtEnd(channel)) return;
    state.ended = true;
    this.#voices[channel]?.stop();
  }

  #update(): void {
    const { STATUS } = this.#regs;
    STATUS.INTR = STATUS.DAC1 || STATUS.DAC2 || STATUS.ADC;
    this.irq.set(STATUS.INTR);
  }
}

const RELOAD_DAC1 = 1 << 7;

export const es1370 = deviceType({
  type: 'ES1370',
  summary: 'Ensoniq AudioPCI ES1370',
  category: 'sound',
  properties,
  pci: {
    vendor: 0x1274,
    device: 0x5000,
    class: 0x04_0100,
    subsystemVendor: 0x4942,
    subsystem: 0x4c4c,
    pin: 'A',
  },
  bars: {
    0: {
      size: 256,
      space: 'io',
      map: es1370Registers,
      access: { valid: { min: 1, max: 4 }, impl: { min: 4, max: 4 } },
    },
  },
  create: Es1370,
});
