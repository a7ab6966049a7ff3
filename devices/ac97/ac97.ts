import type { AudioBackend } from '../../core/audio/backend.ts';
import type { AudioFormat } from '../../core/audio/format.ts';
import { attenuate } from '../../core/audio/gain.ts';
import { PlayedVoice, RecordedVoice } from '../../core/audio/voice.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import type { IoHandler } from '../../core/memory/memory-region.ts';
import { CFG } from '../../core/pci/config-space.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { RegisterBank } from '../../core/register/register.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { busMasterRegisters, CHANNEL, CHANNELS, mixerRegisters } from './registers.ts';

const RATE = 48_000;
const LIST_ENTRIES = 32;
const DESCRIPTOR_SIZE = 8;
const SAMPLE = 2;
/** The last sample again while nothing follows, rather than silence: the descriptor's BUP bit. */
const DESCRIPTOR = { INTERRUPT: 0x8000_0000, REPEAT_LAST: 0x4000_0000, SAMPLES: 0xffff } as const;
const FRAME = 4;

/** Bits of CR, of SR after a reset, and of GLOB_CNT. */
const RUN = 1;
const RESET_REGISTERS = 2;
const HALTED = 1;
const COLD_RESET = 2;
const WARM_RESET = 4;
/** Fast back-to-back, and medium DEVSEL# timing (section 13.1.4). */
const STATUS_CAPABLE = 0x0280;

const bufferFields = { valid: field.bool(), address: field.u32(), control: field.u32() } as const;

const properties = { audiodev: prop.backend<AudioBackend>('audiodev') } as const;

