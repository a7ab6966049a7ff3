import { IpackModule, type IpackSpace, ipackProperties } from '../../core/bus/ipack.ts';
import type { Chardev, CharUser } from '../../core/char/chardev.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import type { RegisterBank } from '../../core/register/register.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { scc2698Registers } from './registers.ts';

const CHANNELS = 8;
const BLOCKS = 4;
const FIFO = 3;

/** Commands in the upper half of CR (SCC2698B data sheet, table 5). */
const COMMAND = {
  NONE: 0,
  RESET_MR: 1,
  RESET_RX: 2,
  RESET_TX: 3,
  RESET_ERROR: 4,
  RESET_BREAK: 5,
  START_BREAK: 6,
  STOP_BREAK: 7,
} as const;

/** The lower half: the receiver and the transmitter, on and off. */
const ENABLE_RX = 1 << 0;
const DISABLE_RX = 1 << 1;
const ENABLE_TX = 1 << 2;
const DISABLE_TX = 1 << 3;

/** A channel's bits of the interrupt status register, which has those of two. */
const TXRDY = 1 << 0;
const RXRDY = 1 << 1;
const BREAK = 1 << 2;
const BREAKS = 0x44;
const ofChannel = (channel: number, bit: number): number => (channel & 1 ? bit << 4 : bit);

/** "IPAC", manufacturer GreenSpring, model IP-Octal 232, revision, driver, length of 12 bytes, checksum: a byte each word. */
const ID_PROM = Uint8Array.of(0x49, 0x50, 0x41, 0x43, 0xf0, 0x22, 0xa1, 0x00, 0x00, 0x00, 0x0c, 0xcc);
/** Where the module takes its interrupt vector, which no manual says. */
const VECTOR_AT = 1;

const channelState = {
  receiving: field.bool(),
  modes: field.bytes(2),
  mode: field.u8(),
  fifo: field.bytes(FIFO),
  first: field.u8(),
  pending: field.u8(),
  transmitting: field.bool(),
  /** The character that is on its way, and whether the host has yet to take it. */
  held: field.u8(),
  waiting: field.bool(),
};

const chardev = prop.backend<Chardev>('chardev');
const properties = {
  ...ipackProperties,
  chardev0: chardev,
  chardev1: chardev,
  chardev2: chardev,
  chardev3: chardev,
  chardev4: chardev,
  chardev5: chardev,
  chardev6: chardev,
  chardev7: chardev,
} as const;

