/**
 * A TPM behind a FIFO, the TPM Interface Specification's (TCG PC Client Specific TPM Interface Specification 1.3, and PC Client
 * Platform TPM Profile for TPM 2.0 1.03, section 5.5, whose names the registers bear): five localities, of which one is active.
 */
import { IsaDevice } from '../../core/bus/isa.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { field, type SavedRecord } from '../../core/state/fields.ts';
import { messageSize, type TpmBackend } from '../../core/tpm/backend.ts';
import { AttachedTpm, TPM_BASE, tpmStateFields } from './attached-tpm.ts';
import { LOCALITIES, Locality, localityFields, NO_LOCALITY, PHASE } from './locality.ts';
import { PPI_BASE, PresenceMemory, presenceFields } from './presence-memory.ts';

/** Offsets in a locality's page. A byte or two of a register may be read or written alone. */
export const TIS_REG = {
  ACCESS: 0x000,
  INT_ENABLE: 0x008,
  INT_VECTOR: 0x00c,
  INT_STATUS: 0x010,
  INTF_CAPABILITY: 0x014,
  STS: 0x018,
  DATA_FIFO: 0x024,
  INTERFACE_ID: 0x030,
  XDATA_FIFO: 0x080,
  DID_VID: 0xf00,
  RID: 0xf04,
} as const;
const XDATA_FIFO_END = 0xc0;
const LOCALITY_SHIFT = 12;

export const ACCESS = {
  TPM_ESTABLISHMENT: 1 << 0,
  REQUEST_USE: 1 << 1,
  PENDING_REQUEST: 1 << 2,
  SEIZE: 1 << 3,
  BEEN_SEIZED: 1 << 4,
  ACTIVE_LOCALITY: 1 << 5,
  TPM_REG_VALID_STS: 1 << 7,
} as const;

export const STS = {
  RESPONSE_RETRY: 1 << 1,
  SELF_TEST_DONE: 1 << 2,
  EXPECT: 1 << 3,
  DATA_AVAIL: 1 << 4,
  TPM_GO: 1 << 5,
  COMMAND_READY: 1 << 6,
  STS_VALID: 1 << 7,
  BURST_COUNT_SHIFT: 8,
  COMMAND_CANCEL: 1 << 24,
  RESET_ESTABLISHMENT: 1 << 25,
  TPM_FAMILY_2_0: 1 << 26,
  TPM_FAMILY: 3 << 26,
} as const;

export const INT = {
  DATA_AVAIL: 1 << 0,
  STS_VALID: 1 << 1,
  LOCALITY_CHANGE: 1 << 2,
  POLARITY_LOW_LEVEL: 1 << 3,
  POLARITY: 3 << 3,
  COMMAND_READY: 1 << 7,
  GLOBAL_ENABLE: 1 << 31,
} as const;
const INTERRUPTS = INT.DATA_AVAIL | INT.STS_VALID | INT.LOCALITY_CHANGE | INT.COMMAND_READY;

/** All interrupts, low level, dynamic burst count, transfers of 64 bytes; the version says which TPM it is (bits 30:28). */
const INTF_CAPABILITY = INTERRUPTS | (1 << 4) | (3 << 9);
const INTF_VERSION = { '1.2': 2 << 28, '2.0': 3 << 28 } as const;
/** FIFO, with five localities, the one interface that there is; in TPMs 1.2 the register says that it is none. */
const INTERFACE_ID = { '1.2': 0xffff_ffff, '2.0': (1 << 8) | (1 << 13) } as const;
const INTF_SEL_LOCK = 1 << 19;
const DID_VID = 0x0001_1014;
const RID = 0x01;

const BUFFER_SIZE = 4096;
/** From here on a command says how long it is. */
const SIZE_KNOWN = 6;
const NOTHING = 0xffff_ffff;
const NO_DATA = 0xff;
/** Reached by the chipset alone, in a dynamic launch. */
const HARDWARE_LOCALITY = 4;
const TRUSTED_LOCALITY = 3;

