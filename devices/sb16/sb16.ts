import type { AudioBackend } from '../../core/audio/backend.ts';
import { type AudioFormat, frameBytes } from '../../core/audio/format.ts';
import { attenuate } from '../../core/audio/gain.ts';
import { PlayedVoice, RecordedVoice } from '../../core/audio/voice.ts';
import { IsaDevice, type IsaDmaChannel } from '../../core/bus/isa.ts';
import { seconds } from '../../core/clock/units.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { field } from '../../core/state/fields.ts';
import { DSP_COMMANDS, type DspHost } from './commands.ts';
import { Mixer, mixerState } from './mixer.ts';
import { sb16Registers } from './registers.ts';

const PORTS = 16;
const ANSWERS_MAX = 64;
const RESET_DONE = 0xaa;
const NO_COMMAND = -1;
/** Reasons of the card's interrupt, as register 82h of the mixer shows them. */
const INTERRUPT = { DMA8: 1, DMA16: 2 } as const;
/** The DSP's own clock behind a time constant. */
const TIME_CONSTANT_HZ = 1_000_000;
const RATE_MIN = 5000;
const RATE_MAX = 45_000;
const DEFAULT_RATE = 11_025;
/** What is read ahead of the converter: one tick of its voice at the highest rate. */
const FIFO_SIZE = 0x4000;

const properties = {
  audiodev: prop.backend<AudioBackend>('audiodev'),
  version: prop.u32({ default: 0x0405 }),
  iobase: prop.u32({ default: 0x220 }),
  irq: prop.u32({ default: 5 }),
  dma: prop.u32({ default: 1 }),
  dma16: prop.u32({ default: 5 }),
} as const;

/** Creative Sound Blaster 16: a DSP that plays and records by DMA, and a mixer; without FM synthesizer and MIDI. */
class Sb16 extends IsaDevice<typeof properties> implements DspHost {
  readonly #regs = this.bank(sb16Registers, {
    MIXER_ADDRESS: { read: () => this.#mixing.index, write: value => (this.#mixing.index = value) },
    MIXER_DATA: { read: () => this.#mixer.read(), wrote: value => this.#mixer.write(value) },
    DSP_RESET: { wrote: (value, previous) => this.#resetPort(value, previous) },
    DSP_READ_DATA: { read: () => this.#takeAnswer() },
    DSP_WRITE: { wrote: value => this.#written(value) },
    DSP_WRITE_STATUS: { read: () => 0x7f },
    DSP_READ_STATUS: { read: () => this.#acknowledge(INTERRUPT.DMA8) },
    ACKNOWLEDGE_16: { read: () => this.#acknowledge(INTERRUPT.DMA16) },
  });
  readonly #s = this.state(1, {
    command: field.number(NO_COMMAND),
    data: field.buffer(4),
    answers: field.buffer(ANSWERS_MAX),
    lastAnswer: field.u8(),
    testRegister: field.u8(),
    speaker: field.bool(),
    pending: field.u8(),
    rate: field.u32(DEFAULT_RATE),
    /** Of 8-bit commands that do not say how long: set by command 48h. */
    block: field.u32(1),
    highSpeed: field.bool(),
  });
  /** The transfer under way. */
  readonly #t = this.state(
    1,
    {
      active: field.bool(),
      paused: field.bool(),
      wide: field.bool(),
      signed: field.bool(),
      stereo: field.bool(),
      /** The rate is that of samples, not of frames: the SB Pro's stereo. */
      perSample: field.bool(),
      input: field.bool(),
      auto: field.bool(),
      length: field.u32(),
      left: field.u32(),
    },
    { name: 'transfer' },
  );
  readonly #mixing = this.state(1, mixerState, { name: 'mixer', onReset: 'keep' });
  readonly #mixer = new Mixer(this.#mixing, this.props, () => this.#s.pending);
  readonly #line = this.unlistedOutput('irq');
  readonly #played = new PlayedVoice(this.props.audiodev, this.clock, 'output', bytes => this.#play(bytes));
  readonly #recorded = new RecordedVoice(this.props.audiodev, this.clock, 'input', bytes => this.#want(bytes.length));
  readonly #silence = this.clock.timer('silence', () => this.#interrupt(INTERRUPT.DMA8));
  readonly #fifo = new Uint8Array(FIFO_SIZE);
  #filled = 0;
  /** Bytes that the converter has made room for, or has. */
  #wanted = 0;
  #channel8: IsaDmaChannel | undefined;
  #channel16: IsaDmaChannel | undefined;

  protected override realize(): void {
    const { iobase, irq, dma, dma16 } = this.props;
    this.#channel8 = this.isaBus.dmaChannel(dma, this.typeName);
    this.#channel16 = this.isaBus.dmaChannel(dma16, this.typeName);
    this.#channel8?.register((channel, position, size) => this.#transfer(channel, false, position, size));
    this.#channel16?.register((channel, position, size) => this.#transfer(channel, true, position, size));
    this.ports(iobase, PORTS, this.#regs, { impl: { min: 1, max: 1 } });
    this.connectIrq(this.#line, irq);
    this.onUnrealize(() => this.stop());
  }

  protected override resetHold(): void {
    this.#mixer.reset();
    this.#mixing.index = 0;
    this.#resetDsp();
    this.answer(RESET_DONE);
  }

  protected override restored(): void {
    const { active, paused, input } = this.#t;
    this.#filled = 0;
    this.#wanted = 0;
    this.#played.resume(this.#format, active && !paused && !input);
    this.#recorded.resume(this.#format, active && !paused && input);
  }

  // The DSP's ports (chapter 2)

  #resetPort(value: number, previous: number): void {
    if ((value & 1) !== 0 || (previous & 1) === 0) return;
    // During a transfer at high speed this is the only way to end it, and ends nothing else.
    if (this.#s.highSpeed) {
      this.stop();
      return;
    }
    this.#resetDsp();
    this.answer(RESET_DONE);
  }

  #resetDsp(): void {
    this.stop();
    this.#silence.cancel();
    const s = this.#s;
    s.command = NO_COMMAND;
    s.data = new Uint8Array(0);
    s.answers = new Uint8Array(0);
    s.speaker = false;
    s.pending = 0;
    s.rate = DEFAULT_RATE;
    this.#line.lower();
  }

  #takeAnswer(): number {
    const s = this.#s;
    const [next] = s.answers;
    if (next === undefined) return s.lastAnswer;
    s.lastAnswer = next;
    s.answers = s.answers.slice(1);
    return next;
  }

  #acknowledge(interrupt: number): number {
    const s = this.#s;
    s.pending &= ~interrupt;
    if (s.pending === 0) this.#line.lower();
    return interrupt === INTERRUPT.DMA16 ? 0xff : s.answers.length > 0 ? 0xff : 0x7f;
  }