/** GE (once GreenSpring) IP-Octal 232: eight serial ports of an SCC2698B. */
class IpOctal232 extends IpackModule<typeof properties> {
  readonly #bank: RegisterBank<typeof scc2698Registers> = this.bank(scc2698Registers, {
    MR: {
      read: (_stored, channel) => this.#mode(channel),
      write: (value, previous, channel) => (this.#setMode(channel, value), previous),
    },
    SR: { write: (_value, previous) => previous },
    CR: { write: (value, _previous, channel) => (this.#command(channel, value), 0) },
    RHR: {
      read: (_stored, channel) => this.#receiveByte(channel),
      write: (value, previous, channel) => (this.#transmit(channel, value), previous),
    },
    ISR: { write: (value, previous, block) => (this.#setMask(block, value), previous) },
  });
  readonly #regs = this.#bank.regs;
  readonly #s = this.state(1, { masks: field.bytes(BLOCKS), vector: field.u8() });
  readonly #channels = Array.from({ length: CHANNELS }, (_, index) =>
    this.state(1, channelState, { name: `channel${index}` }),
  );
  readonly #chardevs = [
    this.props.chardev0,
    this.props.chardev1,
    this.props.chardev2,
    this.props.chardev3,
    this.props.chardev4,
    this.props.chardev5,
    this.props.chardev6,
    this.props.chardev7,
  ] as const;
  readonly #byte = new Uint8Array(1);

  protected override realize(): void {
    for (const [channel, host] of this.#chardevs.entries()) {
      if (host === undefined) continue;
      host.attach(this.#user(channel));
      this.onUnrealize(() => host.detach());
    }
    this.onUnrealize(
      this.services.system.onRunning(() => {
        for (let channel = 0; channel < CHANNELS; channel++) this.#drained(channel);
      }),
    );
  }

  // The module's spaces

  read(space: IpackSpace, address: number): number {
    if (space === 'io') return (address & 1) === 0 ? this.#bank.read(address >>> 1, 1) : 0;
    if (space === 'id') return ID_PROM[address >>> 1] ?? 0;
    if (space !== 'interrupt' || (address !== 0 && address !== 2)) return 0;
    // Request 0 is blocks A and B, request 1 blocks C and D: what is still pending is asked for again.
    this.#request(address);
    return this.#s.vector;
  }

  write(space: IpackSpace, address: number, value: number): void {
    if (space === 'io') {
      if ((address & 1) === 0) this.#bank.write(address >>> 1, 1, value & 0xff);
    } else if ((space === 'id' || space === 'byte-memory') && address === VECTOR_AT) {
      this.#s.vector = value & 0xff;
    }
  }

  // Interrupts

  /** Brings the request that `block` has in common with its neighbour up to date. */
  #request(block: number): void {
    const { masks } = this.#s;
    const other = block ^ 1;
    const { ISR } = this.#regs;
    const pending = (ISR.at(block).value & (masks[block] ?? 0)) | (ISR.at(other).value & (masks[other] ?? 0));
    this.carrier.interrupt(this.slot, block >> 1, pending !== 0);
  }

  #setMask(block: number, value: number): void {
    const { masks } = this.#s;
    if (masks[block] === value) return;
    masks[block] = value;
    this.#request(block);
  }

  /** @param change bits of both channels, set where `on` */
  #setStatus(block: number, change: number, on: boolean): void {
    const status = this.#regs.ISR.at(block);
    const before = status.value;
    status.value = on ? before | change : before & ~change;
    if (status.value !== before) this.#request(block);
  }

  // Commands and modes

