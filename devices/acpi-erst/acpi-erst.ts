import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { ERST_ACTION, ERST_EXECUTE, ERST_REGISTERS } from '../../core/firmware/erst.ts';
import { SharedRam } from '../../core/memory/guest-ram.ts';
import type { MemoryBackend } from '../../core/memory/memory-backend.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { type Registers, r32, r64, registerMap } from '../../core/register/register.ts';
import { field } from '../../core/state/fields.ts';
import { END_OF_RECORDS, isIdentifier, RecordStore, UNSPECIFIED } from './record-store.ts';

/** QEMU docs/specs/acpi_erst: a write to ACTION does something with VALUE. */
export const acpiErstRegisters = registerMap('acpi-erst', {
  ACTION: r32(ERST_REGISTERS.ACTION, {}, { access: 'wo' }),
  VALUE: r64(ERST_REGISTERS.VALUE, {}, { doc: 'what an action takes or gives' }),
});

/** Command status (ACPI 6.4, table 18.25). */
export const ERST_STATUS = {
  SUCCESS: 0,
  NOT_ENOUGH_SPACE: 1,
  HARDWARE_NOT_AVAILABLE: 2,
  FAILED: 3,
  RECORD_STORE_EMPTY: 4,
  RECORD_NOT_FOUND: 5,
} as const;

/** What the device reads of a record (UEFI 2.10, appendix N.2.1). */
const RECORD_LENGTH = 20;
const RECORD_ID = 96;
const RECORD_HEADER_SIZE = 128;

/** Microseconds that an operation takes: typical in the low half, the most in the high one. */
const OPERATION_TIMINGS = (100n << 32n) | 10n;
const DEFAULT_RECORD_SIZE = 8192;

const properties = {
  memdev: prop.backend<MemoryBackend>('memory-backend', { help: 'id of the memory backend that keeps the records' }),
  record_size: prop.u32({ default: DEFAULT_RECORD_SIZE, help: 'bytes of a record in a new store, a power of two' }),
};

