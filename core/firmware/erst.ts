/** Error Record Serialization Table (ACPI 6.4 section 18.5.1): how software reaches the store of error records. */
import type { TableContent } from './acpi-blob.ts';
import { concat, u32, u64 } from './aml.ts';

/** Serialization actions (table 18.22). */
export const ERST_ACTION = {
  BEGIN_WRITE_OPERATION: 0x0,
  BEGIN_READ_OPERATION: 0x1,
  BEGIN_CLEAR_OPERATION: 0x2,
  END_OPERATION: 0x3,
  SET_RECORD_OFFSET: 0x4,
  EXECUTE_OPERATION: 0x5,
  CHECK_BUSY_STATUS: 0x6,
  GET_COMMAND_STATUS: 0x7,
  GET_RECORD_IDENTIFIER: 0x8,
  SET_RECORD_IDENTIFIER: 0x9,
  GET_RECORD_COUNT: 0xa,
  BEGIN_DUMMY_WRITE_OPERATION: 0xb,
  GET_ERROR_LOG_ADDRESS_RANGE: 0xd,
  GET_ERROR_LOG_ADDRESS_RANGE_LENGTH: 0xe,
  GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES: 0xf,
  GET_EXECUTE_OPERATION_TIMINGS: 0x10,
} as const;

/** Serialization instructions (table 18.24), as far as they are used. */
const INSTRUCTION = {
  READ_REGISTER: 0x00,
  READ_REGISTER_VALUE: 0x01,
  WRITE_REGISTER: 0x02,
  WRITE_REGISTER_VALUE: 0x03,
} as const;

/** Registers of the device (QEMU docs/specs/acpi_erst): what is to be done, and with which value. */
export const ERST_REGISTERS = { ACTION: 0, VALUE: 8 } as const;
/** What VALUE holds when an operation is to be executed. */
export const ERST_EXECUTE = 0x9c;
const BUSY = 1;

const HEADER_SIZE = 48;
const ENTRY_SIZE = 32;
const SYSTEM_MEMORY = 0;

/** @param base physical address of the device's registers */
export function erst(base: number): TableContent {
  /** One instruction entry (table 18.23). */
  const entry = (action: number, instruction: number, register: number, bits: 32 | 64, value: number): Uint8Array =>
    concat(
      [action, instruction, 0, 0],
      [SYSTEM_MEMORY, bits, 0, bits === 32 ? 3 : 4],
      u64(base + register),
      u64(value),
      u64(bits === 32 ? 0xffff_ffff : 0xffff_ffff_ffff_ffffn),
    );
  const { ACTION, VALUE } = ERST_REGISTERS;
  const act = (action: number): Uint8Array => entry(action, INSTRUCTION.WRITE_REGISTER_VALUE, ACTION, 32, action);
  const give = (action: number, bits: 32 | 64): Uint8Array => entry(action, INSTRUCTION.WRITE_REGISTER, VALUE, bits, 0);
  const take = (action: number, bits: 32 | 64): Uint8Array => entry(action, INSTRUCTION.READ_REGISTER, VALUE, bits, 0);

  const is = ERST_ACTION;
  const entries = [
    act(is.BEGIN_WRITE_OPERATION),
    act(is.BEGIN_READ_OPERATION),
    act(is.BEGIN_CLEAR_OPERATION),
    act(is.END_OPERATION),
    give(is.SET_RECORD_OFFSET, 32),
    act(is.SET_RECORD_OFFSET),
    entry(is.EXECUTE_OPERATION, INSTRUCTION.WRITE_REGISTER_VALUE, VALUE, 32, ERST_EXECUTE),
    act(is.EXECUTE_OPERATION),
    act(is.CHECK_BUSY_STATUS),
    entry(is.CHECK_BUSY_STATUS, INSTRUCTION.READ_REGISTER_VALUE, VALUE, 32, BUSY),
    act(is.GET_COMMAND_STATUS),
    take(is.GET_COMMAND_STATUS, 32),
    act(is.GET_RECORD_IDENTIFIER),
    take(is.GET_RECORD_IDENTIFIER, 64),
    give(is.SET_RECORD_IDENTIFIER, 64),
    act(is.SET_RECORD_IDENTIFIER),
    act(is.GET_RECORD_COUNT),
    take(is.GET_RECORD_COUNT, 32),
    act(is.BEGIN_DUMMY_WRITE_OPERATION),
    act(is.GET_ERROR_LOG_ADDRESS_RANGE),
    take(is.GET_ERROR_LOG_ADDRESS_RANGE, 64),
    act(is.GET_ERROR_LOG_ADDRESS_RANGE_LENGTH),
    take(is.GET_ERROR_LOG_ADDRESS_RANGE_LENGTH, 64),
    act(is.GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES),
    take(is.GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES, 32),
    act(is.GET_EXECUTE_OPERATION_TIMINGS),
    take(is.GET_EXECUTE_OPERATION_TIMINGS, 64),
  ];
  const instructions = concat(...entries);
  return {
    signature: 'ERST',
    revision: 1,
    body: concat(u32(HEADER_SIZE), u32(0), u32(instructions.length / ENTRY_SIZE), instructions),
  };
}
