import { bit, r8, registerMap } from '../../core/register/register.ts';

/** Ports of the card from its base; the FM synthesizer's at 0 to 3 and 8 are not there. SB16 programming guide, chapter 1. */
export const sb16Registers = registerMap(
  'sb16',
  {
    MIXER_ADDRESS: r8(0x4),
    MIXER_DATA: r8(0x5),
    DSP_RESET: r8(0x6, {}, { access: 'wo' }),
    DSP_READ_DATA: r8(0xa, {}, { access: 'ro' }),
    DSP_WRITE: r8(0xc, {}, { access: 'wo', doc: 'a command or its data' }),
    DSP_WRITE_STATUS: r8(0xc, { BUSY: bit(7) }, { access: 'ro' }),
    TIMER_STATUS: r8(0xd, {}, { access: 'ro' }),
    DSP_READ_STATUS: r8(0xe, { READY: bit(7) }, { access: 'ro', doc: 'reading acknowledges the 8-bit interrupt' }),
    ACKNOWLEDGE_16: r8(0xf, {}, { access: 'ro', doc: 'reading acknowledges the 16-bit interrupt' }),
  },
  { hole: 0xff },
);