const properties = {
  irq: prop.u32({ default: 5 }),
  tpmdev: prop.backend<TpmBackend>('tpmdev'),
  ppi: prop.bool({ default: true }),
} as const;

const isFifo = (register: number): boolean =>
  register === TIS_REG.DATA_FIFO || (register >= TIS_REG.XDATA_FIFO && register < XDATA_FIFO_END);

export class TpmTis extends IsaDevice<typeof properties> {
  readonly model = 'tpm-tis';
  readonly #state = this.state(1, {
    ...localityFields,
    /** Holds the command, and then the answer. */
    buffer: field.bytes(BUFFER_SIZE),
    position: field.u16(),
    activeLocality: field.u8(NO_LOCALITY),
    /** Who waits for a command to end, and who is to be active then. */
    abortingLocality: field.u8(NO_LOCALITY),
    nextLocality: field.u8(NO_LOCALITY),
  });
  readonly #presence = new PresenceMemory(this.state(1, presenceFields, { name: 'ppi', onReset: 'keep' }));
  readonly #localities = Array.from({ length: LOCALITIES }, (_, number) => new Locality(this.#state, number));
  readonly #irq = this.unlistedOutput('irq');
  readonly #tpm: AttachedTpm;
  /** Bytes of a command or an answer; 0 while there is no TPM that works. */
  #messageMax = 0;
  /** Counts starts of the TPM: an answer to what was asked before one is nobody's. */
  #era = 0;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    const tpmState = this.state(1, tpmStateFields, { name: 'tpm' });
    this.#tpm = new AttachedTpm(this.props.tpmdev, this.services, tpmState);
  }

  protected override realize(): void {
    const { irq, ppi } = this.props;
    this.onUnrealize(this.#tpm.claim(this));
    if (irq > 15) throw new SouthbridgeError('ERR_TPM', `IRQ ${irq} is outside valid range of 0 to 15`);
    this.connectIrq(this.#irq, irq);
    this.memoryWindow(
      TPM_BASE,
      MemoryRegion.io('tpm-tis-mmio', LOCALITIES << LOCALITY_SHIFT, {
        read: (offset, size) => this.#read(offset, size),
        write: (offset, size, value) => this.#write(offset, size, value),
      }),
    );
    if (ppi) this.memoryWindow(PPI_BASE, this.#presence.region);
  }

  protected override resetHold(): void {
    this.#era++;
    if (this.props.ppi) this.#presence.reset(this.isaBus.dmaSpace);
    this.#messageMax = this.#tpm.startUp(BUFFER_SIZE);
    for (const locality of this.#localities) {
      locality.access = ACCESS.TPM_REG_VALID_STS;
      locality.sts = this.#tpm.version === '2.0' ? STS.TPM_FAMILY_2_0 : 0;
      locality.interfaceId = INTERFACE_ID[this.#tpm.version];
      locality.intEnable = INT.POLARITY_LOW_LEVEL;
    }
  }

  override save(): SavedRecord {
    return this.#tpm.saving(() => super.save());
  }

  protected override restored(): void {
    this.#era++;
    this.#tpm.restored();
  }

  #locality(number: number): Locality | undefined {
    return this.#localities[number];
  }

  // Registers

  #read(offset: number, size: number): number {
    const locality = this.#locality(offset >>> LOCALITY_SHIFT);
    if (locality === undefined || this.#messageMax === 0) return 0;
    const register = offset & 0xffc;
    const value = isFifo(register)
      ? this.#readFifo(locality, Math.min(size, 4 - (offset & 3)))
      : this.#register(locality, register, size) >>> (8 * (offset & 3));
    return (value & maskOf(size)) >>> 0;
  }

  #register(locality: Locality, register: number, size: number): number {
    switch (register) {
      case TIS_REG.ACCESS:
        return this.#access(locality);
      case TIS_REG.INT_ENABLE:
        return locality.intEnable;
      case TIS_REG.INT_VECTOR:
        return this.props.irq;
      case TIS_REG.INT_STATUS:
        return locality.intStatus;
      case TIS_REG.INTF_CAPABILITY:
        return INTF_CAPABILITY | INTF_VERSION[this.#tpm.version];
      case TIS_REG.STS:
        return this.#isActive(locality) ? this.#status(locality, size) : NOTHING;
      case TIS_REG.INTERFACE_ID:
        return locality.interfaceId;
      case TIS_REG.DID_VID:
        return DID_VID;
      case TIS_REG.RID:
        return RID;
      default:
        return NOTHING;
    }
  }

  #write(offset: number, size: number, value: number): void {
    const locality = this.#locality(offset >>> LOCALITY_SHIFT);
    if (locality === undefined || locality.number === HARDWARE_LOCALITY || this.#messageMax === 0) return;
    const register = offset & 0xffc;
    const shift = 8 * (offset & 3);
    const shifted = (value << shift) >>> 0;
    if (register === TIS_REG.ACCESS) this.#writeAccess(locality, shifted);
    else if (register === TIS_REG.INTERFACE_ID) this.#lockInterface(shifted);
    else if (!this.#isActive(locality)) return;
    else if (isFifo(register)) this.#writeFifo(locality, Math.min(size, 4 - (offset & 3)), value);
    else if (register === TIS_REG.INT_ENABLE) this.#enableInterrupts(locality, shifted, maskOf(size) << shift);
    else if (register === TIS_REG.INT_STATUS) this.#clearInterrupts(locality, shifted);
    else if (register === TIS_REG.STS) this.#writeStatus(locality, shifted);
  }

  #isActive(locality: Locality): boolean {
    return this.#state.activeLocality === locality.number;
  }

  #lockInterface(value: number): void {
    if ((value & INTF_SEL_LOCK) === 0) return;
    for (const locality of this.#localities) locality.interfaceId |= INTF_SEL_LOCK;
  }

  // Localities (5.5.2.5 ACCESS)

  #access(locality: Locality): number {
    const pending = this.#localities.some(other => other !== locality && (other.access & ACCESS.REQUEST_USE) !== 0);
    return (
      (locality.access & ~ACCESS.SEIZE) |
      (pending ? ACCESS.PENDING_REQUEST : 0) |
      (this.props.tpmdev?.established === true ? 0 : ACCESS.TPM_ESTABLISHMENT)
    );
  }

  #writeAccess(locality: Locality, value: number): void {
    const seize = (value & ACCESS.SEIZE) !== 0;
    if ((value & ACCESS.ACTIVE_LOCALITY) !== 0 && !seize) this.#relinquish(locality);
    if ((value & ACCESS.BEEN_SEIZED) !== 0) locality.access &= ~ACCESS.BEEN_SEIZED;
    if (seize) this.#seize(locality);
    else if ((value & ACCESS.REQUEST_USE) !== 0 && !this.#isActive(locality)) {
      if (this.#locality(this.#state.activeLocality) === undefined) this.#activate(locality.number);
      else locality.access |= ACCESS.REQUEST_USE;
    }
  }

  /** The highest one that asked is next. */
  #relinquish(locality: Locality): void {
    if (!this.#isActive(locality)) {
      locality.access &= ~ACCESS.REQUEST_USE;
      return;
    }
    const next = this.#localities.findLast(other => (other.access & ACCESS.REQUEST_USE) !== 0);
    if (next === undefined) this.#activate(NO_LOCALITY);
    else this.#abortFor(locality.number, next.number);
  }

  /** A higher locality takes it from a lower one. */
  #seize(locality: Locality): void {
    const { activeLocality } = this.#state;
    if (this.#locality(activeLocality) !== undefined && locality.number <= activeLocality) return;
    if (this.#localities.some(other => other.number >= locality.number && (other.access & ACCESS.SEIZE) !== 0)) return;
    for (const other of this.#localities) if (other.number < locality.number) other.access &= ~ACCESS.SEIZE;
    locality.access |= ACCESS.SEIZE;
    this.#abortFor(activeLocality, locality.number);
  }

  #activate(number: number): void {
    const previous = this.#locality(this.#state.activeLocality);
    const next = this.#locality(number);
    const changes = this.#state.activeLocality !== number;
    if (changes && previous !== undefined) {
      const seized = next !== undefined && (next.access & ACCESS.SEIZE) !== 0;
      previous.access &= ~ACCESS.ACTIVE_LOCALITY;
      if (seized) previous.access |= ACCESS.BEEN_SEIZED;
      else previous.access &= ~ACCESS.REQUEST_USE;
    }
    this.#state.activeLocality = number;
    if (next === undefined) return;
    next.access = (next.access | ACCESS.ACTIVE_LOCALITY) & ~(ACCESS.REQUEST_USE | ACCESS.SEIZE);
    if (changes) this.#raise(next, INT.LOCALITY_CHANGE);
  }

  /** Makes `next` active, and `aborting` ready; where a command is being executed, once it has ended. */
  #abortFor(aborting: number, next: number): void {
    this.#state.abortingLocality = aborting;
    this.#state.nextLocality = next;
    if (this.#localities.some(({ phase }) => phase === PHASE.EXECUTION)) this.props.tpmdev?.cancel();
    else this.#abort();
  }

  #abort(): void {
    const { abortingLocality, nextLocality } = this.#state;
    const aborting = this.#locality(abortingLocality);
    this.#state.position = 0;
    if (aborting !== undefined && abortingLocality === nextLocality) {
      aborting.phase = PHASE.READY;
      setStatus(aborting, STS.COMMAND_READY);
      this.#raise(aborting, INT.COMMAND_READY);
    }
    this.#activate(nextLocality);
    this.#state.nextLocality = NO_LOCALITY;
    this.#state.abortingLocality = NO_LOCALITY;
  }

  // Interrupts (5.5.2.6 to 5.5.2.8)

  #raise(locality: Locality, interrupts: number): void {
    const { intEnable } = locality;
    if ((intEnable & INT.GLOBAL_ENABLE) === 0 || (intEnable & interrupts) === 0) return;
    locality.intStatus |= interrupts;
    this.#irq.raise();
  }

  #enableInterrupts(locality: Locality, value: number, written: number): void {
    locality.intEnable = (locality.intEnable & ~written) | (value & (INT.GLOBAL_ENABLE | INT.POLARITY | INTERRUPTS));
  }

  #clearInterrupts(locality: Locality, value: number): void {
    const cleared = value & INTERRUPTS;
    if (cleared === 0 || locality.intStatus === 0) return;
    locality.intStatus &= ~cleared;
    if (locality.intStatus === 0) this.#irq.lower();
  }

  // Status (5.5.2.9)

  #status(locality: Locality, size: number): number {
    const { buffer, position } = this.#state;
    const messageMax = this.#messageMax;
    const answers = (locality.sts & STS.DATA_AVAIL) !== 0;
    const end = answers ? Math.min(messageSize(buffer), messageMax) : messageMax;
    const left = Math.max(0, end - position);
    // The count's low byte alone must not say 0 where there is room.
    const burstCount = !answers && size === 1 ? Math.min(left, 0xff) : left;
    return (locality.sts | (burstCount << STS.BURST_COUNT_SHIFT)) >>> 0;
  }

  #writeStatus(locality: Locality, value: number): void {
    if (this.#tpm.version === '2.0') {
      if ((value & STS.COMMAND_CANCEL) !== 0 && locality.phase === PHASE.EXECUTION) this.props.tpmdev?.cancel();
      if ((value & STS.RESET_ESTABLISHMENT) !== 0 && locality.number >= TRUSTED_LOCALITY)
        this.props.tpmdev?.resetEstablished();
    }
    // One at a time; anything else is ignored.
    switch (value & (STS.COMMAND_READY | STS.TPM_GO | STS.RESPONSE_RETRY)) {
      case STS.COMMAND_READY:
        this.#makeReady(locality);
        break;
      case STS.TPM_GO:
        if (locality.phase === PHASE.RECEPTION && (locality.sts & STS.EXPECT) === 0) this.#execute(locality);
        break;
      case STS.RESPONSE_RETRY:
        if (locality.phase !== PHASE.COMPLETION) break;
        this.#state.position = 0;
        setStatus(locality, STS.STS_VALID | STS.DATA_AVAIL);
        break;
    }
  }

  #makeReady(locality: Locality): void {
    const { phase } = locality;
    if (phase === PHASE.EXECUTION || phase === PHASE.RECEPTION) {
      this.#abortFor(locality.number, locality.number);
      return;
    }
    if (phase !== PHASE.IDLE) this.#state.position = 0;
    if (phase === PHASE.READY) return;
    locality.phase = PHASE.READY;
    setStatus(locality, STS.COMMAND_READY);
    this.#raise(locality, INT.COMMAND_READY);
  }

  #execute(locality: Locality): void {
    const state = this.#state;
    const era = this.#era;
    locality.phase = PHASE.EXECUTION;
    const room = state.buffer.subarray(0, this.#messageMax);
    this.props.tpmdev?.deliver(locality.number, room, state.position, (_, selfTestDone) => {
      if (era === this.#era) this.#completed(locality, selfTestDone);
    });
  }

  #completed(locality: Locality, selfTestDone: boolean): void {
    if (selfTestDone) for (const each of this.#localities) each.sts |= STS.SELF_TEST_DONE;
    setStatus(locality, STS.STS_VALID | STS.DATA_AVAIL);
    locality.phase = PHASE.COMPLETION;
    this.#state.position = 0;
    if (this.#locality(this.#state.nextLocality) !== undefined) this.#abort();
    this.#raise(locality, INT.DATA_AVAIL | INT.STS_VALID);
  }

  // The FIFO (5.5.2.10)

  #readFifo(locality: Locality, size: number): number {
    if (!this.#isActive(locality)) return NOTHING;
    let value = 0;
    for (let at = 0; at < size; at++) value |= this.#takeByte(locality) << (8 * at);
    return value >>> 0;
  }

  #takeByte(locality: Locality): number {
    const state = this.#state;
    if (locality.phase !== PHASE.COMPLETION || (locality.sts & STS.DATA_AVAIL) === 0) return NO_DATA;
    const byte = state.buffer[state.position++] ?? NO_DATA;
    if (state.position >= Math.min(messageSize(state.buffer), this.#messageMax)) {
      setStatus(locality, STS.STS_VALID);
      this.#raise(locality, INT.STS_VALID);
    }
    return byte;
  }

  #writeFifo(locality: Locality, size: number, value: number): void {
    const state = this.#state;
    if (locality.phase !== PHASE.READY && locality.phase !== PHASE.RECEPTION) return;
    if (locality.phase === PHASE.READY) {
      locality.phase = PHASE.RECEPTION;
      setStatus(locality, STS.EXPECT | STS.STS_VALID);
    }
    for (let at = 0; at < size && (locality.sts & STS.EXPECT) !== 0; at++) {
      if (state.position < this.#messageMax) state.buffer[state.position++] = value >>> (8 * at);
      else setStatus(locality, STS.STS_VALID);
    }
    const complete = state.position >= SIZE_KNOWN && messageSize(state.buffer) <= state.position;
    if (complete && (locality.sts & STS.EXPECT) !== 0) setStatus(locality, STS.STS_VALID);
  }
}

/** STS changes but for what stays true of the TPM. */
function setStatus(locality: Locality, flags: number): void {
  locality.sts = (locality.sts & (STS.SELF_TEST_DONE | STS.TPM_FAMILY)) | flags;
}

const maskOf = (size: number): number => (size === 4 ? -1 : (1 << (8 * size)) - 1);

export const tpmTis = deviceType({
  type: 'tpm-tis',
  summary: 'TPM behind a FIFO (TPM Interface Specification)',
  bus: 'ISA',
  category: 'misc',
  parents: ['isa-device', 'device'],
  properties,
  create: TpmTis,
});