  /** A command, or data of the one before. */
  #written(value: number): void {
    const s = this.#s;
    if (s.command === NO_COMMAND) {
      s.command = value;
      s.data = new Uint8Array(0);
    } else {
      s.data = Uint8Array.of(...s.data, value);
    }
    const command = DSP_COMMANDS.get(s.command);
    if (command === undefined) {
      this.log.unimplemented(`DSP command 0x${s.command.toString(16)}`);
      s.command = NO_COMMAND;
      return;
    }
    if (s.data.length < command.bytes) return;
    const [first = 0, second = 0, third = 0] = s.data;
    const code = s.command;
    s.command = NO_COMMAND;
    command.run(this, first, second, third, code);
  }

  // DspHost

  get version(): number {
    return this.props.version;
  }

  get speaker(): boolean {
    return this.#s.speaker;
  }

  set speaker(on: boolean) {
    this.#s.speaker = on;
  }

  get testRegister(): number {
    return this.#s.testRegister;
  }

  set testRegister(value: number) {
    this.#s.testRegister = value;
  }

  get block(): number {
    return this.#s.block;
  }

  set block(bytes: number) {
    this.#s.block = bytes;
  }

  answer(...bytes: readonly number[]): void {
    this.#s.answers = Uint8Array.of(...this.#s.answers, ...bytes).slice(0, ANSWERS_MAX);
  }

  setRate(hertz: number): void {
    this.#s.rate = Math.max(RATE_MIN, Math.min(RATE_MAX, hertz));
    this.#follow();
  }

  setTimeConstant(constant: number): void {
    this.#s.rate = Math.max(RATE_MIN, Math.min(2 * RATE_MAX, Math.floor(TIME_CONSTANT_HZ / (256 - constant))));
    this.#follow();
  }

  interrupt(wide: boolean): void {
    this.#interrupt(wide ? INTERRUPT.DMA16 : INTERRUPT.DMA8);
  }

  silence(samples: number): void {
    this.#silence.arm((samples * seconds(1)) / this.#s.rate);
  }

  /** An 8-bit transfer of the older commands: `length` bytes, or blocks as command 48h has set them, on and on. */
  start8(options: { readonly length?: number; readonly input: boolean; readonly highSpeed?: boolean }): void {
    const auto = options.length === undefined;
    this.#s.highSpeed = options.highSpeed ?? false;
    const length = options.length ?? this.#s.block;
    const stereo = this.#proStereo;
    this.#start({ wide: false, signed: false, stereo, perSample: true, input: options.input, auto, length });
  }

  /** The SB Pro's stereo is a switch of its mixer (register 0Eh). */
  get #proStereo(): boolean {
    return ((this.#mixing.registers[0x0e] ?? 0) & 2) !== 0;
  }

  /** A transfer of the SB16's own commands: so many samples, of 8 or 16 bits. */
  startGeneric(command: number, mode: number, samples: number): void {
    const wide = (command & 0xf0) === 0xb0;
    this.#s.highSpeed = false;
    this.#start({
      wide,
      signed: (mode & 0x10) !== 0,
      stereo: (mode & 0x20) !== 0,
      perSample: false,
      input: (command & 0x08) !== 0,
      auto: (command & 0x04) !== 0,
      length: wide ? samples * 2 : samples,
    });
  }

  pause(wide: boolean, paused: boolean): void {
    if (this.#t.wide === wide) this.#t.paused = paused;
    this.#follow();
  }

  /** The block under way is the last one. */
  finish(wide: boolean): void {
    if (this.#t.wide === wide) this.#t.auto = false;
  }

  resumeAuto(wide: boolean): void {
    if (this.#t.wide === wide) this.#t.auto = true;
  }

  stop(): void {
    Object.assign(this.#t, { active: false, paused: false, auto: false });
    this.#s.highSpeed = false;
    this.#follow();
  }

  // Transfers (chapter 3)

  #start(transfer: {
    wide: boolean;
    signed: boolean;
    stereo: boolean;
    perSample: boolean;
    input: boolean;
    auto: boolean;
    length: number;
  }): void {
    Object.assign(this.#t, transfer, { active: true, paused: false, left: transfer.length });
    this.#filled = 0;
    this.#wanted = 0;
    this.#follow();
    // The FIFO fills at once, whatever the converter does.
    if (!transfer.input) this.#want(frameBytes(this.#format));
  }

  get #format(): AudioFormat {
    const { wide, signed, stereo, perSample } = this.#t;
    const channels = stereo ? 2 : 1;
    const frequency = perSample ? Math.floor(this.#s.rate / channels) : this.#s.rate;
    return { format: `${signed ? 's' : 'u'}${wide ? 16 : 8}`, channels, frequency };
  }

  /** The converters and requests are as the transfer under way is. */
  #follow(): void {
    const { active, paused, input } = this.#t;
    const format = this.#format;
    for (const voice of [this.#played, this.#recorded]) {
      const now = voice.format;
      if (now.format !== format.format || now.channels !== format.channels || now.frequency !== format.frequency)
        voice.format = format;
    }
    const running = active && !paused;
    if (running && !input) this.#played.start();
    else this.#played.stop();
    if (running && input) this.#recorded.start();
    else this.#recorded.stop();
    if (!running) for (const channel of [this.#channel8, this.#channel16]) channel?.request(false);
  }

  get #channel(): IsaDmaChannel | undefined {
    return this.#t.wide ? this.#channel16 : this.#channel8;
  }

  #want(bytes: number): void {
    this.#wanted = Math.min(FIFO_SIZE, this.#wanted + bytes);
    if (this.#wanted > 0) this.#channel?.request(true);
  }

  /** What has come by DMA since the last time is heard now, while the next is fetched. */
  #play(bytes: Uint8Array): number {
    const length = Math.min(bytes.length, this.#filled);
    bytes.set(this.#fifo.subarray(0, length));
    this.#fifo.copyWithin(0, length, this.#filled);
    this.#filled -= length;
    this.#wanted = 0;
    this.#want(Math.min(FIFO_SIZE - this.#filled, bytes.length));
    const [left, right] = this.#mixer.gains();
    attenuate(bytes.subarray(0, length), this.#played.format, left, right);
    return length;
  }

  /** The controller's side: moves what is wanted, and interrupts at the end of each block. */
  #transfer(channel: IsaDmaChannel, wide: boolean, position: number, size: number): number {
    const t = this.#t;
    if (!t.active || t.paused || t.wide !== wide) {
      channel.request(false);
      return position;
    }
    const length = Math.min(this.#wanted, size - position, t.left);
    if (t.input) channel.writeMemory(this.#silentInput(length), 0, position, length);
    else {
      channel.readMemory(this.#fifo, this.#filled, position, length);
      this.#filled += length;
    }
    this.#wanted -= length;
    t.left -= length;
    if (t.left === 0) this.#blockDone();
    if (this.#wanted === 0 || !t.active) channel.request(false);
    return position + length;
  }

  #silentInput(length: number): Uint8Array {
    const silence = new Uint8Array(length);
    if (!this.#t.signed) {
      for (let at = 0; at < length; at++) silence[at] = !this.#t.wide || at % 2 === 1 ? 0x80 : 0;
    }
    return silence;
  }

  #blockDone(): void {
    const t = this.#t;
    this.#interrupt(t.wide ? INTERRUPT.DMA16 : INTERRUPT.DMA8);
    if (t.auto) {
      t.left = t.length;
      return;
    }
    t.active = false;
    this.#s.highSpeed = false;
    this.#follow();
  }

  #interrupt(which: number): void {
    this.#s.pending |= which;
    this.#line.raise();
  }
}

export const sb16 = deviceType({
  type: 'sb16',
  summary: 'Creative Sound Blaster 16',
  bus: 'ISA',
  category: 'sound',
  parents: ['isa-device', 'device'],
  properties,
  create: Sb16,
});
