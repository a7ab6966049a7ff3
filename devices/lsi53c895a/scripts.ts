import type { LsiInitiator } from './initiator.ts';
import type { LsiChip } from './lsi53c895a.ts';
import { CCNTL1, DCNTL, DSTAT, ISTAT0, ISTAT1_SRUN, PHASE, SBCL, SCNTL1, SIST0, SIST1, SSTAT0 } from './registers.ts';

/** Instruction formats (LSI53C895A Technical Manual, chapter 5), in bits 31 and 30. */
const FORMAT = { BLOCK_MOVE: 0, IO_OR_REGISTER: 1, TRANSFER_CONTROL: 2, MEMORY: 3 } as const;

/** Block move (section 5.3). */
const MOVE_INDIRECT = 1 << 29;
const MOVE_TABLE = 1 << 28;

/** I/O instructions (section 5.4), in bits 29 to 27; greater ones are read/write instructions. */
const IO = { SELECT: 0, DISCONNECT: 1, WAIT_RESELECT: 2, SET: 3, CLEAR: 4 } as const;
const IO_RELATIVE = 1 << 26;
const IO_TABLE = 1 << 25;
const IO_CARRY = 1 << 10;
const IO_TARGET = 1 << 9;
const IO_ACKNOWLEDGE = 1 << 6;
const IO_ATTENTION = 1 << 3;

/** Read/write instructions (section 5.5). */
const READ_WRITE = { FROM_SFBR: 5, TO_SFBR: 6, MODIFY: 7 } as const;
const OPERATOR = { MOVE: 0, SHIFT_LEFT: 1, OR: 2, XOR: 3, AND: 4, SHIFT_RIGHT: 5, ADD: 6, ADD_WITH_CARRY: 7 } as const;
const USE_SFBR = 1 << 23;

/** Transfer control (section 5.6). */
const CONTROL = { JUMP: 0, CALL: 1, RETURN: 2, INTERRUPT: 3 } as const;
const RELATIVE = 1 << 23;
const TEST_CARRY = 1 << 21;
const ON_THE_FLY = 1 << 20;
const IF_TRUE = 1 << 19;
const COMPARE_DATA = 1 << 18;
const COMPARE_PHASE = 1 << 17;
/** Tests carry, data or phase, or jumps in any case. */
const DOES_SOMETHING = TEST_CARRY | IF_TRUE | COMPARE_DATA | COMPARE_PHASE;

/** Memory move (section 5.7), load and store (section 5.8). */
const LOAD_STORE = 1 << 29;
const DSA_RELATIVE = 1 << 28;
const LOAD = 1 << 24;

/**
 * Instructions, or 4 KiB moved, after which software is taken to spin. Some drivers wait so for a location to change, which
 * only happens when the processor lets go; an unexpected disconnect makes them.
 */
const RUN_MAX = 10_000;
const WORK_SHIFT = 12;
const COPY_BYTES = 4096;

const signed24 = (value: number): number => (value << 8) >> 8;
const opcodeOf = (instruction: number): number => (instruction >>> 27) & 7;

/** The SCRIPTS processor: fetches instructions from memory at DSP and carries them out. */
export class ScriptsProcessor {
  readonly #chip: LsiChip;
  readonly #initiator: LsiInitiator;
  readonly #copy = new Uint8Array(COPY_BYTES);
  #running = false;
  #budget = 0;

  constructor(chip: LsiChip, initiator: LsiInitiator) {
    this.#chip = chip;
    this.#initiator = initiator;
  }

  /** Counts work that an instruction has made besides itself. */
  spend(bytes: number): void {
    this.#budget -= bytes >>> WORK_SHIFT;
  }

