import { bit, bits, choice, r8, r32, registerMap } from '../../core/register/register.ts';

/** Channels: the two converters of the output, and that of the input. */
export const CHANNEL = { DAC1: 0, DAC2: 1, ADC: 2 } as const;
export const CHANNELS = 3;
/** Pages of the memory window at 0x30 that have the channels' frames (ES1370 specification, section 5.3). */
const DAC_PAGE = { when: 'MEMPAGE.PAGE=12' } as const;
const ADC_PAGE = { when: 'MEMPAGE.PAGE=13' } as const;
const FORMAT = { mono8: 0, stereo8: 1, mono16: 2, stereo16: 3 } as const;
const FRAME_COUNT = { SIZE: bits(0, 16, undefined, 'words of the buffer, less 1'), CURRENT: bits(16, 16) } as const;

/** Ensoniq AudioPCI ES1370: specification, chapter 5. */
export const es1370Registers = registerMap(
  'es1370',
  {
    CONTROL: r32(
      0x00,
      {
        SERR_DIS: bit(0),
        CDC_EN: bit(1),
        JYSTK_EN: bit(2),
        UART_EN: bit(3),
        ADC_EN: bit(4),
        DAC2_EN: bit(5),
        DAC1_EN: bit(6),
        BREQ: bit(7),
        XCTL0: bit(8),
        M_CB: bit(9),
        CCB_INTRM: bit(10),
        DAC_SYNC: bit(11),
        WTSRSEL: choice(12, 2, { hz5512: 0, hz11025: 1, hz22050: 2, hz44100: 3 }),
        M_SBB: bit(14),
        MSFMTSEL: bit(15),
        PCLKDIV: bits(16, 13, undefined, 'DAC2 and ADC run at 1411200 / (PCLKDIV + 2) Hz'),
        OPEN: bit(29),
        XCTL1: bit(30),
        ADC_STOP: bit(31),
      },
      { reset: 0x0000_0001 },
    ),
    STATUS: r32(
      0x04,
      {
        ADC: bit(0),
        DAC2: bit(1),
        DAC1: bit(2),
        UART: bit(3),
        MCCB: bit(4),
        VC: bits(5, 2),
        CWRIP: bit(8),
        CBUSY: bit(9),
        CSTAT: bit(10),
        INTR: bit(31),
      },
      { access: 'ro', reset: 0x0000_0060 },
    ),
    MEMPAGE: r8(0x0c, { PAGE: bits(0, 4) }),
    CODEC: r32(0x10, { DATA: bits(0, 8), ADDRESS: bits(8, 8) }, { access: 'wo', doc: 'AK4531, which only listens' }),
    SERIAL_CONTROL: r32(0x20, {
      P1_FORMAT: choice(0, 2, FORMAT),
      P2_FORMAT: choice(2, 2, FORMAT),
      R1_FORMAT: choice(4, 2, FORMAT),
      P2DACSEN: bit(6),
      P1SCTRLD: bit(7, 'pulse', 'reloads the sample count of DAC1'),
      P1INTEN: bit(8),
      P2INTEN: bit(9),
      R1INTEN: bit(10),
      P1PAUSE: bit(11),
      P2PAUSE: bit(12),
      P1LOOPSEL: bit(13, undefined, '1: stops at the end'),
      P2LOOPSEL: bit(14),
      R1LOOPSEL: bit(15),
      P2STINC: bits(16, 3),
      P2ENDINC: bits(19, 3),
    }),
    SAMPLE_COUNT: r32(
      0x24,
      { COUNT: bits(0, 16, undefined, 'samples between interrupts, less 1'), CURRENT: bits(16, 16, 'ro') },
      { count: CHANNELS },
    ),
    DAC1_FRAME_ADDRESS: r32(0x30, {}, DAC_PAGE),
    DAC1_FRAME_COUNT: r32(0x34, FRAME_COUNT, DAC_PAGE),
    DAC2_FRAME_ADDRESS: r32(0x38, {}, DAC_PAGE),
    DAC2_FRAME_COUNT: r32(0x3c, FRAME_COUNT, DAC_PAGE),
    ADC_FRAME_ADDRESS: r32(0x30, {}, ADC_PAGE),
    ADC_FRAME_COUNT: r32(0x34, FRAME_COUNT, ADC_PAGE),
  },
  { hole: 0xff },
);
