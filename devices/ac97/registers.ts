import { bit, bits, choice, r8, r16, r32, registerMap } from '../../core/register/register.ts';

const RO = { access: 'ro' } as const;
/** What this codec has no circuit for: it reads 0. */
const ABSENT = { access: 'ro', doc: 'this codec has none' } as const;
const RATE = { reset: 48_000 } as const;
const RECORD_SOURCES = { mic: 0, cd: 1, video: 2, aux: 3, line: 4, stereoMix: 5, monoMix: 6, phone: 7 } as const;

/** The codec's mixer: Audio Codec '97, revision 2.1, section 5.7; a SigmaTel STAC9700. Words only. */
export const mixerRegisters = registerMap(
  'ac97-nam',
  {
    RESET: r16(0x00, {}, { doc: 'any write resets the codec' }),
    MASTER_VOLUME: r16(0x02, { RIGHT: bits(0, 6), LEFT: bits(8, 6), MUTE: bit(15) }, { reset: 0x8000 }),
    HEADPHONE_VOLUME: r16(0x04, {}, ABSENT),
    MONO_VOLUME: r16(0x06, {}, ABSENT),
    TONE: r16(0x08, {}, ABSENT),
    PC_BEEP_VOLUME: r16(0x0a, {}, ABSENT),
    PHONE_VOLUME: r16(0x0c, {}, ABSENT),
    MIC_VOLUME: r16(0x0e, {}, ABSENT),
    LINE_IN_VOLUME: r16(0x10, {}, ABSENT),
    CD_VOLUME: r16(0x12, {}, ABSENT),
    VIDEO_VOLUME: r16(0x14, {}, ABSENT),
    AUX_VOLUME: r16(0x16, {}, ABSENT),
    PCM_OUT_VOLUME: r16(0x18, { RIGHT: bits(0, 5), LEFT: bits(8, 5), MUTE: bit(15) }, { reset: 0x8808 }),
    RECORD_SELECT: r16(0x1a, { RIGHT: choice(0, 3, RECORD_SOURCES), LEFT: choice(8, 3, RECORD_SOURCES) }),
    RECORD_GAIN: r16(0x1c, { RIGHT: bits(0, 4), LEFT: bits(8, 4), MUTE: bit(15) }, { reset: 0x8808 }),
    RECORD_GAIN_MIC: r16(0x1e, {}, ABSENT),
    GENERAL_PURPOSE: r16(0x20, {}, ABSENT),
    CONTROL_3D: r16(0x22, {}, ABSENT),
    POWERDOWN: r16(
      0x26,
      { ADC: bit(0, 'ro'), DAC: bit(1, 'ro'), ANL: bit(2, 'ro'), REF: bit(3, 'ro'), PR: bits(4, 11) },
      { reset: 0x000f, doc: 'converters, mixer and references are ready' },
    ),
    EXTENDED_AUDIO_ID: r16(0x28, {}, { ...RO, reset: 0x0809, doc: 'variable rates for PCM and microphone' }),
    EXTENDED_AUDIO_CONTROL: r16(0x2a, { VRA: bit(0), VRM: bit(3), OTHERS: bits(4, 12) }, { reset: 0x0009 }),
    FRONT_DAC_RATE: r16(0x2c, {}, RATE),
    SURROUND_DAC_RATE: r16(0x2e, {}, RATE),
    LFE_DAC_RATE: r16(0x30, {}, RATE),
    ADC_RATE: r16(0x32, {}, RATE),
    MIC_ADC_RATE: r16(0x34, {}, RATE),
    CENTER_LFE_VOLUME: r16(0x36),
    SURROUND_VOLUME: r16(0x38),
    ANALOG_SPECIAL: r16(0x6c, {}, ABSENT),
    DAC2_INVERT: r16(0x6e, {}, ABSENT),
    VENDOR_ID1: r16(0x7c, {}, { ...RO, reset: 0x8384, doc: 'SigmaTel' }),
    VENDOR_ID2: r16(0x7e, {}, { ...RO, reset: 0x7600, doc: 'STAC9700' }),
  },
  { hole: 0x00 },
);

/** Channels of the bus master: PCM in, PCM out, microphone. */
export const CHANNEL = { PI: 0, PO: 1, MC: 2 } as const;
export const CHANNELS = 3;
const EACH = { count: CHANNELS, stride: 0x10 } as const;
const EACH_RO = { ...EACH, access: 'ro' } as const;

/** Native audio bus mastering: 82801AA (ICH) datasheet, section 13.2. */
export const busMasterRegisters = registerMap(
  'ac97-nabm',
  {
    BDBAR: r32(0x00, { BASE: bits(2, 30) }, { ...EACH, doc: 'buffer descriptor list' }),
    CIV: r8(0x04, { INDEX: bits(0, 5) }, { ...EACH_RO, doc: 'descriptor in use' }),
    LVI: r8(0x05, { INDEX: bits(0, 5) }, { ...EACH, doc: 'last valid descriptor' }),
    SR: r16(
      0x06,
      { DCH: bit(0, 'ro'), CELV: bit(1, 'ro'), LVBCI: bit(2, 'w1c'), BCIS: bit(3, 'w1c'), FIFOE: bit(4, 'w1c') },
      { ...EACH, reset: 0x0001 },
    ),
    PICB: r16(0x08, {}, { ...EACH_RO, doc: 'samples left in the buffer' }),
    PIV: r8(0x0a, { INDEX: bits(0, 5) }, { ...EACH_RO, doc: 'descriptor fetched ahead' }),
    CR: r8(0x0b, { RPBM: bit(0), RR: bit(1, 'pulse'), LVBIE: bit(2), FEIE: bit(3), IOCE: bit(4) }, EACH),
    GLOB_CNT: r32(0x2c, {
      GIE: bit(0),
      COLD_RESET: bit(1),
      WARM_RESET: bit(2),
      SHUT_OFF: bit(3),
      PRIMARY_RESUME: bit(4),
      SECONDARY_RESUME: bit(5),
    }),
    GLOB_STA: r32(
      0x30,
      {
        GSCI: bit(0, 'w1c'),
        MIINT: bit(1, 'ro'),
        MOINT: bit(2, 'ro'),
        PIINT: bit(5, 'ro'),
        POINT: bit(6, 'ro'),
        MINT: bit(7, 'ro'),
        S0CR: bit(8, 'ro', 'the primary codec is ready'),
        S1CR: bit(9, 'ro'),
        S0R1: bit(10, 'w1c'),
        S1R1: bit(11, 'w1c'),
        SLOT12: bits(12, 3, 'ro'),
        RCS: bit(15, 'w1c'),
        AD3: bit(16),
        MD3: bit(17),
      },
      { reset: 0x0100 },
    ),
    CAS: r8(0x34, { SEMAPHORE: bit(0) }, { access: 'ro', doc: 'reading takes the codec, using it gives it back' }),
  },
  { hole: 0xff },
);
