import { seconds } from '../../core/clock/units.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { field } from '../../core/state/fields.ts';
import {
  CAPABILITY,
  CLOCK,
  COMMAND,
  DMA,
  ERROR,
  GAP,
  MODE,
  NORMAL,
  POWER_ON,
  PRESENT,
  REG,
  RESET,
  TRANSFER_STATE,
  WAKE,
} from './registers.ts';
import { SdBus, type SdSlot } from './sd-bus.ts';
import type { SdCard } from './sd-card.ts';
import { BUFFER_MAX, Transfer, type TransferHost } from './transfer.ts';

const REGISTERS_SIZE = 0x100;
const VENDOR_VERSION = 0x24;
/** How long a slot seems empty between two cards. */
const INSERTION_NS = seconds(1);
const AGAIN_NS = 100;
const STOP_TRANSMISSION = 12;
const UHS_I = 1;

const properties = {
  'sd-spec-version': prop.u8({ default: 2 }),
  uhs: prop.u8({ default: 0 }),
  vendor: prop.u8({ default: 0 }),
  capareg: prop.u64({ default: 0x0578_34b4n }),
  maxcurr: prop.u64({ default: 0n }),
} as const;

const hostFields = {
  sdmaAddress: field.u32(),
  blockSize: field.u16(),
  blockCount: field.u16(),
  argument: field.u32(),
  mode: field.u16(),
  command: field.u16(),
  response: field.words(4),
  present: field.u32(),
  control: field.u8(),
  power: field.u8(),
  gap: field.u8(),
  wake: field.u8(),
  clock: field.u16(),
  timeout: field.u8(),
  normal: field.u16(),
  error: field.u16(),
  normalEnable: field.u16(),
  errorEnable: field.u16(),
  normalSignal: field.u16(),
  errorSignal: field.u16(),
  autoError: field.u16(),
  control2: field.u16(),
  admaError: field.u8(),
  admaLow: field.u32(),
  admaHigh: field.u32(),
  count: field.u32(),
  stopped: field.oneOf(['no', 'reading', 'writing'], 'no'),
  buffer: field.bytes(BUFFER_MAX),
} as const;

