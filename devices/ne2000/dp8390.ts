import { addressHashHighFirst, ETHERNET, isBroadcast, isFor, isGroup, padFrame } from '../../core/net/ethernet.ts';
import type { NetClient } from '../../core/net/net-client.ts';
import type { RegisterBank, RegisterHooks, Registers } from '../../core/register/register.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { type dp8390Registers, ISR, RCR, REMOTE, RSR, TSR_PTX } from './registers.ts';

const PAGE = 256;
/** The address PROM, each byte of it twice, and 32 KiB of packet memory from 16 KiB on. */
const PROM = 32;
const MEMORY_START = 0x4000;
const MEMORY_END = 0xc000;
const MEMORY = MEMORY_END - MEMORY_START;
/** The last bytes of the PROM say that the card is as fast as a 16-bit one. */
const WORD_MARK = 0x57;
/** What stands before each packet in the receive ring (DP8390D data sheet, section 7). */
const RECEIVE_HEADER = 4;
const LARGEST = 1514;
/** Ports beyond the controller's sixteen. */
const DATA_PORT = 0x10;
const RESET_PORT = 0x1f;
export const PORTS = 0x20;

export const ne2000State = { memory: field.bytes(MEMORY_END), remoteAddress: field.u32(), remoteCount: field.u16() };

/** What the controller needs of its card. */
export interface Ne2000Host {
  bank(hooks: RegisterHooks<typeof dp8390Registers>): RegisterBank<typeof dp8390Registers>;
  readonly state: StateValues<typeof ne2000State>;
  readonly client: NetClient;
  readonly mac: Uint8Array;
  setInterrupt(level: boolean): void;
}

/** National's DP8390 with its memory, as on NE2000 cards. */
export class Dp8390 {
  readonly #host: Ne2000Host;
  readonly #bank: RegisterBank<typeof dp8390Registers>;
  readonly #regs: Registers<typeof dp8390Registers>;
  readonly #padded = new Uint8Array(ETHERNET.SHORTEST);
  readonly #sent = new Uint8Array(0x1_0000);

  constructor(host: Ne2000Host) {
    this.#host = host;
    this.#bank = host.bank({
      CR: { wrote: value => this.#command(value), write: value => value },
      PSTART: { write: (value, previous) => (value * PAGE <= MEMORY_END ? value : previous) },
      PSTOP: { write: (value, previous) => (value * PAGE <= MEMORY_END ? value : previous) },
      BNRY: {
        write: (value, previous) => (value * PAGE < MEMORY_END ? value : previous),
        wrote: () => host.client.receiverReady(),
      },
      ISR: {
        write: (value, previous) => previous & ~(value & 0x7f),
        wrote: () => this.#update(),
      },
      CRDA: { read: (_stored, index) => (host.state.remoteAddress >>> (8 * index)) & 0xff },
      RSAR: {
        wrote: (value, _previous, index) => {
          host.state.remoteAddress = withByte(host.state.remoteAddress, index, value);
        },
      },
      ID: { read: (_stored, index) => (index === 0 ? 0x50 : 0x43) },
      RBCR: {
        wrote: (value, _previous, index) => {
          host.state.remoteCount = withByte(host.state.remoteCount, index, value);
        },
      },
      IMR: { wrote: () => this.#update() },
      CURR: { write: (value, previous) => (value * PAGE < MEMORY_END ? value : previous) },
      PSTART_READ: { read: () => this.#regs.PSTART.value },
      PSTOP_READ: { read: () => this.#regs.PSTOP.value },
    });
    this.#regs = this.#bank.regs;
  }

  /** The reset port, and the machine's reset: the address is read from its PROM again. */
  reset(): void {
    const { memory } = this.#host.state;
    for (let at = 0; at < PROM / 2; at++) {
      const byte = this.#host.mac[at] ?? (at >= 14 ? WORD_MARK : 0);
      memory[at * 2] = byte;
      memory[at * 2 + 1] = byte;
    }
    this.#regs.ISR.value = ISR.RST;
    this.#update();
  }

  // Ports

  read(offset: number, size: number): number {
    if (offset < DATA_PORT && size === 1) return this.#bank.read(offset, 1);
    if (offset === DATA_PORT) return this.#readData(size);
    if (offset === RESET_PORT && size === 1) {
      this.reset();
      return 0;
    }
    return size === 4 ? 0xffff_ffff : 2 ** (8 * size) - 1;
  }

  write(offset: number, size: number, value: number): void {
    if (offset < DATA_PORT && size === 1) this.#bank.write(offset, 1, value);
    else if (offset === DATA_PORT) this.#writeData(size, value);
  }

  // Commands (section 10.3)

  #command(value: number): void {
    const { CR, ISR: status } = this.#regs;
    if (CR.STP) return;
    status.value &= ~ISR.RST;
    if ((CR.RD & (REMOTE.READ | REMOTE.WRITE)) !== 0 && this.#host.state.remoteCount === 0) this.#raise(ISR.RDC);
    if ((value & 0x04) !== 0) this.#transmit();
    this.#host.client.receiverReady();
  }

  #raise(causes: number): void {
    this.#regs.ISR.value |= causes;
    this.#update();
  }

  #update(): void {
    this.#host.setInterrupt((this.#regs.ISR.value & this.#regs.IMR.value & 0x7f) !== 0);
  }

