import type { I2cBus } from '../core/bus/i2c.ts';
import type { IrqLine } from '../core/irq/line.ts';
import type { IoHandler } from '../core/memory/memory-region.ts';
import { field, type StateValues } from '../core/state/fields.ts';

/** Offsets of the SMBus host controller's registers (82371AB datasheet, section 7.3; ICH9 datasheet, section 20.2). */
const HST_STS = 0x00;
const HST_CNT = 0x02;
const HST_CMD = 0x03;
const HST_ADD = 0x04;
const HST_DAT0 = 0x05;
const HST_DAT1 = 0x06;
const BLK_DAT = 0x07;
const AUX_CTL = 0x0d;

const STS = {
  HOST_BUSY: 1 << 0,
  INTR: 1 << 1,
  DEV_ERR: 1 << 2,
  BUS_ERR: 1 << 3,
  FAILED: 1 << 4,
  SMBALERT: 1 << 5,
  INUSE: 1 << 6,
  BYTE_DONE: 1 << 7,
} as const;
const CNT = { INTREN: 1 << 0, KILL: 1 << 1, PROTOCOL_SHIFT: 2, PROTOCOL: 7, LAST_BYTE: 1 << 5, START: 1 << 6 } as const;
const AUX_E32B = 1 << 1;
const PROTOCOL = {
  QUICK: 0,
  BYTE: 1,
  BYTE_DATA: 2,
  WORD_DATA: 3,
  PROCESS_CALL: 4,
  BLOCK_DATA: 5,
  I2C_READ: 6,
} as const;
const BLOCK_MAX = 32;

export const pmSmbusState = {
  status: field.u8(),
  control: field.u8(),
  command: field.u8(),
  address: field.u8(),
  data0: field.u8(),
  data1: field.u8(),
  auxiliary: field.u8(),
  block: field.bytes(BLOCK_MAX),
  index: field.u8(),
  onStart: field.bool(),
};

/** The SMBus host controller of PIIX4 and ICH9: transfers are finished by the time that status is read. */
export class PmSmbus implements IoHandler {
  readonly #s: StateValues<typeof pmSmbusState>;
  readonly #bus: I2cBus;
  readonly #irq: IrqLine | undefined;

  constructor(state: StateValues<typeof pmSmbusState>, bus: I2cBus, irq?: IrqLine) {
    this.#s = state;
    this.#bus = bus;
    this.#irq = irq;
  }