  /** Runs until it stops, or has to wait. */
  run(): void {
    const { regs } = this.#chip;
    regs.ISTAT1.value |= ISTAT1_SRUN;
    if (this.#running) return;
    this.#running = true;
    this.#budget = RUN_MAX;
    do {
      this.#budget--;
      if (this.#budget < 0) {
        this.#chip.guestError('SCRIPTS run without end');
        this.#chip.scsiInterrupt(SIST0.UDC, 0);
        this.#initiator.disconnect();
        break;
      }
      if (this.#step() && (regs.DCNTL.value & DCNTL.SSM) !== 0 && this.#mayGoOn) {
        this.#chip.dmaInterrupt(DSTAT.SSI);
      }
    } while (this.#mayGoOn);
    this.#running = false;
  }

  get #mayGoOn(): boolean {
    return (this.#chip.regs.ISTAT1.value & ISTAT1_SRUN) !== 0 && this.#initiator.s.waiting === 'nothing';
  }

  #fetch(): number {
    const { regs, dma } = this.#chip;
    const word = dma.read32(regs.SFS.value * 2 ** 32 + regs.DSP.value);
    regs.DSP.value = regs.DSP.value + 4;
    return word;
  }

  /** One instruction; false for an empty word, which is passed over. */
  #step(): boolean {
    const { regs } = this.#chip;
    const at = regs.DSP.value;
    const instruction = this.#fetch();
    if (instruction === 0) return false;
    const operand = this.#fetch();
    regs.DSPS.value = operand;
    regs.DBC.DCMD = instruction >>> 24;
    switch (instruction >>> 30) {
      case FORMAT.BLOCK_MOVE:
        this.#blockMove(instruction, operand, at);
        break;
      case FORMAT.IO_OR_REGISTER:
        if (opcodeOf(instruction) <= IO.CLEAR) this.#io(instruction, operand);
        else this.#readWrite(instruction);
        break;
      case FORMAT.TRANSFER_CONTROL:
        this.#transferControl(instruction, operand);
        break;
      default:
        if ((instruction & LOAD_STORE) === 0) this.#memoryMove(instruction & 0xff_ffff, operand);
        else this.#loadStore(instruction, operand);
    }
    return true;
  }

  // Block move

