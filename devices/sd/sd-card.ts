import type { BlockBackend, BlockDevice } from '../../core/block/backend.ts';
import { driveProperty } from '../../core/block/device-properties.ts';
import { us } from '../../core/clock/units.ts';
import { Device } from '../../core/device/device.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { CardData, type CardMedium } from './card-data.ts';
import { BLOCK, configuration, identification, STANDARD_MAX, specificData, switchStatus } from './card-registers.ts';
import {
  CLEARED_BY_COMMAND,
  CLEARED_BY_READ,
  CSR,
  cardFields,
  keptFields,
  NO_ADDRESS,
  OCR,
  STATE,
} from './card-state.ts';

/** Section numbers are those of the SD Physical Layer Simplified Specification 3.01. */

/** Application commands that are reserved for the security specification. */
const SECURITY: ReadonlySet<number> = new Set([18, 25, 26, 38, 43, 44, 45, 46, 47, 48, 49]);
/** Commands whose argument begins with an address (sections 4.7.4): the card's own, or it is for another. */
const BY_ADDRESS: ReadonlySet<number> = new Set([7, 9, 10, 13, 15, 55]);
/** Write protection commands, which only cards of standard capacity have. */
const GROUP_COMMANDS: ReadonlySet<number> = new Set([28, 29, 30]);
/** Classes 0 and 7, CMD16 and CMD55: what a locked card carries out. */
const WHILE_LOCKED: ReadonlySet<number> = new Set([0, 2, 3, 4, 7, 8, 9, 10, 12, 13, 15, 16, 40, 42, 55]);
const APP_WHILE_LOCKED: ReadonlySet<number> = new Set([41, 42]);

const ADDRESS_STEP = 0x4567;
/** What CMD56 reads. */
const GENERAL_DATA = 0xec;
const POWER_UP_NS = us(500);

const properties = {
  spec_version: prop.u8({ default: 2 }),
  drive: driveProperty,
  spi: prop.bool({ default: false }),
} as const;

/** How a command is answered (section 4.9): four bytes, sixteen, or not at all. */
type Answer = 'r1' | 'cid' | 'csd' | 'ocr' | 'address' | 'condition' | 'none' | 'illegal';

/** SD memory card. */
export class SdCard extends Device<typeof properties> implements CardMedium {
  /** Set by the slot: a card came or went. */
  changed: () => void = () => {};
  readonly #s = this.state(1, cardFields, { name: 'card' });
  readonly #kept = this.state(1, keptFields, { name: 'kept', onReset: 'keep' });
  readonly #power = this.clock.timer('power', () => this.#powerUp());
  readonly response = new Uint8Array(16);
  /** Blocks, and data phases. */
  readonly data = new CardData(this.#s, this.#kept, this);

  get backend(): BlockBackend | undefined {
    return this.props.drive;
  }

  get #size(): number {
    return this.backend?.length ?? 0;
  }

  get inserted(): boolean {
    return this.realized && (this.backend?.inserted ?? false);
  }

  get readOnly(): boolean {
    return this.backend?.readOnly ?? false;
  }

  protected override realize(): void {
    const { drive, spec_version: version, spi } = this.props;
    if (version < 1 || version > 3) {
      throw new SouthbridgeError('ERR_PROPERTY_VALUE', `Invalid SD card Spec version: ${version}`);
    }
    if (spi) throw new SouthbridgeError('ERR_PROPERTY_VALUE', 'no board here drives a card by SPI', 'leave spi off');
    if (drive === undefined) return;
    this.#checkDrive(drive);
    const device: BlockDevice = {
      id: this.id ?? this.path,
      removable: true,
      changeMedium: () => this.#mediumChanged(),
    };
    drive.attachDevice(device, { writable: !drive.readOnly, shareRw: true, resizable: true });
    this.onUnrealize(() => drive.detachDevice(device));
    this.#format();
  }