  #of(channel: number): StateValues<typeof channelState> {
    const state = this.#channels[channel];
    if (state === undefined) throw new RangeError(`there is no channel ${channel}`);
    return state;
  }

  #mode(channel: number): number {
    const state = this.#of(channel);
    const value = state.modes[state.mode & 1] ?? 0;
    state.mode = 1;
    return value;
  }

  #setMode(channel: number, value: number): void {
    const state = this.#of(channel);
    state.modes[state.mode & 1] = value;
    state.mode = 1;
  }

  /** The interrupt status changes once, with all that the command does. */
  #command(channel: number, value: number): void {
    const state = this.#of(channel);
    const host = this.#chardevs[channel];
    const status = this.#regs.ISR.at(channel >> 1);
    const before = status.value;
    if ((value & ENABLE_RX) !== 0) state.receiving = true;
    if ((value & DISABLE_RX) !== 0) state.receiving = false;
    if ((value & ENABLE_TX) !== 0) this.#enableTransmitter(channel, true);
    if ((value & DISABLE_TX) !== 0) this.#enableTransmitter(channel, false);
    switch (value >> 4) {
      case COMMAND.NONE:
        break;
      case COMMAND.RESET_MR:
        state.mode = 0;
        break;
      case COMMAND.RESET_RX:
        state.receiving = false;
        state.pending = 0;
        Object.assign(this.#regs.SR.at(channel), { RXRDY: false, FFULL: false });
        status.value &= ~ofChannel(channel, RXRDY);
        break;
      case COMMAND.RESET_TX:
        this.#enableTransmitter(channel, false);
        state.waiting = false;
        break;
      case COMMAND.RESET_ERROR:
        Object.assign(this.#regs.SR.at(channel), { OVERRUN: false, PARITY: false, FRAMING: false, BREAK: false });
        break;
      case COMMAND.RESET_BREAK:
        status.value &= ~BREAKS;
        break;
      case COMMAND.START_BREAK:
        host?.setBreak(true);
        break;
      case COMMAND.STOP_BREAK:
        host?.setBreak(false);
        break;
      default:
        this.log.unimplemented(`command ${value >> 4} of channel ${channel}`);
    }
    if (status.value !== before) this.#request(channel >> 1);
    if (state.receiving) host?.acceptInput();
  }

  // Transmitting

  #enableTransmitter(channel: number, on: boolean): void {
    const state = this.#of(channel);
    state.transmitting = on;
    this.#showReady(channel, on && !state.waiting);
  }

  /** Without a word to the carrier. */
  #showReady(channel: number, ready: boolean): void {
    const SR = this.#regs.SR.at(channel);
    const status = this.#regs.ISR.at(channel >> 1);
    const bit = ofChannel(channel, TXRDY);
    SR.TXRDY = ready;
    SR.TXEMT = ready;
    status.value = ready ? status.value | bit : status.value & ~bit;
  }

  #transmit(channel: number, value: number): void {
    if (!this.#regs.SR.at(channel).TXRDY) return;
    const state = this.#of(channel);
    state.held = value;
    if (this.#sent(channel)) return;
    state.waiting = true;
    this.#showReady(channel, false);
    this.#request(channel >> 1);
  }

  #sent(channel: number): boolean {
    const host = this.#chardevs[channel];
    this.#byte[0] = this.#of(channel).held;
    return host === undefined || host.write(this.#byte) > 0;
  }

  /** The host takes output again. */
  #drained(channel: number): void {
    const state = this.#of(channel);
    if (!state.waiting || !this.#sent(channel)) return;
    state.waiting = false;
    if (!state.transmitting) return;
    this.#showReady(channel, true);
    this.#request(channel >> 1);
  }

  // Receiving

  #user(channel: number): CharUser {
    const state = this.#of(channel);
    return {
      canReceive: () => (state.receiving ? FIFO - state.pending : 0),
      receive: bytes => {
        for (const byte of bytes) this.#store(channel, byte);
      },
      drained: () => this.#drained(channel),
      event: event => {
        if (event === 'break' && state.receiving) this.#breakReceived(channel);
      },
    };
  }

  #store(channel: number, byte: number): void {
    const state = this.#of(channel);
    const SR = this.#regs.SR.at(channel);
    if (state.pending >= FIFO) {
      SR.OVERRUN = true;
      return;
    }
    state.fifo[(state.first + state.pending) % FIFO] = byte;
    state.pending++;
    SR.RXRDY = true;
    SR.FFULL = state.pending === FIFO;
    this.#setStatus(channel >> 1, ofChannel(channel, RXRDY), true);
  }

  /** A break comes as a zero character; that it began is an interrupt, and that it ended. */
  #breakReceived(channel: number): void {
    const SR = this.#regs.SR.at(channel);
    SR.BREAK = true;
    this.#setStatus(channel >> 1, ofChannel(channel, BREAK), true);
    this.#store(channel, 0);
  }

  /** An empty FIFO gives what it gave last. */
  #receiveByte(channel: number): number {
    const state = this.#of(channel);
    const SR = this.#regs.SR.at(channel);
    const byte = state.fifo[state.first % FIFO] ?? 0;
    if (state.pending === 0) return byte;
    state.pending--;
    SR.FFULL = false;
    SR.RXRDY = state.pending > 0;
    if (state.pending > 0) state.first = (state.first + 1) % FIFO;
    if (state.pending === 0) this.#setStatus(channel >> 1, ofChannel(channel, RXRDY), false);
    if (SR.BREAK) {
      SR.BREAK = false;
      this.#setStatus(channel >> 1, ofChannel(channel, BREAK), true);
    }
    this.#chardevs[channel]?.acceptInput();
    return byte;
  }
}

export const ipoctal232 = deviceType({
  type: 'ipoctal232',
  summary: 'GE IP-Octal 232 8-channel RS-232 IndustryPack',
  bus: 'IndustryPack',
  category: 'input',
  parents: ['ipack-device', 'device'],
  properties,
  create: IpOctal232,
});