  #blockMove(instruction: number, operand: number, at: number): void {
    const { regs } = this.#chip;
    if ((regs.SIST1.value & SIST1.STO) !== 0) {
      // The selection that came before has failed, which stops the processor here.
      this.#chip.stop();
      return;
    }
    const address = this.#moveAddress(instruction, operand);
    const count = regs.DBC.COUNT;
    regs.RBC.value = count;
    regs.IA.value = at;
    if (this.#initiator.phase !== ((instruction >>> 24) & PHASE.MASK)) {
      this.#chip.scsiInterrupt(SIST0.MA, 0);
      return;
    }
    regs.DNAD.value = address;
    this.#move();
    const left = regs.DBC.COUNT;
    regs.DFIFO.value = left & 0xff;
    regs.CTEST5.value = (regs.CTEST5.value & 0xfc) | ((left >>> 8) & 3);
    regs.SBC.value = left;
    regs.RBC.value = count - left;
    regs.UA.value = address + left;
  }

  /** The address of the data; sets the count and the address's upper half. */
  #moveAddress(instruction: number, operand: number): number {
    const { regs, dma } = this.#chip;
    regs.DBC.COUNT = instruction & 0xff_ffff;
    regs.DNAD64.value = 0;
    if ((instruction & MOVE_INDIRECT) !== 0) return dma.read32(operand);
    if ((instruction & MOVE_TABLE) !== 0) {
      const entry = (regs.DSA.value + signed24(operand)) >>> 0;
      const first = dma.read32(entry);
      regs.DBC.COUNT = first & 0xff_ffff;
      regs.DNAD64.value = this.#upperAddress(first >>> 24);
      return dma.read32(entry + 4);
    }
    if ((regs.CCNTL1.value & CCNTL1.EN64DBMV) !== 0) regs.DBMS.value = this.#fetch();
    return operand;
  }

  /** Bits 63 to 32 of a table's address: in the table itself (40 bits), or in the register that it names. */
  #upperAddress(selector: number): number {
    const { regs } = this.#chip;
    const mode = regs.CCNTL1.value;
    if ((mode & CCNTL1.EN64TIBMV) === 0) return 0;
    if ((mode & CCNTL1.TIMOD64) !== 0) return selector;
    const name = selector & 0x1f;
    // Scratch registers C to R.
    if (name < 0x10) return regs.SCRATCH.at(1 + name).value;
    const others = [regs.MMRS, regs.MMWS, regs.SFS, regs.DRS, regs.SBMS, regs.DBMS];
    const register = others[name - 0x10];
    if (register === undefined) this.#chip.guestError(`illegal selector ${name} of a 64-bit block move`);
    return register?.value ?? 0;
  }

  #move(): void {
    const initiator = this.#initiator;
    switch (initiator.phase) {
      case PHASE.DATA_OUT:
      case PHASE.DATA_IN:
        initiator.s.waiting = 'data-started';
        initiator.moveData(initiator.phase === PHASE.DATA_OUT);
        if (initiator.s.waiting === 'data-started') initiator.s.waiting = 'data';
        break;
      case PHASE.COMMAND:
        initiator.sendCommand();
        break;
      case PHASE.STATUS:
        initiator.receiveStatus();
        break;
      case PHASE.MESSAGE_OUT:
        initiator.sendMessage();
        break;
      case PHASE.MESSAGE_IN:
        initiator.receiveMessage();
        break;
      default:
        this.#chip.guestError(`block move in phase ${initiator.phase}`);
    }
  }

  // I/O

  #io(instruction: number, operand: number): void {
    const { regs, dma } = this.#chip;
    const table = (instruction & IO_TABLE) !== 0;
    const source = table ? dma.read32((regs.DSA.value + signed24(instruction)) >>> 0) : instruction;
    const relative = (instruction & IO_RELATIVE) !== 0;
    regs.DNAD.value = relative ? regs.DSP.value + signed24(operand) : operand;
    switch (opcodeOf(instruction)) {
      case IO.SELECT:
        this.#select((source >>> 16) & 0xf, (instruction & IO_ATTENTION) !== 0);
        break;
      case IO.DISCONNECT:
        regs.SCNTL1.value &= ~SCNTL1.CON;
        if (this.#initiator.current === undefined) this.#initiator.reselectPending();
        break;
      case IO.WAIT_RESELECT:
        if ((regs.ISTAT0.value & ISTAT0.SIGP) !== 0) regs.DSP.value = regs.DNAD.value;
        else if (!this.#initiator.interruptsOnReselection) this.#initiator.waitForReselection();
        break;
      case IO.SET:
        this.#set(instruction);
        break;
      case IO.CLEAR:
        this.#clear(instruction);
        break;
    }
  }

  #select(id: number, attention: boolean): void {
    const { regs } = this.#chip;
    regs.SDID.value = id;
    if (this.#initiator.connected) {
      // Somebody else was faster: a target has reselected.
      regs.DSP.value = regs.DNAD.value;
      return;
    }
    regs.SSTAT0.value |= SSTAT0.WOA;
    regs.SCNTL1.value &= ~SCNTL1.IARB;
    this.#initiator.select(id, attention);
  }

  #set(instruction: number): void {
    const { regs } = this.#chip;
    if ((instruction & IO_ATTENTION) !== 0) {
      this.#initiator.raiseAttention();
      this.#initiator.setPhase(PHASE.MESSAGE_OUT);
    }
    if ((instruction & IO_ACKNOWLEDGE) !== 0) regs.SBCL.value |= SBCL.ACK;
    if ((instruction & IO_TARGET) !== 0) this.#chip.guestError('target mode is not there');
    if ((instruction & IO_CARRY) !== 0) this.#chip.s.carry = true;
  }

  #clear(instruction: number): void {
    const { regs } = this.#chip;
    if ((instruction & IO_ATTENTION) !== 0) {
      regs.SOCL.value &= ~SBCL.ATN;
      regs.SBCL.value &= ~SBCL.ATN;
    }
    if ((instruction & IO_ACKNOWLEDGE) !== 0) regs.SBCL.value &= ~SBCL.ACK;
    if ((instruction & IO_CARRY) !== 0) this.#chip.s.carry = false;
  }

  // Read/write

  #readWrite(instruction: number): void {
    const { regs, registers } = this.#chip;
    const register = ((instruction >>> 16) & 0x7f) | (instruction & 0x80);
    const operator = (instruction >>> 24) & 7;
    const kind = opcodeOf(instruction);
    const immediate = (instruction >>> 8) & 0xff;
    const second = kind === READ_WRITE.MODIFY && (instruction & USE_SFBR) !== 0 ? regs.SFBR.value : immediate;
    let first = 0;
    if (kind === READ_WRITE.FROM_SFBR) first = regs.SFBR.value;
    else if (operator !== OPERATOR.MOVE) first = registers.read(register, 1);
    const result = this.#compute(operator, first, second);
    if (kind === READ_WRITE.TO_SFBR) regs.SFBR.value = result;
    else registers.write(register, 1, result);
  }

  #compute(operator: number, first: number, second: number): number {
    const { s } = this.#chip;
    const carry = s.carry ? 1 : 0;
    switch (operator) {
      case OPERATOR.SHIFT_LEFT:
        s.carry = (first & 0x80) !== 0;
        return ((first << 1) | carry) & 0xff;
      case OPERATOR.OR:
        return first | second;
      case OPERATOR.XOR:
        return first ^ second;
      case OPERATOR.AND:
        return first & second;
      case OPERATOR.SHIFT_RIGHT:
        s.carry = (first & 1) !== 0;
        return (first >>> 1) | (carry << 7);
      case OPERATOR.ADD:
      case OPERATOR.ADD_WITH_CARRY: {
        const sum = first + second + (operator === OPERATOR.ADD ? 0 : carry);
        s.carry = sum > 0xff;
        return sum & 0xff;
      }
      default:
        return second;
    }
  }

  // Transfer control

  #transferControl(instruction: number, operand: number): void {
    const { regs } = this.#chip;
    if ((instruction & DOES_SOMETHING) === 0) return;
    if ((regs.SIST1.value & SIST1.STO) !== 0) {
      this.#chip.stop();
      return;
    }
    if (!this.#holds(instruction)) return;
    const address = (instruction & RELATIVE) !== 0 ? (regs.DSP.value + signed24(operand)) >>> 0 : operand;
    switch (opcodeOf(instruction)) {
      case CONTROL.JUMP:
        regs.ADDER.value = address;
        regs.DSP.value = address;
        break;
      case CONTROL.CALL:
        regs.TEMP.value = regs.DSP.value;
        regs.DSP.value = address;
        break;
      case CONTROL.RETURN:
        regs.DSP.value = regs.TEMP.value;
        break;
      case CONTROL.INTERRUPT:
        if ((instruction & ON_THE_FLY) !== 0) this.#chip.interruptOnTheFly();
        else this.#chip.dmaInterrupt(DSTAT.SIR);
        break;
      default:
        this.#chip.dmaInterrupt(DSTAT.IID);
    }
  }

  /** All comparisons that the instruction asks for come out true, or with the other sense of it false. */
  #holds(instruction: number): boolean {
    const { regs } = this.#chip;
    const sense = (instruction & IF_TRUE) !== 0;
    if ((instruction & TEST_CARRY) !== 0 && this.#chip.s.carry !== sense) return false;
    if ((instruction & COMPARE_PHASE) !== 0) {
      const equal = this.#initiator.phase === ((instruction >>> 24) & PHASE.MASK);
      if (equal !== sense) return false;
    }
    if ((instruction & COMPARE_DATA) !== 0) {
      const mask = (~instruction >>> 8) & 0xff;
      const equal = (regs.SFBR.value & mask) === (instruction & mask);
      if (equal !== sense) return false;
    }
    return true;
  }

  // Memory

  #memoryMove(count: number, from: number): void {
    const chip = this.#chip;
    const { regs } = chip;
    const to = this.#fetch();
    const source = regs.MMRS.value * 2 ** 32 + from;
    const target = regs.MMWS.value * 2 ** 32 + to;
    for (let at = 0; at < count && this.#budget >= 0; at += COPY_BYTES) {
      const length = Math.min(COPY_BYTES, count - at);
      chip.readMemory(source + at, this.#copy, 0, length);
      chip.writeMemory(target + at, this.#copy, 0, length);
      this.spend(length);
    }
  }

  #loadStore(instruction: number, operand: number): void {
    const { regs, dma, registers } = this.#chip;
    const count = instruction & 7;
    const register = (instruction >>> 16) & 0xff;
    const load = (instruction & LOAD) !== 0;
    const relative = (instruction & DSA_RELATIVE) !== 0;
    const low = relative ? (regs.DSA.value + signed24(operand)) >>> 0 : operand;
    const high = relative ? regs.DRS.value : load ? regs.MMRS.value : regs.MMWS.value;
    const address = high * 2 ** 32 + low;
    if (load) {
      dma.read(address, this.#copy, 0, count);
      for (let index = 0; index < count; index++) registers.write(register + index, 1, this.#copy[index] ?? 0);
    } else {
      for (let index = 0; index < count; index++) this.#copy[index] = registers.read(register + index, 1);
      dma.write(address, this.#copy, 0, count);
    }
  }
}