  #transmit(): void {
    const { CR, TSR, TPSR, TBCR } = this.#regs;
    const page = TPSR.value * PAGE;
    const start = page >= MEMORY_END ? page - MEMORY : page;
    const length = TBCR.at(0).value | (TBCR.at(1).value << 8);
    if (start + length <= MEMORY_END) {
      const { memory } = this.#host.state;
      for (let at = 0; at < length; at++) this.#sent[at] = memory[start + at] ?? 0;
      this.#host.client.send(this.#sent, length);
    }
    TSR.value = TSR_PTX;
    CR.TXP = false;
    this.#raise(ISR.PTX);
  }

  // Remote DMA: the guest's way to the memory (section 9)

  #moved(length: number): void {
    const { state } = this.#host;
    state.remoteAddress += length;
    if (state.remoteAddress === this.#regs.PSTOP.value * PAGE) state.remoteAddress = this.#regs.PSTART.value * PAGE;
    if (state.remoteCount > length) {
      state.remoteCount -= length;
      return;
    }
    state.remoteCount = 0;
    this.#raise(ISR.RDC);
  }

  /** Words are moved where DCR says so; a 32-bit access moves four bytes in any case (RTL8029AS, section 5.3). */
  #unit(size: number): number {
    return size === 4 ? 4 : this.#regs.DCR.WTS ? 2 : 1;
  }

  #readData(size: number): number {
    const { state } = this.#host;
    const unit = this.#unit(size);
    const at = unit === 1 ? state.remoteAddress : state.remoteAddress & ~1;
    let value = 0;
    for (let byte = 0; byte < unit; byte++) {
      value |= (isMemory(at + byte) ? (state.memory[at + byte] ?? 0xff) : 0xff) << (8 * byte);
    }
    this.#moved(unit);
    return value >>> 0;
  }

  #writeData(size: number, value: number): void {
    const { state } = this.#host;
    if (state.remoteCount === 0) return;
    const unit = this.#unit(size);
    const at = unit === 1 ? state.remoteAddress : state.remoteAddress & ~1;
    for (let byte = 0; byte < unit; byte++) {
      if (isMemory(at + byte)) state.memory[at + byte] = value >>> (8 * byte);
    }
    this.#moved(unit);
  }

  // Receiving (section 7)

  canReceive(): boolean {
    return this.#regs.CR.STP || this.#hasRoom;
  }

  get #hasRoom(): boolean {
    const { PSTART, PSTOP, CURR, BNRY } = this.#regs;
    if (PSTOP.value <= PSTART.value) return false;
    const free = BNRY.value - CURR.value;
    const pages = free > 0 ? free : PSTOP.value - PSTART.value + free;
    return pages * PAGE >= LARGEST + RECEIVE_HEADER;
  }

  receive(frame: Uint8Array, length: number): boolean {
    if (this.#regs.CR.STP) return true;
    if (!this.#hasRoom) return false;
    if (!this.#accepts(frame)) return true;
    let bytes = frame;
    if (length < ETHERNET.SHORTEST) {
      padFrame(frame, length, this.#padded);
      bytes = this.#padded;
    }
    this.#store(bytes, Math.max(length, ETHERNET.SHORTEST));
    return true;
  }

  #accepts(frame: Uint8Array): boolean {
    const accepted = this.#regs.RCR.value;
    if ((accepted & RCR.PRO) !== 0) return true;
    if (isBroadcast(frame)) return (accepted & RCR.AB) !== 0;
    if (isGroup(frame)) {
      const hash = addressHashHighFirst(frame) >>> 26;
      return (accepted & RCR.AM) !== 0 && ((this.#regs.MAR.at(hash >>> 3).value >>> (hash & 7)) & 1) !== 0;
    }
    return isFor(frame, this.#host.mac);
  }

  #store(bytes: Uint8Array, length: number): void {
    const { PSTART, PSTOP, CURR, RSR: status } = this.#regs;
    const { memory } = this.#host.state;
    const start = PSTART.value * PAGE;
    const stop = PSTOP.value * PAGE;
    const page = CURR.value * PAGE;
    let at = page >= MEMORY_END || page < MEMORY_START ? start : page;
    const total = length + RECEIVE_HEADER;
    let next = at + ((total + ETHERNET.CHECKSUM + PAGE - 1) & ~(PAGE - 1));
    if (next >= stop) next -= stop - start;
    status.value = RSR.PRX | (isGroup(bytes) ? RSR.PHY : 0);
    memory.set([status.value, next / PAGE, total & 0xff, total >>> 8], Math.min(at, MEMORY_END - RECEIVE_HEADER));
    at += RECEIVE_HEADER;
    for (let from = 0; from < length && at <= stop; from++) {
      if (at === stop) at = start;
      if (isMemory(at)) memory[at] = bytes[from] ?? 0;
      at++;
    }
    CURR.value = (next / PAGE) & 0xff;
    this.#raise(ISR.PRX);
  }
}

const isMemory = (at: number): boolean => at < PROM || (at >= MEMORY_START && at < MEMORY_END);

const withByte = (word: number, index: number, byte: number): number =>
  index === 0 ? (word & 0xff00) | byte : (word & 0x00ff) | (byte << 8);
