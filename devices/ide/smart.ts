import { field, type StateValues } from '../../core/state/fields.ts';
import { SECTOR } from './task-file.ts';

/** SMART subcommands and what they need in LBA Mid and High (ATA/ATAPI-6, section 8.41). */
const SUBCOMMAND = {
  READ_DATA: 0xd0,
  READ_THRESHOLDS: 0xd1,
  ATTRIBUTE_AUTOSAVE: 0xd2,
  EXECUTE_OFFLINE: 0xd4,
  READ_LOG: 0xd5,
  ENABLE: 0xd8,
  DISABLE: 0xd9,
  STATUS: 0xda,
} as const;
const KEY_MID = 0x4f;
const KEY_HIGH = 0xc2;
const LOG_SUMMARY = 0x01;
const LOG_SELF_TEST = 0x06;
const SELF_TEST_ENTRY = 24;
const SELF_TESTS_KEPT = 21;

/** Id, flags, value, worst, raw value, and the threshold in the last byte. */
const ATTRIBUTES: readonly (readonly number[])[] = [
  [0x01, 0x03, 0x00, 0x64, 0x64, 0, 0, 0, 0, 0, 0, 0x06],
  [0x03, 0x03, 0x00, 0x64, 0x64, 0x10, 0, 0, 0, 0, 0, 0x00],
  [0x04, 0x02, 0x00, 0x64, 0x64, 0x64, 0, 0, 0, 0, 0, 0x14],
  [0x05, 0x03, 0x00, 0x64, 0x64, 0, 0, 0, 0, 0, 0, 0x24],
  [0x09, 0x03, 0x00, 0x64, 0x64, 0x01, 0, 0, 0, 0, 0, 0x00],
  [0x0c, 0x03, 0x00, 0x64, 0x64, 0, 0, 0, 0, 0, 0, 0x00],
  [0xbe, 0x03, 0x00, 0x45, 0x45, 0x1f, 0, 0x1f, 0x1f, 0, 0, 0x32],
];

export const smartState = {
  enabled: field.bool(true),
  autosave: field.bool(true),
  selfTests: field.u8(),
  log: field.bytes(SECTOR),
};

interface TaskFile {
  features: number;
  lbaLow: number;
  lbaMid: number;
  lbaHigh: number;
}

/** A disk's self-monitoring: a healthy one's. */
export class Smart {
  readonly #state: () => StateValues<typeof smartState>;

  /** @param state gives the state as it is now: loading a snapshot replaces it */
  constructor(state: () => StateValues<typeof smartState>) {
    this.#state = state;
  }

  get #s(): StateValues<typeof smartState> {
    return this.#state();
  }

  /** The sector that answers, or whether the subcommand is done or not known. */
  execute(task: TaskFile): Uint8Array | 'done' | 'refused' {
    const s = this.#s;
    if (task.lbaMid !== KEY_MID || task.lbaHigh !== KEY_HIGH) return 'refused';
    if (!s.enabled && task.features !== SUBCOMMAND.ENABLE) return 'refused';
    switch (task.features) {
      case SUBCOMMAND.ENABLE:
      case SUBCOMMAND.DISABLE:
        s.enabled = task.features === SUBCOMMAND.ENABLE;
        return 'done';
      case SUBCOMMAND.ATTRIBUTE_AUTOSAVE:
        if (task.lbaLow !== 0 && task.lbaLow !== 0xf1) return 'refused';
        s.autosave = task.lbaLow !== 0;
        return 'done';
      case SUBCOMMAND.STATUS:
        return 'done';
      case SUBCOMMAND.READ_THRESHOLDS:
        return this.#sector(bytes => {
          for (const [index, [id = 0, ...rest]] of ATTRIBUTES.entries()) bytes.set([id, rest[10] ?? 0], 2 + 12 * index);
        });
      case SUBCOMMAND.READ_DATA:
        return this.#sector(bytes => this.#putData(bytes));
      case SUBCOMMAND.READ_LOG:
        return this.#log(task.lbaLow);
      case SUBCOMMAND.EXECUTE_OFFLINE:
        return this.#selfTest(task.lbaLow);
      default:
        return 'refused';
    }
  }

  /** A structure of version 1 that sums to 0. */
  #sector(fill: (bytes: Uint8Array) => void): Uint8Array {
    const bytes = new Uint8Array(SECTOR);
    bytes[0] = 1;
    fill(bytes);
    bytes[SECTOR - 1] = 0x100 - (bytes.subarray(0, SECTOR - 1).reduce((sum, byte) => sum + byte, 0) & 0xff);
    return bytes;
  }

  /** Device SMART data structure (table 49). */
  #putData(bytes: Uint8Array): void {
    const s = this.#s;
    for (const [index, attribute] of ATTRIBUTES.entries()) bytes.set(attribute.slice(0, 11), 2 + 12 * index);
    bytes[362] = 0x02 | (s.autosave ? 0x80 : 0);
    bytes[363] = s.selfTests === 0 ? 0 : (s.log[3 + (s.selfTests - 1) * SELF_TEST_ENTRY] ?? 0);
    bytes.set([0x20, 0x01], 364);
    // Off-line collection: execute immediate and self-test; capability; logging; minutes to poll for each kind of test.
    bytes.set([(1 << 4) | (1 << 3) | 1, 0x03, 0x00, 0x01], 367);
    bytes.set([0x02, 0x36, 0x01], 372);
  }

  #log(address: number): Uint8Array | 'refused' {
    const s = this.#s;
    if (address === LOG_SUMMARY) return this.#sector(() => {});
    if (address !== LOG_SELF_TEST) return 'refused';
    return this.#sector(bytes => {
      if (s.selfTests === 0) return;
      bytes.set(s.log.subarray(2, 506), 2);
      bytes[508] = s.selfTests;
    });
  }

  #selfTest(kind: number): 'done' | 'refused' {
    const s = this.#s;
    if (kind > 2) return 'refused';
    s.selfTests = s.selfTests >= SELF_TESTS_KEPT ? 1 : s.selfTests + 1;
    // The test, finished without error, at a power-on hour.
    s.log.set([kind, 0x00, 0x34, 0x12], 2 + (s.selfTests - 1) * SELF_TEST_ENTRY);
    return 'done';
  }
}