  #checkDrive(drive: BlockBackend): void {
    const { length } = drive;
    if (drive.inserted && drive.readOnly) {
      throw new SouthbridgeError('ERR_BACKEND', 'Cannot use read-only drive as SD card');
    }
    if (length === 0 || Number.isInteger(Math.log2(length))) return;
    const next = 2 ** Math.ceil(Math.log2(length));
    throw new SouthbridgeError(
      'ERR_PROPERTY_VALUE',
      `Invalid SD card size: ${sizeText(length)}`,
      `SD card size has to be a power of 2, e.g. ${sizeText(next)}.`,
    );
  }

  /** Another card is in the slot: nothing of the one before is known. */
  #mediumChanged(): void {
    this.#reset();
    this.#format();
    this.changed();
  }

  #format(): void {
    const kept = this.#kept;
    kept.cid.set(identification());
    kept.csd.set(specificData(this.#size));
    kept.password = new Uint8Array(0);
    kept.groups.fill(0);
  }

  protected override resetHold(): void {
    super.resetHold();
    this.#reset();
  }

  #reset(): void {
    const s = this.#s;
    this.#power.cancel();
    Object.assign(s, {
      state: STATE.IDLE,
      ocr: OCR.VOLTAGES,
      status: CSR.READY_FOR_DATA | (this.#kept.password.length > 0 ? CSR.CARD_IS_LOCKED : 0),
      address: 0,
      application: false,
      appCommand: false,
      blockLength: BLOCK,
      blocksLeft: 0,
      eraseStart: NO_ADDRESS,
      eraseEnd: NO_ADDRESS,
      busWidth: 0,
      functions: [0, 0, 0, 0, 0, 0],
      offset: 0,
      loaded: false,
    });
    this.data.failed = false;
  }

  #powerUp(): void {
    const s = this.#s;
    s.ocr = (s.ocr | OCR.POWERED_UP | (this.#size > STANDARD_MAX ? OCR.HIGH_CAPACITY : 0)) >>> 0;
  }

  // Commands (section 4.7)

  /** Carries a command out. Returns how many bytes of {@link response} there are: 0 is no answer. */
  execute(command: number, argument: number): number {
    const s = this.#s;
    const app = s.application;
    if (!this.inserted) return 0;
    const allowed = app ? APP_WHILE_LOCKED : WHILE_LOCKED;
    const locked = (s.status & CSR.CARD_IS_LOCKED) !== 0 && !allowed.has(command);
    s.application = false;
    const before = s.state;
    const answer = locked ? 'illegal' : app ? this.#application(command, argument) : this.#normal(command, argument);
    if (answer === 'illegal') {
      s.status = (s.status | CSR.ILLEGAL_COMMAND) >>> 0;
      return 0;
    }
    s.command = command;
    s.appCommand = app;
    s.status = ((s.status & ~CSR.STATE) | ((before & 0xf) << CSR.STATE_SHIFT)) >>> 0;
    const length = this.#respond(answer);
    s.status = (s.status & ~CLEARED_BY_COMMAND) >>> 0;
    return length;
  }

  #respond(answer: Answer): number {
    const s = this.#s;
    const view = new DataView(this.response.buffer);
    switch (answer) {
      case 'r1':
        view.setUint32(0, s.status);
        s.status = (s.status & ~CLEARED_BY_READ) >>> 0;
        return 4;
      case 'cid':
        this.response.set(this.#kept.cid);
        return 16;
      case 'csd':
        this.response.set(this.#kept.csd);
        return 16;
      case 'ocr':
        view.setUint32(0, s.ocr);
        return 4;
      case 'address':
        view.setUint16(0, s.address);
        view.setUint16(2, ((s.status >>> 8) & 0xc000) | ((s.status >>> 6) & 0x2000) | (s.status & 0x1fff));
        return 4;
      case 'condition':
        view.setUint32(0, s.acceptedVoltage);
        return 4;
      default:
        return 0;
    }
  }

  /** In data transfer mode (section 4.1). */
  get #transferMode(): boolean {
    const { state } = this.#s;
    return state >= STATE.STANDBY && state <= STATE.DISCONNECTED;
  }

  #normal(command: number, argument: number): Answer {
    const s = this.#s;
    const { state } = s;
    s.status = (s.status & ~CSR.APP_CMD) >>> 0;
    if (command !== 18 && command !== 25) s.blocksLeft = 0;
    if (GROUP_COMMANDS.has(command) && this.data.highCapacity) return 'illegal';
    const inTransfer = state === STATE.TRANSFER;
    if (BY_ADDRESS.has(command) && command !== 7 && command !== 55 && this.#transferMode) {
      const wanted = command === 9 || command === 10 ? state === STATE.STANDBY : true;
      if (wanted && s.address !== argument >>> 16) return 'none';
    }
    switch (command) {
      case 0:
        if (state !== STATE.INACTIVE) this.#reset();
        return 'none';
      case 2:
        return state === STATE.READY ? this.#go(STATE.IDENTIFICATION, 'cid') : 'illegal';
      case 3:
        if (state !== STATE.IDENTIFICATION && state !== STATE.STANDBY) return 'illegal';
        s.address = (s.address + ADDRESS_STEP) & 0xffff;
        return this.#go(STATE.STANDBY, 'address');
      case 6:
        return this.#transferMode ? this.#switchFunctions(argument) : 'illegal';
      case 7:
        return this.#select(s.address === argument >>> 16);
      case 8:
        return this.#interfaceCondition(argument);
      case 9:
        return state === STATE.STANDBY ? 'csd' : 'illegal';
      case 10:
        return state === STATE.STANDBY ? 'cid' : 'illegal';
      case 12:
        return state === STATE.SENDING || state === STATE.RECEIVING ? this.#go(STATE.TRANSFER, 'r1') : 'illegal';
      case 13:
        return this.#transferMode ? 'r1' : 'illegal';
      case 15:
        return this.#transferMode ? this.#go(STATE.INACTIVE, 'none') : 'illegal';
      case 16:
        if (!inTransfer) return 'illegal';
        if (argument > BLOCK) this.data.flag(CSR.BLOCK_LEN_ERROR);
        else s.blockLength = argument;
        return 'r1';
      case 17:
      case 18:
        return inTransfer ? this.data.startBlocks(STATE.SENDING, argument) : 'illegal';
      case 19:
        return inTransfer && this.props.spec_version >= 3 ? this.data.startData(STATE.SENDING) : 'illegal';
      case 23:
        if (!inTransfer || this.props.spec_version < 3) return 'illegal';
        s.blocksLeft = argument;
        return 'r1';
      case 24:
      case 25:
        return inTransfer ? this.data.startBlocks(STATE.RECEIVING, argument) : 'illegal';
      case 26:
      case 27:
      case 42:
        return inTransfer ? this.data.startData(STATE.RECEIVING) : 'illegal';
      case 28:
      case 29:
        return inTransfer ? this.data.protectGroup(argument, command === 28) : 'illegal';
      case 30:
        return inTransfer ? this.data.sendProtection(argument) : 'illegal';
      case 32:
        if (!inTransfer) return 'illegal';
        s.eraseStart = argument;
        return 'r1';
      case 33:
        if (!inTransfer) return 'illegal';
        s.eraseEnd = argument;
        return 'r1';
      case 38:
        return inTransfer ? this.data.erase() : 'illegal';
      case 55:
        if (state === STATE.READY || state === STATE.IDENTIFICATION || state === STATE.INACTIVE) return 'illegal';
        if (s.address !== argument >>> 16) return 'none';
        s.application = true;
        this.data.flag(CSR.APP_CMD);
        return 'r1';
      case 56:
        if (!inTransfer) return 'illegal';
        s.data.fill(GENERAL_DATA);
        return this.data.startData((argument & 1) !== 0 ? STATE.SENDING : STATE.RECEIVING, true);
      default:
        return 'illegal';
    }
  }

  #application(command: number, argument: number): Answer {
    const s = this.#s;
    this.data.flag(CSR.APP_CMD);
    const inTransfer = s.state === STATE.TRANSFER;
    const send = (bytes: Uint8Array): Answer => {
      if (!inTransfer) return 'illegal';
      s.data.set(bytes);
      return this.data.startData(STATE.SENDING, true);
    };
    switch (command) {
      case 6:
        if (!inTransfer) return 'illegal';
        s.busWidth = argument & 3;
        return 'r1';
      case 13: {
        const status = new Uint8Array(64);
        status[0] = s.busWidth << 6;
        return send(status);
      }
      case 22: {
        const count = new Uint8Array(4);
        new DataView(count.buffer).setUint32(0, s.written);
        return send(count);
      }
      case 23:
      case 42:
        return inTransfer ? 'r1' : 'illegal';
      case 41:
        return s.state === STATE.IDLE ? this.#operatingCondition(argument) : 'illegal';
      case 51:
        return send(configuration(this.props.spec_version));
      default:
        return SECURITY.has(command) ? 'illegal' : this.#normal(command, argument);
    }
  }

  #go(state: number, answer: Answer): Answer {
    this.#s.state = state;
    return answer;
  }

  /** CMD7: one card is in transfer state, all others stand by. */
  #select(mine: boolean): Answer {
    switch (this.#s.state) {
      case STATE.STANDBY:
        return mine ? this.#go(STATE.TRANSFER, 'r1') : 'none';
      case STATE.TRANSFER:
      case STATE.SENDING:
        return mine ? 'illegal' : this.#go(STATE.STANDBY, 'r1');
      case STATE.DISCONNECTED:
        return mine ? this.#go(STATE.PROGRAMMING, 'r1') : 'none';
      case STATE.PROGRAMMING:
        return mine ? 'illegal' : this.#go(STATE.DISCONNECTED, 'r1');
      default:
        return 'illegal';
    }
  }

  /** CMD8 (section 4.3.13): no answer unless one voltage is offered. */
  #interfaceCondition(argument: number): Answer {
    const s = this.#s;
    if (this.props.spec_version < 2 || s.state !== STATE.IDLE) return 'illegal';
    const voltages = argument >>> 8;
    s.acceptedVoltage = 0;
    if (voltages === 0 || (voltages & (voltages - 1)) !== 0) return 'none';
    s.acceptedVoltage = argument;
    return 'condition';
  }

  /** ACMD41 (section 4.2.3): an enquiry without voltages makes the card power up after a while. */
  #operatingCondition(argument: number): Answer {
    const s = this.#s;
    if ((s.ocr & OCR.POWERED_UP) === 0) {
      if ((argument & OCR.WINDOW) !== 0) {
        this.#power.cancel();
        this.#powerUp();
      } else if (!Number.isFinite(this.#power.deadlineNs)) {
        this.#power.arm(POWER_UP_NS);
      }
    }
    if ((s.ocr & argument & OCR.WINDOW) !== 0) s.state = STATE.READY;
    return 'ocr';
  }

  /** CMD6: group by group, a function, or 15 for the one that is selected. */
  #switchFunctions(argument: number): Answer {
    const s = this.#s;
    const wanted = s.functions.map((selected, group) => {
      const choice = (argument >>> (4 * group)) & 0xf;
      return choice === 0xf ? selected : choice;
    });
    if (argument >>> 31 !== 0) s.functions = wanted;
    s.data.set(switchStatus(wanted));
    return this.data.startData(STATE.SENDING, true);
  }
}

function sizeText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; bytes >= 1024 && unit < units.length - 1; unit++) bytes /= 1024;
  return `${Number(bytes.toPrecision(3))} ${units[unit]}`;
}

export const sdCard = deviceType({
  type: 'sd-card',
  summary: 'SD memory card',
  bus: 'sd-bus',
  category: 'storage',
  parents: ['device'],
  properties,
  create: SdCard,
});