/** SD host controller (SD Host Controller Simplified Specification 3.00) with one slot. */
class SdhciPci extends PciDevice<typeof properties> implements SdSlot, TransferHost {
  readonly s = this.state(1, hostFields, { name: 'host' });
  readonly #bus: SdBus;
  readonly #transfer = new Transfer(this);
  readonly #insertion = this.clock.timer('insertion', () => this.cardChanged());
  readonly #rest = this.clock.timer('transfer', () => this.#transfer.run());
  readonly #capabilities = [Number(this.props.capareg & 0xffff_ffffn), Number(this.props.capareg >> 32n)] as const;
  readonly #current = [Number(this.props.maxcurr & 0xffff_ffffn), Number(this.props.maxcurr >> 32n)] as const;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    this.#bus = this.addBus(
      new SdBus('sd-bus', this, { services: this.services, home: this.pciBus.home, owner: this }),
    );
  }

  protected override realize(): void {
    this.#check();
    this.bar(
      0,
      this.shielded({
        read: (offset, size) => this.#read(offset, size),
        write: (offset, size, value) => this.#write(offset, size, value >>> 0),
      }),
      { size: REGISTERS_SIZE },
    );
  }

  /** What a controller of that version may say it can do. */
  #check(): void {
    const version = this.props['sd-spec-version'];
    const refuse = (message: string): never => {
      throw new SouthbridgeError('ERR_PROPERTY_VALUE', message);
    };
    if (version < 2 || version > 3) refuse('Only Spec v2/v3 are supported');
    const [low] = this.#capabilities;
    if (version >= 3 && low >>> 30 !== 0) refuse('slot-type not supported');
    for (const [name, value] of [
      ['timeout', low & 0x3f],
      ['base', (low >>> 8) & 0xff],
    ] as const) {
      const fits = version >= 3 || value === 0 || (value >= 10 && value <= 63);
      if (!fits) refuse(`SD ${name} clock frequency can have valuein range 0-63 only`);
    }
    if (((low >>> 16) & 3) === 3) refuse('block size can be 512, 1024 or 2048 only');
  }

  get card(): SdCard | undefined {
    return this.#bus.card;
  }

  get capabilities(): number {
    return this.#capabilities[0];
  }

  /** The buffer holds 512, 1,024 or 2,048 bytes. */
  get #bufferSize(): number {
    return 512 << ((this.capabilities >>> 16) & 3);
  }

  // The slot (section 1.10)

  cardChanged(): void {
    const { s, card } = this;
    if (card === undefined) {
      s.present = PRESENT.EMPTY;
      s.power &= ~POWER_ON;
      s.clock &= ~CLOCK.CARD;
      this.#transfer.stop();
      this.raise(NORMAL.REMOVED);
    } else if ((s.normal & NORMAL.REMOVED) !== 0) {
      // The driver is to notice that there was no card in between.
      this.#insertion.arm(INSERTION_NS);
    } else {
      this.#showCard(card);
      this.raise(NORMAL.INSERTED);
    }
  }

  #showCard(card: SdCard): void {
    this.s.present = card.readOnly ? PRESENT.INSERTED & ~PRESENT.WRITABLE : PRESENT.INSERTED;
  }

  protected override resetHold(): void {
    super.resetHold();
    this.#reset();
  }

  protected override resetExit(): void {
    super.resetExit();
    this.#reset();
  }

  #reset(): void {
    const { s, card } = this;
    this.#insertion.cancel();
    this.#rest.cancel();
    this.#transfer.stop();
    for (const name of NUMBERS) s[name] = 0;
    s.response.fill(0);
    s.stopped = 'no';
    if (card === undefined) s.present = PRESENT.EMPTY;
    else this.#showCard(card);
    this.irq.lower();
  }

  // Interrupts (section 1.8)

  get interrupting(): boolean {
    const { s } = this;
    return (
      (s.normal & s.normalSignal) !== 0 ||
      (s.error & s.errorSignal) !== 0 ||
      ((s.normal & NORMAL.INSERTED) !== 0 && (s.wake & WAKE.INSERTED) !== 0) ||
      ((s.normal & NORMAL.REMOVED) !== 0 && (s.wake & WAKE.REMOVED) !== 0)
    );
  }

  raise(normal: number, error = 0): void {
    const { s } = this;
    s.normal |= normal & s.normalEnable;
    s.error |= error & s.errorEnable;
    this.#update();
  }

  #update(): void {
    const { s } = this;
    s.normal = s.error !== 0 ? s.normal | NORMAL.ERROR : s.normal & ~NORMAL.ERROR;
    this.irq.set(this.interrupting);
  }

  // Commands (section 1.7)

  #mayIssue(): boolean {
    const { s } = this;
    if ((s.clock & CLOCK.ON) !== CLOCK.ON) return false;
    if ((s.present & PRESENT.DATA_INHIBIT) === 0 && s.stopped === 'no') return true;
    if ((s.command & COMMAND.DATA) !== 0) return false;
    const busy = (s.command & COMMAND.RESPONSE) === COMMAND.RESPONSE_BUSY;
    return !busy || (s.command & COMMAND.TYPE) === COMMAND.ABORT;
  }

  #issue(): void {
    const { s, card } = this;
    s.error = 0;
    s.autoError = 0;
    const length = card?.execute(s.command >>> 8, s.argument) ?? 0;
    const expected = (s.command & COMMAND.RESPONSE) !== 0;
    const timeout = expected && length === 0;
    if (expected && length > 0) this.#takeResponse(length);
    if (timeout) s.error |= ERROR.COMMAND_TIMEOUT & s.errorEnable;
    const busy = (s.command & COMMAND.RESPONSE) === COMMAND.RESPONSE_BUSY;
    if (busy && card?.data.busy !== undefined) void card.data.busy.then(() => this.raise(NORMAL.TRANSFER));
    this.raise(NORMAL.COMMAND | (busy && card?.data.busy === undefined ? NORMAL.TRANSFER : 0));
    if (timeout || s.blockSize === 0 || (s.command & COMMAND.DATA) === 0) return;
    s.count = 0;
    this.#transfer.run();
  }

  /** Section 2.2.7: without the checksum of the long form. */
  #takeResponse(length: number): void {
    const { s, card } = this;
    const view = new DataView(card?.response.buffer ?? new ArrayBuffer(16));
    if (length === 4) {
      s.response.fill(0);
      s.response[0] = view.getUint32(0);
      return;
    }
    for (let word = 0; word < 3; word++) s.response[word] = view.getUint32(11 - 4 * word);
    s.response[3] = view.getUint32(0) >>> 8;
  }

  ended(): void {
    const { s, card } = this;
    if ((s.mode & MODE.AUTO_CMD12) !== 0) {
      const length = card?.execute(STOP_TRANSMISSION, 0) ?? 0;
      if (length > 0 && card !== undefined) s.response[3] = new DataView(card.response.buffer).getUint32(0);
    }
    s.present &= ~TRANSFER_STATE;
    this.raise(NORMAL.TRANSFER);
  }

  again(): void {
    this.#rest.arm(AGAIN_NS);
  }

  /** Software looks: what was put off is done now. */
  #catchUp(): void {
    if (!Number.isFinite(this.#rest.deadlineNs)) return;
    this.#rest.cancel();
    this.#transfer.run();
  }

  // Registers (section 2.2)

  #read(offset: number, size: number): number {
    this.#catchUp();
    const within = offset & 3;
    if ((offset & ~3) === REG.BUFFER) return (this.s.count & 3) === within ? this.#transfer.readPort(size) : 0;
    const value = this.#word(offset & ~3) >>> (8 * within);
    return size === 4 ? value >>> 0 : value & (2 ** (8 * size) - 1);
  }

  #word(offset: number): number {
    const { s } = this;
    const halves = (low: number, high: number): number => (low | (high << 16)) >>> 0;
    switch (offset) {
      case REG.SDMA_ADDRESS:
        return s.sdmaAddress;
      case REG.BLOCK:
        return halves(s.blockSize, s.blockCount);
      case REG.ARGUMENT:
        return s.argument;
      case REG.COMMAND:
        return halves(s.mode, s.command);
      case REG.PRESENT: {
        const levels = this.card?.data.busy === undefined ? 0xf : 0xe;
        const lines = (levels << PRESENT.DATA_LEVEL_SHIFT) | PRESENT.COMMAND_LEVEL;
        return ((s.present & ~((0xf << PRESENT.DATA_LEVEL_SHIFT) | PRESENT.COMMAND_LEVEL)) | lines) >>> 0;
      }
      case REG.CONTROL:
        return halves(s.control | (s.power << 8), s.gap | (s.wake << 8));
      case REG.CLOCK:
        return halves(s.clock, s.timeout);
      case REG.STATUS:
        return halves(s.normal, s.error);
      case REG.STATUS_ENABLE:
        return halves(s.normalEnable, s.errorEnable);
      case REG.SIGNAL_ENABLE:
        return halves(s.normalSignal, s.errorSignal);
      case REG.CONTROL2:
        return halves(s.autoError, s.control2);
      case REG.CAPABILITIES:
      case REG.CAPABILITIES + 4:
        return this.#capabilities[offset === REG.CAPABILITIES ? 0 : 1];
      case REG.CURRENT:
      case REG.CURRENT + 4:
        return this.#current[offset === REG.CURRENT ? 0 : 1];
      case REG.ADMA_ERROR:
        return s.admaError;
      case REG.ADMA_ADDRESS:
        return s.admaLow;
      case REG.ADMA_ADDRESS + 4:
        return s.admaHigh;
      case REG.SLOT:
        return halves(this.interrupting ? 1 : 0, (VENDOR_VERSION << 8) | (this.props['sd-spec-version'] - 1));
      default:
        return offset >= REG.RESPONSE && offset < REG.BUFFER ? (s.response[(offset - REG.RESPONSE) >> 2] ?? 0) : 0;
    }
  }

  #write(offset: number, size: number, given: number): void {
    this.#catchUp();
    const { s } = this;
    const at = offset & ~3;
    if (at === REG.BUFFER) {
      if ((s.count & 3) === (offset & 3)) this.#transfer.writePort(given, size);
      return;
    }
    const shift = 8 * (offset & 3);
    const value = (given << shift) >>> 0;
    const touched = size === 4 ? 0xffff_ffff : ((2 ** (8 * size) - 1) << shift) >>> 0;
    const word = (previous: number): number => ((previous & ~touched) | (value & touched)) >>> 0;
    const low = (previous: number): number => word(previous) & 0xffff;
    const high = (previous: number): number => word(previous << 16) >>> 16;
    const transferring = (s.present & (PRESENT.READING | PRESENT.WRITING)) !== 0;
    const lastByte = touched >>> 24 !== 0;
    switch (at) {
      case REG.SDMA_ADDRESS: {
        if (this.#transfer.running) break;
        s.sdmaAddress = word(s.sdmaAddress);
        // At a boundary the last byte of the address has the engine go on (section 2.2.1).
        const stopped = transferring && (s.mode & MODE.DMA) !== 0 && (s.control & DMA.MASK) === DMA.SDMA;
        if (lastByte && stopped && s.blockCount > 0) this.#transfer.run();
        break;
      }
      case REG.BLOCK:
        if (!transferring) this.#setBlock(low(s.blockSize), high(s.blockCount));
        break;
      case REG.ARGUMENT:
        s.argument = word(s.argument);
        break;
      case REG.COMMAND: {
        const dma = (this.capabilities & CAPABILITY.SDMA) !== 0 ? MODE.WRITABLE : MODE.WRITABLE & ~MODE.DMA;
        s.mode = low(s.mode) & dma;
        s.command = high(s.command);
        if (lastByte && this.#mayIssue()) this.#issue();
        break;
      }
      case REG.CONTROL:
        this.#control(word(s.control | (s.power << 8) | (s.gap << 16) | (s.wake << 24)), touched, value);
        break;
      case REG.CLOCK:
        if (lastByte) this.#softwareReset(value >>> 24);
        s.clock = low(s.clock);
        s.timeout = high(s.timeout) & 0xff;
        s.clock = (s.clock & CLOCK.ENABLE) !== 0 ? s.clock | CLOCK.STABLE : s.clock & ~CLOCK.STABLE;
        break;
      case REG.STATUS: {
        const kept = (s.normalEnable & NORMAL.CARD) !== 0 ? NORMAL.CARD : 0;
        s.normal &= ~(value & touched & ~kept);
        s.error &= ~((value & touched) >>> 16);
        this.#update();
        break;
      }
      case REG.STATUS_ENABLE:
        s.normalEnable = low(s.normalEnable);
        s.errorEnable = high(s.errorEnable);
        s.normal &= s.normalEnable;
        s.error &= s.errorEnable;
        this.#update();
        break;
      case REG.SIGNAL_ENABLE:
        s.normalSignal = low(s.normalSignal);
        s.errorSignal = high(s.errorSignal);
        this.#update();
        break;
      case REG.CONTROL2:
        s.autoError = low(s.autoError);
        if (this.props.uhs >= UHS_I) s.control2 = high(s.control2);
        break;
      case REG.FORCE:
        s.autoError |= value & 0xffff;
        this.raise(0, (value >>> 16) | (s.autoError !== 0 ? ERROR.AUTO_CMD : 0));
        break;
      case REG.ADMA_ERROR:
        s.admaError = word(s.admaError) & 0xff;
        break;
      case REG.ADMA_ADDRESS:
        s.admaLow = word(s.admaLow);
        break;
      case REG.ADMA_ADDRESS + 4:
        s.admaHigh = word(s.admaHigh);
        break;
      default:
        this.log.guestError(`write to 0x${offset.toString(16)}, which is read-only or reserved`);
    }
  }

  #setBlock(size: number, count: number): void {
    const { s } = this;
    const before = s.blockSize;
    s.blockSize = (size & 0xfff) > this.#bufferSize ? (size & ~0xfff) | this.#bufferSize : size;
    s.blockCount = count;
    // What is in the buffer is of another size.
    if (before !== s.blockSize) s.count = 0;
  }

  #control(word: number, touched: number, value: number): void {
    const { s } = this;
    if ((touched & 0xff_0000) !== 0) this.#blockGap((value >>> 16) & 0xff);
    s.control = word & 0xff;
    s.power = (word >>> 8) & 0xff;
    s.wake = word >>> 24;
    const voltage = (s.power >> 1) & 7;
    const supported = voltage >= 5 && (this.capabilities & (1 << (31 - voltage))) !== 0;
    if ((s.present & PRESENT.CARD) === 0 || !supported) s.power &= ~POWER_ON;
  }

  /** Section 2.2.13. */
  #blockGap(value: number): void {
    const { s } = this;
    const stop = (value & GAP.STOP) !== 0;
    if (stop && (s.gap & GAP.STOP) !== 0) return;
    s.gap = value & GAP.STOP;
    if ((value & GAP.CONTINUE) !== 0 && s.stopped !== 'no' && !stop) {
      const reads = s.stopped === 'reading';
      s.stopped = 'no';
      s.present |= PRESENT.DATA_ACTIVE | (reads ? PRESENT.READING : PRESENT.WRITING);
      if (reads) this.#transfer.readBlock();
      else this.#transfer.writeBlock();
    } else if (s.stopped === 'no' && stop) {
      if ((s.present & PRESENT.READING) !== 0) s.stopped = 'reading';
      else if ((s.present & PRESENT.WRITING) !== 0) s.stopped = 'writing';
    }
  }

  /** Section 2.2.16. */
  #softwareReset(value: number): void {
    const { s } = this;
    if ((value & RESET.ALL) !== 0) {
      this.#reset();
      return;
    }
    if ((value & RESET.COMMAND) !== 0) {
      s.present &= ~PRESENT.COMMAND_INHIBIT;
      s.normal &= ~NORMAL.COMMAND;
    }
    if ((value & RESET.DATA) !== 0) {
      this.#transfer.stop();
      this.#rest.cancel();
      s.count = 0;
      s.present &= ~TRANSFER_STATE;
      s.gap = 0;
      s.stopped = 'no';
      s.normal &= ~(NORMAL.WRITE_READY | NORMAL.READ_READY | NORMAL.DMA | NORMAL.TRANSFER | NORMAL.GAP);
    }
    this.#update();
  }

  /** A transfer that waited for the card when the state was saved has to be begun again: its data did not come. */
  protected override restored(): void {
    super.restored();
    const { s } = this;
    this.#transfer.stop();
    const byDma = (s.present & (PRESENT.READING | PRESENT.WRITING)) !== 0 && (s.mode & MODE.DMA) !== 0;
    const waitsForBoundary = (s.normal & NORMAL.DMA) !== 0 || Number.isFinite(this.#rest.deadlineNs);
    if (byDma && !waitsForBoundary) this.raise(0, ERROR.DATA_TIMEOUT);
  }
}

/** What a reset makes 0. */
const NUMBERS = [
  'sdmaAddress',
  'blockSize',
  'blockCount',
  'argument',
  'mode',
  'command',
  'control',
  'power',
  'gap',
  'wake',
  'clock',
  'timeout',
  'normal',
  'error',
  'normalEnable',
  'errorEnable',
  'normalSignal',
  'errorSignal',
  'autoError',
  'control2',
  'admaError',
  'admaLow',
  'admaHigh',
  'count',
] as const;

export const sdhciPci = deviceType({
  type: 'sdhci-pci',
  summary: 'SD host controller (PCI)',
  category: 'storage',
  properties,
  pci: { vendor: 0x1b36, device: 0x0007, class: 0x08_0501, pin: 'A' },
  create: SdhciPci,
});