/** Intel's AC'97 controller (82801AA) with a SigmaTel codec. */
class Ac97 extends PciDevice<typeof properties> {
  readonly #mixer: RegisterBank<typeof mixerRegisters> = this.bank(mixerRegisters, {
    RESET: { write: (_value, previous) => this.#resetCodec(previous) },
    EXTENDED_AUDIO_CONTROL: { wrote: () => this.#fixedRates() },
    FRONT_DAC_RATE: { write: (value, previous) => (this.#mix.EXTENDED_AUDIO_CONTROL.VRA ? value : previous) },
    ADC_RATE: { write: (value, previous) => (this.#mix.EXTENDED_AUDIO_CONTROL.VRA ? value : previous) },
    MIC_ADC_RATE: { write: (value, previous) => (this.#mix.EXTENDED_AUDIO_CONTROL.VRM ? value : previous) },
  });
  readonly #mix = this.#mixer.regs;
  readonly #regs = this.bind(busMasterRegisters, {
    LVI: { write: (value, _previous, channel) => this.#extendList(channel, value) },
    SR: { wrote: () => this.#update() },
    CR: { wrote: (_value, previous, channel, written) => this.#control(channel, previous, written) },
    GLOB_CNT: { write: (value, previous) => ((value & (COLD_RESET | WARM_RESET)) !== 0 ? previous : value) },
    CAS: { read: taken => this.#takeCodec(taken) },
  });
  /** What of the descriptor in use is left, beside PICB. */
  readonly #buffers = Array.from({ length: CHANNELS }, (_, channel) =>
    this.state(1, bufferFields, { name: `buffer${channel}` }),
  );
  readonly #last = this.state(1, { frame: field.u32(), repeat: field.bool() }, { name: 'last' });
  readonly #played = new PlayedVoice(this.props.audiodev, this.clock, 'po', bytes => this.#play(bytes));
  readonly #recorded = new RecordedVoice(this.props.audiodev, this.clock, 'pi', bytes =>
    this.#record(CHANNEL.PI, bytes),
  );
  readonly #microphone = new RecordedVoice(this.props.audiodev, this.clock, 'mc', bytes =>
    this.#record(CHANNEL.MC, bytes),
  );

  protected override realize(): void {
    this.config.set16(CFG.STATUS, STATUS_CAPABLE);
    this.bar(0, this.shielded(this.#codec(this.#mixer)));
    this.onUnrealize(() => this.#stopAll());
  }

  protected override resetHold(): void {
    this.#stopAll();
    this.#setRates();
  }

  protected override restored(): void {
    const { FRONT_DAC_RATE, ADC_RATE, MIC_ADC_RATE } = this.#mix;
    const rates = [ADC_RATE.value, FRONT_DAC_RATE.value, MIC_ADC_RATE.value];
    for (let channel = 0; channel < CHANNELS; channel++)
      this.#voice(channel).resume(formatOf(rates[channel] ?? RATE), this.#regs.CR.at(channel).RPBM);
  }

  // The codec

  /** Its registers are words, behind a serial link: using one gives the semaphore back (ICH datasheet, section 13.2.10). */
  #codec(bank: RegisterBank<typeof mixerRegisters>): IoHandler {
    return {
      read: (offset, size) => {
        this.#regs.CAS.value = 0;
        return size === 2 ? bank.read(offset, size) : size === 1 ? 0xff : 0xffff_ffff;
      },
      write: (offset, size, value) => {
        this.#regs.CAS.value = 0;
        if (size !== 2) return;
        bank.write(offset, size, value);
        this.#setRates();
      },
    };
  }

  #takeCodec(taken: number): number {
    this.#regs.CAS.value = 1;
    return taken;
  }

  #resetCodec(value: number): number {
    this.#mixer.reset();
    return value;
  }

  /** Without variable rates all of them are 48 kHz. */
  #fixedRates(): void {
    const { EXTENDED_AUDIO_CONTROL, FRONT_DAC_RATE, ADC_RATE, MIC_ADC_RATE } = this.#mix;
    if (!EXTENDED_AUDIO_CONTROL.VRA) {
      FRONT_DAC_RATE.value = RATE;
      ADC_RATE.value = RATE;
    }
    if (!EXTENDED_AUDIO_CONTROL.VRM) MIC_ADC_RATE.value = RATE;
  }

  #setRates(): void {
    setRate(this.#played, this.#mix.FRONT_DAC_RATE.value);
    setRate(this.#recorded, this.#mix.ADC_RATE.value);
    setRate(this.#microphone, this.#mix.MIC_ADC_RATE.value);
  }

  /** Attenuations of the output: 63 steps of the master volume, 31 of the PCM volume. */
  #attenuate(bytes: Uint8Array): void {
    const { MASTER_VOLUME: master, PCM_OUT_VOLUME: pcm } = this.#mix;
    const mute = master.MUTE || pcm.MUTE;
    const gain = (first: number, second: number): number => (mute ? 0 : (1 - first / 63) * (1 - second / 31));
    attenuate(bytes, this.#played.format, gain(master.LEFT, pcm.LEFT), gain(master.RIGHT, pcm.RIGHT));
  }

  // The bus master (section 13.2)

  #control(channel: number, previous: number, written: number): void {
    const control = this.#regs.CR.at(channel);
    const status = this.#regs.SR.at(channel);
    if ((written & RESET_REGISTERS) !== 0) {
      this.#resetChannel(channel, previous);
    } else if (!control.RPBM) {
      status.DCH = true;
    } else if ((previous & RUN) === 0) {
      // What was paused goes on where it was; what had ended or not begun takes the next descriptor.
      if (!this.#buffer(channel).valid || status.CELV) this.#nextDescriptor(channel);
      status.DCH = false;
      status.CELV = false;
    }
    this.#follow(channel);
    this.#update();
  }

  /** All registers of a channel but its interrupt enables. */
  #resetChannel(channel: number, previous: number): void {
    const { BDBAR, CIV, LVI, SR, PICB, PIV, CR } = this.#regs;
    for (const register of [BDBAR, CIV, LVI, PICB, PIV]) register.at(channel).value = 0;
    SR.at(channel).value = HALTED;
    CR.at(channel).value = previous & ~(RUN | RESET_REGISTERS);
    Object.assign(this.#buffer(channel), { valid: false, address: 0, control: 0 });
  }

  /** A halted channel goes on once there are more descriptors. */
  #extendList(channel: number, value: number): number {
    const status = this.#regs.SR.at(channel);
    if (this.#regs.CR.at(channel).RPBM && status.DCH) {
      status.DCH = false;
      status.CELV = false;
      this.#nextDescriptor(channel);
    }
    return value;
  }

  #nextDescriptor(channel: number): void {
    const { BDBAR, CIV, PIV, PICB } = this.#regs;
    const index = PIV.at(channel).INDEX;
    CIV.at(channel).INDEX = index;
    PIV.at(channel).INDEX = (index + 1) % LIST_ENTRIES;
    const at = BDBAR.at(channel).value + index * DESCRIPTOR_SIZE;
    const buffer = this.#buffer(channel);
    buffer.valid = true;
    buffer.address = (this.dma.read32(at) & ~3) >>> 0;
    buffer.control = this.dma.read32(at + 4);
    PICB.at(channel).value = buffer.control & DESCRIPTOR.SAMPLES;
  }

  #buffer(channel: number): StateValues<typeof bufferFields> {
    const buffer = this.#buffers[channel];
    if (buffer === undefined) throw new RangeError(`there is no channel ${channel}`);
    return buffer;
  }

  /**
   * Moves `length` bytes between the buffers of a channel and whatever `move` does with a stretch of memory.
   * @returns the bytes that were moved before the list ended
   */
  #transfer(channel: number, length: number, move: (address: number, at: number, length: number) => void): number {
    const { CIV, LVI, PICB, SR } = this.#regs;
    const status = SR.at(channel);
    const left = PICB.at(channel);
    const buffer = this.#buffer(channel);
    let done = 0;
    for (let turns = 0; turns < LIST_ENTRIES && done < length && !status.DCH; turns++) {
      const step = Math.min(left.value * SAMPLE, length - done);
      if (step > 0) move(buffer.address, done, step);
      done += step;
      buffer.address = (buffer.address + step) >>> 0;
      left.value -= step / SAMPLE;
      if (left.value > 0) break;
      if (step > 0 && (buffer.control & DESCRIPTOR.INTERRUPT) !== 0) status.BCIS = true;
      if (CIV.at(channel).INDEX === LVI.at(channel).INDEX) {
        Object.assign(status, { LVBCI: true, DCH: true, CELV: true });
        this.#last.repeat = (buffer.control & DESCRIPTOR.REPEAT_LAST) !== 0;
      } else {
        this.#nextDescriptor(channel);
      }
    }
    this.#update();
    return done;
  }

  #play(bytes: Uint8Array): number {
    const done = this.#transfer(CHANNEL.PO, bytes.length, (address, at, length) =>
      this.dma.read(address, bytes, at, length),
    );
    if (done >= FRAME) this.#last.frame = new DataView(bytes.buffer, bytes.byteOffset).getUint32(done - FRAME, true);
    this.#underrun(bytes, done);
    this.#attenuate(bytes);
    return bytes.length;
  }

