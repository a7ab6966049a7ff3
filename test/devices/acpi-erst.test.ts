/** The error record store, driven through its ACPI table as an operating system drives it. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { ERST_ACTION as DO, erst } from '../../core/firmware/erst.ts';
import { SharedRam } from '../../core/memory/guest-ram.ts';
import type { MemoryBackend } from '../../core/memory/memory-backend.ts';
import { Bench } from '../../core/testing/bench.ts';
import { acpiErst, ERST_STATUS as STATUS } from '../../devices/acpi-erst/acpi-erst.ts';
import { RunningProgram, runToEnd } from '../core/control/program.ts';

const SLOT = 8192;
const SLOTS = 4;

/** Memory with room for three records beside its header. */
function memory(size = SLOTS * SLOT): MemoryBackend & { readonly ram: SharedRam } {
  const ram = new SharedRam('store', size);
  return {
    id: 'store',
    size,
    alignment: 4096,
    path: '/objects/store',
    mapped: false,
    claim: () => () => {},
    contents: () => [ram],
    sync: done => done(false),
    discard: (offset, length) => ram.bytes.fill(0, offset, offset + length),
    ram,
  };
}

/** ERST as apei/erst-base.c of Linux uses it: all it knows of the device is the table. */
class Driver {
  readonly lab: Bench;
  readonly #table: DataView;
  readonly #registers: number;