/** Keeps error records of the guest's kernel through crashes and resets (ACPI 6.4, section 18.5). */
class AcpiErst extends PciDevice<typeof properties> {
  readonly #regs: Registers<typeof acpiErstRegisters> = this.bind(acpiErstRegisters, {
    ACTION: { wrote: action => this.#act(action) },
  });
  readonly #state = this.state(1, {
    operation: field.u8(),
    status: field.u8(),
    recordOffset: field.u32(),
    recordIdentifier: field.u64(UNSPECIFIED),
    nextSlot: field.u32(),
  });
  readonly #store: RecordStore = this.#openStore();
  /** Where records are handed over. */
  readonly #exchange = new SharedRam('erst.exchange', this.#store.recordSize);

  protected override realize(): void {
    const { services } = this;
    const size = this.#exchange.size;
    this.bar(1, MemoryRegion.ram(this.#exchange), { size });
    this.onUnrealize(services.guestRam(this.#exchange));
  }

  #openStore(): RecordStore {
    const { memdev, record_size } = this.props;
    if (memdev === undefined) throw new SouthbridgeError('ERR_ERST_STORE', "'memdev' property is not set");
    if (memdev.mapped) throw new SouthbridgeError('ERR_ERST_STORE', `can't use already busy memdev: ${memdev.id}`);
    const [ram] = memdev.contents();
    if (ram === undefined) throw new SouthbridgeError('ERR_ERST_STORE', `memory backend '${memdev.id}' is empty`);
    const store = new RecordStore(ram, record_size);
    this.onUnrealize(memdev.claim());
    this.onUnrealize(this.services.guestRam(ram));
    return store;
  }

  #act(action: number): void {
    const state = this.#state;
    const { VALUE } = this.#regs;
    switch (action) {
      case ERST_ACTION.BEGIN_WRITE_OPERATION:
      case ERST_ACTION.BEGIN_READ_OPERATION:
      case ERST_ACTION.BEGIN_CLEAR_OPERATION:
      case ERST_ACTION.BEGIN_DUMMY_WRITE_OPERATION:
      case ERST_ACTION.END_OPERATION:
        state.operation = action;
        break;
      case ERST_ACTION.SET_RECORD_OFFSET:
        state.recordOffset = Number(VALUE.value & 0xffff_ffffn);
        break;
      case ERST_ACTION.EXECUTE_OPERATION:
        if ((VALUE.value & 0xffn) === BigInt(ERST_EXECUTE)) state.status = this.#execute();
        break;
      case ERST_ACTION.CHECK_BUSY_STATUS:
        VALUE.value = 0n;
        break;
      case ERST_ACTION.GET_COMMAND_STATUS:
        VALUE.value = BigInt(state.status);
        break;
      case ERST_ACTION.GET_RECORD_IDENTIFIER:
        VALUE.value = this.#nextIdentifier();
        state.status = ERST_STATUS.SUCCESS;
        break;
      case ERST_ACTION.SET_RECORD_IDENTIFIER:
        state.recordIdentifier = VALUE.value;
        break;
      case ERST_ACTION.GET_RECORD_COUNT:
        VALUE.value = BigInt(this.#store.count);
        break;
      case ERST_ACTION.GET_ERROR_LOG_ADDRESS_RANGE:
        VALUE.value = BigInt.asUintN(64, BigInt(this.bars[1]?.address ?? -1));
        break;
      case ERST_ACTION.GET_ERROR_LOG_ADDRESS_RANGE_LENGTH:
        VALUE.value = BigInt(this.#store.recordSize);
        break;
      case ERST_ACTION.GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES:
        VALUE.value = 0n; // no memory that keeps its contents by itself: records go through the exchange
        break;
      case ERST_ACTION.GET_EXECUTE_OPERATION_TIMINGS:
        VALUE.value = OPERATION_TIMINGS;
        break;
    }
  }

  #execute(): number {
    switch (this.#state.operation) {
      case ERST_ACTION.BEGIN_WRITE_OPERATION:
        return this.#write();
      case ERST_ACTION.BEGIN_READ_OPERATION:
        return this.#read();
      case ERST_ACTION.BEGIN_CLEAR_OPERATION:
        return this.#clear();
      case ERST_ACTION.BEGIN_DUMMY_WRITE_OPERATION:
      case ERST_ACTION.END_OPERATION:
        return ERST_STATUS.SUCCESS;
      default:
        return ERST_STATUS.FAILED;
    }
  }

  /** Room in the exchange from the offset that was set; undefined where not even a record's header fits. */
  get #room(): number | undefined {
    const room = this.#exchange.size - this.#state.recordOffset;
    return room < RECORD_HEADER_SIZE ? undefined : room;
  }

  /** 18.5.2.1 Writing. */
  #write(): number {
    const room = this.#room;
    if (room === undefined) return ERST_STATUS.FAILED;
    // Copied, as another CPU may write to the exchange meanwhile.
    const { recordOffset } = this.#state;
    const given = this.#exchange.bytes.slice(recordOffset, recordOffset + room);
    const view = new DataView(given.buffer);
    const length = view.getUint32(RECORD_LENGTH, true);
    const identifier = view.getBigUint64(RECORD_ID, true);
    if (length < RECORD_HEADER_SIZE || length > room || !isIdentifier(identifier)) return ERST_STATUS.FAILED;
    const slot = this.#store.find(identifier) ?? this.#store.free();
    if (slot === undefined) return ERST_STATUS.NOT_ENOUGH_SPACE;
    this.#store.put(slot, identifier, given.subarray(0, length));
    return ERST_STATUS.SUCCESS;
  }

  /** 18.5.2.2 Reading. */
  #read(): number {
    const state = this.#state;
    if (this.#store.count === 0) return ERST_STATUS.RECORD_STORE_EMPTY;
    if (state.recordIdentifier === UNSPECIFIED) state.recordIdentifier = this.#firstIdentifier();
    const room = this.#room;
    if (state.recordIdentifier === END_OF_RECORDS || room === undefined) return ERST_STATUS.FAILED;
    const slot = this.#store.find(state.recordIdentifier);
    if (slot === undefined) {
      state.recordIdentifier = this.#firstIdentifier();
      return ERST_STATUS.RECORD_NOT_FOUND;
    }
    const record = this.#store.slot(slot);
    const length = new DataView(record.buffer, record.byteOffset, record.length).getUint32(RECORD_LENGTH, true);
    if (length < RECORD_HEADER_SIZE || length > room) return ERST_STATUS.FAILED;
    this.#exchange.bytes.set(record.subarray(0, length), state.recordOffset);
    return ERST_STATUS.SUCCESS;
  }

  /** 18.5.2.3 Clearing. */
  #clear(): number {
    const { recordIdentifier } = this.#state;
    if (!isIdentifier(recordIdentifier)) return ERST_STATUS.FAILED;
    const slot = this.#store.find(recordIdentifier);
    if (slot === undefined) return ERST_STATUS.RECORD_NOT_FOUND;
    this.#store.remove(slot);
    return ERST_STATUS.SUCCESS;
  }

  #firstIdentifier(): bigint {
    this.#state.nextSlot = 0;
    return this.#nextIdentifier();
  }

  /** Goes through the records, one a call; behind the last it begins again. */
  #nextIdentifier(): bigint {
    const store = this.#store;
    const slot = store.count === 0 ? undefined : store.occupied(this.#state.nextSlot);
    this.#state.nextSlot = slot === undefined ? 0 : slot + 1;
    return slot === undefined ? END_OF_RECORDS : store.identifierAt(slot);
  }
}

export const acpiErst = deviceType({
  type: 'acpi-erst',
  summary: 'ACPI Error Record Serialization Table (ERST) device',
  properties,
  hotpluggable: false,
  pci: { vendor: 0x1b36, device: 0x0012, class: 0xff0000 },
  bars: { 0: { size: 16, map: acpiErstRegisters } },
  create: AcpiErst,
});