  /** What is heard while the list has ended: silence, or the last frame on and on. */
  #underrun(bytes: Uint8Array, from: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const frame = this.#last.repeat ? this.#last.frame : 0;
    for (let at = from; at + FRAME <= bytes.length; at += FRAME) view.setUint32(at, frame, true);
  }

  #record(channel: number, bytes: Uint8Array): void {
    this.#transfer(channel, bytes.length, (address, at, length) => this.dma.write(address, bytes, at, length));
  }

  #voice(channel: number): PlayedVoice | RecordedVoice {
    return channel === CHANNEL.PO ? this.#played : channel === CHANNEL.PI ? this.#recorded : this.#microphone;
  }

  #follow(channel: number): void {
    if (this.#regs.CR.at(channel).RPBM) this.#voice(channel).start();
    else this.#voice(channel).stop();
  }

  #stopAll(): void {
    for (let channel = 0; channel < CHANNELS; channel++) this.#voice(channel).stop();
  }

  /** Sections 13.2.4 and 13.2.9: a channel's reasons that are enabled make its bit, and all of them the interrupt. */
  #update(): void {
    const wants = (channel: number): boolean => {
      const { LVBCI, BCIS, FIFOE } = this.#regs.SR.at(channel);
      const { LVBIE, IOCE, FEIE } = this.#regs.CR.at(channel);
      return (LVBCI && LVBIE) || (BCIS && IOCE) || (FIFOE && FEIE);
    };
    const [PIINT, POINT, MINT] = [wants(CHANNEL.PI), wants(CHANNEL.PO), wants(CHANNEL.MC)];
    Object.assign(this.#regs.GLOB_STA, { PIINT, POINT, MINT });
    this.irq.set(PIINT || POINT || MINT);
  }
}

/** A rate of 0 is none: nothing moves. */
const formatOf = (frequency: number): AudioFormat => ({ format: 's16', channels: 2, frequency });

function setRate(voice: PlayedVoice | RecordedVoice, frequency: number): void {
  const now = voice.format;
  if (now.frequency !== frequency || now.format !== 's16' || now.channels !== 2) voice.format = formatOf(frequency);
}

export const ac97 = deviceType({
  type: 'AC97',
  summary: "Intel AC'97 audio (82801AA)",
  category: 'sound',
  properties,
  pci: {
    vendor: 0x8086,
    device: 0x2415,
    revision: 1,
    class: 0x04_0100,
    pin: 'A',
  },
  bars: {
    0: { size: 1024, space: 'io', map: mixerRegisters, access: { impl: { min: 1, max: 4 } } },
    1: { size: 256, space: 'io', map: busMasterRegisters, access: { impl: { min: 1, max: 4 } } },
  },
  create: Ac97,
});