  constructor(backend: MemoryBackend) {
    this.lab = new Bench({ backends: { find: () => backend } });
    const card = this.lab.pci(acpiErst, { memdev: 'store' });
    this.#registers = card.readConfig(0x10, 4);
    const { body } = erst(this.#registers);
    this.#table = new DataView(body.buffer, body.byteOffset, body.length);
  }

  /** Runs the instructions of an action (ACPI 6.4, section 18.5.1.2); returns what it reads last. */
  act(action: number, value = 0n): bigint {
    let result = 0n;
    const count = this.#table.getUint32(8, true);
    for (let entry = 12; entry < 12 + count * 32; entry += 32) {
      if (this.#table.getUint8(entry) !== action) continue;
      const instruction = this.#table.getUint8(entry + 1);
      const bits = this.#table.getUint8(entry + 5);
      const address = Number(this.#table.getBigUint64(entry + 8, true));
      const constant = this.#table.getBigUint64(entry + 16, true);
      const mask = this.#table.getBigUint64(entry + 24, true);
      if (instruction <= 1) result = this.#read(address, bits) & mask;
      else this.#write(address, bits, (instruction === 2 ? value : constant) & mask);
      if (instruction === 1) result = result === constant ? 1n : 0n;
    }
    return result;
  }

  /** 18.5.2: begin, offset, execute, wait, status, end. */
  operate(begin: number, offset = 0n): number {
    this.act(begin);
    this.act(DO.SET_RECORD_OFFSET, offset);
    this.act(DO.EXECUTE_OPERATION);
    t.equal(this.act(DO.CHECK_BUSY_STATUS), 0n);
    const status = Number(this.act(DO.GET_COMMAND_STATUS));
    this.act(DO.END_OPERATION);
    return status;
  }

  get exchange(): number {
    return Number(this.act(DO.GET_ERROR_LOG_ADDRESS_RANGE));
  }

  /** Hands a record over: a Common Platform Error Record with nothing but what the store looks at. */
  write(identifier: bigint, length = 200, fill = 0x55): number {
    const record = new Uint8Array(Math.max(128, length)).fill(fill);
    const view = new DataView(record.buffer);
    view.setUint32(20, length, true);
    view.setBigUint64(96, identifier, true);
    this.lab.machine.memory.writeBytes(this.exchange, record, 0, Math.min(SLOT, record.length));
    return this.operate(DO.BEGIN_WRITE_OPERATION);
  }

  read(identifier: bigint): { readonly status: number; readonly byte: number; readonly identifier: bigint } {
    this.act(DO.SET_RECORD_IDENTIFIER, identifier);
    const status = this.operate(DO.BEGIN_READ_OPERATION);
    const record = new Uint8Array(200);
    this.lab.machine.memory.readBytes(this.exchange, record, 0, record.length);
    return { status, byte: record[199] ?? 0, identifier: new DataView(record.buffer).getBigUint64(96, true) };
  }

  clear(identifier: bigint): number {
    this.act(DO.SET_RECORD_IDENTIFIER, identifier);
    return this.operate(DO.BEGIN_CLEAR_OPERATION);
  }

  get count(): bigint {
    return this.act(DO.GET_RECORD_COUNT);
  }

  #read(address: number, bits: number): bigint {
    const { memory: space } = this.lab.machine;
    const low = BigInt(space.read(address, 4));
    return bits === 64 ? low | (BigInt(space.read(address + 4, 4)) << 32n) : low;
  }

  #write(address: number, bits: number, value: bigint): void {
    const { memory: space } = this.lab.machine;
    space.write(address, 4, Number(value & 0xffff_ffffn));
    if (bits === 64) space.write(address + 4, 4, Number(value >> 32n));
  }
}

t.test('records are written, found, gone through and cleared', async t => {
  const store = new Driver(memory());
  t.equal(store.act(DO.GET_ERROR_LOG_ADDRESS_RANGE_LENGTH), BigInt(SLOT));
  t.equal(store.act(DO.GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES), 0n);
  t.equal(store.act(DO.GET_EXECUTE_OPERATION_TIMINGS) >> 32n, 100n);
  t.equal(store.read(1n).status, STATUS.RECORD_STORE_EMPTY);
  t.equal(store.act(DO.GET_RECORD_IDENTIFIER), 0xffff_ffff_ffff_ffffn);

  t.equal(store.write(0x1_0000_0001n, 200, 0x11), STATUS.SUCCESS);
  t.equal(store.write(2n, 200, 0x22), STATUS.SUCCESS);
  t.equal(store.write(3n, 200, 0x33), STATUS.SUCCESS);
  t.equal(store.count, 3n);
  t.equal(store.write(4n), STATUS.NOT_ENOUGH_SPACE);
  t.equal(store.write(2n, 200, 0x44), STATUS.SUCCESS, 'the same record again');
  t.equal(store.count, 3n);
  t.same(store.read(2n), { status: STATUS.SUCCESS, byte: 0x44, identifier: 2n });
  t.same(store.read(0n), { status: STATUS.SUCCESS, byte: 0x11, identifier: 0x1_0000_0001n }, 'the first there is');
  t.equal(store.read(9n).status, STATUS.RECORD_NOT_FOUND);

  const found = Array.from({ length: 4 }, () => store.act(DO.GET_RECORD_IDENTIFIER));
  t.same(found, [2n, 3n, 0xffff_ffff_ffff_ffffn, 0x1_0000_0001n], 'from behind the first, to the end, and again');

  t.equal(store.clear(2n), STATUS.SUCCESS);
  t.equal(store.clear(2n), STATUS.RECORD_NOT_FOUND);
  t.equal(store.clear(0n), STATUS.FAILED);
  t.equal(store.count, 2n);
  t.equal(store.write(5n), STATUS.SUCCESS, 'the slot is free again');
  t.equal(store.operate(DO.BEGIN_DUMMY_WRITE_OPERATION), STATUS.SUCCESS);
});

t.test('what makes no record is refused', async t => {
  const store = new Driver(memory());
  t.equal(store.write(1n, 127), STATUS.FAILED, 'shorter than its header');
  t.equal(store.write(1n, SLOT + 1), STATUS.FAILED, 'longer than the exchange');
  t.equal(store.write(1n, SLOT), STATUS.SUCCESS, 'as long as there is room');
  t.equal(store.write(0n), STATUS.FAILED);
  t.equal(store.write(0xffff_ffff_ffff_ffffn), STATUS.FAILED);
  t.equal(store.operate(DO.BEGIN_WRITE_OPERATION, BigInt(SLOT - 127)), STATUS.FAILED, 'no room for a header');
  t.equal(store.operate(DO.BEGIN_WRITE_OPERATION, 0xffff_ffffn), STATUS.FAILED);
  t.equal(store.operate(0x20), STATUS.SUCCESS, 'an action that there is not changes nothing: the end it was');
});

t.test('a store is checked before it is used', async t => {
  const refusal = (damage: (view: DataView) => void, size?: number): unknown => {
    const backend = memory(size);
    damage(backend.ram.view);
    try {
      new Driver(backend);
      return undefined;
    } catch (error) {
      return error;
    }
  };
  const good = (view: DataView): void => {
    view.setBigUint64(0, 0x524f_5453_5453_5245n, true);
    view.setUint32(8, SLOT, true);
    view.setUint32(12, SLOT, true);
    view.setUint16(16, 0x100, true);
  };
  t.equal(refusal(good), undefined);
  t.match(
    refusal(view => view.setUint32(0, 1)),
    { code: 'ERR_ERST_STORE' },
  );
  for (const [offset, value] of [
    [8, 4095],
    [8, 12288],
    [12, 100],
    [12, 0],
    [12, 0x8000_0000],
    [16, 0x200],
  ] as const)
    t.match(
      refusal(view => (good(view), view.setUint32(offset, value, true))),
      { code: 'ERR_ERST_STORE' },
      `${offset}`,
    );
  t.match(
    refusal(() => {}, SLOT + 4096),
    { message: 'ACPI ERST requires storage size be multiple of record size (8KiB)' },
  );
});

t.test('records outlive the machine in a file', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-erst-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'store');
  const options = (size: string): string[] => [
    ...['-machine', 'pc', '-nodefaults', '-object'],
    `memory-backend-file,id=nvram,mem-path=${path},size=${size},share=on`,
    ...['-device', 'acpi-erst,memdev=nvram'],
  ];
  const program = await RunningProgram.start(...options('64K'));
  await program.execute('qmp_capabilities');
  t.match(await program.execute('object-del', { id: 'nvram' }), { error: { desc: /in use/ } });
  await program.stop();
  const image = readFileSync(path);
  t.equal(image.length, 65536);
  t.equal(image.toString('latin1', 0, 8), 'ERSTSTOR');
  t.match(await runToEnd(...options('128K')), {
    code: 1,
    errors: /backing store size 0x10000 does not match 'size' option 0x20000/,
  });
  writeFileSync(path, Buffer.alloc(65536, 1));
  t.match(await runToEnd(...options('64K')), { code: 1, errors: /ERST record_size 16843009 is invalid/ });
});
