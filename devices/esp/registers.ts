import { r8, r32, registerMap } from '../../core/register/register.ts';

/** SCSI registers of the NCR 53C9x family, each in a word of its own (Am53C974 Technical Manual, chapter 3.5). */
export const espRegisters = registerMap('esp', {
  CTCLO: r8(0x00, {}, { access: 'ro', doc: 'current transfer count, low' }),
  STCLO: r8(0x00, {}, { access: 'wo', doc: 'start transfer count, low' }),
  CTCMID: r8(0x04, {}, { access: 'ro' }),
  STCMID: r8(0x04, {}, { access: 'wo' }),
  FFREG: r8(0x08, {}, { doc: 'SCSI FIFO' }),
  CMDREG: r8(0x0c, {}, { doc: 'command' }),
  STATREG: r8(0x10, {}, { access: 'ro', doc: 'status, and the phase' }),
  SDIDREG: r8(0x10, {}, { access: 'wo', doc: 'destination id' }),
  INSTREG: r8(0x14, {}, { access: 'ro', doc: 'interrupt status; reading clears' }),
  STIMREG: r8(0x14, {}, { access: 'wo', doc: 'selection timeout' }),
  ISREG: r8(0x18, {}, { access: 'ro', doc: 'internal state: how far a selection came' }),
  STPREG: r8(0x18, {}, { access: 'wo', doc: 'synchronous transfer period' }),
  CFIREG: r8(0x1c, {}, { access: 'ro', doc: 'current FIFO: bytes in it' }),
  SOFREG: r8(0x1c, {}, { access: 'wo', doc: 'synchronous offset' }),
  CNTLREG1: r8(0x20, {}, { reset: 0x07, doc: 'control 1: own id' }),
  CLKFREG: r8(0x24, {}, { access: 'wo', doc: 'clock factor' }),
  FTMREG: r8(0x28, {}, { access: 'wo', doc: 'forced test mode' }),
  CNTLREG2: r8(0x2c, {}, { doc: 'control 2' }),
  CNTLREG3: r8(0x30, {}, { doc: 'control 3' }),
  CNTLREG4: r8(0x34, {}, { doc: 'control 4' }),
  CTCHI: r8(0x38, {}, { access: 'ro', doc: 'current transfer count, high; the chip where never written' }),
  STCHI: r8(0x38, {}, { access: 'wo' }),
  DALREG: r8(0x3c, {}, { doc: 'data alignment' }),
});

/** The DMA engine (chapter 3.6), from offset 0x40 on. */
export const espDmaRegisters = registerMap('esp-dma', {
  CMD: r32(0x00, {}, { doc: 'command, direction and interrupt enables' }),
  STC: r32(0x04, {}, { doc: 'starting transfer count' }),
  SPA: r32(0x08, {}, { doc: 'starting physical address' }),
  WBC: r32(0x0c, {}, { access: 'ro', doc: 'working byte counter' }),
  WAC: r32(0x10, {}, { access: 'ro', reset: 0xffff_ffff, doc: 'working address counter' }),
  STATUS: r32(0x14, {}, { doc: 'status' }),
  SMDLA: r32(0x18, {}, { doc: 'starting memory descriptor list address' }),
  WMAC: r32(0x1c, {}, { access: 'ro', reset: 0xffff_fffd, doc: 'working MDL counter' }),
  SBAC: r32(0x30, {}, { doc: 'SCSI bus and control' }),
});

export const REGISTERS = { ESP: 0x40, SPACE: 0x80 } as const;

/** Commands (chapter 3.5.4); DMA is a bit of its own. */
export const COMMAND = {
  NOP: 0x00,
  CLEAR_FIFO: 0x01,
  RESET_DEVICE: 0x02,
  RESET_BUS: 0x03,
  INFORMATION_TRANSFER: 0x10,
  COMMAND_COMPLETE_STEPS: 0x11,
  MESSAGE_ACCEPTED: 0x12,
  TRANSFER_PAD: 0x18,
  SET_ATN: 0x1a,
  RESET_ATN: 0x1b,
  SELECT_WITHOUT_ATN: 0x41,
  SELECT_WITH_ATN: 0x42,
  SELECT_WITH_ATN_STOP: 0x43,
  ENABLE_SELECTION: 0x44,
  DISABLE_SELECTION: 0x45,
  DMA: 0x80,
  CODE: 0x7f,
} as const;

export const STATUS = { PHASE: 0x07, COUNT_TO_ZERO: 0x10, INTERRUPT: 0x80 } as const;
/** Phases of the bus (SCSI-2, section 5.2), as the status has them. */
export const PHASE = { DATA_OUT: 0, DATA_IN: 1, COMMAND: 2, STATUS: 3, MESSAGE_OUT: 6, MESSAGE_IN: 7 } as const;
export const INTERRUPT = {
  SUCCESSFUL_OPERATION: 0x08,
  SERVICE_REQUEST: 0x10,
  DISCONNECTED: 0x20,
  SCSI_RESET: 0x80,
} as const;
/** How far a selection came. */
export const STEP = { NONE: 0, MESSAGE_OUT: 1, COMMAND: 4 } as const;
export const CONTROL1_DISABLE_RESET_INTERRUPT = 0x40;
export const TARGET_MASK = 0x07;

export const DMA_COMMAND = { IDLE: 0, BLAST: 1, ABORT: 2, START: 3, MASK: 3, MDL: 0x10, TO_MEMORY: 0x80 } as const;
export const DMA_STATUS = {
  ERROR: 0x02,
  ABORT: 0x04,
  DONE: 0x08,
  SCSI_INTERRUPT: 0x10,
  BLAST_COMPLETE: 0x20,
  LATCHED: 0x0e,
} as const;
/** SBAC: the latched bits of the DMA status are cleared by writing ones, not by reading. */
export const SBAC_WRITE_CLEARS = 0x0100_0000;