  /** Forgets the transfer under way, as a reset of the host controller by software does. */
  reset(): void {
    Object.assign(this.#s, { status: 0, control: 0, index: 0, onStart: false });
    this.#update();
  }

  read(offset: number): number {
    const s = this.#s;
    switch (offset) {
      case HST_STS: {
        // The transfer that START began is carried out when software first looks for its end.
        if (s.onStart) {
          s.onStart = false;
          this.#transact();
        }
        return s.status;
      }
      case HST_CNT:
        s.index = 0; // reading it puts the block buffer's pointer back
        return s.control & ~CNT.START;
      case HST_CMD:
        return s.command;
      case HST_ADD:
        return s.address;
      case HST_DAT0:
        return s.data0;
      case HST_DAT1:
        return s.data1;
      case BLK_DAT: {
        const value = s.block[s.index] ?? 0;
        s.index = (s.index + 1) % BLOCK_MAX;
        return value;
      }
      case AUX_CTL:
        return s.auxiliary;
      default:
        return 0;
    }
  }

  write(offset: number, _size: number, value: number): void {
    const s = this.#s;
    switch (offset) {
      case HST_STS:
        s.status &= ~(value & ~STS.HOST_BUSY);
        this.#update();
        break;
      case HST_CNT:
        s.control = value & ~CNT.START;
        if ((value & CNT.KILL) !== 0) {
          s.onStart = false;
          s.status = (s.status & ~STS.HOST_BUSY) | STS.FAILED;
          this.#update();
        } else if ((value & CNT.START) !== 0) {
          s.status = STS.HOST_BUSY;
          s.onStart = true;
          if ((value & CNT.INTREN) !== 0) {
            s.onStart = false;
            this.#transact();
          }
        }
        break;
      case HST_CMD:
        s.command = value;
        break;
      case HST_ADD:
        s.address = value;
        break;
      case HST_DAT0:
        s.data0 = value;
        break;
      case HST_DAT1:
        s.data1 = value;
        break;
      case BLK_DAT:
        s.block[s.index] = value;
        s.index = (s.index + 1) % BLOCK_MAX;
        break;
      case AUX_CTL:
        s.auxiliary = value & AUX_E32B;
        break;
      default:
        break;
    }
  }

  #transact(): void {
    const s = this.#s;
    const done = this.#transfer(
      (s.control >>> CNT.PROTOCOL_SHIFT) & CNT.PROTOCOL,
      s.address >>> 1,
      (s.address & 1) !== 0,
    );
    s.status = done ? STS.INTR : STS.DEV_ERR;
    this.#update();
  }

  /** One SMBus transfer (SMBus 2.0, section 5.5). Returns whether the device acknowledged. */
  #transfer(protocol: number, address: number, read: boolean): boolean {
    const s = this.#s;
    switch (protocol) {
      case PROTOCOL.QUICK:
        return this.#exchange(address, read, [], 0) !== undefined;
      case PROTOCOL.BYTE:
        return read
          ? this.#into(this.#exchange(address, true, [], 1))
          : this.#exchange(address, false, [s.command], 0) !== undefined;
      case PROTOCOL.BYTE_DATA:
        return read
          ? this.#into(this.#exchange(address, true, [s.command], 1))
          : this.#exchange(address, false, [s.command, s.data0], 0) !== undefined;
      case PROTOCOL.WORD_DATA:
        return read
          ? this.#into(this.#exchange(address, true, [s.command], 2))
          : this.#exchange(address, false, [s.command, s.data0, s.data1], 0) !== undefined;
      case PROTOCOL.PROCESS_CALL:
        return this.#into(this.#exchange(address, true, [s.command, s.data0, s.data1], 2));
      case PROTOCOL.I2C_READ:
        return this.#intoBlock(this.#exchange(address, true, [s.command], BLOCK_MAX), false);
      case PROTOCOL.BLOCK_DATA:
        if (read) return this.#intoBlock(this.#exchange(address, true, [s.command], BLOCK_MAX + 1), true);
        return (
          this.#exchange(
            address,
            false,
            [s.command, s.data0, ...s.block.subarray(0, Math.min(s.data0, BLOCK_MAX))],
            0,
          ) !== undefined
        );
      default:
        return false;
    }
  }

  /** Writes `out`, then reads `count` bytes. Undefined where no device answers. */
  #exchange(address: number, read: boolean, out: readonly number[], count: number): number[] | undefined {
    const device = this.#bus.at(address);
    if (device === undefined) return undefined;
    if (out.length > 0 || !read) {
      if (!device.start(false)) return undefined;
      for (const byte of out) if (!device.receive(byte)) return undefined;
    }
    const bytes: number[] = [];
    if (read) {
      if (!device.start(true)) return undefined;
      for (let at = 0; at < count; at++) bytes.push(device.transmit() & 0xff);
    }
    device.stop();
    return bytes;
  }

  #into(bytes: number[] | undefined): boolean {
    if (bytes === undefined) return false;
    this.#s.data0 = bytes[0] ?? 0;
    this.#s.data1 = bytes[1] ?? 0;
    return true;
  }

  #intoBlock(bytes: number[] | undefined, counted: boolean): boolean {
    if (bytes === undefined) return false;
    const s = this.#s;
    const length = counted ? Math.min(bytes[0] ?? 0, BLOCK_MAX) : BLOCK_MAX;
    s.data0 = length;
    s.block.set(bytes.slice(counted ? 1 : 0, (counted ? 1 : 0) + length));
    s.index = 0;
    return true;
  }

  #update(): void {
    const done = STS.INTR | STS.DEV_ERR | STS.BUS_ERR | STS.FAILED | STS.BYTE_DONE;
    this.#irq?.set((this.#s.control & CNT.INTREN) !== 0 && (this.#s.status & done) !== 0);
  }
}
